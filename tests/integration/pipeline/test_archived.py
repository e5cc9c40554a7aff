"""Objects in an archive tier: an outcome of their own, restored on request, processed by a later run.

SeaweedFS has no archive tiers, so that these tests run against moto's S3 server.
"""

import io
import zipfile
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto.s3.models import FakeKey
from moto.server import ThreadedMotoServer
from tests.support.runs import RunEnvironment, small_ct

from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import S3Store
from dicom_deid.pipeline import report_run
from dicom_deid.sandbox import S3Service

REGION = "us-east-1"


class MotoPlace(RunEnvironment):
    """A source bucket in moto, and a directory as destination."""

    def store_archived(self, key, data, storage_class="GLACIER"):
        self.s3.client().put_object(Bucket=self.bucket, Key=f"in/{key}", Body=data, StorageClass=storage_class)

    def plan_and_run(self, **changes):
        """Run everything; return what the plan found, the outcomes, and the report."""
        ran = self.run(destination=str(self.output), **changes)
        report = report_run(self.connections, run_id=ran.planned.run_id, state="succeeded")
        return ran.planned.summary, ran.outcomes, report


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
    sizes = 0
    for number in range(24):
        data = small_ct(number)
        sizes += len(data)
        place.store_archived(f"a{number:02}.dcm", data, "DEEP_ARCHIVE" if number % 2 else "GLACIER")
    place.put({f"b{number}.dcm": small_ct(100 + number) for number in range(5)})
    place.store_archived("c.dcm", small_ct(200), "GLACIER_IR")
    summary, outcomes, report = place.plan_and_run()
    assert (summary.archived, summary.archived_bytes) == (24, sizes)
    assert (report.archived, report.archived_bytes) == (24, sizes)
    # They are in no batch; a class that can be read at once is.
    assert sorted(outcomes) == [f"b{number}.dcm" for number in range(5)] + ["c.dcm"]
    assert {outcome for outcome, _ in outcomes.values()} == {"deidentified"}
    body = place.query("SELECT body FROM audit_event WHERE kind = 'run-finished'")[-1][0]
    assert f'"archived": 24, "archived_bytes": {sizes}' in body


def test_a_store_is_asked_once_to_restore_and_a_later_run_takes_the_object(place, monkeypatch):
    monkeypatch.setattr(FakeKey, "status", "IN_PROGRESS")
    place.store_archived("a.dcm", small_ct(1))
    asked = []
    restore = S3Store.restore
    monkeypatch.setattr(S3Store, "restore", lambda self, key, **how: asked.append(key) or restore(self, key, **how))
    assert place.plan_and_run()[0].archived == 1
    summary, outcomes, report = place.plan_and_run(restore="request")
    assert (summary.planned, summary.archived) == (1, 0)
    assert outcomes == {"a.dcm": ("archived", "archived")}
    assert report.archived == 1
    head = place.s3.client().head_object(Bucket=place.bucket, Key="in/a.dcm")
    assert head["Restore"] == 'ongoing-request="true"'
    # While it is being restored nothing is asked again.
    summary, outcomes, report = place.plan_and_run(restore="request")
    assert (summary.planned, summary.archived, report.archived, outcomes) == (0, 1, 1, {})
    assert asked == ["a.dcm"]
    monkeypatch.setattr(FakeKey, "status", "RESTORED")
    assert place.plan_and_run(restore="request")[1] == {"a.dcm": ("deidentified", None)}
    # An object that was done is done, also after the restored copy has expired.
    place.store_archived("a.dcm", small_ct(1))
    summary = place.plan_and_run(restore="request")[0]
    assert (summary.already_done, summary.archived, summary.planned) == (1, 0, 0)


def test_a_run_that_is_planned_again_counts_an_archived_object_once(place, monkeypatch):
    monkeypatch.setattr(FakeKey, "status", "IN_PROGRESS")
    data = small_ct(1)
    place.store_archived("a.dcm", data)
    for _ in range(2):
        _, _, report = place.plan_and_run(restore="request", external_id="one")
        assert (report.archived, report.archived_bytes) == (1, len(data))


