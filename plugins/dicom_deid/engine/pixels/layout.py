"""Layout of the samples of an image in its bytes (PS3.3 section C.7.6.3, PS3.5 section 8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydicom.errors import BytesLengthException

from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    from pydicom import Dataset

PIXEL_DATA = "(7fe0,0010)"

UNREADABLE = (AttributeError, BytesLengthException, KeyError, TypeError, ValueError)
"""Exceptions of pydicom for an attribute that is missing or not a number."""

_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_PARTIAL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
"""Interpretations in which two pixels share their colour, stored as Y1 Y2 CB CR (PS3.3 section C.7.6.3.1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The attributes of the Image Pixel module that describe position and meaning of each sample.

    `black` is the darkest stored value of each sample, in the order of the samples.
    """

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool
    black: tuple[int, ...]

    @property
    def packed_bits(self) -> bool:
        """True if eight pixels share a byte (BitsAllocated 1; PS3.5 section 8.1.1)."""
        return self.bits_allocated == 1

    @property
    def subsampled(self) -> bool:
        """True if two pixels share their colour."""
        return self.photometric in SUBSAMPLED

    @property
    def frame_bits(self) -> int:
        """Bits of one frame, uncompressed."""
        samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    def replace(self, **changes: Any) -> Layout:
        """Return a copy with the given fields changed."""
        return replace(self, **changes)


def layout_of(header: Dataset) -> Layout:
    """Read the layout from a header.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if an attribute is missing, contradicts another or has an unsupported value.
    """
    try:
        photometric = str(header.PhotometricInterpretation)
        allocated = int(header.BitsAllocated)
        stored = int(header.get("BitsStored") or allocated)
        layout = Layout(
            rows=int(header.Rows),
            columns=int(header.Columns),
            frames=int(header.get("NumberOfFrames") or 1),
            samples=int(header.SamplesPerPixel),
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=int(header["HighBit"].value) if "HighBit" in header else stored - 1,
            signed=int(header.get("PixelRepresentation") or 0) == 1,
            photometric=photometric,
            planar=int(header.get("PlanarConfiguration") or 0) == 1 and photometric not in SUBSAMPLED,
            black=(),
        )
    except UNREADABLE:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, "Image Pixel module") from None
    if not _is_consistent(layout):
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, "Image Pixel module")
    return layout.replace(black=black_of(layout, header))


def _is_consistent(layout: Layout) -> bool:
    """Return whether the values of a layout are consistent and supported."""
    return (
        min(layout.rows, layout.columns, layout.frames) > 0
        and layout.samples == _SAMPLES.get(layout.photometric)
        and layout.bits_allocated in (1, 8, 16, 32)
        and (layout.bits_allocated > 1 or layout.samples == 1)
        and 0 < layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated
        and (not layout.subsampled or layout.bits_allocated == 8)
    )


def black_of(layout: Layout, header: Dataset) -> tuple[int, ...]:
    """Return the darkest stored value of each sample of an interpretation (PS3.3 section C.7.6.3.1.2)."""
    least = -(1 << (layout.bits_stored - 1)) if layout.signed else 0
    most = least + (1 << layout.bits_stored) - 1
    middle = 1 << (layout.bits_stored - 1)
    if layout.photometric == "MONOCHROME1":
        return (most,)
    if layout.photometric == "PALETTE COLOR":
        return (_darkest_index(layout, header),)
    if layout.photometric.startswith("YBR_PARTIAL"):
        return (middle >> 3, middle, middle)
    if layout.photometric.startswith("YBR"):
        return (0, middle, middle)
    return (least,) * layout.samples


def _darkest_index(layout: Layout, header: Dataset) -> int:
    """Return the index of the darkest colour of a palette, or 0 if the palette cannot be read.

    Any index hides what it replaces, so an unreadable palette is safe.
    """
    if layout.bits_stored > 16:
        return 0
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut

    dtype = np.uint8 if layout.bits_stored <= 8 else np.uint16
    indices = np.arange(1 << layout.bits_stored).astype(dtype)
    try:
        colours = apply_color_lut(indices, header)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return 0
    return int(np.argmin(colours[..., :3].astype(np.uint32).sum(axis=-1)))


def sample_bytes(layout: Layout, value: int, *, big_endian: bool) -> bytes:
    """Return one stored value as the cell of BitsAllocated bits that holds it (PS3.5 section 8.1.1).

    Bits outside the value are set to its sign, so that overlay planes in unused bits are blanked with it.
    """
    shifted = value << (layout.high_bit + 1 - layout.bits_stored)
    cell = shifted & ((1 << layout.bits_allocated) - 1)
    return cell.to_bytes(layout.bits_allocated // 8, "big" if big_endian else "little")
