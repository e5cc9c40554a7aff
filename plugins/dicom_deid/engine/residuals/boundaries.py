"""Word boundaries: whether a spelling that was found is a word of its own, and how far that word reaches."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dicom_deid.dicom.values import decode_text
from dicom_deid.engine.residuals.spellings import ESCAPES, MIN_FUZZY_NAME, NO_NAMES, UNBROKEN_SCRIPTS, WordBoundary
from dicom_deid.engine.residuals.terms import SearchTerm, TermKind
from dicom_deid.engine.vocabulary import is_word
from dicom_deid.exceptions import Quarantine

_TITLE = re.compile(
    rb"(?:\b(?:mr|mrs|ms|miss|mister|dr|prof|patient|pt|pat|name|herr|frau|hr|fr|mme|mlle|sr|sra|sig|dhr|mevr)\b"
    rb"[.:= ]{1,3}|\^)$"
)
# Escape sequences, and characters of scripts without blanks between words in UTF-8, are no letters beside a name.
_NO_LETTERS = re.compile(
    rb"%b|(?:\xe2[\xba-\xbf]|[\xe3-\xef][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf])[\x80-\xbf]" % ESCAPES.pattern
)
_NO_LETTER_BEFORE = re.compile(rb"(?:%b)$" % _NO_LETTERS.pattern)
_LETTERS_BEFORE = re.compile(rb"[a-z\x80-\xff]*$")
_LETTERS_AFTER = re.compile(rb"[a-z\x80-\xff]*")
_WIDE_BEFORE = re.compile(rb"(?:[a-z\x80-\xff]\0)*$")
_WIDE_AFTER = re.compile(rb"(?:\0[a-z\x80-\xff])*")
_CODECS = ("utf-8", "utf-16-le", "utf-16-be", "iso8859_1", "iso8859_2", "iso8859_5", "iso8859_7")
# First bytes of Greek, Cyrillic and Armenian letters in UTF-16; as single bytes they are no text.
_WIDE_ALPHABETS = (3, 4, 5)
_DAY_BEFORE = re.compile(rb"(?<!\d)(\d{1,2})(?:st|nd|rd|th|er|\xba|\xb0|\xc2\xba|\xc2\xb0)?[ .-]{0,2}(?:of |de )?$")
_YEAR_AFTER = re.compile(rb"[a-z.\x80-\xff]{0,9}[ ,.-]{0,3}(?:de )?(\d{4}|\d{2})(?!\d)")
_DAY_AND_YEAR_AFTER = re.compile(
    rb"[a-z.\x80-\xff]{0,9}[ .-]{0,2}(\d{1,2})(?:st|nd|rd|th)?,?[ ,.-]{1,2}(\d{4}|\d{2})(?!\d)"
)
_LETTERS_AND_ZEROS = re.compile(rb"[A-Za-z]*0*$")
# What can read as letters or digits of the value before it, in lower case: the tag of an item or of its end in both
# byte orders, and the number of a group, which a zero byte follows.
_NEXT_TAG = re.compile(rb"\xfe\xff|\xff\xfe|[^\0]\0")
_MAX_WORD, _MAX_DATE, _MAX_READ = 80, 24, 1 << 16
_OF_NUMBERS = b".,-/:"


class Hit(NamedTuple):
    """Place where a spelling of a term was found.

    Parameters
    ----------
    start, end
        In bytes of what was searched.
    boundary
        What must not be beside it.
    term
        The term.
    """

    start: int
    end: int
    boundary: WordBoundary
    term: SearchTerm


def extent(data: bytes, hit: Hit, first: int, last: int, codecs: tuple[str, ...] = ()) -> tuple[int, int] | None:
    """Return where the word of a hit begins and ends, or None where the hit is a part of another word.

    Parameters
    ----------
    data
        The bytes that were searched, or the object.
    hit
        A hit in them.
    first, last
        Where the value begins and ends that holds the hit.
    codecs
        Its character sets, if they are known.
    """
    if hit.boundary in (WordBoundary.START, WordBoundary.END):
        return _misspelt(data, hit, first, last)
    if hit.boundary is WordBoundary.MONTH:
        return _date(data, hit, first, last)
    return (hit.start, hit.end) if _is_free(data, hit, first, last, codecs) else None


def may_count(data: bytes, hit: Hit) -> bool:
    """Return whether a hit may be a word of its own, given elements whose values begin and end anywhere."""
    if hit.boundary < WordBoundary.TITLE or extent(data, hit, 0, len(data)) is not None:
        return True
    following = _NEXT_TAG.search(data, hit.end, hit.end + _MAX_WORD)
    last = len(data) if following is None else following.start()
    # In big endian order a length ends with the byte that can read as a letter.
    first = data.rfind(b"\0", max(hit.start - _MAX_WORD, 0), hit.start) + 2
    starts = (0, first) if 2 <= first <= hit.start else (0,)
    return any(extent(data, hit, start, end) is not None for start in starts for end in {last, len(data)})


def _is_free(data: bytes, hit: Hit, first: int, last: int, codecs: tuple[str, ...]) -> bool:
    boundary = hit.boundary
    if boundary is WordBoundary.NONE:
        return True
    before, after = _neighbours(data, hit.start, hit.end, first, last)
    if boundary is WordBoundary.DIGITS:
        prefix = _LETTERS_AND_ZEROS.sub(b"", data[max(first, hit.start - 16) : hit.start])
        return not (prefix[-1:].isdigit() or after.isdigit())
    is_after = boundary is not WordBoundary.LEFT and _is_letter(after)
    if (_is_letter(before) or is_after) and _is_part(data, hit, first, last, codecs, is_after=is_after):
        return False
    if boundary in (WordBoundary.LETTERS, WordBoundary.TITLE):
        return boundary is WordBoundary.LETTERS or bool(
            _TITLE.search(data[max(first, hit.start - 12) : hit.start].lower())
        )
    if before.isdigit() or (boundary is not WordBoundary.LEFT and after.isdigit()):
        return False
    return boundary is not WordBoundary.TOKEN or not _is_of_number(data, hit, first, last)


def _neighbours(data: bytes, start: int, end: int, first: int, last: int) -> tuple[bytes, bytes]:
    """Return the characters before and after a hit, which may be of two bytes."""
    wide = b"\0" in data[start:end]
    step = 2 if wide else 1
    before = data[max(start - step, first) : start].strip(b"\0")[-1:]
    after_start = end + step - 1 if wide else end
    return before, data[after_start : min(after_start + step, last)].strip(b"\0")[:1]


def _is_part(data: bytes, hit: Hit, first: int, last: int, codecs: tuple[str, ...], *, is_after: bool) -> bool:
    """Tell whether a letter beside a hit, by its bytes, is one of a script with blanks between words."""
    before, _ = _neighbours(data, hit.start, hit.end, first, last)
    is_before = _is_letter(before) and not _NO_LETTER_BEFORE.search(data, max(first, hit.start - 4), hit.start)
    is_after = is_after and not _NO_LETTERS.match(data, hit.end, last)
    read = _read_beside(data, hit, first, last, codecs) if is_before or is_after else None
    if read is None:
        return is_before or is_after
    return any(
        is_letter and character.isalpha() and character < UNBROKEN_SCRIPTS
        for is_letter, character in zip((is_before, is_after), read, strict=True)
    )


def _read_beside(data: bytes, hit: Hit, first: int, last: int, codecs: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the characters before and after a hit; None in character sets of one byte, or if they cannot be read."""
    if last - first > _MAX_READ or not codecs:
        return None
    if not _has_two_bytes(codecs[0]) and b"\x1b" not in data[first:last]:
        return None
    try:
        before, until, text = [decode_text(data[first:end], "LT", codecs) for end in (hit.start, hit.end, last)]
    except Quarantine:
        return None
    return before[-1:], text[len(until) : len(until) + 1]


