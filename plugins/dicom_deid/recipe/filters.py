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
    """One line of coordinates: pixels to blank, or to keep after an earlier line blanked them, or text that may stay.

    Parameters
    ----------
    keep
        Whether the pixels are kept (``keepcoordinates``) or blanked (``coordinates``).
    area
        A rectangle; None for the whole image or the regions of a sequence.
    from_tag
        Tag of a sequence whose items have ``RegionLocationMinX0``, ``RegionLocationMinY0``, ``RegionLocationMaxX1``
        and ``RegionLocationMaxY1``, read as a rectangle's sides (PS3.3 section C.8.5.5.1.4).
    outside
        Whether the pixels outside the rectangles of the sequence are meant (``outside:``) instead of those inside
        (``from:``).
    text
        Whether the pixels are neither blanked nor kept, but may show text (``textcoordinates``): a search for text
        leaves them out.
    """

    keep: bool
    area: Rectangle | None = None
    from_tag: int | None = None
    outside: bool = False
    text: bool = False

    def __str__(self) -> str:
        if self.area is not None:
            where = ",".join(map(str, self.area))
        elif self.from_tag is not None:
            where = f"{'outside' if self.outside else 'from'}:{_keyword(self.from_tag)}"
        else:
            where = "all"
        return f"{'keep' if self.keep else 'text' if self.text else ''}coordinates {where}"


class Clears(NamedTuple):
    """The line ``clears``: the risks that a label answers for, by their reason codes."""

    risks: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(("clears", *self.risks))


CLEARABLE = ("burned-in-annotation", "pixel-risk")
"""Reason codes that a label can clear."""


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
        In the order of the recipe; with none, the filter holds an object or (in a section ``whitelist``) calls it
        clean.
    clears
        The risks that the label clears. A label of a section ``whitelist`` clears ``pixel-risk`` in any case.
    text
        Where objects may show text: a search for text outside the blanked pixels leaves these places out.
    source, line
        Recipe file and line of the label, counted from 1.
    """

    group: str
    label: str
    lines: tuple[CriteriaLine, ...] = ()
    coordinates: tuple[Coordinates, ...] = ()
    clears: tuple[str, ...] = ()
    text: tuple[Coordinates, ...] = ()
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        body = [*(f"+ {line}" if index else str(line) for index, line in enumerate(self.lines))]
        clears = [str(Clears(self.clears))] if self.clears else []
        return "\n  ".join([f"LABEL {self.label}", *body, *map(str, (*self.text, *self.coordinates)), *clears])

    @property
    def is_whitelist(self) -> bool:
        """True if the label calls objects clean, except for the pixels that its coordinates blank."""
        return self.group.lower() == "whitelist"

    @property
    def holds(self) -> bool:
        """True if the label holds objects: it calls them not clean without coordinates."""
        return not self.coordinates and not self.is_whitelist

    def with_line(self, line: CriteriaLine | Coordinates | Clears) -> Filter:
        """Return the filter with one more line."""
        if isinstance(line, Clears):
            return replace(self, clears=tuple(sorted({*self.clears, *line.risks})))
        if isinstance(line, Coordinates) and line.text:
            return replace(self, text=(*self.text, line))
        if isinstance(line, Coordinates):
            return replace(self, coordinates=(*self.coordinates, line))
        return replace(self, lines=(*self.lines, line))

    def matches(self, value_of: Callable[[int], str | None]) -> bool:
        r"""Return whether the filter holds for an object.

        Parameters
        ----------
        value_of
            The value of an element of the root data set by its tag, as text, components joined by a backslash;
            empty if the element has no value, None if it is missing.
        """
        return all(line.holds(value_of) for line in self.lines)


_COORDINATES = re.compile(r"(?:(ctp)?(keep)?|(text))coordinates(?=\s|$)", re.IGNORECASE)
_FOUR = re.compile(r"(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})")


def parse_filter_line(
    line: str, column: int, unknown: list[RecipeSyntaxError] | None = None
) -> CriteriaLine | Coordinates | Clears:
    """Read a line that follows ``LABEL``: criteria, coordinates, or the risks that the label clears."""
    if _COORDINATES.match(line):
        return parse_coordinates(line, column)
    if line.split()[0].lower() == "clears":
        return _parse_clears(line, column)
    return parse_criteria(line, column, unknown)


def _parse_clears(line: str, column: int) -> Clears:
    words = list(re.finditer(r"\S+", line))[1:]
    for word in words:
        if word[0].lower() not in CLEARABLE:
            message = f"a label clears {' or '.join(CLEARABLE)}, not '{word[0]}'"
            raise RecipeSyntaxError(message, column + word.start(), nearest(word[0], CLEARABLE))
    if not words:
        raise RecipeSyntaxError(f"clears needs {' or '.join(CLEARABLE)}", column)
    return Clears(tuple(word[0].lower() for word in words))


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
        Coordinates that are not four numbers in order, ``all``, or ``from:`` or ``outside:`` a sequence (which
        ``textcoordinates`` are not).
    """
    head = _COORDINATES.match(line)
    if head is None:
        raise RecipeSyntaxError("not a line of coordinates", column)
    where = line[head.end() :].strip()
    column += len(line) - len(where)
    keep, text = head[2] is not None, head[3] is not None
    if where.lower() == "all":
        return Coordinates(keep, text=text)
    start, colon, sequence = where.partition(":")
    if colon and start.lower() in ("from", "outside") and not (head[1] or text):
        tag = _sequence(sequence.strip(), column + len(start) + 1)
        return Coordinates(keep, from_tag=tag, outside=start.lower() == "outside")
    four = _FOUR.fullmatch(where)
    if four is None:
        forms = "four numbers, or all" if head[1] or text else "four numbers, all, from:SEQUENCE or outside:SEQUENCE"
        raise RecipeSyntaxError(f"coordinates are {forms}", column)
    left, top, right, bottom = map(int, four.groups())
    if head[1]:
        # The CTP convention gives width and height instead of the far sides.
        right, bottom = left + right, top + bottom
    if left > right or top > bottom:
        raise RecipeSyntaxError("coordinates are xmin,ymin,xmax,ymax: a maximum is below its minimum", column)
    return Coordinates(keep, Rectangle(left, top, right, bottom), text=text)


def _sequence(text: str, column: int) -> int:
    tag = keywords_in_any_case().get(text.lower())
    if tag is None:
        sequences = [word for word in keywords() if word.endswith("Sequence") or word.startswith("SequenceOf")]
        raise RecipeSyntaxError(f"unknown sequence '{text}'", column, nearest(text, sequences))
    if vr_of(tag) != "SQ":
        raise RecipeSyntaxError(f"{text} is not a sequence", column)
    return tag


def _keyword(tag: int) -> str:
    return next(keyword for keyword, its_tag in keywords().items() if its_tag == tag)
