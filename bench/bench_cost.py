"""Cost as the work grows: rate, size of the database and its indexes, WAL, time of plans and memory.

    python -m bench.bench_cost                                # 10 k, 100 k and 1 M objects: ten minutes or more
    python -m bench.bench_cost --sizes 10000 --real 500       # a minute

The database is filled by the calls that a batch makes: plan, lease, pseudonyms, intents, audit, index. At each size
1, 2 and 4 worker processes de-identify real objects of 30 KB; store, database and workers share the machine. The rate
with more cores, and a billion objects, are computed from that by the formulas that are printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.bench_database import PeakMemory, request, timed
from bench.bench_pipeline import Stage, slices
from bench.measure import table
from dicom_deid.database import AuditRow, BatchItem, Database, Intent, Lease
from dicom_deid.database.audit import ObjectIdentity
from dicom_deid.database.mapping import Mapping
from dicom_deid.database.source_index import IndexedIdentifiers, IndexEntry, SourceIndex
from dicom_deid.engine.settings import Settings
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.objects import SourceObject
from dicom_deid.pipeline import RunConfiguration, plan_run, report_run
from dicom_deid.pipeline.workers import run_batches
from dicom_deid.reasons import Outcome
from dicom_deid.sandbox import Sandbox

PROJECT = "bench"
SOURCE = "s3://archive"
WORKERS = (1, 2, 4)
BILLION = 10**9
OF_STUDY, OF_SERIES = 200, 100
"""Objects of a study (of one patient), and of a series."""
GROUP = 500
"""Objects whose pseudonyms, intents and audit rows are committed together."""
POSTGRESQL_CORES = 4
"""Of the machine that is computed."""
TABLES = {
    "pseudonyms": ("mapping", "patient"),
    "state of the objects": ("processed_object", "source_series"),
    "audit": ("audit", "audit_link"),
    "plan": ("batch_item", "write_intent"),
    "index of the source": ("index_object", "index_series", "index_attributes"),
}
_SIZES = """
SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint, coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
  AND (c.relname = ANY (%(names)s) OR i.inhparent::regclass::text = ANY (%(names)s))
