"""Find bar codes and two-dimensional codes in pictures (extra `ocr`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dicom_deid.engine.pixels.images import Picture

_MARGIN = 4
# A row belongs to a linear code while it looks like the row in which the code was read.
_ALIKE = 0.5
# ISO/IEC 15424 identifiers of codes whose rows are all alike: Code 39, Code 128, EAN and UPC, Codabar, Code 93, ITF.
_LINEAR = ("]A", "]C", "]E", "]F", "]G", "]I")
_SAMPLED, _LEAST_ALIKE = 33, 0.5
# A code in the middle of others may be read only when they are blank.
_ROUNDS = 5


def barcode_regions(picture: Picture) -> tuple[tuple[Rectangle, ...], bool]:
    """Find codes in a picture.

    Returns
    -------
    tuple of Rectangle, bool
        What to blank, and whether no code can be read once that is blank.

    Raises
    ------
    ConfigurationError
        If the extra `ocr` is not installed.
    """
    try:
        import zxingcpp
    except ImportError:
        raise ConfigurationError(
            "The policy `ocr` needs the extra: pip install 'airflow-provider-dicom-deid[ocr]'"
        ) from None
    grey = picture if picture.ndim == 2 else picture.max(axis=-1)
    grey = grey.copy()
    found: list[Rectangle] = []
    for _ in range(_ROUNDS):
        places = [_corners(code) for code in zxingcpp.read_barcodes(grey) if _is_code(grey, code)]
        if not places:
            return tuple(found), True
        for corners in places:
            (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            whole = _grown(grey, Rectangle(left, top, right + 1, bottom + 1))
            found.append(whole)
            grey[max(whole.top, 0) : whole.bottom, max(whole.left, 0) : whole.right] = 0
    return tuple(found), not any(_is_code(grey, code) for code in zxingcpp.read_barcodes(grey))


def _corners(code: Any) -> NDArray[np.int32]:
    """Return the columns and rows of the corners where a code was read, clockwise."""
    import numpy as np

    place = code.position
    corners = (place.top_left, place.top_right, place.bottom_right, place.bottom_left)
    return np.array([(corner.x, corner.y) for corner in corners], np.int32)


def _is_code(grey: NDArray[np.uint8], code: Any) -> bool:
    """Return whether what was read as a code is one: a few rows of stripes may read as the digits of a linear code."""
    import cv2
    import numpy as np

    if code.symbology_identifier[:2] not in _LINEAR:
        return True
    first_start, first_stop, last_stop, last_start = _corners(code)
    count = int(np.linalg.norm(first_stop - first_start)) + 1
    first, last = np.linspace(first_start, first_stop, count), np.linspace(last_start, last_stop, count)
    columns, rows = np.linspace(first, last, _SAMPLED, dtype=np.float32).T
    read = cv2.remap(grey, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).T
    return bool(np.mean(_alike(read, _SAMPLED // 2)) > _LEAST_ALIKE)


def _grown(grey: NDArray[np.uint8], read: Rectangle) -> Rectangle:
    """Extend the lines in which a code was read over all of its bars, and add a margin."""
    left, top, right, bottom = _clipped(read, grey.shape)
    if right - left >= bottom - top:
        top, bottom = _extent(grey[:, left:right], top, bottom)
    else:
        left, right = _extent(grey[top:bottom].T, left, right)
    return Rectangle(left - _MARGIN, top - _MARGIN, right + _MARGIN, bottom + _MARGIN)


def _clipped(rectangle: Rectangle, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    left, top, right, bottom = rectangle
    return max(left, 0), max(top, 0), min(right, shape[1]), min(bottom, shape[0])


def _extent(lines: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int]:
    """Return the lines around some that correlate with the one in their middle."""
    alike = _alike(lines, (start + stop) // 2)
    while start > 0 and alike[start - 1]:
        start -= 1
    while stop < len(lines) and alike[stop]:
        stop += 1
    return start, stop


def _alike(lines: NDArray[Any], index: int) -> NDArray[np.bool_]:
    """Return which lines correlate with one of them."""
    import numpy as np

    centred = lines.astype(np.float32) - lines.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(centred[index]) + 1e-6
    alike: NDArray[np.bool_] = (centred @ centred[index]) / norms > _ALIKE
    return alike
