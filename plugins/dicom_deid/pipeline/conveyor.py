"""Reads, the engine and writes of many objects overlap; SQL runs in one thread; the bytes in flight are bounded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from dicom_deid.originals import Original

_OVERHEAD_BYTES = 32 * 1024
"""What an object in flight costs beside its bytes; it bounds the number of very small objects too."""
_GROUP_OBJECTS = 1000
_TICK_SECONDS = 0.5

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")
_Taken = TypeVar("_Taken", contravariant=True)
_Given = TypeVar("_Given", covariant=True)


@dataclass(frozen=True, slots=True)
class Pending(Generic[Read]):
    """An object that was read, and what must be resolved before it can be written."""

    originals: Collection[Original]
    read: Read


class Carrier(Protocol[_Taken, Read, _Given]):
    """What is done with one object; called from many threads. Neither step raises for what is wrong with one object."""

    def cost(self, item: _Taken) -> int:
        """Return the bytes that the object takes in memory while it is in flight."""
        ...

    def read(self, item: _Taken) -> Pending[Read] | _Given:
        """Read and examine the object; what is done with already comes back as done."""
        ...

    def write(self, read: Read, pseudonyms: Mapping[Original, str]) -> _Given:
        """Rewrite and write the object."""
        ...


@dataclass(slots=True)
class _Event(Generic[Item, Read, Done]):
    item: Item
    pending: Pending[Read] | None = None
    done: Done | None = None
    wrote: bool = False
    error: BaseException | None = None


class Conveyor(Generic[Item, Read, Done]):
    """Carries objects from storage to storage.

    One thread, the caller's, admits objects, resolves their originals and collects what is done: a database
    connection is used from nowhere else. Reads and writes run in two pools, so that neither starves the other. While
    one group of originals is resolved, objects of other groups are read, rewritten and written.

    Parameters
    ----------
    carrier
        Reads and writes one object.
    resolve
        Returns the pseudonyms of originals; committed when it returns.
    transfers
        Threads that read, and as many that write.
    in_flight_bytes
        Bound of the cost of all objects in flight. An object that costs more is carried alone.
    """

    def __init__(
        self,
        carrier: Carrier[Item, Read, Done],
        resolve: Callable[[Collection[Original]], Mapping[Original, str]],
        *,
        transfers: int,
        in_flight_bytes: int,
    ) -> None:
        self._carrier = carrier
        self._resolve = resolve
        self._transfers = transfers
        self._bound = in_flight_bytes
        self._events: SimpleQueue[_Event[Item, Read, Done]] = SimpleQueue()
        self._waiting: list[tuple[Item, Pending[Read]]] = []
        self._bytes = 0
        self._reading = 0
        self._writing = 0

    def run(self, items: Iterable[Item], should_stop: Callable[[], bool]) -> Generator[list[Done]]:
        """Carry the items; yield, at least twice a second, what was done since.

        Once `should_stop` says so no further object is admitted, and those in flight are finished. When the caller
        closes the iterator, what has not begun is dropped and what has begun is waited for.
        """
        readers = ThreadPoolExecutor(self._transfers, "dicom-deid-read")
        writers = ThreadPoolExecutor(self._transfers, "dicom-deid-write")
        source = iter(items)
        held: Item | None = None
        try:
            while True:
                held = self._admit(source, held, readers, should_stop)
                if not (self._reading or self._writing or self._waiting):
                    return
                done = self._collect()
                self._resolve_when_due(writers)
                yield done
        finally:
            readers.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)

    def _admit(
        self, source: Iterator[Item], held: Item | None, readers: ThreadPoolExecutor, should_stop: Callable[[], bool]
    ) -> Item | None:
        """Begin to read while the bytes allow it; return the item that has to wait."""
        if should_stop():
            return None
        while (item := held if held is not None else next(source, None)) is not None:
            cost = self._carrier.cost(item) + _OVERHEAD_BYTES
            if self._bytes and self._bytes + cost > self._bound:
                return item
            held = None
            self._bytes += cost
            self._reading += 1
            readers.submit(self._read, item)
        return None

    def _collect(self) -> list[Done]:
        """Wait for one event, take all that are there, and return what is done."""
        done: list[Done] = []
        try:
            event = self._events.get(timeout=_TICK_SECONDS)
            while True:
                self._take(event, done)
                event = self._events.get_nowait()
        except Empty:
            return done

    def _take(self, event: _Event[Item, Read, Done], done: list[Done]) -> None:
        if event.wrote:
            self._writing -= 1
        else:
            self._reading -= 1
        if event.error is not None:
            raise event.error
        if event.pending is not None:
            self._waiting.append((event.item, event.pending))
            return
        self._bytes -= self._carrier.cost(event.item) + _OVERHEAD_BYTES
        if event.done is not None:
            done.append(event.done)

    def _resolve_when_due(self, writers: ThreadPoolExecutor) -> None:
        """Resolve what waits when the writers would soon run dry: the later, the larger the group."""
        while self._waiting and (self._writing < self._transfers or not self._reading):
            group = self._waiting[:_GROUP_OBJECTS]
            del self._waiting[:_GROUP_OBJECTS]
            originals = {original for _, pending in group for original in pending.originals}
            pseudonyms = self._resolve(originals) if originals else {}
            self._writing += len(group)
            for item, pending in group:
                writers.submit(self._write, item, pending.read, pseudonyms)

    def _read(self, item: Item) -> None:
        event = _Event[Item, Read, Done](item)
        try:
            result = self._carrier.read(item)
            if isinstance(result, Pending):
                event.pending = result
            else:
                event.done = result
        except BaseException as error:
            event.error = error
        self._events.put(event)

    def _write(self, item: Item, read: Read, pseudonyms: Mapping[Original, str]) -> None:
        event = _Event[Item, Read, Done](item, wrote=True)
        try:
            event.done = self._carrier.write(read, pseudonyms)
        except BaseException as error:
            event.error = error
        self._events.put(event)
