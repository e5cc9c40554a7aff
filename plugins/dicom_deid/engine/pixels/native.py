"""Blank regions of uncompressed frames on one copy of the bytes (PS3.5 section 8.1.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dicom_deid.engine.pixels.layout import PIXEL_DATA, Layout, sample_bytes
from dicom_deid.engine.pixels.regions import Band
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason


def blank_native(
    data: bytes | memoryview,
    layout: Layout,
    blanked: Sequence[Band],
    *,
    big_endian: bool = False,
    words: bool = False,
) -> bytearray:
    """Return a copy of uncompressed pixel data with the bands of every frame blanked.

    Frames beyond NumberOfFrames, which some readers show, are blanked like the others; bytes after the last whole
    frame are set to zero.

    Parameters
    ----------
    data
        The value of PixelData.
    layout
        Layout of the pixels.
    blanked
        Bands to blank in each frame.
    big_endian
        Whether the transfer syntax is explicit VR big endian.
    words
        Whether the VR is OW, whose bytes are swapped in pairs in big endian even if a pixel has 8 bits or fewer
        (PS3.5 section 8.1.2).

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if the data are shorter than the frames.
    """
    layout = _as_stored(layout, len(data))
    if layout.subsampled and layout.columns % 2:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, "(0028,0011) Columns is odd and the colour is subsampled")
    frames = len(data) * 8 // layout.frame_bits
    if frames < layout.frames:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    copy = bytearray(data)
    swapped = big_endian and words and layout.bits_allocated <= 8
    if swapped:
        swap_bytes(copy)
    if layout.packed_bits:
        blank_bits(copy, layout.columns, layout.frame_bits, blanked, frames, layout.black[0] & 1)
    else:
        _blank_bytes(copy, layout, blanked, frames, big_endian=big_endian)
        end = frames * layout.frame_bits // 8
        copy[end:] = bytes(len(copy) - end)
    if swapped:
        swap_bytes(copy)
    return copy


def _as_stored(layout: Layout, size: int) -> Layout:
    """Return the layout of the data; some devices write YBR_FULL_422 without subsampling."""
    whole = layout.rows * layout.columns * 3 * layout.frames
    if layout.subsampled and size >= whole:
        return layout.replace(photometric="RGB", black=(0, 0, 0))
    return layout


def swap_bytes(buffer: bytearray) -> None:
    """Swap the bytes of each 16-bit word."""
    if len(buffer) % 2:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    buffer[0::2], buffer[1::2] = buffer[1::2], buffer[0::2]


def _rows(blanked: Sequence[Band]) -> Iterator[tuple[int, int, int]]:
    """Yield (row, left, right) of each run of pixels to blank."""
    for band in blanked:
        for row in range(band.top, band.bottom):
            for left, right in band.spans:
                yield row, left, right


def _blank_bytes(buffer: bytearray, layout: Layout, blanked: Sequence[Band], frames: int, *, big_endian: bool) -> None:
    """Blank pixels of whole bytes."""
    runs: Callable[..., list[tuple[int, bytes]]]
    runs = _interleaved if not layout.planar else _planar
    if layout.subsampled:
        runs = _subsampled
    patches = runs(layout, blanked, big_endian=big_endian)
    frame_bytes = layout.frame_bits // 8
    for start in range(0, frames * frame_bytes, frame_bytes):
        for offset, patch in patches:
            buffer[start + offset : start + offset + len(patch)] = patch


def _interleaved(layout: Layout, blanked: Sequence[Band], *, big_endian: bool) -> list[tuple[int, bytes]]:
    """Return (offset in a frame, bytes) of each run for samples interleaved by pixel."""
    pixel = b"".join(sample_bytes(layout, value, big_endian=big_endian) for value in layout.black)
    line = pixel * layout.columns
    return [
        ((row * layout.columns + left) * len(pixel), line[: (right - left) * len(pixel)])
        for row, left, right in _rows(blanked)
    ]


def _planar(layout: Layout, blanked: Sequence[Band], *, big_endian: bool) -> list[tuple[int, bytes]]:
    """Return (offset in a frame, bytes) of each run for samples in separate planes."""
    plane_bytes = layout.rows * layout.columns * layout.bits_allocated // 8
    return [
        (plane * plane_bytes + offset, patch)
        for plane, value in enumerate(layout.black)
        for offset, patch in _interleaved(layout.replace(black=(value,)), blanked, big_endian=big_endian)
    ]


def _subsampled(layout: Layout, blanked: Sequence[Band], *, big_endian: bool) -> list[tuple[int, bytes]]:
    """Return (offset in a frame, bytes) of each run of Y1 Y2 CB CR quadruples.

    A pixel at the edge of a run may share its colour with a pixel outside: both lose the colour, and the pixel outside
    keeps its brightness.
    """
    luma, blue, red = (sample_bytes(layout, value, big_endian=big_endian) for value in layout.black)
    quadruples = (luma + luma + blue + red) * (layout.columns // 2)
    patches = []
    for row, left, right in _rows(blanked):
        start = row * layout.columns * 2
        inner_left, inner_right = left + left % 2, right - right % 2
        if inner_left < inner_right:
            patches.append((start + inner_left * 2, quadruples[: (inner_right - inner_left) * 2]))
        if left % 2:
            patches.append((start + (left - 1) * 2 + 1, luma + blue + red))
        if right % 2 and right - 1 >= left:
            patches.append((start + (right - 1) * 2, luma))
            patches.append((start + (right - 1) * 2 + 2, blue + red))
    return patches


def blank_bits(
    buffer: bytearray, columns: int, frame_bits: int, blanked: Sequence[Band], frames: int, value: int = 0
) -> None:
    """Blank pixels of one bit: the first pixel is the least significant bit, frames follow without padding."""
    for start in range(0, frames * frame_bits, frame_bits):
        for row, left, right in _rows(blanked):
            first = start + row * columns
            _set_bits(buffer, first + left, first + right, value)


def _set_bits(buffer: bytearray, start: int, stop: int, value: int) -> None:
    """Set bits `start` to `stop` (exclusive) to a value."""
    first, last = start // 8, (stop - 1) // 8
    head = 0xFF << (start % 8) & 0xFF
    tail = 0xFF >> (7 - (stop - 1) % 8)
    fill = 0xFF * value
    for index, mask in ((first, head), (last, tail)) if first < last else ((first, head & tail),):
        buffer[index] = (buffer[index] & ~mask & 0xFF) | (fill & mask)
    buffer[first + 1 : last] = bytes([fill]) * max(0, last - first - 1)
