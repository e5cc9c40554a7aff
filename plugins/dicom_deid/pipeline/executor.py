"""Overlap the reads, rewrites and writes of many objects in bounded memory; SQL runs in the caller's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, Protocol, TypeVar

from dicom_deid.database import Intent
from dicom_deid.engine import SearchTerms
from dicom_deid.identifiers import Identifier

_OVERHEAD_BYTES = 32 * 1024
"""Memory of an object in flight beside its bytes."""
_IN_FLIGHT_PER_TRANSFER = 32
"""Bound of the objects in flight per thread: enough for large look-ups of pseudonyms."""
_TICK_SECONDS = 0.5

Item = TypeVar("Item")
Done = TypeVar("Done")
_TakenItem = TypeVar("_TakenItem", contravariant=True)
_Result = TypeVar("_Result", covariant=True)


@dataclass(frozen=True, slots=True)
class PendingObject:
    """An object that was read and analysed, and waits for its pseudonyms.

    Parameters
    ----------
    identifiers
        Identifiers whose pseudonyms must be committed before the object is written.
    patient_id
        The original PatientID that the identifiers belong to; PHI.
    patient, terms
        The patient, and the values that the rules remove from this object; PHI.
    ordering_key
        Objects with the same key are written one after the other, in the order of the items.
    is_slow
        The next step takes much processor time: it runs in a thread of its own, so that other objects do not wait.
    is_unreadable
        It was recorded by an earlier attempt, and cannot be read any more for its patient and terms.
    """

    identifiers: Collection[Identifier] = ()
    patient_id: str = ""
    patient: str = ""
    terms: SearchTerms = frozenset()
    ordering_key: Hashable = None
    is_slow: bool = False
    is_unreadable: bool = False


class MemoryRequest(NamedTuple):
    """More bytes that an object takes in memory than its cost: it continues when they fit into the bound.

    Yielded before the `PendingObject`, by an object whose size in memory is known only after it was read.
    """

    size: int


class Reply(NamedTuple):
    """The answer to a `PendingObject`, or to an `Intent`.

    Parameters
    ----------
    pseudonyms
        Committed pseudonyms of the identifiers.
    other_terms
        Terms that earlier objects of the patient gave.
    is_refused
        The object was withdrawn and must not be written.
    """

    pseudonyms: Mapping[Identifier, str]
    other_terms: SearchTerms
    is_refused: bool = False


Steps = Generator[MemoryRequest | PendingObject | Intent, Reply, Done | None]
"""The steps of one object: between them it yields what must be committed, continues with the reply, and returns."""


class Ledger(Protocol):
    """Commits what objects need; used from the caller's thread only."""

    def look_up(self, pending: Sequence[PendingObject]) -> Mapping[Identifier, str]:
        """Return the pseudonyms that objects need, committed."""
        ...

    def intend(self, intents: Sequence[Intent]) -> Collection[int]:
        """Commit which keys are about to be written; return the ids of items that must not be written."""
        ...


class Processor(Protocol[_TakenItem, _Result]):
    """Processes single objects; `process` runs in many threads and does not raise for errors of one object."""

    def cost(self, item: _TakenItem) -> int:
        """Return the bytes that the object takes in memory while it is in flight."""
        ...

    def process(self, item: _TakenItem) -> Steps[_Result]:
        """Return the steps of one object."""
        ...

    def add_terms(self, group: Sequence[PendingObject]) -> list[SearchTerms]:
        """Remember the terms of objects, and return for each those that earlier objects of the patient gave.

        Called in the caller's thread, with the objects in the order of the items.
        """
        ...


@dataclass(slots=True, eq=False)
class _Task(Generic[Item, Done]):
    """One object in flight."""

    number: int
    item: Item
    cost: int
    steps: Steps[Done]
    request: MemoryRequest | PendingObject | Intent | None = None
    is_read: bool = False
    is_slow: bool = False
    reply: Reply | None = None
    other_terms: SearchTerms = frozenset()
    ordering_key: Hashable = None
    result: Done | None = None
    error: BaseException | None = None


class _ThreadPool(Generic[Item, Done]):
    """Threads with one queue of tasks; a future of `ThreadPoolExecutor` costs more than a small object."""

    def __init__(self, work: Callable[[_Task[Item, Done]], None], threads: int, name: str) -> None:
        self._work = work
        self._tasks: SimpleQueue[_Task[Item, Done] | None] = SimpleQueue()
        self._threads = [Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: _Task[Item, Done]) -> None:
        self._tasks.put(task)

    def close(self) -> None:
        """Discard queued tasks and join the threads."""
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._work(task)
            # A thread that waits for its next task must not keep the last one in memory.
            del task


