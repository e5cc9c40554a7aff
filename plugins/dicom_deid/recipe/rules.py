"""Rules of a recipe and entries of its lists."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from dicom_deid.recipe.fields import FieldExpression
from dicom_deid.recipe.types import resolve
from dicom_deid.recipe.values import Value


class Action(StrEnum):
    """Action of a rule."""

    ADD = "ADD"
    """Write the element at the root or in the file meta information, whether or not it exists."""
    BLANK = "BLANK"
    """Empty the value."""
    JITTER = "JITTER"
    """Shift a date by a number of days."""
    KEEP = "KEEP"
    """Protect the element from every action but ADD."""
    REMOVE = "REMOVE"
    """Delete the element, including everything inside it."""
    REPLACE = "REPLACE"
    """Write a new value if the element exists."""
    X_OR_Z = "X/Z"
    """Remove or empty the element, depending on its type in the object's IOD (PS3.15 Table E.1-1a)."""
    X_OR_D = "X/D"
    """Remove the element or write a dummy; for a sequence, keep the items instead."""
    Z_OR_D = "Z/D"
    """Empty the element, or write a dummy."""
    X_OR_Z_OR_D = "X/Z/D"
    """Remove the element, empty it, or write a dummy."""
    X_OR_Z_OR_U = "X/Z/U*"
    """Remove the sequence or keep its items, whose UIDs have rules of their own."""

    @property
    def is_composite(self) -> bool:
        """True if the action depends on the attribute's type in the object's IOD."""
        return "/" in self

    def resolved(self, type_: str, *, is_sequence: bool) -> Action | None:
        """Return the action for an attribute type; None if the items of a sequence are kept.

        Parameters
        ----------
        type_
            `1`, `2` or `3`, as `AttributeTypes.of` gives it.
        is_sequence
            Whether the attribute is a sequence.
        """
        if not self.is_composite:
            return self
        code = resolve(self, type_)
        if code in "DU":
            return None if is_sequence else Action.REPLACE
        return Action.REMOVE if code == "X" else Action.BLANK


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of ``%header``.

    Parameters
    ----------
    action
        The action.
    field
        The elements it applies to.
    value
        The value of ADD and REPLACE, the days of JITTER, the condition of REMOVE; None for BLANK and KEEP.
    source, line
        Recipe file and line, counted from 1; ignored when rules are compared.
    """

    action: Action
    field: FieldExpression
    value: Value | None = None
    source: str = dataclasses.field(default="", compare=False)
    line: int = dataclasses.field(default=0, compare=False)

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value}"
        return f"{self.action} {self.field}{value}"


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One line of ``%fields`` or ``%values``.

    Parameters
    ----------
    field
        The elements that the line selects.
    by
        For SPLIT, the separator; None for FIELD.
    minlength
        For SPLIT, the minimum length of a part.
    """

    field: FieldExpression
    by: str | None = None
    minlength: int = 1

    def __str__(self) -> str:
        if self.by is None:
            return f"FIELD {self.field}"
        quote = "'" if '"' in self.by else '"'
        return f"SPLIT {self.field} by={quote}{self.by}{quote};minlength={self.minlength}"

    def parts(self, value: str) -> list[str]:
        """Return the parts that the line collects from one value."""
        if self.by is None:
            return [value] if value else []
        return [part for part in value.split(self.by) if len(part) >= self.minlength]
