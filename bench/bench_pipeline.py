"""Race the pipeline, bucket to bucket, against a plain copy by the same client, and against the script it replaces.

    python -m bench.bench_pipeline                       # three to six minutes on two cores
    python -m bench.bench_pipeline --objects 5000 --large 64 --small 100000 --huge 4000    # half an hour, 60 GB of disk

Server, database and client share the machine, in one run. Each contender has destinations of its own, and they take
turns, so that a slow moment of the machine hits all of them. Each race has servers of its own, whose disk is freed
after it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import resource
import tempfile
import threading
import time
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import boto3
import psycopg2
import pydicom
from botocore.config import Config
from rich.console import Console
from rich.table import Table
from tests.support.datasets import ct_elements, element, part10

from bench.peers import DESKTOP_RECIPE, silence
from dicom_deid.database import KeyRing
from dicom_deid.engine.settings import Settings
from dicom_deid.objects import SourceObject, SourceRange
from dicom_deid.objectstore import ObjectStore, S3Connection, open_object_store, write_parts
from dicom_deid.objectstore.part_planner import MIN_PART_BYTES
from dicom_deid.pipeline import Connections, RunConfiguration, plan_run, run_batch
from dicom_deid.pipeline.batch import limit_free_memory
from dicom_deid.sandbox import S3Service, Sandbox

TRANSFERS = 16
"""Requests under way at once: a copy has so many threads, the pipeline half of them to read and half to write."""
_COPIES_AT_ONCE = 4
"""As many as the pipeline's default memory allows."""
LOOSE = 2000
"""Loose objects beside a zip: their rate does not depend on their number."""
SLICES = 200
"""Objects a study."""


@dataclass(frozen=True)
class Measured:
    """One contender's run.

    Parameters
    ----------
    objects, size
        How many, and their bytes summed.
    seconds, cpu
        Wall and client CPU seconds.
    peaks
        Peaks of resident memory above what stood at the beginning, in MB, in each quarter of the run.
    """

    objects: int
    size: int
    seconds: float
    cpu: float
    peaks: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Objects a second."""
        return self.objects / self.seconds

    @property
    def row(self) -> list[str]:
        """The figures as text."""
        megabytes = self.size / 1e6 / self.seconds
        cpu = self.cpu * 1e3 / self.objects
        rate = f"{self.rate:.0f}" if self.rate >= 10 else f"{self.rate:.2f}"
        return [rate, f"{megabytes:.0f}", f"{cpu:.2f}", " ".join(f"{peak:.0f}" for peak in self.peaks)]


@contextmanager
def watched_memory() -> Iterator[list[float]]:
    """Yield a list that receives the resident memory in MB ten times a second."""
    seen = [_resident()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(objects: int, size: int, work: Callable[[], object]) -> Measured:
    """Run a contender once."""
    with watched_memory() as memory:
        began, cpu = time.perf_counter(), _cpu()
        work()
        seconds, used = time.perf_counter() - began, _cpu() - cpu
    quarter = -(-len(memory) // 4)
    peaks = tuple(max(memory[start : start + quarter]) - memory[0] for start in range(0, len(memory), quarter))
    return Measured(objects, size, seconds, used, peaks)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


Contenders = Mapping[str, Callable[[str, int], Callable[[], object]]]
"""By name: makes a contender's work into a bucket, in a round."""


