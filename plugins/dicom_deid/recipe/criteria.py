"""Criteria about elements of an object: ``contains Modality CT + between StudyDate 20190101 20201231``.

`%filter` sections use them to select images with burned-in text, a run to select or exclude objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.element_names import keywords_in_any_case, nearest_field, parse_tag
from dicom_deid.recipe.errors import RecipeSyntaxError, nearest


class Question(StrEnum):
    """Test that a criterion applies to an element of the root data set."""

    CONTAINS = "contains"
    """The regular expression matches part of the value, in any case."""
    NOTCONTAINS = "notcontains"
    """It does not match, or the element is missing."""
    EQUALS = "equals"
    """The value is the text or one of its alternatives, separated by ``|``, in any case."""
    NOTEQUALS = "notequals"
    """The value is another one, or the element is missing."""
    MISSING = "missing"
    """The element is not there."""
    PRESENT = "present"
    """The element is there, be it empty."""
    EMPTY = "empty"
    """The element is there and has no value."""
    LESS = "less"
    """A component of the value, a date, time, age or number, is less than the given one."""
    GREATER = "greater"
    """A component of the value is greater than the given one."""
    BETWEEN = "between"
    """A component of the value is between the given two, or is one of them."""

    @property
    def takes_value(self) -> bool:
        """True if a text follows the field."""
        return self not in (Question.MISSING, Question.PRESENT, Question.EMPTY)

    @property
    def compares(self) -> bool:
        """True if the value is compared by its order."""
        return self in (Question.LESS, Question.GREATER, Question.BETWEEN)


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
        The text, regular expression or limits; empty for questions that take none.
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
                found = value is not None and _compiled(self.value).search(text) is not None
                return found is (self.question is Question.CONTAINS)
            case Question.EQUALS | Question.NOTEQUALS:
                equal = value is not None and text in _alternatives(self.value)
                return equal is (self.question is Question.EQUALS)
            case Question.EMPTY:
                return value is not None and not text
            case Question.LESS | Question.GREATER | Question.BETWEEN:
                return any(self._is_in_range(component) for component in text.split("\\"))
            case _:
                return (value is None) is (self.question is Question.MISSING)

    def _is_in_range(self, component: str) -> bool:
        """Return whether one component is in the range; False if it cannot be compared."""
        vr = vr_of(self.tag)
        orders = [_order(component, operand, vr) for operand in self.value.split()]
        match self.question, orders:
            case Question.BETWEEN, [int(low), int(high)]:
                return low >= 0 >= high
            case Question.LESS, [int(order)]:
                return order < 0
            case Question.GREATER, [int(order)]:
                return order > 0
            case _:
                return False


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
    tags: frozenset[int] = field(init=False, compare=False)
    """Tags of the root data set whose values the line reads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", frozenset(criterion.tag for criterion in self.criteria))

    def __str__(self) -> str:
        words = [str(self.criteria[0])]
        for operator, criterion in zip(self.operators, self.criteria[1:], strict=True):
            words += [operator, str(criterion)]
        return " ".join(words)

    def holds(self, value_of: Callable[[int], str | None]) -> bool:
        """Return whether the line holds for an object, see :meth:`Filter.matches`."""
        if "||" not in self.operators:
            return all(criterion.holds(value_of(criterion.tag)) for criterion in self.criteria)
        result = self.criteria[0].holds(value_of(self.criteria[0].tag))
        for operator, criterion in zip(self.operators, self.criteria[1:], strict=True):
            holds = criterion.holds(value_of(criterion.tag))
            result = result or holds if operator == "||" else result and holds
        return result


_TESTS = "|".join(sorted(Question, key=len, reverse=True))
_JOIN = re.compile(rf"\s*(\|\||\+)\s*(?=(?:{_TESTS})\s)", re.IGNORECASE)

_DIGITS = {"DA": r"\d{4}(\d\d(\d\d)?)?", "DT": r"\d{4}(\d\d){0,5}", "TM": r"\d\d(\d\d(\d\d)?)?"}
_NUMBERS = ("DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD")
_DAYS = {"d": 1.0, "w": 7.0, "m": 30.4375, "y": 365.25}
_EXAMPLES = {"DA": "20190101", "DT": "201901011230", "TM": "1230", "AS": "018Y"}


