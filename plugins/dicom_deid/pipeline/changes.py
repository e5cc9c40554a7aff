"""Compare two headers element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache, partial
from typing import Any

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
    MAX_DEPTH,
    STOP,
    UNDEFINED,
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
_MAX_INFLATED = 2**28
# ValueType and ConceptNameCodeSequence of a content item, and CodeValue and CodingSchemeDesignator of its concept name.
_VALUE_TYPE, _CONCEPT_NAME, _CODE = "(0040,a040)", "(0040,a043)", ("(0008,0100)", "(0008,0102)")
# Length of the beginning that finds a sequence or item of undefined length: it reaches to the value of a code.
_BEGINNING = 32
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
    new
        The new element, None if it is removed.
    """

    path: str
    name: str
    kind: ChangeKind
    before: str | None = field(repr=False)
    after: str | None
    new: Element | None = field(repr=False)

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
    encoded
        The parameters of :func:`dicom_deid.dicom.values.to_python`; None for a sequence.
    items
        The items of a sequence.
    """

    __slots__ = ("_encoded", "_value", "items", "name", "vr")

    def __init__(self, name: str, vr: str, encoded: _Encoded | None, items: tuple[DataSet, ...] = ()) -> None:
        self.name = name
        self.vr = vr
        self.items = items
        self._value: Any = len(items)
        self._encoded = encoded

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.vr!r}, ...)"

    @property
    def value(self) -> Any:
        """The value as pydicom decodes it; bytes if it is invalid for its VR; the number of items of a sequence."""
        encoded = self._encoded
        if encoded is not None:
            self._value = _decoded(encoded)
            self._encoded = None
        return self._value

    @property
    def texts(self) -> tuple[str, ...]:
        """The components of the value as text; none for a sequence, for bytes and for an empty value."""
        value = self.value
        if self.vr == "SQ" or value is None or isinstance(value, bytes):
            return ()
        if isinstance(value, MultiValue | list):
            return tuple(map(str, value))
        text = str(value)
        return (text,) if text else ()

    @property
    def summary(self) -> str:
        """The value for people to read: long text is truncated, bytes and items are counted."""
        if self.vr == "SQ":
            return f"{self.value} items"
        if isinstance(self.value, bytes):
            return f"{len(self.value)} bytes" if self.value else ""
        text = "\\".join(self.texts)
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


class DataSet(dict[str, Element]):
    """The elements of the root data set or of an item by tag, such as ``(0040,a730)``.

    Items with equal bytes share one object, also those of a new object that is read beside its original.
    """

    @cached_property
    def size(self) -> int:
        """Number of elements, with those in the items of sequences."""
        return len(self) + sum(item.size for element in self.values() for item in element.items)

    def by_path(self, prefix: str = "") -> Iterator[tuple[str, Element]]:
        """Yield the elements with their tag paths, in the order of the file."""
        for tag, element in self.items():
            path = prefix + tag
            yield path, element
            for number, item in enumerate(element.items):
                yield from item.by_path(f"{path}[{number}]")


_NO_ELEMENTS = DataSet()


class Elements(Mapping[str, Element]):
    """The elements of a header by tag path, those of the file meta information first.

    Parameters
    ----------
    root
        The file meta information and the root data set.
    known
        Parsed elements, which a new object shares.
    """

    def __init__(self, root: DataSet, known: _Known) -> None:
        self.root = root
        self.known = known

    @cached_property
    def _by_path(self) -> dict[str, Element]:
        return dict(self.root.by_path())

    def __getitem__(self, path: str) -> Element:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return self.root.size


def read_elements(data: bytes, original: Elements | None = None, *, partial: bool = False) -> Elements:
    """Return the elements before the pixel data.

    Parameters
    ----------
    data
        An object, or its beginning.
    original
        Elements of the original, if this is a new object: what both have is taken from there.
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
    known = _Known() if original is None else original.known
    meta = _Listing(data, known)
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
        listing = _Listing(uniform, known, partial)
        listing.found.update(meta.found)
        context = _ListingContext((), encoding.implicit, BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN)
        with suppress(TrailingBytesError):
            walk_elements(listing, context, end, len(uniform), ItemContext(context))
        return Elements(listing.found, known)

    return parse_with_uniform_vrs(read, data, end, encoding, partial=partial)


