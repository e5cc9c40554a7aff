"""Choose what to search for text in a multi-frame image, so that not every frame has to be searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dicom_deid.engine.pixels.images import Picture

LARGEST_CLIP = 64
"""Frames that are searched together; more are searched in several clips."""

_FEW = 3
_SAMPLED = 9
# A pixel that differs this much from the median of the clip may be part of a letter.
_NOVEL = 90
_NEIGHBOURS = 4
_LEAST_NOVEL_PIXELS = 30
# A projection without a difference of this much shows nothing.
_FLAT = 40
_REACH = 24
_SAME = 0.6


class Findings(NamedTuple):
    """Places of a picture that hold text for certain, and places that may."""

    sure: list[Rectangle]
    unsure: list[Rectangle]


Search = Callable[[Sequence["Picture"]], list[Findings]]
"""Search some pictures."""


def clip_text(frames: Sequence[Picture], search: Search) -> Findings:
    """Search the frames of a clip.

    The brightest and the darkest value of each pixel over time show text that stays in its place, in however few
    frames. Then the frame that differs most from the median of the clip, outside what was found, is searched, until
    such a frame shows no further text. Text that was found in one frame is followed through the others.
    """
    frames = _distinct(frames)
    if len(frames) <= _FEW:
        return _joined(search(frames))
    import numpy as np

    projections = [np.max(frames, axis=0), np.min(frames, axis=0)]
    shown = [projection for projection in projections if np.ptp(projection) >= _FLAT]
    found, doubtful = _joined(search(shown))
    unsure: list[Rectangle] = []
    greys = np.stack([_grey(frame) for frame in frames])
    novel = _novel(greys)
    _cover(novel, found)
    while (index := _most_novel(novel)) is not None:
        (here,) = search([frames[index]])
        unsure += here.unsure
        fresh = [rectangle for rectangle in here.sure if not _is_inside(rectangle, found)]
        novel[index] = False
        if not fresh:
            break
        found += [place for rectangle in fresh for place in _followed(greys, index, rectangle)]
        _cover(novel, found)
    doubtful = [rectangle for rectangle in doubtful if not _is_inside(rectangle, found)]
    for index in {_likest(greys, shown, rectangle) for rectangle in doubtful}:
        # Text that moves leaves traces in a projection: what is doubtful there is decided in a frame.
        (here,) = search([frames[index]])
        found += here.sure
        unsure += here.unsure
    return Findings(list(dict.fromkeys(found)), [one for one in unsure if not _is_inside(one, found)])


def _joined(findings: Sequence[Findings]) -> Findings:
    return Findings([one for some in findings for one in some.sure], [one for some in findings for one in some.unsure])


def _grey(picture: Picture) -> Picture:
    return picture if picture.ndim == 2 else picture.max(axis=-1)


def _most_novel(novel: NDArray[np.bool_]) -> int | None:
    """Return the index of the frame with the most pixels that differ, if these are enough for text."""
    counts = novel.reshape(len(novel), -1).sum(axis=1)
    index = int(counts.argmax())
    return index if counts[index] >= _LEAST_NOVEL_PIXELS else None


def _likest(greys: NDArray[np.uint8], projections: Sequence[Picture], rectangle: Rectangle) -> int:
    """Return the index of the frame that is most like a projection in a rectangle."""
    import numpy as np

    left, top, right, bottom = rectangle
    there = np.s_[max(top, 0) : bottom, max(left, 0) : right]
    distances = [
        np.abs(greys[:, there[0], there[1]] - _grey(projection)[there].astype(np.int16)).sum(axis=(1, 2))
        for projection in projections
    ]
    return int(np.min(distances, axis=0).argmin())


def _distinct(frames: Sequence[Picture]) -> list[Picture]:
    """Return the frames without those that equal the one before."""
    import numpy as np

    return [frame for index, frame in enumerate(frames) if not index or not np.array_equal(frame, frames[index - 1])]


def _novel(greys: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of each frame differ from the median of the clip as letters do: not alone."""
    import cv2
    import numpy as np

    sampled = greys[np.linspace(0, len(greys) - 1, _SAMPLED).round().astype(int)]
    median = np.median(sampled, axis=0).astype(np.int16)
    differ = [(np.abs(grey - median) > _NOVEL).astype(np.float32) for grey in greys]
    return np.stack([(one > 0) & (cv2.boxFilter(one, -1, (3, 3), normalize=False) >= _NEIGHBOURS) for one in differ])


def _cover(novel: NDArray[np.bool_], rectangles: Sequence[Rectangle]) -> None:
    for left, top, right, bottom in rectangles:
        novel[:, max(top, 0) : bottom, max(left, 0) : right] = False


def _is_inside(rectangle: Rectangle, others: Sequence[Rectangle]) -> bool:
    """Return whether a rectangle is inside one of others, except for its margin."""
    left, top, right, bottom = rectangle
    margin = max(3, (bottom - top) // 4)
    return any(
        other.left - margin <= left
        and other.top - margin <= top
        and other.right + margin >= right
        and other.bottom + margin >= bottom
        for other in others
    )


def _followed(greys: NDArray[np.uint8], index: int, rectangle: Rectangle) -> list[Rectangle]:
    """Return where the text of a rectangle in one frame is in the frames before and after it."""
    rows, columns = greys.shape[1:]
    left, top = max(rectangle.left, 0), max(rectangle.top, 0)
    right, bottom = min(rectangle.right, columns), min(rectangle.bottom, rows)
    template = greys[index, top:bottom, left:right]
    places = [rectangle]
    for step in (1, -1):
        at_x, at_y = left, top
        position = index + step
        while 0 <= position < len(greys):
            place = _place(greys[position], template, at_x, at_y)
            if place is None:
                break
            at_x, at_y = place
            places.append(
                Rectangle(
                    at_x - (left - rectangle.left),
                    at_y - (top - rectangle.top),
                    at_x + rectangle.right - left,
                    at_y + rectangle.bottom - top,
                )
            )
            position += step
    return places


def _place(grey: NDArray[np.uint8], template: NDArray[np.uint8], left: int, top: int) -> tuple[int, int] | None:
    """Return where a template is in a frame, near a place."""
    import cv2
    import numpy as np

    height, width = template.shape
    first_row, first_column = max(top - _REACH, 0), max(left - _REACH, 0)
    window = grey[first_row : top + height + _REACH, first_column : left + width + _REACH]
    if window.shape[0] < height or window.shape[1] < width or not np.ptp(template):
        return None
    matched = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(matched)
    return (first_column + column, first_row + row) if best >= _SAME else None
