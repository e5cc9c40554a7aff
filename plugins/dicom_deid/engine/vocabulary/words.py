"""Words of radiology, which do not identify a person when they are alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Sections whose words are so common in descriptions that a name equal to one of them says nothing where it is alone.
_BODY = ("en anatomy", "en position", "en patients")


@cache
def radiology_words() -> frozenset[str]:
    """Return common words of radiology in six languages, casefolded, with and without their accents."""
    return _with_plain(word for _, word in _listed())


def is_word(text: str) -> bool:
    """Tell whether a text is one common word of radiology."""
    return text.casefold() in radiology_words()


def is_body_word(text: str) -> bool:
    """Tell whether a text is an English word for a part of the body, its position or a kind of patient, as "Hand"."""
    return text.casefold() in _body_words()


def is_name(text: str) -> bool:
    """Tell whether a text is a common surname or given name."""
    return text.casefold() in common_names()


@cache
def common_names() -> frozenset[str]:
    """Return common surnames and given names, casefolded, with and without their accents."""
    lines = Path(__file__).with_name("names.txt").read_text(encoding="utf-8").splitlines()
    return _with_plain(word for line in lines if line[:1] != "#" for word in line.split())


@cache
def _body_words() -> frozenset[str]:
    return _with_plain(word for section, word in _listed() if section in _BODY)


def _listed() -> Iterator[tuple[str, str]]:
    section = ""
    for line in Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines():
        if line[:1] == "[":
            section = line.strip("[]")
        elif line[:1] != "#":
            yield from ((section, word) for word in line.casefold().split())


def _with_plain(words: Iterator[str]) -> frozenset[str]:
    return frozenset(form for word in words for form in (word, without_accents(word)))


def without_accents(text: str) -> str:
    """Return a text without its accents."""
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(letter for letter in decomposed if not unicodedata.combining(letter)))
