"""The residual sweep: originals that the rules removed or replaced, searched in what they left.

Names are searched by their parts, dates in the forms in which people write them, identifiers and addresses as they
stand; in the object's character set, in UTF-8 and in UTF-16. A hit counts where it is a word of its own ("Ann" is not
in "Annular") and stands in text: the text VRs, UN, and private elements. What a rule wrote is not searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from ahocorasick_rs import BytesAhoCorasick, Implementation

from dicom_deid.deidentify.entries import ObjectWalk
from dicom_deid.deidentify.inventory import Listed, inventory, inventory_of_items
from dicom_deid.dicom.dictionary import is_private, tag_text, vr_of
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import CHARACTER_SET_VRS, LONG_FORM_VRS, decode_text, split_values
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN
from dicom_deid.exceptions import Quarantine

# Of an instance there is one; its UID would make every object's patterns its own. It is searched by itself.
_INSTANCE_UIDS = frozenset(
    tag for order in (LITTLE_ENDIAN, BIG_ENDIAN) for tag in (order.tag.pack(8, 0x0018), order.tag.pack(8, 0x1155))
)
_SEARCHED_VRS = CHARACTER_SET_VRS | {"UN", "OB"}
_STRUCTURED_VRS = frozenset({b"DA", b"DT", b"TM", b"UI"})
_MIN_NAME, _MIN_IDENTIFIER, _MIN_PHRASE, _MAX_TEXT = 3, 4, 8, 128
_NAME_DELIMITERS = re.compile(r"[\^=\\,;/.()\s_-]+")
_PHRASE_DELIMITERS = re.compile(r"[\\,;^\r\n]+")
# Parts of names that are words of their own in descriptions, or say that there is no name.
_NO_NAMES = frozenset(
    (
        *("anon", "anonymous", "anonymized", "dicom", "doctor", "female", "male", "miss", "mister"),
        *("none", "null", "patient", "phantom", "prof", "test", "unknown"),
        *("abu", "bin", "das", "del", "den", "der", "des", "dos", "ibn", "las", "los", "van", "von"),
    )
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# The pattern sets of the studies that are under way.
_MAX_PATTERN_SETS = 256


class Residual(NamedTuple):
    """An original that stands where no rule reached.

    Parameters
    ----------
    listed
        The element that holds it.
    start, end
        Where it stands, in bytes of the object.
    """

    listed: Listed
    start: int
    end: int


# An element that the rules removed or replaced: its bytes, whether its VR is implicit, whether its byte order is big
# endian, and its codecs. The patterns of a study are found again by these.
Changed = tuple[bytes, bool, bool, tuple[str, ...]]


def find_residuals(walk: ObjectWalk, start: int, end: int, encoding: Encoding) -> list[Residual]:
    """Search the originals of a walked object in what the rules left of it.

    Parameters
    ----------
    walk
        The walk, whose edits say what changes.
    start, end
        Where the data set lies.
    encoding
        How its elements are encoded.

    Returns
    -------
    list of Residual
        Each in an element that holds text, in the order of the bytes.
    """
    data = walk.data
    changed, instance = _changed(walk)
    hits = []
    for first, last in _text_spans(walk, start, end):
        span = data[first:last].lower()
        if changed:
            hits += [(first + a, first + b) for a, b in _finder(changed).matches(span)]
        if instance:
            hits += [(first + a, first + a + len(instance)) for a in _occurrences(span, instance)]
    if not hits:
        return []
    left = [hit for hit in _outside(walk, sorted(hits)) if not _is_structured(data, hit[0], encoding)]
    left = [hit for hit in left if _may_be_word(data, *hit, encoding)]
    found = _in_text(walk, start, encoding, left) if left else ()
    return [one for one in found if _is_word(data, one.start, one.end, one.listed.start, one.listed.end)]


def redacted(data: bytes, residuals: Iterable[Residual]) -> bytes:
    """Return an object with an asterisk in place of each character of the residuals."""
    new = bytearray(data)
    for residual in residuals:
        for index in range(residual.start, residual.end):
            if new[index]:
                new[index] = 0x2A
    return bytes(new)


def _changed(walk: ObjectWalk) -> tuple[tuple[Changed, ...], bytes]:
    """Return the changed elements whose patterns a study shares, and the instance UID, which is the object's own."""
    data = walk.data
    changed = []
    instance = b""
    for start, end, _, scope in walk.edits:
        if scope is None or end - start < 10:
            continue
        level = scope.level
        big_endian = level.order.big_endian
        if data[start + big_endian] & 1:
            # A private element is removed for what it is, not for what it holds.
            continue
        if data[start : start + 4] in _INSTANCE_UIDS:
            if not level.path:
                instance = data[start + 8 : end].rstrip(b"\0 ")
            continue
        changed.append((data[start:end], level.implicit, big_endian, scope.codecs))
    return tuple(changed), instance