# Depth of the items, whether their VRs are implicit and big endian, the codecs before them, and whether a delimitation
# ends the sequence or item.
_How = tuple[int, bool, bool, tuple[str, ...], bool]


class _Known:
    """Parsed elements, sequences and items by their bytes, which reports repeat, and new objects share."""

    __slots__ = ("elements", "last", "read")

    def __init__(self) -> None:
        self.elements: dict[tuple[object, ...], Element] = {}
        # Sequences and items by their bytes. Where a delimitation ends them, the bytes are not known before they are
        # read: the last one with the same beginning, or after the same item, is tried.
        self.read: dict[tuple[object, memoryview], Any] = {}
        self.last: dict[tuple[object, object], tuple[memoryview, Any]] = {}


class _Listing(Walk):
    """Lists the elements of a data set."""

    __slots__ = ("found", "known", "view")

    def __init__(self, data: bytes, known: _Known, partial: bool = False) -> None:
        super().__init__(data, partial)
        self.known = known
        # Its slices copy nothing: the bytes of items would be held once for each level that they are nested in.
        self.view = memoryview(data)
        # The data set or item that is read.
        self.found = DataSet()

    def read_once(
        self,
        key: tuple[object, ...],
        start: int,
        stop: int | None,
        end: int,
        read: Callable[[], tuple[Any, int]],
        previous: DataSet | None = None,
    ) -> tuple[Any, int]:
        """Return what `read` returns, or returned for the same bytes before: a sequence or item, and where it ends.

        Parameters
        ----------
        key
            What the result depends on beside the bytes.
        start, stop
            Positions in bytes; None to `stop` at a delimitation.
        end
            Of what holds it.
        previous
            The item before an item.
        """
        if stop is not None:
            key_of_bytes = key, self.view[start:stop]
            found = self.known.read.get(key_of_bytes) if stop <= end else None
            if found is None:
                found = self.known.read[key_of_bytes] = read()[0]
            return found, stop
        like = key, self.data[start : start + _BEGINNING] if previous is None else id(previous)
        raw, found = self.known.last.get(like, (self.view[:0], None))
        stop = start + len(raw)
        if found is None or stop > end or self.view[start:stop] != raw:
            found, stop = read()
            raw = self.view[start:stop]
            found = self.known.read.setdefault((key, raw), found)
            self.known.last[like] = raw, found
        return found, stop


class _ListingContext(DatasetContext[_Listing]):
    __slots__ = ()

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[_Listing]:
        return STOP if not self.path and tag in _PIXELS else _ListingHandler(form, tag, vr)

    def read_items(
        self, walk: _Listing, pos: int, end: int, item_context: ItemContext, how: _How
    ) -> tuple[tuple[DataSet, ...], int]:
        """Return the items of a sequence, and where it ends."""
        items: list[DataSet] = []
        while pos < end and walk.data[pos : pos + 4] == self.order.item:
            length = self.order.u32.unpack_from(walk.data, pos + 4)[0]
            stop = None if length == UNDEFINED else pos + 8 + length
            read = partial(self._read_item, walk, pos, end, item_context)
            previous = items[-1] if items else None
            item, pos = walk.read_once((*how[:-1], stop is None), pos, stop, end, read, previous)
            items.append(item)
        # The rest is the delimitation, or malformed.
        return tuple(items), walk_items(walk, self, pos, end, item_context, how[-1])

    def _read_item(self, walk: _Listing, pos: int, end: int, item_context: ItemContext) -> tuple[DataSet, int]:
        outer, walk.found = walk.found, DataSet()
        stop = walk_item(walk, self, pos, end, item_context)
        item, walk.found = walk.found, outer
        return item, stop


