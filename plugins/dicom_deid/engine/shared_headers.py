"""Shared headers: the root elements of the objects of a series, where only some values differ.

The elements in a row that the objects share are segments, whose bytes are compared at once. Only the elements between
them, which every object has with a value of its own, are handled by themselves. What the segments add to a walk, the
bytes that the rules write in them, and what the residual search found in them are remembered for all of them together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET
from dicom_deid.dicom.walk import (
    SHORT,
    ItemContext,
    MixedVRsError,
    NeedMoreDataError,
    RecordedElement,
    RuleEdit,
    TrailingBytesError,
    walk_element,
    walk_unchecked,
)
from dicom_deid.engine.handler_table import RootContext
from dicom_deid.engine.handlers.basic import CharacterSetHandler, ObjectWalk
from dicom_deid.engine.handlers.engine_elements import AddedHandler
from dicom_deid.engine.handlers.private import NotInSegmentError, PrivateBlock, PrivateCreatorHandler
from dicom_deid.engine.handlers.structured_content import refers_to_items
from dicom_deid.engine.segments import Segment, SegmentEdit, SegmentHandler, Totals, is_local, is_pending, is_repeatable
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier
from dicom_deid.reasons import Reason

# A run of so few bytes, in which nothing changes, is searched with the values beside it.
_LEAST_EDIT = 100
_MAX_SEGMENT = 16_384
_MAX_RENDERED = 4

Roots = Sequence[tuple[RootContext, Sequence[RecordedElement]]]
"""The elements of a root data set, by the context that parsed them."""


class Part(NamedTuple):
    """Elements that objects share, and the one that follows, whose value they do not share.

    Parameters
    ----------
    fixed
        The shared elements, and the tag and VR of the one that follows.
    length
        Of the shared elements in bytes.
    segment
        What the rules do to the shared elements; None if there are none.
    is_edit
        Whether the segment is an edit.
    resume
        Index of the root's context that parses what an object has in place of the part.
    context
        The root's context that parses the part.
    inserted
        Elements that the engine adds before it.
    handler
        Of the element that follows; None if none does.
    """

    fixed: bytes
    length: int
    segment: Segment | None
    is_edit: bool
    resume: int
    context: RootContext
    inserted: tuple[bytes, ...]
    handler: Any


class SharedHeader:
    """The beginning of a root data set that objects share, but for some values.

    Parameters
    ----------
    parts
        Its parts in order.
    after
        Index of the root's context that parses what follows.
    rules
        The number of rules of the recipe.

    Attributes
    ----------
    segments
        Those that are edits.
    length
        The shared bytes.
    removed, left, found
        Kept here by the residual search: as of a `Segment`, of all segments together.
    """

    __slots__ = (
        "_after",
        "_is_keyed",
        "_parts",
        "_pending",
        "_removes_items",
        "_rendered",
        "_totals",
        "found",
        "left",
        "length",
        "removed",
        "segments",
    )

    def __init__(self, parts: Sequence[Part], after: int, rules: int) -> None:
        self._parts = tuple(parts)
        self._after = after
        segments = [part.segment for part in parts if part.segment is not None]
        self.segments = [part.segment for part in parts if part.segment is not None and part.is_edit]
        self.length = sum([one.length for one in segments])
        self._removes_items = any(one.removes_items for one in segments)
        self._is_keyed = any(one.keyed for one in segments)
        walk = ObjectWalk(b"", rules)
        for part in parts:
            _add_totals(part, walk)
        self._totals = Totals(walk)
        self._pending = [index for index, one in enumerate(self.segments) if one.walk.edits]
        # For other pseudonyms: the new bytes and identifiers of the segments, and the reasons noted meanwhile.
        self._rendered: dict[tuple[str, ...], tuple[list[tuple[bytes, Mapping[str, str]]], dict[Reason, int]]] = {}
        self.found: dict[Any, Any] = {}
        self.removed: Any = None
        self.left: bytes | None = None

    def begins(self, walk: ObjectWalk, pos: int) -> bool:
        """Return whether the elements at a position begin like it, and mean there what they meant where it was made."""
        first = self._parts[0]
        is_same = walk.data.startswith(first.fixed, pos)
        return is_same and not (self._removes_items and refers_to_items(walk, first.context.order))

    def handle(self, walk: ObjectWalk, pos: int, item_context: ItemContext) -> tuple[int, int]:
        """Handle the elements at a position as far as they are those of the header.

        Returns
        -------
        tuple of int
            Where it ends, and the index of the root's context that parses what follows.
        """
        try:
            pos, done = self._handle_parts(walk, pos, item_context)
        except struct.error:
            size = len(walk.data)
            raise walk.truncation_error(self._parts[0].context, size, size + 8) from None
        parts = self._parts
        if walk.shared is not None:
            self._totals.add_to(walk)
            return pos, self._after
        walk.segments = [edit for edit in walk.edits if isinstance(edit, SegmentEdit)]
        walk.pending = [index for index, edit in enumerate(walk.edits) if is_pending(edit)]
        for part in parts[:done]:
            _add_totals(part, walk)
        return pos, parts[done].resume if done < len(parts) else self._after

    def resolve(
        self, walk: ObjectWalk, of_segments: Sequence[SegmentEdit], pseudonyms: Mapping[Identifier, str]
    ) -> None:
        """Give the edits of its segments in a walk their bytes."""
        edits = [of_segments[index] for index in self._pending]
        key = tuple(map(pseudonyms.__getitem__, self._totals.identifiers))
        found = self._rendered.get(key)
        if found is not None:
            for edit, (new, identifiers) in zip(edits, found[0], strict=True):
                edit.new, edit.identifiers = new, identifiers
        else:
            noted, walk.noted = walk.noted, {}
            for edit in edits:
                edit.resolve(walk, pseudonyms)
            found = [(edit.new, edit.identifiers) for edit in edits], walk.noted
            walk.noted = noted
            if not self._is_keyed:
                if len(self._rendered) >= _MAX_RENDERED:
                    self._rendered = {}
                self._rendered[key] = found
        for reason, times in found[1].items():
            walk.note(reason, times)

    def _handle_parts(self, walk: ObjectWalk, pos: int, item_context: ItemContext) -> tuple[int, int]:
        """Return where the parts end that the object has, and their number."""
        data, edits, segments = walk.data, walk.edits, []
        short, end, done = SHORT, len(data), 0
        for fixed, length, segment, is_edit, _, context, inserted, handler in self._parts:
            if not data.startswith(fixed, pos):
                return pos, done
            done += 1
            for new in inserted:
                edits.append(RuleEdit(pos, pos, new, item_context))
            if segment is not None:
                if segment.keyed:
                    walk.keyed_by_study += [(len(edits), kind) for kind in segment.keyed]
                if is_edit:
                    edit = SegmentEdit(pos, pos + length, segment)
                    edits.append(edit)
                    segments.append(edit)
                segment.set_state(item_context)
                pos += length
            if handler is None:
                continue
            if handler is short and not context.implicit:
                after = pos + 8 + context.order.u16.unpack_from(data, pos + 6)[0]
            else:
                after = walk_element(walk, context, pos, end, item_context, handler)
            if after > end:
                return pos, done
            pos = after
        walk.shared = self, segments
        return pos, done


def resolve_shared(walk: ObjectWalk, pseudonyms: Mapping[Identifier, str]) -> None:
    """Give the edits of the shared header of a walk, if it has one, their bytes."""
    if walk.shared is not None:
        header, edits = walk.shared
        header.resolve(walk, edits, pseudonyms)


def _add_totals(part: Part, walk: ObjectWalk) -> None:
    if part.segment is not None:
        part.segment.totals.add_to(walk)
    for _ in part.inserted:
        walk.count("stamped")


def share_header(
    data: bytes, roots: Roots, is_shared: Callable[[RootContext, RecordedElement], bool], rules: int
) -> SharedHeader | None:
    """Return the header that an object shares with others, or None if the rules look at other parts of the object.

    Parameters
    ----------
    data
        The object.
    roots
        Its root elements.
    is_shared
        Tells whether others have the same element.
    rules
        The number of rules of the recipe.
    """
    own = {_group(data, *one) for one in _each(roots) if not is_shared(*one)}
    own = {group for group in own if group % 2}
    for are_whole in (False, True):
        # Whether a private creator stays may depend on the values in its block: then all are handled by themselves.
        try:
            parts, after = _parts(
                data,
                roots,
                lambda *one, whole=are_whole: is_shared(*one) and not (whole and _group(data, *one) in own),
                rules,
                are_whole=are_whole,
            )
            if not any(part.segment for part in parts):
                return None
            header = SharedHeader(parts, after, rules)
            walk = ObjectWalk(data, rules)
            walk.segments = []
            header.handle(walk, next(_each(roots))[1].start, ItemContext(roots[0][0]))
        except NotInSegmentError:
            continue
        except (Quarantine, NeedMoreDataError, MixedVRsError, TrailingBytesError, struct.error):
            return None
        return header if walk.shared is not None else None
    return None


def _each(roots: Roots) -> Iterator[tuple[RootContext, RecordedElement]]:
    return ((context, one) for context, elements in roots for one in elements)


def _group(data: bytes, context: RootContext, element: RecordedElement) -> int:
    return int(context.order.u16.unpack_from(data, element.start)[0])


def _inner(handler: Any) -> Any:
    return handler.inner if isinstance(handler, SegmentHandler) else handler


def _parts(
    data: bytes,
    roots: Roots,
    is_shared: Callable[[RootContext, RecordedElement], bool],
    rules: int,
    *,
    are_whole: bool,
) -> tuple[list[Part], int]:
    """Return the parts of a shared header, and the index of the root's context that parses what follows."""
    builder = _Builder(data, rules)
    last = -1
    for index, (context, elements) in enumerate(roots):
        builder.begin(index, context)
        handler: Any = None
        for one in elements:
            group, number = context.order.tag.unpack_from(data, one.start)
            handler = _inner(one.handler)
            inner = handler.inner if isinstance(handler, AddedHandler) else handler
            if last >= group << 16 | number or not is_local(inner):
                builder.end_run()
                return builder.parts, builder.after
            last = group << 16 | number
            if is_shared(context, one):
                builder.share(one)
            elif isinstance(inner, CharacterSetHandler):
                builder.end_run()
                return builder.parts, builder.after
            elif isinstance(inner, PrivateCreatorHandler) and not are_whole:
                raise NotInSegmentError
            else:
                builder.end_run(one)
        if not builder.end(is_added=isinstance(handler, AddedHandler)):
            break
    return builder.parts, builder.after


