"""Objects in an archive tier: an outcome of their own, restored on request, processed by a later run.

SeaweedFS has no archive tiers, so that these tests run against moto's S3 server.
"""

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.support.runs import RunEnvironment, small_ct

from dicom_deid.sandbox import S3Service

REGION = "us-east-1"


class MotoPlace(RunEnvironment):
    """A source bucket in moto, and a directory as destination."""

    def store_archived(self, key, data):
        self.s3.client().put_object(Bucket=self.bucket, Key=f"in/{key}", Body=data, StorageClass="GLACIER")


@pytest.fixture(scope="module")
def moto_s3():
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Service(endpoint_url=f"http://{host}:{port}", access_key="test", secret_key="test")
    server.stop()


@pytest.fixture
def place(moto_s3, postgres_url, tmp_path):
    bucket = "archive-source"
    boto3.client(
        "s3",
        endpoint_url=moto_s3.endpoint_url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).create_bucket(Bucket=bucket)
    context = MotoPlace(moto_s3, bucket, postgres_url)
    context.output = tmp_path / "out"
    yield context
    for listed in moto_s3.client().list_objects_v2(Bucket=bucket).get("Contents", ()):
        moto_s3.client().delete_object(Bucket=bucket, Key=listed["Key"])


def test_archived_objects_are_counted_and_do_not_hold_up_the_others(place):
    for number in range(24):
        place.store_archived(f"a{number:02}.dcm", small_ct(number))
    place.put({f"b{number}.dcm": small_ct(100 + number) for number in range(5)})
    ran = place.run(destination=str(place.output))
    assert sorted(outcome for outcome, _ in ran.outcomes.values()) == ["archived"] * 24 + ["deidentified"] * 5
    assert len(list(place.output.rglob("*.dcm"))) == 5


def test_a_restored_object_is_processed_by_a_later_run(place):
    place.store_archived("a.dcm", small_ct(1))
    first = place.run(destination=str(place.output), restore="request")
    assert first.outcomes == {"a.dcm": ("archived", "archived")}
    head = place.s3.client().head_object(Bucket=place.bucket, Key="in/a.dcm")
    assert "ongoing-request" in head["Restore"]
    # moto restores at once.
    second = place.run(destination=str(place.output), restore="request")
    assert second.outcomes == {"a.dcm": ("deidentified", None)}
