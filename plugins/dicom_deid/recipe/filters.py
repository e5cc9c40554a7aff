"""Sections ``%filter``: criteria for objects with burned-in text, and the regions of pixels to blank.

A filter is a label with criteria and coordinates. Every filter whose criteria match applies, in the order of the
recipe; coordinates are drawn in order on one mask, so that a later one overrides an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.element_names import keywords, keywords_in_any_case, nearest_field, parse_tag
from dicom_deid.recipe.errors import RecipeSyntaxError, nearest


class Question(StrEnum):
    """Test that a criterion applies to an element of the root data set."""

    CONTAINS = "contains"
    """The regular expression matches part of the value, in any case."""
    NOTCONTAINS = "notcontains"
    """It does not match, or the element is missing."""
    EQUALS = "equals"
    """The value is the text, in any case."""
    NOTEQUALS = "notequals"
    """The value is another one, or the element is missing."""
    MISSING = "missing"
    """The element is not there."""
    PRESENT = "present"
    """The element is there, be it empty."""
    EMPTY = "empty"
    """The element is there and has no value."""

    @property
    def takes_value(self) -> bool:
        """Whether a text follows the field."""
        return self in (Question.CONTAINS, Question.NOTCONTAINS, Question.EQUALS, Question.NOTEQUALS)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One test of one element.

    Parameters
    ----------
    question
        The test.
    tag
        Tag of an element of the root data set.
    field
        The name of the element in the recipe.
    value
        The text or regular expression; empty for questions that take none.
    """

    question: Question
    tag: int
    field: str
    value: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.question, self.field, self.value) if part)

    def holds(self, value: str | None) -> bool:
        r"""Return whether the criterion holds.

        Parameters
        ----------
        value
            The value as text, components joined by a backslash; None if the element is missing.
        """
        text = "" if value is None else value.lower().strip()
        match self.question:
            case Question.CONTAINS | Question.NOTCONTAINS:
                found = value is not None and re.search(self.value.lower(), text) is not None
                return found is (self.question is Question.CONTAINS)
            case Question.EQUALS | Question.NOTEQUALS:
                equal = value is not None and text == self.value.lower()
                return equal is (self.question is Question.EQUALS)
            case Question.EMPTY:
                return value is not None and not text
            case _:
                return (value is None) is (self.question is Question.MISSING)


@dataclass(frozen=True, slots=True)
class CriteriaLine:
    """The criteria of one line, joined from left to right: ``a || b + c`` is ``(a or b) and c``.

    Parameters
    ----------
    criteria
        At least one.
    operators
        ``+`` (and) or ``||`` (or) between each criterion and the next.
    """

    criteria: tuple[Criterion, ...]
    operators: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [str(self.criteria[0])]
        for operator, criterion in zip(self.operators, self.criteria[1:], strict=True):
            words += [operator, str(criterion)]
        return " ".join(words)

    def holds(self, value_of: Callable[[int], str | None]) -> bool:
        """Return whether the line holds for an object, see :meth:`Filter.matches`."""
        result = self.criteria[0].holds(value_of(self.criteria[0].tag))
        for operator, criterion in zip(self.operators, self.criteria[1:], strict=True):
            holds = criterion.holds(value_of(criterion.tag))
            result = result or holds if operator == "||" else result and holds
        return result


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


_TESTS = "|".join(sorted(Question, key=len, reverse=True))
_JOIN = re.compile(rf"\s*(\|\||\+)\s*(?=(?:{_TESTS})\s)", re.IGNORECASE)
_COORDINATES = re.compile(r"(ctp)?(keep)?coordinates(?=\s|$)", re.IGNORECASE)
_FOUR = re.compile(r"(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})")


def without_comment(line: str) -> str:
    """Return the line up to its comment; a ``#`` begins one at the beginning of a word."""
    return re.split(r"(?:^|(?<=\s))#", line, maxsplit=1)[0].rstrip()


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


def parse_criteria(line: str, column: int, unknown: list[RecipeSyntaxError] | None = None) -> CriteriaLine:
    """Read a line of criteria.

    Parameters
    ----------
    line
        Without comment and surrounding blanks.
    column
        Where the line begins.
    unknown
        If given, an unknown field is an element that no object has, as in `deid`, and its error is added here.

    Raises
    ------
    RecipeSyntaxError
        An unknown test or field, a missing value, or a value that is no regular expression.
    """
    lead = re.match(r"(\+|\|\|)\s*", line)
    position = lead.end() if lead else 0
    criteria: list[Criterion] = []
    operators: list[str] = []
    for join in [*_JOIN.finditer(line, position), None]:
        end = join.start() if join else len(line)
        criteria.append(_criterion(line[position:end], column + position, unknown))
        if join:
            operators.append(join[1])
            position = join.end()
    return CriteriaLine(tuple(criteria), tuple(operators))


def _criterion(text: str, column: int, unknown: list[RecipeSyntaxError] | None) -> Criterion:
    head = re.match(r"(\S+)(?:\s+(\S+))?\s*", text)
    word = head[1] if head else ""
    if word.lower() not in list(Question):
        known = [*Question, "coordinates", "keepcoordinates", "ctpcoordinates", "ctpkeepcoordinates", "LABEL"]
        raise RecipeSyntaxError(f"unknown criterion '{word}'", column, nearest(word, known), ignored_by_deid=True)
    question = Question(word.lower())
    if head is None or head[2] is None:
        raise RecipeSyntaxError(f"{question} needs a field", column)
    try:
        tag = _tag(head[2], column + head.start(2))
    except RecipeSyntaxError as error:
        if unknown is None:
            raise
        unknown.append(error)
        return _criterion_on_missing_element(question)
    value = text[head.end() :].strip()
    column_of_value = column + head.end()
    if not question.takes_value:
        if value:
            raise RecipeSyntaxError(f"{question} takes a field only", column_of_value)
        return Criterion(question, tag, head[2])
    if not value:
        raise RecipeSyntaxError(f"{question} needs a field and a value", column + head.start(2))
    if question in (Question.CONTAINS, Question.NOTCONTAINS):
        _check_expression(value, column_of_value)
    return Criterion(question, tag, head[2], value)


def _criterion_on_missing_element(question: Question) -> Criterion:
    """Return a criterion with the same answer as `question` about an element that no object has."""
    holds = Criterion(question, 0, "", "x").holds(None)
    return Criterion(Question.MISSING if holds else Question.PRESENT, 0, "(0000,0000)")


def _check_expression(value: str, column: int) -> None:
    try:
        re.compile(value.lower())
    except re.error as error:
        raise RecipeSyntaxError(f"not a regular expression: {error.msg}", column + (error.pos or 0)) from None


def _tag(text: str, column: int) -> int:
    tag = keywords_in_any_case().get(text.lower())
    if tag is None and re.fullmatch(r"0x[0-9a-f]{8}", text.lower()):
        tag = int(text, 16)
    if tag is None:
        tag = parse_tag(text)
    if tag is None:
        raise RecipeSyntaxError(
            f"unknown field '{text}': no keyword or tag",
            column,
            nearest_field(text, quoted=False),
            ignored_by_deid=True,
        )
    return tag


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
