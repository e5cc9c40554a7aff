"""Deflated data sets (PS3.5 annex A.5): how large they are, and their bytes, in bounded memory."""

from __future__ import annotations

import zlib

from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_WBITS = -zlib.MAX_WBITS
_PIECE = 2**20
_WHERE = "deflated data set"


def inflated_size(data: bytes | memoryview, start: int, limit: int) -> tuple[int, int]:
    """Return the size of an inflated data set, and where the deflated one ends; only a piece of it is in memory.

    Parameters
    ----------
    data, start
        The object, and where its deflated data set begins.
    limit
        The largest accepted size.

    Raises
    ------
    Quarantine
        MALFORMED, TRUNCATED, or INFLATED_TOO_LARGE if it is larger than the limit.
    """
    inflater, size, end = zlib.decompressobj(_WBITS), 0, start
    while end < len(data) and not inflater.eof:
        rest: bytes | memoryview = memoryview(data)[end : end + _PIECE]
        end += len(rest)
        is_full = True
        # All input may be taken before all output was given.
        while (rest or is_full) and not inflater.eof:
            try:
                given = len(inflater.decompress(rest, _PIECE))
            except zlib.error:
                raise Quarantine(Reason.MALFORMED, _WHERE, start) from None
            rest, is_full = inflater.unconsumed_tail, given == _PIECE
            size += given
            if size > limit:
                raise Quarantine(Reason.INFLATED_TOO_LARGE, _WHERE, start)
    if not inflater.eof:
        raise Quarantine(Reason.TRUNCATED, _WHERE, len(data))
    return size, end - len(inflater.unused_data)


def inflate(data: bytes | memoryview, start: int, limit: int) -> tuple[bytes, int]:
    """Return an inflated data set, and where the deflated one ends.

    Its size is found out first, so that it is written into memory once: pieces that are joined would take twice as
    much.

    Parameters and errors are those of `inflated_size`.
    """
    size, end = inflated_size(data, start, limit)
    # A buffer of this size exactly is returned as it is.
    return zlib.decompress(memoryview(data)[start:end], _WBITS, bufsize=max(size, 1)), end


def inflate_beginning(data: bytes | memoryview, start: int, limit: int) -> bytes:
    """Return up to `limit` bytes of an inflated data set; fewer if it ends, or `data` does.

    Raises
    ------
    Quarantine
        MALFORMED.
    """
    try:
        return zlib.decompressobj(_WBITS).decompress(memoryview(data)[start:], limit)
    except zlib.error:
        raise Quarantine(Reason.MALFORMED, _WHERE, start) from None


def deflate(pieces: list[bytes | memoryview]) -> bytes:
    """Return a deflated data set of even length."""
    deflater = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _WBITS)
    deflated = b"".join([*(deflater.compress(piece) for piece in pieces), deflater.flush()])
    return deflated + b"\0" if len(deflated) % 2 else deflated