"""


@dataclass(frozen=True)
class Snapshot:
    """Measurements at one number of objects in the database.

    Parameters
    ----------
    objects
        In the database.
    sizes
        Bytes of tables and of their indexes, by what they hold.
    added, wal
        Objects since the last snapshot, and the bytes of WAL that they made.
    recording, database_cpu
        Seconds an object of all the calls of the database, and PostgreSQL's own CPU of that.
    plan_new, plan_done
        Seconds to plan the objects that were added, and all objects when nothing is new.
    memory
        MiB that the plan of all objects took.
    rates
        Real objects a second, by number of workers.
    """

    objects: int
    sizes: dict[str, tuple[int, int]]
    added: int
    wal: int
    recording: float
    database_cpu: float
    plan_new: float
    plan_done: float
    memory: float
    rates: dict[int, float]

    @property
    def total(self) -> int:
        """Bytes of all tables and indexes."""
        return sum(map(sum, self.sizes.values()))


def listed(start: int, end: int) -> Iterator[SourceObject]:
    """List generated objects."""
    moment = datetime.now(UTC)
    for number in range(start, end):
        yield SourceObject(f"{number // OF_STUDY:08}/{number:010}.dcm", 30_000, f"{number:032x}", moment)


def identity_of(key: str) -> ObjectIdentity:
    """Return the identifiers of a generated object."""
    number = int(key.rpartition("/")[2].removesuffix(".dcm"))
    study = number // OF_STUDY
    root = f"1.2.840.99999.{study:08}"
    return ObjectIdentity(
        f"MRN{study:08}", f"ACC{study:08}", root, f"{root}.{number // OF_SERIES}", f"{root}.{number:010}.1"
    )


def pseudonyms_of(identity: ObjectIdentity) -> dict[Identifier, str]:
    """Return the identifiers that a CT object has replaced, each with its patient."""
    values = (
        (IdentifierKind.PATIENT_ID, identity.patient_id),
        (IdentifierKind.DATE_OFFSET, identity.patient_id),
        (IdentifierKind.ACCESSION_NUMBER, identity.accession_number),
        (IdentifierKind.STUDY_ID, identity.accession_number),
        *((IdentifierKind.UID, uid) for uid in identity[2:5]),
        (IdentifierKind.UID, f"{identity.study_instance_uid}.9"),
    )
    return {Identifier(kind, value): identity.patient_id for kind, value in values}


def do_batch(lease: Lease, mapping: Mapping, index: SourceIndex) -> None:
    """Make the calls of a batch, without the objects."""
    items = lease.items()
    for start in range(0, len(items), GROUP):
        group = [(item, identity_of(item.key)) for item in items[start : start + GROUP]]
        patients = {each: patient for _, identity in group for each, patient in pseudonyms_of(identity).items()}
        pseudonyms = mapping.resolve(patients, patients)
        rows = [_row(item, pseudonyms[Identifier(IdentifierKind.UID, of.sop_instance_uid)]) for item, of in group]
        lease.intend(
            [Intent(item=row.item, destination_key=row.destination_key or "", identity=of)
             for row, (_, of) in zip(rows, group, strict=True)]
        )  # fmt: skip
        lease.record(rows)
        index.add([_entry(item, of) for item, of in group])
    index.count_changed(lease.batch_id)
    lease.finish()


def _row(item: BatchItem, uid: str) -> AuditRow:
    return AuditRow(
        item=item, outcome=Outcome.DEIDENTIFIED, destination_key=f"{uid[-8:]}/{uid[-16:]}/{uid}.dcm",
        destination_etag=item.etag, destination_size=item.size, sha256_in=os.urandom(32).hex(),
        sha256_out=os.urandom(32).hex(), sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1", modality="CT", actions={"REMOVE": 10, "REPLACE": 17}, milliseconds=3,
    )  # fmt: skip


def _entry(item: BatchItem, identity: ObjectIdentity) -> IndexEntry:
    identifiers = IndexedIdentifiers(
        patient_id=identity.patient_id, issuer_of_patient_id="", accession_number=identity.accession_number,
        study_instance_uid=identity.study_instance_uid, series_instance_uid=identity.series_instance_uid,
    )  # fmt: skip
    return IndexEntry(
        source_object=SourceObject(item.key, item.size, item.etag, datetime.now(UTC)),
        identifiers=identifiers,
        sop_instance_uid=identity.sop_instance_uid,
        attributes={"Modality": "CT", "Manufacturer": "MAKER", "StudyMonth": "2026-01"},
    )


def cpu_of(directory: Path) -> float:
    """Return the CPU seconds of the PostgreSQL server whose files are below a directory, ended sessions included."""
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(directory) in words and "postgres" in words and process.ppid() == os.getpid():
            every = (process, *process.children())
            ended = process.cpu_times()
            return sum(t.user + t.system for t in (each.cpu_times() for each in every)) + (
                ended.children_user + ended.children_system
            )
    raise RuntimeError("PostgreSQL was not found among the processes")


def grow(database: Database, stage: Stage, directory: Path, start: int, end: int) -> Snapshot:
    """Add objects to the database, and measure."""
    query = database.connection.query
    project = database.project(PROJECT)
    before = query("bench", "SELECT pg_current_wal_lsn()")[0][0]
    run = database.start_run(request(f"{SOURCE}/"))
    plan_new, summary = timed(lambda: database.plan(run, listed(start, end), is_whole_listing=False))
    index, used = SourceIndex(database.connection, project, f"{SOURCE}/"), cpu_of(directory)

    def work() -> None:
        for batch in summary.batches:
            lease = database.lease(batch.batch_id, "bench")
            assert lease is not None
            do_batch(lease, database.mapping(project), index)

    recording, _ = timed(work)
    used = cpu_of(directory) - used
    database.finish_run(run, "succeeded")
    wal = int(query("bench", "SELECT pg_current_wal_lsn() - %s::pg_lsn", (before,))[0][0])
    for name in (name for names in TABLES.values() for name in names):
        query("bench", f"VACUUM ANALYZE {name}")
    sizes = {what: query("bench", _SIZES, {"names": list(names)})[0] for what, names in TABLES.items()}
    with PeakMemory() as idle:
        time.sleep(0.1)
    again = database.start_run(replace(request(f"{SOURCE}/"), external_id=str(uuid.uuid4())))
    with PeakMemory() as memory:
        plan_done, summary = timed(lambda: database.plan(again, listed(0, end)))
    assert summary.already_done == end, summary
    added = end - start
    return Snapshot(
        end, sizes, added, wal, recording / added, used / added, plan_new, plan_done,
        max(0, memory.peak - idle.peak) / 2**20, {workers: rate(stage, workers) for workers in WORKERS},
    )  # fmt: skip


def rate(stage: Stage, workers: int) -> float:
    """Return how many real objects a second so many worker processes de-identify, starting them not counted."""
    configuration = RunConfiguration(
        source=f"s3://{stage.bucket}/real",
        destination=f"s3://{stage.bucket}/out-{uuid.uuid4().hex[:6]}",
        project=f"real-{uuid.uuid4().hex[:6]}",
        settings=Settings(),
        batch_objects=250,
    )
    planned = plan_run(configuration, stage.connections)
    assert run_batches(
        stage.connections, planned, workers=workers, should_stop=lambda: False, on_progress=lambda *_: None,
        on_recorded=lambda _: None,
    )  # fmt: skip
    report = report_run(stage.connections, run_id=planned.run_id, state="succeeded")
    assert report.deidentified == planned.summary.planned, report.outcomes
    return report.objects_per_second


def client_cpu(stage: Stage, objects: int) -> float:
    """Return the CPU seconds of one worker for a real object."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    before = used()
    rate(stage, 1)
    return (used() - before) / objects


