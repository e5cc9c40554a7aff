"""Find the end of encapsulated pixel data, and its comments, without reading all of it (PS3.5 section A.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from dicom_deid.engine.pixels.codestream import Piece, beside_picture, end_of_frame
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_ITEM = b"\xfe\xff\x00\xe0"
_DELIMITER = b"\xfe\xff\xdd\xe0"
_HEADER_BYTES = 8
_SMALL_FRAGMENT = 64 * 1024
_NARROW, _WIDE = 4096, 2**20
# Bytes before an item that are read with its header: what follows a codestream.
_BEFORE = 256
# EOI of JPEG and JPEG-LS, EOC of JPEG 2000.
_END_OF_CODESTREAM = b"\xff\xd9"
# So many pieces that may be picture are kept: each fragment has its own.
_MOST_UNCERTAIN = 64


def end_of_fragments(read: Callable[[int, int], bytes], start: int, size: int) -> tuple[int, list[Piece]]:
    """Walk from item to item as far as the sequence delimitation item.

    Of large fragments only the beginning and the end are read; small ones are read many at a time, because a request
    for each would cost more than their bytes.

    Parameters
    ----------
    read
        Returns the bytes from one offset to another.
    start
        Offset of the first item.
    size
        Size of the object.

    Returns
    -------
    int, list of Piece
        The offset just after the sequence delimitation item; and what the fragments hold beside their pictures, each
        text once.

    Raises
    ------
    Quarantine
        `MALFORMED` if something other than an item follows, `TRUNCATED` if the object ends first.
    """
    position, window, window_start, step = start, b"", start, _NARROW
    begin, head, found = start, b"", dict[bytes, Piece]()
    while True:
        offset = position - window_start
        if offset < 0 or offset + _HEADER_BYTES > len(window):
            if position + _HEADER_BYTES > size:
                raise Quarantine(Reason.TRUNCATED, "(7fe0,0010)", position)
            window_start = max(position - _BEFORE, begin)
            window, offset = read(window_start, min(position + step, size)), position - window_start
        for piece in _beside_picture(begin, head, position, window[max(begin - window_start, 0) : offset]):
            if piece.is_apart or len(found) < _MOST_UNCERTAIN:
                found.setdefault(piece.data, piece)
        tag = window[offset : offset + 4]
        (length,) = struct.unpack_from("<I", window, offset + 4)
        begin = position + _HEADER_BYTES
        if tag == _DELIMITER:
            return begin, list(found.values())
        if tag != _ITEM or length == 0xFFFFFFFF:
            raise Quarantine(Reason.MALFORMED, "(7fe0,0010)", position)
        position = begin + length
        head = window[offset + _HEADER_BYTES : offset + _HEADER_BYTES + length]
        step = _WIDE if length < _SMALL_FRAGMENT else _NARROW


def _beside_picture(begin: int, head: bytes, end: int, tail: bytes) -> Iterator[Piece]:
    """Yield what is beside the picture in a fragment, given its beginning and its end."""
    for piece in beside_picture(memoryview(head)):
        yield piece._replace(position=begin + piece.position)
    if len(head) < end - begin:
        at = tail.rfind(_END_OF_CODESTREAM)
        start = end - len(tail)
        if at >= 0:
            at += len(_END_OF_CODESTREAM)
            yield Piece(start + at, tail[at:])
            return
        for first, last, is_apart in end_of_frame(memoryview(tail), 0):
            yield Piece(start + first, tail[first:last], is_apart)
