"""Parser of encoded data sets (PS3.5 section 7) that calls a handler per element and records edits.

A `DatasetContext` caches, per nesting path, the header layout of each tag and VR, and whether a handler is registered
for it. The parser skips elements without a handler and calls the `ElementHandler` of the others. Handlers record edits
in byte order; `dicom_deid.dicom.rewrite` applies them.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydicom.datadict import dictionary_has_tag

from dicom_deid.dicom.tags import tag_text
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET
from dicom_deid.dicom.vr import KNOWN_VRS, LONG_FORM_VRS, is_vr
from dicom_deid.exceptions import DicomDeidError, Quarantine
from dicom_deid.reasons import Reason

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD

# Layout of an element's header: where its length is, and how wide. `SHORT` in place of a handler means: skip.
SHORT: Final = 8
LONG: Final = 12
IMPLICIT: Final = 4
_PAUSE: Final = 0
# The element may begin a segment, which its handler handles as a whole.
SEGMENT: Final = 1

MAX_DEPTH: Final = 64
"""Limit on nested sequences: the parsers, which call themselves for each one, stay below Python's recursion limit."""

# Limit on the tags of one object whose handlers are resolved: more than any real object has; takes seconds.
MAX_DISTINCT_ELEMENTS: Final = 10_000
# Clear the handler cache of a context when it exceeds this size, to bound memory.
_MAX_CACHED = 20_000


class NeedMoreDataError(DicomDeidError):
    """The given beginning of an object ends before its pixel data begins.

    Parameters
    ----------
    at_least
        How many bytes from the beginning of the object are needed to get further.
    """

    def __init__(self, at_least: int) -> None:
        self.at_least = at_least
        super().__init__(f"{at_least} bytes of the object are needed")