def test_a_container_in_an_archive_tier_is_restored_as_a_whole(place):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.dcm", small_ct(number))
    place.store_archived("study.zip", target.getvalue())
    summary, outcomes, _ = place.plan_and_run()
    assert (summary.archived, summary.archived_bytes, outcomes) == (1, len(target.getvalue()), {})
    assert place.plan_and_run(restore="request")[1] == {"study.zip": ("archived", "archived")}
    # moto restores at once.
    members = {f"study.zip!/{number}.dcm": ("deidentified", None) for number in range(3)}
    assert place.plan_and_run(restore="request")[1] == members


def test_a_container_whose_members_are_done_is_not_restored_again(place, tmp_path):
    """Catches a restore of the same container in every run, which costs money each time."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.dcm", small_ct(number))
        archive.writestr("notes.txt", b"no DICOM")
    place.put({"study.zip": target.getvalue()})
    place.plan_and_run()
    place.plan_and_run(limit=100)
    # A plan of everything has found them done.
    assert place.plan_and_run()[0].planned == 0
    place.store_archived("study.zip", target.getvalue())
    for restore in ("no", "request"):
        summary, outcomes, _ = place.plan_and_run(restore=restore)
        assert (summary.already_done, summary.archived, outcomes) == (1, 0, {})
    asked = {"study.zip": ("archived", "archived")}
    recipe = tmp_path / "more.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREMOVE StationName\n")
    lack_terms = "UPDATE processed_object SET lacks_terms = %s WHERE destination_key IS NOT NULL"
    with place.connections.open_database() as database:
        database.connection.query("test", lack_terms, (True,))
    assert place.plan_and_run(restore="request")[1] == asked
    with place.connections.open_database() as database:
        database.connection.query("test", lack_terms, (False,))
    place.store_archived("study.zip", target.getvalue())
    assert place.plan_and_run(restore="request")[1] == {}
    assert place.plan_and_run(restore="request", recipes=("desktop", str(recipe)))[1] == asked


def test_an_object_that_only_reading_shows_to_be_archived_is_an_outcome_too(place, monkeypatch):
    """The archive tiers of Intelligent-Tiering are in no listing."""
    monkeypatch.setattr("dicom_deid.objectstore.s3._ARCHIVE_CLASSES", frozenset())
    place.store_archived("a.dcm", small_ct(1))
    summary, outcomes, report = place.plan_and_run(restore="request")
    assert (summary.planned, report.archived) == (1, 1)
    assert outcomes == {"a.dcm": ("archived", "archived")}


def test_aws_lists_what_was_restored(place, monkeypatch):
    """Catches a request for every archived object of a listing."""
    answer = {
        "archived": None,
        "restoring": {"IsRestoreInProgress": True},
        "restored": {"IsRestoreInProgress": False, "RestoreExpiryDate": datetime.now(UTC) + timedelta(days=1)},
    }
    store = S3Store(place.bucket, "", place.connection)
    store._lists_restores = True
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    asked = []

    def list_objects_v2(**arguments):
        asked.append(arguments["OptionalObjectAttributes"])
        common = {"Size": 1, "ETag": '"e"', "LastModified": moment, "StorageClass": "GLACIER"}
        return {"Contents": [{"Key": key, **common, "RestoreStatus": of} for key, of in answer.items()]}

    monkeypatch.setattr(store.client, "list_objects_v2", list_objects_v2)
    monkeypatch.setattr(store, "head", None)
    assert list(store.list()) == [
        SourceObject("archived", 1, "e", moment, archive_state="archived"),
        SourceObject("restoring", 1, "e", moment, archive_state="restoring"),
        SourceObject("restored", 1, "e", moment),
    ]
    assert asked == [["RestoreStatus"]]
