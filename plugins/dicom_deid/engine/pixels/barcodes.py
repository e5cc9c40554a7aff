"""Find bar codes and two-dimensional codes in pictures (extra `ocr`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dicom_deid.engine.pixels.images import Picture

_MARGIN = 4
# A row belongs to a linear code while it looks like the row in which the code was read.
_ALIKE = 0.5
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
        codes = zxingcpp.read_barcodes(grey)
        if not codes:
            return tuple(found), True
        for code in codes:
            place = code.position
            corners = [place.top_left, place.top_right, place.bottom_left, place.bottom_right]
            across, down = [corner.x for corner in corners], [corner.y for corner in corners]
            read = Rectangle(min(across), min(down), max(across) + 1, max(down) + 1)
            whole = _grown(grey, read)
            found.append(whole)
            grey[max(whole.top, 0) : whole.bottom, max(whole.left, 0) : whole.right] = 0
    return tuple(found), not zxingcpp.read_barcodes(grey)


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
    import numpy as np

    centred = lines.astype(np.float32) - lines.mean(axis=1, keepdims=True)
    middle = centred[(start + stop) // 2]
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(middle) + 1e-6
    alike = (centred @ middle) / norms > _ALIKE
    while start > 0 and alike[start - 1]:
        start -= 1
    while stop < len(lines) and alike[stop]:
        stop += 1
    return start, stop
