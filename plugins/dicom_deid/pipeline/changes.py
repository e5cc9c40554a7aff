"""Compare two headers element by element."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

from dicom_deid.dicom.deflate import inflate
from dicom_deid.dicom.mixed_vrs import parse_with_uniform_vrs
from dicom_deid.dicom.part10 import meta_is_implicit, read_header
from dicom_deid.dicom.tags import creator_of, is_private, is_private_creator, reserved_block
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import character_set, to_python
from dicom_deid.dicom.vr import vr_of
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    STOP,
    DatasetContext,
    ElementHandler,
    ItemContext,
    MixedVRsError,
    TrailingBytesError,
    Walk,
    skip_fragments,
    walk_elements,
    walk_item,
    walk_items,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_SHOWN_CHARACTERS = 80
_CHARACTER_SET = 0x00080005
# Float Pixel Data, Double Float Pixel Data and Pixel Data.
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
# Below Python's recursion limit.
_MAX_DEPTH = 100
_MAX_INFLATED = 2**28
# What identifies a content item: ValueType, and CodeValue and CodingSchemeDesignator of its concept name.
_CONCEPT = ("(0040,a040)", "(0040,a043)[0](0008,0100)", "(0040,a043)[0](0008,0102)")
# Tag, VR, bytes, encoding and codecs of a value.
_Encoded = tuple[int, str, bytes, Encoding, tuple[str, ...]]


class ChangeKind(StrEnum):
    """Change of an element."""

    ADDED = "added"
    CHANGED = "changed"
    EMPTIED = "emptied"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One element that differs between two headers.

    Parameters
    ----------
    path
        Tag path, such as ``(0040,a730)[0](0040,a123)``.
    name
        Name of the element in the dictionary; never text of the object.
    kind
        How it changes.
    before
        The original value: PHI. Shown on the user's own terminal only, never on a page or in a log.
    after
        The new value, None if the element is removed.
    """

    path: str
    name: str
    kind: ChangeKind
    before: str | None = field(repr=False)
    after: str | None

    @property
    def is_private(self) -> bool:
        """True if the element has a private tag."""
        return int(self.path[-10:-6], 16) % 2 == 1


class Element:
    """One element of a header; PHI if the header is that of an original.

    Parameters
    ----------
    name, vr
        Its name in the dictionary, and its VR.
    value
        Its value; the number of items of a sequence.
    encoded
        In place of the value: the parameters of :func:`dicom_deid.dicom.values.to_python`.
    """

    __slots__ = ("_encoded", "_value", "name", "vr")

    def __init__(self, name: str, vr: str, value: Any = None, encoded: _Encoded | None = None) -> None:
        self.name = name
        self.vr = vr
        self._value = value
        self._encoded = encoded

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.vr!r}, ...)"

    @property
    def value(self) -> Any:
        """The value as pydicom decodes it; bytes if it is invalid for its VR."""
        encoded = self._encoded
        if encoded is not None:
            self._value = _decoded(encoded)
            self._encoded = None
        return self._value

    @property
    def texts(self) -> tuple[str, ...]:
        """The components of the value as text; none for a sequence, for bytes and for an empty value."""
        if self.vr == "SQ" or self.value is None or isinstance(self.value, bytes):
            return ()
        if isinstance(self.value, MultiValue | list):
            return tuple(str(each) for each in self.value)
        return (str(self.value),) if str(self.value) else ()

    @property
    def summary(self) -> str:
        """The value for people to read: long text is truncated, bytes and items are counted."""
        if self.vr == "SQ":
            return f"{self.value} items"
        if isinstance(self.value, bytes):
            return f"{len(self.value)} bytes" if self.value else ""
        text = "\\".join(self.texts)
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


_NO_ITEMS = Element("", "SQ", 0)


class Elements(dict[str, Element]):
    """The elements of a header by tag path, those of the file meta information first.

    Parameters
    ----------
    listing
        The elements in the order of the file, and the items that hold them.
    """

    def __init__(self, listing: _Listing) -> None:
        super().__init__(listing.found)
        self.listing = listing