def print_sizes(snapshots: list[Snapshot]) -> None:
    """Print what the database holds and writes."""
    print("\nMB per million objects: tables + indexes\n")
    rows = [
        [
            f"{each.objects:,}",
            *(f"{part / each.objects:.0f} + {keys / each.objects:.0f}" for part, keys in each.sizes.values()),
            f"{each.total / each.objects:,.0f}",
            f"{each.wal / each.added:,.0f}",
        ]
        for each in snapshots
    ]
    print(table(["objects", *TABLES, "all", "WAL"], rows))


def print_times(snapshots: list[Snapshot], client: float) -> None:
    """Print times, rates, and what more cores would give."""
    print("\nTimes, and rates measured where workers, store and PostgreSQL share the cores of this machine\n")
    head = ["objects", "plan, all new", "plan, nothing new", "memory", "database ms an object"]
    head += ["CPU ms of PostgreSQL", *(f"{each} workers" for each in WORKERS)]
    rows = [
        [
            f"{each.objects:,}", f"{each.added / each.plan_new:,.0f} keys/s",
            f"{each.plan_done:.1f} s, {each.objects / each.plan_done:,.0f} keys/s", f"+{each.memory:.0f} MiB",
            f"{each.recording * 1e3:.3f}", f"{each.database_cpu * 1e3:.3f}",
            *(f"{each.rates[workers]:,.0f}" for workers in WORKERS),
        ]
        for each in snapshots
    ]  # fmt: skip
    print(table(head, rows))
    print(
        f"\nComputed, not measured: a core a worker, {POSTGRESQL_CORES} for PostgreSQL, and a store that keeps up"
        f"\n  objects/s = min(workers / {client * 1e3:.2f} ms, {POSTGRESQL_CORES} / CPU ms of PostgreSQL)\n"
    )
    more = (*WORKERS, 16)
    computed = [
        [f"{each.objects:,}", *(f"{min(n / client, POSTGRESQL_CORES / each.database_cpu):,.0f}" for n in more)]
        for each in snapshots
    ]
    print(table(["objects", *(f"{each} workers" for each in more)], computed))


def print_projection(last: Snapshot) -> None:
    """Print what a billion objects would take, in proportion to the largest size measured."""
    factor = BILLION / last.objects
    print(f"\nA billion objects, computed: {last.objects:,} objects times {factor:,.0f}\n")
    rows = [
        [what, f"{part * factor / 2**30:,.0f} GiB", f"{keys * factor / 2**30:,.0f} GiB"]
        for what, (part, keys) in last.sizes.items()
    ]
    print(table(["", "tables", "indexes"], rows))
    print(f"\n  all: {last.total * factor / 2**40:.2f} TiB; WAL: {last.wal / last.added * BILLION / 2**40:.2f} TiB")
    print(f"  audit in 12 partitions: {sum(last.sizes['audit']) * factor / 12 / 2**30:,.0f} GiB a month")
    print(f"  plan, nothing new, while the indexes fit into memory: {last.plan_done * factor / 3600:.1f} h")
    print(f"  plan, if each look-up reads one page in 0.1 ms: {BILLION * 1e-4 / 3600:.0f} h more")
    print(f"  listing, pages of 1,000 in 50 ms one after the other: {BILLION / 1000 * 0.05 / 3600:.1f} h")


def main() -> None:
    """Print all tables, from a sandbox of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="ascending")
    parser.add_argument("--real", type=int, default=2000, help="real objects for each number of workers")
    given = parser.parse_args()
    snapshots: list[Snapshot] = []
    with tempfile.TemporaryDirectory(prefix="dicom-deid-bench-") as name:
        directory = Path(name)
        sandbox = Sandbox(directory / "sandbox", keep=True).start()
        try:
            stage = Stage(sandbox, as_over_tls=False)
            with stage.connections.open_database() as database:
                database.upgrade()
                stage.load("real", given.real, slices(112))
                client = client_cpu(stage, given.real)
                print(f"{os.cpu_count()} cores; {client * 1e3:.2f} ms of a worker's CPU for an object of 30 KB")
                start = 0
                for end in given.sizes:
                    snapshots.append(grow(database, stage, directory, start, end))
                    start = end
        finally:
            sandbox.stop()
    print_sizes(snapshots)
    print_times(snapshots, client)
    print_projection(snapshots[-1])


if __name__ == "__main__":
    main()
