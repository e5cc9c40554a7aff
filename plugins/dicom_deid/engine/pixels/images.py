"""Render frames as 8-bit grey or RGB pictures for text search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.engine.pixels import codec
from dicom_deid.engine.pixels.layout import PIXEL_DATA, layout_of
from dicom_deid.engine.pixels.overlays import Overlay, embedded_planes
from dicom_deid.engine.pixels.regions import Region, bands
from dicom_deid.engine.pixels.risk import is_video
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

    Picture = NDArray[np.uint8]

# If few pixels take most of the range, such as letters at the top of a 16-bit range, a second picture stretches the
# rest.
_OUTLIERS = (1.0, 99.0)
_WORTH_A_SECOND_PICTURE = 0.6
COLOURED = 64
"""A pixel has a colour if its channels differ by more."""
# An image is searched in colour too if this share of its pixels has a colour.
_LEAST_COLOURED = 0.0005


def pictures(
    header: Dataset, pixel_data: bytes | memoryview, transfer_syntax_uid: str, vr: str = "OW"
) -> Iterator[list[Picture]]:
    """Yield the pictures of each frame: one, or two if one range of grey does not show everything.

    Overlay planes in unused bits of the samples follow as separate pictures.

    Parameters
    ----------
    header
        The object's original root elements, at least group 0028.
    pixel_data, transfer_syntax_uid, vr
        As for `clean_pixels`.

    Raises
    ------
    Quarantine
        `video`, or `pixel-data-unreadable` if the frames cannot be decoded.
    """
    if is_video(transfer_syntax_uid):
        raise Quarantine(Reason.VIDEO, PIXEL_DATA)
    layout = layout_of(header)
    planes = embedded_planes(header, layout.rows, layout.columns)
    frames = codec.iterate(pixel_data, header, layout, transfer_syntax_uid, vr)
    for array, photometric in frames:
        yield _rendered(array, photometric, header)
    if planes:
        whole = codec.iterate(pixel_data, header, layout, transfer_syntax_uid, vr, unused_bits=True)
        for array, _ in whole:
            yield [_plane(array, position) for position in planes]


def without_regions(shown: list[Picture], regions: Sequence[Region]) -> list[Picture]:
    """Return copies of pictures with regions blanked."""
    copies = [picture.copy() for picture in shown]
    for picture in copies:
        for band in bands(regions, *picture.shape[:2]):
            for left, right in band.spans:
                picture[band.top : band.bottom, left:right] = 0
    return copies


def overlay_pictures(overlay: Overlay) -> Iterator[Picture]:
    """Yield each frame of an overlay plane that is not empty, white on black."""
    import numpy as np

    size = overlay.rows * overlay.columns
    every = np.unpackbits(np.frombuffer(overlay.bits(), np.uint8), bitorder="little")
    for start in range(0, len(every) - size + 1, size):
        frame = every[start : start + size]
        if frame.any():
            yield frame.reshape(overlay.rows, overlay.columns) * np.uint8(255)


def _rendered(array: NDArray[Any], photometric: str, header: Dataset) -> list[Picture]:
    """Return a frame's pictures."""
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut, convert_color_space

    if photometric == "PALETTE COLOR":
        try:
            colours = apply_color_lut(array, header)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise Quarantine(Reason.PIXEL_DATA_UNREADABLE, "Palette Color Lookup Table") from None
        return _colours(colours[..., :3])
    if array.ndim == 3:
        if photometric.startswith("YBR") and array.dtype == np.uint8:
            array = convert_color_space(array, "YBR_FULL", "RGB")
        return _colours(array)
    is_wide = array.dtype.itemsize > 1
    if photometric == "MONOCHROME1":
        array = array.max() - array.astype(np.int64)
    return _greys(array, is_wide=is_wide)


def _colours(array: NDArray[Any]) -> list[Picture]:
    """Return the brightness of a colour image and, if it shows colours that differ, the colours as well.

    Each channel is stretched to its own range first: the detector misses letters in an image of one tint, and yellow
    and orange ones, that it finds in grey. Letters that differ from their ground in colour alone need the colours.
    """
    import cv2
    import numpy as np

    channels = [_stretched(array[..., index], 0, int(array[..., index].max())) for index in range(3)]
    colours = np.stack(channels, axis=-1)
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    spread = np.maximum.reduce(channels) - np.minimum.reduce(channels)
    is_coloured = np.count_nonzero(spread > COLOURED) > _LEAST_COLOURED * spread.size
    return [grey, colours] if is_coloured else [grey]


def _plane(array: NDArray[Any], position: int) -> Picture:
    """Return one bit of each sample, white on black."""
    import numpy as np

    return ((array >> position) & 1).astype(np.uint8) * np.uint8(255)


def _greys(array: NDArray[Any], *, is_wide: bool) -> list[Picture]:
    """Return one picture of the full range and, of wide samples, one of the range of most pixels if much smaller."""
    import numpy as np

    least, most = int(array.min()), int(array.max())
    found = [_stretched(array, least, most)]
    if is_wide:
        low, high = (int(edge) for edge in np.percentile(array, _OUTLIERS))
        if low < high < low + _WORTH_A_SECOND_PICTURE * (most - least):
            found.append(_stretched(array, low, high))
    return found


def _stretched(array: NDArray[Any], low: int, high: int) -> Picture:
    """Map a range of stored values to 0 to 255."""
    import cv2
    import numpy as np

    values = np.arange(256) if array.dtype == np.uint8 else array
    scale = 255.0 / max(high - low, 1)
    stretched: Any = np.clip((values.astype(np.float32) - low) * scale, 0, 255).astype(np.uint8)
    picture: Picture = stretched if values is array else np.asarray(cv2.LUT(array, stretched), np.uint8)
    return picture
