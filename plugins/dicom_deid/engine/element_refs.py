"""List the elements of a data set by name, for rules that depend on the object and for the residual search."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from dicom_deid.dicom.rewrite import splice
from dicom_deid.dicom.tags import creator_of, is_private, is_private_creator, reserved_block
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET, character_set, split_values, texts, to_python
from dicom_deid.dicom.vr import vr_of
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    MAX_DEPTH,
    ByteOrder,
    DatasetContext,
    ElementHandler,
    ItemContext,
    MixedVRsError,
    RuleEdit,
    TrailingBytesError,
    Walk,
    close_length_edit,
    reserve_length_edit,
    skip_fragments,
    walk_elements,
    walk_items,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import ElementName

_CHARACTER_SET = 0x00080005


@lru_cache(maxsize=16384)
def _named(tag: int, vr: str, parent: str | None, private_creator: str | None) -> ElementName:
    return ElementName.of(tag, vr=vr, parent=parent, private_creator=private_creator)


class ElementRef(NamedTuple):
    """One element: its names and the position of its value."""

    element: ElementName
    start: int
    end: int
    encoding: Encoding
    codecs: tuple[str, ...]

    def texts(self, data: bytes) -> list[str]:
        """Return the components of the value as text; none for a sequence or an empty value."""
        if self.element.vr == "SQ" or self.start == self.end:
            return []
        value = data[self.start : self.end]
        try:
            return texts(to_python(self.element.tag, self.element.vr, value, self.encoding, self.codecs))
        except Exception:
            # pydicom raises many kinds for a value that is invalid for its VR.
            return split_values(value.decode("iso8859"), self.element.vr)


class Within(NamedTuple):
    """Sequence that some elements are in, and the character sets before them.

    Parameters
    ----------
    path, name
        The tags of the sequences around the elements, and the nested name of the innermost one.
    codecs
        The character sets before the first element.
    """

    path: tuple[int, ...] = ()
    name: str | None = None
    codecs: tuple[str, ...] = DEFAULT_CHARACTER_SET


ROOT = Within()
"""The root data set."""


class _NoneFollowsError(Exception):
    """No wanted position follows."""


class _ElementRefWalk(Walk):
    __slots__ = ("erased", "hidden", "listed", "nested", "next", "wanted")

    def __init__(
        self,
        data: bytes,
        hidden: Callable[[ElementName], bool],
        nested: bool,
        partial: bool,
        erased: frozenset[int] = frozenset(),
        wanted: Sequence[int] | None = None,
    ) -> None:
        super().__init__(data, partial)
        self.hidden = hidden
        self.nested = nested
        # Start positions of the values of elements that are removed.
        self.erased = erased
        # Positions, in order: only elements that hold one of them are listed. And the index of the next position.
        self.wanted = wanted
        self.next = 0
        self.listed: list[ElementRef] = []

    def wants(self, start: int, end: int) -> bool:
        """Return whether the element whose value is in ``[start, end)`` is listed; call it in the order of elements.

        Raises
        ------
        _NoneFollowsError
            Neither this element nor one after it is listed.
        """
        wanted = self.wanted
        if wanted is None:
            return True
        while self.next < len(wanted) and wanted[self.next] < start:
            self.next += 1
        if self.next == len(wanted):
            raise _NoneFollowsError
        return wanted[self.next] < end


class _ElementRefContext(DatasetContext[_ElementRefWalk]):
    __slots__ = ("name",)

    def __init__(self, path: tuple[int, ...], name: str | None, implicit: bool, order: ByteOrder) -> None:
        super().__init__(path, implicit, order)
        self.name = name

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[_ElementRefWalk]:
        return _ElementRefHandler(form, tag, vr, self.name)


class _ElementRefHandler(ElementHandler[_ElementRefWalk]):
    __slots__ = ("explicit_vr", "parent", "tag")

    def __init__(self, form: int, tag: int, vr: str | None, parent: str | None) -> None:
        super().__init__(form)
        self.parent = parent
        self.tag = tag
        self.explicit_vr = vr

    def _list(
        self,
        walk: _ElementRefWalk,
        context: DatasetContext[_ElementRefWalk],
        start: int,
        end: int,
        item_context: ItemContext,
    ) -> ElementName | None:
        creator = None
        if is_private(self.tag) and item_context.creators is not None:
            creator = item_context.creators.get(self.tag & 0xFFFFFF00)
        vr = self.explicit_vr
        if vr is None or vr == "UN":
            vr = vr_of(self.tag, creator)
        element = _named(self.tag, vr, self.parent, creator)
        if walk.hidden(element):
            return None
        encoding = Encoding(context.implicit, context.order.big_endian)
        walk.listed.append(ElementRef(element, start, end, encoding, item_context.codecs))
        return element

    def handle(
        self,
        walk: _ElementRefWalk,
        context: DatasetContext[_ElementRefWalk],
        pos: int,
        start: int,
        end: int,
        item_context: ItemContext,
    ) -> None:
        if (start in walk.erased and start != end) or (walk.erased and self.tag & 0xFFFF == 0):
            walk.edits.append(RuleEdit(pos, end, b"", item_context))
        elif self.tag == _CHARACTER_SET:
            item_context.codecs = character_set(walk.data[start:end])
        elif is_private_creator(self.tag):
            if item_context.creators is None:
                item_context.creators = {}
            item_context.creators[reserved_block(self.tag)] = creator_of(walk.data[start:end])
        if not walk.wants(start, end):
            return
        element = self._list(walk, context, start, end, item_context)
        if element is not None and element.vr == "SQ" and walk.nested:
            if walk.wanted is not None:
                walk.listed.pop()
            mark = reserve_length_edit(walk.edits)
            items = self._items(context, element, context.implicit or self.explicit_vr == "UN")
            walk_items(walk, items, start, end, item_context)
            close_length_edit(walk.edits, mark, start - 4, end - start)

    def handle_undefined(
        self,
        walk: _ElementRefWalk,
        context: DatasetContext[_ElementRefWalk],
        pos: int,
        start: int,
        item_context: ItemContext,
    ) -> int:
        edits = len(walk.edits)
        end = self._handle_undefined(walk, context, pos, start, item_context)
        if start in walk.erased:
            del walk.edits[edits:]
            walk.edits.append(RuleEdit(pos, end, b"", item_context))
        return end

    def _handle_undefined(
        self,
        walk: _ElementRefWalk,
        context: DatasetContext[_ElementRefWalk],
        pos: int,
        start: int,
        item_context: ItemContext,
    ) -> int:
        if self.explicit_vr is not None and self.explicit_vr not in ("SQ", "UN"):
            end = skip_fragments(walk, context, start)
            if walk.wants(start, end):
                self._list(walk, context, start, end, item_context)
            return end
        listed = len(walk.listed)
        implicit = context.implicit or self.explicit_vr != "SQ"
        element = _named(self.tag, "SQ", self.parent, None)
        here = len(walk.listed)
        if walk.wanted is None:
            walk.listed.append(
                ElementRef(element, start, start, Encoding(implicit, context.order.big_endian), item_context.codecs)
            )
        else:
            # Its end is not known yet; stop if no wanted position follows its start.
            walk.wants(start, len(walk.data))
        end = walk_items(walk, self._items(context, element, implicit), start, len(walk.data), item_context, True)
        if walk.hidden(element):
            del walk.listed[listed:]
        elif not walk.nested:
            del walk.listed[here + 1 :]
        return end

    def _items(
        self, context: DatasetContext[_ElementRefWalk], element: ElementName, implicit: bool
    ) -> _ElementRefContext:
        path = (*context.path, self.tag)
        if len(path) > MAX_DEPTH:
            raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(path)} sequences deep")
        order = LITTLE_ENDIAN if self.explicit_vr == "UN" else context.order
        return _context(path, element.nested_name, implicit, order)

    def handle_overrun(
        self, walk: _ElementRefWalk, context: DatasetContext[_ElementRefWalk], pos: int, start: int, stop: int, end: int
    ) -> int:
        # Pixel data beyond the given beginning of an object; other truncation is reported when the rules are applied.
        return end


@lru_cache(maxsize=1024)
def _context(path: tuple[int, ...], name: str | None, implicit: bool, order: ByteOrder) -> _ElementRefContext:
    # Handlers cached in a context do not depend on the object.
    return _ElementRefContext(path, name, implicit, order)


def iter_elements(
    data: bytes,
    start: int,
    encoding: Encoding,
    *,
    hidden: Callable[[ElementName], bool] = lambda element: False,
    nested: bool = True,
    partial: bool = False,
    wanted: Sequence[int] | None = None,
    within: Within = ROOT,
) -> list[ElementRef]:
    """List the elements of the data set that begins at `start`.

    Parameters
    ----------
    hidden
        Returns whether an element is left out, with its items.
    nested
        Whether elements in sequences are listed too.
    partial
        Whether `data` is only the beginning of the object.
    wanted
        Positions in `data`, in order: only elements other than sequences that hold one of them are listed.
    within
        The sequence that the elements are in.
    """
    walk = _ElementRefWalk(data, hidden, nested, partial, wanted=wanted)
    path, name, codecs = within
    order = BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN
    with contextlib.suppress(TrailingBytesError, _NoneFollowsError):
        context = _context(path, name, encoding.implicit, order)
        walk_elements(walk, context, start, len(data), ItemContext(context, codecs))
    return walk.listed


def iter_item_elements(data: bytes, encoding: Encoding, codecs: tuple[str, ...]) -> list[ElementRef]:
    """List the elements in the items of a sequence with the value `data`."""
    walk = _ElementRefWalk(data, lambda element: False, nested=True, partial=False)
    context = _context((0,), "", encoding.implicit, BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN)
    try:
        walk_items(walk, context, 0, len(data), ItemContext(context, codecs))
    except (struct.error, MixedVRsError):
        raise Quarantine(Reason.MALFORMED, "the items of a sequence") from None
    except Quarantine as problem:
        # Its offset is one in the sequence, and what ends before the sequence does not truncate the object.
        reason = Reason.MALFORMED if problem.reason is Reason.TRUNCATED else problem.reason
        raise Quarantine(reason, "the items of a sequence") from None
    return walk.listed


def erase(data: bytes, start: int, encoding: Encoding, values: Iterable[int], *, partial: bool = False) -> bytes:
    """Return an object without some of its elements.

    Group lengths, which are retired (PS3.5 section 7.2), are removed too: they would be wrong.

    Parameters
    ----------
    start
        Start of the data set, in bytes.
    values
        Start positions of the values of those elements.
    """
    walk = _ElementRefWalk(data, lambda element: False, True, partial, frozenset(values))
    order = BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN
    context = _context((), None, encoding.implicit, order)
    with contextlib.suppress(TrailingBytesError):
        walk_elements(walk, context, start, len(data), ItemContext(context))
    return b"".join(splice(data, 0, len(data), walk.edits, order))
