"""Cost of the index of a source: reading headers, planning a cohort list from it, its size; and of excluded objects.

The header scan is measured beside pydicom with boto3 on the same objects; the cohort against generated rows. Run it
with `make bench-index`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from tests.support.datasets import ct_elements, mr_elements, part10

from bench.bench_pipeline import slices
from dicom_deid.database import Database, KeyRing
from dicom_deid.database.source_index import IndexedIdentifiers, IndexEntry, SourceIndex, count_archive
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore, S3Connection, S3Store, open_object_store
from dicom_deid.pipeline import Connections, RunConfiguration, plan_run, run_batch
from dicom_deid.pipeline.indexing import index_source
from dicom_deid.sandbox import Sandbox

Result = TypeVar("Result")

TRANSFERS = 16
PER_LINE = 10
LINES = 1000

_GENERATE = """
INSERT INTO index_attributes (store_id, attributes)
SELECT DISTINCT %(store)s, jsonb_build_object('Modality', 'CT', 'Rows', 512, 'Columns', 512,
                       'StudyMonth', to_char(2010 + n %% 15, 'FM0000') || '-05', 'Manufacturer', 'Maker ' || n %% 7,
                       'ManufacturerModelName', 'Model ' || n %% 40,
                       'SOPClassUID', '1.2.840.10008.5.1.4.1.1.2', 'BodyPartExamined', 'CHEST')
FROM generate_series(1, least(%(series)s, 840)) n ON CONFLICT DO NOTHING;
INSERT INTO index_series (store_id, patient, issuer, accession, study, series, attributes_number)
SELECT %(store)s, gen_random_uuid(), %(empty)s, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
    numbers[1 + n %% cardinality(numbers)]
FROM generate_series(1, %(series)s) n,
    (SELECT array_agg(attributes_number) AS numbers FROM index_attributes WHERE store_id = %(store)s) a;
INSERT INTO index_object (store_id, key_hash, source_id, encrypted_key, size, etag, last_modified, instance,
                          series_number)
SELECT %(store)s, gen_random_uuid(), %(store)s, decode(repeat('5a', 90), 'hex'), 527000, md5(n::text), now(),
    gen_random_uuid(), s.series_number
FROM (SELECT series_number FROM index_series WHERE store_id = %(store)s ORDER BY 1 DESC LIMIT %(series)s) s,
    generate_series(1, %(each)s) n;
"""


class CountingStore:
    """Counts the bytes that are read from a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.bytes = 0

    def read(self, *arguments: Any, **options: Any) -> Any:
        """Read as the store does."""
        data = self._store.read(*arguments, **options)
        self.bytes += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return seconds and result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def connection_to(sandbox: Sandbox) -> S3Connection:
    """Return the connection to the store of a sandbox."""
    s3 = sandbox.s3
    return S3Connection(
        endpoint_url=s3.endpoint_url, region=s3.region, access_key=s3.access_key, secret_key=s3.secret_key
    )


def bench_headers(database: Database, sandbox: Sandbox, kind: str, body: bytes, objects: int) -> None:
    """Print the rate of the header scan, first and again, beside bare requests of the same client, and pydicom."""
    client = sandbox.s3.client()
    client.create_bucket(Bucket=kind)
    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=kind, Key=f"{n:06}.dcm", Body=body), range(objects)))
    # The store may still be writing what it was given.
    os.sync()
    store: Any = CountingStore(open_object_store(f"s3://{kind}", connection_to(sandbox)))
    first, summary = timed(lambda: index_source(database, store, "bench", transfers=TRANSFERS))
    assert summary.read == objects, summary
    kib = store.bytes / objects / 1024
    again, _ = timed(lambda: index_source(database, store, "bench", transfers=TRANSFERS))

    def get(listed: SourceObject) -> int:
        return len(store.read(listed.key, etag=listed.etag, start=0, end=16 * 1024))

    def read(number: int) -> str:
        found = client.get_object(Bucket=kind, Key=f"{number:06}.dcm", Range="bytes=0-16383")
        return str(pydicom.dcmread(BytesIO(found["Body"].read()), stop_before_pixels=True).PatientID)

    with ThreadPoolExecutor(TRANSFERS) as pool:
        bare, _ = timed(lambda: list(pool.map(get, store.list())))
        peer, _ = timed(lambda: list(pool.map(read, range(objects))))
    name = f"{objects:,} {kind[:2].upper()} objects of {len(body):,} bytes"
    print(f"Header scan of {name}, {TRANSFERS} at a time, server on the same cores")
    print(f"  index, all new:        {objects / first:7.0f} objects/s, {kib:.1f} KiB read per object")
    print(f"  the requests alone:    {objects / bare:7.0f} objects/s")
    print(f"  index, nothing new:    {objects / again:7.0f} objects/s")
    print(f"  boto3 and pydicom {pydicom.__version__}: {objects / peer:5.0f} objects/s, nothing stored")


