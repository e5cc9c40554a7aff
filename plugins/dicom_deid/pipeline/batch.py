"""Process one batch: lease it, process its objects, record the results."""

from __future__ import annotations

import ctypes
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

from dicom_deid import __version__
from dicom_deid.database import AuditRow, BatchItem, Database, Deletion, Lease, Mapping, Run
from dicom_deid.database.archive_words import ArchiveWords, read_snapshot
from dicom_deid.database.patient_terms import PatientTerms
from dicom_deid.database.source_index import SourceIndex
from dicom_deid.database.text_layouts import record_layouts
from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import ConfigurationError, DicomDeidError, ObjectStoreError
from dicom_deid.identifiers import Identifier
from dicom_deid.pipeline.archive_words import BatchWords
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections, ObjectStores
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.pipeline.executor import PendingObject, PipelineExecutor
from dicom_deid.pipeline.process_object import ObjectProcessor, ObjectResult
from dicom_deid.pipeline.progress import Progress, ProgressReporter
from dicom_deid.pipeline.withdrawal import delete_unless_changed
from dicom_deid.reasons import Outcome, Reason

_RECORD_OBJECTS = 500
_RECORD_SECONDS = 5.0
_DUPLICATE = "written for another source object with the same SOP Instance UID and different bytes"
_FOREIGN = "not written by this project for this source object"
_MALLOC_OPTIONS = ((-8, 2), (-3, 32 * 2**20), (-1, 32 * 2**20))
"""Parameters and values of glibc's mallopt: M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD."""
_GC_THRESHOLD = 100_000
"""Generation-0 threshold of the garbage collector while a batch is running."""
_ANNOUNCED_OBJECTS = 64
"""Number of objects that are recorded as in flight at a time."""
_PROBE_SECONDS = 5.0
"""Interval of tests whether the object stores are available, while objects fail."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of one attempt at a batch.

    Parameters
    ----------
    taken
        False when the batch was finished before and nothing was done.
    outcomes, reasons
        Number of objects by outcome, and of quarantined and failed ones by reason.
    bytes_in, bytes_out
        Bytes of the source objects and of the written objects.
    seconds
        Time from the lease to the end.
    reading, rewriting, writing
        Seconds spent in each stage, summed over threads.
    stopped
        True when `should_stop` ended the attempt early; the batch was released.
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
    """Another live worker has leased the batch."""

    def __init__(self) -> None:
        super().__init__("Another worker has leased the batch. A retry takes it over if that worker dies.")


class BatchIncomplete(ObjectStoreError):
    """Some objects of the batch failed with errors of an object store; a retry processes them again.

    Parameters
    ----------
    result
        The result of the attempt.
    """

    def __init__(self, result: BatchResult) -> None:
        self.result = result
        failed = result.outcomes.get(Outcome.FAILED, 0)
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
    writes: after a worker was killed at any point, another attempt gives the same result. The way of one object is
    shown by `ObjectProcessor.process`.

    Parameters
    ----------
    configuration, connections
        The run, as it was planned.
    run_id, batch_id
        As returned by `plan_run`.
    worker
        Name of the worker, for people to read.
    progress, progress_seconds
        Called with the progress at this interval.
    should_stop
        Called between objects; once it returns true, objects in flight are finished and the batch is released.
    recorded
        Called with audit rows once they are recorded.

    Raises
    ------
    ConfigurationError
        A retry does not help: the recipe, a missing bucket, refused credentials.
    BatchHeld
        Another live worker has leased the batch.
    BatchIncomplete
        All objects were tried, and some failed with errors of an object store.
    ObjectStoreError, DatabaseError
        The object store or the database is unavailable; a retry resumes.
    """
    limit_free_memory()
    with connections.open(configuration) as (database, object_stores):
        lease = database.lease(batch_id, worker, configuration.lease_seconds)
        if lease is None:
            if not database.is_finished(batch_id):
                raise BatchHeld
            return BatchResult(taken=False)
        project = database.project(configuration.project)
        archive_words = None
        if configuration.archive_words:
            archive_words = read_snapshot(database.connection, project, configuration.archive_words)
        deidentifier = make_deidentifier(configuration, archive_words)
        _check_unchanged(lease.run, run_id, deidentifier, configuration)
        # Objects recorded by an earlier attempt are scanned again for their patients' terms.
        items = lease.items(recorded=configuration.settings.residuals != "off")
        to_do = [item for item in items if not item.recorded]
        index = SourceIndex(database.connection, project, lease.run.request.source)
        recorder = _BatchRecorder(
            database,
            lease,
            index,
            object_stores,
            len(to_do),
            ProgressReporter(progress, progress_seconds, to_do),
            recorded,
        )
        recorder.delete_left_over()
        words = BatchWords()
        stop = _StopFlag(should_stop)
        executor = PipelineExecutor(
            _processor(
                configuration,
                deidentifier,
                object_stores,
                run_id,
                PatientTerms(database.connection, project, lease.run.started_at),
                archive_words,
            ),
            _BatchLedger(lease, database.mapping(project)),
            transfers=configuration.transfers,
            in_flight_bytes=configuration.in_flight_bytes,
        )
        with rare_garbage_collection(), closing(executor.run(recorder.announce(items), stop)) as groups:
            for results in groups:
                recorder.add(results)
                words.add(result.words for result in results if result.words is not None)
        words.store(database.connection, project, bound=configuration.word_patients)
        return recorder.close(stopped=stop.is_set)