class _ListingHandler(ElementHandler[_Listing]):
    __slots__ = ("explicit_vr", "is_private", "items", "name", "tag", "vr")

    def __init__(self, form: int, tag: int, vr: str | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.name = f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
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
        element = walk.known.elements.get(key)
        if element is None:
            encoding = Encoding(context.implicit, context.order.big_endian)
            encoded = self.tag, vr, raw, encoding, item_context.codecs
            element = walk.known.elements[key] = Element(_name(self.tag, creator), vr, encoded)
        walk.found[self.name] = element
        if self.tag == _CHARACTER_SET:
            item_context.codecs = character_set(raw)
        elif self.is_private and is_private_creator(self.tag):
            item_context.creators = {**(item_context.creators or {}), reserved_block(self.tag): creator_of(raw)}

    def handle_undefined(
        self, walk: _Listing, context: DatasetContext[_Listing], pos: int, start: int, item_context: ItemContext
    ) -> int:
        if self.explicit_vr in ("", "SQ", "UN"):
            return self._list_items(walk, context, start, None, item_context)
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
        stop: int | None,
        item_context: ItemContext,
    ) -> int:
        """List a sequence that ends at `stop`, or at a delimitation, and return where it ends."""
        if self.items is None:
            if len(context.path) >= MAX_DEPTH:
                raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(context.path)} sequences deep")
            is_unknown = self.explicit_vr == "UN"
            order = LITTLE_ENDIAN if is_unknown else context.order
            self.items = _ListingContext((*context.path, self.tag), context.implicit or is_unknown, order)
        items, end = self.items, len(walk.data) if stop is None else stop
        # Nested deeper than before, they could be nested too deep.
        how = len(items.path), items.implicit, items.order.big_endian, item_context.codecs, stop is None
        creator = self._of_creator(item_context)[1] if self.is_private else None

        def read() -> tuple[Element, int]:
            found, reached = items.read_items(walk, start, end, item_context, how)
            return Element(_name(self.tag, creator), "SQ", None, found), reached

        walk.found[self.name], stop = walk.read_once((self.tag, creator, *how), start, stop, end, read)
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


def changes_between(before: Elements, after: Elements) -> Iterator[Change]:
    """Yield the differences in the order of their paths.

    Items keep the numbers that they have in the original, if rules removed items before them.
    """
    return _changes(before.root, after.root, "")


def _changes(before: DataSet, after: DataSet, prefix: str) -> Iterator[Change]:
    differing = [tag for tag, element in before.items() if after.get(tag) is not element]
    differing += [tag for tag in after if tag not in before]
    for tag in sorted(differing):
        old, new = before.get(tag), after.get(tag)
        path = prefix + tag
        if old is None and new is not None:
            yield Change(path, new.name, ChangeKind.ADDED, None, new.summary, new)
        elif old is not None and new is None:
            yield Change(path, old.name, ChangeKind.REMOVED, old.summary, None, None)
        elif old is not None and new is not None and old.value != new.value:
            summary = new.summary
            kind = ChangeKind.CHANGED if summary else ChangeKind.EMPTIED
            yield Change(path, old.name, kind, old.summary, summary, new)
        for number, one, other in _pairs(old.items if old else (), new.items if new else ()):
            yield from _changes(one, other, f"{path}[{number}]")


def _pairs(before: Sequence[DataSet], after: Sequence[DataSet]) -> Iterator[tuple[int, DataSet, DataSet]]:
    """Yield numbers and items that differ; concept names identify the items if rules removed some of them."""
    number, removed = 0, len(before) - len(after)
    if not removed:
        yield from ((i, *both) for i, both in enumerate(zip(before, after, strict=True)) if both[0] is not both[1])
        return
    for new in after:
        while removed > 0 and before[number] is not new and _concept(before[number]) != _concept(new):
            yield number, before[number], _NO_ELEMENTS
            number, removed = number + 1, removed - 1
        old = before[number] if number < len(before) else _NO_ELEMENTS
        if old is not new:
            yield number, old, new
        number += 1
    for rest in range(number, len(before)):
        yield rest, before[rest], _NO_ELEMENTS


def _concept(item: DataSet) -> list[str]:
    """Return the value type and the coded concept name of an item."""
    name = item.get(_CONCEPT_NAME)
    code = name.items[0] if name is not None and name.items else _NO_ELEMENTS
    found = [item.get(_VALUE_TYPE), *(code.get(tag) for tag in _CODE)]
    return ["" if element is None else element.summary for element in found]


def count_unchanged(before: Elements, changes: Iterable[Change]) -> int:
    """Return the number of elements of the first header that are the same in the second."""
    return len(before) - sum(change.kind is not ChangeKind.ADDED for change in changes)
