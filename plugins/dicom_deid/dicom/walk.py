"""One walk over the encoded elements of a data set (PS3.5 section 7), from the first byte to the last.

A `DatasetContext` caches, per nesting path, the header layout of each tag and VR, and whether a handler is registered
for it. The walk skips elements without a handler and calls the `ElementHandler` of the others. Handlers record edits in
byte order; `dicom_deid.dicom.rewrite` applies them.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from pydicom.datadict import dictionary_has_tag

from dicom_deid.dicom.dictionary import tag_text
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET, KNOWN_VRS, LONG_FORM_VRS
from dicom_deid.exceptions import DicomDeidError, Quarantine
from dicom_deid.reasons import Reason

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD

# How the header of an element is laid out, which says where its length is and how wide. A level that knows an element
# by nothing but `SHORT` steps over it.
SHORT: Final = 8
LONG: Final = 12
IMPLICIT: Final = 4
_PAUSE: Final = 0

# Sequences in a sequence that is stepped over: with those around it within Python's limit on recursion.
_MAX_SKIPPED_DEPTH: Final = 64

# A level that met more distinct tags than any real object has forgets them, so that memory stays bounded.
_MAX_KNOWN = 20_000


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
    """What follows the last element is no element: padding of zeros, or less than a header."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class ItemContext:
    """What holds inside one data set or item: its level, its character set and the private blocks reserved in it."""

    __slots__ = ("codecs", "context", "creators")

    def __init__(self, context: DatasetContext, codecs: tuple[str, ...] = DEFAULT_CHARACTER_SET) -> None:
        self.context = context
        self.codecs = codecs
        self.creators: dict[int, Any] | None = None


class ByteOrder(NamedTuple):
    """The numbers and delimiters of one byte order."""

    big_endian: bool
    u16: struct.Struct
    u32: struct.Struct
    tag: struct.Struct
    item: bytes
    item_delimitation: bytes
    sequence_delimitation: bytes


_VRS: Final = frozenset(vr.encode("ascii") for vr in KNOWN_VRS)


def is_vr(raw: bytes) -> bool:
    """Whether two bytes are capital letters, as a VR is."""
    return len(raw) == 2 and 0x40 < raw[0] < 0x5B and 0x40 < raw[1] < 0x5B


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


class Length(NamedTuple):
    """The edit of a length field: the length grows by what the edits inside grow by."""

    length: int
    first_edit: int
    last_edit: int


# (first byte, byte after the last, what stands there instead, the scope of the element; none for a length)
Edit = tuple[int, int, Any, Any]


class Walk:
    """The state of one walk.

    Parameters
    ----------
    data
        The encoded data set, or a file that holds it.
    partial
        Whether `data` is only the beginning of the object.
    """

    __slots__ = ("data", "edits", "partial")

    def __init__(self, data: bytes, partial: bool = False) -> None:
        self.data = data
        self.partial = partial
        self.edits: list[Edit] = []

    def cut_short(self, context: DatasetContext, pos: int, needed: int) -> Exception:
        """Say that an element at `pos` reaches to byte `needed`, where there is none."""
        if self.partial:
            return NeedMoreDataError(needed)
        return Quarantine(Reason.TRUNCATED, context.where(self.data, pos), pos)


class ElementHandler:
    """An element that somebody visits.

    Parameters
    ----------
    form
        How the element's header is laid out: `SHORT`, `LONG` or `IMPLICIT`.
    """

    __slots__ = ("form",)

    def __init__(self, form: int) -> None:
        self.form = form

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """See the element at `pos`, whose value lies in ``[start, end)``."""
        raise NotImplementedError

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """See the element of undefined length at `pos`, whose value begins at `start`, and return where it ends.

        Only sequences and encapsulated pixel data may be so (PS3.5 section 7.1.3); any other element is refused here.
        """
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)

    def overrun(self, walk: Any, context: DatasetContext, pos: int, start: int, stop: int, end: int) -> int:
        """Say what is wrong with an element that would reach to `stop`, beyond the `end` of what holds it."""
        raise _beyond(walk, context, pos, stop, end)


