"""Several processes share a batch, for machines with more cores than one interpreter can use.

The parent holds the lease and records the audit; each child carries a share of the objects with connections of its own
to database and storages. Pseudonyms come from the one mapping in PostgreSQL, so that the result is the same as one
process gives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import NamedTuple, Protocol

from dicom_deid.database import BatchItem
from dicom_deid.exceptions import ConfigurationError, DatabaseError, DicomDeidError, ObjectStoreError
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.object_processor import ObjectResult

_TICK_SECONDS = 0.5


class Share(NamedTuple):
    """What one child is told; it holds secrets, and travels through a pipe only."""

    configuration: RunConfiguration
    connections: Connections
    run_id: str
    items: list[BatchItem]


class CarryShare(Protocol):
    """Carries the objects of a share."""

    def __call__(self, share: Share, should_stop: Callable[[], bool]) -> Generator[list[ObjectResult]]:
        """Yield what is done, now and then."""
        ...


class ChildFailed(DicomDeidError):
    """A child process failed, or ended without a word; a retry resumes."""


def shares_of(items: Sequence[BatchItem], processes: int) -> list[list[BatchItem]]:
    """Cut the objects of a batch into runs for so many processes, the same in each attempt.

    A process knows the originals of its own run; the objects of a patient mostly follow each other in a listing. Runs
    in which nothing is left to do are left out, and so are recorded objects that nothing to do follows.
    """
    runs = []
    for number in range(processes):
        run = list(items[len(items) * number // processes : len(items) * (number + 1) // processes])
        while run and run[-1].recorded:
            run.pop()
        if run:
            runs.append(run)
    return runs


def carry_in_processes(
    carry: CarryShare, share: Share, runs: Sequence[list[BatchItem]], should_stop: Callable[[], bool]
) -> Generator[list[ObjectResult]]:
    """Carry the runs of a share in a process each; yield what is done, at least twice a second.

    Raises
    ------
    DicomDeidError
        What a child raised; the others are told to stop, and finish what they have begun.
    """
    context = get_context("spawn")
    pipes: list[Connection] = []
    children = []
    portable = share.connections.portable()
    for number, run in enumerate(runs):
        ours, theirs = context.Pipe()
        child = context.Process(target=_work, args=(theirs, carry), name=f"dicom-deid-{number}", daemon=True)
        child.start()
        theirs.close()
        ours.send(share._replace(connections=portable, items=run))
        pipes.append(ours)
        children.append(child)
    try:
        yield from _collect(pipes, should_stop)
    finally:
        _tell_to_stop(pipes)
        # A child that has more to say than anyone will read finds the pipe closed, and ends.
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join()


def _collect(pipes: list[Connection], should_stop: Callable[[], bool]) -> Generator[list[ObjectResult]]:
    working, told = set(pipes), False
    while working:
        if not told and should_stop():
            told = True
            _tell_to_stop(pipes)
        done: list[ObjectResult] = []
        for pipe in wait(list(working), _TICK_SECONDS):
            message = _received(pipe)  # type: ignore[arg-type]
            if message is None:
                working.discard(pipe)
            elif isinstance(message, BaseException):
                raise message
            else:
                done += message
        yield done


def _received(pipe: Connection) -> list[ObjectResult] | BaseException | None:
    try:
        message: list[ObjectResult] | BaseException | None = pipe.recv()
    except (EOFError, OSError):
        return ChildFailed("A process of the batch ended without a word, perhaps for want of memory; a retry resumes.")
    return message


def _tell_to_stop(pipes: list[Connection]) -> None:
    for pipe in pipes:
        try:
            pipe.send(None)
        except OSError:
            # The child has ended.
            continue


def _work(pipe: Connection, carry: CarryShare) -> None:
    """Carry a share in a child process."""
    share: Share = pipe.recv()
    try:
        with closing(carry(share, lambda: _is_told(pipe))) as groups:
            for group in groups:
                if group:
                    pipe.send([_portable(carried) for carried in group])
        pipe.send(None)
    except BrokenPipeError:
        # The parent reads no more: what is not recorded is done again.
        return
    except Exception as error:
        pipe.send(_as_sent(error))


def _as_sent(error: Exception) -> DicomDeidError:
    """Return an exception that the parent can raise, by which a caller sees whether a retry helps."""
    for kind in (ConfigurationError, ObjectStoreError, DatabaseError):
        if isinstance(error, kind):
            return kind(str(error))
    return ChildFailed(f"A process of the batch failed ({type(error).__name__}); a retry resumes.")


def _is_told(pipe: Connection) -> bool:
    """Tell whether the parent said stop, or is gone; what it says once stays to be read."""
    return pipe.poll()


def _portable(carried: ObjectResult) -> ObjectResult:
    # An exception's traceback and foreign attributes stay in the process that it was raised in.
    return replace(carried, error=None if carried.error is None else carried.error.with_traceback(None))
