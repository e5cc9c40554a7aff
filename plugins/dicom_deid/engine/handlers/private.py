"""Private elements: blocks and their creators (PS3.5 section 7.8), and safe elements (PS3.15 Table E.3.10-1).

A block keeps its number when another is removed: the standard asks for no renumbering, and the bytes stay the same. A
creator stays as long as one element of its block does.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from dicom_deid.dicom.tags import creator_of, reserved_block
from dicom_deid.dicom.walk import ElementHandler, ItemContext, RuleEdit
from dicom_deid.engine.handlers.basic import IN_SEGMENT, Context, ObjectWalk, RuleHandler, undefined_end

Decision = tuple[bool, ElementHandler[ObjectWalk] | None]
"""Whether a private element is kept, and its handler if it is."""


@cache
def safe_private_elements() -> frozenset[tuple[int, str | None, int]]:
    """Return group, creator and last byte of the tag of every element of PS3.15 Table E.3.10-1 (2023b)."""
    text = files("dicom_deid.engine").joinpath("data/e3_10_1_safe_private.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return frozenset(
        (int(row["Data Element"][1:5], 16), row["Private Creator"], int(row["Data Element"][8:10], 16)) for row in rows
    )


class NotInSegmentError(Exception):
    """The object must be walked without segments: one of them is not what it would be if walked by itself."""


class PrivateBlock:
    """A private block that a creator reserved in one data set or item.

    Parameters
    ----------
    creator
        The private creator.
    edit
        Index of the edit that removes the creator for now, -1 if it stays, or `IN_SEGMENT`.
    """

    __slots__ = ("creator", "edit")

    def __init__(self, creator: str, edit: int) -> None:
        self.creator = creator
        self.edit = edit

    def keep_creator(self, walk: ObjectWalk) -> None:
        """Keep the creator, because an element of its block stays."""
        if self.edit == IN_SEGMENT:
            raise NotInSegmentError
        if self.edit >= 0:
            edit = walk.edits[self.edit]
            edit.end = edit.start
            self.edit = -1


class PrivateCreatorHandler(RuleHandler):
    """A private creator: it stays if a rule or the policy says so, or if an element of its block stays.

    Parameters
    ----------
    keep
        Whether it stays in any case.
    inner
        The handler that a rule gives it, if any.
    """

    __slots__ = ("inner", "keep")

    def __init__(self, form: int, tag: int, keep: bool, inner: ElementHandler[ObjectWalk] | None) -> None:
        super().__init__(form, tag, "LO")
        self.keep = keep
        self.inner = inner

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the reservation."""
        creator = creator_of(walk.data[start:end])
        edit = -1
        if self.inner is not None:
            self.inner.handle(walk, context, pos, start, end, item_context)
        elif not self.keep:
            edit = len(walk.edits)
            walk.edits.append(RuleEdit(pos, end, b"", item_context))
        if item_context.creators is None:
            item_context.creators = {}
        item_context.creators[reserved_block(self.tag)] = PrivateBlock(creator, edit)


class PrivateHandler(RuleHandler):
    """A private element: its handler depends on the creator of its block.

    Parameters
    ----------
    form, tag
        Layout of the header, and tag.
    vr
        The VR in the file, or nothing in an implicit VR encoding.
    decide
        Returns the decision for a creator.
    """

    __slots__ = ("by_creator", "decide")

    def __init__(self, form: int, tag: int, vr: str | None, decide: Callable[[str | None], Decision]) -> None:
        super().__init__(form, tag, vr or "UN")
        self.decide = decide
        self.by_creator: dict[str | None, Decision] = {}

    def _decision(self, walk: ObjectWalk, item_context: ItemContext) -> Decision:
        block = None if item_context.creators is None else item_context.creators.get(self.tag & 0xFFFFFF00)
        creator = None if block is None else block.creator
        found = self.by_creator.get(creator)
        if found is None:
            if len(self.by_creator) > 64:
                # One tag has few creators in real archives; bound the memory for hostile ones.
                self.by_creator.clear()
            found = self.by_creator[creator] = self.decide(creator)
        if found[0] and block is not None and block.edit != -1:
            block.keep_creator(walk)
        return found

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remove the element, call its handler, or leave it unchanged."""
        keep, inner = self._decision(walk, item_context)
        if not keep:
            walk.edits.append(RuleEdit(pos, end, b"", item_context))
            walk.count("private-removed")
        elif inner is not None:
            inner.handle(walk, context, pos, start, end, item_context)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Do the same for an element of undefined length."""
        keep, inner = self._decision(walk, item_context)
        if keep and inner is not None:
            return inner.handle_undefined(walk, context, pos, start, item_context)
        end = undefined_end(walk, context, pos, start, self.vr)
        if not keep:
            walk.edits.append(RuleEdit(pos, end, b"", item_context))
            walk.count("private-removed")
        return end