class _LeaveHandler(ElementHandler):
    """An element with a long header that nobody wants to see."""

    __slots__ = ()

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Leave it as it is."""

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Step over its fragments."""
        return skip_fragments(walk, context, start)


class _PauseHandler(ElementHandler):
    """What ends a walk before the end of its bytes."""

    __slots__ = ()

    def reached(self, pos: int) -> int:
        """Return the position from which another walk goes on."""
        return pos


class _DelimitationHandler(_PauseHandler):
    """The item delimitation."""

    __slots__ = ()

    def reached(self, pos: int) -> int:
        """Return the position behind it, as a negative number."""
        return -(pos + 8)


STOP: Final = _PauseHandler(_PAUSE)
"""Decided of an element before which the walk over the outermost data set pauses."""
_DELIMITATION: Final = _DelimitationHandler(_PAUSE)
_LEAVE: Final = {form: _LeaveHandler(form) for form in (LONG, IMPLICIT)}


class DatasetContext:
    """One place in the nesting: the data set itself, or the items of one sequence.

    Parameters
    ----------
    path
        The tags of the sequences around it.
    implicit
        Whether elements here have implicit VRs.
    order
        The byte order.
    """

    __slots__ = ("implicit", "known", "order", "path", "twin")

    def __init__(self, path: tuple[int, ...], implicit: bool, order: ByteOrder) -> None:
        self.path = path
        self.implicit = implicit
        self.order = order
        self.known: dict[bytes, Any] = {}
        self.twin: Any = None

    def decide(self, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        """Return who visits elements of that tag and VR (`None` in an implicit VR encoding), `STOP`, or `None`."""
        raise NotImplementedError

    def where(self, data: bytes, pos: int) -> str:
        """Write the tag path of the element at `pos`."""
        path = "".join(tag_text(tag) for tag in self.path)
        if pos + 4 > len(data):
            return path
        group, element = self.order.tag.unpack_from(data, pos)
        tag = group << 16 | element
        if not dictionary_has_tag(tag) and data[pos : pos + 2].isalnum():
            # Where a length lies, what stands in the place of a tag may be text.
            return path + "(????,????)"
        return path + tag_text(tag)

    def as_implicit(self) -> DatasetContext:
        """Return the same level for an item whose elements have implicit VRs."""
        raise NotImplementedError

    def learn(self, walk: Walk, pos: int, end: int) -> None:
        """Make the element at `pos` known."""
        data = walk.data
        if end - pos < 8:
            raise self._no_element(walk, pos, end)
        group, number = self.order.tag.unpack_from(data, pos)
        tag = group << 16 | number
        if tag == ITEM_DELIMITATION and self.path:
            found: Any = _DELIMITATION
        elif group == 0xFFFE or group == 0:
            raise self._no_element(walk, pos, end)
        else:
            form, vr = self._layout(data, pos)
            if form is None:
                raise Quarantine(Reason.MALFORMED, self.where(data, pos), pos)
            found = self.decide(tag, vr, form) or self._leave(form)
        if len(self.known) >= _MAX_KNOWN:
            self.known.clear()
        self.known[data[pos : pos + (4 if self.implicit else 6)]] = found

    def _leave(self, form: int) -> Any:
        # Where all headers are alike, the shortest word says that nobody wants to see the element.
        return SHORT if form == SHORT or self.implicit else _LEAVE[form]

    def _layout(self, data: bytes, pos: int) -> tuple[int | None, str | None]:
        if self.implicit:
            return IMPLICIT, None
        raw = data[pos + 4 : pos + 6]
        if not is_vr(raw):
            # Some writers fall back to implicit VRs; readers recognise it by the missing letters. They do not agree
            # where one of the bytes is a letter, and in items they decide by the first element alone.
            return (None if self.path or b"AA" <= raw <= b"ZZ" else IMPLICIT), None
        vr = raw.decode("ascii")
        if vr not in KNOWN_VRS:
            return None, vr
        return (LONG if vr in LONG_FORM_VRS else SHORT), vr

    def _no_element(self, walk: Walk, pos: int, end: int) -> Exception:
        if not self.path and end == len(walk.data) and not walk.partial and _zeros(walk.data, pos):
            return TrailingBytesError(pos)
        if end - pos < 8 and end == len(walk.data):
            return walk.cut_short(self, pos, pos + 8)
        return Quarantine(Reason.MALFORMED, self.where(walk.data, pos), pos)


def _zeros(data: bytes, pos: int) -> bool:
    return data.count(0, pos) == len(data) - pos


def walk_elements(
    walk: Any, context: DatasetContext, pos: int, end: int, item_context: ItemContext, delimited: bool = False
) -> int:
    """Walk over the elements in ``[pos, end)`` and return where they end, or where the level says `STOP`.

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
        At the end of the outermost data set.
    """
    try:
        reached = walk_level(walk, context, pos, end, item_context)
    except struct.error:
        # A header that is cut off; every offset in range is checked otherwise.
        size = len(walk.data)
        raise walk.cut_short(context, size, size + 8) from None
    if reached < 0:
        if delimited or -reached == end:
            return -reached
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, -reached - 8), -reached - 8)
    if reached > end and end < len(walk.data):
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
    if reached > end or delimited:
        raise walk.cut_short(context, end, max(reached, end + 8))
    return reached


