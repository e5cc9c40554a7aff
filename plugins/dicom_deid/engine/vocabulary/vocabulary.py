"""A vocabulary: which tokens of a free text may stay."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache

from dicom_deid.engine.vocabulary.standard import standard_words
from dicom_deid.engine.vocabulary.words import is_body_word, is_name, radiology_words

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
# A word that is also a name is no word after these, nor across the end of a phrase or what was masked.
_BEFORE_NAMES = frozenset(
    (
        *("mr", "mrs", "ms", "miss", "mister", "dr", "doctor", "prof", "physician", "nurse", "name", "by", "patient"),
        *("sister", "brother", "mother", "father", "wife", "husband", "son", "daughter", "aunt", "uncle", "partner"),
        *("hr", "herr", "frau", "fr", "von", "schwester", "bruder", "mutter", "vater", "sohn", "tochter", "arzt"),
        *("mme", "mlle", "monsieur", "madame", "par", "soeur", "sœur", "frère", "mère", "père", "fils", "fille"),
        *("sr", "sra", "srta", "señor", "señora", "por", "paciente", "hermana", "hermano", "madre", "padre", "hijo"),
        *("sig", "signora", "dott", "paziente", "sorella", "fratello", "figlio", "figlia"),
        *("dhr", "mevr", "mw", "door", "zus", "broer", "moeder", "vader", "zoon", "dochter", "patiënt"),
    )
)
_END_OF_PHRASE = re.compile(r"[,;:.()\[\]\r\n*]")
_MIN_ARCHIVE_WORD = 3


class _Verdict(Enum):
    """What the lists say of a token."""

    UNKNOWN = 0
    NAME_TOO = 1
    """A word that is also a name: it stays beside another word."""
    VOUCHED = 2


class Vocabulary:
    """The words that may stay in free text.

    A token stays if the standard, the lists of radiology, the site or the archive has it as a word, or if it is a
    number, a number with a unit, or looks like the parameter of a sequence. A compound such as ``ThoraxRoutine`` stays
    if each of its parts does. A word that is also a common name, such as "Stone", stays only beside another word in
    the same phrase, and not after a title. All else is masked.

    Parameters
    ----------
    site
        The words of the site, in any case.
    archive
        Contains the words, casefolded, that occur for many patients of the project; a common name is never one.
    """

    def __init__(self, site: Iterable[str] = (), archive: Container[str] = ()) -> None:
        self._site = frozenset(word.casefold() for word in site)
        self._archive = archive
        self._verdict = lru_cache(maxsize=65536)(self._decide)

    def mask(self, text: str) -> str:
        """Return a text with an asterisk in place of each character of the tokens that nobody vouches for."""
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

    def unknown_words(self, text: str) -> frozenset[str]:
        """Return those of the tokens that would be masked that the archive could vouch for, casefolded."""
        words = (_POSSESSIVE.sub("", token) for token in self.unknown_tokens(text))
        return frozenset(word for word in words if _may_be_archive_word(word) and not self._is_known(word))

    def _unknown(self, text: str) -> Iterator[tuple[int, int]]:
        initials = [match.span() for match in _INITIALS.finditer(text) if self._is_initials(match[0])]
        tokens = list(_TOKEN.finditer(text))
        verdicts = [self._verdict(match[0]) for match in tokens]
        unknown = (
            match.span()
            for place, match in enumerate(tokens)
            if verdicts[place] is _Verdict.UNKNOWN
            or (verdicts[place] is _Verdict.NAME_TOO and not self._is_beside_word(text, tokens, place))
        )
        return iter(sorted((*initials, *unknown)))

    def _is_beside_word(self, text: str, tokens: Sequence[re.Match[str]], place: int) -> bool:
        """Tell whether a word that is also a name has another word beside it, and no title before it."""
        start, end = tokens[place].span()
        before = tokens[place - 1] if place else None
        if before and MASK not in text[before.end() : start] and before[0].casefold() in _BEFORE_NAMES:
            return False
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        return bool(
            (before and self._is_word_beside(before[0], text[before.end() : start]))
            or (after and self._is_word_beside(after[0], text[end : after.start()]))
        )

    def _is_word_beside(self, token: str, between: str) -> bool:
        is_word = len(token) > 1 and not token.isdigit() and self._verdict(token) is _Verdict.VOUCHED
        return is_word and not _END_OF_PHRASE.search(between)

    def _is_initials(self, found: str) -> bool:
        letters = "".join(filter(str.isalpha, found)).casefold()
        return letters not in self._site and letters not in radiology_words()

    def _decide(self, token: str) -> _Verdict:
        word = _POSSESSIVE.sub("", token.casefold())
        if self._is_known(word):
            return _Verdict.NAME_TOO if self._is_name_too(word) else _Verdict.VOUCHED
        if word.isdigit():
            return _verdict(len(word) <= 4 and not _YEAR.fullmatch(word))
        if len(word) == 1 or (any(map(str.isdigit, word)) and self._is_parameter(word)):
            return _Verdict.VOUCHED
        return self._of_compound(token)

    def _is_known(self, word: str) -> bool:
        if word in self._site or word in radiology_words() or word in standard_words():
            return True
        return _may_be_archive_word(word) and word in self._archive

    def _is_name_too(self, word: str) -> bool:
        return word not in self._site and is_name(word) and not is_body_word(word)

    def _is_parameter(self, word: str) -> bool:
        number = _NUMBER_WITH_UNIT.fullmatch(word)
        return bool(_SEQUENCE_LIKE.fullmatch(word) or (number and number[2] in _UNITS))

    def _of_compound(self, token: str) -> _Verdict:
        """Judge a token by its parts, between capitals, digits and apostrophes: each must be a word or a short number.

        One of them must be no name.
        """
        for pattern in (_PARTS, _CAMEL_PARTS):
            parts = pattern.findall(token)
            if len(parts) > 1 and "".join(parts) == token and all(self._is_part(part) for part in parts):
                is_name_alone = all(part.isdigit() or self._is_name_too(part.casefold()) for part in parts)
                return _Verdict.NAME_TOO if is_name_alone else _Verdict.VOUCHED
        return _Verdict.UNKNOWN

    def _is_part(self, part: str) -> bool:
        if part.isdigit():
            return len(part) <= 3
        return len(part) > 2 and self._is_known(part.casefold())


def _verdict(is_vouched: bool) -> _Verdict:
    return _Verdict.VOUCHED if is_vouched else _Verdict.UNKNOWN


def _may_be_archive_word(word: str) -> bool:
    return len(word) >= _MIN_ARCHIVE_WORD and word.isalpha() and not is_name(word)
