"""A vocabulary: which tokens of a free text may stay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from dicom_deid.engine.vocabulary.standard import standard_words
from dicom_deid.engine.vocabulary.words import radiology_words

MASK = "*"
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_POSSESSIVE = re.compile("['’]s$")
_PARTS = re.compile(r"[^\W\d_]+|\d+")
_CAMEL_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_INITIALS = re.compile(r"(?:\b[^\W\d_]\.\s?){2,}|(?<![^\W\d_])[^\W\d_]\.\s?(?=[^\W\d_]{3,})")
_UNITS = frozenset(
    (
        *("mm", "cm", "m", "um", "nm", "ms", "s", "sec", "min", "h", "hr", "hrs", "d", "wk", "w", "mo", "y", "yr"),
        *("yrs", "yo", "kv", "kvp", "ma", "mas", "mgy", "gy", "mg", "ug", "g", "kg", "ml", "cc", "l", "dl", "hz"),
        *("khz", "mhz", "t", "tesla", "deg", "px", "pix", "x", "fps", "bpm", "hu", "mbq", "gbq", "mci", "mmhg"),
        *("kpa", "lb", "lbs", "in", "ft", "st", "nd", "rd", "th", "er", "vol", "p", "k"),
    )
)
# T1, L3, H31s, TR500, b1000, 3D, 5mm, 2x2x2, T2w: a few letters, a few digits, a few letters.
_SEQUENCE_LIKE = re.compile(
    r"[a-z]{0,3}\d{1,3}(?:[a-z]{0,3}|x\d{1,3}(?:x\d{1,3})?[a-z]{0,2})|(?:tr|te|ti|b|fa|fov|mtx)\d{1,4}"
)
_NUMBER_WITH_UNIT = re.compile(r"(\d{1,4})([a-z]{1,5})")
_YEAR = re.compile(r"(?:19|20)\d\d")


class Vocabulary:
    """The words that may stay in free text.

    A token stays if the standard, the lists of radiology or the site has it as a word, or if it is a number, a number
    with a unit, or looks like the parameter of a sequence. A compound such as ``ThoraxRoutine`` stays if each of its
    parts does. All else is masked.

    Parameters
    ----------
    site
        The words of the site, in any case.
    """

    def __init__(self, site: Iterable[str] = ()) -> None:
        self._site = frozenset(word.casefold() for word in site)
        self._vouches = lru_cache(maxsize=65536)(self._decide)

    def mask(self, text: str) -> str:
        """Return a text with an asterisk in place of each character of the tokens that are not vouched for."""
        masked: list[str] = []
        end = 0
        for first, last in self._unknown(text):
            if first < end:
                continue
            masked += (text[end:first], re.sub(r"\S", MASK, text[first:last]))
            end = last
        return "".join((*masked, text[end:])) if masked else text

    def unknown_tokens(self, text: str) -> list[str]:
        """Return the tokens that would be masked, casefolded."""
        return [text[first:last].casefold() for first, last in self._unknown(text)]

    def vouches_for(self, token: str) -> bool:
        """Tell whether a token may stay."""
        return self._vouches(token)

    def _unknown(self, text: str) -> Iterator[tuple[int, int]]:
        initials = [match.span() for match in _INITIALS.finditer(text) if self._is_initials(match[0])]
        tokens = (match.span() for match in _TOKEN.finditer(text) if not self._vouches(match[0]))
        return iter(sorted((*initials, *tokens)))

    def _is_initials(self, found: str) -> bool:
        letters = "".join(filter(str.isalpha, found)).casefold()
        return letters not in self._site and letters not in radiology_words()

    def _decide(self, token: str) -> bool:
        word = _POSSESSIVE.sub("", token.casefold())
        if self._is_known(word) or len(word) == 1:
            return True
        if word.isdigit():
            return len(word) <= 4 and not _YEAR.fullmatch(word)
        if any(character.isdigit() for character in word):
            return self._is_parameter(word) or self._is_compound(token)
        return self._is_compound(token)

    def _is_known(self, word: str) -> bool:
        return word in self._site or word in radiology_words() or word in standard_words()

    def _is_parameter(self, word: str) -> bool:
        number = _NUMBER_WITH_UNIT.fullmatch(word)
        return bool(_SEQUENCE_LIKE.fullmatch(word) or (number and number[2] in _UNITS))

    def _is_compound(self, token: str) -> bool:
        """Tell whether each part of a token, by its capitals, digits and apostrophes, is a word or a short number."""
        for pattern in (_PARTS, _CAMEL_PARTS):
            parts = pattern.findall(token)
            if len(parts) > 1 and "".join(parts) == token and all(self._is_part(part) for part in parts):
                return True
        return False

    def _is_part(self, part: str) -> bool:
        if part.isdigit():
            return len(part) <= 3
        return len(part) > 2 and self._is_known(part.casefold())
