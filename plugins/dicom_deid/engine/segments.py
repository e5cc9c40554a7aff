"""Segments: elements in a row that objects repeat; what the rules do to them is computed once.

The objects of a series share most of their elements, and reports their template. A `SegmentLearner` compares the
elements of an object with those of the object before it. Elements in a row that are the same in both, and whose
handlers depend on nothing else, become a `Segment`: the rules are applied to its bytes alone, and the result is used
wherever the same bytes follow the same state of the walk.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

from dicom_deid.dicom.embedded import is_data_set, items_in_values
from dicom_deid.dicom.reread import check_written
from dicom_deid.dicom.rewrite import splice
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.walk import (
    LONG,
    SEGMENT,
    SHORT,
    DatasetContext,
    Edit,
    ElementHandler,
    ItemContext,
    LengthEdit,
    MixedVRsError,
    NeedMoreDataError,
    RecordedElement,
    Recording,
    RuleEdit,
    SearchedEdit,
    SequenceHandler,
    SkipHandler,
    TrailingBytesError,
    UnknownHandler,
    walk_element,
    walk_unchecked,
)
from dicom_deid.engine.handler_table import CAPTURED
from dicom_deid.engine.handlers import basic
from dicom_deid.engine.handlers.basic import IN_SEGMENT, GroupLengthEdit, ObjectWalk, PendingEdit
from dicom_deid.engine.handlers.private import PrivateBlock, PrivateCreatorHandler, PrivateHandler
from dicom_deid.engine.handlers.structured_content import ContentSequenceHandler, refers_to_items
from dicom_deid.engine.references import MODALITIES
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason

# Bounds of memory: bytes of all segments of one engine (what is computed of them takes about ten times as much), of one
# segment, of one element; lengths and segments that begin with the same tag; results for other pseudonyms.
MAX_BYTES = 1_000_000
_MAX_SEGMENT, _MAX_ELEMENT = 16_384, 8192
_MAX_LENGTHS, _MAX_SEGMENTS, _MAX_RENDERED = 4, 256, 4
_MAX_RECORDED = 4096
_MAX_MISSES = 64
# What handling an element or a sequence costs, in times of skipping one; and what a segment must be worth.
_COST_OF_HANDLER, _COST_OF_SEQUENCE, _LEAST_COST = 5, 12, 16
_MAX_PATIENCE = 64
_IDENTIFIERS = tuple(CAPTURED.values())
_NO_IDENTIFIERS: Mapping[str, str] = {}

# Handlers that depend on nothing but the bytes of the element, its character set and its private creator. The result
# of any other may differ between objects.
_LOCAL = frozenset(
    {
        *(basic.RemoveHandler, basic.ConstantHandler, basic.ShiftHandler, basic.PatientShiftHandler),
        *(basic.PseudonymHandler, basic.ReferenceHandler, basic.DropHandler, basic.CaptureUnchangedHandler),
        *(basic.OpaqueHandler, basic.BytesHandler, basic.KeptContentHandler, basic.NonEmptyRefusedHandler),
        *(SequenceHandler, UnknownHandler, SkipHandler),
        # Whether it removes items depends on the object, see `Segment.fits`.
        ContentSequenceHandler,
    }
)
_EDITS = frozenset({RuleEdit, SearchedEdit, LengthEdit, PendingEdit})


class SegmentEdit(Edit):
    """Edit of all elements of a segment.

    Parameters
    ----------
    start, end
        Positions in bytes.
    segment
        The segment.

    Attributes
    ----------
    identifiers
        Once it is resolved, the new values of the identifiers in it, by keyword.
    """

    __slots__ = ("identifiers", "keyed", "segment")
    is_searched = False
    stage = None

    def __init__(self, start: int, end: int, segment: Segment) -> None:
        self.start = start
        self.end = end
        self.segment = segment
        # No bytes before it is resolved, unless nothing changes.
        if not segment.walk.edits:
            self.new, self.identifiers = segment.walk.data, _NO_IDENTIFIERS
        self.keyed: dict[IdentifierKind, Identifier] | None = None

    def key_by(self, kind: IdentifierKind, original: Identifier) -> None:
        """Use the study's or the patient's identifier for the values of this kind that have none."""
        self.keyed = {**(self.keyed or {}), kind: original}

    def resolve(self, walk: ObjectWalk, pseudonyms: Mapping[Identifier, str]) -> SegmentEdit:
        """Return the edit, with its bytes."""
        try:
            self.new, self.identifiers, noted = self.segment.render(pseudonyms, self.keyed)
        except Quarantine as problem:
            raise Quarantine(problem.reason, problem.where, self.start + (problem.offset or 0)) from None
        for reason, times in noted:
            walk.note(reason, times)
        return self


class Rendered(NamedTuple):
    """The new bytes of a segment, the new values of the identifiers in it, and the reasons noted meanwhile."""

    new: bytes
    identifiers: Mapping[str, str]
    noted: tuple[tuple[Reason, int], ...]


class Segment:
    """Elements in a row, and what the rules do to them.

    Parameters
    ----------
    walk
        A walk over the bytes of the segment alone.
    item_context
        The state after it.
    codecs
        The character set before it.
    groups
        The groups of its elements.
    is_searched
        Whether the residual search follows, for which it is an edit even if nothing changes in it.

    Attributes
    ----------
    removed, left, found
        Kept here by the residual search: what is searched for because the rules remove it here, the bytes that they
        leave, and what was found in these, by the terms and character sets.
    embedded
        Kept here by `embedded_values`.
    """

    __slots__ = (
        "captured",
        "codecs",
        "codecs_after",
        "context",
        "counts",
        "creators",
        "embedded",
        "found",
        "identifiers",
        "is_edit",
        "keyed",
        "left",
        "length",
        "noted",
        "private_groups",
        "removed",
        "removes_items",
        "rendered",
        "rules",
        "walk",
    )

    def __init__(
        self,
        walk: ObjectWalk,
        item_context: ItemContext,
        codecs: tuple[str, ...],
        groups: frozenset[int],
        *,
        is_searched: bool,
    ) -> None:
        self.walk = walk
        self.length = len(walk.data)
        self.context: Any = item_context.context
        self.codecs = codecs
        self.codecs_after = item_context.codecs
        self.removes_items = walk.content_references is not None
        self.private_groups = frozenset(group for group in groups if group % 2)
        # An element after the segment cannot undo the removal of a creator in it.
        self.creators = {
            block: PrivateBlock(one.creator, -1 if one.edit == -1 else IN_SEGMENT)
            for block, one in (item_context.creators or {}).items()
        }
        self.is_edit = is_searched or bool(walk.edits)
        self.identifiers = walk.identifiers
        self.rules = tuple((index, times) for index, times in enumerate(walk.rules) if times)
        self.counts = tuple(walk.counts.items())
        self.noted = tuple(walk.noted.items())
        # Long, and needed no more.
        walk.rules = []
        self.keyed = tuple(dict.fromkeys(kind for _, kind in walk.keyed_by_study))
        self.captured = {
            keyword: (value, of_value, IN_SEGMENT if edit >= 0 else -1, form)
            for keyword, (value, of_value, edit, form) in walk.captured.items()
        }
        self.rendered: dict[tuple[str, ...], Rendered] = {}
        self.found: dict[Any, Any] = {}
        self.removed: Any = None
        self.left: bytes | None = None
        self.embedded: frozenset[int] | None = None

    def fits(self, walk: ObjectWalk, pos: int, item_context: ItemContext) -> bool:
        """Return whether the elements mean at a position what they meant where the segment was made."""
        if item_context.codecs != self.codecs or (walk.group_lengths and _ends_group(walk, pos, pos + self.length)):
            return False
        if self.removes_items and refers_to_items(walk, self.context.order):
            return False
        groups, reserved = self.private_groups, item_context.creators
        return not groups or not reserved or groups.isdisjoint(block >> 16 for block in reserved)

    def apply(self, walk: ObjectWalk, pos: int, item_context: ItemContext, segments: list[Edit]) -> None:
        """Do to a walk what handling the elements by themselves would do."""
        if self.is_edit:
            edit = SegmentEdit(pos, pos + self.length, self)
            index = len(walk.edits)
            walk.edits.append(edit)
            segments.append(edit)
            if self.walk.edits:
                walk.pending.append(index)
            for kind in self.keyed:
                walk.keyed_by_study.append((index, kind))
        else:
            walk.opaque += [(pos + start, pos + end) for start, end in self.walk.opaque]
        walk.repeated += self.length
        walk.captured.update(self.captured)
        walk.identifiers.update(self.identifiers)
        for rule, times in self.rules:
            walk.rules[rule] += times
        for action, times in self.counts:
            walk.counts[action] = walk.counts.get(action, 0) + times
        for reason, times in self.noted:
            walk.note(reason, times)
        walk.followed += self.walk.followed
        walk.has_content = walk.has_content or self.walk.has_content
        walk.has_document = walk.has_document or self.walk.has_document
        item_context.codecs = self.codecs_after
        if self.creators:
            item_context.creators = {**(item_context.creators or {}), **self.creators}

    def embedded_values(self, encoding: Encoding) -> frozenset[int]:
        """Return where values may begin that are data sets, given how the elements of the object are encoded."""
        found = self.embedded
        if found is None:
            data = self.walk.data
            # Before its ninth byte no value begins.
            of_items = items_in_values(data, [(8, len(data))], len(data), encoding)
            of_data_sets = (at for at, last in self.walk.opaque if is_data_set(data, at, last))
            self.embedded = found = frozenset((*of_items, *of_data_sets))
        return found

    def render(
        self, pseudonyms: Mapping[Identifier, str], keyed: Mapping[IdentifierKind, Identifier] | None
    ) -> Rendered:
        """Return the new bytes."""
        keyed = keyed or {}
        key = (*map(pseudonyms.__getitem__, self.identifiers), *(pseudonyms[keyed[kind]] for kind in self.keyed))
        found = self.rendered.get(key)
        if found is None:
            found = self._render(pseudonyms, keyed)
            if len(self.rendered) >= _MAX_RENDERED:
                self.rendered.clear()
            self.rendered[key] = found
        return found

    def _render(self, pseudonyms: Mapping[Identifier, str], keyed: Mapping[IdentifierKind, Identifier]) -> Rendered:
        walk, noting = self.walk, ObjectWalk(self.walk.data, 0)
        final = walk.edits.copy()
        kinds = dict(walk.keyed_by_study)
        for index in walk.pending:
            edit = final[index]
            if isinstance(edit, PendingEdit):
                details = edit.details
                if index in kinds:
                    details = edit.handler.with_identifier(details, keyed[kinds[index]])
                copy = PendingEdit(edit.start, edit.end, edit.handler, details, edit.item_context)
                final[index] = copy.resolve(noting, pseudonyms)
        check_written(walk.data, final)
        new = b"".join(splice(walk.data, 0, self.length, final, self.context.order))
        return Rendered(new, new_identifiers(walk, final), tuple(noting.noted.items()))


def embedded_values(walk: ObjectWalk, start: int, end: int, encoding: Encoding) -> set[int]:
    """Return where values may begin that are data sets, or sequences of a VR that is none.

    Parameters
    ----------
    walk
        The walk over an object.
    start, end
        Start and end of its data set in bytes.
    encoding
        How its elements are encoded.
    """
    data = walk.data
    values = {at for at, last in walk.opaque if is_data_set(data, at, last)}
    skipped = []
    for edit in walk.segments or ():
        skipped.append((edit.start, edit.end))
        values.update([edit.start + at for at in edit.segment.embedded_values(encoding)])
    if walk.pixel_data is not None:
        first, until = walk.pixel_data
        skipped = sorted([*skipped, (min(first, end), end if until is None else until)])
    spans = []
    for first, last in skipped:
        spans.append((start, first))
        start = last
    values.update(items_in_values(data, [*spans, (start, end)], end, encoding))
    return values


def is_left(walk: ObjectWalk, at: int) -> bool:
    """Return whether the value of an element that begins at a position is one that no rule removed or replaced."""
    for edit in walk.edits:
        if edit.start <= at < edit.end and not edit.is_searched:
            return isinstance(edit, SegmentEdit) and is_left(edit.segment.walk, at - edit.start)
    return True


def _ends_group(walk: ObjectWalk, start: int, end: int) -> bool:
    """Return whether a group ends between two positions, by its length, which counts the changes of a part then."""
    for index in walk.group_lengths:
        edit = walk.edits[index]
        if isinstance(edit, GroupLengthEdit) and start < edit.end + edit.length < end:
            return True
    return False


def new_identifiers(walk: ObjectWalk, edits: Sequence[Edit]) -> dict[str, str]:
    """Return the new values of the identifiers in the root data set of an object, or in a segment of it.

    Parameters
    ----------
    edits
        The edits of the walk with their bytes.
    """
    identifiers = {}
    captured, is_in_segment = walk.captured, False
    for keyword in _IDENTIFIERS:
        found = captured.get(keyword)
        if found is None:
            continue
        value, codecs, index, form = found
        if index == IN_SEGMENT:
            is_in_segment = True
            continue
        if index >= 0:
            value = edits[index].new[12 if form == LONG else 8 :]
        text = basic.identifier_text(value, codecs)
        if text and (keyword != "Modality" or text in MODALITIES):
            identifiers[keyword] = text
    if is_in_segment:
        for edit in walk.segments or ():
            of_segment = edit.identifiers.items()
            identifiers.update([(keyword, text) for keyword, text in of_segment if captured[keyword][2] == IN_SEGMENT])
    return identifiers


class SegmentHandler(ElementHandler[ObjectWalk]):
    """Handles the segments that begin with the elements of one tag and VR at one nesting path.

    Parameters
    ----------
    inner
        The handler of the element where no segment begins.
    """

    __slots__ = ("by_length", "inner", "last", "misses")

    def __init__(self, inner: Any) -> None:
        super().__init__(SEGMENT)
        self.inner = inner
        self.forget()

    def forget(self) -> None:
        """Forget the segments."""
        self.misses = 0
        # The newest first; and the one that was used last.
        self.by_length: list[tuple[int, dict[bytes, Segment]]] = []
        self.last: Segment | None = None

    def add(self, segment: Segment) -> bool:
        """Add a segment; return whether it is new."""
        known = next((known for length, known in self.by_length if length == segment.length), None)
        if known is None:
            known = {}
            self.by_length = [(segment.length, known), *self.by_length[: _MAX_LENGTHS - 1]]
        if len(known) >= _MAX_SEGMENTS:
            known.clear()
        self.misses = 0
        is_new = segment.walk.data not in known
        known[segment.walk.data] = segment
        return is_new

    def handle_segment(
        self, walk: ObjectWalk, context: DatasetContext[ObjectWalk], pos: int, end: int, item_context: ItemContext
    ) -> int:
        """Apply the segment that begins here, or handle the element by itself."""
        segments = walk.segments
        if segments is None:
            return walk_element(walk, context, pos, end, item_context, self.inner)
        segment = self.last
        if segment is None or not walk.data.startswith(segment.walk.data, pos):
            segment = self._find(walk.data, pos)
        if segment is not None and pos + segment.length <= end and segment.fits(walk, pos, item_context):
            self.misses, self.last = 0, segment
            segment.apply(walk, pos, item_context, segments)
            return pos + segment.length
        self.misses += 1
        if self.misses > _MAX_MISSES:
            # The series is over.
            self.forget()
        return walk_element(walk, context, pos, end, item_context, self.inner)

    def _find(self, data: bytes, pos: int) -> Segment | None:
        for length, known in self.by_length:
            segment = known.get(data[pos : pos + length])
            if segment is not None:
                return segment
        return None


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
        return cls(starts, [0, *accumulate(costs)], [one.start for one in elements if not _is_local(one.handler)])

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


def _is_local(handler: Any) -> bool:
    if handler is SHORT or handler is None:
        return True
    if isinstance(handler, SegmentHandler | basic.CaptureHandler | basic.CharacterSetHandler | PrivateCreatorHandler):
        return _is_local(handler.inner)
    if isinstance(handler, PrivateHandler):
        return all(_is_local(inner) for _, inner in handler.by_creator.values())
    return handler.__class__ in _LOCAL


class SegmentLearner:
    """Makes the segments of one engine; thread-safe.

    Parameters
    ----------
    rules
        The number of rules of the recipe.
    is_searched
        Whether objects are searched for residuals.
    """

    def __init__(self, rules: int, *, is_searched: bool) -> None:
        self._rules = rules
        self._is_searched = is_searched
        self._lock = Lock()
        self._handlers: list[SegmentHandler] = []
        self._size = 0
        # The elements of the last recorded object, with their context.
        self._seen: set[tuple[int, bytes]] = set()
        # How many objects without enough segments are waited for before one is recorded, and how many there were.
        self._patience, self._without = 1, 0

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return self._size

    def recording(self) -> Recording | None:
        """Return a recording for the next object, or None while segments are found or none can be."""
        return Recording(_MAX_RECORDED) if self._without >= self._patience else None

    def observe(self, walk: ObjectWalk, size: int) -> None:
        """Take note of how much of an object of a size in bytes, without pixel data, was in segments."""
        if walk.recording is not None:
            with self._lock:
                self._learn(walk, walk.recording)
                self._without, self._patience = 0, min(2 * self._patience, _MAX_PATIENCE)
            walk.recording = None
        elif 2 * walk.repeated < size:
            self._without += 1
        elif self._patience > 1:
            self._patience -= 1

    def _learn(self, walk: ObjectWalk, recording: Recording) -> None:
        costs = _Costs.of(recording)
        seen, self._seen = self._seen, set()
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
        if reached != len(walk.data) or not _is_repeatable(walk):
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


def _is_repeatable(walk: ObjectWalk) -> bool:
    """Return whether what was done to the elements of a segment can be done to those of another object."""
    return (
        all(edit.__class__ in _EDITS for edit in walk.edits)
        and not walk.group_lengths
        and not walk.signatures
        and not walk.overlays
        and not walk.planes_removed
        and walk.pixel_data is None
        and not walk.content_references
        and not walk.added
    )
