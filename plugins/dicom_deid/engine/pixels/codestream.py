"""Read the size and precision that a compressed frame states, without decoding it."""

from __future__ import annotations

import struct
from typing import NamedTuple

_JPEG_START = b"\xff\xd8"
_J2K_START = b"\xff\x4f\xff\x51"
# A JP2 file wraps the codestream in boxes (ISO/IEC 15444-1 annex I), which are short.
_LARGEST_J2K_HEADER = 4096
# SOF0 to SOF15 without DHT, JPG and DAC (ISO/IEC 10918-1 table B.1), and SOF55 of JPEG-LS.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


class Codestream(NamedTuple):
    """The frame header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Parameters
    ----------
    rows, columns
        Size in pixels.
    components
        Samples per pixel.
    precision
        Bits per sample.
    """

    rows: int
    columns: int
    components: int
    precision: int


def read_codestream(frame: bytes) -> Codestream | None:
    """Return the frame header of a compressed frame, or None if it has none that can be read."""
    try:
        if frame.startswith(_JPEG_START):
            return _jpeg(frame)
        start = frame.find(_J2K_START, 0, _LARGEST_J2K_HEADER)
        return _jpeg_2000(frame, start + 4) if start >= 0 else None
    except (IndexError, struct.error):
        return None


def _jpeg(frame: bytes) -> Codestream | None:
    position = 2
    while True:
        while frame[position] == 0xFF and frame[position + 1] == 0xFF:
            position += 1  # fill bytes
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows, columns, components, precision)
        position += 2
        if marker not in _WITHOUT_LENGTH:
            position += struct.unpack_from(">H", frame, position)[0]


def _jpeg_2000(frame: bytes, position: int) -> Codestream:
    # Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz, Csiz, Ssiz (ISO/IEC 15444-1 A.5.1)
    right, bottom, left, top = struct.unpack_from(">4I", frame, position + 4)
    components, depth = struct.unpack_from(">HB", frame, position + 36)
    return Codestream(bottom - top, right - left, components, (depth & 0x7F) + 1)
