"""ObjectStores on the real server, and on the same server behind a proxy that injects faults."""

import uuid

import boto3
import pytest

from dicom_deid.objectstore import LocalStore, RetryPolicy, S3Connection, S3Store, parts

QUICK = RetryPolicy(max_attempts=4, base_seconds=0.01, max_seconds=0.05)


@pytest.fixture(scope="session")
def connection(s3):
    # One session for all: a new one reads boto3's description of S3 anew, which takes longer than most tests.
    session = boto3.session.Session(s3.access_key, s3.secret_key, region_name=s3.region)
    return S3Connection(
        session=session,
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        retry=QUICK,
        connect_timeout=2,
        read_timeout=2,
    )


@pytest.fixture(scope="session")
def shared_bucket(s3):
    """One bucket for the tests of a worker process that need no more than a prefix of their own."""
    name = f"shared-{uuid.uuid4().hex[:16]}"
    s3.client().create_bucket(Bucket=name)
    yield name
    s3.client().delete_bucket(Bucket=name)


@pytest.fixture
def prefix():
    return f"test/{uuid.uuid4().hex[:16]}"


@pytest.fixture
def bucket(connection, shared_bucket, prefix):
    """A storage on a bucket, below a fresh prefix."""
    return S3Store(shared_bucket, prefix, connection)


@pytest.fixture
def several_parts(monkeypatch):
    """Objects of 12 MiB are large already: faster tests of what is done in parts."""
    monkeypatch.setattr(parts, "SINGLE_PUT_BYTES", 2**20)


@pytest.fixture(params=["s3", "local"])
def storage(request, tmp_path):
    """Each kind of storage in turn: whatever holds for one must hold for the other."""
    return request.getfixturevalue("bucket") if request.param == "s3" else LocalStore(tmp_path / "files")