def _text_spans(walk: ObjectWalk, start: int, end: int) -> Iterator[tuple[int, int]]:
    if walk.pixel_data is None:
        yield start, end
        return
    first, last = walk.pixel_data
    yield start, min(first, end)
    if last is not None and last < end:
        yield last, end


class _Finder:
    """One pass for all patterns of a set of changed elements."""

    def __init__(self, changed: tuple[Changed, ...]) -> None:
        patterns = {form for one in changed for text in _originals(one) for form in _forms(text, one[3])}
        self._automaton = (
            BytesAhoCorasick(sorted(patterns), implementation=Implementation.ContiguousNFA) if patterns else None
        )
        self._lengths = [len(pattern) for pattern in sorted(patterns)]

    def matches(self, span: bytes) -> list[tuple[int, int]]:
        """Return where patterns stand in bytes of lower case."""
        if self._automaton is None:
            return []
        found = self._automaton.find_matches_as_indexes(span, overlapping=True)
        return [(first, last) for _, first, last in found]


@lru_cache(maxsize=_MAX_PATTERN_SETS)
def _finder(changed: tuple[Changed, ...]) -> _Finder:
    return _Finder(changed)


def _occurrences(span: bytes, pattern: bytes) -> Iterator[int]:
    at = span.find(pattern)
    while at >= 0:
        yield at
        at = span.find(pattern, at + 1)


# What is searched


def _originals(changed: Changed) -> Iterator[str]:
    for tag, vr, value in _elements(*changed):
        try:
            text = decode_text(value, vr, changed[3])
        except Quarantine:
            # What is no text of its character set cannot be searched as such.
            continue
        for component in split_values(text, vr):
            yield from _words(tag, vr, component)


def _elements(
    raw: bytes, implicit: bool, big_endian: bool, codecs: tuple[str, ...]
) -> Iterator[tuple[int, str, bytes]]:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    tag = int.from_bytes(raw[:2], order) << 16 | int.from_bytes(raw[2:4], order)
    explicit = not implicit and raw[4:6].isalpha()
    vr = raw[4:6].decode("ascii") if explicit else vr_of(tag)
    value = raw[12 if explicit and vr in LONG_FORM_VRS else 8 :]
    if vr == "SQ":
        encoding = Encoding(not explicit, big_endian)
        for listed in inventory_of_items(value, encoding, codecs):
            yield listed.element.tag, listed.element.vr, value[listed.start : listed.end]
    else:
        yield tag, vr, value


def _words(tag: int, vr: str, text: str) -> Iterator[str]:
    """Yield what identifies a person in one original value."""
    text = text.strip()
    if vr == "PN":
        yield from (part for part in _NAME_DELIMITERS.split(text) if _is_name(part))
    elif vr == "DA":
        yield from _dates(text)
    elif vr == "UI":
        if len(text) > _MIN_PHRASE:
            yield text
    elif vr in CHARACTER_SET_VRS and len(text) <= _MAX_TEXT:
        yield from (part for part in (text, *map(str.strip, _PHRASE_DELIMITERS.split(text))) if _is_identifying(part))


def _is_name(part: str) -> bool:
    if part.casefold() in _NO_NAMES or not any(character.isalpha() for character in part):
        return False
    # A name in Han or Hangul characters has fewer of them.
    return len(part) >= (_MIN_NAME if part.isascii() or part[0] < "\u2e80" else 2)


def _is_identifying(text: str) -> bool:
    has_digit = any(character.isdigit() for character in text)
    return len(text) >= _MIN_IDENTIFIER if has_digit else len(text) >= _MIN_PHRASE and " " in text


