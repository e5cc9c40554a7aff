"""Decide which new values still contain text of an original value and must be hidden on pages.

A rule that cleans text keeps the words that it does not know, and a function of a site may keep anything. A new value
is shown only if

- no word of it is contained in the original value of its own element, and no word of that original in it;
- neither it nor a word of it is a word or a value of any other original value in the object;
- it does not contain a longer word of any original value.

Words are compared without case and accents. In doubt the value is hidden.
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
# A long random number contains shorter numbers by chance.
_SHORTEST_NUMBER_WITHIN = 6
# Values of these VRs are numbers or tables, never words.
_NUMBERS = frozenset({"OD", "OF", "OL", "OV", "OW"})
# Terms that the standard defines: `YES` in one element identifies nothing in another.
_CODES = "CS"


def paths_to_hide(originals: Mapping[str, Element], new: Mapping[str, Element]) -> Set[str]:
    """Return the paths whose new value contains text of an original value.

    Parameters
    ----------
    originals
        All elements of the source object by path.
    new
        The elements of the new object that are to be shown, by path. Bytes and sequences are ignored, because only
        their length is shown.
    """
    texts = {path: element for path, element in new.items() if element.texts}
    found = {path for path, element in texts.items() if path in originals and _share_word(originals[path], element)}
    search = _Search({path: element for path, element in texts.items() if path not in found})
    for element in originals.values():
        if element.vr != _CODES:
            found.update(search.paths_with_text_of(element))
    return found


def _share_word(original: Element, new: Element) -> bool:
    """Return whether the original and the new value of an element have a word, or a part of one, in common."""
    old_text, new_text = _joined(original), _joined(new)
    if not old_text or not new_text:
        return False
    least = _SHORTEST_NUMBER_WITHIN if new.vr == "UI" else _SHORTEST
    return (
        new_text in old_text
        or any(word in old_text for word in _words(new) if _is_significant(word, new.vr))
        or any(word in new_text for word in _words(original) if _is_long(word, least))
    )


class _Search:
    """New values, to be searched for the words of one original after the other.

    Parameters
    ----------
    new
        Elements by path.
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

    def paths_with_text_of(self, original: Element) -> Iterator[str]:
        """Yield the paths whose new value contains the original value or a word of it."""
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


def _is_significant(word: str, vr: str) -> bool:
    """Return whether a word that is contained in the original comes from it: an initial does, a digit may not."""
    return len(word) >= _SHORTEST or (vr != "UI" and (len(word) > 1 or not word.isdecimal()))


def _is_long(word: str, least: int) -> bool:
    """Return whether a word is long enough to identify; names in other scripts are short."""
    return len(word) >= least or not word.isascii()


def _joined(element: Element) -> str:
    """Return only letters and digits, so that separators make no difference."""
    return "".join(_words(element))


def _words(element: Element) -> Iterator[str]:
    for text in _texts(element):
        if element.vr == "DT":
            # The time of day is a word of its own.
            text = _DATE_AND_TIME.sub(r"\1 ", text)
        yield from _WORD.findall(text)


def _wholes(element: Element) -> Iterator[str]:
    """Yield the whole components of a value."""
    for text in _texts(element):
        whole = "".join(_WORD.findall(text))
        if whole:
            yield whole


def _texts(element: Element) -> Iterable[str]:
    if isinstance(element.value, bytes):
        return [] if element.vr in _NUMBERS else _texts_in(element.value)
    return map(_folded, element.texts)


def _texts_in(value: bytes) -> Iterator[str]:
    """Yield bytes decoded as text in common encodings."""
    for encoding in ("latin-1", "utf-8"):
        yield _folded(value.decode(encoding, "ignore"))
    if b"\0" in value:
        yield _folded(value.replace(b"\0", b"").decode("latin-1"))


def _folded(text: str) -> str:
    """Return text without case and accents."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(each for each in plain if not unicodedata.combining(each)).casefold()
