"""Matchers: where the spellings of search terms are in an object's bytes.

A spelling is searched in the object's character set, in UTF-8, in Latin-1 and in both byte orders of UTF-16: in a short
text the spellings of the terms that may be in it, one by one, and in a long one those of all terms by one automaton.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from threading import Lock

from ahocorasick_rs import BytesAhoCorasick, Implementation

from dicom_deid.engine.residuals.boundaries import Hit, may_count
from dicom_deid.engine.residuals.candidates import SearchedText, is_candidate, spellings_in
from dicom_deid.engine.residuals.dates import MAX_DATES, DateScanner
from dicom_deid.engine.residuals.spellings import WordBoundary, forms, spellings
from dicom_deid.engine.residuals.terms import SearchTerm, SearchTerms, TermKind

MAX_HITS = 1000
"""The search of an object stops here: it is full of identifiers, and the first ones say so."""
MAX_PATTERNS = 400_000
"""Patterns of all matchers that are kept, about 100 MB."""
_MAX_SPELLED_TERMS = 256
"""Of an object with more terms, which no real one has, each is searched for as it is written alone."""
_MAX_LOOK_UPS = 1 << 21
"""Terms, in times of the bytes that are searched, which are looked up; of more, one matcher is built."""
_MAX_SEARCHES = 16
"""Searches for the same terms, as in the objects of a series, after which a matcher of them is worth its making."""
_WINDOW = 1 << 18


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
        patterns: dict[bytes, dict[tuple[WordBoundary, SearchTerm], None]] = {}
        for term in sorted(_distinct(spelled), reverse=True):
            for text, boundary in spellings(term.kind, term.text)[: 1 if len(spelled) > _MAX_SPELLED_TERMS else None]:
                for form in forms(text, codecs):
                    patterns.setdefault(form, {})[boundary, term] = None
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
                    if may_count(span, hit):
                        hits.append(hit)
            if limit is not None and len(hits) > limit:
                return hits[: limit + 1]
        if self._dates is not None:
            hits += (Hit(start, end, WordBoundary.WORD, term) for start, end, term in self._dates.matches(span))
        return hits if limit is None else hits[: limit + 1]


class MatcherCache:
    """Matchers that were built, bounded by the number of their patterns; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._size = 0
        # The last used at the end.
        self._kept: OrderedDict[tuple[SearchTerms, tuple[str, ...]], TermMatcher] = OrderedDict()

    @property
    def size(self) -> int:
        """The patterns of all matchers that are kept."""
        return self._size

    def get(self, terms: SearchTerms, codecs: tuple[str, ...]) -> TermMatcher:
        """Return the matcher of search terms in an object of these character sets."""
        key = (terms, codecs)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = TermMatcher(terms, codecs)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._size += made.size
            while self._size > MAX_PATTERNS and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].size
        return made


_matcher = MatcherCache().get


def matches(span: bytes, terms: SearchTerms, codecs: tuple[str, ...], limit: int | None = None) -> list[Hit]:
    """Return where spellings of search terms are found in bytes whose ASCII letters are in lower case.

    Parameters
    ----------
    span
        The bytes.
    terms
        What is searched for.
    codecs
        The object's character sets.
    limit
        Stop once there are more hits.
    """
    is_repeated = _are_all_spelled(terms) and _searches(terms, codecs) > _MAX_SEARCHES
    if is_repeated or len(terms) * len(span) > _MAX_LOOK_UPS:
        return _matcher(terms, codecs).matches(span, limit) if terms else []
    text = SearchedText.of(span)
    hits: list[Hit] = []
    for term in _distinct(terms):
        if is_candidate(term.kind, term.text, codecs, text):
            hits += _hits(term, codecs, text)
            if limit is not None and len(hits) > limit:
                return hits[: limit + 1]
    return hits


@lru_cache(maxsize=1024)
def _are_all_spelled(terms: SearchTerms) -> bool:
    """Tell whether a matcher finds all spellings of all terms."""
    return len(terms) <= _MAX_SPELLED_TERMS and sum([one.kind is TermKind.DATE for one in terms]) <= MAX_DATES


def _searches(terms: SearchTerms, codecs: tuple[str, ...]) -> int:
    """Count the searches for the same terms, and return their number."""
    count = _counts(terms, codecs)
    count[0] += 1
    return count[0]


@lru_cache(maxsize=1024)
def _counts(terms: SearchTerms, codecs: tuple[str, ...]) -> list[int]:
    return [0]


def _hits(term: SearchTerm, codecs: tuple[str, ...], text: SearchedText) -> Iterator[Hit]:
    """Yield where the spellings of a term are found in a text."""
    span = text.raw
    for spelling, boundary in spellings_in(term.kind, term.text, codecs, text):
        for form in forms(spelling, codecs):
            at = span.find(form)
            while at >= 0:
                hit = Hit(at, at + len(form), boundary, term)
                if may_count(span, hit):
                    yield hit
                at = span.find(form, at + 1)


@lru_cache(maxsize=1024)
def _distinct(terms: SearchTerms) -> tuple[SearchTerm, ...]:
    """Return one term of those with the same value, the one of the first element."""
    found: dict[tuple[TermKind, str], SearchTerm] = {}
    for term in terms:
        known = found.get(term[:2])
        if known is None or term.tag < known.tag:
            found[term[:2]] = term
    return tuple(found.values())
