"""Run the batches of a plan side by side in worker processes, as a scheduler does with mapped tasks."""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from dicom_deid.database import AuditRow
from dicom_deid.exceptions import ConfigurationError, DatabaseError, DicomDeidError, ObjectStoreError
from dicom_deid.pipeline.batch import BatchHeld, BatchIncomplete, run_batch
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.planning import PlannedRun
from dicom_deid.pipeline.progress import Progress

_TICK_SECONDS = 0.25
_MAX_ATTEMPTS = 3
"""Attempts at a batch whose worker process ended unexpectedly."""

OnProgress = Callable[[int, Progress], None]
OnRecorded = Callable[[Sequence[AuditRow]], None]


class WorkerFailed(DicomDeidError):
    """A worker process failed or ended unexpectedly; a retry resumes."""


@dataclass(frozen=True, slots=True)
class _BatchEnd:
    """The end of one attempt at a batch.

    Parameters
    ----------
    complete
        Whether nothing of the batch is left to do.
    error
        The error that ends the run, as it would end every other batch; without values and traceback.
    """

    complete: bool
    error: DicomDeidError | None = None


@dataclass(slots=True)
class _Job:
    """The parameters of all batches of a run; holds credentials, and is sent to child processes only."""

    configuration: RunConfiguration
    connections: Connections
    run_id: str

    def run(
        self,
        batch_id: int,
        should_stop: Callable[[], bool],
        on_progress: OnProgress,
        on_recorded: OnRecorded,
    ) -> _BatchEnd:
        try:
            result = run_batch(
                self.configuration,
                self.connections,
                run_id=self.run_id,
                batch_id=batch_id,
                worker=f"{socket.gethostname()}:{os.getpid()}",
                progress=lambda now: on_progress(batch_id, now),
                progress_seconds=_TICK_SECONDS,
                should_stop=should_stop,
                recorded=on_recorded,
            )
        except (BatchHeld, BatchIncomplete):
            return _BatchEnd(complete=False)
        except Exception as error:
            return _BatchEnd(complete=False, error=_portable(error))
        return _BatchEnd(complete=not result.stopped)


def run_batches(
    connections: Connections,
    planned: PlannedRun,
    *,
    workers: int,
    should_stop: Callable[[], bool],
    on_progress: OnProgress,
    on_recorded: OnRecorded,
) -> bool:
    """Run all batches of a plan and return whether nothing is left to do.

    Parameters
    ----------
    connections, planned
        The run.
    workers
        Number of processes; one, or a single batch, runs in this process.
    should_stop
        Once it returns true, objects in flight are finished and no further batch is begun.
    on_progress
        Called with the identifier of a batch and its progress.
    on_recorded
        Called with audit rows once they are recorded.

    Raises
    ------
    ConfigurationError, ObjectStoreError, DatabaseError, WorkerFailed
        The first error that would end every batch; the batches in progress are stopped first.
    """
    job = _Job(planned.configuration, connections, planned.run_id)
    batch_ids = [batch.batch_id for batch in planned.summary.batches]
    workers = min(workers, len(batch_ids))
    if workers > 1:
        return _Pool(job, batch_ids, workers, should_stop, on_progress, on_recorded).run()
    complete = True
    for batch_id in batch_ids:
        if should_stop():
            return False
        end = job.run(batch_id, should_stop, on_progress, on_recorded)
        if end.error is not None:
            raise end.error
        complete = complete and end.complete
    return complete


class _Pool:
    """Worker processes that take the next batch when they have finished one."""

    def __init__(
        self,
        job: _Job,
        batch_ids: Iterable[int],
        workers: int,
        should_stop: Callable[[], bool],
        on_progress: OnProgress,
        on_recorded: OnRecorded,
    ) -> None:
        self._job = job
        self._attempts = dict.fromkeys(batch_ids, 0)
        self._waiting = deque(self._attempts)
        self._workers = workers
        self._should_stop = should_stop
        self._on_progress = on_progress
        self._on_recorded = on_recorded
        self._processes: dict[Connection, BaseProcess] = {}
        self._running: dict[Connection, int] = {}
        self._complete = True
        self._stopping = False
        self._error: DicomDeidError | None = None

    def run(self) -> bool:
        try:
            for _ in range(self._workers):
                self._start()
            while self._running:
                if not self._stopping and self._should_stop():
                    self._stop()
                for pipe in wait(list(self._running), _TICK_SECONDS):
                    self._receive(pipe)  # type: ignore[arg-type]
        finally:
            self._stop()
            # Closing the pipe makes children that still send results exit.
            for pipe, process in self._processes.items():
                pipe.close()
                process.join()
        if self._error is not None:
            raise self._error
        return self._complete and not self._waiting

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._job), name="dicom-deid-worker", daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        self._give_next(ours)

    def _give_next(self, pipe: Connection) -> None:
        if self._waiting and not self._stopping:
            batch_id = self._waiting.popleft()
            self._attempts[batch_id] += 1
            self._running[pipe] = batch_id
            pipe.send(batch_id)
        else:
            self._running.pop(pipe)
            if not self._stopping:
                pipe.send(None)

    def _receive(self, pipe: Connection) -> None:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            self._replace(pipe)
            return
        if isinstance(message, Progress):
            self._on_progress(self._running[pipe], message)
        elif isinstance(message, _BatchEnd):
            self._complete = self._complete and message.complete
            if message.error is not None:
                self._error = self._error or message.error
                self._stop()
            self._give_next(pipe)
        else:
            self._on_recorded(message)

    def _replace(self, pipe: Connection) -> None:
        """Take a batch up again whose worker was killed, for instance because memory ran out."""
        batch_id = self._running.pop(pipe)
        self._processes.pop(pipe).join()
        pipe.close()
        if self._stopping:
            self._complete = False
        elif self._attempts[batch_id] < _MAX_ATTEMPTS:
            self._waiting.appendleft(batch_id)
            self._start()
        else:
            self._error = WorkerFailed(
                f"The worker process of batch {batch_id} ended unexpectedly {_MAX_ATTEMPTS} times (possibly out of "
                "memory): give it less with --memory, and run the same command again."
            )
            self._stop()

    def _stop(self) -> None:
        """Let the workers finish the objects in flight."""
        if self._stopping:
            return
        self._stopping = True
        for pipe in self._running:
            try:
                pipe.send(None)
            except OSError:
                # The worker has ended.
                continue


def _work(pipe: Connection, job: _Job) -> None:
    """Run batches in a child process until None comes instead of one, or while a batch is running."""
    # Ctrl-C reaches the whole process group: the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        while (batch_id := pipe.recv()) is not None:
            pipe.send(job.run(batch_id, pipe.poll, lambda _, now: pipe.send(now), pipe.send))
    except (BrokenPipeError, EOFError):
        # The parent is gone; what is not recorded is processed again.
        return


def _portable(error: Exception) -> DicomDeidError:
    """Return an exception without traceback or foreign attributes, of the class that says whether a retry helps."""
    for kind in (ConfigurationError, ObjectStoreError, DatabaseError):
        if isinstance(error, kind):
            return kind(str(error))
    if isinstance(error, DicomDeidError):
        return WorkerFailed(str(error))
    return WorkerFailed(f"A batch failed ({type(error).__name__}); a retry resumes.")
