"""Find the end of encapsulated pixel data without reading all of it (PS3.5 section A.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_ITEM = b"\xfe\xff\x00\xe0"
_DELIMITER = b"\xfe\xff\xdd\xe0"
_HEADER_BYTES = 8
_SMALL_FRAGMENT = 64 * 1024
_NARROW, _WIDE = 512, 2**20


def end_of_fragments(read: Callable[[int, int], bytes], start: int, size: int) -> int:
    """Walk from item to item and return the offset just after the sequence delimitation item.

    Of large fragments only the headers are read; small ones are read many at a time, because a request for each would
    cost more than their bytes.

    Parameters
    ----------
    read
        Returns the bytes from one offset to another.
    start
        Offset of the first item.
    size
        Size of the object.

    Raises
    ------
    Quarantine
        `MALFORMED` if something other than an item follows, `TRUNCATED` if the object ends first.
    """
    position, window, window_start, step = start, b"", start, _NARROW
    while True:
        offset = position - window_start
        if offset < 0 or offset + _HEADER_BYTES > len(window):
            if position + _HEADER_BYTES > size:
                raise Quarantine(Reason.TRUNCATED, "(7fe0,0010)", position)
            window, window_start, offset = read(position, min(position + step, size)), position, 0
        tag = window[offset : offset + 4]
        (length,) = struct.unpack_from("<I", window, offset + 4)
        position += _HEADER_BYTES
        if tag == _DELIMITER:
            return position
        if tag != _ITEM or length == 0xFFFFFFFF:
            raise Quarantine(Reason.MALFORMED, "(7fe0,0010)", position - _HEADER_BYTES)
        position += length
        step = _WIDE if length < _SMALL_FRAGMENT else _NARROW