def bench_cohort(database: Database, rows: int, each: int) -> None:
    """Print how long a cohort list takes against a generated index, and the size of the index."""
    project = database.project("bench")
    index = SourceIndex(database.connection, project, "s3://archive")
    moment = datetime.now(UTC)
    entries = [
        IndexEntry(
            source_object=SourceObject(f"{line}/{number}.dcm", 527_000, "e" * 32, moment),
            identifiers=IndexedIdentifiers(
                patient_id=f"P{line}",
                issuer_of_patient_id="",
                accession_number=f"A{line}",
                study_instance_uid=f"1.2.{line}",
                series_instance_uid=f"1.2.{line}.1",
            ),
            attributes={"Modality": "CT"},
        )
        for line in range(LINES)
        for number in range(PER_LINE)
    ]
    filling, _ = timed(lambda: [index.add(entries[start : start + 500]) for start in range(0, len(entries), 500)])
    (store, empty), *_ = database.connection.query(
        "bench", "SELECT store_id, issuer FROM index_series ORDER BY series_number DESC LIMIT 1"
    )
    made, step = 0, 1_000_000
    while made < rows:
        count = min(step, rows - made)
        parameters = {"store": store, "empty": empty, "series": count // each, "each": each}
        database.connection.query("bench", _GENERATE, parameters)
        made += count
    database.connection.query("bench", "VACUUM ANALYZE index_object")
    database.connection.query("bench", "VACUUM ANALYZE index_series")
    size = database.connection.query(
        "bench",
        "SELECT sum(pg_total_relation_size(n::regclass)) FROM unnest(%s) n",
        (["index_object", "index_series", "index_attributes"],),
    )[0][0]
    lines = [(n, IndexedIdentifiers(accession_number=f"A{n}"), None) for n in range(LINES)]
    matching, answers = timed(lambda: index.match(lines))
    assert {answer.objects for answer in answers} == {PER_LINE}
    reading, found = timed(lambda: sum(1 for _ in index.matched_objects(answers)))
    assert found == LINES * PER_LINE
    counting, _ = timed(index.count)
    showing, counts = timed(lambda: count_archive(database.connection, "bench"))
    assert sum(count.objects for count in counts) >= rows
    print(f"\nIndex of {rows + len(entries):,} objects: {size / (rows + len(entries)):.0f} MB per million")
    print(f"  adding:                 {len(entries) / filling:7.0f} entries/s, 500 at a time")
    print(f"  {LINES:,} accession numbers: {matching:.2f} s to match, {reading:.2f} s to read {found:,} objects")
    print(
        f"  counts of the archive:  {showing:.2f} s for its page; {counting:.1f} s to count all objects after indexing"
    )


def bench_excluded(sandbox: Sandbox, keys: KeyRing, objects: int) -> None:
    """Print the rate at which objects are excluded, and that a second run reads none of them."""
    client, connection = sandbox.s3.client(), connection_to(sandbox)
    client.create_bucket(Bucket="excluded")
    make = slices(16)

    def put(numbers: range) -> None:
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda n: client.put_object(Bucket="excluded", Key=f"{n:07}", Body=make(n)), numbers))

    put(range(objects))
    configuration = RunConfiguration(
        source="s3://excluded/", destination="s3://ct1/out", project="excluded", exclude="equals Modality CT"
    )
    connections = Connections(database=sandbox.postgres_url, keys=keys, source=connection, destination=connection)
    reads: list[int] = []
    read = S3Store.read

    def counted(*arguments: Any, **options: Any) -> Any:
        data = read(*arguments, **options)
        reads.append(len(data))
        return data

    def run() -> None:
        reads.clear()
        planned = plan_run(configuration, connections)
        for batch in planned.summary.batches:
            result = run_batch(
                planned.configuration, connections, run_id=planned.run_id, batch_id=batch.batch_id, worker="bench"
            )
            assert set(result.outcomes) == {"excluded"}, result

    S3Store.read = counted  # type: ignore[method-assign, assignment]
    try:
        first, _ = timed(run)
        assert len(reads) >= objects
        kib = sum(reads) / objects / 1024
        second, _ = timed(run)
        again = len(reads)
        put(range(objects, objects + 10))
        run()
        new = len(reads)
    finally:
        S3Store.read = read  # type: ignore[method-assign]
    print(f"\n{objects:,} objects that a criterion excludes")
    print(f"  first run:              {objects / first:7.0f} objects/s, {kib:.1f} KiB read per object")
    print(f"  second run:             {second:.1f} s, {again} reads; with 10 new objects {new} reads")
    assert (again, new) == (0, 10)


def main() -> None:
    """Run both against a sandbox of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="generated rows of the index")
    parser.add_argument("--objects", type=int, default=5_000, help="objects whose headers are read")
    parser.add_argument("--excluded", type=int, default=100_000, help="objects that a criterion excludes")
    parser.add_argument("--each", type=int, default=200, help="objects per series of the generated rows")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicom-deid-bench-") as directory:
        sandbox = Sandbox(Path(directory) / "sandbox", keep=True)
        sandbox.start()
        try:
            keys = KeyRing.generate()
            with Database.connect(sandbox.postgres_url, keys=keys) as database:
                database.upgrade()
                print(f"{os.cpu_count()} cores\n")
                bench_headers(database, sandbox, "ct1", part10(ct_elements(1)), given.objects)
                bench_headers(database, sandbox, "mr1", part10(mr_elements(1)), given.objects)
                bench_cohort(database, given.rows, given.each)
            bench_excluded(sandbox, keys, given.excluded)
        finally:
            sandbox.stop()


if __name__ == "__main__":
    main()
