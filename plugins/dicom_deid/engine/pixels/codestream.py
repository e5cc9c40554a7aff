"""Read the structure of compressed frames, without decoding them: sizes, and what is no part of the picture."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

_JPEG_START = b"\xff\xd8"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
# A JP2 file wraps the codestream in boxes (ISO/IEC 15444-1 annex I), which are short.
_LARGEST_J2K_HEADER = 4096
# SOF0 to SOF15 without DHT, JPG and DAC (ISO/IEC 10918-1 table B.1), and SOF55 of JPEG-LS.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# The other segments that decoders need: DHT, DAC, SOS, DQT, DNL, DRI, DHP, EXP, and LSE of JPEG-LS.
_TABLES = frozenset({0xC4, 0xCC, *range(0xDA, 0xE0), 0xF8})
# The next marker in entropy-coded data, which have a zero bit after 0xFF (JPEG-LS), zeros or restart markers.
_IN_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
# SOT, SOD and EOC of JPEG 2000; the other markers that decoders need: CAP to CRG, and those without a segment.
_TILE_PART, _TILE_DATA = 0x90, 0x93
_J2K_COMMENT, _J2K_TABLES = 0x64, frozenset({*range(0x4F, 0x64), 0x91, 0x92})
_CODESTREAM_BOX = b"jp2c"
_APP0, _APP14 = 0xE0, 0xEE
_ITEM = b"\xfe\xff\x00\xe0"
_PADDING = b"\0\xff"
_END_OF_CODESTREAM = b"\xff\xd9"
# RLE (PS3.5 section G.5): the number of segments and their offsets.
_RLE_HEADER, _RLE_SEGMENTS, _RLE_FIRST_OFFSET = 64, 15, b"\x40\0\0\0"
# Bytes at the end of a frame, if it is not known where its codestream ends.
_UNKNOWN = 2048

_TEXT_AT_END = re.compile(rb"[\x20-\x7e]{8,}\0*\Z")

# Start, end, and `Piece.is_apart`.
_Place = tuple[int, int, bool]


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


class Segment(NamedTuple):
    """A marker segment: the second byte of its marker, and where its content is, after the length."""

    marker: int
    start: int
    end: int


class Piece(NamedTuple):
    """Bytes of a frame beside its picture.

    Parameters
    ----------
    position
        Of the first byte.
    data
        The bytes.
    is_apart
        False if some of them may be picture, because it is not known where the codestream ends.
    """

    position: int
    data: bytes
    is_apart: bool = True


def read_codestream(frame: bytes) -> Codestream | None:
    """Return the frame header of a compressed frame, or None if it has none that can be read."""
    try:
        if frame.startswith(_JPEG_START):
            return _jpeg(frame)
        start = frame.find(_J2K_START, 0, _LARGEST_J2K_HEADER)
        return _jpeg_2000(frame, start + 4) if start >= 0 else None
    except (IndexError, struct.error):
        return None


def jpeg_segments(frame: bytes | memoryview, position: int = 2) -> Iterator[Segment]:
    """Yield the marker segments of a JPEG or JPEG-LS codestream from a position, as far as the next scan header.

    Raises
    ------
    IndexError, struct.error
        If the frame ends before.
    """
    while True:
        while frame[position] == 0xFF and frame[position + 1] == 0xFF:
            position += 1  # fill bytes
        if frame[position] != 0xFF:
            return
        marker = frame[position + 1]
        position += 2
        if marker == _END:
            yield Segment(marker, position, position)
            return
        if marker in _WITHOUT_LENGTH:
            continue
        end = position + max(struct.unpack_from(">H", frame, position)[0], 2)
        yield Segment(marker, position + 2, end)
        if marker == SCAN:
            return
        position = end


def _jpeg(frame: bytes) -> Codestream | None:
    for marker, start, _ in jpeg_segments(frame):
        if marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, start)
            return Codestream(rows, columns, components, precision)
    return None


def _jpeg_2000(frame: bytes, position: int) -> Codestream:
    # Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz, Csiz, Ssiz (ISO/IEC 15444-1 A.5.1)
    right, bottom, left, top = struct.unpack_from(">4I", frame, position + 4)
    components, depth = struct.unpack_from(">HB", frame, position + 36)
    return Codestream(bottom - top, right - left, components, (depth & 0x7F) + 1)


def beside_pictures(data: bytes, start: int, end: int) -> list[Piece]:
    """Return the bytes of encapsulated pixel data that no decoder needs for a picture.

    They are the basic offset table, and what `beside_picture` finds in each frame. Fragments that begin no codestream
    continue that of the fragment before them.

    Parameters
    ----------
    data
        Holds the items of the fragments (PS3.5 section A.4) in ``[start, end)``.
    """
    view = memoryview(data)
    found: list[Piece] = []
    frame: list[tuple[int, int]] = []
    position, is_table = start, True
    while position + 8 <= end and data.startswith(_ITEM, position):
        first = position + 8
        position = first + int.from_bytes(view[position + 4 : first], "little")
        if is_table:
            found.append(Piece(first, bytes(view[first:position])))
            is_table = False
            continue
        if frame and _begins_codestream(view[first:position]):
            found += _beside_fragments(view, frame)
            frame = []
        frame.append((first, position))
    found += _beside_fragments(view, frame)
    return [piece for piece in found if piece.data.strip(_PADDING)]


def _begins_codestream(fragment: memoryview) -> bool:
    return (
        fragment[:2] == _JPEG_START
        or fragment[:4] in (_J2K_START, _JP2_START[:4])
        or fragment[4:8] == _RLE_FIRST_OFFSET
    )


def _beside_fragments(view: memoryview, fragments: list[tuple[int, int]]) -> Iterator[Piece]:
    """Yield what the frame in some fragments holds beside its picture."""
    frame = view[slice(*fragments[0])] if len(fragments) == 1 else memoryview(b"".join(view[a:b] for a, b in fragments))
    for position, data, is_apart in beside_picture(frame):
        begin = 0
        for first, last in fragments:
            left, right = max(position - begin, 0), min(position + len(data) - begin, last - first)
            if left < right:
                yield Piece(first + left, data[begin + left - position : begin + right - position], is_apart)
            begin += last - first


def beside_picture(frame: memoryview) -> list[Piece]:
    """Return the bytes of a compressed frame that no decoder needs for its picture.

    They are comments, application segments and boxes, and what follows the codestream. Entropy-coded data are not read
    but for the next marker. Of a frame in an unknown form, or damaged, beginning and end are returned.

    Parameters
    ----------
    frame
        The frame.
    """
    found: list[_Place] = []
    try:
        found.extend(_places(frame))
    except (IndexError, struct.error):
        found += end_of_frame(frame, 0)
    return [Piece(start, bytes(frame[start:end]), is_apart) for start, end, is_apart in found if frame[start:end]]


def end_of_frame(frame: memoryview, start: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the end of a frame whose codestream ends somewhere after a position, and text at the very end apart.

    Parameters
    ----------
    frame
        The frame, or its end.
    start
        Position in it, in bytes.

    Yields
    ------
    tuple of int, int, bool
        Start, end, and whether no part of it can be picture.
    """
    start = max(len(frame) - _UNKNOWN, start)
    text = _TEXT_AT_END.search(frame, start)
    stop = text.start() if text else len(frame)
    yield start, stop, False
    yield stop, len(frame), True