class Stage:
    """Servers, and places in one bucket."""

    def __init__(self, sandbox: Sandbox, *, as_over_tls: bool) -> None:
        self.s3: S3Service = sandbox.s3
        self.database = sandbox.postgres_url
        self.bucket = f"bench-{uuid.uuid4().hex[:8]}"
        self.connection = S3Connection(
            endpoint_url=self.s3.endpoint_url,
            region=self.s3.region,
            access_key=self.s3.access_key,
            secret_key=self.s3.secret_key,
            checksum="crc64nvme" if as_over_tls else "auto",
            compare_etags=not as_over_tls,
        )
        self.connections = Connections(
            database=self.database,
            keys=KeyRing.generate(),
            schema=f"bench_{uuid.uuid4().hex[:8]}",
            source=self.connection,
            destination=self.connection,
        )
        self.s3.client().create_bucket(Bucket=self.bucket)

    def storage(self, prefix: str) -> ObjectStore:
        """Open a prefix of the bucket."""
        return open_object_store(f"s3://{self.bucket}/{prefix}", self.connection)

    def load(self, prefix: str, objects: int, make: Callable[[int], bytes]) -> int:
        """Put source objects; return their bytes summed."""
        storage = self.storage(prefix)

        def put(number: int) -> int:
            data = make(number)
            storage.write(f"{number:07}.dcm", [data], metadata={})
            return len(data)

        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(put, range(objects)))

    def copy(self, source: str, bucket: str, *, digests: bool = False) -> Callable[[], object]:
        """Return the plain copy into a bucket: GET and PUT with the same client, threads and verification.

        Parameters
        ----------
        digests
            Also compute what an audit needs: the SHA-256 of what was read, and of what is written.
        """
        origin, target = self.storage(source), open_object_store(f"s3://{bucket}/copy", self.connection)

        def one(listed: SourceObject) -> None:
            data = origin.read(listed.key, etag=listed.etag)
            if digests:
                assert hashlib.sha256(data).digest() == hashlib.sha256(data).digest()
            target.write(listed.key, [data], metadata={})

        return _in_threads(one, list(origin.list()))

    def boto3_copy(self, source: str, bucket: str) -> Callable[[], object]:
        """Return a copy by boto3 with its own defaults, as a script would make it, with as many threads."""
        client = boto3.client(
            "s3",
            endpoint_url=self.s3.endpoint_url,
            region_name=self.s3.region,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
            config=Config(max_pool_connections=TRANSFERS),
        )

        def one(listed: SourceObject) -> None:
            data = client.get_object(Bucket=self.bucket, Key=f"{source}/{listed.key}")["Body"].read()
            client.put_object(Bucket=bucket, Key=listed.key, Body=data)

        return _in_threads(one, list(self.storage(source).list()))

    @contextmanager
    def temporary_bucket(self) -> Iterator[str]:
        """Make a bucket that accepts objects at once, and delete it with its objects.

        Memory and disk of the results are used again for the next ones. Otherwise each result takes memory that a
        virtual machine must first get from its host, which is half of the time of a copy by the store.
        """
        bucket = f"bench-{uuid.uuid4().hex[:8]}"
        client = self.s3.client()
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="first")
        try:
            yield bucket
        finally:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                keys = [{"Key": each["Key"]} for each in page.get("Contents", ())]
                if keys:
                    client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            client.delete_bucket(Bucket=bucket)

    def pipeline(self, source: str, bucket: str, project: str, **options: object) -> Callable[[], object]:
        """Plan a run into a bucket, and return the work of all its batches."""
        configuration = RunConfiguration(
            source=f"s3://{self.bucket}/{source}",
            destination=f"s3://{bucket}/out",
            project=project,
            settings=Settings(),
            transfers=TRANSFERS // 2,
            batch_objects=100_000,
            batch_bytes=2**40,
            **options,
        )
        planned = plan_run(configuration, self.connections)

        def work() -> None:
            for batch in planned.summary.batches:
                result = run_batch(
                    configuration, self.connections, run_id=planned.run_id, batch_id=batch.batch_id, worker="bench"
                )
                assert not result.reasons, result.reasons

        return work

    def script(self, source: str, objects: int) -> Callable[[], object]:
        """Return the script that this replaces: boto3, deid, and a row at a time in psycopg2."""
        from deid.config import DeidRecipe
        from deid.dicom.parser import DicomParser

        client = self.s3.client()
        recipe = DeidRecipe(deid=str(DESKTOP_RECIPE))
        keys = [f"{source}/{number:07}.dcm" for number in range(objects)]
        prefix = f"script-{uuid.uuid4().hex[:6]}"

        def work() -> None:
            connection = psycopg2.connect(self.database)
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE IF NOT EXISTS script (field text, original text, pseudonym text)")

            def generate(item: object, value: object, field: object, dicom: object) -> str:
                name, original = field.element.keyword, str(field.element.value)
                cursor.execute("SELECT pseudonym FROM script WHERE field = %s AND original = %s", (name, original))
                row = cursor.fetchone()
                if row:
                    return str(row[0])
                new = f"1.2.3.{uuid.uuid4().int}" if name.endswith("UID") else uuid.uuid4().hex[:10]
                cursor.execute("INSERT INTO script VALUES (%s, %s, %s)", (name, original, new))
                connection.commit()
                return new

            for key in keys:
                data = client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                with silence():
                    parser = DicomParser(pydicom.dcmread(io.BytesIO(data)), recipe=recipe)
                    parser.define("generate_value", generate)
                    parser.parse(strip_sequences=False, remove_private=False)
                buffer = io.BytesIO()
                parser.dicom.save_as(buffer)
                new_key = f"{prefix}/{parser.dicom.PatientID}/{parser.dicom.SOPInstanceUID}.dcm"
                client.put_object(Bucket=self.bucket, Key=new_key, Body=buffer.getvalue())
            connection.close()

        return work


def _in_threads(copy: Callable[[SourceObject], None], listed: Sequence[SourceObject]) -> Callable[[], object]:
    def work() -> None:
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(copy, listed))

    return work


