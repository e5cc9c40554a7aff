"""The audit cannot be quietly changed, and answers what happened to an object."""

from __future__ import annotations

import csv
import hashlib
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_deid.database import AccessReason, Database, KeyRing
from dicom_deid.database.copy_format import copy_line
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.reasons import Outcome, Reason


@pytest.fixture
def audited(database, steps):
    """A store with two finished runs of several links, and one that goes on."""
    for destination in ("s3://a/", "s3://b/"):
        run = steps.begin(destination=destination)
        steps.work(database.plan(run, steps.listing(30), batch_objects=10).batches, actions={"REMOVE": 3})
        database.finish_run(run, "succeeded")
    open_run = steps.begin(destination="s3://c/")
    steps.work(database.plan(open_run, steps.listing(20), batch_objects=10).batches[:1])
    return database


def test_an_untouched_audit_verifies(audited):
    result = audited.verify()
    assert result.problems == []
    assert (result.events, result.runs, result.links, result.rows) == (6, 3, 7, 70)
    run = audited.runs()[0].run_id
    assert audited.verify(run_id=run, expected_head=result.head).problems == []


def test_the_owner_cannot_change_the_audit_by_accident(audited):
    for table in ("audit", "audit_link", "audit_event"):
        for statement in (f"UPDATE {table} SET run_id = run_id", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(ConfigurationError, match="may not"):
                audited.connection.query("test", statement)


def test_another_key_ring_cannot_make_a_chain(audited, store_url):
    with (
        Database.connect(store_url, keys=KeyRing.generate()) as stranger,
        pytest.raises(ConfigurationError, match="is not the key"),
    ):
        stranger.verify()


def test_an_object_is_traced_in_either_direction(database, steps):
    run = steps.begin()
    batch = database.plan(run, steps.listing(3)).batches[0].batch_id
    lease = database.lease(batch, "w")
    lease.record([steps.row(item, Outcome.FAILED, reason=Reason.STORAGE_ERROR) for item in lease.items()])
    lease.release()
    lease = database.lease(batch, "w")
    lease.record([steps.row(item, actions={"REMOVE": 2}, detail="here") for item in lease.items()])
    forwards = database.trace("DOE^JOHN/1.dcm")
    assert [row.outcome for row in forwards] == ["failed", "deidentified"]
    assert forwards[1].destination_key == "d/1"
    assert json.loads(forwards[1].actions) == {"REMOVE": 2}
    assert database.trace("s3://in/DOE^JOHN/1.dcm") == forwards
    back = database.trace("s3://out/d/1")
    assert back == forwards
    assert database.trace("nothing") == []
    access = AccessReason(person="Dr Strand", reason="wrong patient in study 5")
    assert database.source_keys(back, access) == {back[0].object_id: "DOE^JOHN/1.dcm"}
    event = database.connection.query("test", "SELECT body FROM audit_event WHERE kind = 'source-keys-read'")
    assert json.loads(event[0][0])["reason"] == access.reason


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_export_holds_every_row(audited, tmp_path, ending):
    path = tmp_path / f"audit.{ending}"
    assert audited.export_audit(path) == 70
    run = audited.runs()[0].run_id
    if ending == "csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
    assert len(rows) == 70
    assert {row["outcome"] for row in rows} == {"deidentified"}
    assert {len(row["recipe_digest"]) for row in rows} == {64}
    assert "DOE^JOHN" not in str(rows)
    assert audited.export_audit(path, run_id=run) == 10
    assert audited.export_audit(path, outcome="quarantined") == 0
    with pytest.raises(ConfigurationError, match=r"\.parquet or \.csv"):
        audited.export_audit(tmp_path / "audit.xlsx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])), number=st.integers(-(2**63), 2**63 - 1), data=st.binary()
)
def test_rows_read_by_copy_have_their_hash(database, text, number, data):
    # The chain hashes the line that was sent: PostgreSQL must give the same line back for every value.
    database = database.connection
    moment = database.query("test", "SELECT clock_timestamp()")[0][0]
    sent = copy_line(moment, text, number, data, None)
    database.query("test", "CREATE TEMP TABLE IF NOT EXISTS echo (a timestamptz, b text, c bigint, d bytea, e text)")
    database.query("test", "TRUNCATE pg_temp.echo")
    database.copy_in("test", "pg_temp.echo", sent)
    got = io.BytesIO()
    database.copy_out("test", "SELECT * FROM pg_temp.echo", (), got)
    assert hashlib.sha256(got.getvalue()).digest() == hashlib.sha256(sent.encode()).digest()


def test_rows_of_another_month_go_into_a_partition_of_their_own(database):
    database.connection.query("test", "SELECT ensure_audit_partition('2031-07-31 23:59:59+00')")
    database.connection.query("test", "SELECT ensure_audit_partition('2031-07-01 00:00:00+00')")
    bounds = database.connection.query(
        "test", "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'audit_203107'"
    )
    assert bounds == [("FOR VALUES FROM ('2031-07-01 00:00:00+00') TO ('2031-08-01 00:00:00+00')",)]


LOOKUPS = {
    "trace": "SELECT * FROM audit WHERE object_id = ANY (%(hashes)s::uuid[]) OR destination_key = ANY (%(keys)s)",
    "reidentify": "SELECT object_id FROM processed_object WHERE object_id = ANY (%(hashes)s::uuid[])",
    "last attempts": "SELECT * FROM last_attempts(ARRAY[%(run)s]::uuid[], now() - interval '1 day')",
    "of a series": "SELECT * FROM processed_object WHERE series_number = 1",
    "of a patient": "SELECT * FROM source_series WHERE project_id = 1 AND patient_hash = '\\x00'",
    "of an instance": "SELECT * FROM processed_object WHERE instance_hash = %(run)s",
    "run": "SELECT * FROM audit WHERE run_id = %(run)s ORDER BY run_id, link_id, number",
    "mapping": "SELECT * FROM mapping WHERE project_id = 1 AND kind = 'UID' AND keyed_hash = '\\x00'",
    "pseudonym": "SELECT * FROM mapping WHERE project_id = 1 AND kind = 'UID' AND pseudonym = 'x' AND is_unique",
    "done": "SELECT * FROM processed_object WHERE scope_id = 1 AND key_hash = '00000000-0000-0000-0000-000000000000'",
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_no_lookup_of_the_product_reads_a_whole_table(audited, name):
    # Would catch a lost index: with sequential scans disfavoured, none is left where an index serves.
    zero = "00000000-0000-0000-0000-000000000000"
    audited.connection.query("test", "SET enable_seqscan = off")
    plan = audited.connection.query("test", "EXPLAIN " + LOOKUPS[name], {"hashes": [zero], "keys": ["k"], "run": zero})
    assert "Seq Scan" not in str(plan), plan
