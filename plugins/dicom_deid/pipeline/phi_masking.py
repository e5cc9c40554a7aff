"""Which new values have something of an original in them, and so are not for everybody's eyes.

A rule that cleans text keeps the words that it does not know; a function that a site wrote may keep anything. A new
value is fit to be shown only where

- no word of it stands in the original of its own element, and no word of that original in it;
- no word of it, nor the whole of it, is a word or a value of any other original in the object;
- no longer word of any original stands in it.

Words are compared without case and accents. Where in doubt the value is withheld.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set

from dicom_deid.pipeline.changes import Element

_WORD = re.compile(r"[^\W_]+")
_DATE_AND_TIME = re.compile(r"(\d{8})(?=\d)")
_SHORTEST = 3
_SHORTEST_WITHIN = 5
# Shorter numbers stand in a long random number by chance.
_SHORTEST_NUMBER_WITHIN = 6
# What a value of these VRs says is a number or a table, never a word.
_NUMBERS = frozenset({"OD", "OF", "OL", "OV", "OW"})
# Terms that the standard defines: `YES` in one element says nothing of another.
_CODES = "CS"


def with_something_of(identifiers: Mapping[str, Element], new: Mapping[str, Element]) -> Set[str]:
    """Return the places whose new value has something of an original in it.

    Parameters
    ----------
    originals
        All elements of the source object, by their places.
    new
        The elements of the new object that are to be shown, by their places. Bytes and sequences, of which only the
        number is shown, say nothing.
    """
    said = {path: element for path, element in new.items() if element.texts}
    found = {path for path, element in said.items() if path in identifiers and _touch(identifiers[path], element)}
    search = _Search({path: element for path, element in said.items() if path not in found})
    for element in identifiers.values():
        if element.vr != _CODES:
            found.update(search.touched_by(element))
    return found


def _touch(original: Element, new: Element) -> bool:
    """Tell whether an original and the new value of the same element have a word in common, or a part of one."""
    old_text, new_text = _joined(original), _joined(new)
    if not old_text or not new_text:
        return False
    least = _SHORTEST_NUMBER_WITHIN if new.vr == "UI" else _SHORTEST
    return (
        new_text in old_text
        or any(word in old_text for word in _words(new) if _says_something(word, new.vr))
        or any(word in new_text for word in _words(original) if _is_long(word, least))
    )


class _Search:
    """New values, to be searched for the words of one original after the other.

    Parameters
    ----------
    new
        By their places.
    """

    def __init__(self, new: Mapping[str, Element]) -> None:
        self._words: defaultdict[str, set[str]] = defaultdict(set)
        self._beginnings: defaultdict[str, set[str]] = defaultdict(set)
        self._texts = {path: _joined(element) for path, element in new.items()}
        # Scripts without blanks between words have short ones.
        self._unbroken = {path: text for path, text in self._texts.items() if not text.isascii()}
        for path, element in new.items():
            for whole in _wholes(element):
                self._words[whole].add(path)
            for word in _words(element):
                if _is_long(word, _SHORTEST):
                    self._words[word].add(path)
            text = self._texts[path]
            for start in range(len(text) - _SHORTEST_WITHIN + 1):
                self._beginnings[text[start : start + _SHORTEST_WITHIN]].add(path)

    def touched_by(self, original: Element) -> Iterator[str]:
        """Yield the places whose new value has a word of the original, or the whole of it."""
        for whole in _wholes(original):
            yield from self._words.get(whole, ())
        for word in _words(original):
            if _is_long(word, _SHORTEST):
                yield from self._words.get(word, ())
            if len(word) >= _SHORTEST_NUMBER_WITHIN or not word.isdecimal():
                begun = self._beginnings.get(word[:_SHORTEST_WITHIN], ())
                yield from (path for path in begun if word in self._texts[path])
            if self._unbroken and not word.isascii() and not isinstance(original.value, bytes):
                yield from (path for path, text in self._unbroken.items() if word in text)


def _says_something(word: str, vr: str) -> bool:
    """Tell whether a word of a new value, if it stands in the original, is of it: an initial is, a digit is not."""
    return len(word) >= _SHORTEST or (vr != "UI" and (len(word) > 1 or not word.isdecimal()))


def _is_long(word: str, least: int) -> bool:
    """Tell whether a word says something by itself; names of other scripts are short."""
    return len(word) >= least or not word.isascii()


def _joined(element: Element) -> str:
    """Return letters and digits alone, so that another separator makes no difference."""
    return "".join(_words(element))


def _words(element: Element) -> Iterator[str]:
    for text in _texts(element):
        if element.vr == "DT":
            # The time of day is a word of its own.
            text = _DATE_AND_TIME.sub(r"\1 ", text)
        yield from _WORD.findall(text)


def _wholes(element: Element) -> Iterator[str]:
    """Yield the components of a value, whole, however short."""
    for text in _texts(element):
        whole = "".join(_WORD.findall(text))
        if whole:
            yield whole


def _texts(element: Element) -> Iterable[str]:
    if isinstance(element.value, bytes):
        return [] if element.vr in _NUMBERS else _texts_in(element.value)
    return map(_folded, element.texts)


def _texts_in(value: bytes) -> Iterator[str]:
    """Yield what bytes may say, in the encodings that people use."""
    for encoding in ("latin-1", "utf-8"):
        yield _folded(value.decode(encoding, "ignore"))
    if b"\0" in value:
        yield _folded(value.replace(b"\0", b"").decode("latin-1"))


def _folded(text: str) -> str:
    """Return text without case and accents."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(each for each in plain if not unicodedata.combining(each)).casefold()