@lru_cache(maxsize=64)
def _has_two_bytes(codec: str) -> bool:
    """Tell whether characters have two bytes or more; single bytes of them may be ASCII letters."""
    try:
        return len("中".encode(codec, "ignore")) > 1
    except LookupError:
        return False


def _is_of_number(data: bytes, hit: Hit, first: int, last: int) -> bool:
    before = data[max(hit.start - 2, first) : hit.start]
    after = data[hit.end : min(hit.end + 2, last)]
    return any(
        len(two) == 2 and two[delimiter] in _OF_NUMBERS and two[1 - delimiter : 2 - delimiter or None].isdigit()
        for two, delimiter in ((before, 1), (after, 0))
    )


def _is_letter(character: bytes) -> bool:
    return character.isalpha() or (character >= b"\x80" and character != b"")


def _misspelt(data: bytes, hit: Hit, first: int, last: int) -> tuple[int, int] | None:
    """Return the place of a word that differs by one edit from a name, half of which was found."""
    start, end = hit.start, hit.end
    high = _high_byte(data[start:end])
    if high is not None:
        start, end = _wide_word(data, start, end, first, last, high)
        is_part = start < hit.start if hit.boundary is WordBoundary.START else end > hit.end
        return None if is_part else _if_one_edit(data, start, end, hit)
    is_wide = b"\0" in data[start:end]
    beside = data[max(first, start - _MAX_WORD) : start].lower(), data[end : min(last, end + _MAX_WORD)].lower()
    if not is_wide:
        beside = _NO_LETTERS.split(beside[0])[-1], _NO_LETTERS.split(beside[1], maxsplit=1)[0]
    before = (_WIDE_BEFORE if is_wide else _LETTERS_BEFORE).search(beside[0])
    after = (_WIDE_AFTER if is_wide else _LETTERS_AFTER).match(beside[1])
    letters = (before[0] if before else b"", after[0] if after else b"")
    if letters[0] if hit.boundary is WordBoundary.START else letters[1]:
        return None
    return _if_one_edit(data, start - len(letters[0]), end + len(letters[1]), hit)


