"""What is wrong with a recipe: every problem of every file, at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from dicom_deid.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and where.

    Parameters
    ----------
    file
        Name of the recipe file, as it was given.
    line, column
        Both count from 1.
    message
        What is wrong.
    nearest
        The right word that is nearest to the wrong one, or nothing when none is near.
    """

    file: str
    line: int
    column: int
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class RecipeError(ConfigurationError):
    """A recipe that cannot be used, with all its problems in the order of the files and their lines.

    Parameters
    ----------
    problems
        At least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 problem in the recipe" if count == 1 else f"{count} problems in the recipe"
        super().__init__("\n".join([head, *map(str, self.problems)]))


def nearest(word: str, right_words: Iterable[str]) -> str | None:
    """Return the right word that is most like `word`, whatever its case, or nothing when none is near."""
    by_lower = {right.lower(): right for right in right_words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None
