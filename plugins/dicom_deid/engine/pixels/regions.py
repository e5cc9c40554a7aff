"""Compute which pixels of a frame are blanked, from rectangles applied in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from dicom_deid.recipe.filters import Rectangle

_LARGEST_SIDE = 2**16
"""Rows and Columns are 16-bit numbers."""


class Region(NamedTuple):
    """A step of a mask: blank a rectangle, or keep pixels that an earlier step blanked.

    `rectangle` is None for the whole frame; it may reach beyond the frame.
    """

    blank: bool
    rectangle: Rectangle | None = None


class Band(NamedTuple):
    """Rows `top` to `bottom` (exclusive) of a frame, in which the same spans of columns are blanked."""

    top: int
    bottom: int
    spans: tuple[tuple[int, int], ...]


def bands(regions: Sequence[Region], rows: int, columns: int) -> tuple[Band, ...]:
    """Return the parts of a frame that are blanked after all regions, from top to bottom.

    Parameters
    ----------
    regions
        Steps in the order of the recipe; a later one overrides an earlier one where they overlap.
    rows, columns
        Size of the frame in pixels.

    Examples
    --------
    >>> bands([Region(True), Region(False, Rectangle(1, 1, 3, 2))], rows=3, columns=4)
    (Band(top=0, bottom=1, spans=((0, 4),)), Band(top=1, bottom=2, spans=((0, 1), (3, 4))), Band(top=2, bottom=3, \
spans=((0, 4),)))
    """
    steps = [(region.blank, _inside(region.rectangle, rows, columns)) for region in regions]
    edges = sorted({0, rows, *(edge for _, inside in steps for edge in (inside.top, inside.bottom))})
    found = []
    for top, bottom in pairwise(edges):
        spans = _spans((blank, inside) for blank, inside in steps if inside.top <= top < inside.bottom)
        if spans:
            found.append(Band(top, bottom, spans))
    return tuple(found)


def outside(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """Return the rectangles that cover everything outside others, as far as a frame can reach."""
    steps = [Region(True), *(Region(False, rectangle) for rectangle in rectangles)]
    return [
        Rectangle(left, band.top, right, band.bottom)
        for band in bands(steps, _LARGEST_SIDE, _LARGEST_SIDE)
        for left, right in band.spans
    ]


def _inside(rectangle: Rectangle | None, rows: int, columns: int) -> Rectangle:
    """Return the part of a rectangle inside the frame; empty rectangles become zeros."""
    if rectangle is None:
        return Rectangle(0, 0, columns, rows)
    left, right = max(rectangle.left, 0), min(rectangle.right, columns)
    top, bottom = max(rectangle.top, 0), min(rectangle.bottom, rows)
    if left >= right or top >= bottom:
        return Rectangle(0, 0, 0, 0)
    return Rectangle(left, top, right, bottom)


def _spans(steps: Iterable[tuple[bool, Rectangle]]) -> tuple[tuple[int, int], ...]:
    """Return the spans of columns that are blank after all steps, in order and merged."""
    spans: list[tuple[int, int]] = []
    for blank, (left, _, right, _) in steps:
        rest = [part for span in spans for part in ((span[0], min(span[1], left)), (max(span[0], right), span[1]))]
        spans = [part for part in rest if part[0] < part[1]]
        if blank:
            spans.append((left, right))
    merged: list[tuple[int, int]] = []
    for left, right in sorted(spans):
        if merged and left <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
        else:
            merged.append((left, right))
    return tuple(merged)
