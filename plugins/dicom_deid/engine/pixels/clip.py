"""Choose what to search for text in a multi-frame image, so that not every frame has to be searched."""

from __future__ import annotations

from collections import defaultdict
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
# Pixels that change less over time are searched in one projection alone.
_STILL = 16
# Pixels around what differs that are searched with it: the line of text that it is part of.
_CONTEXT = 96
# Text that keeps its speed is looked for nearby, at a high correlation, and otherwise further away.
_NEAR, _EQUAL = 2, 0.9
_REACH, _SAME = 24, 0.6


class Findings(NamedTuple):
    """Places of a picture that hold text for certain, and places that may."""

    sure: list[Rectangle]
    unsure: list[Rectangle]


Search = Callable[[Sequence["Picture"]], list[Findings]]
"""Search some pictures."""


def clip_text(frames: Sequence[Picture], search: Search) -> Findings:
    """Search the frames of a clip.

    The frame that differs most from the median of the clip is searched where it differs, until such a frame shows no
    further text. Text that was found in one frame is followed through the others. Then the brightest and the darkest
    value of each pixel over time show text that stays in its place, in however few frames.
    """
    distinct = _distinct(frames)
    if len(distinct) <= _FEW:
        return _joined(search(distinct))
    import numpy as np

    clip = np.stack(distinct)
    brightest, darkest = clip.max(axis=0), clip.min(axis=0)
    found, unsure = _search_frames(clip, _changed(brightest, darkest), brightest, darkest, search)
    changed = _changed(brightest, darkest)
    still, doubtful = _search_parts([(brightest, np.ones_like(changed)), (darkest, changed)], search)
    found += still
    # Doubtful findings in a projection are decided in a frame.
    places: dict[int, NDArray[np.bool_]] = defaultdict(lambda: np.zeros_like(changed))
    for rectangle in doubtful:
        if not _is_inside(rectangle, found):
            index = _likest(clip, (brightest, darkest), rectangle)
            places[index][_pixels(rectangle)] = True
    here = _search_parts([(clip[index], marked) for index, marked in places.items()], search)
    found += here.sure
    unsure += here.unsure
    return Findings(list(dict.fromkeys(found)), [one for one in unsure if not _is_inside(one, found)])