def walk_level(walk: Any, context: DatasetContext, pos: int, end: int, item_context: ItemContext) -> int:
    """Walk over the elements in ``[pos, end)`` and return where the last one ends, unchecked.

    The hot loop: an element that nobody visits costs one slice, one look-up and one number. A negative position is
    that behind an item delimitation.
    """
    if context.implicit:
        return _walk_implicit(walk, context, pos, end, item_context)
    data = walk.data
    known = context.known.get
    u16 = context.order.u16.unpack_from
    short = SHORT
    while pos < end:
        handler = known(data[pos : pos + 6])
        if handler is short:
            pos += 8 + u16(data, pos + 6)[0]
        elif handler is None:
            context.learn(walk, pos, end)
        elif handler.form is short and (after := pos + 8 + u16(data, pos + 6)[0]) <= end:
            try:
                handler.visit(walk, context, pos, pos + 8, after, item_context)
            except Quarantine as problem:
                raise _placed(problem, walk, context, pos) from None
            pos = after
        elif handler.form:
            pos = _visit(walk, context, pos, end, item_context, handler)
        else:
            paused: int = handler.reached(pos)
            return paused
    return pos


def _walk_implicit(walk: Any, context: DatasetContext, pos: int, end: int, item_context: ItemContext) -> int:
    data = walk.data
    known = context.known.get
    u32 = context.order.u32.unpack_from
    short = SHORT
    while pos < end:
        handler = known(data[pos : pos + 4])
        if handler is short:
            length = u32(data, pos + 4)[0]
            pos = skip_fragments(walk, context, pos + 8) if length == UNDEFINED else pos + 8 + length
        elif handler is None:
            context.learn(walk, pos, end)
        elif handler.form:
            pos = _visit(walk, context, pos, end, item_context, handler)
        else:
            paused: int = handler.reached(pos)
            return paused
    return pos


def _placed(problem: Quarantine, walk: Any, context: DatasetContext, pos: int) -> Quarantine:
    if problem.where:
        return problem
    return Quarantine(problem.reason, context.where(walk.data, pos), pos)


def _visit(
    walk: Any, context: DatasetContext, pos: int, end: int, item_context: ItemContext, handler: ElementHandler
) -> int:
    form = handler.form
    if form == SHORT:
        start = pos + 8
        length = context.order.u16.unpack_from(walk.data, pos + 6)[0]
    elif form == LONG:
        start = pos + 12
        length = context.order.u32.unpack_from(walk.data, pos + 8)[0]
    else:
        start = pos + 8
        length = context.order.u32.unpack_from(walk.data, pos + 4)[0]
    try:
        if length == UNDEFINED:
            return handler.visit_undefined(walk, context, pos, start, item_context)
        stop: int = start + length
        if stop > end:
            return handler.overrun(walk, context, pos, start, stop, end)
        handler.visit(walk, context, pos, start, stop, item_context)
        return stop
    except Quarantine as problem:
        raise _placed(problem, walk, context, pos) from None


