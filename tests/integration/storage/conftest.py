"""Storages on the real server, and on the same server behind a proxy that injects faults."""

import pytest

from dicom_deid.storage import LocalStorage, RetryPolicy, S3Connection, S3Storage

QUICK = RetryPolicy(max_attempts=4, base_seconds=0.01, max_seconds=0.05)


@pytest.fixture
def connection(s3):
    return S3Connection(
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        retry=QUICK,
        connect_timeout=2,
        read_timeout=2,
    )


@pytest.fixture
def bucket(connection, s3_bucket):
    """A storage on a fresh bucket, below a prefix."""
    return S3Storage(s3_bucket, "some/prefix", connection)


@pytest.fixture(params=["s3", "local"])
def storage(request, tmp_path):
    """Each kind of storage in turn: whatever holds for one must hold for the other."""
    return request.getfixturevalue("bucket") if request.param == "s3" else LocalStorage(tmp_path / "files")
