"""Read and blank overlay planes (PS3.3 section C.9.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine.pixels.layout import UNREADABLE, Layout
from dicom_deid.engine.pixels.native import blank_bits, swap_bytes
from dicom_deid.engine.pixels.regions import Region, bands
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    from pydicom import Dataset

_ROWS, _COLUMNS, _FRAMES, _ORIGIN = 0x0010, 0x0011, 0x0015, 0x0050
_BITS_ALLOCATED, _BIT_POSITION, _DATA = 0x0100, 0x0102, 0x3000

# Beyond any plane: size and origin of planes are 16-bit numbers.
_FAR = 2**20


def is_overlay_data(tag: int) -> bool:
    """Return whether a tag is OverlayData of an overlay plane."""
    return tag & 0xFF00FFFF == 0x60000000 | _DATA


def places_overlay_data(tag: int) -> bool:
    """Return whether a tag can state that the bits of a plane are in PixelData."""
    return tag & 0xFF00FFFF in (0x60000000 | _BITS_ALLOCATED, 0x60000000 | _BIT_POSITION)


def is_placed_elsewhere(tag: int, value: bytes) -> bool:
    """Return whether the value of a `places_overlay_data` element states that the bits are not in OverlayData."""
    return value.strip(b"\0 ") not in (b"", b"\1" if tag & 0xFFFF == _BITS_ALLOCATED else b"")


def overlay_data_of(tag: int) -> int:
    """Return the tag of OverlayData in the group of a tag."""
    return tag & 0xFFFF0000 | _DATA


class Overlay(NamedTuple):
    """An overlay plane with its own OverlayData element.

    Parameters
    ----------
    tag
        Tag of OverlayData.
    rows, columns
        Size in pixels, may differ from the image.
    top, left
        Position of the first pixel on the image, counted from 0; may be outside the image.
    data
        The value of OverlayData: one bit per pixel, the first in the least significant bit, rows and frames without
        padding.
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
        """Convert regions of the image to regions of the plane; whole frames stay whole planes."""
        return [_moved(region, -self.left, -self.top) for region in regions]

    def on_image(self, rectangle: Rectangle) -> Rectangle:
        """Convert a rectangle of the plane to one of the image."""
        left, top, right, bottom = rectangle
        return Rectangle(left + self.left, top + self.top, right + self.left, bottom + self.top)

    def bits(self) -> bytearray:
        """Return a copy of the data in pixel order."""
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
    """Read an overlay plane.

    Parameters
    ----------
    header
        The object's original root elements.
    tag, data, swapped
        See `Overlay`.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if an attribute is missing or contradicts another or the data, because the position of
        text in the plane is then unknown.
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
    """Extend regions of an image to planes that reach beyond it.

    A region to blank that touches an edge of the image continues beyond that edge; a region to keep does not change.
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
    """Return a value, or the default if it is missing or empty."""
    value = header[tag].value if tag in header else None
    return default if value is None else value


def blanked_overlay(overlay: Overlay, regions: Sequence[Region]) -> bytes | None:
    """Return the data of a plane with regions blanked in every frame, or None if nothing changes.

    Frames beyond NumberOfFramesInOverlay are blanked like the others, and bits after the last whole frame are set to
    zero.
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


def embedded_planes(header: Dataset, rows: int, columns: int) -> list[int]:
    """Return the bit positions of overlay planes in unused bits of the samples (retired in PS3.3-2004).

    Such a plane is blanked with its samples.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if a plane does not have the size and origin of the image.
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
    """Return a mask of the bits of a cell that hold embedded overlay planes.

    Bits of the sample itself are never part of the mask. OverlayBitPosition is 0 if the plane has its own OverlayData.

    Parameters
    ----------
    header
        The object's original root elements.
    groups
        Groups of the planes.
    layout
        Layout of the image.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if a position is not a number, or inside the sample and the plane has no OverlayData.
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
    """Return uncompressed pixel data with the bits of a mask set to zero in every cell, or None if they are zero.

    Parameters
    ----------
    data
        The value of PixelData.
    layout
        Layout of the cells.
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