def walk_items(
    walk: Any, context: DatasetContext, pos: int, end: int, item_context: ItemContext, delimited: bool = False
) -> int:
    """Walk over the items of a sequence in ``[pos, end)`` and return where it ends.

    Parameters
    ----------
    level
        The level of the items.
    scope
        The scope of the sequence; each item has its own inside.
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
            raise walk.cut_short(context, pos, pos + 8)
        length = u32(data, pos + 4)[0]
        start = pos + 8
        # An item of an explicit VR data set may have implicit VRs: its first element tells (PS3.5 section 6.2.2).
        here = (
            context
            if context.implicit or data[start + 4 : start + 6] in _VRS or not length
            else item_level(context, data, start)
        )
        if length == UNDEFINED:
            pos = walk_elements(walk, here, start, end, ItemContext(here, item_context.codecs), True)
            continue
        pos = start + length
        if pos > end:
            raise _beyond(walk, context, start - 8, pos, end)
        if length:
            mark = len(edits)
            edits.append(None)
            reached = walk_level(walk, here, start, pos, ItemContext(here, item_context.codecs))
            if reached != pos and -reached != pos:
                raise _beyond(walk, context, start, abs(reached), pos)
            close_length(edits, mark, start - 4, length)
    if delimited:
        raise walk.cut_short(context, pos, pos + 8)
    return pos


def walk_item(walk: Any, context: DatasetContext, pos: int, end: int, item_context: ItemContext) -> int:
    """Walk over the one item at `pos`, of a sequence in ``[pos, end)``, and return where it ends."""
    data = walk.data
    if data[pos : pos + 4] != context.order.item:
        raise Quarantine(Reason.MALFORMED, context.where(data, pos), pos)
    start = pos + 8
    if start > end:
        raise walk.cut_short(context, pos, start)
    length = context.order.u32.unpack_from(data, pos + 4)[0]
    if length == UNDEFINED:
        here = item_level(context, data, start)
        return walk_elements(walk, here, start, end, ItemContext(here, item_context.codecs), True)
    if start + length > end:
        raise _beyond(walk, context, pos, start + length, end)
    return walk_items(walk, context, pos, start + length, item_context)


def item_level(context: DatasetContext, data: bytes, start: int) -> DatasetContext:
    """Return the level of the item whose elements begin at `start`: the first tells whether its VRs are implicit."""
    if context.implicit:
        return context
    raw = data[start + 4 : start + 6]
    is_delimitation = data[start : start + 4] == context.order.item_delimitation
    return context if is_vr(raw) or len(raw) < 2 or is_delimitation else context.as_implicit()


def _end_of_items(walk: Any, context: DatasetContext, pos: int, end: int) -> int:
    if pos + 8 > end:
        raise _beyond(walk, context, pos, pos + 8, end)
    if walk.data[pos : pos + 4] == context.order.sequence_delimitation:
        return pos + 8
    raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)


def _beyond(walk: Any, context: DatasetContext, pos: int, stop: int, end: int) -> Exception:
    if end == len(walk.data):
        cut: Exception = walk.cut_short(context, pos, stop)
        return cut
    return Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)


def close_length(edits: list[Any], mark: int, pos: int, length: int) -> None:
    """End the span of a length field at `pos` whose place among the edits was held at `mark`."""
    if len(edits) == mark + 1:
        edits.pop()
    else:
        edits[mark] = (pos, pos + 4, Length(length, mark + 1, len(edits)), None)


def skip_fragments(walk: Any, context: DatasetContext, pos: int) -> int:
    """Step over the fragments of encapsulated pixel data (PS3.5 section A.4) and return where they end."""
    data = walk.data
    order = context.order
    while True:
        tag = data[pos : pos + 4]
        if tag == order.item:
            try:
                length: int = order.u32.unpack_from(data, pos + 4)[0]
            except struct.error:
                raise walk.cut_short(context, pos, pos + 8) from None
            if pos + 8 + length > len(data):
                raise walk.cut_short(context, pos, pos + 8 + length)
            pos += 8 + length
        elif tag == order.sequence_delimitation and pos + 8 <= len(data):
            return pos + 8
        elif pos + 8 > len(data):
            raise walk.cut_short(context, pos, pos + 8)
        else:
            raise Quarantine(Reason.MALFORMED, context.where(data, pos), pos)


class SequenceHandler(ElementHandler):
    """A sequence whose items are walked over.

    Parameters
    ----------
    form
        How the element's header is laid out.
    items
        The level of its items.
    """

    __slots__ = ("items",)

    def __init__(self, form: int, items: DatasetContext) -> None:
        super().__init__(form)
        self.items = items

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Walk over the items of a sequence of defined length."""
        if start == end:
            return
        edits = walk.edits
        mark = len(edits)
        edits.append(None)
        reached = walk_items(walk, self.items, start, end, item_context)
        if reached != end:
            raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
        close_length(edits, mark, start - 4, end - start)

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Walk over the items of a sequence of undefined length."""
        return walk_items(walk, self.items, start, len(walk.data), item_context, True)


class UnknownHandler(SequenceHandler):
    """An element of VR UN, or of implicit VR: opaque where its length is defined, else a sequence (PS3.5 6.2.2)."""

    __slots__ = ()

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Leave an opaque value alone."""


