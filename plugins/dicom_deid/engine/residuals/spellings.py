"""Spellings: the forms in which people write a name, an identifier, a telephone number, an address or a date.

Those in ASCII are in lower case. With each goes the boundary that a hit must have: "Ann" does not match "Annular".
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from itertools import islice, product

from dicom_deid.engine.residuals.terms import TermKind
from dicom_deid.engine.vocabulary import is_body_word, is_word

MIN_NAME, MIN_IDENTIFIER, MIN_NUMBER = 3, 4, 6
"""Shorter names are searched for together with another part, shorter identifiers not at all; numbers of at least six
digits are also searched for with other separators and without leading zeros or prefix."""
MIN_FUZZY_NAME = 6
"""Names of so many letters are also found with one letter wrong, missing, added or exchanged with its neighbour."""
_MIN_PHRASE = 8
_NAME_DELIMITERS = re.compile(r"[\^=\\,;/.()\s\u00b7\u30fb_-]+")
_APOSTROPHES = re.compile("['’`´ʼ]")
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_GROUP_DELIMITERS = re.compile(r"[\s+()./_-]+")
UNBROKEN_SCRIPTS = "\u2e80"
"""The first character of the scripts without blanks between words, or with endings of names: Han, Kana, Hangul."""
# Letters that are written as others where they are not at hand.
_BASE_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i"})
_SPELLED_OUT = _BASE_LETTERS | str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_UMLAUTS = {"a": "ä", "o": "ö", "u": "ü"}
_PREFIXES = (
    *("de la", "de las", "de los", "del", "de", "di", "al"),
    *("van der", "van den", "van de", "van", "von der", "von"),
)
_BETWEEN_PARTS = (" ", ", ", ",", "^", "=", "_", "-", ".", "\u3000", "\u00b7", "\u30fb", "")
# Parts of names that are words of their own in descriptions, or say that there is no name.
NO_NAMES = frozenset(
    (
        *("anon", "anonymous", "anonymized", "default", "dicom", "doctor", "female", "first", "last", "male", "miss"),
        *("enter", "mister", "name", "none", "null", "patient", "phantom", "prof", "template"),
        *("test", "text", "unknown"),
        *("abu", "bin", "del", "den", "der", "des", "dos", "ibn", "las", "los", "van", "von"),
    )
)
# The code of a subject of a trial, such as `NSCLC-PET-058`: written as a name, but its words are those of the trial.
_SUBJECT_CODE = re.compile(r"(?=.*(?:^|[-_.])\d+(?:[-_.]|$))[^\s^]+[-_.][^\s^]+\^*")
_NO_PERSON = re.compile(r"\b(?:phantom|dicom)\b", re.IGNORECASE)
# Initials that are abbreviations of their own: a.m., i.v., p.o., e.g. ...
_NO_INITIALS = frozenset(
    (
        *("am", "ap", "bc", "dl", "eg", "ie", "im", "iv", "ld", "lr", "md", "oa", "od"),
        *("os", "pa", "pm", "po", "rl", "sc", "uk", "us", "vs"),
    )
)
_MONTHS = tuple(
    tuple(names.split())
    for names in (
        "january february march april may june july august september october november december",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "januari februari maart april mei juni juli augustus september oktober november december",
    )
)
# The bytes of ASCII letters are in lower case in any case.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
ESCAPES = re.compile(rb"\x1b[$()*+,-./]{1,2}[@-~]")
"""Escape sequences of ISO 2022."""
_OUTER_ESCAPES = re.compile(rb"^\x1b[$()*+,-./]{1,2}[@-~]|\x1b[$()*+,-./]{1,2}[@-~]$")
_ERAS = (("令和", 2018), ("平成", 1988), ("昭和", 1925), ("大正", 1911))


class WordBoundary(IntEnum):
    """Characters that must not be beside a hit; where two apply to one spelling, the looser one is used."""

    NONE = 0
    """Anything may be: the script has no blanks between words."""
    LETTERS = 1
    """No letter: a name is found in `Smith1950`, and not in `Smithsonian`."""
    DIGITS = 2
    """No digit other than leading zeros: a number is found in `MRN0007788`."""
    LEFT = 3
    """No letter or digit before it: a date may be followed by the time of day."""
    WORD = 4
    """No letter or digit on either side."""
    TOKEN = 5
    """As WORD, and it is no part of a decimal, a version or a UID."""
    TITLE = 6
    """As LETTERS, and after a title: a name that is also a word of radiology."""
    START = 7
    """The first half of a name that may be misspelt: the word it begins is compared with the name."""
    END = 8
    """The second half of such a name."""
    MONTH = 9
    """The beginning of a month's name, which the day and the year of a date go with."""


Spelling = tuple[str, WordBoundary]


