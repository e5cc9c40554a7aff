"""Private elements: blocks and their creators (PS3.5 section 7.8), and which elements are safe (PS3.15 Table E.3.10-1).

A block keeps its number when another is removed: the standard asks for no renumbering, and the bytes stay the same. A
creator stays as long as one element of its block does.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Any

from dicom_deid.deidentify.entries import ObjectWalk, RuleEntry, undefined_end
from dicom_deid.dicom.dictionary import creator_of, reserved_block
from dicom_deid.dicom.walk import Entry, Level, Scope


@cache
def safe_private_elements() -> frozenset[tuple[int, str, int]]:
    """Return group, creator and last byte of the tag of every element of PS3.15 Table E.3.10-1 (2023b)."""
    text = files("dicom_deid.deidentify").joinpath("data/e3_10_1_safe_private.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return frozenset(
        (int(row["Data Element"][1:5], 16), row["Private Creator"], int(row["Data Element"][8:10], 16)) for row in rows
    )


class Reservation:
    """A private block that a creator reserved in one data set or item.

    Parameters
    ----------
    creator
        The private creator.
    edit
        Where among the edits the creator is removed for now, or -1 where it stays.
    """

    __slots__ = ("creator", "edit")

    def __init__(self, creator: str, edit: int) -> None:
        self.creator = creator
        self.edit = edit

    def stay(self, walk: ObjectWalk) -> None:
        """Leave the creator where it stands, since an element of its block does."""
        if self.edit >= 0:
            start, _, _, scope = walk.edits[self.edit]
            walk.edits[self.edit] = (start, start, b"", scope)
            self.edit = -1


class PrivateCreatorEntry(RuleEntry):
    """A private creator: it stays if a rule or the policy says so, or if an element of its block stays.

    Parameters
    ----------
    keep
        Whether it stays in any case.
    inner
        What a rule does to it.
    """

    __slots__ = ("inner", "keep")

    def __init__(self, form: int, tag: int, keep: bool, inner: Entry | None) -> None:
        super().__init__(form, tag, "LO")
        self.keep = keep
        self.inner = inner

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Remember the reservation."""
        creator = creator_of(walk.data[start:end])
        edit = -1
        if self.inner is not None:
            self.inner.visit(walk, level, pos, start, end, scope)
        elif not self.keep:
            edit = len(walk.edits)
            walk.edits.append((pos, end, b"", scope))
        if scope.creators is None:
            scope.creators = {}
        scope.creators[reserved_block(self.tag)] = Reservation(creator, edit)


class PrivateEntry(RuleEntry):
    """A private element: what is done depends on who reserved its block.

    Parameters
    ----------
    form, tag
        Header layout and tag as they stand.
    vr
        The VR as it stands, or nothing in an implicit VR encoding.
    decisions
        Decides, for a creator, whether the element stays and who visits it.
    """

    __slots__ = ("by_creator", "decisions", "explicit_vr")

    def __init__(self, form: int, tag: int, vr: str | None, decisions: Any) -> None:
        super().__init__(form, tag, vr or "UN")
        self.explicit_vr = vr
        self.decisions = decisions
        self.by_creator: dict[str | None, tuple[bool, Entry | None]] = {}

    def _decide(self, creator: str | None) -> tuple[bool, Entry | None]:
        if len(self.by_creator) > 64:
            # One tag has few creators in real archives; hostile ones shall not fill the memory.
            self.by_creator.clear()
        found: tuple[bool, Entry | None] = self.decisions(self.tag, self.explicit_vr, self.form, creator)
        self.by_creator[creator] = found
        return found

    def _found(self, walk: ObjectWalk, scope: Scope) -> tuple[bool, Entry | None]:
        reservation = None if scope.creators is None else scope.creators.get(self.tag & 0xFFFFFF00)
        creator = None if reservation is None else reservation.creator
        found = self.by_creator.get(creator) or self._decide(creator)
        if found[0] and reservation is not None and reservation.edit >= 0:
            reservation.stay(walk)
        return found

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Remove the element, or do what a rule says, or leave it."""
        keep, inner = self._found(walk, scope)
        if not keep:
            self._remove(walk, level, pos, start, end, scope)
        elif inner is not None:
            inner.visit(walk, level, pos, start, end, scope)

    def visit_undefined(self, walk: ObjectWalk, level: Level, pos: int, start: int, scope: Scope) -> int:
        """Do the same to an element of undefined length."""
        keep, inner = self._found(walk, scope)
        if keep and inner is not None:
            return inner.visit_undefined(walk, level, pos, start, scope)
        end = undefined_end(walk, level, start, self.vr)
        if not keep:
            self._remove(walk, level, pos, start, end, scope)
        return end

    def _remove(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        walk.edits.append((pos, end, b"", scope))
        walk.count("private-removed")
