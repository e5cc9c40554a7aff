"""The state of each source object, by bucket and whole key, whichever run processed it."""

from __future__ import annotations

import pytest

from dicom_deid.database import AccessReason, Intent
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import WrittenObject
from dicom_deid.reasons import Outcome, Reason


def work(database, steps, batches, outcome=Outcome.DEIDENTIFIED, **more):
    """Do batches, each object under a key of its own run, and return what must be deleted afterwards."""
    deletions = []
    for reference in batches:
        lease = database.lease(reference.batch_id, "w")
        rows = [steps.row(item, outcome, **more) for item in lease.items()]
        deletions += lease.record(rows)
        lease.finish()
    return deletions


def test_a_nightly_run_over_the_bucket_knows_what_a_run_over_a_prefix_did(database, steps):
    below = [each._replace(key=f"{number}.dcm") for number, each in enumerate(steps.listing(5))]
    whole = [each._replace(key=f"archive/2025/12/{each.key}") for each in below]
    run = steps.begin(source="s3://b/archive/2025/12")
    summary = database.plan(run, below)
    lease = database.lease(summary.batches[0].batch_id, "w")
    assert [item.key for item in lease.items()] == [each.key for each in below]
    lease.record([steps.row(item) for item in lease.items()])
    lease.finish()
    nightly = database.plan(steps.begin(source="s3://b"), [*whole, *steps.listing(1)])
    assert (nightly.already_done, nightly.why) == (5, {"new": 1})
    other_bucket = database.plan(steps.begin(source="s3://c"), whole)
    assert other_bucket.why == {"new": 5}
    assert len(database.trace("s3://b/archive/2025/12/3.dcm")) == 1
    assert database.trace("archive/2025/12/3.dcm") == database.trace("3.dcm")


def test_what_was_written_is_given_to_the_run_that_replaces_it(database, steps):
    work(database, steps, database.plan(steps.begin(), steps.listing(4)).batches, destination_etag="old")
    changed = steps.begin(recipe_digest="99" * 32)
    lease = database.lease(database.plan(changed, steps.listing(4)).batches[0].batch_id, "w")
    items = lease.items()
    assert [item.previous for item in items] == [WrittenObject(f"d/{n}", 9, "old") for n in range(4)]
    # Two are replaced under their keys, two get another key.
    keys = ["d/0", "d/1", "e/2", "e/3"]
    lease.intend([Intent(item=item, destination_key=key) for item, key in zip(items, keys, strict=True)])
    rows = [steps.row(item, destination_key=key, destination_etag="new") for item, key in zip(items, keys, strict=True)]
    deletions = lease.record(rows)
    assert sorted((each.key, each.etag) for each in deletions) == [("d/2", "old"), ("d/3", "old")]
    assert {each.withdrawal_id for each in deletions} == {None}
    # A worker that is killed here leaves them to be deleted.
    assert {each.key for each in database.pending_deletions()} == {"d/2", "d/3"}
    database.settle_deletions(deletions)
    assert database.pending_deletions() == []
    lease.finish()
    history = database.trace("e/2")
    assert [(row.destination_key, row.replaced_key, row.replaced_etag) for row in history] == [
        ("d/2", None, None),
        ("e/2", "d/2", "old"),
    ]
    # Rules A, B, then A again: what A wrote is no longer there.
    back = database.plan(steps.begin(), steps.listing(4))
    assert (back.superseding, back.why) == ({"recipe": 4}, {"recipe": 4})
    assert database.verify().problems == []


def test_a_key_that_is_written_again_is_not_deleted_as_superseded(database, steps):
    # Rules A, then B whose worker was killed before it deleted what A wrote, then A again: the same bytes and key.
    for recipe, key in (("aa", "k/a"), ("bb", "k/b"), ("aa", "k/a")):
        batch = database.plan(steps.begin(recipe_digest=recipe * 32), steps.listing(1)).batches[0]
        lease = database.lease(batch.batch_id, "w")
        (item,) = lease.items()
        lease.intend([Intent(item=item, destination_key=key)])
        lease.record([steps.row(item, destination_key=key, destination_etag=f"etag of {key}")])
        lease.finish()
    assert [each.key for each in database.pending_deletions()] == ["k/b"]