def read_elements(data: bytes, original: Elements | None = None, *, partial: bool = False) -> Elements:
    """Return the elements before the pixel data.

    Parameters
    ----------
    data
        An object, or its beginning.
    original
        Elements of the original, if this is a new object: items keep their numbers if rules removed items before.
    partial
        Whether `data` may end before the pixel data.

    Raises
    ------
    Quarantine
        The object cannot be read.
    NeedMoreDataError
        A partial object ends before its pixel data.
    """
    header = read_header(data)
    was = None if original is None else original.listing
    meta = _Listing(data, was)
    start, end = header.meta_start, header.data_set_start
    if start < end:
        context = _ListingContext((), meta_is_implicit(data, start), LITTLE_ENDIAN)
        try:
            walk_elements(meta, context, start, end, ItemContext(context))
        except (MixedVRsError, TrailingBytesError):
            raise Quarantine(Reason.MALFORMED, "file meta information", start) from None
    if header.transfer_syntax.deflated:
        data, end = inflate(data, end, _MAX_INFLATED)[0], 0
    encoding = header.transfer_syntax.encoding

    def read(uniform: bytes) -> Elements:
        listing = _Listing(uniform, was, partial)
        listing.found, listing.elements = meta.found.copy(), meta.elements
        context = _ListingContext((), encoding.implicit, BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN)
        with suppress(TrailingBytesError):
            walk_elements(listing, context, end, len(uniform), ItemContext(context))
        return Elements(listing)

    return parse_with_uniform_vrs(read, data, end, encoding, partial=partial)


# Whether VRs are implicit, the codecs before the first element, and whether a delimitation ends a sequence.
_How = tuple[bool, tuple[str, ...], bool]


class _Place(NamedTuple):
    """An item, or the items of a sequence: their bytes, their elements among those of the listing, their encoding."""

    start: int
    end: int
    first: int
    last: int
    how: _How


class _Listing(Walk):
    """Lists elements with their paths. What a new object shares with its original is taken from that one's listing."""

    __slots__ = ("elements", "found", "original", "places", "prefix")

    def __init__(self, data: bytes, original: _Listing | None, partial: bool = False) -> None:
        super().__init__(data, partial)
        self.original = original
        self.found: list[tuple[str, Element]] = []
        # By path, and the path of the item that is read.
        self.places: dict[str, _Place] = {}
        self.prefix = ""
        # By what they are made of: reports repeat most of theirs.
        self.elements: dict[tuple[object, ...], Element] = {} if original is None else original.elements

    def take(self, path: str, pos: int, how: _How) -> int | None:
        """List what the original has at a path if the same bytes are here, and return where they end."""
        was = self.original
        old = None if was is None else was.places.get(path)
        if was is None or old is None or old.how != how:
            return None
        stop = pos + old.end - old.start
        if self.data[pos:stop] != was.data[old.start : old.end]:
            return None
        self.found += was.found[old.first : old.last]
        return stop


class _ListingContext(DatasetContext[_Listing]):
    __slots__ = ()

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[_Listing]:
        return STOP if not self.path and tag in _PIXELS else _ListingHandler(form, tag, vr)

    def list_item(self, walk: _Listing, pos: int, end: int, item_context: ItemContext, path: str) -> int:
        """List the elements of the item at `pos`, and return where it ends."""
        first, how = len(walk.found), (self.implicit, item_context.codecs, False)
        stop = walk.take(path, pos, how)
        if stop is None:
            prefix, walk.prefix = walk.prefix, path
            stop = walk_item(walk, self, pos, end, item_context)
            walk.prefix = prefix
        walk.places[path] = _Place(pos, stop, first, len(walk.found), how)
        return stop


