"""SSE-C: the store encrypts with a key of the client and keeps none; every request that needs it must carry it."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from dicom_deid.exceptions import ConfigurationError, DicomDeidError
from dicom_deid.objectstore import S3Connection, open_object_store
from dicom_deid.sandbox import S3Service

SECRET = base64.b64encode(bytes(range(32))).decode()
PART = 5 * 2**20


def connection(s3: S3Service, secret: str | None = SECRET) -> S3Connection:
    """Return a connection to the sandbox's server."""
    return S3Connection(
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        sse_customer_secret=secret,
    )


@pytest.mark.parametrize("key", ["plain.dcm", "odd//key.dcm"], ids=["obstore", "boto3"])
def test_an_object_is_written_read_and_deleted_with_the_key(s3: S3Service, s3_bucket: str, key: str) -> None:
    """A request without the key, which the store refuses, or an object that it can read without one."""
    store = open_object_store(f"s3://{s3_bucket}", connection(s3))
    store.check(writable=True)
    written = store.write(key, [b"one", b"two"], metadata={})
    assert bytes(store.read(key, etag=written.etag)) == b"onetwo"
    assert bytes(store.read(key, etag=written.etag, size=6, start=2, end=4)) == b"et"
    assert store.write(key, [b"one", b"two"], metadata={}).existed
    with pytest.raises(ClientError):
        s3.client().get_object(Bucket=s3_bucket, Key=key)
    assert store.delete(key)


def test_an_upload_of_parts_carries_the_key(s3: S3Service, s3_bucket: str) -> None:
    """A large object whose parts are refused, or stored without the key."""
    store = open_object_store(f"s3://{s3_bucket}", connection(s3))
    upload = store.open_multipart("large.dcm", metadata={})
    upload.put_part(1, 0, bytes(PART))
    upload.put_part(2, PART, b"end")
    written = upload.complete()
    assert bytes(store.read("large.dcm", size=written.size, start=PART - 1, end=PART + 3)) == b"\0end"
    with pytest.raises(ClientError):
        s3.client().get_object(Bucket=s3_bucket, Key="large.dcm")
    assert store.delete("large.dcm")


def test_no_copy_on_the_side_of_the_store(s3: S3Service, s3_bucket: str) -> None:
    """A copy for which the store lacks the key of the source."""
    with_key, without = (open_object_store(f"s3://{s3_bucket}/{n}", connection(s3, n or None)) for n in (SECRET, ""))
    assert not with_key.can_copy_from(without)
    assert not without.can_copy_from(with_key)


@pytest.mark.parametrize("secret", ["short", base64.b64encode(bytes(16)).decode(), "ä" * 44])
def test_a_wrong_key_is_refused_without_being_quoted(s3: S3Service, secret: str) -> None:
    """A key that the store refuses hours later, or one that an error message shows."""
    with pytest.raises(ConfigurationError, match="32 bytes in base64") as raised:
        connection(s3, secret)
    assert secret not in str(raised.value)
    assert SECRET not in repr(connection(s3))


def test_two_kinds_of_encryption_are_refused(s3: S3Service) -> None:
    """A setting that is silently without effect beside the other."""
    with pytest.raises(ConfigurationError, match="without server_side_encryption"):
        replace(connection(s3), server_side_encryption="AES256")


def test_credentials_are_checked_by_the_store(s3: S3Service) -> None:
    """A test button that is green for a wrong secret, or red for a store without AWS STS."""
    connection(s3).check_credentials()
    for wrong in ({"secret_key": "wrong"}, {"access_key": "wrong"}, {"endpoint_url": "http://127.0.0.1:9"}):
        with pytest.raises(DicomDeidError, match="connection place"):
            replace(connection(s3), name="place", **wrong).check_credentials()