@lru_cache(maxsize=2048)
def spellings(kind: TermKind, value: str) -> tuple[Spelling, ...]:
    """Return the spellings of a value; none where it is too short, or a word that does not identify."""
    found: Iterable[Spelling]
    if _NO_PERSON.search(value):
        found = ()
    elif kind is TermKind.NAME:
        found = _names(value)
    elif kind is TermKind.DATE:
        found = _dates(value)
    elif kind is TermKind.PERSON_DATE:
        found = (*_dates(value), *_partial_dates(value))
    elif kind is TermKind.PLACE:
        found = _places(value)
    elif kind is TermKind.UID:
        found = ((value, WordBoundary.WORD),)
    else:
        found = _identifiers(value)
    return tuple(dict.fromkeys((text.lower() if text.isascii() else text, boundary) for text, boundary in found))


def key_spellings(kind: TermKind, value: str) -> Iterator[Spelling]:
    """Yield a few spellings of a value that is no date; the letters and digits of one of them are in each spelling."""
    if _NO_PERSON.search(value):
        return
    if kind is TermKind.NAME:
        yield from _name_keys(value)
    elif not value.isascii():
        yield from spellings(kind, value)
    elif kind is TermKind.PLACE:
        yield from islice(_places(value), 1)
    else:
        yield from islice(_identifiers(value), 1)
        yield from islice(_numbers(value, "".join(filter(str.isdigit, value))), 1)


# Names


def _name_keys(text: str) -> Iterator[Spelling]:
    for group in text.split("="):
        parts: list[str] = []
        names: list[str] = []
        for component in group.split("^"):
            of_component = [part for part in _NAME_DELIMITERS.split(component) if part]
            found = [part for part in of_component if _is_name(part)]
            if not found:
                yield from _joined_prefixes(component.strip())
            parts += of_component
            names += found
        for part in names:
            yield from _name_part(part)
        if len(parts) > 1:
            family, given = parts[:2]
            yield from (_initials if family in names or given in names else _together)(family, given)


def _names(text: str) -> Iterator[Spelling]:
    for group in text.split("="):
        components = [component.strip() for component in group.split("^")]
        for component in components:
            yield from _joined_prefixes(component)
        parts = [part for part in _NAME_DELIMITERS.split(group) if part]
        is_code = _SUBJECT_CODE.fullmatch(group) is not None
        if is_code:
            yield from _identifiers(group.strip("^"))
        for part in parts:
            if _is_name(part) and not (is_code and is_word(part)):
                yield from _name_part(part)
        if len(parts) > 1 and not is_code:
            yield from _together(parts[0], parts[1])


def _name_part(part: str) -> Iterator[Spelling]:
    if part[0] >= UNBROKEN_SCRIPTS:
        yield part, WordBoundary.NONE
        return
    if is_body_word(part):
        yield part, WordBoundary.TITLE
        return
    yield part, WordBoundary.LETTERS
    for written in (*_apostrophes(part), *_plain(part), *_umlauts(part)):
        yield written, WordBoundary.LETTERS
    yield from _halves(part)


def _halves(part: str) -> Iterator[Spelling]:
    """Yield the halves of a name: of one edit, one of the halves is left as it was."""
    if len(part) >= MIN_FUZZY_NAME and part.isalpha():
        middle = (len(part) + 1) // 2
        yield part[:middle], WordBoundary.START
        yield part[middle:], WordBoundary.END


def _together(family: str, given: str) -> Iterator[Spelling]:
    """Yield a family and a given name together: one may be too short, or a word, to be searched for alone."""
    unbroken = family[0] >= UNBROKEN_SCRIPTS
    boundary = WordBoundary.NONE if unbroken else WordBoundary.LETTERS
    # Of longer names each part is found alone, but for where the two are one word.
    between = ("",) if _is_plain_name(family) and _is_plain_name(given) else _BETWEEN_PARTS
    for first, second in ((family, given), (given, family)):
        for delimiter in between:
            if unbroken or len(first) + len(second) > MIN_NAME:
                yield f"{first}{delimiter}{second}", boundary
    yield from _initials(family, given)


def _initials(family: str, given: str) -> Iterator[Spelling]:
    if family[0] >= UNBROKEN_SCRIPTS or not (family[0].isalpha() and given[0].isalpha()):
        return
    for first, second in ((given[0], family[0]), (family[0], given[0])):
        if f"{first}{second}".lower() not in _NO_INITIALS:
            yield f"{first}.{second}.", WordBoundary.WORD
            yield f"{first}. {second}.", WordBoundary.WORD
    if not _is_plain_name(family):
        yield f"{given[0]}. {family}", WordBoundary.WORD
        yield f"{given[0]}.{family}", WordBoundary.WORD
        yield f"{family}, {given[0]}", WordBoundary.WORD


