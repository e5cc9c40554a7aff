"""Compare two headers element by element."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from dicom_deid.dicom.vr import TEXT_VRS

_SHOWN_CHARACTERS = 80


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


class Element(NamedTuple):
    """One element of a header; PHI if the header is that of an original."""

    name: str
    vr: str
    value: Any
    """Decoded by pydicom; the number of items of a sequence."""

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.vr!r}, ...)"

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


class Elements(dict[str, Element]):
    """The elements of a header by tag path.

    Parameters
    ----------
    header
        The data set, as pydicom reads it.
    original
        Elements of the original, if this is a new object: items keep their numbers if rules removed items before.
    """

    def __init__(self, header: FileDataset, original: Elements | None) -> None:
        self.header: FileDataset = header
        was = header if original is None else original.header
        # Values that were decoded, by what they are decoded of: reports repeat most of theirs, and rules change few.
        self._decoded: dict[tuple[object, ...], Element] = {} if original is None else original._decoded
        super().__init__([*self._flat(header.file_meta, "", was.file_meta), *self._flat(header, "", was)])

    def _flat(self, dataset: Dataset, prefix: str, original: Dataset) -> Iterator[tuple[str, Element]]:
        for tag in sorted(dataset.keys()):
            path = f"{prefix}({tag >> 16:04x},{tag & 0xFFFF:04x})"
            element = self._decode(dataset, tag)
            if element is not None:
                yield path, element
                continue
            items = dataset[tag].value
            yield path, Element(dataset[tag].name, "SQ", len(items))
            was = original.get(tag)
            before = was.value if was is not None and was.VR == "SQ" else items
            for number, item in zip(_numbers(items, before), items, strict=True):
                yield from self._flat(item, f"{path}[{number}]", before[number] if number < len(before) else item)

    def _decode(self, dataset: Dataset, tag: BaseTag) -> Element | None:
        """Return an element with its value; None for a sequence."""
        raw = dataset.get_item(tag)
        key = None
        if isinstance(raw, RawDataElement) and raw.VR in TEXT_VRS and not tag.is_private:
            key = (tag, raw.VR, raw.value, str(dataset.original_character_set))
            known = self._decoded.get(key)
            if known is not None:
                return known
        found = dataset[tag]
        if found.VR == "SQ":
            return None
        element = Element(found.name, found.VR, found.value)
        if key is not None:
            self._decoded[key] = element
        return element


def read_elements(file: BinaryIO, original: Elements | None = None) -> Elements:
    """Return the elements before the pixel data, those of the file meta information first.

    Parameters
    ----------
    file
        An object, or its beginning.
    original
        Elements of the original, if this is a new object.
    """
    return Elements(pydicom.dcmread(file, stop_before_pixels=True, force=True), original)


def changes_between(before: Mapping[str, Element], after: Mapping[str, Element]) -> Iterator[Change]:
    """Yield the differences in the order of their paths."""
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield Change(path, new.name, ChangeKind.ADDED, None, new.summary)
        elif old is not None and new is None:
            yield Change(path, old.name, ChangeKind.REMOVED, old.summary, None)
        elif old is not None and new is not None and old is not new and old.value != new.value:
            kind = ChangeKind.CHANGED if new.summary else ChangeKind.EMPTIED
            yield Change(path, old.name, kind, old.summary, new.summary)


def count_unchanged(before: Mapping[str, Element], changes: Iterable[Change]) -> int:
    """Return the number of elements of the first header that are the same in the second."""
    return len(before) - sum(change.kind is not ChangeKind.ADDED for change in changes)


def _numbers(items: Sequence[Dataset], before: Sequence[Dataset]) -> list[int]:
    """Return the numbers of items before rules removed some of them; concept names identify the items."""
    numbers: list[int] = []
    number = 0
    for index, item in enumerate(items):
        rest = len(items) - index
        while len(before) - number > rest and _concept(before[number]) != _concept(item):
            number += 1
        numbers.append(number)
        number += 1
    return numbers


def _concept(item: Dataset) -> tuple[str, str, str]:
    name = next(iter(item.get("ConceptNameCodeSequence") or ()), Dataset())
    return item.get("ValueType", ""), name.get("CodeValue", ""), name.get("CodingSchemeDesignator", "")
