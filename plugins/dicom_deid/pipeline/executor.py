"""Reads, the engine and writes of many objects overlap; SQL runs in one thread; the bytes in flight are bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, Protocol, TypeVar

from dicom_deid.identifiers import Identifier

_OVERHEAD_BYTES = 32 * 1024
"""What an object in flight costs beside its bytes."""
_IN_FLIGHT_PER_TRANSFER = 32
"""Bound of the number of objects in flight: enough to resolve many at once, and bounded beside their bytes."""
_TICK_SECONDS = 0.5

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")
Task = TypeVar("Task")
_Taken = TypeVar("_Taken", contravariant=True)
_Given = TypeVar("_Given", covariant=True)


@dataclass(frozen=True, slots=True)
class PendingObject(Generic[Read]):
    """An object that was read.

    Parameters
    ----------
    originals
        What must be resolved before it can be written.
    read
        What the carrier knows of it.
    turn
        Objects of the same turn are written one after the other, in the order of the items.
    """

    identifiers: Collection[Identifier]
    read: Read
    turn: Hashable = None


class Carrier(Protocol[_Taken, Read, _Given]):
    """What is done with one object; `read` and `write` are called from many threads.

    No step raises for what is wrong with one object.
    """

    def cost(self, item: _Taken) -> int:
        """Return the bytes that the object takes in memory while it is in flight."""
        ...

    def read(self, item: _Taken) -> PendingObject[Read] | _Given:
        """Read and examine the object; what is done with already comes back as done."""
        ...

    def release(self, read: Read) -> Sequence[_Given] | None:
        """Let an object go on to be resolved and written; or return what is done, if anything, of one that does not.

        Called in the conveyor's thread for each object that was read and is not done, in the order of the items.
        """
        ...

    def write(self, read: Read, pseudonyms: Mapping[Identifier, str]) -> _Given:
        """Rewrite and write the object."""
        ...


@dataclass(slots=True)
class _Event(Generic[Item, Read, Done]):
    item: Item
    number: int
    pending: PendingObject[Read] | None = None
    done: Done | None = None
    wrote: bool = False
    turn: Hashable = None
    error: BaseException | None = None


_Numbered = tuple[int, Item]
_Resolved = tuple[Item, PendingObject[Read], Mapping[Identifier, str]]


class _ThreadPool(Generic[Task]):
    """Threads that do one kind of work; a `ThreadPoolExecutor` spends more on a future than a small object costs."""

    def __init__(self, work: Callable[[Task], None], threads: int, name: str) -> None:
        self._work = work
        self._tasks: SimpleQueue[tuple[Task] | None] = SimpleQueue()
        self._threads = [Thread(target=self._labour, name=f"{name}-{number}", daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def give(self, task: Task) -> None:
        self._tasks.put((task,))

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _labour(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._work(*task)
            # A thread that waits for its next task must not keep the last one in memory.
            del task


class PipelineExecutor(Generic[Item, Read, Done]):
    """Carries objects from storage to storage.

    One thread, the caller's, admits objects, resolves their originals and collects what is done: a database
    connection is used from nowhere else. Reads and writes run in two pools, so that neither starves the other. While
    one group of originals is resolved, objects of other groups are read, rewritten and written.

    Objects are read in any order, and released to be resolved and written in the order of the items: one waits until
    all before it were read. The first that is not released has always been admitted, so that those that wait for it
    cannot shut it out.

    Parameters
    ----------
    carrier
        Reads and writes one object.
    resolve
        Returns the pseudonyms of originals; committed when it returns.
    transfers
        Threads that read, and as many that write.
    in_flight_bytes
        Bound of the cost of all objects in flight. An object that costs more is carried alone. Their number is bounded
        by the number of threads.
    """

    def __init__(
        self,
        carrier: Carrier[Item, Read, Done],
        resolve: Callable[[Collection[Identifier]], Mapping[Identifier, str]],
        *,
        transfers: int,
        in_flight_bytes: int,
    ) -> None:
        self._carrier = carrier
        self._resolve = resolve
        self._transfers = transfers
        self._bound = in_flight_bytes
        self._events: SimpleQueue[_Event[Item, Read, Done]] = SimpleQueue()
        self._waiting: list[tuple[Item, PendingObject[Read]]] = []
        # What was read before its turn to be released, by its number; nothing for what is done.
        self._early: dict[int, _Event[Item, Read, Done] | None] = {}
        self._admitted = self._released = 0
        # What waits for another object of the same turn to be written.
        self._turns: dict[Hashable, deque[_Resolved[Item, Read]]] = {}
        self._bytes = 0
        self._reading = 0
        self._writing = 0

    def run(self, items: Iterable[Item], should_stop: Callable[[], bool]) -> Generator[list[Done]]:
        """Carry the items; yield, at least twice a second, what was done since.

        Once `should_stop` says so no further object is admitted, and those in flight are finished. When the caller
        closes the iterator, what has not begun is dropped and what has begun is waited for.
        """
        readers = _ThreadPool(self._read, self._transfers, "dicom-deid-read")
        writers = _ThreadPool(self._write, self._transfers, "dicom-deid-write")
        source = iter(items)
        held: Item | None = None
        try:
            while True:
                held = self._admit(source, held, readers, should_stop)
                if not (self._reading or self._writing or self._waiting):
                    return
                done = self._collect(writers)
                self._resolve_when_due(writers)
                yield done
        finally:
            readers.close()
            writers.close()

    def _admit(
        self,
        source: Iterator[Item],
        held: Item | None,
        readers: _ThreadPool[_Numbered[Item]],
        should_stop: Callable[[], bool],
    ) -> Item | None:
        """Begin to read while the bytes allow it; return the item that has to wait."""
        if should_stop():
            return None
        while (item := held if held is not None else next(source, None)) is not None:
            cost = self._carrier.cost(item) + _OVERHEAD_BYTES
            if self._bytes and (self._bytes + cost > self._bound or self._is_full):
                return item
            held = None
            self._bytes += cost
            self._reading += 1
            readers.give((self._admitted, item))
            self._admitted += 1
        return None

    @property
    def _is_full(self) -> bool:
        in_flight = self._reading + len(self._early) + len(self._waiting) + self._writing
        return in_flight >= _IN_FLIGHT_PER_TRANSFER * self._transfers

    def _collect(self, writers: _ThreadPool[_Resolved[Item, Read]]) -> list[Done]:
        """Wait for one event, take all that are there, and return what is done."""
        done: list[Done] = []
        try:
            event = self._events.get(timeout=_TICK_SECONDS)
            while True:
                self._take(event, done, writers)
                event = self._events.get_nowait()
        except Empty:
            return done

    def _take(
        self, event: _Event[Item, Read, Done], done: list[Done], writers: _ThreadPool[_Resolved[Item, Read]]
    ) -> None:
        if event.error is not None:
            raise event.error
        if event.wrote:
            self._writing -= 1
            self._end_turn(event.turn, writers)
        else:
            self._reading -= 1
            self._early[event.number] = None if event.pending is None else event
        if event.done is not None:
            self._free(event.item)
            done.append(event.done)
        self._release(done)

    def _release(self, done: list[Done]) -> None:
        """Release what was read, up to the first object that was not."""
        while self._released in self._early:
            event = self._early.pop(self._released)
            self._released += 1
            if event is None or event.pending is None:
                continue
            left = self._carrier.release(event.pending.read)
            if left is None:
                self._waiting.append((event.item, event.pending))
            else:
                self._free(event.item)
                done += left

    def _free(self, item: Item) -> None:
        self._bytes -= self._carrier.cost(item) + _OVERHEAD_BYTES

    def _resolve_when_due(self, writers: _ThreadPool[_Resolved[Item, Read]]) -> None:
        """Resolve what waits when the writers would soon run dry: the later, the larger the group."""
        if not self._waiting or self._writing >= 2 * self._transfers:
            return
        identifiers = {original for _, pending in self._waiting for original in pending.identifiers}
        pseudonyms = self._resolve(identifiers) if identifiers else {}
        self._writing += len(self._waiting)
        for item, pending in self._waiting:
            self._begin_turn((item, pending, pseudonyms), writers)
        self._waiting.clear()

    def _begin_turn(self, task: _Resolved[Item, Read], writers: _ThreadPool[_Resolved[Item, Read]]) -> None:
        turn = task[1].turn
        if turn in self._turns:
            self._turns[turn].append(task)
            return
        if turn is not None:
            self._turns[turn] = deque()
        writers.give(task)

    def _end_turn(self, turn: Hashable, writers: _ThreadPool[_Resolved[Item, Read]]) -> None:
        if turn is None:
            return
        if self._turns[turn]:
            writers.give(self._turns[turn].popleft())
        else:
            del self._turns[turn]

    def _read(self, numbered: _Numbered[Item]) -> None:
        number, item = numbered
        event = _Event[Item, Read, Done](item, number)
        try:
            result = self._carrier.read(item)
            if isinstance(result, PendingObject):
                event.pending = result
            else:
                event.done = result
        except BaseException as error:
            event.error = error
        self._events.put(event)

    def _write(self, resolved: _Resolved[Item, Read]) -> None:
        item, pending, pseudonyms = resolved
        event = _Event[Item, Read, Done](item, -1, wrote=True, turn=pending.turn)
        try:
            event.done = self._carrier.write(pending.read, pseudonyms)
        except BaseException as error:
            event.error = error
        self._events.put(event)