def _joined_prefixes(component: str) -> Iterator[Spelling]:
    """Yield a name of several words as one word, and one with a prefix in it as several."""
    words = component.lower().split()
    if len(words) > 1:
        if sum(map(len, words)) > MIN_NAME:
            yield "".join(words), WordBoundary.LETTERS
        return
    name = "".join(words)
    for prefix in _PREFIXES:
        joined = prefix.replace(" ", "")
        rest = name.removeprefix(joined)
        if rest != name and len(rest) >= MIN_NAME:
            yield f"{prefix} {rest}", WordBoundary.LETTERS
            yield f"{joined} {rest}", WordBoundary.LETTERS


def _apostrophes(part: str) -> Iterator[str]:
    if _APOSTROPHES.search(part):
        yield from (_APOSTROPHES.sub(other, part) for other in ("'", "’", "`", " ", ""))
    elif part[0] in "oOdDlL" and len(part) > MIN_NAME:
        yield from (f"{part[0]}{other}{part[1:]}" for other in "'’")


def _plain(part: str) -> Iterator[str]:
    """Yield how a name is written where its accents are not at hand."""
    if part.isascii():
        return
    letters = unicodedata.normalize("NFC", part).lower()
    for spelled in (letters.translate(_SPELLED_OUT), letters.translate(_BASE_LETTERS)):
        decomposed = unicodedata.normalize("NFD", spelled)
        yield "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _umlauts(part: str) -> Iterator[str]:
    """Yield a name in ASCII with the umlauts that it may have been written for."""
    name = part.lower()
    if not name.isascii():
        return
    for letter, umlaut in _UMLAUTS.items():
        if f"{letter}e" in name:
            yield name.replace(f"{letter}e", umlaut, 1)
        elif letter in name[1:]:
            yield name[0] + name[1:].replace(letter, umlaut, 1)


def _is_name(part: str) -> bool:
    if part.casefold() in NO_NAMES or not (part.isalpha() or any(character.isalpha() for character in part)):
        return False
    return len(part) >= (MIN_NAME if part[0] < UNBROKEN_SCRIPTS else 2)


def _is_plain_name(part: str) -> bool:
    return _is_name(part) and part[0] < UNBROKEN_SCRIPTS and not is_body_word(part)


# Identifiers, telephone numbers, addresses


def _identifiers(text: str) -> Iterator[Spelling]:
    if len(text) < MIN_IDENTIFIER or text.casefold() in NO_NAMES or len(set(text)) == 1:
        return
    digits = "".join(filter(str.isdigit, text))
    if not digits:
        # Letters alone: as a whole token, unless they are ordinary words, and abbreviations beside one.
        words = [word for word in _NOT_LETTERS.split(text) if len(word) >= MIN_NAME]
        if not words or not all(map(is_word, words)):
            yield text, WordBoundary.WORD
        return
    is_short_number = len(digits) < MIN_NUMBER and not any(character.isalpha() for character in text)
    yield text, WordBoundary.TOKEN if is_short_number else WordBoundary.WORD
    groups = [group for group in _GROUP_DELIMITERS.split(text) if group]
    if len(groups) > 1 and len(digits) >= MIN_NUMBER:
        yield from ((delimiter.join(groups), WordBoundary.WORD) for delimiter in ("", " ", "-", ".", "/", "_"))
        yield from ((f"({groups[0]}) {delimiter.join(groups[1:])}", WordBoundary.WORD) for delimiter in (" ", "-"))
    yield from _numbers(text, digits)


def _numbers(text: str, digits: str) -> Iterator[Spelling]:
    """Yield the number in an identifier, without leading zeros or prefix, and in groups."""
    number = digits.lstrip("0")
    letters = sum(character.isalpha() for character in text)
    if len(number) < MIN_NUMBER or letters > 4 or not re.search(r"\d{3}", text):
        return
    yield number, WordBoundary.DIGITS
    if len(number) <= 12:
        for groups, delimiter in product(_groupings(number), "- ./"):
            yield delimiter.join(groups), WordBoundary.DIGITS


@lru_cache(maxsize=1024)
def _groupings(number: str) -> tuple[tuple[str, ...], ...]:
    """Return the ways to write a number in groups of two to four digits, as alike as they are in use."""
    found = []
    for size in (2, 3, 4):
        from_left = tuple(number[at : at + size] for at in range(0, len(number), size))
        rest = len(number) % size
        from_right = (number[:rest], *(number[at : at + size] for at in range(rest, len(number), size)))
        found += [groups for groups in (from_left, from_right) if all(len(group) > 1 for group in groups)]
    for first, second in ((2, 3), (3, 3), (3, 2)):
        found.append((number[:first], number[first : first + second], number[first + second :]))
    for size in (1, 2):
        # The last digits of an odd number of them go with those before.
        pairs = [number[at : at + 2] for at in range(0, len(number) - size, 2)]
        if len(pairs) > 1 and len(number) % 2:
            found.append((*pairs[:-1], pairs[-1] + number[2 * len(pairs) :]))
    return tuple(dict.fromkeys(groups for groups in found if len(groups) > 1 and all(groups)))


