"""Make the VRs of an explicit VR data set uniform, so that all readers find the same elements in it.

Some writers put elements of implicit VR, or of a VR of two blanks, into explicit VR data sets, or encode the items of a
sequence otherwise than its VR says (PS3.5 section 6.2.2). pydicom, DCMTK and GDCM disagree about where the elements of
such data sets end. Their headers are rewritten to explicit VR; values stay unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from dicom_deid.dicom.rewrite import splice
from dicom_deid.dicom.tags import is_private
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.vr import LONG_FORM_VRS, is_vr, vr_of
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    MAX_DEPTH,
    UNDEFINED,
    VR_BYTES,
    ByteOrder,
    MixedVRsError,
    SearchedEdit,
    SkippingContext,
    Walk,
    close_length_edit,
    reserve_length_edit,
    skip_fragments,
    skip_items,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

BLANK_VR = b"  "
MIXED_VRS = "VRs are explicit and implicit"
"""Detail of what cannot be read for its VRs."""

Parsed = TypeVar("Parsed")

_LONG_FORM = frozenset(vr.encode("ascii") for vr in LONG_FORM_VRS)
_ROOT = {order.big_endian: SkippingContext((), False, order) for order in (LITTLE_ENDIAN, BIG_ENDIAN)}


def parse_with_uniform_vrs(
    parse: Callable[[bytes], Parsed], data: bytes, start: int, encoding: Encoding, *, partial: bool
) -> Parsed:
    """Return what `parse` makes of an object; if that mixes VRs, of the object with uniform VRs.

    Parameters
    ----------
    parse
        Called with the object.
    data, start, partial
        See :func:`with_uniform_vrs`.
    encoding
        The encoding of the transfer syntax.

    Raises
    ------
    Quarantine
        MALFORMED or TRUNCATED if the elements cannot be separated.
    """
    try:
        return parse(data)
    except MixedVRsError:
        pass
    if encoding.implicit:
        raise Quarantine(Reason.MALFORMED, MIXED_VRS, start)
    uniform = with_uniform_vrs(data, start, BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN, partial=partial)
    try:
        return parse(uniform)
    except MixedVRsError:
        raise Quarantine(Reason.MALFORMED, MIXED_VRS, start) from None


def with_uniform_vrs(data: bytes, start: int, order: ByteOrder, *, partial: bool = False) -> bytes:
    """Return an object of an explicit VR transfer syntax in which all headers have an explicit, valid VR.

    Parameters
    ----------
    data
        The object, or its beginning.
    start
        Start of the data set, in bytes.
    order
        The byte order of the transfer syntax.
    partial
        Whether `data` is only the beginning of the object.

    Raises
    ------
    Quarantine
        MALFORMED or TRUNCATED if the elements cannot be told apart.
    """
    parser = _Parser(data, order, partial)
    try:
        parser.elements(start, len(data), depth=0)
    except (struct.error, MixedVRsError):
        raise Quarantine(Reason.MALFORMED, MIXED_VRS, start) from None
    return b"".join(splice(data, 0, len(data), parser.walk.edits, order))


class _Parser:
    """Parses the elements and records the edits of headers that differ."""

    def __init__(self, data: bytes, order: ByteOrder, partial: bool) -> None:
        self.walk = Walk(data, partial)
        self.data = data
        self.order = order
        self.partial = partial

    def elements(self, pos: int, end: int, depth: int, *, implicit: bool = False) -> int:
        """Parse elements up to `end` or an item delimitation, and return the position after them."""
        if depth > MAX_DEPTH:
            raise Quarantine(Reason.NESTING_TOO_DEEP, f"{depth} sequences deep")
        data = self.data
        while end - pos >= 8:
            if data[pos : pos + 4] == self.order.item_delimitation:
                return pos + 8
            raw = data[pos + 4 : pos + 6]
            if implicit or not (raw in VR_BYTES or raw == BLANK_VR or is_vr(raw)):
                pos = self._implicit_element(pos, end, depth)
            else:
                pos = self._explicit_element(pos, end, depth, raw)
            if pos > end and not (self.partial and end == len(data)):
                raise Quarantine(Reason.TRUNCATED if end == len(data) else Reason.MALFORMED, "", end)
        return end

    def _explicit_element(self, pos: int, end: int, depth: int, raw: bytes) -> int:
        data, order = self.data, self.order
        if raw in _LONG_FORM:
            length: int = order.u32.unpack_from(data, pos + 8)[0]
            if raw in (b"SQ", b"UN"):
                return self._sequence(pos, raw, length, end, depth)
            return (
                skip_fragments(self.walk, _ROOT[order.big_endian], pos + 12)
                if length == UNDEFINED
                else pos + 12 + length
            )
        if raw not in VR_BYTES and raw != BLANK_VR:
            raise Quarantine(Reason.MALFORMED, "", pos)
        length = order.u16.unpack_from(data, pos + 6)[0]
        if raw == BLANK_VR:
            self._write_header(pos, length)
        return pos + 8 + length

    def _implicit_element(self, pos: int, end: int, depth: int) -> int:
        length: int = self.order.u32.unpack_from(self.data, pos + 4)[0]
        if vr_of(self._tag(pos)) == "SQ":
            self.walk.edits.append(SearchedEdit(pos + 4, pos + 4, b"SQ\0\0"))
            return self._items(pos + 8, end if length == UNDEFINED else pos + 8 + length, depth, length)
        if length == UNDEFINED:
            self.walk.edits.append(SearchedEdit(pos + 4, pos + 4, b"UN\0\0"))
            return skip_items(self.walk, True, self.order, pos + 8)
        self._write_header(pos, length)
        return pos + 8 + length

    def _tag(self, pos: int) -> int:
        group, element = self.order.tag.unpack_from(self.data, pos)
        return int(group) << 16 | int(element)

    def _write_header(self, pos: int, length: int) -> None:
        vr = vr_of(self._tag(pos)).encode("ascii")
        if vr not in _LONG_FORM and length < 0x10000:
            head = vr + self.order.u16.pack(length)
        else:
            head = (vr if vr in _LONG_FORM and vr != b"SQ" else b"UN") + b"\0\0" + self.order.u32.pack(length)
        self.walk.edits.append(SearchedEdit(pos + 4, pos + 8, head))

    def _sequence(self, pos: int, vr: bytes, length: int, end: int, depth: int) -> int:
        """Parse an element of VR SQ or UN; UN with items of explicit VR becomes SQ."""
        start = pos + 12
        stop = end if length == UNDEFINED else start + length
        if vr == b"UN":
            tag = self._tag(pos)
            may_hold_items = length == UNDEFINED or is_private(tag) or vr_of(tag) == "SQ"
            if not may_hold_items or not self._begins_explicit(start):
                return stop if length != UNDEFINED else skip_items(self.walk, True, LITTLE_ENDIAN, start)
            self.walk.edits.append(SearchedEdit(pos + 4, pos + 6, b"SQ"))
        return self._items(start, stop, depth, length)

    def _begins_explicit(self, start: int) -> bool:
        """Return whether an explicit element follows the first item tag, in a value that begins with an item."""
        data = self.data
        return data[start : start + 4] == self.order.item and data[start + 12 : start + 14] in VR_BYTES

    def _items(self, pos: int, stop: int, depth: int, length: int) -> int:
        """Parse the items of a sequence, with the length field directly before them."""
        data, order, edits = self.data, self.order, self.walk.edits
        mark = reserve_length_edit(edits)
        start = pos
        while pos < stop and data[pos : pos + 4] == order.item:
            item_length = order.u32.unpack_from(data, pos + 4)[0]
            raw = data[pos + 12 : pos + 14]
            implicit = not (raw in VR_BYTES or raw == BLANK_VR or is_vr(raw))
            if item_length == UNDEFINED:
                pos = self.elements(pos + 8, stop, depth + 1, implicit=implicit)
                continue
            item_mark = reserve_length_edit(edits)
            item_end = pos + 8 + item_length
            if self.elements(pos + 8, item_end, depth + 1, implicit=implicit) != item_end:
                raise Quarantine(Reason.MALFORMED, "", pos)
            close_length_edit(edits, item_mark, pos + 4, item_length)
            pos = item_end
        if length != UNDEFINED:
            close_length_edit(edits, mark, start - 4, length)
            return pos
        if data[pos : pos + 4] != order.sequence_delimitation:
            raise Quarantine(Reason.MALFORMED, "", pos)
        edits[mark] = SearchedEdit(start, start, b"")
        return pos + 8
