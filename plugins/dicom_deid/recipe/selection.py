"""Selection of objects by criteria: the lines `select` and `exclude` of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.criteria import CriteriaLine, parse_criteria, without_comment
from dicom_deid.recipe.errors import RecipeError, RecipeProblem, RecipeSyntaxError
from dicom_deid.recipe.profile_attributes import profile_attributes


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects that a run de-identifies: those for which every line of `select` and no line of `exclude` holds.

    Parameters
    ----------
    select, exclude
        Lines of criteria.
    """

    select: tuple[CriteriaLine, ...] = ()
    exclude: tuple[CriteriaLine, ...] = ()

    @classmethod
    def parse(cls, select: str = "", exclude: str = "") -> Selection:
        """Read lines of criteria; blank lines and comments do nothing.

        Raises
        ------
        RecipeError
            With all problems of both texts: what `parse_criteria` refuses, and criteria with the value of an
            identifier, which would be stored and shown with the run.
        """
        problems: list[RecipeProblem] = []
        lines = [_lines(name, text, problems) for name, text in (("select", select), ("exclude", exclude))]
        if problems:
            raise RecipeError(problems, "criteria")
        return cls(*lines)

    def __bool__(self) -> bool:
        return bool(self.select or self.exclude)

    @property
    def digest(self) -> str:
        """SHA-256 of the criteria, as 64 hexadecimal digits; empty without criteria."""
        return hashlib.sha256(repr((self.select, self.exclude)).encode()).hexdigest() if self else ""

    @property
    def tags(self) -> frozenset[int]:
        """Tags of the root data set that the criteria read."""
        return frozenset(one.tag for line in (*self.select, *self.exclude) for one in line.criteria)

    def excluded_by(self, value_of: Callable[[int], str | None]) -> str:
        """Return the line that excludes an object, such as ``exclude: equals Modality SR``; empty if none does.

        Parameters
        ----------
        value_of
            As for :meth:`Filter.matches`.
        """
        for line in self.select:
            if not line.holds(value_of):
                return f"select: {line}"
        return next((f"exclude: {line}" for line in self.exclude if line.holds(value_of)), "")


NO_SELECTION = Selection()


def _lines(name: str, text: str, problems: list[RecipeProblem]) -> tuple[CriteriaLine, ...]:
    lines = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = without_comment(raw)
        stripped = line.strip()
        if not stripped:
            continue
        column = len(line) - len(line.lstrip()) + 1
        try:
            parsed = parse_criteria(stripped, column)
            _refuse_identifiers(parsed, column)
        except RecipeSyntaxError as error:
            problems.append(RecipeProblem(name, number, error.column, error.message, error.near))
        else:
            lines.append(parsed)
    return tuple(lines)


def _refuse_identifiers(line: CriteriaLine, column: int) -> None:
    for one in line.criteria:
        if one.question.takes_value and _identifies(one.tag):
            raise RecipeSyntaxError(
                f"{one.field} identifies patients or objects, and criteria are stored and shown: use a cohort list",
                column,
            )


def _identifies(tag: int) -> bool:
    if vr_of(tag) == "PN":
        return True
    attribute = next((one for one in profile_attributes() if one.example_tag == tag), None)
    return attribute is not None and (attribute.is_direct_identifier or attribute.basic_profile == "U")
