"""The learner of segments and shared headers: it compares each object that it records with those before.

What objects repeat is found once in a while only, as long as nothing is: see `SegmentLearner.observe`.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.walk import (
    SHORT,
    DatasetContext,
    ItemContext,
    MixedVRsError,
    NeedMoreDataError,
    RecordedElement,
    Recording,
    SequenceHandler,
    TrailingBytesError,
    walk_unchecked,
)
from dicom_deid.engine.handler_table import RootContext
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.segments import Segment, SegmentHandler, is_local, is_repeatable
from dicom_deid.engine.shared_headers import SharedHeader, share_header
from dicom_deid.exceptions import Quarantine

# Bounds of memory: bytes of all segments of one engine (what is computed of them takes about ten times as much), of one
# segment, of one element.
MAX_BYTES = 1_000_000
_MAX_SEGMENT, _MAX_ELEMENT = 16_384, 8192
_MAX_RECORDED = 4096
# What handling an element or a sequence costs, in times of skipping one; and what a segment must be worth.
_COST_OF_HANDLER, _COST_OF_SEQUENCE, _LEAST_COST = 5, 12, 16
_MAX_PATIENCE = 256
_LEAST_SHARED = 2 / 3
# Headers of so many series are kept, and so many objects are compared with.
_MAX_HEADERS = 8
_MAX_OBJECTS = 3


class _Costs(NamedTuple):
    """What the recorded elements of an object cost, and which of them have handlers that are not local."""

    starts: list[int]
    sums: list[int]
    not_local: list[int]

    @classmethod
    def of(cls, recording: Recording) -> _Costs:
        elements = sorted(one for _, elements in recording.data_sets for one in elements)
        costs = [_cost(one.handler) for one in elements]
        starts = [one.start for one in elements]
        return cls(starts, [0, *accumulate(costs)], [one.start for one in elements if not is_local(one.handler)])

    def between(self, start: int, end: int) -> int:
        """Return what handling the elements in ``[start, end)`` costs."""
        return self.sums[bisect_left(self.starts, end)] - self.sums[bisect_left(self.starts, start)]

    def is_local(self, start: int, end: int) -> bool:
        """Return whether all handlers of the elements in ``[start, end)`` are local."""
        return bisect_left(self.not_local, start) == bisect_left(self.not_local, end)


def _cost(handler: Any) -> int:
    if isinstance(handler, SegmentHandler):
        handler = handler.inner
    if handler is SHORT:
        return 1
    return _COST_OF_SEQUENCE if isinstance(handler, SequenceHandler) else _COST_OF_HANDLER


class SegmentLearner:
    """Makes the segments of one engine; thread-safe.

    Parameters
    ----------
    rules
        The number of rules of the recipe.
    is_searched
        Whether objects are searched for residuals.

    Attributes
    ----------
    headers
        The shared headers, the newest first, by the first of the root's contexts that parse them.
    """

    def __init__(self, rules: int, *, is_searched: bool) -> None:
        self._rules = rules
        self._is_searched = is_searched
        self._lock = Lock()
        self._handlers: list[SegmentHandler] = []
        self._size = 0
        # The elements of the last recorded objects, with their context; series may be read in turns.
        self._recorded: deque[set[tuple[int, bytes]]] = deque(maxlen=_MAX_OBJECTS)
        self._seen: set[tuple[int, bytes]] = set()
        self.headers: dict[RootContext, tuple[SharedHeader, ...]] = {}
        # How many objects without a shared header are waited for before one is recorded, how many there were, and
        # whether the last recorded object is the first one of its kind.
        self._patience, self._without, self._is_first = 1, 0, False

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return self._size

    def handle_shared(
        self, walk: ObjectWalk, contexts: Sequence[RootContext], pos: int, item_context: ItemContext
    ) -> tuple[int, int]:
        """Handle the elements of a root data set that are a shared header, or record the object if none can be used.

        Returns
        -------
        tuple of int
            Where they end, and the index of the root's context that parses what follows.
        """
        # Where only the beginning is that of a header, the header is left out after some objects.
        if self._without < 2 * self._patience:
            for header in self.headers.get(contexts[0], ()):
                if header.begins(walk, pos):
                    return header.handle(walk, pos, item_context)
        if self._without >= self._patience:
            walk.recording, walk.segments = Recording(_MAX_RECORDED), None
        return pos, 0

    def observe(self, walk: ObjectWalk) -> None:
        """Take note of whether an object had a shared header, and learn from it if it was recorded."""
        if walk.recording is not None:
            with self._lock:
                if self._learn(walk, walk.recording):
                    self._without, self._is_first = 0, False
                elif self._is_first:
                    self._without, self._is_first = 0, False
                    self._patience = min(4 * self._patience, _MAX_PATIENCE)
                else:
                    # The next object may be another of the same series.
                    self._without, self._is_first = self._patience, True
            walk.recording = None
        elif walk.shared is None:
            self._without += 1
        elif self._patience > 1:
            self._patience -= 1

    def _learn(self, walk: ObjectWalk, recording: Recording) -> bool:
        """Make what an object shares with the one before that is most like it; return whether that is a header."""
        costs = _Costs.of(recording)
        roots = {
            (id(context), walk.data[one.start : one.end])
            for context, elements in recording.data_sets
            if not context.path
            for one in elements
            if one.end - one.start <= _MAX_ELEMENT
        }
        seen = max(self._recorded, key=lambda one: len(roots & one), default=set())
        self._seen = set()
        self._recorded.append(self._seen)
        done: list[tuple[int, int]] = []
        for context, elements in recording.data_sets:
            if elements and not _is_within(done, elements[0].start):
                for first, last in self._repeated(walk.data, context, elements, seen, costs):
                    start, end = elements[first].start, elements[last - 1].end
                    if costs.between(start, end) >= _LEAST_COST and self._add(walk.data, context, elements[first:last]):
                        done.append((start, end))
                done.sort()
            else:
                self._seen.update((id(context), walk.data[one.start : one.end]) for one in elements)
        return recording.left > 0 and self._add_header(walk.data, recording, seen, costs)

    def _add_header(self, data: bytes, recording: Recording, seen: set[tuple[int, bytes]], costs: _Costs) -> bool:
        """Make a shared header of the root elements; return whether that is possible, and worth it."""
        recorded = {context: elements for context, elements in recording.data_sets if isinstance(context, RootContext)}
        first = next(iter(recorded), None)
        if first is None:
            return False
        contexts = first.handler_table.root(Encoding(first.implicit, first.order.big_endian))

        def is_shared(context: RootContext, one: RecordedElement) -> bool:
            # Handlers of the elements in its items are not looked at later.
            is_local = costs.is_local(one.start + 1, one.end)
            return is_local and (id(context), data[one.start : one.end]) in seen

        roots = [(context, recorded.get(context, ())) for context in contexts]
        elements = [(context, one) for context, of_context in roots for one in of_context]
        shared = [costs.between(one.start, one.end) for context, one in elements if is_shared(context, one)]
        # Objects of other series share fewer, so that their header would be worth little for those of this one.
        if sum(shared) < max(_LEAST_COST, costs.sums[-1] // 2) or len(shared) < _LEAST_SHARED * len(elements):
            return False
        header = share_header(data, roots, is_shared, self._rules)
        if header is None:
            return False
        if self._size + header.length > MAX_BYTES:
            self._forget()
        self._size += header.length
        known = self.headers.get(contexts[0], ())
        self.headers[contexts[0]] = (header, *known[: _MAX_HEADERS - 1])
        return True

    def _repeated(
        self,
        data: bytes,
        context: DatasetContext[Any],
        elements: Sequence[RecordedElement],
        seen: set[tuple[int, bytes]],
        costs: _Costs,
    ) -> Iterator[tuple[int, int]]:
        """Yield ranges of elements in a row that were seen before and have local handlers only."""
        first = 0
        for index, one in enumerate(elements):
            key = (id(context), data[one.start : one.end] if one.end - one.start <= _MAX_ELEMENT else b"")
            is_known = key[1] != b"" and (key in seen or (bool(context.path) and key in self._seen))
            self._seen.add(key)
            if not is_known or not costs.is_local(one.start, one.end):
                yield from _whole_groups(data, context, elements, first, index)
                first = index + 1
            elif one.end - elements[first].start > _MAX_SEGMENT:
                yield from _whole_groups(data, context, elements, first, index)
                first = index
        yield from _whole_groups(data, context, elements, first, len(elements))

    def _add(self, data: bytes, context: DatasetContext[Any], elements: Sequence[RecordedElement]) -> bool:
        """Make a segment of elements in a row; return whether that is possible."""
        codecs = elements[0].codecs
        walk = ObjectWalk(data[elements[0].start : elements[-1].end], self._rules)
        item_context = ItemContext(context, codecs)
        try:
            reached = walk_unchecked(walk, context, 0, len(walk.data), item_context)
        except (Quarantine, NeedMoreDataError, MixedVRsError, TrailingBytesError, struct.error):
            return False
        if reached != len(walk.data) or not is_repeatable(walk):
            return False
        if self._size + len(walk.data) > MAX_BYTES:
            self._forget()
        head = walk.data[: 4 if context.implicit else 6]
        handler = context.handlers.get(head)
        if not isinstance(handler, SegmentHandler):
            handler = context.handlers[head] = SegmentHandler(handler)
            self._handlers.append(handler)
        groups = frozenset(_group(data, context, one) for one in elements)
        if handler.add(Segment(walk, item_context, codecs, groups, is_searched=self._is_searched)):
            self._size += len(walk.data)
        return True

    def _forget(self) -> None:
        for handler in self._handlers:
            handler.forget()
        self._handlers, self._size = [], 0
        self.headers = {}


def _is_within(ranges: Sequence[tuple[int, int]], pos: int) -> bool:
    index = bisect_left(ranges, (pos + 1, 0)) - 1
    return index >= 0 and pos < ranges[index][1]


def _group(data: bytes, context: DatasetContext[Any], element: RecordedElement) -> int:
    return int(context.order.u16.unpack_from(data, element.start)[0])


def _whole_groups(
    data: bytes, context: DatasetContext[Any], elements: Sequence[RecordedElement], first: int, last: int
) -> Iterator[tuple[int, int]]:
    """Yield a range of elements without the private groups that only begin or end in it."""
    if 0 < first < last and (group := _group(data, context, elements[first - 1])) % 2:
        while first < last and _group(data, context, elements[first]) == group:
            first += 1
    if first < last < len(elements) and (group := _group(data, context, elements[last])) % 2:
        while first < last and _group(data, context, elements[last - 1]) == group:
            last -= 1
    if last - first > 1:
        yield first, last
