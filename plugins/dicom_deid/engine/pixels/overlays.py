"""Overlay planes (PS3.3 section C.9.2): blanked where the pixels beneath are, and shown for text search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.dicom.dictionary import tag_text
from dicom_deid.engine.pixels.layout import UNREADABLE, Layout
from dicom_deid.engine.pixels.native import blank_bits, swap_bytes
from dicom_deid.engine.pixels.regions import Region, bands
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    from pydicom import Dataset

    from dicom_deid.engine.pixels.images import Picture

_ROWS, _COLUMNS, _FRAMES, _ORIGIN = 0x0010, 0x0011, 0x0015, 0x0050
_BITS_ALLOCATED, _BIT_POSITION, _DATA = 0x0100, 0x0102, 0x3000

# Farther than any plane reaches, whose size and origin are numbers of 16 bits.
_FAR = 2**20


def is_overlay_data(tag: int) -> bool:
    """Tell whether a tag is OverlayData of one of the planes."""
    return tag & 0xFF00FFFF == 0x60000000 | _DATA


def places_overlay_data(tag: int) -> bool:
    """Tell whether a tag is one by which a plane may say that its bits stand in PixelData."""
    return tag & 0xFF00FFFF in (0x60000000 | _BITS_ALLOCATED, 0x60000000 | _BIT_POSITION)


def is_placed_elsewhere(tag: int, value: bytes) -> bool:
    """Tell whether an element that `places_overlay_data` says that the bits may not stand in OverlayData."""
    return value.strip(b"\0 ") not in (b"", b"\1" if tag & 0xFFFF == _BITS_ALLOCATED else b"")


def overlay_data_of(tag: int) -> int:
    """Return the tag of OverlayData in the group of a tag."""
    return tag & 0xFFFF0000 | _DATA


class Overlay(NamedTuple):
    """A plane whose bits stand in an element of their own.

    Parameters
    ----------
    tag
        Of its OverlayData.
    rows, columns
        Its size in pixels, which need not be the image's.
    top, left
        Where its first pixel lies on the image, in pixels counted from 0; it may lie outside.
    data
        The value of OverlayData: one bit a pixel, the first in the least significant bit, rows and frames without a
        gap.
    swapped
        Whether the bytes of each word are swapped (OW in explicit VR big endian, PS3.5 section 8.1.2).
    """

    tag: int
    rows: int
    columns: int
    top: int
    left: int
    data: bytes
    swapped: bool

    def on_plane(self, regions: Sequence[Region]) -> list[Region]:
        """Return regions of the image as regions of the plane; whole frames stay whole planes."""
        return [_moved(region, -self.left, -self.top) for region in regions]

    def on_image(self, rectangle: Rectangle) -> Rectangle:
        """Return a rectangle of the plane as one of the image."""
        left, top, right, bottom = rectangle
        return Rectangle(left + self.left, top + self.top, right + self.left, bottom + self.top)

    def bits(self) -> bytearray:
        """Return a copy of the data in the order of the pixels."""
        copy = bytearray(self.data)
        if self.swapped:
            swap_bytes(copy)
        return copy


def _moved(region: Region, right: int, down: int) -> Region:
    if region.rectangle is None:
        return region
    corner = region.rectangle
    return Region(
        region.blank,
        Rectangle(corner.left + right, corner.top + down, corner.right + right, corner.bottom + down),
    )


def overlay_of(header: Dataset, tag: int, data: bytes, *, swapped: bool = False) -> Overlay:
    """Read a plane.

    Parameters
    ----------
    header
        The object's original root elements.
    tag, data, swapped
        Its OverlayData, see `Overlay`.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` when an attribute is missing, contradicts another or the data: where the plane's text
        stands cannot be said for certain.
    """
    group = tag & 0xFFFF0000
    try:
        rows, columns = int(header[group | _ROWS].value), int(header[group | _COLUMNS].value)
        frames = int(_value(header, group | _FRAMES, 1))
        top, left = (int(start) - 1 for start in header[group | _ORIGIN].value)
        described = int(_value(header, group | _BITS_ALLOCATED, 1)), int(_value(header, group | _BIT_POSITION, 0))
    except UNREADABLE:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, tag_text(tag)) from None
    fits = min(rows, columns, frames) > 0 and rows * columns * frames <= 8 * len(data)
    if not fits or described != (1, 0) or (swapped and len(data) % 2):
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, tag_text(tag))
    return Overlay(tag, rows, columns, top, left, data, swapped)


def beyond_edges(regions: Sequence[Region], rows: int, columns: int) -> list[Region]:
    """Return regions of an image as they hold for planes, which may reach beyond it.

    What is blanked up to an edge of the image is blanked beyond that edge; what is kept is kept as it is.
    """
    return [
        Region(True, _stretched(region.rectangle, rows, columns)) if region.blank and region.rectangle else region
        for region in regions
    ]


def _stretched(rectangle: Rectangle, rows: int, columns: int) -> Rectangle:
    left, top, right, bottom = rectangle
    if left >= right or top >= bottom:
        return rectangle
    return Rectangle(
        -_FAR if left <= 0 else left,
        -_FAR if top <= 0 else top,
        _FAR if right >= columns else right,
        _FAR if bottom >= rows else bottom,
    )


def _value(header: Dataset, tag: int, default: Any) -> Any:
    """Return a value, or what holds where there is none."""
    value = header[tag].value if tag in header else None
    return default if value is None else value


def blanked_overlay(overlay: Overlay, regions: Sequence[Region]) -> bytes | None:
    """Return the data of a plane with regions blanked in every frame; None when nothing of it changes.

    Frames beyond NumberOfFramesInOverlay are blanked like the others, and what is left over after the last whole frame
    is set to zero.
    """
    blanked = bands(overlay.on_plane(regions), overlay.rows, overlay.columns)
    if not blanked:
        return None
    bits = overlay.bits()
    frame_bits = overlay.rows * overlay.columns
    frames = 8 * len(bits) // frame_bits
    blank_bits(bits, overlay.columns, frame_bits, blanked, frames)
    whole, rest = divmod(frames * frame_bits, 8)
    if rest:
        bits[whole] &= (1 << rest) - 1
        whole += 1
    bits[whole:] = bytes(len(bits) - whole)
    if overlay.swapped:
        swap_bytes(bits)
    return None if bits == overlay.data else bytes(bits)


def overlay_pictures(overlay: Overlay) -> Iterator[Picture]:
    """Yield each frame of a plane by itself, white on black; nothing for one that is empty."""
    import numpy as np

    size = overlay.rows * overlay.columns
    every = np.unpackbits(np.frombuffer(overlay.bits(), np.uint8), bitorder="little")
    for start in range(0, len(every) - size + 1, size):
        frame = every[start : start + size]
        if frame.any():
            yield frame.reshape(overlay.rows, overlay.columns) * np.uint8(255)


def embedded_planes(header: Dataset, rows: int, columns: int) -> list[int]:
    """Return the bits of a sample in which old objects keep overlay planes (retired in PS3.3-2004).

    Such a plane is blanked with the samples that hold it.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` when a plane does not lie on the image pixel by pixel.
    """
    found = []
    for group in range(0x60000000, 0x61000000, 0x20000):
        if group | _DATA in header or group | _BIT_POSITION not in header:
            continue
        try:
            position = int(_value(header, group | _BIT_POSITION, 0))
            size = int(_value(header, group | _ROWS, rows)), int(_value(header, group | _COLUMNS, columns))
            origin = [int(start) for start in _value(header, group | _ORIGIN, (1, 1))]
        except UNREADABLE:
            raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, tag_text(group | _BIT_POSITION)) from None
        if position and (size != (rows, columns) or origin != [1, 1]):
            raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, tag_text(group | _BIT_POSITION))
        if position:
            found.append(position)
    return found


def bits_of_planes(header: Dataset, groups: Iterable[int], layout: Layout) -> int:
    """Return the bits of a cell that hold embedded overlay planes, as a mask.

    Bits that hold the sample itself hold no plane: OverlayBitPosition is 0 where the bits have an element of their own.

    Parameters
    ----------
    header
        The object's original root elements.
    groups
        Of the planes that are asked for.
    layout
        Of the image.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` when a position is no number, or one inside the samples and the plane has no other data.
    """
    sample = ((1 << layout.bits_stored) - 1) << (layout.high_bit + 1 - layout.bits_stored)
    mask = 0
    for group in groups:
        tag = group << 16 | _BIT_POSITION
        try:
            bit = 1 << int(_value(header, tag, 0))
        except UNREADABLE:
            raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, tag_text(tag)) from None
        if bit > 1 and bit & sample and not _value(header, overlay_data_of(tag), b""):
            raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, tag_text(tag))
        mask |= bit & ~sample
    return mask & ((1 << layout.bits_allocated) - 1)


def without_planes(
    data: bytes | bytearray | memoryview, layout: Layout, mask: int, *, big_endian: bool
) -> bytes | None:
    """Return uncompressed pixel data with the bits of a mask zero in every cell; None when they are zero already.

    Parameters
    ----------
    data
        The value of PixelData.
    layout
        Where the cells stand in it.
    mask
        See `bits_of_planes`.
    big_endian
        Whether the transfer syntax is explicit VR big endian.
    """
    import numpy as np

    size = layout.bits_allocated // 8
    if not mask or not size:
        return None
    end = len(data) // size * size
    cells = np.frombuffer(data[:end], f"{'>' if big_endian else '<'}u{size}")
    if not (cells & mask).any():
        return None
    cleared: bytes = (cells & ~np.array(mask, cells.dtype)).astype(cells.dtype).tobytes()
    return cleared + bytes(data[end:])
