"""Read again what edits write, as a strict second reader does.

The bytes that no edit changes were parsed already, and lengths around edits are sums. So an output parses if each edit
writes one whole element of the tag that it replaces: with a VR of the standard in an explicit VR encoding, the header
that goes with this VR, and a length that ends where the edit does, of the items of a sequence too (PS3.5 section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from dicom_deid.dicom.vr import KNOWN_VRS, LONG_FORM_VRS
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN, UNDEFINED, ByteOrder, Edit
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_SHORT_VRS: Final = frozenset(vr.encode() for vr in KNOWN_VRS - LONG_FORM_VRS)
_LONG_VRS: Final = frozenset(vr.encode() for vr in LONG_FORM_VRS)
_NESTED_VRS: Final = frozenset((b"SQ", b"UN"))
_MAX_CACHED_BYTES: Final = 4096


def check_written(data: bytes, edits: Sequence[Edit]) -> None:
    """Check that edits of whole elements write whole elements.

    Parameters
    ----------
    data
        The bytes that the edits change.
    edits
        The edits, with their bytes.

    Raises
    ------
    Quarantine
        INVALID_REPLACEMENT if an edit writes anything else.
    """
    short = _SHORT_VRS
    for edit in edits:
        item_context = edit.item_context
        if item_context is None or not edit.new:
            continue
        new, start, context = edit.new, edit.start, item_context.context
        if new[4:6] in short and not context.implicit:
            is_valid = len(new) >= 8 and context.order.u16.unpack_from(new, 6)[0] == len(new) - 8
        else:
            is_valid = is_element(new, context.implicit, context.order)
        if not is_valid or (start < edit.end and new[:4] != data[start : start + 4]):
            raise Quarantine(Reason.INVALID_REPLACEMENT, context.tag_path(new, 0), start)


def is_element(new: bytes, implicit: bool, order: ByteOrder) -> bool:
    """Return whether bytes are exactly one element."""
    if len(new) <= _MAX_CACHED_BYTES:
        return _is_known_element(bytes(new), implicit, order.big_endian)
    return _end_of_element(new, 0, len(new), implicit, order) == len(new)


@lru_cache(maxsize=1024)
def _is_known_element(new: bytes, implicit: bool, big_endian: bool) -> bool:
    # What the engine adds to an object is the same for all.
    return _end_of_element(new, 0, len(new), implicit, BIG_ENDIAN if big_endian else LITTLE_ENDIAN) == len(new)


def _end_of_element(data: bytes, pos: int, end: int, implicit: bool, order: ByteOrder) -> int:
    """Return where the element at `pos` ends, or -1 if it is none, or ends behind `end`."""
    if end - pos < 8:
        return -1
    vr = b"" if implicit else data[pos + 4 : pos + 6]
    if vr in _SHORT_VRS:
        start, length = pos + 8, order.u16.unpack_from(data, pos + 6)[0]
    elif implicit:
        start, length = pos + 8, order.u32.unpack_from(data, pos + 4)[0]
    elif vr in _LONG_VRS and end - pos >= 12 and data[pos + 6 : pos + 8] == b"\0\0":
        start, length = pos + 12, order.u32.unpack_from(data, pos + 8)[0]
    else:
        return -1
    if length == UNDEFINED:
        if vr == b"UN":
            # The items of VR UN are of implicit VR little endian (PS3.5 section 6.2.2).
            implicit, order = True, LITTLE_ENDIAN
        found = _end_of_items(data, start, end, implicit, order) if implicit or vr in _NESTED_VRS else -1
        return found if found >= 0 or vr in _NESTED_VRS else _end_of_fragments(data, start, order)
    stop = int(start + length)
    if stop > end or (vr == b"SQ" and _end_of_items(data, start, stop, implicit, order, delimited=False) != stop):
        return -1
    return stop


def _end_of_items(data: bytes, pos: int, end: int, implicit: bool, order: ByteOrder, *, delimited: bool = True) -> int:
    while pos + 8 <= end:
        tag, length = data[pos : pos + 4], order.u32.unpack_from(data, pos + 4)[0]
        if tag == order.sequence_delimitation and delimited:
            return pos + 8 if length == 0 else -1
        if tag != order.item:
            return -1
        stop = end if length == UNDEFINED else pos + 8 + length
        if stop > end:
            return -1
        pos = _end_of_item(data, pos + 8, stop, implicit, order, delimited=length == UNDEFINED)
        if pos < 0:
            return -1
    return pos if pos == end and not delimited else -1


def _end_of_item(data: bytes, pos: int, end: int, implicit: bool, order: ByteOrder, *, delimited: bool) -> int:
    while 0 <= pos < end:
        if delimited and data[pos : pos + 4] == order.item_delimitation:
            return pos + 8
        pos = _end_of_element(data, pos, end, implicit, order)
    return pos if pos == end and not delimited else -1


def _end_of_fragments(data: bytes, pos: int, order: ByteOrder) -> int:
    while data[pos : pos + 4] == order.item and pos + 8 <= len(data):
        pos += 8 + order.u32.unpack_from(data, pos + 4)[0]
    is_delimited = data[pos : pos + 8] == order.sequence_delimitation + bytes(4)
    return pos + 8 if is_delimited else -1