def _places(frame: memoryview) -> Iterator[_Place]:
    if frame[:2] == _JPEG_START:
        return _beside_jpeg(frame)
    if frame[:4] == _J2K_START:
        return _beside_jpeg_2000(frame, 0, len(frame))
    if frame[:12] == _JP2_START:
        return _beside_boxes(frame)
    count = int.from_bytes(frame[:4], "little")
    start = _UNKNOWN
    if frame[4:8] == _RLE_FIRST_OFFSET and count <= _RLE_SEGMENTS:
        start = _RLE_HEADER
        first = (4 + 4 * count, start, True)
    else:
        first = (0, start, False)
    return iter((first, *end_of_frame(frame, start)))


def _beside_jpeg(frame: memoryview) -> Iterator[_Place]:
    position = 2
    while True:
        marker, end = 0, position
        for marker, start, end in jpeg_segments(frame, position):
            if marker == _END:
                yield end, len(frame), True
                return
            if marker not in _FRAME_MARKERS and marker not in _TABLES and not is_colour_segment(frame, marker, start):
                yield start, end, True
        found = _IN_SCAN.search(frame, max(end, position + 1))
        if marker != SCAN:
            # Bytes where a marker should be.
            yield end, found.start() if found else len(frame), False
        elif found is None:
            yield from end_of_frame(frame, end)
        if found is None:
            return
        position = found.start()


def is_colour_segment(frame: bytes | memoryview, marker: int, start: int) -> bool:
    """Return whether a segment is APP0 of JFIF or APP14 of Adobe: decoders take the colour space from them."""
    if marker == _APP0:
        return frame[start - 2 : start + 5] == b"\0\x10JFIF\0"
    return marker == _APP14 and frame[start - 2 : start + 5] == b"\0\x0eAdobe"


def _beside_jpeg_2000(frame: memoryview, start: int, stop: int) -> Iterator[_Place]:
    """Yield the comments of the main header and of the tile-parts, and what follows them."""
    position, tile_part = start + 2, stop
    while position + 2 <= stop and frame[position] == 0xFF:
        marker, position = frame[position + 1], position + 2
        if marker == _END:
            yield position, stop, True
            return
        if marker == _TILE_DATA:
            position = max(tile_part, position)
            continue
        end = position + max(struct.unpack_from(">H", frame, position)[0], 2)
        if marker == _TILE_PART:
            length = struct.unpack_from(">I", frame, position + 4)[0]
            # A last tile-part of length 0 reaches as far as the end of the codestream.
            is_whole = bytes(frame[stop - 8 : stop]).rstrip(_PADDING[:1]).endswith(_END_OF_CODESTREAM)
            tile_part = position - 2 + length if length else stop if is_whole else stop - _UNKNOWN
        elif marker == _J2K_COMMENT:
            yield position + 4, end, True  # Rcom
        elif marker not in _J2K_TABLES:
            yield position + 2, end, True
        position = end
    if position < stop:
        # No marker where one should be.
        yield from end_of_frame(frame[:stop], position)


def _beside_boxes(frame: memoryview) -> Iterator[_Place]:
    position = len(_JP2_START)
    while position + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, position)
        start = position + 8
        if length == 1:
            length = struct.unpack_from(">Q", frame, start)[0]
            start += 8
        end = min(position + length, len(frame)) if length >= 8 else len(frame)
        if kind == _CODESTREAM_BOX:
            yield from _beside_jpeg_2000(frame, start, end)
        else:
            yield start, end, True
        position = end
    yield position, len(frame), True