class SkippingContext(DatasetContext):
    """A level at which nobody visits anything, to find the end of a sequence of undefined length."""

    __slots__ = ("beneath",)

    def __init__(self, path: tuple[int, ...], implicit: bool, order: ByteOrder) -> None:
        super().__init__(path, implicit, order)
        self.beneath: dict[bool, SkippingContext] = {}

    def as_implicit(self) -> DatasetContext:
        """Return the level that skips elements of implicit VR."""
        if self.twin is None:
            self.twin = SkippingContext(self.path, True, self.order)
        twin: DatasetContext = self.twin
        return twin

    def decide(self, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        """Step over everything, into sequences and unknown elements as far as their delimitations."""
        if vr == "SQ":
            return SequenceHandler(form, self._items(self.implicit))
        if vr == "UN" or vr is None:
            return UnknownHandler(form, self._items(True))
        return None

    def _items(self, implicit: bool) -> SkippingContext:
        if implicit not in self.beneath:
            if len(self.path) > _MAX_SKIPPED_DEPTH:
                raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(self.path)} sequences deep")
            self.beneath[implicit] = SkippingContext((*self.path, 0), implicit, self.order)
        return self.beneath[implicit]


_SKIPPING: Final = {
    (implicit, order.big_endian): SkippingContext((0,), implicit, order)
    for implicit in (False, True)
    for order in (LITTLE_ENDIAN, BIG_ENDIAN)
}


def skip_item(walk: Any, context: DatasetContext, pos: int, end: int) -> int:
    """Return where the item at `pos` ends, of a sequence in ``[pos, end)``."""
    skipping = _SKIPPING[context.implicit, context.order.big_endian]
    return walk_item(Walk(walk.data, walk.partial), skipping, pos, end, ItemContext(skipping))


def skipped(form: int, vr: str | None, implicit: bool, order: ByteOrder) -> ElementHandler | None:
    """Return who steps over an element that may be a sequence, without a look at items of a defined length."""
    if vr not in ("SQ", "UN", None):
        return None
    return UnknownHandler(form, _SKIPPING[implicit or vr == "UN", order.big_endian])


def skip_items(walk: Any, implicit: bool, order: ByteOrder, start: int) -> int:
    """Return where the sequence of undefined length ends whose items begin at `start`."""
    context = _SKIPPING[implicit, order.big_endian]
    return walk_items(walk, context, start, len(walk.data), ItemContext(context), True)