class TrailingBytesError(Exception):
    """The bytes after the last element are padding with zeros."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class MixedVRsError(Exception):
    """An explicit VR data set has an element or item of implicit VR, or a VR of two blanks.

    `dicom_deid.dicom.mixed_vrs` makes the VRs uniform.
    """


class ItemContext:
    """State of one data set or item: its character set and the private blocks reserved in it."""

    __slots__ = ("codecs", "context", "creators")

    def __init__(self, context: DatasetContext[Any], codecs: tuple[str, ...] = DEFAULT_CHARACTER_SET) -> None:
        self.context = context
        self.codecs = codecs
        self.creators: dict[int, Any] | None = None


class ByteOrder(NamedTuple):
    """Number formats and delimiters of one byte order."""

    big_endian: bool
    u16: struct.Struct
    u32: struct.Struct
    tag: struct.Struct
    item: bytes
    item_delimitation: bytes
    sequence_delimitation: bytes


VR_BYTES: Final = frozenset(vr.encode("ascii") for vr in KNOWN_VRS)


def _byte_order(big_endian: bool) -> ByteOrder:
    order = ">" if big_endian else "<"
    tag = struct.Struct(order + "HH")
    return ByteOrder(
        big_endian,
        struct.Struct(order + "H"),
        struct.Struct(order + "I"),
        tag,
        tag.pack(ITEM >> 16, ITEM & 0xFFFF),
        tag.pack(ITEM_DELIMITATION >> 16, ITEM_DELIMITATION & 0xFFFF),
        tag.pack(SEQUENCE_DELIMITATION >> 16, SEQUENCE_DELIMITATION & 0xFFFF),
    )


LITTLE_ENDIAN: Final = _byte_order(False)
BIG_ENDIAN: Final = _byte_order(True)


class Edit:
    """Replacement of the bytes in ``[start, end)`` of the parsed data; an insertion if they are equal.

    An edit is a `RuleEdit`, a `SearchedEdit` or one of a segment: its class decides what the residual search does.

    Parameters
    ----------
    start, end
        Positions in bytes.
    new
        The new bytes.
    """

    __slots__ = ("end", "new", "start")

    start: int
    end: int
    new: bytes
    is_searched = True
    """Whether the residual search looks at the original bytes as if there were no edit."""
    item_context: ItemContext | None = None
    """The context of the element, if the edit replaces a whole one."""


class RuleEdit(Edit):
    """Edit of an element by a rule or a setting, whose new bytes hold nothing of the original.

    The residual search looks for the original value elsewhere, and does not look at the new bytes.

    Parameters
    ----------
    item_context
        Of the element.
    rule
        Index of the (first) rule in the recipe, -1 for a setting.
    """

    __slots__ = ("item_context", "rule")
    is_searched = False
    item_context: ItemContext

    def __init__(self, start: int, end: int, new: bytes, item_context: ItemContext, rule: int = -1) -> None:
        self.start = start
        self.end = end
        self.new = new
        self.item_context = item_context
        self.rule = rule


class WrittenEdit(RuleEdit):
    """Edit by a rule whose new bytes come from a function or variable of the user, and are searched by themselves."""

    __slots__ = ()


class SearchedEdit(Edit):
    """Edit whose new bytes may hold parts of the original: the original is searched as if no rule applied to it.

    Parameters
    ----------
    item_context
        Of the element, if the edit replaces a whole element.
    """

    __slots__ = ("item_context",)

    def __init__(self, start: int, end: int, new: bytes, item_context: ItemContext | None = None) -> None:
        self.start = start
        self.end = end
        self.new = new
        self.item_context = item_context


class LengthEdit(Edit):
    """Edit of the length field at `start`: the length grows by what the edits inside the element add.

    Parameters
    ----------
    length
        The original length in bytes.
    first_edit, last_edit
        Range of the indices of the edits inside the element.
    """

    __slots__ = ("first_edit", "last_edit", "length")

    def __init__(self, start: int, length: int, first_edit: int, last_edit: int) -> None:
        self.start = start
        self.end = start + 4
        self.length = length
        self.first_edit = first_edit
        self.last_edit = last_edit


_PLACEHOLDER: Final[Edit] = SearchedEdit(0, 0, b"")


class Walk:
    """State while one data set is parsed.

    Parameters
    ----------
    data
        The encoded data set, or a file that holds it.
    partial
        Whether `data` is only the beginning of the object.
    """

    __slots__ = ("data", "edits", "partial", "recording", "resolved")

    def __init__(self, data: bytes, partial: bool = False) -> None:
        self.data = data
        self.partial = partial
        # Number of handlers that were resolved for this object, and not found in the cache.
        self.resolved = 0
        self.edits: list[Edit] = []
        self.recording: Recording | None = None

    def truncation_error(self, context: DatasetContext[Any], pos: int, needed: int) -> Exception:
        """Return the error for an element at `pos` that reaches to byte `needed`, beyond the end of the data."""
        if self.partial:
            return NeedMoreDataError(needed)
        return Quarantine(Reason.TRUNCATED, context.tag_path(self.data, pos), pos)


class Recording:
    """Where the elements of an object lie, recorded while it is parsed.

    Attributes
    ----------
    data_sets
        Of each data set and item, outer ones first: its context, and its elements with their start and end in bytes,
        the codecs before them, and their handler.
    """

    __slots__ = ("data_sets", "left")

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.data_sets: list[tuple[DatasetContext[Any], list[RecordedElement]]] = []


class RecordedElement(NamedTuple):
    """One element of a `Recording`."""

    start: int
    end: int
    codecs: tuple[str, ...]
    handler: Any


W = TypeVar("W", bound=Walk)


class ElementHandler(Generic[W]):
    """Handles the elements of one tag and VR at one nesting path.

    Parameters
    ----------
    form
        Layout of the element's header: `SHORT`, `LONG` or `IMPLICIT`.
    """

    __slots__ = ("form",)

    def __init__(self, form: int) -> None:
        self.form = form

    def handle(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Handle the element at `pos`, whose value is in ``[start, end)``."""
        raise NotImplementedError

    def handle_segment(self, walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext) -> int:
        """Handle the elements from `pos` on that are a segment, and return where it ends; for the form `SEGMENT`."""
        raise NotImplementedError

    def handle_undefined(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Handle the element of undefined length at `pos`, whose value begins at `start`, and return where it ends.

        Only sequences and encapsulated pixel data may have an undefined length (PS3.5 section 7.1.3); by default any
        other element is refused.
        """
        raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)

    def handle_overrun(self, walk: W, context: DatasetContext[W], pos: int, start: int, stop: int, end: int) -> int:
        """Handle an element that would reach to `stop`, beyond the `end` of the data set or item that holds it."""
        raise _overrun_error(walk, context, pos, stop, end)


class SkipHandler(ElementHandler[W]):
    """Skips an element that no handler is registered for and whose header is not `SHORT`."""

    __slots__ = ()

    def handle(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Leave the element unchanged."""

    def handle_undefined(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Skip the fragments."""
        return skip_fragments(walk, context, start)


class _PauseHandler(ElementHandler[Any]):
    """Ends the parsing before the end of the data."""

    __slots__ = ()


STOP: Final = _PauseHandler(_PAUSE)
"""Returned by `DatasetContext.resolve_handler` to stop before an element of the root data set."""
_DELIMITATION: Final = _PauseHandler(_PAUSE)
_SKIP: Final[dict[int, ElementHandler[Any]]] = {form: SkipHandler(form) for form in (LONG, IMPLICIT)}


class DatasetContext(Generic[W]):
    """Handlers for one nesting path: the root data set, or the items of one sequence.

    Parameters
    ----------
    path
        The tags of the sequences around it.
    implicit
        Whether elements here have implicit VRs.
    order
        The byte order.
    """

    __slots__ = ("handlers", "implicit", "order", "path")

    def __init__(self, path: tuple[int, ...], implicit: bool, order: ByteOrder) -> None:
        self.path = path
        self.implicit = implicit
        self.order = order
        # Cache by the first bytes of an element: tag and VR, or the tag alone where VRs are implicit.
        self.handlers: dict[bytes, Any] = {}

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[W] | None:
        """Return the handler for this tag and VR (None for implicit VR), STOP, or None to skip the element."""
        raise NotImplementedError

    def tag_path(self, data: bytes, pos: int) -> str:
        """Return the tag path of the element at `pos`, with ``(????,????)`` for tags that the dictionary does not hold.

        Bytes in the position of a tag may be text if a length is wrong, so an unknown tag is never shown.
        """
        path = "".join(map(_shown_tag, self.path))
        if pos + 4 > len(data):
            return path
        group, element = self.order.tag.unpack_from(data, pos)
        return path + _shown_tag(group << 16 | element)

    def cache_handler(self, walk: Walk, pos: int, end: int) -> None:
        """Resolve the handler of the element at `pos` and cache it."""
        data = walk.data
        walk.resolved += 1
        if walk.resolved > MAX_DISTINCT_ELEMENTS:
            raise Quarantine(Reason.HEADER_TOO_LARGE, f"more than {MAX_DISTINCT_ELEMENTS} distinct tags", pos)
        if end - pos < 8:
            raise self._invalid_element_error(walk, pos, end)
        group, number = self.order.tag.unpack_from(data, pos)
        tag = group << 16 | number
        found: Any
        if tag == ITEM_DELIMITATION and self.path:
            found = _DELIMITATION
        elif group == 0xFFFE or group == 0:
            raise self._invalid_element_error(walk, pos, end)
        else:
            form, vr = self._layout(data, pos)
            found = self.resolve_handler(tag, vr, form) or self._skip_handler(form)
        if len(self.handlers) >= _MAX_CACHED:
            self.handlers.clear()
        self.handlers[data[pos : pos + (4 if self.implicit else 6)]] = found

    def _skip_handler(self, form: int) -> Any:
        # In an implicit VR encoding all headers have the same layout, so that `SHORT` can mean: skip.
        return SHORT if form == SHORT or self.implicit else _SKIP[form]

    def _layout(self, data: bytes, pos: int) -> tuple[int, str | None]:
        if self.implicit:
            return IMPLICIT, None
        raw = data[pos + 4 : pos + 6]
        if raw not in VR_BYTES:
            if is_vr(raw) or b"AA" <= raw <= b"ZZ":
                # Readers disagree about headers where one of the two bytes is a letter.
                raise Quarantine(Reason.MALFORMED, self.tag_path(data, pos), pos)
            raise MixedVRsError
        vr = raw.decode("ascii")
        return (LONG if vr in LONG_FORM_VRS else SHORT), vr

    def _invalid_element_error(self, walk: Walk, pos: int, end: int) -> Exception:
        if not self.path and end == len(walk.data) and not walk.partial and _zeros(walk.data, pos):
            return TrailingBytesError(pos)
        if end - pos < 8 and end == len(walk.data):
            return walk.truncation_error(self, pos, pos + 8)
        return Quarantine(Reason.MALFORMED, self.tag_path(walk.data, pos), pos)


def _shown_tag(tag: int) -> str:
    return tag_text(tag) if dictionary_has_tag(tag) else "(????,????)"


def _zeros(data: bytes, pos: int) -> bool:
    return data.count(0, pos) == len(data) - pos


def walk_elements(
    walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext, delimited: bool = False
) -> int:
    """Parse the elements in ``[pos, end)`` and return where they end, or where a handler is `STOP`.

    Parameters
    ----------
    delimited
        Whether an item delimitation ends them before `end`.

    Raises
    ------
    Quarantine
        TRUNCATED or MALFORMED, with tag path and offset.
    NeedMoreDataError
        If only the beginning of the object was given.
    TrailingBytesError
        At the end of the root data set.
    """
    try:
        reached = walk_unchecked(walk, context, pos, end, item_context)
    except struct.error:
        # A header that is cut off; all other offsets are checked.
        size = len(walk.data)
        raise walk.truncation_error(context, size, size + 8) from None
    if reached < 0:
        if delimited or -reached == end:
            return -reached
        raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, -reached - 8), -reached - 8)
    if reached > end and end < len(walk.data):
        raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
    if reached > end or delimited:
        raise walk.truncation_error(context, end, max(reached, end + 8))
    return reached


def walk_unchecked(walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext) -> int:
    """Parse the elements in ``[pos, end)`` and return where the last one ends, without checking it against `end`.

    The hot loop: an element without a handler costs one slice, one look-up and one number. A negative position is the
    one after an item delimitation.
    """
    if walk.recording is not None:
        return _walk_recorded(walk, context, pos, end, item_context, walk.recording)
    if context.implicit:
        return _walk_implicit(walk, context, pos, end, item_context)
    data = walk.data
    cached = context.handlers.get
    u16 = context.order.u16.unpack_from
    short = SHORT
    while pos < end:
        handler = cached(data[pos : pos + 6])
        if handler is short:
            pos += 8 + u16(data, pos + 6)[0]
        elif handler is None:
            context.cache_handler(walk, pos, end)
        elif handler.form is short and (after := pos + 8 + u16(data, pos + 6)[0]) <= end:
            try:
                handler.handle(walk, context, pos, pos + 8, after, item_context)
            except Quarantine as problem:
                raise _with_location(problem, walk, context, pos) from None
            pos = after
        elif handler.form:
            pos = _handle(walk, context, pos, end, item_context, handler)
        else:
            return -(pos + 8) if handler is _DELIMITATION else pos
    return pos


def _walk_implicit(walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext) -> int:
    data = walk.data
    cached = context.handlers.get
    u32 = context.order.u32.unpack_from
    short = SHORT
    while pos < end:
        handler = cached(data[pos : pos + 4])
        if handler is short:
            length = u32(data, pos + 4)[0]
            pos = skip_fragments(walk, context, pos + 8) if length == UNDEFINED else pos + 8 + length
        elif handler is None:
            context.cache_handler(walk, pos, end)
        elif handler.form:
            pos = _handle(walk, context, pos, end, item_context, handler)
        else:
            return -(pos + 8) if handler is _DELIMITATION else pos
    return pos


def _walk_recorded(
    walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext, recording: Recording
) -> int:
    """Do the same, and record the elements."""
    data, head = walk.data, 4 if context.implicit else 6
    elements: list[RecordedElement] = []
    recording.data_sets.append((context, elements))
    while pos < end:
        handler = context.handlers.get(data[pos : pos + head])
        if handler is None:
            context.cache_handler(walk, pos, end)
            continue
        if handler is not SHORT and not handler.form:
            return -(pos + 8) if handler is _DELIMITATION else pos
        begin, codecs = pos, item_context.codecs
        pos = walk_element(walk, context, pos, end, item_context, handler)
        if recording.left > 0:
            recording.left -= 1
            elements.append(RecordedElement(begin, pos, codecs, handler))
    return pos


def walk_element(
    walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext, handler: Any
) -> int:
    """Handle or skip the element at `pos`, given its handler, and return where it ends."""
    if handler is not SHORT:
        return _handle(walk, context, pos, end, item_context, handler)
    if not context.implicit:
        return pos + 8 + int(context.order.u16.unpack_from(walk.data, pos + 6)[0])
    length: int = context.order.u32.unpack_from(walk.data, pos + 4)[0]
    return skip_fragments(walk, context, pos + 8) if length == UNDEFINED else pos + 8 + length


def _with_location(problem: Quarantine, walk: Walk, context: DatasetContext[Any], pos: int) -> Quarantine:
    if problem.where:
        return problem
    return Quarantine(problem.reason, context.tag_path(walk.data, pos), pos)


def _handle(
    walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext, handler: ElementHandler[W]
) -> int:
    form = handler.form
    if form == SHORT:
        start = pos + 8
        length = context.order.u16.unpack_from(walk.data, pos + 6)[0]
    elif form == LONG:
        start = pos + 12
        length = context.order.u32.unpack_from(walk.data, pos + 8)[0]
    elif form == SEGMENT:
        return handler.handle_segment(walk, context, pos, end, item_context)
    else:
        start = pos + 8
        length = context.order.u32.unpack_from(walk.data, pos + 4)[0]
    try:
        if length == UNDEFINED:
            return handler.handle_undefined(walk, context, pos, start, item_context)
        stop: int = start + length
        if stop > end:
            return handler.handle_overrun(walk, context, pos, start, stop, end)
        handler.handle(walk, context, pos, start, stop, item_context)
        return stop
    except Quarantine as problem:
        raise _with_location(problem, walk, context, pos) from None


def walk_items(
    walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext, delimited: bool = False
) -> int:
    """Parse the items of a sequence in ``[pos, end)`` and return where it ends.

    Parameters
    ----------
    context
        Of the items.
    item_context
        Of the sequence; each item gets its own.
    delimited
        Whether a sequence delimitation ends the items before `end`.
    """
    data, edits = walk.data, walk.edits
    order = context.order
    item, u32 = order.item, order.u32.unpack_from
    while pos < end:
        if data[pos : pos + 4] != item:
            return _end_of_items(walk, context, pos, end)
        if pos + 8 > end:
            raise walk.truncation_error(context, pos, pos + 8)
        length = u32(data, pos + 4)[0]
        start = pos + 8
        if (data[start + 4 : start + 6] in VR_BYTES) is context.implicit and length:
            check_item(context, data, start, end if length == UNDEFINED else start + length)
        if length == UNDEFINED:
            pos = walk_elements(walk, context, start, end, ItemContext(context, item_context.codecs), True)
            continue
        pos = start + length
        if pos > end:
            raise _overrun_error(walk, context, start - 8, pos, end)
        if length:
            mark = reserve_length_edit(edits)
            reached = walk_unchecked(walk, context, start, pos, ItemContext(context, item_context.codecs))
            if reached != pos and -reached != pos:
                raise _overrun_error(walk, context, start, abs(reached), pos)
            close_length_edit(edits, mark, start - 4, length)
    if delimited:
        raise walk.truncation_error(context, pos, pos + 8)
    return pos


def walk_item(walk: W, context: DatasetContext[W], pos: int, end: int, item_context: ItemContext) -> int:
    """Parse the one item at `pos`, of a sequence in ``[pos, end)``, and return where it ends."""
    data = walk.data
    if data[pos : pos + 4] != context.order.item:
        raise Quarantine(Reason.MALFORMED, context.tag_path(data, pos), pos)
    start = pos + 8
    if start > end:
        raise walk.truncation_error(context, pos, start)
    length = context.order.u32.unpack_from(data, pos + 4)[0]
    if length == UNDEFINED:
        check_item(context, data, start, end)
        return walk_elements(walk, context, start, end, ItemContext(context, item_context.codecs), True)
    if start + length > end:
        raise _overrun_error(walk, context, pos, start + length, end)
    return walk_items(walk, context, pos, start + length, item_context)


def check_item(context: DatasetContext[Any], data: bytes, start: int, end: int) -> None:
    """Check that the first element of the item at `start` has an explicit or implicit VR as its sequence says.

    Raises
    ------
    MixedVRsError
        If it has not; bytes that look like a VR are part of a length if that length fits.
    """
    raw = data[start + 4 : start + 6]
    if context.implicit:
        is_other = raw in VR_BYTES and start + 8 + context.order.u32.unpack_from(data, start + 4)[0] > end
    else:
        is_other = len(raw) == 2 and not is_vr(raw)
    if is_other and data[start : start + 4] != context.order.item_delimitation:
        raise MixedVRsError


def _end_of_items(walk: Walk, context: DatasetContext[Any], pos: int, end: int) -> int:
    if pos + 8 > end:
        raise _overrun_error(walk, context, pos, pos + 8, end)
    if walk.data[pos : pos + 4] == context.order.sequence_delimitation:
        return pos + 8
    raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)


def _overrun_error(walk: Walk, context: DatasetContext[Any], pos: int, stop: int, end: int) -> Exception:
    if end == len(walk.data):
        return walk.truncation_error(context, pos, stop)
    return Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)


def reserve_length_edit(edits: list[Edit]) -> int:
    """Reserve the position among the edits of a length field's edit, before the edits inside; return it."""
    edits.append(_PLACEHOLDER)
    return len(edits) - 1


def close_length_edit(edits: list[Edit], mark: int, pos: int, length: int) -> None:
    """Record the edit of the length field at `pos` in the reserved position, or drop it if nothing inside changed."""
    if len(edits) == mark + 1:
        edits.pop()
    else:
        edits[mark] = LengthEdit(pos, length, mark + 1, len(edits))


def skip_fragments(walk: Walk, context: DatasetContext[Any], pos: int) -> int:
    """Skip the fragments of encapsulated pixel data (PS3.5 section A.4) and return where they end."""
    data = walk.data
    order = context.order
    while True:
        tag = data[pos : pos + 4]
        if tag == order.item:
            try:
                length: int = order.u32.unpack_from(data, pos + 4)[0]
            except struct.error:
                raise walk.truncation_error(context, pos, pos + 8) from None
            if pos + 8 + length > len(data):
                raise walk.truncation_error(context, pos, pos + 8 + length)
            pos += 8 + length
        elif tag == order.sequence_delimitation and pos + 8 <= len(data):
            return pos + 8
        elif pos + 8 > len(data):
            raise walk.truncation_error(context, pos, pos + 8)
        else:
            raise Quarantine(Reason.MALFORMED, context.tag_path(data, pos), pos)


class SequenceHandler(ElementHandler[W]):
    """Parses the items of a sequence.

    Parameters
    ----------
    form
        Layout of the element's header.
    items
        The context of its items.
    """

    __slots__ = ("items",)

    def __init__(self, form: int, items: DatasetContext[W]) -> None:
        super().__init__(form)
        self.items = items

    def handle(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Parse the items of a sequence of defined length."""
        if start == end:
            return
        edits = walk.edits
        mark = reserve_length_edit(edits)
        reached = walk_items(walk, self.items, start, end, item_context)
        if reached != end:
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        close_length_edit(edits, mark, start - 4, end - start)

    def handle_undefined(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Parse the items of a sequence of undefined length."""
        return walk_items(walk, self.items, start, len(walk.data), item_context, True)


class UnknownHandler(SequenceHandler[W]):
    """Element of VR UN or implicit VR: opaque if its length is defined, else a sequence (PS3.5 section 6.2.2)."""

    __slots__ = ()

    def handle(
        self, walk: W, context: DatasetContext[W], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Leave an opaque value unchanged."""


class SkippingContext(DatasetContext[Walk]):
    """Context without handlers, to find the end of a sequence of undefined length."""

    __slots__ = ("item_contexts",)

    def __init__(self, path: tuple[int, ...], implicit: bool, order: ByteOrder) -> None:
        super().__init__(path, implicit, order)
        self.item_contexts: dict[bool, SkippingContext] = {}

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[Walk] | None:
        """Skip everything, into sequences and unknown elements as far as their delimitations."""
        if vr == "SQ":
            return SequenceHandler(form, self._items(self.implicit, self.order))
        if vr is None:
            return UnknownHandler(form, self._items(True, self.order))
        return UnknownHandler(form, self._items(True, LITTLE_ENDIAN)) if vr == "UN" else None

    def _items(self, implicit: bool, order: ByteOrder) -> SkippingContext:
        if implicit not in self.item_contexts:
            if len(self.path) > MAX_DEPTH:
                raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(self.path)} sequences deep")
            self.item_contexts[implicit] = SkippingContext((*self.path, 0), implicit, order)
        return self.item_contexts[implicit]


_SKIPPING: Final = {
    (implicit, order.big_endian): SkippingContext((0,), implicit, order)
    for implicit in (False, True)
    for order in (LITTLE_ENDIAN, BIG_ENDIAN)
}


def skip_item(walk: Walk, context: DatasetContext[Any], pos: int, end: int) -> int:
    """Return where the item at `pos` ends, of a sequence in ``[pos, end)``."""
    skipping = _SKIPPING[context.implicit, context.order.big_endian]
    return walk_item(Walk(walk.data, walk.partial), skipping, pos, end, ItemContext(skipping))


def skipping_handler(form: int, vr: str | None, implicit: bool, order: ByteOrder) -> UnknownHandler[Any] | None:
    """Return a handler that skips an element that may be a sequence, without parsing items of a defined length."""
    if vr not in ("SQ", "UN", None):
        return None
    if vr == "UN":
        return UnknownHandler(form, _SKIPPING[True, False])
    return UnknownHandler(form, _SKIPPING[implicit, order.big_endian])


def skip_items(walk: Walk, implicit: bool, order: ByteOrder, start: int) -> int:
    """Return where the sequence of undefined length ends whose items begin at `start`."""
    context = _SKIPPING[implicit, order.big_endian]
    return walk_items(Walk(walk.data, walk.partial), context, start, len(walk.data), ItemContext(context), True)
