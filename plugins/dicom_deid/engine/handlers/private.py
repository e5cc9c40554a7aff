"""Private elements: blocks and their creators (PS3.5 section 7.8), and which elements are safe (PS3.15 Table E.3.10-1).

A block keeps its number when another is removed: the standard asks for no renumbering, and the bytes stay the same. A
creator stays as long as one element of its block does.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Any

from dicom_deid.dicom.dictionary import creator_of, reserved_block
from dicom_deid.dicom.walk import DatasetContext, ElementHandler, ItemContext
from dicom_deid.engine.handlers.basic import ObjectWalk, RuleHandler, undefined_end


@cache
def safe_private_elements() -> frozenset[tuple[int, str | None, int]]:
    """Return group, creator and last byte of the tag of every element of PS3.15 Table E.3.10-1 (2023b)."""
    text = files("dicom_deid.engine").joinpath("data/e3_10_1_safe_private.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return frozenset(
        (int(row["Data Element"][1:5], 16), row["Private Creator"], int(row["Data Element"][8:10], 16)) for row in rows
    )


class PrivateBlock:
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
            start, _, _, item_context = walk.edits[self.edit]
            walk.edits[self.edit] = (start, start, b"", item_context)
            self.edit = -1


class PrivateCreatorHandler(RuleHandler):
    """A private creator: it stays if a rule or the policy says so, or if an element of its block stays.

    Parameters
    ----------
    keep
        Whether it stays in any case.
    inner
        What a rule does to it.
    """

    __slots__ = ("inner", "keep")

    def __init__(self, form: int, tag: int, keep: bool, inner: ElementHandler | None) -> None:
        super().__init__(form, tag, "LO")
        self.keep = keep
        self.inner = inner

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remember the reservation."""
        creator = creator_of(walk.data[start:end])
        edit = -1
        if self.inner is not None:
            self.inner.visit(walk, context, pos, start, end, item_context)
        elif not self.keep:
            edit = len(walk.edits)
            walk.edits.append((pos, end, b"", item_context))
        if item_context.creators is None:
            item_context.creators = {}
        item_context.creators[reserved_block(self.tag)] = PrivateBlock(creator, edit)


class PrivateHandler(RuleHandler):
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
        self.by_creator: dict[str | None, tuple[bool, ElementHandler | None]] = {}

    def _decide(self, creator: str | None) -> tuple[bool, ElementHandler | None]:
        if len(self.by_creator) > 64:
            # One tag has few creators in real archives; hostile ones shall not fill the memory.
            self.by_creator.clear()
        found: tuple[bool, ElementHandler | None] = self.decisions(self.tag, self.explicit_vr, self.form, creator)
        self.by_creator[creator] = found
        return found

    def _found(self, walk: ObjectWalk, item_context: ItemContext) -> tuple[bool, ElementHandler | None]:
        reservation = None if item_context.creators is None else item_context.creators.get(self.tag & 0xFFFFFF00)
        creator = None if reservation is None else reservation.creator
        found = self.by_creator.get(creator) or self._decide(creator)
        if found[0] and reservation is not None and reservation.edit >= 0:
            reservation.stay(walk)
        return found

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remove the element, or do what a rule says, or leave it."""
        keep, inner = self._found(walk, item_context)
        if not keep:
            self._remove(walk, context, pos, start, end, item_context)
        elif inner is not None:
            inner.visit(walk, context, pos, start, end, item_context)

    def visit_undefined(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Do the same to an element of undefined length."""
        keep, inner = self._found(walk, item_context)
        if keep and inner is not None:
            return inner.visit_undefined(walk, context, pos, start, item_context)
        end = undefined_end(walk, context, start, self.vr)
        if not keep:
            self._remove(walk, context, pos, start, end, item_context)
        return end

    def _remove(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        walk.edits.append((pos, end, b"", item_context))
        walk.count("private-removed")