class _ListingHandler(ElementHandler[_Listing]):
    __slots__ = ("explicit_vr", "is_private", "items", "suffix", "tag", "vr")

    def __init__(self, form: int, tag: int, vr: str | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.suffix = f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
        self.is_private = is_private(tag)
        self.explicit_vr = "" if vr is None else vr
        self.vr = vr_of(tag) if vr is None or vr == "UN" else vr
        self.items: _ListingContext | None = None

    def handle(
        self,
        walk: _Listing,
        context: DatasetContext[_Listing],
        pos: int,
        start: int,
        end: int,
        item_context: ItemContext,
    ) -> None:
        vr, creator = self.vr, None
        if self.is_private:
            vr, creator = self._of_creator(item_context)
        if vr == "SQ":
            self._list_items(walk, context, start, end, item_context)
            return
        raw = walk.data[start:end]
        key = (self.tag, vr, raw, creator, context.order.big_endian, item_context.codecs)
        element = walk.elements.get(key)
        if element is None:
            encoding = Encoding(context.implicit, context.order.big_endian)
            encoded = self.tag, vr, raw, encoding, item_context.codecs
            element = walk.elements[key] = Element(_name(self.tag, creator), vr, encoded=encoded)
        walk.found.append((walk.prefix + self.suffix, element))
        if self.tag == _CHARACTER_SET:
            item_context.codecs = character_set(raw)
        elif self.is_private and is_private_creator(self.tag):
            item_context.creators = {**(item_context.creators or {}), reserved_block(self.tag): creator_of(raw)}

    def handle_undefined(
        self, walk: _Listing, context: DatasetContext[_Listing], pos: int, start: int, item_context: ItemContext
    ) -> int:
        if self.explicit_vr in ("", "SQ", "UN"):
            return self._list_items(walk, context, start, len(walk.data), item_context, delimited=True)
        end = skip_fragments(walk, context, start)
        self.handle(walk, context, pos, start, end, item_context)
        return end

    def _of_creator(self, item_context: ItemContext) -> tuple[str, str | None]:
        """Return the VR of a private element, and the creator of its block."""
        creator = (item_context.creators or {}).get(self.tag & 0xFFFFFF00)
        return (vr_of(self.tag, creator) if self.explicit_vr in ("", "UN") else self.vr), creator

    def _list_items(
        self,
        walk: _Listing,
        context: DatasetContext[_Listing],
        start: int,
        end: int,
        item_context: ItemContext,
        *,
        delimited: bool = False,
    ) -> int:
        if self.items is None:
            if len(context.path) >= _MAX_DEPTH:
                raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(context.path)} sequences deep")
            is_unknown = self.explicit_vr == "UN"
            order = LITTLE_ENDIAN if is_unknown else context.order
            self.items = _ListingContext((*context.path, self.tag), context.implicit or is_unknown, order)
        path, at = walk.prefix + self.suffix, len(walk.found)
        how = self.items.implicit, item_context.codecs, delimited
        stop = walk.take(path, start, how)
        if stop is not None and (delimited or stop == end):
            return stop
        del walk.found[at:]
        walk.found.append((path, _NO_ITEMS))
        pos, begins = start, []
        while pos < end and walk.data[pos : pos + 4] == self.items.order.item:
            begins.append(pos)
            pos = self.items.list_item(walk, pos, end, item_context, f"{path}[{len(begins) - 1}]")
        numbers = _numbers(walk, path, len(begins))
        if numbers != list(range(len(begins))):
            del walk.found[at + 1 :]
            for number, begin in zip(numbers, begins, strict=True):
                self.items.list_item(walk, begin, end, item_context, f"{path}[{number}]")
        creator = self._of_creator(item_context)[1] if self.is_private else None
        walk.found[at] = path, Element(_name(self.tag, creator), "SQ", len(begins))
        # What follows is the delimitation, or malformed.
        stop = walk_items(walk, self.items, pos, end, item_context, delimited)
        walk.places[path] = _Place(start, stop, at, len(walk.found), how)
        return stop


@lru_cache(maxsize=8192)
def _name(tag: int, creator: str | None) -> str:
    """Return the name of an element in the dictionary, as pydicom shows it."""
    element = DataElement(tag, "UN", None)
    element.private_creator = creator
    return element.name


def _decoded(encoded: _Encoded) -> Any:
    try:
        return to_python(*encoded)
    except Exception:
        # pydicom raises many kinds for a value that is invalid for its VR; their messages may hold it.
        return encoded[2]


def changes_between(before: Mapping[str, Element], after: Mapping[str, Element]) -> Iterator[Change]:
    """Yield the differences in the order of their paths."""
    paths = [path for path, old in before.items() if after.get(path) is not old]
    paths += [path for path in after if path not in before]
    for path in sorted(paths):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield Change(path, new.name, ChangeKind.ADDED, None, new.summary)
        elif old is not None and new is None:
            yield Change(path, old.name, ChangeKind.REMOVED, old.summary, None)
        elif old is not None and new is not None and old is not new and old.value != new.value:
            summary = new.summary
            kind = ChangeKind.CHANGED if summary else ChangeKind.EMPTIED
            yield Change(path, old.name, kind, old.summary, summary)


def count_unchanged(before: Mapping[str, Element], changes: Iterable[Change]) -> int:
    """Return the number of elements of the first header that are the same in the second."""
    return len(before) - sum(change.kind is not ChangeKind.ADDED for change in changes)


def _numbers(walk: _Listing, path: str, count: int) -> list[int]:
    """Return the numbers of items before rules removed some of them; concept names identify the items."""
    before = 0
    while walk.original is not None and f"{path}[{before}]" in walk.original.places:
        before += 1
    numbers: list[int] = []
    number = 0
    was = _concepts(walk.original, path, before) if walk.original is not None and before > count else []
    now = _concepts(walk, path, count) if was else []
    for index in range(count):
        rest = count - index
        while before - number > rest and was[number] != now[index]:
            number += 1
        numbers.append(number)
        number += 1
    return numbers


def _concepts(walk: _Listing, path: str, count: int) -> list[tuple[str, ...]]:
    """Return the value type and the coded concept name of each item of a sequence."""
    items = [walk.places[f"{path}[{number}]"] for number in range(count)]
    found = dict(walk.found[items[0].first : items[-1].last]) if items else {}
    return [tuple([_summary(found.get(f"{path}[{number}]{each}")) for each in _CONCEPT]) for number in range(count)]


def _summary(element: Element | None) -> str:
    return "" if element is None else element.summary
