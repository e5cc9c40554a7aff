"""Every way of changing the audit or the mapping past the program's own checks is found by `verify`, without a head."""

from __future__ import annotations

import pytest

from dicom_deid.database import Database
from dicom_deid.identifiers import Identifier, IdentifierKind

OPEN_RUN = "(SELECT run_id FROM audit_event ORDER BY event_id DESC LIMIT 1)"
OLD_RUN = "(SELECT run_id FROM audit_event WHERE event_id = 2)"

WITHOUT_OPEN_RUN = f"""
CREATE TEMP TABLE gone AS SELECT {OPEN_RUN} AS run_id;
DELETE FROM audit WHERE run_id = (SELECT run_id FROM gone);
DELETE FROM audit_link WHERE run_id = (SELECT run_id FROM gone);
DELETE FROM batch WHERE run_id = (SELECT run_id FROM gone); DELETE FROM run WHERE run_id = (SELECT run_id FROM gone);
DELETE FROM audit_event WHERE run_id = (SELECT run_id FROM gone)
"""

MANIPULATIONS = {
    "the outcome of a row is changed": ("UPDATE audit SET outcome = 'quarantined' WHERE item = 3", "a row was changed"),
    "one letter is changed": ("UPDATE audit SET destination_key = 'd/x' WHERE item = 3", "a row was changed"),
    "a time is changed": (
        "UPDATE audit SET recorded_at = recorded_at + interval '1 us' WHERE item = 3",
        "row was changed",
    ),
    "a row is deleted": ("DELETE FROM audit WHERE item = 3", "covers 10 rows, but there are 9"),
    "a row is copied": ("INSERT INTO audit SELECT * FROM audit WHERE item = 3", "covers 10 rows, but there are 11"),
    "a row of no link is inserted": (
        "INSERT INTO audit SELECT (jsonb_populate_record(a, '{\"link_id\": 99999}')).* FROM audit a WHERE item = 3",
        "belong to no link of their run",
    ),
    "rows of no run are inserted": (
        """INSERT INTO audit SELECT (jsonb_populate_record(a, jsonb_build_object('run_id', gen_random_uuid()))).*
           FROM audit a WHERE item = 3""",
        "belong to no link of their run",
    ),
    "a link is deleted with its rows": (
        "DELETE FROM audit WHERE link_id = 2; DELETE FROM audit_link WHERE link_id = 2",
        "does not follow the link before it",
    ),
    "the last link of a finished run is deleted": (
        "DELETE FROM audit WHERE link_id = 3; DELETE FROM audit_link WHERE link_id = 3",
        "links that its end covers are missing",
    ),
    "the last link of an open run is deleted": (
        "DELETE FROM audit WHERE link_id = 7; DELETE FROM audit_link WHERE link_id = 7",
        "links of p: there are 6, but 7 were recorded",
    ),
    "a link is changed to fit a changed row": (
        "UPDATE audit SET outcome = 'failed' WHERE link_id = 2; UPDATE audit_link SET rows_hash = '' WHERE link_id = 2",
        "was changed, or made without the secret",
    ),
    "the version of a link is changed": ("UPDATE audit_link SET version = 9 WHERE link_id = 2", "was changed, or made"),
    "an event is changed": ("UPDATE audit_event SET body = '{}' WHERE event_id = 2", "event 2: was changed"),
    "the login of an event is changed": (
        "UPDATE audit_event SET login = 'other' WHERE event_id = 2",
        "event 2: was changed",
    ),
    "the project of an event is changed": (
        "UPDATE audit_event SET project = 'q' WHERE event_id = 2",
        "event 2: was changed",
    ),
    "an event is deleted": ("DELETE FROM audit_event WHERE event_id = 4", "does not follow the event before it"),
    "the newest event is deleted": (
        "DELETE FROM audit_event WHERE event_id = (SELECT max(event_id) FROM audit_event)",
        "events: there are 5, but 6 were recorded",
    ),
    "the newest event is deleted and the counter set back": (
        (
            "DELETE FROM audit_event WHERE event_id = (SELECT max(event_id) FROM audit_event); "
            "UPDATE chain_head SET counter = 5 WHERE chain = 'events'"
        ),
        "events: the head of the chain was changed",
    ),
    "an old run is deleted": (
        f"""DELETE FROM audit WHERE run_id = {OLD_RUN}; DELETE FROM audit_link WHERE run_id = {OLD_RUN};
            DELETE FROM audit_event WHERE run_id = {OLD_RUN}""",
        "does not follow the event before it",
    ),
    "the newest run is deleted everywhere": (WITHOUT_OPEN_RUN, "events: there are 5, but 6 were recorded"),
    "all rows are deleted": ("TRUNCATE audit", "covers 10 rows, but there are 0"),
    "all rows and links are deleted": ("TRUNCATE audit, audit_link", "links of p: there are 0, but 7 were recorded"),
    "all events are deleted": ("TRUNCATE audit_event", "events: there are 0, but 6 were recorded"),
    "the whole audit is deleted": (
        "TRUNCATE audit, audit_link, audit_event, chain_head",
        "project p: has no event of its creation",
    ),
    "the heads are deleted": ("TRUNCATE chain_head", "events: the head of the chain was deleted"),
    "the head of a project is deleted": (
        "DELETE FROM chain_head WHERE chain = 'links of p'",
        "links of p: the head of the chain was deleted",
    ),
    "a run is deleted from the table of runs": (
        f"DELETE FROM batch WHERE run_id = {OLD_RUN}; DELETE FROM run WHERE run_id = {OLD_RUN}",
        "was deleted from the table of runs",
    ),
    "the request of a run is changed": (
        f"""UPDATE run SET request = replace(request, 'desktop', 'other') WHERE run_id = {OLD_RUN}""",
        "its request differs",
    ),
    "a run is said to have succeeded": (
        f"UPDATE run SET state = 'succeeded' WHERE run_id = {OPEN_RUN}",
        "its state differs from the event of its end",
    ),
    "a run is inserted": (
        (
            "INSERT INTO run (run_id, scope_id, rules_id, request) SELECT gen_random_uuid(), scope_id, rules_id, "
            "request FROM run LIMIT 1"
        ),
        "has no event of its beginning",
    ),
    "a project is inserted": (
        (
            "INSERT INTO project (name, org_root, uid_strategy, max_date_offset_days, patient_key, index_attributes, "
            "secret, key_id, deleted_at) SELECT 'q', org_root, uid_strategy, max_date_offset_days, patient_key, "
            "index_attributes, secret, key_id, now() FROM project"
        ),
        "project q: has no event of its creation",
    ),
    "the pseudonyms of two patients are swapped": (
        """UPDATE mapping m SET pseudonym = 'temporary' WHERE keyed_hash = (SELECT min(keyed_hash) FROM mapping);
           CREATE TEMP TABLE other AS SELECT pseudonym FROM mapping ORDER BY keyed_hash DESC LIMIT 1;
           UPDATE mapping SET pseudonym = 'PAT1' WHERE keyed_hash = (SELECT max(keyed_hash) FROM mapping);
           UPDATE mapping SET pseudonym = (SELECT pseudonym FROM other) WHERE pseudonym = 'temporary'""",
        "mapping: 2 pseudonyms of kind PatientID were changed or moved",
    ),
    "a partition is detached": (
        (
            "DO $$ DECLARE part text := 'audit_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM'); BEGIN "
            "EXECUTE format('ALTER TABLE audit DETACH PARTITION %I', part); END $$"
        ),
        "covers 10 rows, but there are 0",
    ),
}