def _dates(text: str) -> Iterator[str]:
    digits = text.replace(".", "")
    is_number = len(digits) == 8 and digits.isascii() and digits.isdigit()
    if not is_number or digits == "00000000" or not 1 <= int(digits[4:6]) <= 12:
        return
    year, month, day = digits[:4], digits[4:6], digits[6:]
    short_month, short_day = str(int(month)), str(int(day))
    name = _MONTHS[int(month) - 1]
    yield digits
    for delimiter in "-./":
        yield delimiter.join((year, month, day))
        for one_day, one_month in ((day, month), (short_day, short_month)):
            yield delimiter.join((one_day, one_month, year))
            yield delimiter.join((one_month, one_day, year))
    for one_day in (day, short_day):
        for delimiter in " -":
            yield delimiter.join((one_day, name, year))
        yield f"{name} {one_day} {year}"
        yield f"{name} {one_day}, {year}"


def _forms(text: str, codecs: tuple[str, ...]) -> Iterator[bytes]:
    """Yield the lower-case bytes in which a text may stand."""
    for cased in {text.lower(), text.upper(), text.title()}:
        for codec in (*codecs, "utf-8", "utf-16-le"):
            try:
                encoded = cased.encode(codec)
            except (LookupError, UnicodeError):
                continue
            # The last zero is left out: so the same bytes are found in both orders of UTF-16.
            yield encoded.lower().rstrip(b"\0") if codec == "utf-16-le" else encoded.lower()


# Which hits count


def _outside(walk: ObjectWalk, hits: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the hits, in order, that no edit reaches."""
    edits = [(start, end) for start, end, _, scope in walk.edits if scope is not None and end > start]
    left = []
    index = 0
    for first, last in hits:
        while index < len(edits) and edits[index][1] <= first:
            index += 1
        if index == len(edits) or last <= edits[index][0]:
            left.append((first, last))
    return left


def _is_structured(data: bytes, start: int, encoding: Encoding) -> bool:
    """Tell whether a hit is the beginning of a date, time or UID, which rules address by their element."""
    if not encoding.implicit:
        return data[start - 4 : start - 2] in _STRUCTURED_VRS
    order: Literal["big", "little"] = "big" if encoding.big_endian else "little"
    tag = int.from_bytes(data[start - 8 : start - 6], order) << 16 | int.from_bytes(data[start - 6 : start - 4], order)
    return vr_of(tag).encode() in _STRUCTURED_VRS


def _may_be_word(data: bytes, start: int, end: int, encoding: Encoding) -> bool:
    """Tell whether a hit can be a word of its own, before it is known which element holds it.

    Where a letter follows, it may be the first byte of the next element's tag.
    """
    if encoding.implicit or encoding.big_endian or _is_word(data, start, end, 0, len(data)):
        return True
    if data[start - 4 : start - 2].isupper() or data[start - 8 : start - 4].isupper():
        return True
    return any(data[at : at + 2] == b"\xfe\xff" or data[at + 4 : at + 6].isupper() for at in (end, end + 1))


def _is_word(data: bytes, start: int, end: int, first: int, last: int) -> bool:
    """Tell whether a hit is a word of its own in the element whose value lies in ``[first, last)``."""
    wide = b"\0" in data[start:end]
    step = 2 if wide else 1
    before = data[max(start - step, first) : start].strip(b"\0")
    after = (
        data[end + step - 1 : min(end + 2 * step - 1, last)].strip(b"\0") if wide else data[end : min(end + 1, last)]
    )
    return not (_is_letter(before[-1:]) or _is_letter(after[:1]))


def _is_letter(character: bytes) -> bool:
    return character.isalnum() or (character >= b"\x80" and character != b"")


def _in_text(walk: ObjectWalk, start: int, encoding: Encoding, hits: Sequence[tuple[int, int]]) -> Iterator[Residual]:
    """Yield the hits that stand in an element of text."""
    if not hits:
        return
    leaves = [one for one in inventory(walk.data, start, encoding, partial=walk.partial) if one.element.vr != "SQ"]
    for first, last in dict.fromkeys(hits):
        holding: Any = next((one for one in leaves if one.start <= first and last <= one.end), None)
        if holding is not None and (holding.element.vr in _SEARCHED_VRS or is_private(holding.element.tag)):
            yield Residual(holding, first, last)


def where(residual: Residual) -> str:
    """Say in which element a residual stands."""
    element = residual.listed.element
    return element.nested_name or tag_text(element.tag)
