"""Matchers: one pass over an object's bytes for all spellings of all search terms.

A spelling is searched in the object's character set, in UTF-8, in Latin-1 and in both byte orders of UTF-16. What the
objects of a patient share is one automaton; the few terms of a single object have small automata of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from threading import Lock

from ahocorasick_rs import BytesAhoCorasick, Implementation

from dicom_deid.engine.residuals.boundaries import Hit, extent
from dicom_deid.engine.residuals.dates import MAX_DATES, DateScanner
from dicom_deid.engine.residuals.spellings import WordBoundary, spellings
from dicom_deid.engine.residuals.terms import SearchTerm, SearchTerms, TermKind

MAX_HITS = 1000
"""The search of an object stops here: it is full of identifiers, and the first ones say so."""
MAX_PATTERNS = 400_000
"""Patterns of all matchers that are kept, about 100 MB."""
_MAX_SPELLED_TERMS = 256
"""Of an object with more terms, which no real one has, each is searched for as it is written alone."""
_FEW_TERMS, _MAX_PATIENTS = 6, 4096
_WINDOW = 1 << 18
_PATIENT_GROUP = 0x0010
_ESCAPES = re.compile(rb"\x1b[$()*+,-./]{1,2}[@-~]")
_OUTER_ESCAPES = re.compile(rb"^\x1b[$()*+,-./]{1,2}[@-~]|\x1b[$()*+,-./]{1,2}[@-~]$")


class TermMatcher:
    """Finds the spellings of search terms in one pass.

    Parameters
    ----------
    terms
        What is searched for.
    codecs
        The object's character sets.
    """

    def __init__(self, terms: Iterable[SearchTerm], codecs: tuple[str, ...]) -> None:
        self.terms = frozenset(terms)
        dates = sorted(term for term in self.terms if term.kind is TermKind.DATE)
        self._dates = DateScanner(dates[MAX_DATES:]) if len(dates) > MAX_DATES else None
        spelled = self.terms.difference(dates[MAX_DATES:])
        patterns: dict[bytes, list[tuple[WordBoundary, SearchTerm]]] = {}
        # Several elements hold the same value: the first of them is named.
        for term in {(term.kind, term.text): term for term in sorted(spelled, reverse=True)}.values():
            for text, boundary in spellings(term.kind, term.text)[: 1 if len(spelled) > _MAX_SPELLED_TERMS else None]:
                for form in _forms(text, codecs):
                    _add_reading(patterns.setdefault(form, []), boundary, term)
        self._found = list(patterns.values())
        self._longest = max(map(len, patterns), default=0)
        self._automaton = (
            BytesAhoCorasick(list(patterns), implementation=Implementation.ContiguousNFA) if patterns else None
        )
        self.size = len(patterns) + len(dates)

    def matches(self, span: bytes, limit: int | None = None) -> list[Hit]:
        """Return where spellings are found in bytes whose ASCII letters are in lower case.

        Parameters
        ----------
        span
            The bytes.
        limit
            Stop once there are more hits.
        """
        hits: list[Hit] = []
        automaton = self._automaton
        for begin in range(0, len(span), _WINDOW):
            if automaton is None:
                break
            window = span if len(span) <= _WINDOW else span[begin : begin + _WINDOW + self._longest]
            for index, start, end in automaton.find_matches_as_indexes(window, overlapping=True):
                if start >= _WINDOW:
                    continue
                for boundary, term in self._found[index]:
                    hit = Hit(begin + start, begin + end, boundary, term)
                    if boundary < WordBoundary.TITLE or extent(span, hit, 0, len(span)):
                        hits.append(hit)
            if limit is not None and len(hits) > limit:
                return hits[: limit + 1]
        if self._dates is not None:
            hits += (Hit(start, end, WordBoundary.WORD, term) for start, end, term in self._dates.matches(span))
        return hits if limit is None else hits[: limit + 1]


def _add_reading(readings: list[tuple[WordBoundary, SearchTerm]], boundary: WordBoundary, term: SearchTerm) -> None:
    """Add what a form may be: the loosest of the boundaries that are the word's own, and all that need more than it."""
    if boundary >= WordBoundary.TITLE:
        readings.append((boundary, term))
    elif not readings or readings[0][0] >= WordBoundary.TITLE:
        readings.insert(0, (boundary, term))
    elif boundary < readings[0][0]:
        readings[0] = boundary, term


class MatcherCache:
    """Matchers that were built, bounded by the number of their patterns; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._size = 0
        # The last used at the end.
        self._kept: OrderedDict[tuple[SearchTerms, tuple[str, ...]], TermMatcher] = OrderedDict()
        # By the terms of the patient module: what the patient's objects so far had in common.
        self._shared: OrderedDict[tuple[SearchTerms, tuple[str, ...]], SearchTerms] = OrderedDict()

    def matchers(self, terms: SearchTerms, codecs: tuple[str, ...]) -> tuple[TermMatcher, ...]:
        """Return matchers that together find search terms in an object of these character sets.

        What the patient's objects have in common is one matcher, and each of the few terms of this object another.
        """
        if not terms:
            return ()
        whole = self._find((terms, codecs))
        if whole is not None:
            return (whole,)
        anchor = (frozenset(term for term in terms if term.tag >> 16 == _PATIENT_GROUP), codecs)
        with self._lock:
            common = self._shared.get(anchor, terms) & terms
            if len(terms) - len(common) > _FEW_TERMS:
                common = terms
            self._shared[anchor] = common
            self._shared.move_to_end(anchor)
            if len(self._shared) > _MAX_PATIENTS:
                self._shared.popitem(last=False)
        own = terms - common
        return (self._matcher(common, codecs), *(self._matcher(frozenset((term,)), codecs) for term in own))

    @property
    def size(self) -> int:
        """The patterns of all matchers that are kept."""
        return self._size

    def _find(self, key: tuple[SearchTerms, tuple[str, ...]]) -> TermMatcher | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _matcher(self, terms: SearchTerms, codecs: tuple[str, ...]) -> TermMatcher:
        key = (terms, codecs)
        made = self._find(key) or TermMatcher(terms, codecs)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._size += made.size
            while self._size > MAX_PATTERNS and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].size
        return made


matchers_for = MatcherCache().matchers


@lru_cache(maxsize=32768)
def _forms(text: str, codecs: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the lower-case bytes that a spelling has in each encoding."""
    if text.isascii():
        # The same in every character set other than UTF-16, and there in both byte orders apart from an outer zero.
        return text.encode(), text.encode("utf-16-le")[:-1]
    return tuple(dict.fromkeys(filter(None, _encoded(text, codecs))))


def _encoded(text: str, codecs: tuple[str, ...]) -> Iterator[bytes]:
    composed = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    for cased in {cased for one in composed for cased in (one, one.lower(), one.upper(), one.title())}:
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
            yield _ESCAPES.sub(b"", encoded).lower()
            yield _OUTER_ESCAPES.sub(b"", encoded).lower()