@pytest.fixture
def audited(database, steps) -> Database:
    """Return a database with two finished runs of several links, one that is open, and two patients."""
    for destination in ("s3://a/", "s3://b/"):
        run = steps.begin(destination=destination)
        steps.work(database.plan(run, steps.listing(30), batch_objects=10).batches, actions={"REMOVE": 3})
        database.finish_run(run, "succeeded")
    open_run = steps.begin(destination="s3://c/")
    steps.work(database.plan(open_run, steps.listing(20), batch_objects=10).batches[:1])
    database.mapping(database.project("p")).resolve([Identifier(IdentifierKind.PATIENT_ID, each) for each in "AB"])
    return database


def manipulate(database: Database, sql: str) -> None:
    """Change the database as a superuser can, past triggers."""
    database.connection.query("test", f"SET session_replication_role = replica; {sql}")
    database.connection.query("test", "SET session_replication_role = DEFAULT")


def test_there_are_more_than_28_manipulations():
    assert len(MANIPULATIONS) >= 28


@pytest.mark.parametrize("name", MANIPULATIONS)
def test_a_manipulation_is_found_without_the_head(audited, name):
    sql, expected = MANIPULATIONS[name]
    assert audited.verify().problems == []
    manipulate(audited, sql)
    problems = [f"{problem.where}: {problem.what}" for problem in audited.verify().problems]
    assert any(expected in problem for problem in problems), problems


def test_an_older_copy_of_the_whole_database_is_found_with_the_head_of_a_report(audited, steps):
    # Nothing inside a database tells that all of it was put back: the report's head, kept elsewhere, does.
    older = audited.verify().head
    run = steps.begin(destination="s3://d/")
    audited.finish_run(run, "succeeded")
    head = audited.report(run).audit_head
    assert audited.verify(expected_head=head).problems == []
    assert audited.verify(expected_head=older).problems == []
    manipulate(
        audited,
        f"DELETE FROM run WHERE run_id = '{run}'; DELETE FROM audit_event WHERE run_id = '{run}'; "
        f"UPDATE chain_head SET counter = {older.split(':')[0]} WHERE chain = 'events'",
    )
    assert any("expected head" in problem.what for problem in audited.verify(expected_head=head).problems)


def test_rows_of_an_older_list_of_columns_still_verify(audited, monkeypatch, steps):
    # Would catch a column that is added next year and makes every older row look changed.
    from dicom_deid.database import audit

    newer = (*audit.AUDIT_COLUMNS[1][:-1], "milliseconds")
    monkeypatch.setattr("dicom_deid.database.audit.ROW_VERSION", 2)
    columns = {**audit.AUDIT_COLUMNS, 2: newer}
    monkeypatch.setattr(audit, "AUDIT_COLUMNS", columns)
    monkeypatch.setattr("dicom_deid.database.verify.AUDIT_COLUMNS", columns)
    run = steps.begin(destination="s3://d/")
    steps.work(audited.plan(run, steps.listing(5)).batches)
    assert audited.verify().problems == []
    versions = audited.connection.query("test", "SELECT DISTINCT version FROM audit_link ORDER BY 1")
    assert versions == [(1,), (2,)]
    manipulate(audited, "UPDATE audit SET detail = 'x' WHERE link_id = 1 AND item = 0")
    assert any("a row was changed" in problem.what for problem in audited.verify().problems)
