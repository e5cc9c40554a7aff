"""Dates of objects that hold very many of them, found by one pass over the dates in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from dicom_deid.engine.residuals.terms import SearchTerm

MAX_DATES = 64
"""Of so many dates all spellings are searched for; the others are compared with the dates that the text shows."""
_MONTH_NAMES = {
    name: number
    for number, names in enumerate(
        (
            *("jan gen ene", "feb fév", "mar mär maa mrt", "apr avr abr", "may mai mei mag", "jun jui giu"),
            *("jul lug", "aug aoû ago", "sep set", "oct okt ott out", "nov", "dec dez déc dic"),
        ),
        1,
    )
    for name in names.split()
}
_NUMBERS = re.compile(
    rb"(?<!\d)(?:(\d{8})|(\d{4})[-./_ ](\d{1,2})[-./_ ](\d{1,2})|(\d{1,2})[-./_ ]{1,2}(\d{1,2})[-./_ ]{1,2}(\d{4}))"
)
_NAMED = re.compile(
    rb"(\d{1,2})(?:st|nd|rd|th|\.)?[ -]?(?:of |de )?([a-z\x80-\xff]{3})[a-z.\x80-\xff]{0,9}[ ,-]{0,2}(?:de )?(\d{4})"
    rb"|([a-z\x80-\xff]{3})[a-z.\x80-\xff]{0,9} (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})"
)


class DateScanner:
    """Finds dates in text by reading all of its dates.

    Parameters
    ----------
    terms
        The dates, as eight digits.
    """

    def __init__(self, terms: Iterable[SearchTerm]) -> None:
        self._terms = {term.text: term for term in terms}

    def matches(self, span: bytes) -> Iterator[tuple[int, int, SearchTerm]]:
        """Yield where dates begin and end in bytes whose ASCII letters are in lower case, and the terms they are."""
        for pattern, readings in ((_NUMBERS, _of_numbers), (_NAMED, _of_names)):
            for match in pattern.finditer(span):
                for digits in readings(match):
                    if digits in self._terms:
                        yield match.start(), match.end(), self._terms[digits]
                        break


def _of_numbers(match: re.Match[bytes]) -> Iterator[str]:
    whole, year, month, day, first, second, last = (group and group.decode() for group in match.groups())
    if whole:
        yield whole
        yield whole[4:] + whole[2:4] + whole[:2]
        yield whole[4:] + whole[:4]
    elif year and month and day:
        yield f"{year}{month:0>2}{day:0>2}"
    elif first and second and last:
        yield f"{last}{second:0>2}{first:0>2}"
        yield f"{last}{first:0>2}{second:0>2}"


def _of_names(match: re.Match[bytes]) -> Iterator[str]:
    groups = match.groups()
    day, name, year = groups[:3] if groups[0] else (groups[4], groups[3], groups[5])
    for codec in ("utf-8", "iso8859"):
        month = _MONTH_NAMES.get(name.decode(codec, "replace")[:3])
        if month:
            yield f"{year.decode()}{month:02d}{day.decode():0>2}"
