"""Exceptions of the recipe language; all problems of all files are reported together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from dicom_deid.exceptions import ConfigurationError


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
    """

    def __init__(self, message: str, column: int, near: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.near = near


class RecipeError(ConfigurationError):
    """Raised for a recipe with problems, ordered by file and line.

    Parameters
    ----------
    problems
        At least one.
    """

    def __init__(self, problems: Iterable[RecipeProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 problem in the recipe" if count == 1 else f"{count} problems in the recipe"
        super().__init__("\n".join([head, *map(str, self.problems)]))


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to `word`, ignoring case; None if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None