def test_an_object_that_is_quarantined_under_new_rules_is_still_known_to_be_written(database, steps):
    work(database, steps, database.plan(steps.begin(), steps.listing(1)).batches, destination_etag="old")
    changed = database.plan(steps.begin(recipe_digest="99" * 32), steps.listing(1))
    work(database, steps, changed.batches, Outcome.QUARANTINED, reason=Reason.PIXEL_RISK)
    again = database.plan(steps.begin(recipe_digest="88" * 32), steps.listing(1))
    assert again.superseding == {"recipe": 1}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.FAILED, Reason.STORAGE_ERROR),
        (Outcome.QUARANTINED, Reason.OBJECT_VANISHED),
        (Outcome.QUARANTINED, Reason.OBJECT_CHANGED),
        (Outcome.ARCHIVED, None),
    ],
)
def test_what_was_not_there_is_never_done(database, steps, outcome, reason):
    work(database, steps, database.plan(steps.begin(), steps.listing(2)).batches, outcome, reason=reason)
    assert database.plan(steps.begin(), steps.listing(2)).why == {"new": 2}


def test_a_fault_of_the_program_is_tried_again_after_an_upgrade(database, steps, monkeypatch):
    work(
        database, steps, database.plan(steps.begin(), steps.listing(2)).batches, Outcome.QUARANTINED,
        reason=Reason.INTERNAL_ERROR,
    )  # fmt: skip
    assert database.plan(steps.begin(), steps.listing(2)).already_done == 2
    monkeypatch.setattr("dicom_deid.database.runs.__version__", "99.0")
    assert database.plan(steps.begin(), steps.listing(2)).why == {"upgraded": 2}


def test_other_criteria_plan_what_criteria_excluded_and_nothing_else(database, steps):
    mixed = database.plan(steps.begin(), steps.listing(4), selection="aa")
    lease = database.lease(mixed.batches[0].batch_id, "w")
    items = lease.items()
    lease.record([steps.row(item) for item in items[:2]])
    lease.record([steps.row(item, Outcome.EXCLUDED, selection="aa") for item in items[2:]])
    lease.finish()
    assert database.plan(steps.begin(), steps.listing(4), selection="aa").already_done == 4
    other = database.plan(steps.begin(), steps.listing(4), selection="bb")
    assert (other.already_done, other.why) == (2, {"criteria": 2})


def test_an_object_at_whose_processing_two_workers_died_is_counted(database, store_url, keys, steps):
    from dicom_deid.database import Database

    batch = database.plan(steps.begin(), steps.listing(5)).batches[0].batch_id
    for _ in range(2):
        with Database.connect(store_url, keys=keys) as dying:
            lease = dying.lease(batch, "dies")
            lease.renew(in_flight=[item.item_id for item in lease.items()][:2])
            lease.record([steps.row(item) for item in lease.items() if item.item_id == 1 and not item.recorded])
        steps.wait_for_sessions(1)
    deaths = {item.item_id: item.deaths for item in database.lease(batch, "lives").items(recorded=True)}
    # The first worker had 0 and 1 and recorded 1; the second had 0 and 2.
    assert deaths == {0: 2, 1: 0, 2: 1, 3: 0, 4: 0}


def test_an_intent_of_a_batch_that_another_worker_has_is_refused(database, second, steps):
    from dicom_deid.database import LeaseLost

    batch = database.plan(steps.begin(), steps.listing(1)).batches[0].batch_id
    late = second.lease(batch, "late", seconds=0)
    (item,) = late.items()
    assert database.lease(batch, "other") is not None
    with pytest.raises(LeaseLost):
        late.intend([Intent(item=item, destination_key="k")])
    assert database.connection.query("test", "SELECT count(*) FROM write_intent") == [(0,)]


def test_the_text_of_a_recipe_is_kept(database):
    database.store_recipe("ab" * 32, "desktop", "REMOVE PatientName\n")
    database.store_recipe("ab" * 32, "desktop", "another text of the same digest")
    assert database.recipe("ab" * 32) == ("desktop", "REMOVE PatientName\n")
    assert database.recipe("cd" * 32) is None
    with pytest.raises(ConfigurationError, match="may not"):
        database.connection.query("test", "UPDATE recipe SET text = ''")


def test_approval_and_release_are_in_the_audit_and_the_requester_cannot_approve(database, steps):
    run = steps.begin(triggered_by="olga")
    with pytest.raises(ConfigurationError, match="second person"):
        database.record_approval(run, "s3://released/", AccessReason(person="olga", reason="looks good"))
    database.record_approval(run, "s3://released/", AccessReason(person="vic", reason="looks good"))
    database.record_release(run, "s3://released/", 0, "vic")
    database.record_release(run, "s3://released/", 12, "vic")
    rows = database.connection.query("test", "SELECT kind, run_id::text FROM audit_event ORDER BY event_id")
    assert rows[-3:] == [(kind, run) for kind in ("release-approved", "release-begun", "release-finished")]
    assert database.verify().problems == []
