"""Exceptions of the recipe language; all problems of all files are reported together."""

from __future__ import annotations

import difflib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from dicom_deid.exceptions import ConfigurationError

_COMPARED = 8
"""`difflib` compares a word with this many candidates; of a longer list, with the most similar ones by trigrams."""


@dataclass(frozen=True, slots=True, order=True)
class RecipeProblem:
    """One problem in a recipe file.

    Parameters
    ----------
    file
        Name of the recipe file, as it was given.
    line, column
        Both count from 1.
    message
        What is wrong.
    nearest
        The nearest correct word; None if none is near.
    """

    file: str
    line: int
    column: int
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class RecipeSyntaxError(Exception):
    """Raised where a line, or a part of one, cannot be parsed.

    Parameters
    ----------
    message
        What is wrong.
    column
        Counts from 1.
    near
        The nearest correct word, if any.
    ignored_by_deid
        Whether the `deid` package ignores the line silently, so that `%compat deid` may.
    """

    def __init__(self, message: str, column: int, near: str | None = None, *, ignored_by_deid: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.near = near
        self.ignored_by_deid = ignored_by_deid


class RecipeError(ConfigurationError):
    """Raised for a recipe with problems, ordered by file and line.

    Parameters
    ----------
    problems
        At least one.
    text
        What they are in: a recipe or criteria.
    """

    def __init__(self, problems: Iterable[RecipeProblem], text: str = "recipe") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"1 problem in the {text}" if count == 1 else f"{count} problems in the {text}"
        super().__init__("\n".join([head, *map(str, self.problems)]))


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to `word`, ignoring case; None if none is similar."""
    by_lower = _by_lower(tuple(candidates))
    compared = list(by_lower) if len(by_lower) <= _COMPARED else _similar(word.lower(), tuple(by_lower))
    close = difflib.get_close_matches(word.lower(), compared, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


@lru_cache(maxsize=4)
def _by_lower(candidates: tuple[str, ...]) -> dict[str, str]:
    return {candidate.lower(): candidate for candidate in candidates}


def _similar(word: str, words: tuple[str, ...]) -> list[str]:
    """Return the words that share most trigrams with a word."""
    index = _trigram_index(words)
    shared = Counter(chain.from_iterable(index.get(trigram, ()) for trigram in _trigrams(word)))
    scores = {position: 2 * count / (len(word) + len(words[position])) for position, count in shared.items()}
    return [words[position] for position in heapq.nlargest(_COMPARED, scores, key=scores.__getitem__)]


@lru_cache(maxsize=4)
def _trigram_index(words: tuple[str, ...]) -> dict[str, list[int]]:
    index = defaultdict(list)
    for position, word in enumerate(words):
        for trigram in _trigrams(word):
            index[trigram].append(position)
    return index


def _trigrams(word: str) -> set[str]:
    padded = f"^{word}$"
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
