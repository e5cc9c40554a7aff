"""The destination is compared with the audit: missing, changed and unknown objects, and those of a dead worker."""

from __future__ import annotations

import pytest
from tests.support.runs import RunEnvironment, patients, series

from dicom_deid.database import AccessReason, Difference, Intent
from dicom_deid.objectstore import S3Store
from dicom_deid.pipeline import plan_run
from dicom_deid.pipeline.withdrawal import reconcile_destination

ACCESS = AccessReason(person="olga", reason="monthly check")


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def released(place):
    """Return the place after a run of 12 objects."""
    place.put(series(patients(2), 6))
    place.run()
    return place


def compare(place, *, repair: bool = False) -> dict[Difference, set[str]]:
    result = reconcile_destination(place.connections, f"s3://{place.bucket}/out", ACCESS, repair=repair)
    found: dict[Difference, set[str]] = {}
    for each in result.found:
        found.setdefault(each.difference, set()).add(each.key)
    return found


def test_an_undisturbed_destination_equals_the_audit(released):
    assert compare(released) == {}
    with released.connections.open_database() as database:
        assert database.verify().problems == []
        events = database.connection.query("test", "SELECT body FROM audit_event WHERE kind = 'audit-reconciled'")
    assert len(events) == 1


def test_lost_objects_are_found_and_written_again_by_the_next_run(released):
    client = released.s3.client()
    keys = sorted(released.get())
    before = released.get()
    client.delete_object(Bucket=released.bucket, Key=f"out/{keys[0]}")
    client.put_object(Bucket=released.bucket, Key=f"out/{keys[1]}", Body=b"another object")
    client.put_object(Bucket=released.bucket, Key="out/foreign", Body=b"x")
    expected = {Difference.LOST: {keys[0]}, Difference.CHANGED: {keys[1]}, Difference.UNKNOWN: {"foreign"}}
    assert compare(released) == expected
    assert released.run().planned.summary.planned == 0
    assert compare(released, repair=True) == expected
    assert released.run().planned.summary.why == {"new": 1}
    after = released.get()
    assert after[keys[0]] == before[keys[0]]
    assert after["foreign"] == b"x"
    assert set(compare(released)) == {Difference.CHANGED, Difference.UNKNOWN}


def test_of_many_differences_the_first_are_listed_and_all_are_counted_and_repaired(released, monkeypatch):
    """Catches memory that grows with a destination that was emptied."""
    monkeypatch.setattr("dicom_deid.database.reconcile.MAX_LISTED", 3)
    keys = sorted(released.get())
    for key in keys:
        released.s3.client().delete_object(Bucket=released.bucket, Key=f"out/{key}")
    result = reconcile_destination(released.connections, f"s3://{released.bucket}/out", ACCESS, repair=True)
    assert [each.key for each in result.found] == keys[:3]
    assert result.counts == {"lost": 12}
    assert released.run().planned.summary.why == {"new": 12}


def test_an_object_that_a_dead_worker_wrote_is_found_by_its_intent_and_deleted(released):
    client = released.s3.client()
    released.put(series(patients(3), 6))
    planned = plan_run(released.configuration(), released.connections)
    with released.connections.open_database() as database:
        lease = database.lease(planned.summary.batches[0].batch_id, "dies")
        (first, second, *_) = lease.items()
        lease.intend(
            [Intent(item=first, destination_key="written.dcm"), Intent(item=second, destination_key="not.dcm")]
        )
        client.put_object(Bucket=released.bucket, Key="out/written.dcm", Body=b"x")
        # While the worker lives, it is only being written.
        assert compare(released) == {}
    database.connection.query("test", "UPDATE batch SET expires_at = now() WHERE state = 'leased'")
    database.close()
    assert compare(released) == {Difference.ORPHAN: {"written.dcm"}}
    assert compare(released, repair=True) == {Difference.ORPHAN: {"written.dcm"}}
    assert compare(released) == {}
    assert released.query("SELECT count(*) FROM write_intent") == [(0,)]
    assert "written.dcm" not in released.get()


def test_an_object_of_a_run_whose_intent_and_row_are_gone_is_named_by_its_metadata(released):
    """As after a restore of the database: the object says itself which run wrote it."""
    run_id = str(released.query("SELECT run_id FROM run")[0][0])
    other = "11111111-2222-4333-8444-555555555555"
    client = released.s3.client()
    for key, metadata in {"ours": {"run": run_id}, "another": {"run": other}, "no": {"run": "text"}}.items():
        client.put_object(Bucket=released.bucket, Key=f"out/{key}", Body=b"x", Metadata=metadata)
    result = reconcile_destination(released.connections, f"s3://{released.bucket}/out", ACCESS, repair=True)
    assert {(each.difference, each.key, each.run_id) for each in result.found} == {
        (Difference.ORPHAN, "ours", run_id),
        (Difference.UNKNOWN, "another", other),
        (Difference.UNKNOWN, "no", None),
    }
    assert {"another", "no"} == set(released.get()) & {"ours", "another", "no"}
    assert released.query("SELECT count(*) FROM deletion") == [(0,)]


def test_what_a_run_writes_and_deletes_during_the_listing_is_no_difference(released, monkeypatch):
    """Catches losses and unknown objects that another run's work makes up."""
    original = S3Store.list

    def list_then_work(store, start_after=None):
        yield from list(original(store, start_after))
        monkeypatch.setattr(S3Store, "list", original)
        released.put(series(patients(3), 6))
        released.run()

    monkeypatch.setattr(S3Store, "list", list_then_work)
    assert compare(released) == {}
    assert len(released.get()) == 18


def test_only_objects_that_differ_are_looked_at(released, monkeypatch):
    released.s3.client().put_object(Bucket=released.bucket, Key="out/foreign", Body=b"x")
    looked = []
    original = S3Store.head
    monkeypatch.setattr(S3Store, "head", lambda store, key: looked.append(key) or original(store, key))
    assert compare(released) == {Difference.UNKNOWN: {"foreign"}}
    assert set(looked) == {"foreign"}


def test_differences_found_by_the_report_of_a_run_are_read_for_its_page(released):
    run_id = str(released.query("SELECT run_id FROM run")[0][0])
    with released.connections.open_database() as database:
        assert database.queries.differences(run_id) == {}
    released.s3.client().delete_object(Bucket=released.bucket, Key=f"out/{min(released.get())}")
    reconcile_destination(released.connections, f"s3://{released.bucket}/out", ACCESS, run_id=run_id)
    with released.connections.open_database() as database:
        assert database.queries.differences(run_id) == {"lost": 1}
        assert database.verify().problems == []