def _search_frames(
    clip: Picture, changed: NDArray[np.bool_], brightest: Picture, darkest: Picture, search: Search
) -> Findings:
    """Search the frames that differ most from the median of a clip, until one shows no further text.

    The median replaces what was found in the projections, since text that moves leaves traces there.
    """
    import numpy as np

    there = _around(changed)
    if there is None:
        return Findings([], [])
    parts = clip[:, *there]
    sampled = parts[np.linspace(0, len(parts) - 1, _SAMPLED).round().astype(int)]
    median = np.partition(sampled, _SAMPLED // 2, axis=0)[_SAMPLED // 2]
    found: list[Rectangle] = []
    unsure: list[Rectangle] = []
    greys = parts if parts.ndim == 3 else parts.max(axis=-1)
    novel = _novel(greys, _grey(median))
    while (index := _most_novel(novel)) is not None:
        here = _search_parts([(parts[index], novel[index])], search)
        unsure += here.unsure
        fresh = [rectangle for rectangle in here.sure if not _is_inside(rectangle, found)]
        novel[index] = False
        if not fresh:
            break
        found += [place for rectangle in fresh for place in _followed(greys, index, rectangle)]
        for rectangle in found:
            novel[:, *_pixels(rectangle)] = False
    for rectangle in found:
        where = _pixels(rectangle)
        brightest[there][where] = darkest[there][where] = median[where]
    return _moved(Findings(found, unsure), there)


def _search_parts(parts: Sequence[tuple[Picture, NDArray[np.bool_]]], search: Search) -> Findings:
    """Search each picture where something is marked in it, and around that."""
    places = [(picture, there) for picture, marked in parts if (there := _around(marked)) is not None]
    found = search([picture[there] for picture, there in places])
    return _joined([_moved(each, there) for each, (_, there) in zip(found, places, strict=True)])


def _around(marked: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return the rows and columns of what is marked and of what is around it."""
    import numpy as np

    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if not len(rows):
        return None
    return (
        slice(max(int(rows[0]) - _CONTEXT, 0), int(rows[-1]) + _CONTEXT),
        slice(max(int(columns[0]) - _CONTEXT, 0), int(columns[-1]) + _CONTEXT),
    )


def _pixels(rectangle: Rectangle) -> tuple[slice, slice]:
    """Return the rows and columns of a rectangle."""
    left, top, right, bottom = rectangle
    return slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))


def _moved(findings: Findings, there: tuple[slice, slice]) -> Findings:
    """Return findings in a part of a picture in the pixels of the picture."""
    top, left = there[0].start, there[1].start
    sure, unsure = (
        [Rectangle(one.left + left, one.top + top, one.right + left, one.bottom + top) for one in some]
        for some in findings
    )
    return Findings(sure, unsure)


def _joined(findings: Sequence[Findings]) -> Findings:
    return Findings([one for some in findings for one in some.sure], [one for some in findings for one in some.unsure])


def _grey(picture: Picture) -> Picture:
    return picture if picture.ndim == 2 else picture.max(axis=-1)


def _most_novel(novel: NDArray[np.bool_]) -> int | None:
    """Return the index of the frame with the most pixels that differ, if these are enough for text."""
    import numpy as np

    counts = [np.count_nonzero(frame) for frame in novel]
    most = max(counts)
    return counts.index(most) if most >= _LEAST_NOVEL_PIXELS else None


def _likest(clip: Picture, projections: Sequence[Picture], rectangle: Rectangle) -> int:
    """Return the index of the frame that is most like a projection in a rectangle."""
    import numpy as np

    where = _pixels(rectangle)
    frames = clip[:, *where].reshape(len(clip), -1).astype(np.int16)
    distances = [np.abs(frames - projection[where].ravel()).sum(axis=1) for projection in projections]
    return int(np.min(distances, axis=0).argmin())


def _changed(brightest: Picture, darkest: Picture) -> NDArray[np.bool_]:
    """Return which pixels differ over time."""
    return _together(_grey(brightest - darkest) > _STILL)


def _distinct(frames: Sequence[Picture]) -> list[Picture]:
    """Return the frames without those that equal the one before."""
    import numpy as np

    return [frame for index, frame in enumerate(frames) if not index or not np.array_equal(frame, frames[index - 1])]


def _novel(greys: NDArray[np.uint8], median: Picture) -> NDArray[np.bool_]:
    """Return which pixels of each frame differ from the median of the clip as letters do: not alone."""
    import cv2
    import numpy as np

    return np.stack([_together(cv2.absdiff(grey, median) > _NOVEL) for grey in greys])


def _together(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the marked pixels that have some others beside them."""
    import cv2
    import numpy as np

    around = cv2.boxFilter(marked.astype(np.uint8), -1, (3, 3), normalize=False)
    found: NDArray[np.bool_] = marked & (around >= _NEIGHBOURS)
    return found


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
    import numpy as np

    rows, columns = greys.shape[1:]
    left, top = max(rectangle.left, 0), max(rectangle.top, 0)
    right, bottom = min(rectangle.right, columns), min(rectangle.bottom, rows)
    template = greys[index, top:bottom, left:right]
    places = [rectangle]
    if not np.ptp(template):
        return places
    for step in (1, -1):
        at_x, at_y, speed_x, speed_y = left, top, 0, 0
        position = index + step
        while 0 <= position < len(greys):
            grey = greys[position]
            place = _place(grey, template, at_x + speed_x, at_y + speed_y, _NEAR, _EQUAL)
            place = place or _place(grey, template, at_x, at_y, _REACH, _SAME)
            if place is None:
                break
            speed_x, speed_y = place[0] - at_x, place[1] - at_y
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


def _place(
    grey: NDArray[np.uint8], template: NDArray[np.uint8], left: int, top: int, reach: int, least: float
) -> tuple[int, int] | None:
    """Return where a template is in a frame, near a place, if it correlates with it enough."""
    import cv2

    height, width = template.shape
    first_row, first_column = max(top - reach, 0), max(left - reach, 0)
    window = grey[first_row : max(top + height + reach, 0), first_column : max(left + width + reach, 0)]
    if window.shape[0] < height or window.shape[1] < width:
        return None
    matched = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(matched)
    return (first_column + column, first_row + row) if best >= least else None