def _high_byte(found: bytes) -> int | None:
    """Return which of two bytes is the higher one if text is UTF-16 of another alphabet than Latin; else None."""
    if found.isalpha():
        return None
    return next((at for at in (0, 1) if found[at::2] and set(found[at::2]) <= set(_WIDE_ALPHABETS)), None)


def _wide_word(data: bytes, start: int, end: int, first: int, last: int, high: int) -> tuple[int, int]:
    """Return where a word in UTF-16 begins and ends."""
    least, most = max(first, start - _MAX_WORD), min(last, end + _MAX_WORD) - 1
    while start - 2 >= least and data[start - 2 + high] in _WIDE_ALPHABETS:
        start -= 2
    while end < most and data[end + high] in _WIDE_ALPHABETS:
        end += 2
    return start, end


def _if_one_edit(data: bytes, start: int, end: int, hit: Hit) -> tuple[int, int] | None:
    """Return where a word is if it differs by one edit from a name of the term."""
    word = data[start:end].lower()
    if _high_byte(word) is None:
        word = word.replace(b"\0", b"")
    if len(word) < MIN_FUZZY_NAME - 1 or _is_known_word(word):
        return None
    names = _names_of(hit.term.text)
    return (start, end) if any(_is_one_edit(word, name, width) for name, width in names) else None


@lru_cache(maxsize=4096)
def _is_known_word(word: bytes) -> bool:
    text = word.decode("utf-8", "replace")
    return is_word(text) or text in NO_NAMES


@lru_cache(maxsize=1024)
def _names_of(text: str) -> tuple[tuple[bytes, int], ...]:
    """Return the long names in a person name as bytes, and the bytes of a letter that is not ASCII."""
    names = [name for name in re.findall(r"[^\W\d_]+", text) if len(name) >= MIN_FUZZY_NAME]
    found = {(name.lower().encode(), 1): None for name in names if name.isascii()}
    for name in names:
        for cased in (name, name.lower(), name.upper(), name.title()):
            for codec in () if name.isascii() else _CODECS:
                encoded = cased.encode(codec, "ignore").lower()
                if len(encoded) >= len(name):
                    found[encoded, 2 if codec.startswith("utf") else 1] = None
    return tuple(found)


def _date(data: bytes, hit: Hit, first: int, last: int) -> tuple[int, int] | None:
    """Return the place of a date when the beginning of its month's name was found."""
    step = 2 if b"\0" in data[hit.start : hit.end] else 1
    after = data[hit.end + step - 1 : min(last, hit.end + step - 1 + _MAX_DATE * step)][::step].lower()
    last_year, both = _YEAR_AFTER.match(after), _DAY_AND_YEAR_AFTER.match(after)
    if not last_year and not both:
        return None
    before = data[max(first, hit.start - _MAX_DATE * step) : hit.start][::-1][step - 1 :: step][::-1].lower()
    digits = hit.term.text
    day, year = int(digits[6:]), digits[:4].encode()
    first_day = _DAY_BEFORE.search(before)
    if first_day and last_year and int(first_day[1]) == day and year.endswith(last_year[1]):
        return hit.start - step * len(first_day[0]), hit.end + step * last_year.end()
    if before[-1:].isalpha():
        return None
    if both and int(both[1]) == day and year.endswith(both[2]):
        return hit.start, hit.end + step * both.end()
    is_month = (
        hit.term.kind is TermKind.PERSON_DATE and not first_day and last_year is not None and last_year[1] == year
    )
    return (hit.start, hit.end + step * last_year.end()) if last_year and is_month else None


def _is_one_edit(word: bytes, name: bytes, width: int) -> bool:
    """Tell whether two words differ by one letter wrong, missing, added or exchanged with its neighbour."""
    if word == name or abs(len(word) - len(name)) > width:
        return False
    shorter = min(len(word), len(name))
    same = next((at for at in range(shorter) if word[at] != name[at]), shorter)
    alike = next((at for at in range(shorter - same) if word[-1 - at] != name[-1 - at]), shorter - same)
    wrong, missing = word[same : len(word) - alike], name[same : len(name) - alike]
    is_exchanged = len(wrong) == len(missing) == 2 and wrong == missing[::-1]
    return is_exchanged or max(len(wrong), len(missing)) <= width
