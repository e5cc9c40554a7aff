"""What the residual search searches: in which words, forms and bytes an original may stand elsewhere.

Names are searched by their parts, dates in the forms in which people write them, identifiers and addresses as they
stand; in the object's character set, in UTF-8, in Latin-1 and in UTF-16.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Literal

from ahocorasick_rs import BytesAhoCorasick, Implementation
from pydicom.datadict import keyword_for_tag

from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import decode_text, split_values
from dicom_deid.dicom.vr import CHARACTER_SET_VRS, KNOWN_VRS, LONG_FORM_VRS, vr_of
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN
from dicom_deid.engine.element_refs import ElementRef, iter_item_elements
from dicom_deid.exceptions import Quarantine

_MIN_NAME, _MIN_IDENTIFIER, _MIN_PHRASE, _MAX_TEXT = 3, 4, 8, 128
_NAME_DELIMITERS = re.compile(r"[\^=\\,;/.()\s_-]+")
_PHRASE_DELIMITERS = re.compile(r"[\\,;^\r\n]+")
_GROUP_DELIMITERS = re.compile(r"[\s+()./-]+")
_MIN_GROUPED_DIGITS = 6
_ESCAPES = re.compile(rb"\x1b[$()*+,-./]{1,2}[@-~]")
# Where scripts without blanks between words begin: Han, Kana, Hangul.
_UNBROKEN_SCRIPTS = "\u2e80"
# Letters that are written as others where they are not at hand.
_BASE_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i"})
_SPELLED_OUT = _BASE_LETTERS | str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
# Parts of names that are words of their own in descriptions, or say that there is no name.
_NO_NAMES = frozenset(
    (
        *("anon", "anonymous", "anonymized", "dicom", "doctor", "female", "male", "miss", "mister"),
        *("none", "null", "patient", "phantom", "prof", "test", "unknown"),
        *("abu", "bin", "del", "den", "der", "des", "dos", "ibn", "las", "los", "van", "von"),
    )
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_CODES = frozenset(("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"))
# The pattern sets of the studies that are under way.
_MAX_PATTERN_SETS = 256

_PATIENT_GROUP = 0x0010

# An element, or content item, that the rules removed or replaced: its bytes, whether its VR is implicit, whether its
# byte order is big endian, and its codecs. The patterns of a study are found again by these.
Changed = tuple[bytes, bool, bool, tuple[str, ...]]


class WordBoundary(IntEnum):
    """What may not stand beside a hit; of two the looser holds."""

    NONE = 0
    """Anything may: the script has no blanks between words."""
    LETTERS = 1
    """No letter: a name is found in `Smith1950`, and not in `Smithsonian`."""
    LEFT = 2
    """No letter or digit before it: a date may be followed by the time of day."""
    WORD = 3
    """No letter or digit on either side."""


Word = tuple[str, WordBoundary]
"""An original and what may not stand beside it."""
SearchTerms = frozenset[Word]


class TermMatcher:
    """One pass for many patterns.

    Parameters
    ----------
    borders
        The patterns, in lower case, and what may not stand beside each.
    words
        Those originals among them that tell who the patient is: what other objects of the patient are searched for.
    """

    def __init__(self, boundaries: Mapping[bytes, WordBoundary], terms: SearchTerms = frozenset()) -> None:
        self.terms = terms
        patterns = sorted(boundaries)
        self._borders = [boundaries[pattern] for pattern in patterns]
        self._automaton = BytesAhoCorasick(patterns, implementation=Implementation.ContiguousNFA) if patterns else None

    def matches(self, span: bytes) -> list[tuple[int, int, WordBoundary]]:
        """Return where patterns stand in bytes of lower case, and what may not stand beside them."""
        if self._automaton is None:
            return []
        found = self._automaton.find_matches_as_indexes(span, overlapping=True)
        return [(first, last, self._borders[index]) for index, first, last in found]


@lru_cache(maxsize=_MAX_PATTERN_SETS)
def matcher_for_removed(changed: tuple[Changed, ...]) -> TermMatcher:
    """Return the finder of a set of changed elements, the same for the objects of a study."""
    borders: dict[bytes, WordBoundary] = {}
    words: set[Word] = set()
    # Most dates of a study are the same.
    for is_personal, text, border, codecs in {(*word, one[3]) for one in changed for word in _originals(one)}:
        _add(borders, text, border, codecs)
        if is_personal:
            words.add((text, border))
    return TermMatcher(borders, frozenset(words))


@lru_cache(maxsize=_MAX_PATTERN_SETS)
def matcher_for_terms(words: SearchTerms, codecs: tuple[str, ...]) -> TermMatcher:
    """Return the finder of originals that other objects gave, as they stand in an object of these codecs."""
    borders: dict[bytes, WordBoundary] = {}
    for text, border in words:
        _add(borders, text, border, codecs)
    return TermMatcher(borders)


def _add(borders: dict[bytes, WordBoundary], text: str, border: WordBoundary, codecs: tuple[str, ...]) -> None:
    for form in _forms(text, codecs):
        borders[form] = min(border, borders.get(form, border))


def _originals(changed: Changed) -> Iterator[tuple[bool, str, WordBoundary]]:
    """Yield what identifies a person in a changed element, and whether that person is the patient."""
    for tag, vr, value in _elements(*changed):
        is_personal = _is_personal(tag, vr)
        try:
            text = decode_text(value, vr, changed[3])
        except Quarantine:
            # Text of another character set than the declared one is common; its ASCII parts are the same in any.
            text = value.decode("iso8859")
        for component in split_values(text, vr):
            for word, border in _words(vr, component.strip()):
                yield is_personal, word, border


@lru_cache(maxsize=8192)
def vr_of_original(tag: int, said: str) -> str:
    """Return the VR by which an original is read: the dictionary's, whatever its header says.

    Parameters
    ----------
    tag
        Of the element.
    said
        What its header says, which counts for sequences and where the dictionary knows no better; or nothing.
    """
    vr = vr_of(tag)
    if said in KNOWN_VRS and (said == "SQ" or (vr in ("SQ", "UN") and said != "UN")):
        return said
    return vr


def _is_personal(tag: int, vr: str) -> bool:
    """Tell whether an element names the patient or those around, or holds an identifier or a date.

    What else rules take out, such as descriptions, says nothing of the patient in another object.
    """
    if vr in ("PN", "DA", "DT"):
        return True
    if vr not in CHARACTER_SET_VRS:
        return False
    return tag >> 16 == _PATIENT_GROUP or keyword_for_tag(tag).endswith(("ID", "IDs", "Number", "Numbers"))


def _elements(
    raw: bytes, implicit: bool, big_endian: bool, codecs: tuple[str, ...]
) -> Iterator[tuple[int, str, bytes]]:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    if raw[:4] == (BIG_ENDIAN if big_endian else LITTLE_ENDIAN).item:
        # A content item: its codes and their meanings say what it was about, not whom.
        for listed in iter_item_elements(raw, Encoding(implicit, big_endian), codecs):
            if listed.element.keyword not in _CODES:
                yield *_read(listed), raw[listed.start : listed.end]
        return
    explicit = not implicit and raw[4:6].isalpha()
    tag = int.from_bytes(raw[:2], order) << 16 | int.from_bytes(raw[2:4], order)
    said = raw[4:6].decode("ascii") if explicit else ""
    vr = vr_of_original(tag, said)
    value = raw[12 if said in LONG_FORM_VRS else 8 :]
    if vr == "SQ":
        for listed in iter_item_elements(value, Encoding(not explicit, big_endian), codecs):
            yield *_read(listed), value[listed.start : listed.end]
    else:
        yield tag, vr, value


def _read(listed: ElementRef) -> tuple[int, str]:
    return listed.element.tag, vr_of_original(listed.element.tag, listed.element.vr)


def _words(vr: str, text: str) -> Iterator[tuple[str, WordBoundary]]:
    """Yield what identifies a person in one original value."""
    if vr == "PN":
        yield from _names(text)
    elif vr in ("DA", "DT"):
        yield from _dates(text.replace(".", "")[:8])
    elif vr == "UI":
        if len(text) > _MIN_PHRASE:
            yield text, WordBoundary.WORD
    elif vr in CHARACTER_SET_VRS and len(text) <= _MAX_TEXT:
        for part in (text, *map(str.strip, _PHRASE_DELIMITERS.split(text))):
            if _is_identifying(part):
                yield from ((written, WordBoundary.WORD) for written in (part, *_delimited(part)))


def _names(text: str) -> Iterator[tuple[str, WordBoundary]]:
    for group in text.split("="):
        parts = [part for part in _NAME_DELIMITERS.split(group) if part]
        for part in parts:
            if _is_name(part):
                yield part, WordBoundary.NONE if part[0] >= _UNBROKEN_SCRIPTS else WordBoundary.LETTERS
                yield from ((plain, WordBoundary.LETTERS) for plain in _plain(part))
        if len(parts) > 1:
            # Names whose parts are too short to be searched alone are searched together.
            family, given = parts[0], parts[1]
            border = WordBoundary.NONE if family[0] >= _UNBROKEN_SCRIPTS else WordBoundary.LETTERS
            for joined in (f"{family} {given}", f"{given} {family}", f"{family}{given}", f"{given}{family}"):
                if len(joined) > _MIN_NAME or border is WordBoundary.NONE:
                    yield joined, border


def _plain(part: str) -> Iterator[str]:
    """Yield how a name is written where its accents and apostrophes are not at hand."""
    if "'" in part:
        yield part.replace("'", "")
    if part.isascii() or part[0] >= _UNBROKEN_SCRIPTS:
        return
    letters = unicodedata.normalize("NFC", part).lower()
    for spelled in (letters.translate(_SPELLED_OUT), letters.translate(_BASE_LETTERS)):
        decomposed = unicodedata.normalize("NFD", spelled)
        yield "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _is_name(part: str) -> bool:
    if part.casefold() in _NO_NAMES or not any(character.isalpha() for character in part):
        return False
    return len(part) >= (_MIN_NAME if part[0] < _UNBROKEN_SCRIPTS else 2)


def _is_identifying(text: str) -> bool:
    has_digit = any(character.isdigit() for character in text)
    return len(text) >= _MIN_IDENTIFIER if has_digit else len(text) >= _MIN_PHRASE and " " in text


def _delimited(text: str) -> Iterator[str]:
    """Yield a number in groups, such as one of a telephone, as others delimit it."""
    groups = [group for group in _GROUP_DELIMITERS.split(text) if group]
    if len(groups) > 1 and sum(character.isdigit() for character in text) >= _MIN_GROUPED_DIGITS:
        yield from (delimiter.join(groups) for delimiter in ("", " ", "-", ".", "/"))
        yield from (f"({groups[0]}) {delimiter.join(groups[1:])}" for delimiter in (" ", "-"))


@lru_cache(maxsize=_MAX_PATTERN_SETS)
def _dates(digits: str) -> tuple[tuple[str, WordBoundary], ...]:
    """Return the forms in which people write a date."""
    is_number = len(digits) == 8 and digits.isascii() and digits.isdigit()
    if not is_number or digits == "00000000" or not 1 <= int(digits[4:6]) <= 12:
        return ()
    written = set(_written_dates(digits[:4], digits[4:6], digits[6:]))
    return (digits, WordBoundary.LEFT), *((form, WordBoundary.WORD) for form in written)


def _written_dates(year: str, month: str, day: str) -> Iterator[str]:
    short_month, short_day = str(int(month)), str(int(day))
    orders = ((day, month), (short_day, short_month), (month, day), (short_month, short_day))
    yield f"{day}{month}{year}"
    yield f"{month}{day}{year}"
    for delimiter in "-./_ ":
        yield delimiter.join((year, month, day))
        yield delimiter.join((year, short_month, short_day))
        for first, second in orders:
            yield delimiter.join((first, second, year))
            if delimiter in "./":
                yield delimiter.join((first, second, year[2:]))
    full = _MONTHS[int(month) - 1]
    for name in (full, full[:3], f"{full[:3]}."):
        for one_day in (day, short_day, f"{short_day}{_ordinal(int(day))}"):
            for delimiter in (" ", "-", ". ", "", " of "):
                yield f"{one_day}{delimiter}{name}{delimiter.strip('.').replace(' of', '')}{year}"
            yield f"{one_day} {name}, {year}"
            yield f"{name} {one_day} {year}"
            yield f"{name} {one_day}, {year}"


def _ordinal(number: int) -> str:
    return "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _forms(text: str, codecs: tuple[str, ...]) -> Iterator[bytes]:
    """Yield the lower-case bytes in which a text may stand."""
    if text.isascii():
        # The same in every character set but for UTF-16, and there in both orders but for an outer zero.
        narrow = text.lower().encode()
        yield narrow
        yield narrow.decode().encode("utf-16-le")[:-1]
        return
    composed = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    for cased in {cased for one in composed for cased in (one, one.lower(), one.upper(), one.title())}:
        for codec in (*codecs, "utf-8", "iso8859", "utf-16-le", "utf-16-be"):
            try:
                encoded = cased.encode(codec)
            except (LookupError, UnicodeError):
                continue
            # The outer zero is left out: so the same bytes are found in both orders of UTF-16 where all letters are
            # Latin. An escape stands where a run of a character set begins, which may be before the name.
            encoded = encoded.strip(b"\0") if codec.startswith("utf-16") else _ESCAPES.sub(b"", encoded)
            if encoded:
                yield encoded.lower()