class PipelineExecutor(Generic[Item, Done]):
    """Runs the steps of many objects at the same time.

    The caller's thread admits objects, looks up pseudonyms and collects results: a database connection is used from no
    other thread. Reads and writes have a thread pool each, so that neither starves the other. While one group of
    identifiers is looked up, objects of other groups are read, rewritten and written.

    Objects are read in any order, and continue in the order of the items: each waits until all before it were read.
    The first object that waits has always been admitted, so that those behind it cannot block it.

    Parameters
    ----------
    processor
        Processes one object.
    ledger
        Commits pseudonyms and intents.
    transfers
        Number of threads that read, and of threads that write.
    in_flight_bytes
        Bound of the cost of all objects in flight. An object that costs more is processed alone. The number of objects
        in flight is bounded by the number of threads.
    """

    def __init__(
        self,
        processor: Processor[Item, Done],
        ledger: Ledger,
        *,
        transfers: int,
        in_flight_bytes: int,
    ) -> None:
        self._processor = processor
        self._ledger = ledger
        self._transfers = transfers
        self._bound = in_flight_bytes
        self._returned: SimpleQueue[_Task[Item, Done]] = SimpleQueue()
        # Tasks that were read before an earlier one was, by number.
        self._early: dict[int, _Task[Item, Done]] = {}
        # Tasks that wait for more memory, by number.
        self._unfit: dict[int, _Task[Item, Done]] = {}
        self._waiting: list[_Task[Item, Done]] = []
        # Tasks that are ready to be written once their intents are committed.
        self._intending: list[_Task[Item, Done]] = []
        self._admitted = self._continued = 0
        # Tasks that wait for another one with the same ordering key.
        self._queues: dict[Hashable, deque[_Task[Item, Done]]] = {}
        self._bytes = self._reading = self._queued = self._writing = self._slow = 0

    def run(self, items: Iterable[Item], should_stop: Callable[[], bool]) -> Generator[list[Done]]:
        """Process the items; yield the new results at least twice a second.

        Once `should_stop` returns true, no further object is admitted, and those in flight are finished. When the
        caller closes the iterator, tasks that have not begun are discarded and the others are waited for.
        """
        self._slow_steps = _ThreadPool(self._advance, 1, "dicom-deid-slow")
        readers = _ThreadPool(self._advance, self._transfers, "dicom-deid-read")
        writers = _ThreadPool(self._advance, self._transfers, "dicom-deid-write")
        source = iter(items)
        held: Item | None = None
        try:
            while True:
                held = self._admit(source, held, readers, should_stop)
                self._grant_memory(readers)
                if self._is_idle:
                    return
                results = self._collect(writers)
                self._commit_when_due(writers)
                yield results
        finally:
            readers.close()
            self._slow_steps.close()
            writers.close()

    def _advance(self, task: _Task[Item, Done]) -> None:
        """Run a task to its next step; in a thread of one of the pools."""
        try:
            task.request = task.steps.send(task.reply)  # type: ignore[arg-type]
        except StopIteration as stop:
            task.request, task.result = None, stop.value
        except BaseException as error:
            task.request, task.error = None, error
        self._returned.put(task)

    def _admit(
        self,
        source: Iterator[Item],
        held: Item | None,
        readers: _ThreadPool[Item, Done],
        should_stop: Callable[[], bool],
    ) -> Item | None:
        """Begin to read while the bytes allow it; return the item that has to wait."""
        if should_stop():
            return None
        # No item is taken from the source before there is room: it is recorded as in flight when it is taken.
        while held is not None or self._bytes < self._bound:
            item = held if held is not None else next(source, None)
            if item is None:
                return None
            cost = self._processor.cost(item) + _OVERHEAD_BYTES
            if self._bytes and (self._bytes + cost > self._bound or self._is_full):
                return item
            held = None
            self._bytes += cost
            self._reading += 1
            readers.submit(_Task(self._admitted, item, cost, self._processor.process(item)))
            self._admitted += 1
        return None

    def _grant_memory(self, readers: _ThreadPool[Item, Done]) -> None:
        """Let tasks continue that fit into memory now; if nothing else is in progress, the first of them."""
        for number in sorted(self._unfit):
            task = self._unfit[number]
            size = task.request.size if isinstance(task.request, MemoryRequest) else 0
            if self._bytes + size > self._bound and not self._is_idle:
                return
            del self._unfit[number]
            self._bytes += size
            task.cost += size
            task.reply = Reply({}, frozenset())
            self._reading += 1
            readers.submit(task)

    @property
    def _is_idle(self) -> bool:
        return not (self._reading or self._writing or self._slow or self._waiting or self._intending)

    @property
    def _is_full(self) -> bool:
        waiting = len(self._early) + len(self._unfit) + len(self._waiting) + len(self._intending) + self._queued
        return self._reading + waiting + self._writing + self._slow >= _IN_FLIGHT_PER_TRANSFER * self._transfers

    def _collect(self, writers: _ThreadPool[Item, Done]) -> list[Done]:
        """Wait for one task, take all that have returned, and return the results."""
        results: list[Done] = []
        try:
            task = self._returned.get(timeout=_TICK_SECONDS)
            while True:
                self._take(task, results, writers)
                task = self._returned.get_nowait()
        except Empty:
            self._continue_in_order()
            return results

    def _take(self, task: _Task[Item, Done], results: list[Done], writers: _ThreadPool[Item, Done]) -> None:
        if task.error is not None:
            raise task.error
        if not task.is_read:
            self._reading -= 1
            if isinstance(task.request, MemoryRequest):
                self._unfit[task.number] = task
                return
            task.is_read = True
            self._early[task.number] = task
        else:
            if task.is_slow:
                task.is_slow = False
                self._slow -= 1
            else:
                self._writing -= 1
            if isinstance(task.request, Intent):
                self._intending.append(task)
            else:
                self._end_turn(task, writers)
        if task.request is None:
            self._bytes -= task.cost
            if task.result is not None:
                results.append(task.result)

    def _continue_in_order(self) -> None:
        """Let tasks wait for their pseudonyms, up to the first that was not read."""
        ready: list[tuple[_Task[Item, Done], PendingObject]] = []
        while self._continued in self._early:
            task = self._early.pop(self._continued)
            self._continued += 1
            if isinstance(task.request, PendingObject):
                ready.append((task, task.request))
        if not ready:
            return
        for (task, pending), terms in zip(
            ready, self._processor.add_terms([pending for _, pending in ready]), strict=True
        ):
            task.ordering_key, task.other_terms = pending.ordering_key, terms
            self._waiting.append(task)

    def _commit_when_due(self, writers: _ThreadPool[Item, Done]) -> None:
        """Commit intents and look up pseudonyms, many at a time, when the write queue is nearly empty."""
        if self._writing >= 2 * self._transfers:
            return
        if self._intending:
            intending, self._intending = self._intending, []
            intents = [task.request for task in intending if isinstance(task.request, Intent)]
            refused = self._ledger.intend(intents)
            for task, intent in zip(intending, intents, strict=True):
                task.reply = Reply({}, frozenset(), is_refused=intent.item.item_id in refused)
                self._write(task, writers)
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            pseudonyms = self._ledger.look_up(
                [task.request for task in waiting if isinstance(task.request, PendingObject)]
            )
            for task in waiting:
                task.reply = Reply(pseudonyms, task.other_terms)
                self._begin_turn(task, writers)

    def _write(self, task: _Task[Item, Done], writers: _ThreadPool[Item, Done]) -> None:
        if isinstance(task.request, PendingObject) and task.request.is_slow:
            task.is_slow = True
            self._slow += 1
            self._slow_steps.submit(task)
            return
        self._writing += 1
        writers.submit(task)

    def _begin_turn(self, task: _Task[Item, Done], writers: _ThreadPool[Item, Done]) -> None:
        key = task.ordering_key
        if key in self._queues:
            self._queues[key].append(task)
            self._queued += 1
            return
        if key is not None:
            self._queues[key] = deque()
        self._write(task, writers)

    def _end_turn(self, task: _Task[Item, Done], writers: _ThreadPool[Item, Done]) -> None:
        key = task.ordering_key
        if key is None:
            return
        if self._queues[key]:
            self._queued -= 1
            self._write(self._queues[key].popleft(), writers)
        else:
            del self._queues[key]
