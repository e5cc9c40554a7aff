"""Data sets in values that are none: bytes in which readers find elements that no rule selects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from dicom_deid.dicom.part10 import PREFIX
from dicom_deid.dicom.tags import is_private
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.vr import KNOWN_VRS, LONG_FORM_VRS, vr_of
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN, UNDEFINED, ByteOrder

_LONG_FORM: Final = frozenset(vr.encode() for vr in LONG_FORM_VRS)
_SHORT_FORM: Final = frozenset(vr.encode() for vr in KNOWN_VRS - LONG_FORM_VRS)
_PREAMBLE: Final = 128
_ORDERS: Final = (LITTLE_ENDIAN, BIG_ENDIAN)
# Of the tag of an item in both orders; one that ends in a rare byte is found soonest.
_BEGINNINGS: Final = (LITTLE_ENDIAN.item, BIG_ENDIAN.item[:3])


def is_data_set(data: bytes, start: int, end: int) -> bool:
    """Return whether the bytes of a value are a file of PS3.10 or, from the first to the last, elements in order.

    Elements of the standard have to be in the dictionary, and the first one has a value. Numbers that read so would
    be a coincidence of a tag and of each length.
    """
    if data[start + _PREAMBLE : min(start + _PREAMBLE + len(PREFIX), end)] == PREFIX:
        return True
    if end - start < 8:
        return False
    return any(_is_tag(data, start, order) and _are_elements(data, start, end, order) for order in _ORDERS)


def has_items(data: bytes) -> bool:
    """Return whether the tag of an item may be in bytes."""
    return _BEGINNINGS[0] in data or _BEGINNINGS[1] in data


def items_in_values(data: bytes, spans: Sequence[tuple[int, int]], end: int, encoding: Encoding) -> Iterator[int]:
    """Yield where a sequence item may begin the value of an element that is no sequence.

    An item begins after the header of a sequence or after another item, whose last bytes can look like a header. A
    walk tells whether there is an element with such a value.

    Parameters
    ----------
    data
        An object.
    spans
        Where to look: start and end of bytes that hold the beginnings of values with those of their items.
    end
        Where the data set ends.
    encoding
        How its elements are encoded.
    """
    find = data.find
    for beginning in _BEGINNINGS:
        for first, last in spans:
            at = find(beginning, first, last)
            while at >= 0:
                if data[at - 8 : at - 6] != b"SQ" and _is_value(data, at, end, encoding.big_endian):
                    yield at
                at = find(beginning, at + 4, last)


def _is_value(data: bytes, at: int, end: int, big_endian: bool) -> bool:
    """Return whether the bytes before a position may be the header of an element other than a sequence."""
    order = BIG_ENDIAN if big_endian else LITTLE_ENDIAN
    if data[at - 4 : at - 2] in _SHORT_FORM:
        return at + int(order.u16.unpack_from(data, at - 2)[0]) <= end
    if at < 8 or not 8 <= order.u32.unpack_from(data, at - 4)[0] <= end - at:
        return False
    # Elements of VR UN are those of a data set of implicit VR, and so are their items.
    return data[at - 8 : at - 6] in _LONG_FORM or _names_a_value(data[at - 8 : at - 4], big_endian)


@lru_cache(maxsize=4096)
def _names_a_value(raw: bytes, big_endian: bool) -> bool:
    group, element = (BIG_ENDIAN if big_endian else LITTLE_ENDIAN).tag.unpack(raw)
    return vr_of(group << 16 | element) != "SQ"


def _is_tag(data: bytes, at: int, order: ByteOrder) -> bool:
    group, element = order.tag.unpack_from(data, at)
    return bool(element) and _is_known(group << 16 | element)


@lru_cache(maxsize=4096)
def _is_known(tag: int) -> bool:
    return tag >= 0x00080001 and (is_private(tag) or vr_of(tag) != "UN")


def _are_elements(data: bytes, start: int, end: int, order: ByteOrder) -> bool:
    """Return whether bytes are elements in the order of their tags; one of undefined length ends the check."""
    previous, pos, is_explicit = 0, start, data[start + 4 : start + 6] in _SHORT_FORM | _LONG_FORM
    while end - pos >= 8:
        group, element = order.tag.unpack_from(data, pos)
        tag = group << 16 | element
        if tag <= previous or not (_is_known(tag) or not element):
            return False
        vr = data[pos + 4 : pos + 6]
        if is_explicit and vr in _SHORT_FORM:
            length, value = order.u16.unpack_from(data, pos + 6)[0], pos + 8
        elif is_explicit and (vr not in _LONG_FORM or end - pos < 12):
            return False
        else:
            value = pos + 12 if is_explicit else pos + 8
            length = order.u32.unpack_from(data, value - 4)[0]
        if length == UNDEFINED:
            return True
        if not previous and not length:
            return False
        previous, pos = tag, value + length
    return pos <= end and not data[pos:end].strip(b"\0")
