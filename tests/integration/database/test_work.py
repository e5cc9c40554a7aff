"""The plan, leases and records, as a pipeline uses them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_deid.database import Intent, LeaseLost
from dicom_deid.exceptions import ConfigurationError, DatabaseError
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.objects import SourceObject
from dicom_deid.reasons import Outcome, Reason

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_run_does_everything_once_and_the_next_finds_nothing_left(database, steps):
    run = steps.begin()
    summary = database.plan(run, steps.listing(1234), batch_objects=100)
    assert (summary.listed, summary.already_done, summary.planned) == (1234, 0, 1234)
    assert len(summary.batches) == 12
    assert {batch.objects for batch in summary.batches} == {102, 103}
    assert sorted(steps.work(summary.batches)) == sorted(entry.key for entry in steps.listing(1234))
    database.finish_run(run, "succeeded")
    report = database.report(run)
    assert report.outcomes == {"deidentified": 1234}
    assert (report.bytes_in, report.bytes_out, report.open) == (1234000, 1234 * 9, 0)
    assert report.run.state == "succeeded"
    again = database.plan(steps.begin(), steps.listing(1234))
    assert (again.already_done, again.planned, again.batches) == (1234, 0, ())


def test_why_objects_are_planned(database, steps):
    # Would catch a plan that forgets a changed object, or repeats unchanged ones, when rules change.
    steps.work(database.plan(steps.begin(), steps.listing(10)).batches)
    mixed = steps.listing(8) + steps.listing(2, etag="other", start=8) + steps.listing(5, start=100)
    summary = database.plan(steps.begin(), mixed)
    assert (summary.already_done, summary.why) == (8, {"source": 2, "new": 5})
    assert summary.superseding == {"source": 2}
    other_recipe = database.plan(steps.begin(recipe_digest="ef" * 32), steps.listing(10))
    assert (other_recipe.already_done, other_recipe.why) == (0, {"recipe": 10})
    other_settings = database.plan(steps.begin(settings_digest="ef" * 32), steps.listing(10))
    assert (other_settings.already_done, other_settings.superseding) == (0, {"settings": 10})
    kept = database.plan(steps.begin(recipe_digest="ef" * 32), mixed, on_change="keep")
    assert (kept.kept, kept.why) == (10, {"new": 5})
    elsewhere = database.plan(steps.begin(destination="s3://other/"), steps.listing(10))
    assert elsewhere.why == {"new": 10}


def test_a_version_counts_as_much_as_the_etag(database, steps):
    first = [SourceObject("k", 1, "e", WHEN, "v1")]
    steps.work(database.plan(steps.begin(), first).batches)
    assert database.plan(steps.begin(), first).planned == 0
    assert database.plan(steps.begin(), [SourceObject("k", 1, "e", WHEN, "v2")]).why == {"source": 1}


def test_quarantined_objects_come_again_only_when_asked_and_failed_ones_always(database, steps):
    batches = database.plan(steps.begin(), steps.listing(3)).batches
    steps.work(batches, Outcome.QUARANTINED, reason=Reason.NOT_DICOM)
    assert database.plan(steps.begin(), steps.listing(3)).already_done == 3
    retried = database.plan(steps.begin(), steps.listing(3), retry_quarantined=True)
    assert retried.why == {"retried": 3}
    assert len(steps.work(retried.batches)) == 3
    failing = database.plan(steps.begin(), steps.listing(2, start=50)).batches
    steps.work(failing, Outcome.FAILED, reason=Reason.STORAGE_ERROR)
    assert database.plan(steps.begin(), steps.listing(2, start=50)).planned == 2


def test_large_objects_do_not_share_a_batch_with_small_ones(database, steps, monkeypatch):
    # Would catch batches that are cut anew for each part of the listing that is sent to PostgreSQL.
    monkeypatch.setattr("dicom_deid.database.plan.CHUNK", 400)
    small = steps.listing(3000, size=10)
    large = [SourceObject(f"large/{number}", 900, "e", WHEN) for number in range(5)]
    summary = database.plan(steps.begin(), small[:1500] + large + small[1500:], batch_objects=1000, batch_bytes=1000)
    assert sum(batch.objects for batch in summary.batches) == 3005
    first, *rest = summary.batches
    assert (first.objects, first.bytes) == (5, 4500)
    assert [batch.bytes for batch in rest] == [1000] * 30


@pytest.mark.parametrize(
    ("count", "size", "objects_per_second"),
    [
        (10_000, 527_000, 275),
        (16_400, 527_000, 275),
        (39_999, 30_000, 965),
        (60_001, 30_000, 965),
        # Copied by the store.
        (200, 300_000_000, 1.88),
        (200, 2_000_000_000, 0.282),
    ],
)
def test_a_task_costs_little_beside_its_batch(database, steps, count, size, objects_per_second):
    """Catches a small last batch: at the rates of docs/benchmarks.md, 1 s for each task is under 5 % of the work."""
    summary = database.plan(steps.begin(), steps.listing(count, size=size))
    assert summary.planned == count
    assert len(summary.batches) < 0.05 * count / objects_per_second
    sizes = [batch.objects for batch in summary.batches]
    assert max(sizes) - min(sizes) <= max(1, 0.01 * max(sizes)) + 1


@pytest.mark.parametrize("most", [1, 2, 3, 7, 1000])
def test_there_are_never_more_batches_than_allowed(database, steps, most, monkeypatch):
    monkeypatch.setattr("dicom_deid.database.plan.CHUNK", 400)
    listing = [SourceObject(str(n), (n * 7919) % 5000, "e", WHEN) for n in range(997)]
    summary = database.plan(steps.begin(), listing, max_batches=most, batch_objects=10, batch_bytes=4000)
    assert 1 <= len(summary.batches) <= most
    assert summary.planned == 997
    assert summary.bytes == sum(entry.size for entry in listing)


def test_the_limit_and_the_times(database, steps):
    listing = steps.listing(100) + steps.listing(50, start=100, modified=WHEN + timedelta(days=2))
    within = database.plan(steps.begin(), listing, newer_than=WHEN + timedelta(days=1), limit=20)
    assert (within.planned, within.outside) == (20, 100)
    assert database.plan(steps.begin(), listing, older_than=WHEN + timedelta(days=1)).planned == 100

    def endless():
        number = 0
        while True:
            number += 1
            yield SourceObject(str(number), 1, "e", WHEN)

    assert database.plan(steps.begin(), endless(), limit=5).planned == 5


def test_a_listing_that_fails_leaves_no_plan_and_no_thread_waiting(database, steps):
    def broken():
        yield from steps.listing(20_000)
        raise OSError("the listing broke")

    run = steps.begin()
    with pytest.raises(OSError, match="broke"):
        database.plan(run, broken())
    assert database.plan(run, steps.listing(5)).planned == 5


def test_planning_again_replaces_batches_that_have_not_started(database, steps):
    run = steps.begin()
    first = database.plan(run, steps.listing(20), batch_objects=10)
    lease = database.lease(first.batches[0].batch_id, "w")
    second = database.plan(run, steps.listing(20), batch_objects=10)
    assert len(second.batches) == 2
    with pytest.raises(ConfigurationError, match="planned again"):
        database.lease(first.batches[1].batch_id, "w")
    lease.record([steps.row(item) for item in lease.items()])
    assert len(steps.work(second.batches)) == 10


def test_the_same_external_id_is_the_same_run(database, steps):
    run = steps.begin(external_id="dag/1")
    assert steps.begin(external_id="dag/1") == run
    database.finish_run(run, "failed")
    assert steps.begin(external_id="dag/1") == run
    assert database.run(run).state == "running"
    with pytest.raises(ConfigurationError, match="external id"):
        steps.begin(external_id="dag/1", recipe_digest="00" * 32)


def test_a_batch_has_one_worker_and_a_closed_connection_frees_it(database, second, steps):
    batch = database.plan(steps.begin(), steps.listing(3)).batches[0].batch_id
    dying = second.lease(batch, "dying", seconds=3600)
    assert database.lease(batch, "other") is None
    dying.record([steps.row(item) for item in dying.items()[:1]])
    second.close()
    steps.wait_for_sessions(1)
    lease = database.lease(batch, "other")
    assert lease.attempt == 2
    assert [item.item_id for item in lease.items()] == [1, 2]


def test_an_expired_lease_records_nothing(database, second, steps):
    batch = database.plan(steps.begin(), steps.listing(3)).batches[0].batch_id
    late = second.lease(batch, "late", seconds=0)
    rows = [steps.row(item) for item in late.items()]
    assert database.lease(batch, "other") is not None
    for call in (lambda: late.record(rows), late.renew, late.finish):
        with pytest.raises(LeaseLost):
            call()
    assert database.connection.query("test", "SELECT count(*) FROM audit")[0][0] == 0


def test_a_released_batch_goes_on_and_a_finished_one_does_not(database, second, steps):
    batch = database.plan(steps.begin(), steps.listing(3)).batches[0].batch_id
    database.lease(batch, "a").release()
    second.lease(batch, "b").finish()
    assert database.lease(batch, "c") is None


def test_two_runs_at_once_do_the_work_once(database, second, steps):
    one, two = steps.begin(), steps.begin()
    first = database.plan(one, steps.listing(40), batch_objects=10).batches
    other = second.plan(two, steps.listing(40), batch_objects=20).batches
    held = database.lease(first[0].batch_id, "one")
    theirs = second.lease(other[0].batch_id, "two")
    assert [item.item_id for item in held.items()] == list(range(10))
    assert [item.item_id for item in theirs.items()] == list(range(10, 20))
    overlapping = database.lease(first[1].batch_id, "one")
    assert overlapping.items() == []
    theirs.record([steps.row(item) for item in theirs.items()])
    theirs.finish()
    held.record([steps.row(item) for item in held.items()])
    held.finish()
    overlapping.finish()
    rest = steps.work(first) + steps.work(other)
    assert len(rest) == 20
    assert database.connection.query("test", "SELECT count(*), count(DISTINCT object_id) FROM audit") == [(40, 40)]
    database.finish_run(one, "succeeded")
    database.finish_run(two, "succeeded")
    reports = (database.report(one), database.report(two))
    assert [(each.open, each.left_to_other_runs, each.done_by_other_runs) for each in reports] == [
        (0, 0, 10),
        (0, 0, 30),
    ]


def test_objects_of_a_dead_run_are_free_for_another_run(database, second, steps):
    # A command line killed and started again at once must not wait for a lease to run out.
    dead = second.plan(steps.begin(), steps.listing(10)).batches
    second.lease(dead[0].batch_id, "dead", seconds=3600)
    second.close()
    steps.wait_for_sessions(1)
    assert len(steps.work(database.plan(steps.begin(), steps.listing(10)).batches)) == 10


def test_the_next_plan_closes_a_run_that_nothing_works_on(database, steps):
    """Catches rows that no end of a run covers, so that the last of them can be deleted unseen."""
    dead, other = steps.begin(), steps.begin(destination="s3://other/")
    for run in (dead, other):
        database.plan(run, steps.listing(3))
    database.connection.query("test", "UPDATE run SET started_at = started_at - interval '2 days'")
    database.plan(steps.begin(), steps.listing(3))
    assert [database.run(run).state for run in (dead, other)] == ["abandoned", "running"]
    assert database.verify().problems == []


def test_a_lost_connection_is_one_clear_error_and_the_next_call_connects_again(database, second, steps):
    batch = database.plan(steps.begin(), steps.listing(3)).batches[0].batch_id
    lease = second.lease(batch, "w")
    rows = [steps.row(item) for item in lease.items()]
    database.connection.query(
        "test", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        "current_database()"
    )  # fmt: skip
    with pytest.raises(DatabaseError, match="a retry resumes") as failure:
        lease.record(rows)
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None
    lease.record(rows)
    assert lease.items() == []


def test_pruning_deletes_finished_plans_and_no_audit_rows(database, steps):
    done, running = steps.begin(), steps.begin(destination="s3://other/")
    steps.work(database.plan(done, steps.listing(7)).batches)
    database.plan(running, steps.listing(3))
    database.finish_run(done, "succeeded")
    assert database.prune(1) == 0
    assert database.prune(0) == 7
    assert database.report(done).outcomes == {"deidentified": 7}
    assert database.report(running).open == 3
    assert database.plan(steps.begin(), steps.listing(7)).already_done == 7


def test_reports_count_the_last_attempt_and_reasons(database, steps):
    run = steps.begin()
    batch = database.plan(run, steps.listing(4)).batches[0].batch_id
    lease = database.lease(batch, "w")
    items = lease.items()
    lease.record([steps.row(item, Outcome.FAILED, reason=Reason.STORAGE_ERROR) for item in items])
    lease.release()
    lease = database.lease(batch, "w")
    lease.record([steps.row(item, Outcome.QUARANTINED, reason=Reason.TRUNCATED) for item in lease.items()[:1]])
    lease.record([steps.row(item, milliseconds=250) for item in lease.items()])
    report = database.report(run)
    assert report.outcomes == {"deidentified": 3, "quarantined": 1}
    assert report.reasons == {"truncated": 1}
    assert (report.attempts, report.quarantine_ratio, report.object_seconds) == (8, 0.25, 0.75)


def _rows_read(database, *tables):
    """Return how many rows of tables this session has read that it has not reported yet."""
    return database.connection.query(
        "test",
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables "
        "WHERE relname = ANY (%(tables)s) AND schemaname = current_schema()",
        {"tables": list(tables)},
    )[0][0]


def test_neither_an_intent_nor_its_outcome_costs_a_look_at_the_whole_batch(database, steps):
    """Catches joins that take a batch for empty, because the statistics are older than it."""
    steps.work(database.plan(steps.begin(), steps.listing(500)).batches)
    for table in ("batch_item", "processed_object"):
        database.connection.query("test", f"ANALYZE {table}")
    (reference,) = database.plan(steps.begin(), steps.listing(2000, start=500)).batches
    lease = database.lease(reference.batch_id, "worker")
    group = lease.items()[:20]

    def read() -> int:
        return _rows_read(database, "batch_item", "processed_object")

    with database.connection.transaction("test"):
        before = read()
        lease.intend([Intent(item=item, destination_key=f"d/{item.item_id}") for item in group])
        intended = read()
        assert intended - before < 1000
        lease.record([steps.row(item) for item in group])
        assert 20 <= read() - intended < 1000


def test_a_project_that_the_statistics_do_not_know_costs_no_more(database, steps):
    """Catches look-ups that read all rows of a project, scope, batch or store, because it is taken for empty."""
    steps.work(database.plan(steps.begin(), steps.listing(2000)).batches)
    originals = [Identifier(IdentifierKind.UID, f"1.2.{number}") for number in range(2000)]
    database.mapping(database.project("known")).resolve(originals)
    database.connection.query("test", "ANALYZE")
    database.mapping(database.project("new")).resolve(originals)

    with database.connection.transaction("test"):
        before = _rows_read(database, "mapping")
        database.mapping(database.project("new")).resolve(originals[:100])
        assert 100 <= _rows_read(database, "mapping") - before < 1000

    # Each index that begins with one of these: what it has no statistics of is a part of the table.
    known = database.connection.query(
        "test",
        "SELECT a.attrelid::regclass::text, a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
        "AND a.attnum = i.indkey[0] "
        "JOIN pg_stats s ON s.tablename = i.indrelid::regclass::text AND s.attname = a.attname "
        "WHERE s.schemaname = current_schema() AND i.indnatts > 1 "
        "AND a.attname IN ('project_id', 'scope_id', 'store_id', 'batch_id')",
    )
    assert known == []


def test_only_what_a_later_commit_flushes_does_not_wait_for_the_disk(database, steps):
    setting = "SELECT current_setting('synchronous_commit')"
    database.connection.query("test", "SET synchronous_commit = on")
    lease = database.lease(database.plan(steps.begin(), steps.listing(1)).batches[0].batch_id, "worker")
    lease.renew({0})
    assert database.connection.query("test", setting) == [("on",)]
    with database.connection.transaction("test"):
        lease.renew({0})
        assert database.connection.query("test", setting) == [("off",)]
    for act in (lambda: lease.intend([Intent(item=each, destination_key="d") for each in lease.items()]), lease.finish):
        with database.connection.transaction("test"):
            act()
            assert database.connection.query("test", setting) == [("on",)]


def test_arrays_hold_any_value(database):
    texts = ["", "NULL", "{a,b}", '"', "\\", "\\x00", "a b", "\ufffd\n'", None]
    rows = database.connection.query(
        "test",
        "SELECT * FROM unnest(%(texts)s::text[], %(bytes)s::bytea[], %(numbers)s::bigint[], %(flags)s::boolean[])",
        {"texts": texts, "bytes": [b"", b'\0\\"', None], "numbers": [-1, None, 2**62], "flags": [True, False, None]},
    )
    assert [row[0] for row in rows] == texts
    assert [row[1] and bytes(row[1]) for row in rows[:3]] == [b"", b'\0\\"', None]
    assert [row[2] for row in rows[:3]] == [-1, None, 2**62]
    assert [row[3] for row in rows[:3]] == [True, False, None]
