"""What differs between two headers, element by element."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue

_SHOWN_CHARACTERS = 80


class ChangeKind(StrEnum):
    """What becomes of an element."""

    ADDED = "added"
    CHANGED = "changed"
    EMPTIED = "emptied"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One element that is another, or not there, in a second header.

    Parameters
    ----------
    path
        The element's place, such as ``(0040,a730)[0](0040,a123)``.
    name
        Its name in the dictionary, or its keyword's; never anything that the object says.
    kind
        What becomes of it.
    before
        The original value: PHI. For the eyes of a user at the user's own terminal, never for a page or a log.
    after
        The new value, None when the element is removed.
    """

    path: str
    name: str
    kind: ChangeKind
    before: str | None = field(repr=False)
    after: str | None


class Element(NamedTuple):
    """One element of a header. PHI, as long as the header is an original's."""

    name: str
    vr: str
    value: Any
    """As pydicom decodes it; of a sequence the number of its items."""

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.vr!r}, ...)"

    @property
    def texts(self) -> tuple[str, ...]:
        """The components of the value as text; none of a sequence, of bytes, or of an empty value."""
        if self.vr == "SQ" or self.value is None or isinstance(self.value, bytes):
            return ()
        if isinstance(self.value, MultiValue | list):
            return tuple(str(each) for each in self.value)
        return (str(self.value),) if str(self.value) else ()

    @property
    def summary(self) -> str:
        """The value for people to read: long text cut off, bytes and items only counted."""
        if self.vr == "SQ":
            return f"{self.value} items"
        if isinstance(self.value, bytes):
            return f"{len(self.value)} bytes" if self.value else ""
        text = "\\".join(self.texts)
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


class Elements(dict[str, Element]):
    """The elements of a header by their places.

    Parameters
    ----------
    header
        The data set, as pydicom reads it.
    places
        Places and elements.
    """

    def __init__(self, header: FileDataset, places: Iterable[tuple[str, Element]]) -> None:
        super().__init__(places)
        self.header = header


def read_elements(file: BinaryIO, original: Elements | None = None) -> Elements:
    """Return the elements before the pixel data, those of the file meta information first.

    Parameters
    ----------
    file
        An object, or its beginning.
    original
        Of the object that it was made of: an item before which rules removed others keeps the place that it had.
    """
    header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    was = header if original is None else original.header
    return Elements(header, [*_flat(header.file_meta, "", was.file_meta), *_flat(header, "", was)])


def changes_between(before: Mapping[str, Element], after: Mapping[str, Element]) -> Iterator[Change]:
    """Yield what differs, in the order of the places."""
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield Change(path, new.name, ChangeKind.ADDED, None, new.summary)
        elif old is not None and new is None:
            yield Change(path, old.name, ChangeKind.REMOVED, old.summary, None)
        elif old is not None and new is not None and old.value != new.value:
            kind = ChangeKind.CHANGED if new.summary else ChangeKind.EMPTIED
            yield Change(path, old.name, kind, old.summary, new.summary)


def count_unchanged(before: Mapping[str, Element], changes: Iterable[Change]) -> int:
    """Return how many elements of the first header are the same in the second."""
    return len(before) - sum(change.kind is not ChangeKind.ADDED for change in changes)


def _flat(dataset: Dataset, place: str, original: Dataset) -> Iterator[tuple[str, Element]]:
    for element in dataset:
        path = f"{place}({element.tag.group:04x},{element.tag.element:04x})"
        if element.VR == "SQ":
            yield path, Element(element.name, "SQ", len(element.value))
            was = original.get(element.tag)
            before = was.value if was is not None and was.VR == "SQ" else element.value
            for number, item in zip(_numbers(element.value, before), element.value, strict=True):
                yield from _flat(item, f"{path}[{number}]", before[number] if number < len(before) else item)
        else:
            yield path, Element(element.name, element.VR, element.value)


def _numbers(items: Sequence[Dataset], before: Sequence[Dataset]) -> list[int]:
    """Return the numbers that items had before rules removed some between them: concept names tell them apart."""
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