def _check_unchanged(run: Run, run_id: str, deidentifier: Deidentifier, configuration: RunConfiguration) -> None:
    """Refuse to work with another recipe or settings than those that the run was planned with."""
    if run.run_id != run_id:
        raise ConfigurationError("The batch belongs to another run.")
    planned = (run.request.recipe_digest, run.request.settings_digest)
    if planned != (deidentifier.recipe.digest, configuration.digest):
        raise ConfigurationError("The recipe or the settings have changed since the run was planned: plan it again.")


def _processor(
    configuration: RunConfiguration,
    deidentifier: Deidentifier,
    object_stores: ObjectStores,
    run_id: str,
    stored_terms: PatientTerms,
    archive_words: ArchiveWords | None,
) -> ObjectProcessor:
    metadata = {
        "recipe-digest": deidentifier.recipe.digest,
        "settings-digest": configuration.digest,
        "deidentified-by": f"dicom-deid {__version__}",
        "run": run_id,
    }
    return ObjectProcessor(deidentifier, configuration, object_stores, metadata, stored_terms, archive_words)


def limit_free_memory() -> None:
    """Let glibc keep little free memory, and use it again for the next object; other C libraries are left alone.

    By default every thread has an arena of its own, which keeps the largest buffers it ever had. Buffers of 8 MiB that
    are mapped and returned to the system each time cost a third of the processor time of a streamed object.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC_OPTIONS:
            mallopt(parameter, value)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Run the garbage collector less often: objects in flight are not garbage and have no reference cycles."""
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(_GC_THRESHOLD, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _BatchLedger:
    """Commits pseudonyms to the mapping and intents to the lease."""

    def __init__(self, lease: Lease, mapping: Mapping) -> None:
        self._mapping = mapping
        self.intend = lease.intend

    def look_up(self, pending: Sequence[PendingObject]) -> dict[Identifier, str]:
        patients = {identifier: each.patient_id for each in pending for identifier in each.identifiers}
        return self._mapping.resolve(patients.keys(), patients) if patients else {}


def _suspects_alone(block: Sequence[BatchItem]) -> Iterator[list[BatchItem]]:
    """Yield runs of objects, and each object that was in flight when a worker died by itself."""
    for is_suspect, group in groupby(block, lambda item: item.deaths > 0):
        if is_suspect:
            yield from ([item] for item in group)
        else:
            yield list(group)


class _StopFlag:
    """Calls `should_stop` until it has returned true once."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self.is_set = False

    def __call__(self) -> bool:
        self.is_set = self.is_set or self._should_stop()
        return self.is_set


class _BatchRecorder:
    """Records results in bulk, renews the lease, and counts."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        index: SourceIndex,
        object_stores: ObjectStores,
        objects: int,
        progress: ProgressReporter,
        recorded: Callable[[Sequence[AuditRow]], None] | None,
    ) -> None:
        self._database = database
        self._lease = lease
        self._index = index
        self._in_flight: set[int] = set()
        self._stores = object_stores
        self._open = objects
        self._progress = progress
        self._recorded_callback = recorded
        self._waiting: list[ObjectResult] = []
        self._began = self._recorded_at = time.monotonic()
        self._outcomes: Counter[Outcome] = Counter()
        self._reasons: Counter[Reason] = Counter()
        self._bytes_in = self._bytes_out = 0
        self._seconds = [0.0, 0.0, 0.0]
        self._probed_at = -_PROBE_SECONDS

    def announce(self, items: Iterable[BatchItem]) -> Iterator[BatchItem]:
        """Record which objects will be in flight next, in blocks, before they are read.

        Should the worker die, they are processed alone by the next attempt, and the one that kills a worker again is
        quarantined.
        """
        rest = iter(items)
        while block := list(islice(rest, _ANNOUNCED_OBJECTS)):
            for group in _suspects_alone(block):
                self._in_flight.update(item.item_id for item in group if not item.recorded)
                self._lease.renew(self._in_flight)
                yield from group

    def add(self, results: list[ObjectResult]) -> None:
        """Add results; record them, or renew the lease, when due."""
        for result in results:
            self._waiting.append(self._explain_conflict(result))
            self._in_flight.discard(result.row.item.item_id)
            self._progress.count(result.row.outcome, result.row.item.size)
            if result.error is not None:
                self._check_for_outage(result.error)
        since = time.monotonic() - self._recorded_at
        if len(self._waiting) >= _RECORD_OBJECTS or (self._waiting and since > _RECORD_SECONDS):
            self._record()
        elif since > self._lease.seconds / 3:
            self._lease.renew()
            self._recorded_at = time.monotonic()
        self._progress.report()

    def close(self, *, stopped: bool) -> BatchResult:
        """Record the rest and end the batch."""
        self._record()
        self._index.count_changed(self._lease.batch_id)
        self._progress.report(now=True)
        batch_result = self._result(stopped and self._open > 0)
        if self._outcomes[Outcome.FAILED]:
            self._lease.release()
            raise BatchIncomplete(batch_result)
        if batch_result.stopped:
            self._lease.release()
        else:
            self._lease.finish()
        return batch_result

    def _explain_conflict(self, result: ObjectResult) -> ObjectResult:
        """Add to the detail of a conflict whether another source object has the same SOP Instance UID."""
        row = result.row
        if row.reason is not Reason.DESTINATION_CONFLICT:
            return result
        destination = self._lease.run.request.destination
        is_duplicate = self._database.queries.is_written_for_another(destination, row.detail, row.item.object_id)
        why = _DUPLICATE if is_duplicate else _FOREIGN
        return replace(result, row=replace(row, detail=f"{row.detail}: {why}"))

    def _check_for_outage(self, error: Exception) -> None:
        """End the batch with the error of an object if a test shows that an object store is unavailable.

        Otherwise the error concerns this object, and the others go on.
        """
        if time.monotonic() - self._probed_at < _PROBE_SECONDS:
            return
        try:
            self._stores.check()
        except ConfigurationError:
            self._record()
            self._lease.release()
            raise error from None
        self._probed_at = time.monotonic()

    def _record(self) -> None:
        rows = [result.row for result in self._waiting]
        self._record_layouts()
        # An object that is recorded is not read again: what is known of it goes into the index before.
        self._index.add([result.index_entry for result in self._waiting if result.index_entry is not None])
        self._delete(self._lease.record(rows))
        self._recorded_at = time.monotonic()
        if self._recorded_callback is not None:
            self._recorded_callback(rows)
        for result in self._waiting:
            row = result.row
            self._outcomes[row.outcome] += 1
            if row.reason is not None:
                self._reasons[row.reason] += 1
            self._bytes_in += row.item.size
            self._bytes_out += row.destination_size or 0
            stages = (result.reading, result.rewriting, result.writing)
            self._seconds = [sum(pair) for pair in zip(self._seconds, stages, strict=True)]
        self._open -= len(self._waiting)
        self._waiting.clear()

    def _record_layouts(self) -> None:
        """Record where text was found before the objects count as done: a layout is unlearned whatever happens then."""
        seen = [result.layout for result in self._waiting if result.layout is not None]
        unlearned = {result.row.detail for result in self._waiting if result.row.reason is Reason.TEXT_OUTSIDE_LAYOUT}
        if seen or unlearned:
            record_layouts(self._database.connection, self._lease.run.project_id, seen, unlearned)

    def delete_left_over(self) -> None:
        """Delete superseded objects of this destination that a killed worker has left."""
        destination = self._stores.destination.url
        self._delete([each for each in self._database.pending_deletions() if each.url == destination])

    def _delete(self, deletions: Sequence[Deletion]) -> None:
        """Delete objects that were superseded under another key, or withdrawn while they were written.

        An object that another program has replaced is kept. A withdrawal records its deletions itself.
        """
        results = [delete_unless_changed(self._stores.destination, each.key or "", each.etag) for each in deletions]
        superseded = [pair for pair in zip(deletions, results, strict=True) if pair[0].withdrawal_id is None]
        if superseded:
            kept = [each for each, result in superseded if result == "version-kept"]
            self._database.settle_deletions([each for each, _ in superseded], kept)

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
