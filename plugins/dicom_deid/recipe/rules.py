"""Rules: what is done with which elements, and where the recipe says so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from dicom_deid.recipe.fields import FieldExpression
from dicom_deid.recipe.types import resolve
from dicom_deid.recipe.values import Value


class Action(StrEnum):
    """What a rule does."""

    ADD = "ADD"
    """Write the element at the root, or in the file meta information, whether or not it was there."""
    BLANK = "BLANK"
    """Leave the element with an empty value."""
    JITTER = "JITTER"
    """Shift a date by a number of days."""
    KEEP = "KEEP"
    """Protect the element from every other rule but ADD."""
    REMOVE = "REMOVE"
    """Delete the element, with all that is beneath."""
    REPLACE = "REPLACE"
    """Write another value into an element that exists."""
    X_OR_Z = "X/Z"
    """Remove or empty the element, as its type in the object's IOD demands (PS3.15 Table E.1-1a); so do those below."""
    X_OR_D = "X/D"
    """Remove the element, or write a dummy; the items of a sequence stay in place of one."""
    Z_OR_D = "Z/D"
    """Empty the element, or write a dummy."""
    X_OR_Z_OR_D = "X/Z/D"
    """Remove the element, empty it, or write a dummy."""
    X_OR_Z_OR_U = "X/Z/U*"
    """Remove the sequence, or let the items stay, whose UIDs have rules of their own."""

    @property
    def is_composite(self) -> bool:
        """Whether the type that the object's IOD gives the attribute decides what is done."""
        return "/" in self

    def resolved(self, type_: str, *, is_sequence: bool) -> Action | None:
        """Return what is done for an attribute of a type; nothing where the items of a sequence stay.

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
        What is done.
    field
        With which elements.
    value
        What ADD and REPLACE write, the days of JITTER, the condition of REMOVE; nothing for BLANK and KEEP.
    source, line
        Recipe file and line, counted from 1; two rules that say the same are equal wherever they stand.
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
        For SPLIT, the text at which values are split; nothing for FIELD.
    minlength
        For SPLIT, the length below which a part of a value is left out.
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
        """Return what the line collects from one value."""
        if self.by is None:
            return [value] if value else []
        return [part for part in value.split(self.by) if len(part) >= self.minlength]
