"""Sections ``%filter``: criteria for objects with burned-in text, and the regions of pixels to blank.

A filter is a label with criteria and coordinates. Every filter whose criteria match applies, in the order of the
recipe; coordinates are drawn in order on one mask, so that a later one overrides an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.criteria import CriteriaLine, parse_criteria
from dicom_deid.recipe.element_names import keywords, keywords_in_any_case
from dicom_deid.recipe.errors import RecipeSyntaxError, nearest


class Rectangle(NamedTuple):
    """Columns `left` to `right` - 1 and rows `top` to `bottom` - 1, counted from 0."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class Coordinates:
    """One line of coordinates: pixels to blank, or to keep after an earlier line blanked them.

    Parameters
    ----------
    keep
        Whether the pixels are kept (``keepcoordinates``) or blanked (``coordinates``).
    area
        A rectangle, the whole image, or the tag of a sequence whose items have ``RegionLocationMinX0``,
        ``RegionLocationMinY0``, ``RegionLocationMaxX1`` and ``RegionLocationMaxY1``, read as a rectangle's
        sides (PS3.3 section C.8.5.5.1.4).
    """

    keep: bool
    area: Rectangle | None = None
    from_tag: int | None = None

    def __str__(self) -> str:
        if self.area is not None:
            where = ",".join(map(str, self.area))
        elif self.from_tag is not None:
            where = f"from:{_keyword(self.from_tag)}"
        else:
            where = "all"
        return f"{'keepcoordinates' if self.keep else 'coordinates'} {where}"


@dataclass(frozen=True, slots=True)
class Filter:
    """One ``LABEL`` of a section ``%filter``.

    Parameters
    ----------
    group
        Name of the section, for example ``graylist``.
    label
        The name after ``LABEL``.
    lines
        All must hold; with none, the filter holds for every object. An operator at the beginning of a line changes
        nothing.
    coordinates
        In the order of the recipe; with none, the filter only flags an object.
    source, line
        Recipe file and line of the label, counted from 1.
    """

    group: str
    label: str
    lines: tuple[CriteriaLine, ...] = ()
    coordinates: tuple[Coordinates, ...] = ()
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        body = [*(f"+ {line}" if index else str(line) for index, line in enumerate(self.lines))]
        return "\n  ".join([f"LABEL {self.label}", *body, *map(str, self.coordinates)])

    def with_line(self, line: CriteriaLine | Coordinates) -> Filter:
        """Return the filter with one more line."""
        if isinstance(line, Coordinates):
            return replace(self, coordinates=(*self.coordinates, line))
        return replace(self, lines=(*self.lines, line))

    @property
    def tags(self) -> frozenset[int]:
        """The elements of the root data set whose values the criteria read."""
        return frozenset(criterion.tag for line in self.lines for criterion in line.criteria)

    def matches(self, value_of: Callable[[int], str | None]) -> bool:
        r"""Return whether the filter holds for an object.

        Parameters
        ----------
        value_of
            The value of an element of the root data set by its tag, as text, components joined by a backslash;
            empty if the element has no value, None if it is missing.
        """
        return all(line.holds(value_of) for line in self.lines)


_COORDINATES = re.compile(r"(ctp)?(keep)?coordinates(?=\s|$)", re.IGNORECASE)
_FOUR = re.compile(r"(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})")


def parse_filter_line(
    line: str, column: int, unknown: list[RecipeSyntaxError] | None = None
) -> CriteriaLine | Coordinates:
    """Read a line that follows ``LABEL``, see :func:`parse_criteria` and :func:`parse_coordinates`."""
    return parse_coordinates(line, column) if _COORDINATES.match(line) else parse_criteria(line, column, unknown)


def parse_coordinates(line: str, column: int) -> Coordinates:
    """Read a line of coordinates.

    Parameters
    ----------
    line
        Without comment and surrounding blanks.
    column
        Where the line begins.

    Raises
    ------
    RecipeSyntaxError
        Coordinates that are not four numbers in order, ``all``, or ``from:`` a sequence.
    """
    head = _COORDINATES.match(line)
    if head is None:
        raise RecipeSyntaxError("not a line of coordinates", column)
    where = line[head.end() :].strip()
    column += len(line) - len(where)
    keep = head[2] is not None
    if where.lower() == "all":
        return Coordinates(keep)
    if where.lower().startswith("from:") and not head[1]:
        return Coordinates(keep, from_tag=_sequence(where[5:].strip(), column + 5))
    four = _FOUR.fullmatch(where)
    if four is None:
        forms = "four numbers, or all" if head[1] else "four numbers, all, or from:SEQUENCE"
        raise RecipeSyntaxError(f"coordinates are {forms}", column)
    left, top, right, bottom = map(int, four.groups())
    if head[1]:
        # The CTP convention gives width and height instead of the far sides.
        right, bottom = left + right, top + bottom
    if left > right or top > bottom:
        raise RecipeSyntaxError("coordinates are xmin,ymin,xmax,ymax: a maximum is below its minimum", column)
    return Coordinates(keep, Rectangle(left, top, right, bottom))


def _sequence(text: str, column: int) -> int:
    tag = keywords_in_any_case().get(text.lower())
    sequences = [keyword for keyword in keywords() if keyword.endswith("Sequence") or keyword.startswith("SequenceOf")]
    if tag is None:
        raise RecipeSyntaxError(f"unknown sequence '{text}'", column, nearest(text, sequences))
    if vr_of(tag) != "SQ":
        raise RecipeSyntaxError(f"{text} is not a sequence", column)
    return tag


def _keyword(tag: int) -> str:
    return next(keyword for keyword, its_tag in keywords().items() if its_tag == tag)