def _order(value: str, limit: str, vr: str) -> int | None:
    """Compare a value with a limit, of a date or time only the digits that the limit has.

    Returns
    -------
    int or None
        Less than, equal to or greater than 0; None if the value cannot be compared.
    """
    if vr in _DIGITS:
        digits = re.sub(r"[.:\-]", "", value)[: len(limit)]
        return (digits > limit) - (digits < limit) if len(digits) == len(limit) and digits.isdigit() else None
    one, other = _number(value, vr), _number(limit, vr)
    return None if one is None or other is None else (one > other) - (one < other)


def _number(text: str, vr: str) -> float | None:
    """Return a number, or an age (AS) in days; None if it is neither."""
    if vr == "AS":
        age = re.fullmatch(r"(\d{3})([dwmy])", text.strip().lower())
        return None if age is None else int(age[1]) * _DAYS[age[2]]
    try:
        return float(text)
    except ValueError:
        return None


def _check_limits(question: Question, field: str, vr: str, value: str, column: int) -> None:
    if vr not in (*_DIGITS, *_NUMBERS, "AS"):
        raise RecipeSyntaxError(f"{question} compares dates, times, ages and numbers; {field} has VR {vr}", column)
    limits = list(re.finditer(r"\S+", value))
    wanted = 2 if question is Question.BETWEEN else 1
    if len(limits) != wanted:
        raise RecipeSyntaxError(f"{question} takes a field and {'two values' if wanted == 2 else 'one value'}", column)
    for limit in limits:
        is_valid = re.fullmatch(_DIGITS[vr], limit[0]) if vr in _DIGITS else _number(limit[0], vr) is not None
        if not is_valid:
            example = _EXAMPLES.get(vr, "64")
            raise RecipeSyntaxError(
                f"'{limit[0]}' is not a value of VR {vr}, such as {example}", column + limit.start()
            )
    low, high = limits[0][0], limits[-1][0]
    if vr in _DIGITS:
        low = low.ljust(len(high), "0")
    if wanted == 2 and (_order(low, high, vr) or 0) > 0:
        raise RecipeSyntaxError("the second value is below the first", column + limits[1].start())


def without_comment(line: str) -> str:
    """Return the line up to its comment; a ``#`` begins one at the beginning of a word."""
    return re.split(r"(?:^|(?<=\s))#", line, maxsplit=1)[0].rstrip()


def criterion_line(keyword: str, value: str) -> str:
    """Return a line that holds for objects whose element has a value, or for those that have none if it is empty."""
    if not value:
        return f"notcontains {keyword} ."
    line = f"equals {keyword} {value}"
    try:
        (criterion,) = parse_criteria(line, 1).criteria
        if criterion.value == value and not {"#", "|"} & set(value):
            return line
    except (RecipeSyntaxError, ValueError):
        pass
    # Characters with a meaning in the recipe language match as any character.
    return f"contains {keyword} ^{re.sub(r'[^0-9A-Za-z._-]', '.', value)}$"


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
        An unknown test or field, a missing value, a value that is no regular expression, or limits that are not of
        the element's VR.
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
        known = [*Question, "coordinates", "keepcoordinates", "textcoordinates", "clears", "LABEL"]
        known += ["ctpcoordinates", "ctpkeepcoordinates"]
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
    if question.compares:
        _check_limits(question, head[2], vr_of(tag), value, column_of_value)
    return Criterion(question, tag, head[2], value)


def _criterion_on_missing_element(question: Question) -> Criterion:
    """Return a criterion with the same answer as `question` about an element that no object has."""
    holds = Criterion(question, 0, "", "x").holds(None)
    return Criterion(Question.MISSING if holds else Question.PRESENT, 0, "(0000,0000)")


@lru_cache(maxsize=4096)
def _alternatives(value: str) -> frozenset[str]:
    """Return the texts in lower case that `equals` accepts: the value, and its parts between vertical bars."""
    parts = (part.strip() for part in value.lower().split("|"))
    return frozenset({value.lower(), *filter(None, parts)})


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> re.Pattern[str]:
    """Return a regular expression for values in lower case; `re` itself keeps only 512."""
    return re.compile(expression.lower())


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
