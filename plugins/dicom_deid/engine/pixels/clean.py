"""Blank regions in every frame of an image, in any encoding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine.pixels import codec
from dicom_deid.engine.pixels.layout import PIXEL_DATA, UNREADABLE, Layout, black_of, layout_of
from dicom_deid.engine.pixels.native import blank_native
from dicom_deid.engine.pixels.overlays import (
    Overlay,
    beyond_edges,
    bits_of_planes,
    blanked_overlay,
    embedded_planes,
    without_planes,
)
from dicom_deid.engine.pixels.regions import Band, Region, bands
from dicom_deid.engine.pixels.risk import is_video
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    from pydicom import Dataset

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
NATIVE = frozenset({_IMPLICIT_LITTLE, _EXPLICIT_LITTLE, _DEFLATED, _EXPLICIT_BIG})

_IMAGE_TYPE = 0x00080008
_BURNED_IN_ANNOTATION = 0x00280301
_LOSSY_IMAGE_COMPRESSION = 0x00282110
# Elements that describe or repeat the original pixels: the thumbnail shows what was blanked, the extreme values may be
# those of the text, the offsets point into the original frames.
_ICON_IMAGE_SEQUENCE = 0x00880200
_STALE = (0x00280106, 0x00280107, _ICON_IMAGE_SEQUENCE, 0x7FE00001, 0x7FE00002)


@dataclass(frozen=True, slots=True)
class CleanedPixels:
    """Pixel data with regions blanked.

    Parameters
    ----------
    data
        The new value of PixelData; if encapsulated, items without the sequence delimitation item. None if only overlays
        change.
    transfer_syntax_uid
        Its transfer syntax: that of the source, or explicit VR little endian.
    encapsulated
        Whether PixelData has an undefined length and holds items (PS3.5 section A.4).
    vr
        OB or OW.
    elements
        Root elements that must change too: tag to new value, or to None for an element to remove, which may not exist.
    notes
        Number of each reason, for the audit.
    overlays
        New values of OverlayData, by tag.
    """

    data: bytes | bytearray | None
    transfer_syntax_uid: str
    encapsulated: bool
    vr: str
    elements: Mapping[int, object]
    notes: Mapping[Reason, int] = field(default_factory=lambda: {Reason.PIXELS_CLEANED: 1})
    overlays: Mapping[int, bytes] = field(default_factory=dict)


def clean_pixels(
    header: Dataset,
    pixel_data: bytes | memoryview,
    transfer_syntax_uid: str,
    regions: Sequence[Region],
    *,
    recompress: bool = True,
    vr: str = "OW",
) -> CleanedPixels | None:
    """Blank regions in every frame.

    Uncompressed frames are changed in place on one copy; no byte outside the regions changes. JPEG frames of 8 bits are
    changed in their coefficients, by whole coding units. Other compressed frames are decoded, blanked, and encoded
    again in the same transfer syntax if that is lossless (RLE, JPEG lossless, JPEG-LS lossless, JPEG 2000 lossless,
    HTJ2K lossless) and returns the same samples; otherwise they are written uncompressed. Nothing is compressed with
    loss a second time.

    Parameters
    ----------
    header
        The object's original root elements: groups 0008 and 0028, the extended offset table if present.
    pixel_data
        The value of PixelData; if encapsulated, with or without the sequence delimitation item.
    transfer_syntax_uid
        From the file meta information; the bytes of a deflated data set are passed inflated.
    regions
        Regions to blank or keep, in order.
    recompress
        False to write compressed frames uncompressed.
    vr
        VR of PixelData in the source; matters in explicit VR big endian.

    Returns
    -------
    CleanedPixels or None
        None if the regions blank nothing of this image.

    Raises
    ------
    Quarantine
        `video`, or `pixel-data-unreadable` if the pixels cannot be decoded reliably.
    """
    if is_video(transfer_syntax_uid):
        raise Quarantine(Reason.VIDEO, PIXEL_DATA)
    layout = layout_of(header)
    blanked = bands(regions, layout.rows, layout.columns)
    if not blanked:
        return None
    # Planes in unused bits are blanked with their samples; a plane with another origin or size is refused.
    embedded_planes(header, layout.rows, layout.columns)
    if transfer_syntax_uid in NATIVE:
        data = blank_native(
            pixel_data, layout, blanked, big_endian=transfer_syntax_uid == _EXPLICIT_BIG, words=vr == "OW"
        )
        return CleanedPixels(data, transfer_syntax_uid, False, vr, _described(header))
    if not codec.can_decode(transfer_syntax_uid):
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    return _clean_compressed(header, pixel_data, transfer_syntax_uid, layout, blanked, recompress=recompress)


def with_overlays(
    cleaned: CleanedPixels | None,
    header: Dataset,
    overlays: Sequence[Overlay],
    regions: Sequence[Region],
    transfer_syntax_uid: str,
) -> CleanedPixels | None:
    """Blank regions in overlay planes too.

    Parameters
    ----------
    cleaned
        Result of `clean_pixels`.
    header
        As for `clean_pixels`.
    overlays
        The planes that the object keeps.
    regions
        Regions to blank or keep, in order, in pixels of the image.
    transfer_syntax_uid
        Transfer syntax of the source.
    """
    if not overlays or not regions:
        return cleaned
    layout = layout_of(header)
    regions = beyond_edges(regions, layout.rows, layout.columns)
    changed = {one.tag: new for one in overlays if (new := blanked_overlay(one, regions)) is not None}
    if not changed:
        return cleaned
    if cleaned is None:
        # The thumbnail may show the overlay.
        cleaned = CleanedPixels(None, transfer_syntax_uid, False, "", {_ICON_IMAGE_SEQUENCE: None})
    return replace(cleaned, overlays=changed)


def without_embedded_planes(
    cleaned: CleanedPixels | None,
    header: Dataset,
    pixel_data: bytes | memoryview,
    transfer_syntax_uid: str,
    groups: Collection[int],
    *,
    vr: str,
) -> CleanedPixels | None:
    """Blank overlay planes in unused bits of the samples whose description the rules remove.

    Parameters
    ----------
    cleaned
        Result of the other cleaning steps.
    header, pixel_data, transfer_syntax_uid, vr
        As for `clean_pixels`.
    groups
        Groups of those planes.

    Raises
    ------
    Quarantine
        `pixel-data-unreadable` if such a plane is in compressed pixels or overlaps the bits of the samples.
    """
    layout = layout_of(header)
    mask = bits_of_planes(header, groups, layout)
    if not mask:
        return cleaned
    if transfer_syntax_uid not in NATIVE:
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    data = pixel_data if cleaned is None or cleaned.data is None else cleaned.data
    new = without_planes(data, layout, mask, big_endian=transfer_syntax_uid == _EXPLICIT_BIG)
    if new is None:
        return cleaned
    if cleaned is None:
        # The thumbnail may show the plane.
        return CleanedPixels(new, transfer_syntax_uid, False, vr, {_ICON_IMAGE_SEQUENCE: None})
    return replace(cleaned, data=new, vr=vr)


def _clean_compressed(
    header: Dataset,
    pixel_data: bytes | memoryview,
    transfer_syntax_uid: str,
    layout: Layout,
    blanked: Sequence[Band],
    *,
    recompress: bool,
) -> CleanedPixels:
    """Blank JPEG frames in their coefficients; else decode, blank, and encode again if that is lossless."""
    lossy = transfer_syntax_uid in codec.LOSSY
    if recompress and transfer_syntax_uid in codec.JPEG_SEQUENTIAL:
        value = codec.blank_coefficients(pixel_data, header, layout, transfer_syntax_uid, blanked)
        if value is not None:
            return CleanedPixels(value, transfer_syntax_uid, True, "OB", _described(header, lossy=True))
    frames, decoded = codec.decode(pixel_data, header, layout, transfer_syntax_uid)
    if (decoded.rows, decoded.columns) != (layout.rows, layout.columns):
        raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, PIXEL_DATA)
    decoded = decoded.replace(black=black_of(decoded, header))
    single = decoded.replace(frames=1)
    cleaned = [bytes(blank_native(frame, single, blanked)) for frame in frames]
    elements = _described(header, lossy=lossy) | _laid_out(decoded)
    if recompress and codec.can_encode(transfer_syntax_uid):
        encoded = codec.encode(cleaned, decoded, transfer_syntax_uid)
        if encoded is not None:
            value, stored = encoded
            return CleanedPixels(value, transfer_syntax_uid, True, "OB", elements | _laid_out(stored))
    data = bytearray().join(cleaned)
    data += bytes(len(data) % 2)
    vr = "OW" if decoded.bits_allocated > 8 else "OB"
    notes = {Reason.PIXELS_CLEANED: 1, Reason.PIXELS_DECOMPRESSED: 1}
    return CleanedPixels(data, _EXPLICIT_LITTLE, False, vr, elements, notes)


def _described(header: Dataset, *, lossy: bool = False) -> dict[int, object]:
    """Return the elements that describe cleaned pixels (PS3.3 section C.7.6.1.1.2, PS3.15 section E.3.1)."""
    elements: dict[int, object] = dict.fromkeys(_STALE)
    try:
        image_type = header.get("ImageType")
        parts = [image_type] if isinstance(image_type, str) else list(image_type or ())
    except UNREADABLE:
        raise Quarantine(Reason.MALFORMED, tag_text(_IMAGE_TYPE)) from None
    if image_type:
        elements[_IMAGE_TYPE] = ["DERIVED", *parts[1:]]
    elements[_BURNED_IN_ANNOTATION] = "NO"
    if lossy:
        elements[_LOSSY_IMAGE_COMPRESSION] = "01"
    return elements


def _laid_out(layout: Layout) -> dict[int, object]:
    """Return the elements of the Image Pixel module that decoding may change."""
    return {
        0x00280002: layout.samples,
        0x00280004: layout.photometric,
        0x00280006: 0 if layout.samples > 1 else None,
        0x00280100: layout.bits_allocated,
        0x00280101: layout.bits_stored,
        0x00280102: layout.high_bit,
    }
