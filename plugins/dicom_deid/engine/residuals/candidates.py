"""Candidates: search terms that may be in a text, found by looking up a few short keys of each.

Few of the values that rules remove from an object are also in what they left. A key is a part of all forms of a value,
or of some of them, so that a term without any key in the text cannot be in it; the spellings of the others alone are
made and searched.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from dicom_deid.engine.residuals.spellings import Spelling, WordBoundary, forms, key_spellings, month_names, spellings
from dicom_deid.engine.residuals.terms import TermKind

_LETTERS_AND_DIGITS = b"abcdefghijklmnopqrstuvwxyz0123456789"
_OTHERS = bytes(set(range(256)).difference(_LETTERS_AND_DIGITS))
_DATE_DELIMITERS = bytes.maketrans(b"-/_", b"...")
# Accented letters, and the marks they are composed with, that most character sets write without letters or digits.
_ACCENTED = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝàáâãäåæçèéêëìíîïðñòóôõöøùúûüý’"
_MARKS = "\u0300\u0301\u0302\u0303\u0308\u030a\u0327"
_ACCENTED_TEXT = re.compile(f"[\\0-\x7f{_ACCENTED}]*")
_MIN_COMPACT = 3
# After the beginning of a month's name the year of a date is in so many bytes.
_MAX_BEFORE_YEAR = 48


class SearchedText(NamedTuple):
    """The bytes that are searched, in lower case.

    Parameters
    ----------
    raw
        As they are.
    narrow
        Without zero bytes: UTF-16 of ASCII is ASCII.
    compact
        Letters and digits of ASCII alone.
    dotted
        As `narrow`, without blanks and with dots in place of the other delimiters of dates.
    """

    raw: bytes
    narrow: bytes
    compact: bytes
    dotted: bytes

    @classmethod
    def of(cls, raw: bytes) -> SearchedText:
        """Return the text in each form."""
        narrow = raw.translate(None, b"\0")
        return cls(raw, narrow, narrow.translate(None, _OTHERS), narrow.translate(_DATE_DELIMITERS, b" "))


class _Half(NamedTuple):
    """Half of a name that may be misspelt; letters of the other half, in how many bytes, and whether these follow."""

    half: bytes
    letters: bytes
    reach: int
    is_first: bool


class _Keys(NamedTuple):
    """Keys of a value, by the form of the text that they are looked up in."""

    compact: tuple[bytes, ...]
    narrow: tuple[bytes, ...]
    raw: tuple[bytes, ...]
    halves: tuple[_Half, ...]


class _DateKeys(NamedTuple):
    """Keys of a date: its year, what it is with its whole year, and with the two digits of its year."""

    year: bytes
    of_year: tuple[bytes, ...]
    short_year: bytes
    of_short_year: tuple[bytes, ...]


def is_candidate(kind: TermKind, value: str, codecs: tuple[str, ...], text: SearchedText) -> bool:
    """Tell whether a spelling of a value may be in a text.

    Parameters
    ----------
    kind, value
        Of the search term.
    codecs
        The object's character sets.
    text
        The text.
    """
    if kind is TermKind.DATE or kind is TermKind.PERSON_DATE:
        return _may_be_date(kind, value, codecs, text)
    if kind is TermKind.UID:
        return value.encode("ascii", "replace") in text.narrow
    keys = _keys(kind, value, codecs)
    return (
        _is_any(keys.compact, text.compact)
        or _is_any(keys.narrow, text.narrow)
        or _is_any(keys.raw, text.raw)
        or _is_any_half(keys.halves, text.narrow)
    )


def spellings_in(kind: TermKind, value: str, codecs: tuple[str, ...], text: SearchedText) -> Iterator[Spelling]:
    """Yield the spellings of a value that may be in a text; the parameters are those of `is_candidate`."""
    is_date = kind is TermKind.DATE or kind is TermKind.PERSON_DATE
    others = not is_date or _is_any(_month_keys(int(value[4:6]), codecs)[1], text.raw)
    for keys, spelling in _with_keys(kind, value, _are_plain(codecs)):
        if _is_any(keys, text.compact) if keys else others:
            yield spelling


@lru_cache(maxsize=1024)
def _with_keys(kind: TermKind, value: str, is_plain: bool) -> tuple[tuple[tuple[bytes, ...], Spelling], ...]:
    """Return the spellings of a value, each with its keys in `SearchedText.compact` if it is ASCII or accented."""
    found = spellings(kind, value)
    # At once, with a delimiter that is not ASCII.
    joined = "\xff".join([text if text.isascii() else "" for text, _ in found]).encode("iso8859")
    compact = joined.translate(None, _OTHERS.replace(b"\xff", b"")).split(b"\xff")
    return tuple(
        ((one,) if spelling[0].isascii() else _without_accents(spelling[0]) if is_plain else (), spelling)
        for one, spelling in zip(compact, found, strict=False)
    )


def _is_any(keys: tuple[bytes, ...], text: bytes) -> bool:
    return True in [key in text for key in keys]


def _is_any_half(halves: tuple[_Half, ...], text: bytes) -> bool:
    """Tell whether half of a name is in a text, beside all letters of the other half but one."""
    for half, letters, reach, is_first in halves:
        at = text.find(half)
        while at >= 0:
            end = at + len(half)
            beside = text[end : end + reach] if is_first else text[max(0, at - reach) : at]
            if sum([letter in beside for letter in letters]) >= len(letters) - 1:
                return True
            at = text.find(half, at + 1)
    return False


@lru_cache(maxsize=8192)
def _keys(kind: TermKind, value: str, codecs: tuple[str, ...]) -> _Keys:
    compact: list[bytes] = []
    narrow: list[bytes] = []
    raw: list[bytes] = []
    halves: list[_Half] = []
    is_plain = _are_plain(codecs)
    first = ""
    for text, boundary in key_spellings(kind, value):
        if boundary is WordBoundary.START:
            first = text
        elif boundary is WordBoundary.END:
            for half, other in ((first, text), (text, first)):
                if half.isascii():
                    letters = _ascii(other)
                    reach = len(letters) + 3 + 4 * (len(other) - len(letters))
                    halves.append(_Half(_ascii(half), letters, reach, half is first))
                else:
                    raw += forms(half, codecs)
        elif text.isascii():
            if boundary is WordBoundary.TOKEN or (kind is TermKind.NAME and boundary is WordBoundary.WORD):
                narrow.append(_ascii(text))
            else:
                compact.append(_ascii(text).translate(None, _OTHERS))
        else:
            without_accents = _without_accents(text) if is_plain else ()
            if without_accents:
                compact += without_accents
            else:
                raw += forms(text, codecs)
    unique = [tuple(dict.fromkeys(keys)) for keys in (compact, narrow, raw)]
    return _Keys(unique[0], unique[1], unique[2], tuple(dict.fromkeys(halves)))


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "ignore").lower()


def _without_accents(text: str) -> tuple[bytes, ...]:
    """Return the letters and digits of ASCII in all forms of a text; nothing if these are too few."""
    composed = unicodedata.normalize("NFC", text)
    if not _ACCENTED_TEXT.fullmatch(composed):
        return ()
    both = composed, unicodedata.normalize("NFD", composed)
    compact = tuple([_ascii(one).translate(None, _OTHERS) for one in both])
    return () if min(map(len, compact)) < _MIN_COMPACT else compact


@lru_cache(maxsize=64)
def _are_plain(codecs: tuple[str, ...]) -> bool:
    """Tell whether character sets have no letters or digits of ASCII in the bytes of accented letters."""
    return not any(_encoded(codec).lower().translate(None, _OTHERS) for codec in codecs)


def _encoded(codec: str) -> bytes:
    try:
        return (_ACCENTED + _MARKS).encode(codec, "ignore")
    except LookupError:
        return b""


# Dates


def _may_be_date(kind: TermKind, digits: str, codecs: tuple[str, ...], text: SearchedText) -> bool:
    keys = _date_keys(digits, kind is TermKind.PERSON_DATE)
    _, narrow, _, dotted = text
    if keys.year in dotted and _is_any(keys.of_year, dotted):
        return True
    if _is_any(keys.of_short_year, dotted):
        return True
    months, raw = _month_keys(int(digits[4:6]), codecs)
    for month in months:
        at = narrow.find(month)
        while at >= 0:
            if keys.short_year in narrow[at + len(month) : at + len(month) + _MAX_BEFORE_YEAR]:
                return True
            at = narrow.find(month, at + 1)
    return _is_any(raw, text.raw)


@lru_cache(maxsize=4096)
def _date_keys(digits: str, is_of_person: bool) -> _DateKeys:
    """Return the keys of a date as they are in `SearchedText.dotted`."""
    year, month, day = digits[:4], digits[4:6], digits[6:]
    short_year = year[2:]
    of_year, of_short_year = [], []
    for first, second in ((month, day), (str(int(month)), str(int(day)))):
        for delimiter in ("", "."):
            of_year.append(delimiter.join((year, first, second)))
            of_year += [delimiter.join((*two, year)) for two in ((first, second), (second, first))]
        of_short_year += [f"{first}.{second}.{short_year}", f"{second}.{first}.{short_year}"]
    of_short_year.append(f"{short_year}.{month}.{day}")
    if is_of_person:
        of_year.append(f"{month}.{year}")
        of_short_year += [digits[2:], f"{day}{month}{short_year}"]
    texts = [tuple([text.encode() for text in dict.fromkeys(keys)]) for keys in (of_year, of_short_year)]
    return _DateKeys(year.encode(), texts[0], short_year.encode(), texts[1])


@lru_cache(maxsize=256)
def _month_keys(month: int, codecs: tuple[str, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the beginnings of a month's names in ASCII, and other bytes that dates of the month have."""
    names = month_names(month)
    others = (*(name for name in names if not name.isascii()), f"年{month}月", f"年{month:02d}月")
    raw = dict.fromkeys(form for name in others for form in forms(name, codecs))
    return tuple(name.encode() for name in names if name.isascii()), tuple(raw)