def slices(edge: int) -> Callable[[int], bytes]:
    """Return a maker of CT slices, `SLICES` of them a patient, each with pixels of edge x edge and a UID of its own."""
    template = part10(ct_elements(1, rows=edge, columns=edge))
    dataset = pydicom.dcmread(io.BytesIO(template), stop_before_pixels=True)
    values = [str(dataset[name].value) for name in ("SOPInstanceUID", "StudyInstanceUID", "PatientID")]

    def make(number: int) -> bytes:
        data = template
        for value, serial in zip(values, (number, number // SLICES, number // SLICES), strict=True):
            text = f"{value[:-7]}{1_000_000 + serial}"
            data = data.replace(value.encode(), text.encode())
        return data

    return make


def large_object(megabytes: int) -> bytes:
    """Return a CT object with so many MB of noise as its pixels."""
    pixels = random.Random(megabytes).randbytes(10**6) * megabytes
    image = [element("Rows", 10 * megabytes), element("Columns", 50_000), element("PixelData", pixels, "OW")]
    replaced = {each.tag for each in image}
    kept = [each for each in ct_elements(2, rows=1, columns=1) if each.tag not in replaced]
    return part10(sorted([*kept, *image], key=lambda each: each.tag))


def median(rounds: Sequence[Measured]) -> Measured:
    """Return the round of median speed."""
    return sorted(rounds, key=lambda each: each.rate)[len(rounds) // 2]


def race_slices(stage: Stage, console: Console, objects: int, sample: int, rounds: int) -> None:
    """Measure copies, cold and warm in turns: a slow moment of the machine hits all of them."""
    size = stage.load("ct", objects, slices(512))
    contenders: Contenders = {
        "plain copy": lambda bucket, _: stage.copy("ct", bucket),
        "plain copy with the digests of an audit": lambda bucket, _: stage.copy("ct", bucket, digests=True),
        f"copy by boto3 {boto3.__version__}": lambda bucket, _: stage.boto3_copy("ct", bucket),
        "pipeline, cold": lambda bucket, number: stage.pipeline("ct", bucket, f"ct-{number}"),
        "pipeline, warm": lambda bucket, number: stage.pipeline("ct", bucket, f"ct-{number}"),
    }
    rows = _race(stage, contenders, objects, size, rounds)
    rows[f"boto3 + deid + a row at a time ({sample} objects)"] = measure(
        sample, size * sample // objects, stage.script("ct", sample)
    )
    title = f"{objects} CT objects of {size / objects / 1e6:.2f} MB, median of {rounds} rounds"
    _print_rows(console, title, rows)


def _race(stage: Stage, contenders: Contenders, objects: int, size: int, rounds: int) -> dict[str, Measured]:
    """Return the median of each contender; they take turns."""
    runs: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, prepare in contenders.items():
            with stage.temporary_bucket() as bucket:
                runs[name].append(measure(objects, size, prepare(bucket, number)))
    return {name: median(measured) for name, measured in runs.items()}


def _print_rows(console: Console, title: str, rows: Mapping[str, Measured]) -> None:
    """Print the table of a race, each beside the plain copy."""
    table = _table(title, "objects/s", "CPU ms an object")
    for name, measured in rows.items():
        table.add_row(name, *measured.row, f"{measured.rate / rows['plain copy'].rate:.2f}")
    console.print(table)


def race_large(stage: Stage, console: Console, objects: int, megabytes: int, rounds: int) -> None:
    """Objects of many frames, in turns: streamed through the worker, and copied by the store.

    The limit of streaming is a copy that computes the SHA-256 of the source beside that of the result, as the audit
    needs. The limit of a copy by the store is what its requests alone take: for unchanged objects only
    `UploadPartCopy`, for objects with a new header also the first part, which S3 does not accept below 5 MiB.
    """
    frame = large_object(megabytes)
    uid = str(pydicom.dcmread(io.BytesIO(frame), stop_before_pixels=True).SOPInstanceUID)
    size = 0
    source = stage.storage("large")
    for number in range(objects):
        data = frame.replace(uid.encode(), f"{uid[:-7]}{1_000_000 + number}".encode())
        key = f"{number:07}.dcm"
        new = SourceObject(key, 0, "", datetime.now(UTC))
        write_parts(source, new, source, key, [data], metadata={})
        size += len(data)
    first_part = frame[:MIN_PART_BYTES]
    del frame, data

    def copy(bucket: str, _: int, *, by_store: bool, first: bytes = b"", hashed: bool = False) -> Callable[[], object]:
        """Read and write one object after the other, or only request that the store copies several at a time."""
        target = open_object_store(f"s3://{bucket}/copy", stage.connection)

        def one(listed: SourceObject) -> None:
            parts = [part for part in (first, SourceRange(len(first), listed.size)) if part]
            observe = hashlib.sha256().update if hashed else None
            how = {"metadata": {}, "server_side_copy": by_store, "observe": observe}
            write_parts(source, listed, target, listed.key, parts, **how)

        def work() -> None:
            with ThreadPoolExecutor(_COPIES_AT_ONCE if by_store else 1) as pool:
                list(pool.map(one, source.list()))

        return work

    contenders: Contenders = {
        "plain copy": partial(copy, by_store=False),
        "plain copy, SHA-256 of the source too": partial(copy, by_store=False, hashed=True),
        "pipeline, streamed": lambda bucket, _: stage.pipeline("large", bucket, "large", server_side_copy=False),
        "pipeline, copied by the store": lambda bucket, _: stage.pipeline("large", bucket, "large"),
        "the store's copies alone": partial(copy, by_store=True),
        "the store's copies and 5 MiB sent": partial(copy, by_store=True, first=first_part),
    }
    title = f"{objects} objects of {size / objects / 1e6:.0f} MB, median of {rounds} rounds"
    _print_rows(console, title, _race(stage, contenders, objects, size, rounds))


def race_small(stage: Stage, console: Console, objects: int, rounds: int) -> None:
    """Many small objects: the rate, and memory that does not grow with their number."""
    size = stage.load("small", objects, slices(112))
    contenders: Contenders = {
        "plain copy": lambda bucket, _: stage.copy("small", bucket),
        f"copy by boto3 {boto3.__version__}": lambda bucket, _: stage.boto3_copy("small", bucket),
        "pipeline, cold": lambda bucket, number: stage.pipeline("small", bucket, f"small-{number}"),
    }
    title = f"{objects} objects of {size / objects / 1e3:.0f} KB, median of {rounds} rounds"
    _print_rows(console, title, _race(stage, contenders, objects, size, rounds))


def race_zip(stage: Stage, console: Console, objects: int) -> None:
    """Compare the members of one zip with at most `LOOSE` loose objects; the zip first, for its memory."""
    make = slices(512)
    loose_objects = min(objects, LOOSE)
    size = stage.load("loose", loose_objects, make)
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for number in range(objects):
                archive.writestr(f"{number:07}.dcm", make(number))
        file.flush()
        packed = Path(file.name).stat().st_size
        stage.s3.client().upload_file(file.name, stage.bucket, "zipped/all.zip")
    with stage.temporary_bucket() as bucket:
        zipped = measure(objects, size * objects // loose_objects, stage.pipeline("zipped", bucket, "zipped"))
    with stage.temporary_bucket() as bucket:
        loose = measure(loose_objects, size, stage.pipeline("loose", bucket, "loose"))
    table = _table(f"{objects} CT in a zip of {packed / 1e6:.0f} MB", "objects/s", "CPU ms an object")
    table.columns[-1].header = "of loose objects"
    table.add_row(f"{loose_objects} loose objects, cold", *loose.row, "1.00")
    table.add_row("members of a zip, cold", *zipped.row, f"{zipped.rate / loose.rate:.2f}")
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in (columns[0], "MB/s", *columns[1:], "RSS +MB by quarter", "of plain copy"):
        table.add_column(column, justify="right")
    return table


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=600, help="CT objects of 0.5 MB")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of CT, large and small objects")
    parser.add_argument("--sample", type=int, default=40, help="objects that the script does")
    parser.add_argument("--large", type=int, default=4, help="large objects")
    parser.add_argument("--large-mb", type=int, default=200, help="size of a large object in MB")
    parser.add_argument("--small", type=int, default=3000, help="objects of 32 KB")
    parser.add_argument("--zipped", type=int, default=600, help="CT objects in a zip")
    parser.add_argument("--huge", type=int, default=0, help="size in MB of one more object")
    parser.add_argument(
        "--as-over-tls",
        action="store_true",
        help="settings of the least work, for a trusted store over TLS: CRC64NVME, ETags not compared",
    )
    arguments = parser.parse_args()
    # deid writes `Yes` into a CS, and pydicom says so a hundred times.
    warnings.simplefilter("ignore")
    # As in a worker, where it is called before there are threads.
    limit_free_memory()
    console = Console(width=120)
    races = (
        (arguments.objects, race_slices, (arguments.objects, arguments.sample, arguments.rounds)),
        (arguments.large, race_large, (arguments.large, arguments.large_mb, arguments.rounds)),
        (arguments.small, race_small, (arguments.small, arguments.rounds)),
        (arguments.zipped, race_zip, (arguments.zipped,)),
        (arguments.huge, race_large, (1, arguments.huge, 1)),
    )
    for wanted, race, sizes in races:
        if wanted:
            with (
                tempfile.TemporaryDirectory() as directory,
                Sandbox(Path(directory) / "sandbox", keep=False) as sandbox,
            ):
                race(Stage(sandbox, as_over_tls=arguments.as_over_tls), console, *sizes)


if __name__ == "__main__":
    main()
