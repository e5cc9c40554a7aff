"""What the residual sweep searches: in which words, forms and bytes an original may stand elsewhere.

Names are searched by their parts, dates in the forms in which people write them, identifiers and addresses as they
stand; in the object's character set, in UTF-8, in Latin-1 and in UTF-16.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import Literal

from ahocorasick_rs import BytesAhoCorasick, Implementation

from dicom_deid.deidentify.inventory import inventory_of_items
from dicom_deid.dicom.dictionary import vr_of
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import CHARACTER_SET_VRS, LONG_FORM_VRS, decode_text, split_values
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN
from dicom_deid.exceptions import Quarantine

_MIN_NAME, _MIN_IDENTIFIER, _MIN_PHRASE, _MAX_TEXT = 3, 4, 8, 128
_NAME_DELIMITERS = re.compile(r"[\^=\\,;/.()\s_-]+")
_PHRASE_DELIMITERS = re.compile(r"[\\,;^\r\n]+")
_ESCAPES = re.compile(rb"\x1b[$()*+,-./]{1,2}[@-~]")
# Where scripts without blanks between words begin: Han, Kana, Hangul.
_UNBROKEN_SCRIPTS = "\u2e80"
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

# An element, or content item, that the rules removed or replaced: its bytes, whether its VR is implicit, whether its
# byte order is big endian, and its codecs. The patterns of a study are found again by these.
Changed = tuple[bytes, bool, bool, tuple[str, ...]]


class Border(IntEnum):
    """What may not stand beside a hit; of two the looser holds."""

    NONE = 0
    """Anything may: the script has no blanks between words."""
    LETTERS = 1
    """No letter: a name is found in `Smith1950`, and not in `Smithsonian`."""
    LEFT = 2
    """No letter or digit before it: a date may be followed by the time of day."""
    WORD = 3
    """No letter or digit on either side."""


class Finder:
    """One pass for all patterns of a set of changed elements.

    Parameters
    ----------
    changed
        The elements.
    """

    def __init__(self, changed: tuple[Changed, ...]) -> None:
        borders: dict[bytes, Border] = {}
        for one in changed:
            for text, border in _originals(one):
                for form in _forms(text, one[3]):
                    borders[form] = min(border, borders.get(form, border))
        patterns = sorted(borders)
        self._borders = [borders[pattern] for pattern in patterns]
        self._automaton = BytesAhoCorasick(patterns, implementation=Implementation.ContiguousNFA) if patterns else None

    def matches(self, span: bytes) -> list[tuple[int, int, Border]]:
        """Return where patterns stand in bytes of lower case, and what may not stand beside them."""
        if self._automaton is None:
            return []
        found = self._automaton.find_matches_as_indexes(span, overlapping=True)
        return [(first, last, self._borders[index]) for index, first, last in found]


@lru_cache(maxsize=_MAX_PATTERN_SETS)
def finder_of(changed: tuple[Changed, ...]) -> Finder:
    """Return the finder of a set of changed elements, the same for the objects of a study."""
    return Finder(changed)


def _originals(changed: Changed) -> Iterator[tuple[str, Border]]:
    for vr, value in _elements(*changed):
        try:
            text = decode_text(value, vr, changed[3])
        except Quarantine:
            # Text of another character set than the declared one is common; its ASCII parts are the same in any.
            text = value.decode("iso8859")
        for component in split_values(text, vr):
            yield from _words(vr, component.strip())


def _elements(raw: bytes, implicit: bool, big_endian: bool, codecs: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    if raw[:4] == (BIG_ENDIAN if big_endian else LITTLE_ENDIAN).item:
        # A content item: its codes and their meanings say what it was about, not whom.
        for listed in inventory_of_items(raw, Encoding(implicit, big_endian), codecs):
            if listed.element.keyword not in _CODES:
                yield listed.element.vr, raw[listed.start : listed.end]
        return
    explicit = not implicit and raw[4:6].isalpha()
    if explicit:
        vr = raw[4:6].decode("ascii")
    else:
        vr = vr_of(int.from_bytes(raw[:2], order) << 16 | int.from_bytes(raw[2:4], order))
    value = raw[12 if explicit and vr in LONG_FORM_VRS else 8 :]
    if vr == "SQ":
        for listed in inventory_of_items(value, Encoding(not explicit, big_endian), codecs):
            yield listed.element.vr, value[listed.start : listed.end]
    else:
        yield vr, value


def _words(vr: str, text: str) -> Iterator[tuple[str, Border]]:
    """Yield what identifies a person in one original value."""
    if vr == "PN":
        yield from _names(text)
    elif vr == "DA":
        yield from _dates(text)
    elif vr == "UI":
        if len(text) > _MIN_PHRASE:
            yield text, Border.WORD
    elif vr in CHARACTER_SET_VRS and len(text) <= _MAX_TEXT:
        for part in (text, *map(str.strip, _PHRASE_DELIMITERS.split(text))):
            if _is_identifying(part):
                yield part, Border.WORD


def _names(text: str) -> Iterator[tuple[str, Border]]:
    for group in text.split("="):
        parts = [part for part in _NAME_DELIMITERS.split(group) if part]
        for part in parts:
            if _is_name(part):
                yield part, Border.NONE if part[0] >= _UNBROKEN_SCRIPTS else Border.LETTERS
                if "'" in part:
                    yield part.replace("'", ""), Border.LETTERS
        if len(parts) > 1:
            # Names whose parts are too short to be searched alone are searched together.
            family, given = parts[0], parts[1]
            border = Border.NONE if family[0] >= _UNBROKEN_SCRIPTS else Border.LETTERS
            for joined in (f"{family} {given}", f"{given} {family}", f"{family}{given}", f"{given}{family}"):
                if len(joined) > _MIN_NAME or border is Border.NONE:
                    yield joined, border


def _is_name(part: str) -> bool:
    if part.casefold() in _NO_NAMES or not any(character.isalpha() for character in part):
        return False
    return len(part) >= (_MIN_NAME if part[0] < _UNBROKEN_SCRIPTS else 2)


def _is_identifying(text: str) -> bool:
    has_digit = any(character.isdigit() for character in text)
    return len(text) >= _MIN_IDENTIFIER if has_digit else len(text) >= _MIN_PHRASE and " " in text


def _dates(text: str) -> Iterator[tuple[str, Border]]:
    digits = text.replace(".", "")
    is_number = len(digits) == 8 and digits.isascii() and digits.isdigit()
    if not is_number or digits == "00000000" or not 1 <= int(digits[4:6]) <= 12:
        return
    yield digits, Border.LEFT
    for written in _written_dates(digits[:4], digits[4:6], digits[6:]):
        yield written, Border.WORD


def _written_dates(year: str, month: str, day: str) -> Iterator[str]:
    short_month, short_day = str(int(month)), str(int(day))
    orders = ((day, month), (short_day, short_month), (month, day), (short_month, short_day))
    for delimiter in "-./":
        yield delimiter.join((year, month, day))
        for first, second in orders:
            yield delimiter.join((first, second, year))
            if delimiter != "-":
                yield delimiter.join((first, second, year[2:]))
    full = _MONTHS[int(month) - 1]
    for name in (full, full[:3]):
        for one_day in (day, short_day):
            for delimiter in (" ", "-", ". "):
                yield f"{one_day}{delimiter}{name}{delimiter.strip('.')}{year}"
            yield f"{name} {one_day} {year}"
            yield f"{name} {one_day}, {year}"


def _forms(text: str, codecs: tuple[str, ...]) -> Iterator[bytes]:
    """Yield the lower-case bytes in which a text may stand."""
    composed = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    for cased in {cased for one in composed for cased in (one, one.lower(), one.upper(), one.title())}:
        for codec in (*codecs, "utf-8", "iso8859", "utf-16-le"):
            try:
                encoded = cased.encode(codec)
            except (LookupError, UnicodeError):
                continue
            # The last zero is left out: so the same bytes are found in both orders of UTF-16. An escape stands where a
            # run of a character set begins, which may be before the name.
            encoded = encoded.rstrip(b"\0") if codec == "utf-16-le" else _ESCAPES.sub(b"", encoded)
            if encoded:
                yield encoded.lower()
