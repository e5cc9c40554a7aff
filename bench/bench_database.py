"""Cost of the database: pseudonyms and audit of a batch, plan of an archive, withdrawal of a patient.

Each figure is measured beside a peer in the same run, on the same server: the mapping beside a row at a time, the plan
beside the bare listing of the same keys. Run it with `make bench-database`.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import statistics
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import boto3
import psycopg2

from dicom_deid.database import AccessReason, AuditRow, Database, KeyRing, PlanSummary, RunRequest, WithdrawalRequest
from dicom_deid.database.mapping import Mapping, keyed_hash_of
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore.connection import S3Connection
from dicom_deid.objectstore.s3 import S3Store
from dicom_deid.reasons import Outcome
from dicom_deid.sandbox import Sandbox

Result = TypeVar("Result")

OBJECTS = 500
ROUNDS = 5
PAGE = 1000
DESTINATION = "s3://reconciled"


def originals_of_a_batch(seed: str) -> list[Identifier]:
    """Return the identifiers of 500 objects: 5 studies of one patient each, 4 series a study."""
    found = [Identifier(IdentifierKind.UID, f"1.2.840.{seed}.9.{number}") for number in range(OBJECTS)]
    for study in range(5):
        found += [Identifier(IdentifierKind.UID, f"1.2.840.{seed}.{study}.{series}") for series in range(4)]
        found += [
            Identifier(IdentifierKind.UID, f"1.2.840.{seed}.{study}"),
            Identifier(IdentifierKind.STUDY_ID, f"{seed}{study}"),
        ]
        found += [
            Identifier(kind, f"{seed}-{study}")
            for kind in (IdentifierKind.PATIENT_ID, IdentifierKind.ACCESSION_NUMBER, IdentifierKind.DATE_OFFSET)
        ]
    return found


def row_at_a_time(url: str, identifiers: Iterable[Identifier]) -> int:
    """Do it as is usual: look one up, insert it when it is missing, look again. Returns the round trips."""
    trips = 0
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("CREATE TABLE IF NOT EXISTS naive (kind text, original text, pseudonym text UNIQUE, "
                       "PRIMARY KEY (kind, original))")  # fmt: skip
        for kind, value in identifiers:
            cursor.execute("SELECT pseudonym FROM naive WHERE kind = %s AND original = %s", (kind.value, value))
            trips += 1
            if cursor.fetchone() is None:
                cursor.execute(
                    "INSERT INTO naive VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (kind.value, value, f"2.25.{uuid.uuid4().int}"),
                )
                trips += 1
    return trips


def timed(action: Callable[[], Result]) -> tuple[float, Result]:
    """Return how many seconds `action` took, and what it returned."""
    begun = time.perf_counter()
    result = action()
    return time.perf_counter() - begun, result


def bench_mapping(database: Database, url: str) -> None:
    """Print round trips and rows a second of cold and warm batches."""
    project = database.project("bench")
    count = len(originals_of_a_batch("0"))
    results: dict[str, list[tuple[float, int]]] = {}

    def ours(name: str, mapping: Mapping, batch: list[Identifier]) -> None:
        before = database.connection.round_trips
        seconds, _ = timed(lambda: mapping.resolve(batch))
        results.setdefault(name, []).append((seconds, database.connection.round_trips - before))

    def theirs(name: str, batch: list[Identifier]) -> None:
        results.setdefault(name, []).append(timed(lambda: row_at_a_time(url, batch)))

    for turn in range(ROUNDS):
        batch = originals_of_a_batch(str(turn + 100))
        mapping = Mapping(database.connection, database.keys, project)
        ours("cold: all originals new", mapping, batch)
        ours("warm: known to the database", Mapping(database.connection, database.keys, project), batch)
        ours("warm: known to the process", mapping, batch)
        theirs("row at a time, cold", batch)
        theirs("row at a time, warm", batch)
    print(f"Pseudonyms for a batch of {OBJECTS} objects, {count} originals, median of {ROUNDS}")
    print(f"  {'':34}{'round trips':>12}{'ms':>9}{'rows/s':>10}")
    for name, rounds in results.items():
        seconds = statistics.median(each for each, _ in rounds)
        print(f"  {name:34}{rounds[0][1]:12}{seconds * 1000:9.1f}{count / seconds:10.0f}")
    size = database.connection.query("bench", "SELECT pg_total_relation_size('mapping') / count(*) FROM mapping")[0][0]
    print(f"  on disk: {size} bytes a row, indexes included")


def request(source: str) -> RunRequest:
    """Return the request of a run."""
    return RunRequest(
        project="bench", source=source, destination="s3://out/", recipe_name="desktop", recipe_digest="ab" * 32,
        settings_digest="cd" * 32,
    )  # fmt: skip


def record_batch(database: Database, batch_id: int) -> tuple[float, int]:
    """Do a batch and return how long recording took, and its round trips."""
    lease = database.lease(batch_id, "bench")
    assert lease is not None
    rows = [
        AuditRow(
            item=item, outcome=Outcome.DEIDENTIFIED, destination_key=f"out/{item.item_id}", destination_size=1,
            sha256_in="11" * 32, sha256_out="22" * 32, actions={"REMOVE": 10, "REPLACE": 7}, milliseconds=3,
        )
        for item in lease.items()
    ]  # fmt: skip
    before = database.connection.round_trips
    seconds, _ = timed(lambda: lease.record(rows))
    trips = database.connection.round_trips - before
    lease.finish()
    return seconds, trips


def bench_audit(database: Database) -> None:
    """Print what recording and verifying rows costs."""
    count = 20 * OBJECTS
    listing = [SourceObject(f"k/{number}", 500_000, "e" * 32, datetime.now(UTC)) for number in range(count)]
    run = database.start_run(request("s3://audited/"))
    summary = database.plan(run, listing)
    recorded = [record_batch(database, reference.batch_id) for reference in summary.batches]
    recording, trips = sum(seconds for seconds, _ in recorded), recorded[0][1]
    database.finish_run(run, "succeeded")
    verifying, result = timed(database.verify)
    assert result.problems == []
    print(f"\nAudit of {count} objects, recorded {OBJECTS} at a time, chained")
    print(f"  recorded: {trips} round trips a batch, {count / recording:.0f} rows/s")
    print(f"  verified: {count / verifying:.0f} rows/s")


def bench_lookups(database: Database, rows: int) -> None:
    """Print the query plans of the look-ups that people make, over a year of audit rows."""
    query = database.connection.query
    for month in range(1, 13):
        query("bench", "SELECT ensure_audit_partition(%s::timestamptz)", (f"2020-{month:02}-01",))
    query(
        "bench",
        """INSERT INTO audit (recorded_at, run_id, link_id, number, batch_id, item, attempt, project, source,
               object_id, source_etag, source_size, destination, destination_key, outcome, detail, recipe_digest,
               settings_digest, package_version, actions, notes, milliseconds)
           SELECT '2020-01-01'::timestamptz + n * interval '365 days' / %(rows)s,
               md5((n / 10000)::text)::uuid, n / 500, n %% 500, n / 500, n, 1, 'bench', 's3://in/', md5('k' || n)::uuid,
               md5(n::text), 500000, 's3://out/', 'out/' || n, 'deidentified', '', '', '', '0',
               '{}', '{}', 3 FROM generate_series(1, %(rows)s) n;
           ANALYZE audit""",
        {"rows": rows},
    )
    print(f"\nLook-ups among {rows:,} audit rows in 12 months")
    for name, condition in {
        "history of an object, or of a destination key": "object_id = ANY (ARRAY[md5('k77')::uuid]) OR "
        "destination_key = ANY (ARRAY['out/77'])",
        "rows of a run": "run_id = md5('7')::uuid AND recorded_at >= '2020-01-01'",
    }.items():
        explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM audit WHERE "
        plan = [line for (line,) in query("bench", explain + condition)]
        nodes = Counter(re.sub(r"_\d+|\(.*\)", "", line).strip(" ->") for line in plan if "Scan" in line)
        print(f"  {name}: {plan[-1].strip()} (a scan of a partition that is empty is a Seq Scan)")
        for node, count in nodes.items():
            print(f"    {count:3} x {node}")


def bench_withdrawal(database: Database, rows: int) -> None:
    """Print how long it takes to plan, and to begin, the withdrawal of one patient among many objects."""
    query = database.connection.query
    project = database.project("withdrawal")
    wanted_run = replace(request("s3://withdrawal/"), project="withdrawal", destination=DESTINATION)
    run = database.start_run(wanted_run)
    patient = keyed_hash_of(project, IdentifierKind.PATIENT_ID, "MRN-1")
    query(
        "bench",
        """INSERT INTO source_series (project_id, series_hash, study_hash, accession_hash, patient_hash,
               issuer_hash)
           SELECT %(project)s, sha256(('series' || n)::bytea), sha256(('study' || n / 4)::bytea),
               sha256(('accession' || n / 4)::bytea),
               CASE WHEN n / 8 = 77 THEN %(patient)s ELSE sha256(('patient' || n / 8)::bytea) END, ''
           FROM generate_series(0, %(rows)s / 100 - 1) n;
           INSERT INTO processed_object (scope_id, key_hash, object_id, encrypted_key, etag, outcome, rules_id, run_id,
               destination_key, destination_etag, destination_size, series_number, instance_hash)
           SELECT r.scope_id, md5('key' || n)::uuid, md5('id' || n)::uuid, sha256(n::text::bytea), 'e', 'deidentified',
               r.rules_id, r.run_id, 'out/' || n, 'e', 1, first.number + n / 100, md5('instance' || n)::uuid
           FROM generate_series(0, %(rows)s - 1) n, (SELECT * FROM run WHERE run_id = %(run)s) r,
               (SELECT min(series_number) AS number FROM source_series WHERE project_id = %(project)s) first;
           INSERT INTO audit (recorded_at, run_id, link_id, number, batch_id, item, attempt, project, source, object_id,
               source_etag, source_size, destination, destination_key, outcome, detail, recipe_digest, settings_digest,
               package_version, actions, notes, milliseconds)
           SELECT now(), %(run)s, n / 500, n %% 500, n / 500, n, 1, 'withdrawal', 's3://in/', md5('id' || n)::uuid,
               'e', 1, %(destination)s, 'out/' || n, 'deidentified', '', '', '', '0', '{}', '{}', 3
           FROM generate_series(0, %(rows)s - 1) n;
           ANALYZE source_series, processed_object, audit""",
        {"project": project.project_id, "patient": patient, "rows": rows, "run": run, "destination": DESTINATION},
    )
    wanted = WithdrawalRequest(patients=["MRN-1"])
    access = AccessReason(person="bench", reason="consent withdrawn")
    planning, planned = timed(lambda: database.withdraw(project, wanted, access, dry_run=True))
    beginning, begun = timed(lambda: database.withdraw(project, wanted, access))
    pending = database.pending_deletions(begun.withdrawal_id)
    recording, _ = timed(lambda: database.record_withdrawn(project, pending))
    print(f"\nWithdrawal of one patient among {rows:,} objects in {rows // 800:,} patients")
    print(f"  planned (dry run): {planning:.2f} s, {planned.objects} objects")
    print(f"  begun:             {beginning:.2f} s")
    print(f"  recorded:          {len(pending) / recording:.0f} rows/s, beside the requests that delete them")


def bench_reconcile(database: Database, rows: int) -> None:
    """Print time and memory of the comparison of a destination with the audit, after `bench_withdrawal`.

    The listing costs nothing; over a network it comes by pages of 1,000 keys.
    """
    access = AccessReason(person="bench", reason="monthly check")
    modified = datetime.now(UTC)

    def listing(count: int, every: int) -> Iterator[SourceObject]:
        """List the objects of the audit, except one of so many, and as many that nothing knows."""
        for number in range(count):
            name = "unknown" if every and number % every == 0 else "out"
            yield SourceObject(f"{name}/{number}", 1, "e", modified)

    print(f"\nComparison of a destination with the audit of {rows:,} objects, by number of objects in the listing")
    for what, count, every in (
        ("as recorded", rows, 0), ("one of 1,000 lost", rows, 1000), ("half lost", rows, 2),
        ("a tenth is there", rows // 10, 0), ("empty", 0, 0),
    ):  # fmt: skip
        gc.collect()
        with PeakMemory() as idle:
            time.sleep(0.1)
        with PeakMemory() as memory:
            listed = listing(count, every)
            compare = partial(database.reconcile, DESTINATION, listed, access, confirm=lambda found: found)
            seconds, result = timed(compare)
        over = (memory.peak - idle.peak) / 2**20
        print(f"  {what:20}{seconds:7.1f} s {over:+5.0f} MiB  {dict(result.counts)}")


class PeakMemory:
    """Watches this process's resident memory."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, int(Path("/proc/self/statm").read_text().split()[1]) * page)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def listed_bucket(sandbox: Sandbox) -> Iterator[tuple[Callable[[int], Iterator[SourceObject]], Callable[[int], int]]]:
    """Give two functions that list so many keys with real requests: one as a run lists, and one of plain boto3.

    Both list a bucket of one page again and again. The first gives the keys of each round another prefix, so that the
    plan meets as many different objects as are asked for; the second returns the number of keys.
    """
    client, s3 = sandbox.s3.client(), sandbox.s3
    bucket = f"bench-{uuid.uuid4().hex[:8]}"
    connection = S3Connection(endpoint_url=s3.endpoint_url, access_key=s3.access_key, secret_key=s3.secret_key)
    store = S3Store(bucket, "", connection)
    client.create_bucket(Bucket=bucket)
    for number in range(PAGE):
        client.put_object(Bucket=bucket, Key=f"archive/patient-{number // 100:04}/series/{number:06}.dcm", Body=b"x")

    def listing(count: int) -> Iterator[SourceObject]:
        for turn in range(-(-count // PAGE)):
            for listed in store.list():
                yield listed._replace(key=f"{turn:06}/{listed.key}", size=500_000 + turn)

    def list_with_boto3(count: int) -> int:
        return sum(len(client.list_objects_v2(Bucket=bucket)["Contents"]) for _ in range(-(-count // PAGE)))

    yield listing, list_with_boto3
    for number in range(PAGE):
        client.delete_object(Bucket=bucket, Key=f"archive/patient-{number // 100:04}/series/{number:06}.dcm")
    client.delete_bucket(Bucket=bucket)


def bench_plan(database: Database, sandbox: Sandbox, count: int) -> None:
    """Print plans of many keys, each beside the bare listing by boto3 and by this package, and one without requests."""
    sampled = max(count // 10, 2 * PAGE)
    with listed_bucket(sandbox) as (listing, list_with_boto3), PeakMemory() as idle:

        def bare() -> tuple[float, float]:
            """Return the times of the bare listings, in proportion: every page is the same page."""
            plain, _ = timed(lambda: list_with_boto3(sampled))
            ours, _ = timed(lambda: sum(1 for _ in listing(sampled)))
            return plain * count / sampled, ours * count / sampled

        bares = [bare()]
        idle_peak = idle.peak
        print(f"\nPlan of {count:,} keys, listed over S3 by pages of {PAGE}; bare: {sampled:,} before and after")
        print(f"  {'':18}{'plan':>8}  boto3 {boto3.__version__} lists   we list  over boto3   over ours")

        def plan(name: str, request: RunRequest) -> tuple[str, PlanSummary]:
            run = database.start_run(request)
            seconds, summary = timed(lambda: database.plan(run, listing(count)))
            bares.append(bare())
            plain, ours = (statistics.mean(pair) for pair in zip(*bares[-2:], strict=True))
            over = [f"{100 * (seconds / each - 1):+10.1f} %" for each in (plain, ours)]
            print(
                f"  {name:18}{seconds:6.1f} s{plain:20.1f} s{ours:8.1f} s{''.join(over)}   {summary.planned:,} objects"
            )
            return run, summary

        with PeakMemory() as memory:
            run, _ = plan("plan", request("s3://archive/"))
        mark_done(database, run)
        _, repeated = plan("all done already", request("s3://archive/"))
        assert repeated.already_done == count
        for change in range(3):
            changed = replace(request("s3://archive/"), recipe_digest=f"{change:064x}")
            _, replaced = plan("all superseded", changed)
            assert replaced.superseding == {"recipe": count}
        over = (memory.peak - idle_peak) / 2**20
        print(f"  peak memory       {memory.peak / 2**20:7.0f} MiB, {over:+.0f} MiB over the bare listing")
    keys = [SourceObject(f"k/{number}", 500_000, "e" * 32, datetime.now(UTC)) for number in range(count)]
    run = database.start_run(request("s3://memory/"))
    alone, _ = timed(lambda: database.plan(run, iter(keys)))
    print(f"  plan of a listing that costs nothing: {alone:.1f} s, {count / alone:,.0f} keys/s")


def mark_done(database: Database, run: str) -> None:
    """Record all objects of a plan as written."""
    database.connection.query(
        "bench",
        """INSERT INTO processed_object (scope_id, key_hash, encrypted_key, etag, outcome, rules_id, run_id,
               destination_key, destination_etag)
           SELECT b.scope_id, i.key_hash, i.encrypted_key, i.etag, 'deidentified', r.rules_id, r.run_id,
               'out/' || i.batch_id || '/' || i.item, 'e'
           FROM run r JOIN batch b USING (run_id) JOIN batch_item i USING (batch_id) WHERE r.run_id = %s;
           ANALYZE processed_object""",
        (run,),
    )


def main() -> None:
    """Run all of it against a sandbox of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys to plan")
    parser.add_argument("--objects", type=int, default=1_000_000, help="among how many objects to withdraw a patient")
    given = parser.parse_args()
    count, objects = given.keys, given.objects
    with tempfile.TemporaryDirectory(prefix="dicom-deid-bench-") as directory:
        sandbox = Sandbox(Path(directory) / "sandbox", keep=True)
        sandbox.start()
        try:
            with Database.connect(sandbox.postgres_url, keys=KeyRing.generate()) as database:
                database.upgrade()
                version = database.connection.query("bench", "SHOW server_version")[0][0]
                print(f"PostgreSQL {version}, {os.cpu_count()} cores, durable\n")
                bench_mapping(database, sandbox.postgres_url)
                bench_audit(database)
                bench_lookups(database, 300_000)
                bench_withdrawal(database, objects)
                bench_reconcile(database, objects)
                bench_plan(database, sandbox, count)
        finally:
            sandbox.stop()


if __name__ == "__main__":
    main()
