"""Segments: elements in a row that objects repeat; what the rules do to them is computed once.

The objects of a series share most of their elements, and reports their template. A `SegmentLearner`
(`dicom_deid.engine.segment_learner`) compares the elements of an object with those of the object before it. Elements in
a row that are the same in both, and whose handlers depend on nothing else, become a `Segment`: the rules are applied to
its bytes alone, and the result is used wherever the same bytes follow the same state of the walk. All of those of a
root data set, with what is between them, are a `dicom_deid.engine.shared_headers.SharedHeader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dicom_deid.dicom.embedded import has_items, is_data_set, items_in_values
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
    RuleEdit,
    SearchedEdit,
    SequenceHandler,
    SkipHandler,
    UnknownHandler,
    walk_element,
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

# Bounds of memory: lengths and segments that begin with the same tag; results for other pseudonyms.
_MAX_LENGTHS, _MAX_SEGMENTS, _MAX_RENDERED = 4, 256, 4
_MAX_MISSES = 64
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


class Totals:
    """Captured values, identifiers and counts that elements add to the walk over an object.

    Parameters
    ----------
    walk
        A walk over these elements alone.
    """

    __slots__ = (
        "_captured",
        "_counts",
        "_followed",
        "_has_content",
        "_has_document",
        "_noted",
        "_rules",
        "identifiers",
    )

    def __init__(self, walk: ObjectWalk) -> None:
        self.identifiers = walk.identifiers
        self._captured = {
            keyword: (value, codecs, -1 if edit == -1 else IN_SEGMENT, form)
            for keyword, (value, codecs, edit, form) in walk.captured.items()
        }
        self._rules = tuple((index, times) for index, times in enumerate(walk.rules) if times)
        self._counts = walk.counts
        self._noted = walk.noted
        self._followed = walk.followed
        self._has_content = walk.has_content
        self._has_document = walk.has_document

    def add_to(self, walk: ObjectWalk) -> None:
        """Add all to the walk over an object."""
        walk.captured.update(self._captured)
        walk.identifiers.update(self.identifiers)
        rules = walk.rules
        for rule, times in self._rules:
            rules[rule] += times
        if self._counts:
            _add(walk.counts, self._counts)
        if self._noted:
            _add(walk.noted, self._noted)
        walk.followed += self._followed
        walk.has_content = walk.has_content or self._has_content
        walk.has_document = walk.has_document or self._has_document


def _add(counts: dict[Any, int], more: Mapping[Any, int]) -> None:
    for key, times in more.items():
        counts[key] = counts.get(key, 0) + times


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
        "codecs",
        "codecs_after",
        "context",
        "creators",
        "embedded",
        "found",
        "is_edit",
        "keyed",
        "left",
        "length",
        "private_groups",
        "removed",
        "removes_items",
        "rendered",
        "totals",
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
        self.totals = Totals(walk)
        # Long, and needed no more.
        walk.rules = []
        self.keyed = tuple(dict.fromkeys(kind for _, kind in walk.keyed_by_study))
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
        self.totals.add_to(walk)
        self.set_state(item_context)

    def set_state(self, item_context: ItemContext) -> None:
        """Give a data set the character set and the private creators that it has after the segment."""
        item_context.codecs = self.codecs_after
        if self.creators:
            item_context.creators = {**(item_context.creators or {}), **self.creators}

    def embedded_values(self, encoding: Encoding) -> frozenset[int]:
        """Find where values may begin that are data sets, given how the elements of the object are encoded."""
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
        key = (*map(pseudonyms.__getitem__, self.walk.identifiers), *(pseudonyms[keyed[kind]] for kind in self.keyed))
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
    for edit in walk.edits:
        if edit.__class__ is not SegmentEdit:
            continue
        skipped.append((edit.start, edit.end))
        found = edit.segment.embedded
        if found is None:
            found = edit.segment.embedded_values(encoding)
        if found:
            values.update([edit.start + at for at in found])
    if walk.pixel_data is not None:
        first, until = walk.pixel_data
        skipped = sorted([*skipped, (min(first, end), end if until is None else until)])
    spans = []
    for first, last in skipped:
        if start < first:
            spans.append((start, first))
        start = last
    if start < end:
        spans.append((start, end))
    # The bytes between segments are few.
    if not (walk.segments or walk.shared) or has_items(b"".join([data[first:last] for first, last in spans])):
        values.update(items_in_values(data, spans, end, encoding))
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
        for edit in edits:
            if edit.__class__ is SegmentEdit and edit.identifiers:
                of_segment = edit.identifiers.items()
                identifiers.update(
                    [(keyword, text) for keyword, text in of_segment if captured[keyword][2] == IN_SEGMENT]
                )
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


def is_repeatable(walk: ObjectWalk) -> bool:
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


def is_local(handler: Any) -> bool:
    """Return whether what a handler does depends on nothing but the element, its character set and its creator."""
    if handler is SHORT or handler is None:
        return True
    if isinstance(handler, SegmentHandler | basic.CaptureHandler | basic.CharacterSetHandler | PrivateCreatorHandler):
        return is_local(handler.inner)
    if isinstance(handler, PrivateHandler):
        return all(is_local(inner) for _, inner in handler.by_creator.values())
    return handler.__class__ in _LOCAL


def is_pending(edit: Edit) -> bool:
    """Return whether the bytes of an edit depend on the pseudonyms."""
    return bool(edit.segment.walk.edits) if isinstance(edit, SegmentEdit) else isinstance(edit, PendingEdit)