def _places(text: str) -> Iterator[Spelling]:
    if text.casefold() in NO_NAMES:
        return
    words = [word for word in re.split(r"[^\w]+", text) if word]
    has_digit = any(character.isdigit() for character in text)
    if has_digit and len(text) >= MIN_NUMBER and len(words) == 1:
        yield text, WordBoundary.WORD
    elif len(words) > 1 and len(text) >= _MIN_PHRASE and not all(is_word(word) for word in words):
        yield text, WordBoundary.WORD
        yield " ".join(words), WordBoundary.WORD
        yield ", ".join(words), WordBoundary.WORD
    elif len(words) == 1 and len(text) >= MIN_IDENTIFIER and not is_word(text):
        yield text, WordBoundary.WORD


# Dates


def _dates(digits: str) -> Iterator[Spelling]:
    year, month, day = digits[:4], digits[4:6], digits[6:]
    yield digits, WordBoundary.LEFT
    for written in _numeric_dates(year, month, day):
        yield written, WordBoundary.WORD
    for name in month_names(int(month)):
        yield name, WordBoundary.MONTH
    for written in _east_asian_dates(int(year), int(month), int(day)):
        yield written, WordBoundary.NONE


def _numeric_dates(year: str, month: str, day: str) -> Iterator[str]:
    short_month, short_day = str(int(month)), str(int(day))
    orders = ((day, month), (short_day, short_month), (month, day), (short_month, short_day))
    yield f"{day}{month}{year}"
    yield f"{month}{day}{year}"
    for delimiter in ("-", ".", "/", "_", " ", ". "):
        yield delimiter.join((year, month, day))
        yield delimiter.join((year, short_month, short_day))
        for first, second in orders:
            yield delimiter.join((first, second, year))
            if delimiter in ("-", ".", "/"):
                yield delimiter.join((first, second, year[2:]))
    for delimiter in "-/":
        yield delimiter.join((year[2:], month, day))


@lru_cache(maxsize=16)
def month_names(month: int) -> tuple[str, ...]:
    """Return the beginnings of a month's names, with and without their accents."""
    names = [language[month - 1] for language in _MONTHS]
    return tuple(dict.fromkeys(form[:3] for name in names for form in (name, *_plain(name))))


def _east_asian_dates(year: int, month: int, day: int) -> Iterator[str]:
    years = [str(year), *(f"{era}{year - before}" for era, before in _ERAS if 0 < year - before < 65)]
    for written in years:
        yield f"{written}年{month}月{day}日"
        yield f"{written}年{month:02d}月{day:02d}日"


def _partial_dates(digits: str) -> Iterator[Spelling]:
    """Yield the digits of a date of the person without its century, and its month and year without the day."""
    year, month, day = digits[:4], digits[4:6], digits[6:]
    yield digits[2:], WordBoundary.TOKEN
    yield f"{day}{month}{year[2:]}", WordBoundary.TOKEN
    for delimiter in "/-.":
        yield f"{month}{delimiter}{year}", WordBoundary.TOKEN
    yield f"{year}年{int(month)}月", WordBoundary.NONE


# Bytes


@lru_cache(maxsize=32768)
def forms(text: str, codecs: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the lower-case bytes that a spelling has in each encoding."""
    if text.isascii():
        # The same in every character set other than UTF-16, and there in both byte orders apart from an outer zero.
        return text.encode(), text.encode("utf-16-le")[:-1]
    return tuple(dict.fromkeys(filter(None, _encoded(text, codecs))))


def _encoded(text: str, codecs: tuple[str, ...]) -> Iterator[bytes]:
    composed = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    cased_forms = {cased for one in composed for cased in (one, one.lower(), one.upper(), one.title())}
    for cased in {cased.translate(_LOWER) for cased in cased_forms}:
        for codec in (*codecs, "utf-8", "iso8859", "utf-16-le", "utf-16-be"):
            try:
                encoded = cased.encode(codec)
            except (LookupError, UnicodeError):
                continue
            if codec.startswith("utf-16"):
                # Without the outer zero the same bytes are found in both byte orders where all letters are Latin.
                yield encoded.strip(b"\0").lower()
                continue
            # An escape is where a run of a character set begins, which may be before the name; those between two runs
            # are in the text too.
            yield ESCAPES.sub(b"", encoded).lower()
            yield _OUTER_ESCAPES.sub(b"", encoded).lower()