class _Builder:
    """Makes the parts of a shared header from the elements of an object, in order.

    Parameters
    ----------
    data
        The object.
    rules
        The number of rules of the recipe.
    """

    def __init__(self, data: bytes, rules: int) -> None:
        self._data = data
        self._rules = rules
        self._codecs = DEFAULT_CHARACTER_SET
        self._creators: dict[int, PrivateBlock] = {}
        self._run: list[RecordedElement] = []
        self._inserted: list[bytes] = []
        self.parts: list[Part] = []
        self.after = 0

    def begin(self, index: int, context: RootContext) -> None:
        """Begin a range of tags."""
        self._index, self._context = index, context

    def share(self, one: RecordedElement) -> None:
        """Add an element that objects share."""
        if self._run and one.end - self._run[0].start > _MAX_SEGMENT:
            self.end_run()
        self._run.append(one)

    def end_run(self, following: RecordedElement | None = None) -> None:
        """End the shared elements, before an element with a value of its own if one follows."""
        run, data, context = self._run, self._data, self._context
        if not run and following is None:
            return
        raw = data[run[0].start : run[-1].end] if run else b""
        segment = self._segment(raw) if run else None
        walk = segment.walk if segment is not None else None
        is_edit = walk is not None and bool(walk.edits or walk.opaque or len(raw) >= _LEAST_EDIT)
        head = data[following.start : following.start + (4 if context.implicit else 6)] if following else b""
        handler = None if following is None else _inner(following.handler)
        inserted = tuple(self._inserted)
        self.parts.append(Part(raw + head, len(raw), segment, is_edit, self.after, context, inserted, handler))
        self.after, self._run, self._inserted = self._index, [], []

    def end(self, *, is_added: bool) -> bool:
        """End a range of tags; return whether all objects get the same element after it, or none."""
        self.end_run()
        context = self._context
        if is_added or context.until is None:
            if not self._inserted:
                self.after = self._index + is_added
            # Otherwise no shared element follows: an object that goes on there, or ends, gets them by the walk.
            return True
        new = context.handler_table.insertion(context, context.until)
        if isinstance(new, bytes):
            self._inserted.append(new)
        return new is None or isinstance(new, bytes)

    def _segment(self, raw: bytes) -> Segment:
        walk, item_context = ObjectWalk(raw, self._rules), ItemContext(self._context, self._codecs)
        item_context.creators = {**self._creators}
        codecs = self._codecs
        if walk_unchecked(walk, self._context, 0, len(raw), item_context) != len(raw):
            raise NotInSegmentError
        # The range of tags ends with the element, and so does the segment.
        walk.added = False
        if not is_repeatable(walk):
            raise NotInSegmentError
        segment = Segment(walk, item_context, codecs, frozenset(), is_searched=True)
        self._codecs, self._creators = segment.codecs_after, segment.creators
        return segment
