"""One batch, from storage to storage: leased, carried, recorded."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from dicom_deid import __version__
from dicom_deid.database import AuditRow, BatchItem, Database, Lease, Run
from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import ConfigurationError, DicomDeidError, ObjectStoreError, ProgramAtFault
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections, ObjectStores
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.pipeline.executor import PipelineExecutor
from dicom_deid.pipeline.object_processor import ObjectProcessor, ObjectResult
from dicom_deid.pipeline.processes import Share, carry_in_processes, shares_of
from dicom_deid.pipeline.progress import Progress, ProgressReporter
from dicom_deid.reasons import Outcome, Reason

_RECORD_OBJECTS = 500
_RECORD_SECONDS = 5.0
_ALLOCATIONS = 100_000
"""Between two looks of the garbage collector, while objects are carried."""
_PATIENCE = 20
"""So many failed objects in a row, and no other is taken to fare better."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch in this attempt.

    Parameters
    ----------
    taken
        False when it was finished before: nothing was done here.
    outcomes, reasons
        Objects by outcome, and quarantined and failed ones by reason.
    bytes_in, bytes_out
        Sizes of the objects read and written.
    seconds
        Time from lease to end.
    reading, rewriting, writing
        Seconds spent in each stage, summed over threads.
    stopped
        True when `should_stop` ended it early; the batch was given back.
    """

    taken: bool = True
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    reasons: dict[Reason, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    rewriting: float = 0.0
    writing: float = 0.0
    stopped: bool = False

    @property
    def objects(self) -> int:
        """Objects whose outcome was recorded."""
        return sum(self.outcomes.values())


class BatchHeld(DicomDeidError):
    """Another worker has the batch, and lives; should it die, a retry takes the batch."""

    def __init__(self) -> None:
        super().__init__("Another worker has the batch. A retry takes it should that worker die.")


class BatchIncomplete(ObjectStoreError):
    """Some objects of the batch failed by storage errors; the others are done, and a retry takes those that are not.

    Parameters
    ----------
    result
        What was done.
    """

    def __init__(self, result: BatchResult) -> None:
        self.result = result
        failed = result.reasons.get(Reason.STORAGE_ERROR, 0)
        super().__init__(f"{failed} objects could not be read or written; a retry resumes with them.")


def run_batch(
    configuration: RunConfiguration,
    connections: Connections,
    *,
    run_id: str,
    batch_id: int,
    worker: str,
    progress: Callable[[Progress], None] | None = None,
    progress_seconds: float = 10.0,
    should_stop: Callable[[], bool] = lambda: False,
    recorded: Callable[[Sequence[AuditRow]], None] | None = None,
) -> BatchResult:
    """De-identify the objects of one batch that are not done yet.

    Pseudonyms are committed before the first object that uses them is written, and audit rows are recorded after the
    writes: a worker that is killed anywhere is run again with the same result.

    Parameters
    ----------
    configuration, connections
        The run, as it was planned.
    run_id, batch_id
        What `plan_run` returned.
    worker
        Who works, for people to read.
    progress, progress_seconds
        Called with the progress at this pace.
    should_stop
        Asked between objects; once true, what is in flight is finished and the batch is given back.
    recorded
        Called with audit rows once they are recorded.

    Raises
    ------
    ConfigurationError
        A retry will not help: recipe, missing bucket, refused keys.
    BatchHeld
        Another live worker has the batch; a retry sees it finished, or takes it.
    BatchIncomplete
        All was tried, and some objects failed by storage errors.
    ProgramAtFault
        So did twenty objects in a row, by a fault of the program.
    ObjectStoreError, DatabaseError
        Storage or database are away; a retry resumes.
    """
    deidentifier = make_deidentifier(configuration)
    with connections.open(configuration) as (database, object_stores):
        lease = database.lease(batch_id, worker, configuration.lease_seconds)
        if lease is None:
            if not database.is_finished(batch_id):
                raise BatchHeld
            return BatchResult(taken=False)
        _check_rules(lease.run, run_id, deidentifier, configuration)
        # What the recorded objects tell of their patients counts in a retry as it did before.
        items = lease.items(recorded=configuration.settings.residuals != "off")
        to_do = [item for item in items if not item.recorded]
        ledger = _BatchRecorder(lease, to_do, ProgressReporter(progress, progress_seconds, to_do), recorded)
        stopping = _Once(should_stop)
        share = Share(configuration, connections, run_id, items)
        with closing(_groups(share, deidentifier, database, object_stores, stopping)) as groups:
            for group in groups:
                ledger.add(group)
        return ledger.close(stopped=stopping.said)


def _check_rules(run: Run, run_id: str, deidentifier: Deidentifier, configuration: RunConfiguration) -> None:
    """Refuse to work by other rules than those that the run was planned, and is audited, under."""
    if run.run_id != run_id:
        raise ConfigurationError("The batch belongs to another run.")
    planned = (run.request.recipe_digest, run.request.settings_digest)
    if planned != (deidentifier.recipe.digest, configuration.digest):
        raise ConfigurationError("The recipe or the settings have changed since the run was planned: plan it again.")


def _groups(
    share: Share,
    deidentifier: Deidentifier,
    database: Database,
    object_stores: ObjectStores,
    should_stop: Callable[[], bool],
) -> Generator[list[ObjectResult]]:
    runs = shares_of(share.items, share.configuration.processes)
    if len(runs) > 1:
        return carry_in_processes(_carry_share, share, runs, should_stop)
    only = share._replace(items=runs[0] if runs else [])
    return _carry(only, deidentifier, database, object_stores, should_stop)


def _carry_share(share: Share, should_stop: Callable[[], bool]) -> Generator[list[ObjectResult]]:
    """Carry a share in a process of its own, with connections of its own."""
    deidentifier = make_deidentifier(share.configuration)
    object_stores = share.connections.open_object_stores(share.configuration)
    with share.connections.open_database() as database:
        yield from _carry(share, deidentifier, database, object_stores, should_stop)


def _carry(
    share: Share,
    deidentifier: Deidentifier,
    database: Database,
    object_stores: ObjectStores,
    should_stop: Callable[[], bool],
) -> Generator[list[ObjectResult]]:
    configuration = share.configuration
    metadata = {
        "recipe-digest": deidentifier.recipe.digest,
        "settings-digest": configuration.digest,
        "deidentified-by": f"dicom-deid {__version__}",
        "run": share.run_id,
    }
    carrier = ObjectProcessor(deidentifier, configuration, object_stores, metadata)
    mapping = database.mapping(database.project(configuration.project))
    conveyor = PipelineExecutor(
        carrier, mapping.resolve, transfers=configuration.transfers, in_flight_bytes=configuration.in_flight_bytes
    )
    with _collecting_seldom():
        yield from conveyor.run(share.items, should_stop)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let the garbage collector look less often: what objects in flight allocate is no garbage, and makes no cycles."""
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(_ALLOCATIONS, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Once:
    """Remembers that it was told to stop."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self.said = False

    def __call__(self) -> bool:
        self.said = self.said or self._should_stop()
        return self.said


class _BatchRecorder:
    """Records what was carried, in bulk, keeps the lease alive, and counts."""

    def __init__(
        self,
        lease: Lease,
        items: list[BatchItem],
        teller: ProgressReporter,
        recorded: Callable[[Sequence[AuditRow]], None] | None,
    ) -> None:
        self._lease = lease
        self._open = len(items)
        self._teller = teller
        self._tell_recorded = recorded
        self._waiting: list[ObjectResult] = []
        self._began = self._recorded = time.monotonic()
        self._outcomes: Counter[Outcome] = Counter()
        self._reasons: Counter[Reason] = Counter()
        self._bytes_in = self._bytes_out = 0
        self._seconds = [0.0, 0.0, 0.0]
        self._failed_in_a_row = 0

    def add(self, group: list[ObjectResult]) -> None:
        """Take what was done, and record or renew when it is time to."""
        for carried in group:
            self._waiting.append(carried)
            self._teller.count(carried.row.outcome, carried.row.item.size)
            self._watch(carried)
        since = time.monotonic() - self._recorded
        if len(self._waiting) >= _RECORD_OBJECTS or (self._waiting and since > _RECORD_SECONDS):
            self._record()
        elif since > self._lease.seconds / 3:
            self._lease.renew()
            self._recorded = time.monotonic()
        self._teller.tell()

    def close(self, *, stopped: bool) -> BatchResult:
        """Record the rest and end the batch."""
        self._record()
        self._teller.tell(at_once=True)
        result = self._result(stopped and self._open > 0)
        if self._reasons[Reason.STORAGE_ERROR]:
            self._lease.release()
            raise BatchIncomplete(result)
        if result.stopped:
            self._lease.release()
        else:
            self._lease.finish()
        return result

    def _watch(self, carried: ObjectResult) -> None:
        """End the batch when the storage is away, which says what to check, or when the program is at fault."""
        failed = carried.row.outcome is Outcome.FAILED
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        if self._failed_in_a_row >= _PATIENCE:
            self._record()
            self._lease.release()
            raise carried.error or ProgramAtFault(carried.row.detail)

    def _record(self) -> None:
        rows = [carried.row for carried in self._waiting]
        self._lease.record(rows)
        self._recorded = time.monotonic()
        if self._tell_recorded is not None:
            self._tell_recorded(rows)
        for carried in self._waiting:
            row = carried.row
            self._outcomes[row.outcome] += 1
            if row.reason is not None:
                self._reasons[row.reason] += 1
            self._bytes_in += row.item.size
            self._bytes_out += row.destination_size or 0
            stages = (carried.reading, carried.rewriting, carried.writing)
            self._seconds = [sum(pair) for pair in zip(self._seconds, stages, strict=True)]
        self._open -= len(self._waiting)
        self._waiting.clear()

    def _result(self, stopped: bool) -> BatchResult:
        return BatchResult(
            outcomes=dict(self._outcomes),
            reasons=dict(self._reasons),
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            seconds=time.monotonic() - self._began,
            reading=self._seconds[0],
            rewriting=self._seconds[1],
            writing=self._seconds[2],
            stopped=stopped,
        )
