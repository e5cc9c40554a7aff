"""Whole runs for tests: places to run between, objects to run over, and what is left behind."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from tests.support.datasets import ct_elements, mr_elements, part10

from dicom_deid.database import AuditRow, KeyRing
from dicom_deid.engine.settings import Settings
from dicom_deid.objectstore import S3Connection, S3Store, open_object_store
from dicom_deid.pipeline import BatchResult, Connections, PlannedRun, Progress, RunConfiguration, plan_run, run_batch
from dicom_deid.pipeline.workers import run_batches
from dicom_deid.sandbox import S3Service
from dicom_deid.score.identity import Patient

CALM = Settings(residuals="off", pixel_risk="allow", documents="allow")
"""Settings under which generated objects are not quarantined for what they may show."""


def small_ct(seed: int, patient: Patient | None = None) -> bytes:
    """Return a CT slice of 16 x 16 pixels."""
    return part10(ct_elements(seed, rows=16, columns=16, patient=patient))


def patients(count: int, seed: int = 1) -> list[Patient]:
    """Return made-up patients."""
    return [Patient.draw(random.Random(f"{seed}/{number}")) for number in range(count)]


def series(of: Iterable[Patient], slices: int) -> dict[str, bytes]:
    """Return slices of each patient by source keys that name the patient, as archives do."""
    return {
        f"{patient.name.replace('^', '_')}/{number:04d}.dcm": part10(
            (mr_elements if number % 3 == 2 else ct_elements)(
                hash_of(patient.patient_id, number), rows=16, columns=16, patient=patient
            )
        )
        for patient in of
        for number in range(slices)
    }


def hash_of(text: str, number: int) -> int:
    """Return a seed that is the same in every process."""
    return random.Random(f"{text}/{number}").randrange(2**32)


@dataclass
class RunEnvironment:
    """A source and a destination below one bucket, and a database.

    Parameters
    ----------
    s3, bucket, database
        The servers.
    """

    s3: S3Service
    bucket: str
    database: str
    keys: KeyRing = field(default_factory=KeyRing.generate)

    @property
    def connection(self) -> S3Connection:
        """Return the connection to the buckets."""
        return S3Connection(
            endpoint_url=self.s3.endpoint_url,
            region=self.s3.region,
            access_key=self.s3.access_key,
            secret_key=self.s3.secret_key,
        )

    @property
    def connections(self) -> Connections:
        """Return the connections to all servers."""
        return Connections(
            database=self.database,
            keys=self.keys,
            source=self.connection,
            destination=self.connection,
            quarantine=self.connection,
        )

    def configuration(self, **changes: Any) -> RunConfiguration:
        """Return a run from `in` to `out`."""
        values: dict[str, Any] = {
            "source": f"s3://{self.bucket}/in",
            "destination": f"s3://{self.bucket}/out",
            "project": "test",
            "settings": CALM,
        }
        return RunConfiguration(**values | changes)

    def put(self, objects: Mapping[str, bytes], prefix: str = "in") -> None:
        """Put source objects."""
        client = self.s3.client()
        for key, data in objects.items():
            client.put_object(Bucket=self.bucket, Key=f"{prefix}/{key}", Body=data)

    def get(self, prefix: str = "out") -> dict[str, bytes]:
        """Return the objects below a prefix."""
        storage = open_object_store(f"s3://{self.bucket}/{prefix}", self.connection)
        assert isinstance(storage, S3Store)
        return {listed.key: bytes(storage.read(listed.key)) for listed in storage.list()}

    def run(self, configuration: RunConfiguration | None = None, **changes: Any) -> Ran:
        """Plan and run everything, in this process."""
        configuration = configuration or self.configuration(**changes)
        planned = plan_run(configuration, self.connections)
        return self.work(planned.configuration, planned)

    def work(self, configuration: RunConfiguration, planned: PlannedRun, **options: Any) -> Ran:
        """Run all batches of a plan."""
        rows: list[AuditRow] = []
        results = [
            run_batch(
                configuration,
                self.connections,
                run_id=planned.run_id,
                batch_id=batch.batch_id,
                worker="test",
                **{"recorded": rows.extend, **options},
            )
            for batch in planned.summary.batches
        ]
        return Ran(planned, results, rows)

    def run_in_workers(
        self,
        configuration: RunConfiguration,
        workers: int,
        *,
        planned: PlannedRun | None = None,
        stop_after: int | None = None,
    ) -> RanInWorkers:
        """Plan and run everything in worker processes; stop after that many recorded groups of rows."""
        planned = planned or plan_run(configuration, self.connections)
        ran = RanInWorkers(planned, [], [])
        groups = 0

        def on_recorded(rows: Sequence[AuditRow]) -> None:
            nonlocal groups
            groups += 1
            ran.rows.extend(rows)

        def on_progress(batch_id: int, now: Progress) -> None:
            ran.progress[batch_id] = now.objects

        ran.complete = run_batches(
            self.connections,
            planned,
            workers=workers,
            should_stop=lambda: stop_after is not None and groups + len(ran.progress) >= stop_after,
            on_progress=on_progress,
            on_recorded=on_recorded,
        )
        return ran

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with cursor(self.database) as asked:
            asked.execute(sql)
            return list(asked.fetchall())


@dataclass
class Ran:
    """The result of a run."""

    planned: PlannedRun
    results: list[BatchResult]
    rows: list[AuditRow]

    @property
    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        """Outcome and reason by source key."""
        return {row.item.key: (row.outcome.value, row.reason and row.reason.value) for row in self.rows}


@dataclass
class RanInWorkers(Ran):
    """The result of a run in worker processes."""

    progress: dict[int, int] = field(default_factory=dict)
    complete: bool = False


@contextmanager
def cursor(url: str) -> Iterator[Any]:
    """Give a cursor of a connection that is closed afterwards."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as opened:
            opened.execute("SET search_path TO dicom_deid")
            yield opened
    finally:
        connection.close()
