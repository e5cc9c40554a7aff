"""Settings of a connection to an S3-compatible store, and the two clients that use them."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore.errors import translate
from dicom_deid.objectstore.listing import parse_contents
from dicom_deid.objectstore.retry import RetryPolicy

# No total timeout: the read timeout already detects stalled transfers.
_WHOLE_REQUEST = timedelta(hours=1)

_CUSTOMER_KEY_BYTES = 32

_LOGGERS_OF_KEYS = ("boto3", "botocore", "urllib3.connectionpool")
"""Loggers that log whole requests at DEBUG, including source keys, which may name patients."""

Checksum = Literal["auto", "sha256", "crc64nvme", "md5"]

_CHOICES = {"addressing_style": ("auto", "path", "virtual"), "checksum": get_args(Checksum)}

_OBSTORE_CHECKSUMS: Mapping[Checksum, str] = {"sha256": "SHA256", "crc64nvme": "CRC64NVME"}

_AWS_ENDPOINT = re.compile(r"https://[^/]+\.amazonaws\.com(\.cn)?(:443)?/?")
"""Endpoints that are known to check CRC64NVME."""


class S3Clients(NamedTuple):
    """Two clients of one bucket with the same settings: boto3 lists and checks, obstore transfers bytes."""

    client: Any
    store: S3Store


@dataclass(frozen=True, kw_only=True)
class S3Connection:
    """Every setting of a connection to an S3-compatible store. Its repr shows no secrets.

    Settings that are left out come from the same places as for boto3: the AWS environment variables and configuration
    files, the role of a container or machine.

    Parameters
    ----------
    name
        Name of the connection for messages, such as its id in Airflow.
    endpoint_url
        Of the store; None for AWS itself.
    region
        Region for signatures.
    access_key, secret_key, session_token
        Static credentials.
    session
        A boto3 session that replaces all settings of credentials above.
    addressing_style
        `path` (``endpoint/bucket/key``), `virtual` (``bucket.endpoint/key``), or `auto`: path for an `endpoint_url`,
        else as boto3 chooses.
    verify
        False to trust any certificate, or the path of a bundle of certificate authorities (PEM).
    proxies
        Proxy URLs by scheme, such as ``{"https": "http://proxy:3128"}``.
    server_side_encryption, kms_key_id, bucket_key
        Encryption of new objects: ``AES256`` or ``aws:kms``, the key, and whether a bucket key is used.
    sse_customer_secret
        Key for SSE-C, 32 bytes in base64: the store encrypts and decrypts each object with it and does not keep it.
        Large objects are not copied on the side of the store.
    storage_class
        Storage class of new objects.
    requester_pays
        Accept the charges of a requester-pays bucket.
    checksum
        `sha256`: sent with each write, for the store to check and keep. `crc64nvme`, for a store that checks it: an
        object that is written in one request carries this instead, and its bytes are not signed, so that they are
        hashed once, for the audit; use it over TLS. `auto`: `crc64nvme` for AWS itself, `sha256` for any other
        endpoint. `md5`, for a store without such checksums: parts carry Content-MD5, and the ETag of a whole object is
        compared.
    conditional_writes
        The store supports ``If-None-Match`` and ``If-Match`` of writes. If False, the key is looked up before a write
        instead, which does not detect another writer at the same instant.
    delete_versions
        In a versioned bucket, delete all versions of an object that is deleted, and the older ones of an object that is
        replaced. Otherwise they are kept.
    compare_etags
        Compare the bytes of an object that is read as a whole with its ETag where that is their MD5, or with the
        checksum that the store keeps of it. It takes 1.3 ms of processor time for 1 MB.
        TLS detects bytes that are damaged on the way, not those that a proxy that ends TLS or the store has damaged.
    connect_timeout, read_timeout
        Seconds to open a connection, and between two reads.
    retry
        How transient failures are retried.
    max_connections
        Number of connections that are kept open.
    requests_per_second, bytes_per_second
        Speed limits of each store opened on this connection; None for none.
    """

    name: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    session: boto3.session.Session | None = field(default=None, repr=False, compare=False)
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    server_side_encryption: str | None = None
    kms_key_id: str | None = None
    bucket_key: bool = False
    sse_customer_secret: str | None = field(default=None, repr=False)
    storage_class: str | None = None
    requester_pays: bool = False
    checksum: Checksum = "auto"
    conditional_writes: bool = True
    delete_versions: bool = False
    compare_etags: bool = True
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_connections: int = 64
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(f"the S3 connection's {name} must be one of: {', '.join(allowed)}")
        if self.sse_customer_secret is not None:
            self._check_customer_secret(self.sse_customer_secret)
        for name in ("requests_per_second", "bytes_per_second"):
            limit = getattr(self, name)
            if limit is not None and not (isinstance(limit, int | float) and limit > 0):
                raise ConfigurationError(f"the S3 connection's {name} must be a number above 0")

    def _check_customer_secret(self, secret: str) -> None:
        try:
            size = len(base64.b64decode(secret, validate=True))
        except ValueError:
            size = 0
        if size != _CUSTOMER_KEY_BYTES or self.server_side_encryption is not None:
            raise ConfigurationError(
                "the S3 connection's sse_customer_secret must be 32 bytes in base64, without server_side_encryption"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> S3Connection:
        """Return the connection that the standard AWS variables describe.

        Credentials and profile are left to boto3, which reads them itself, and renews them.
        """
        checksum = environment.get("AWS_REQUEST_CHECKSUM_CALCULATION", "").lower()
        return cls(
            endpoint_url=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None,
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None,
            checksum="md5" if checksum == "when_required" else "auto",
        )

    def clients(self, bucket: str) -> S3Clients:
        """Return both clients for a bucket.

        Raises
        ------
        ConfigurationError
            When a setting cannot be used, or no credentials are found.
        """
        _keep_keys_out_of_logs()
        try:
            session = self._session()
            if session.get_credentials() is None:
                raise ConfigurationError(
                    "no S3 credentials found: set them in the connection, or AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY"
                )
            client = self._boto3_client(session)
            return S3Clients(client, self._obstore_store(session, client, bucket))
        except (BotoCoreError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"the S3 connection cannot be set up ({type(error).__name__}): check its endpoint, "
                "credentials and certificate bundle"
            ) from None

    def check_credentials(self) -> None:
        """Ask the store for its buckets; it need not allow that, but must know the credentials.

        Raises
        ------
        ConfigurationError, ObjectStoreError
            The store cannot be reached, or does not accept the credentials; the message names the connection.
        """
        try:
            self._boto3_client(self._session()).list_buckets()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "AccessDenied":
                raise translate(error, f"connection {self.name}") from None
        except BotoCoreError as error:
            raise translate(error, f"connection {self.name}") from None

    @property
    def read_arguments(self) -> dict[str, Any]:
        """Arguments of every boto3 call on an object or bucket."""
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    @property
    def write_arguments(self) -> dict[str, Any]:
        """Arguments of the boto3 calls that make an object."""
        arguments = {
            "ServerSideEncryption": self.server_side_encryption,
            "SSEKMSKeyId": self.kms_key_id,
            "BucketKeyEnabled": self.bucket_key or None,
            "StorageClass": self.storage_class,
        }
        return {**self.read_arguments, **{name: value for name, value in arguments.items() if value is not None}}

    def _session(self) -> boto3.session.Session:
        if self.session is not None:
            return self.session
        return boto3.session.Session(
            botocore_session=_new_botocore_session(),
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            aws_session_token=self.session_token,
            region_name=self.region,
        )

    def _boto3_client(self, session: boto3.session.Session) -> Any:
        style = "path" if self.addressing_style == "auto" and self.endpoint_url else self.addressing_style
        config = Config(
            s3={"addressing_style": style},
            signature_version="s3v4",
            proxies=dict(self.proxies) or None,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            # Retried by `RetryPolicy`, in the same way for both clients.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=self.max_connections,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region or session.region_name or "us-east-1",
            verify=None if self.verify is True else self.verify,
            config=config,
        )
        client.meta.events.register("before-parse.s3.ListObjectsV2", parse_contents)
        if self.sse_customer_secret is not None:
            client.meta.events.register("provide-client-params.s3", self._add_customer_secret)
        return client

    def _add_customer_secret(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        """Add the key of SSE-C to the requests that take one."""
        if model.input_shape is not None and "SSECustomerKey" in model.input_shape.members:
            params["SSECustomerAlgorithm"] = "AES256"
            params["SSECustomerKey"] = base64.b64decode(self.sse_customer_secret or "")

    def _obstore_store(self, session: boto3.session.Session, client: Any, bucket: str) -> S3Store:
        # Follow what boto3 does: the configuration of an endpoint has many sources.
        url = urlsplit(client.meta.endpoint_url)
        example = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"}))
        virtual = example.netloc.startswith(f"{bucket}.")
        checksum = self.checksum
        if checksum == "auto":
            checksum = "crc64nvme" if _AWS_ENDPOINT.fullmatch(client.meta.endpoint_url) else "sha256"
        config: dict[str, Any] = {
            # An endpoint in the environment cannot override this name.
            "aws_endpoint_url_s3": url._replace(netloc=f"{bucket}.{url.netloc}").geturl() if virtual else url.geturl(),
            "virtual_hosted_style_request": virtual,
            "region": client.meta.region_name,
            "request_payer": self.requester_pays,
            "skip_signature": False,
            "unsigned_payload": checksum == "crc64nvme",
            "server_side_encryption": "sse-c" if self.sse_customer_secret else self.server_side_encryption,
            "sse_customer_key_base64": self.sse_customer_secret,
            "sse_kms_key_id": self.kms_key_id,
            "sse_bucket_key_enabled": self.bucket_key or None,
            "checksum_algorithm": _OBSTORE_CHECKSUMS.get(checksum),
        }
        options: dict[str, Any] = {
            "allow_http": True,
            "allow_invalid_certificates": self.verify is False,
            "root_certificate": self._certificates(session),
            "proxy_url": self.proxies.get(url.scheme),
            "connect_timeout": timedelta(seconds=self.connect_timeout),
            "read_timeout": timedelta(seconds=self.read_timeout),
            "timeout": _WHOLE_REQUEST,
            "pool_max_idle_per_host": str(self.max_connections),
        }
        return S3Store(
            bucket,
            config={name: value for name, value in config.items() if value is not None},  # type: ignore[arg-type]
            client_options={name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
            retry_config={"max_retries": 0},
            credential_provider=Boto3CredentialProvider(session),
        )

    def _certificates(self, session: boto3.session.Session) -> bytes | None:
        bundle = self.verify if isinstance(self.verify, str) else session._session.get_config_variable("ca_bundle")
        return Path(bundle).read_bytes() if bundle and self.verify is not False else None


def checksum_arguments(data: bytes, checksum: Checksum) -> dict[str, str]:
    """Return the arguments of a boto3 call that let the store check `data`."""
    if checksum == "md5":
        return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}
    return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()}


def _keep_keys_out_of_logs() -> None:
    """Hold loggers that log source keys at INFO at least, however low the root logger's level is."""
    for name in _LOGGERS_OF_KEYS:
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)


def _new_botocore_session() -> botocore.session.Session:
    """Return a session that shares botocore's data files, which take 0.1 s of CPU time to load."""
    session = botocore.session.get_session()
    loader = _loader(session.get_config_variable("data_path"))
    # Each boto3 session appends the same folder.
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)
    session.register_component("data_loader", loader)
    return session


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)
