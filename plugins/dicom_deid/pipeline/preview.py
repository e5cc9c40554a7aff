"""What a recipe would do, before anyone commits to a run: nothing is written and no pseudonym is stored."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_deid.deidentify import Deidentifier
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceRange
from dicom_deid.pipeline.header import read_examined
from dicom_deid.pipeline.placeholders import Placeholders
from dicom_deid.reasons import Reason
from dicom_deid.storage import ObjectStorage

_SHOWN_CHARACTERS = 80


class ChangeKind(StrEnum):
    """What becomes of an element."""

    ADDED = "added"
    CHANGED = "changed"
    EMPTIED = "emptied"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One element that the rules change.

    Parameters
    ----------
    path
        The element's place, such as ``(0040,a730)[0](0040,a123)``.
    name
        Its name in the dictionary; of a private element, its creator.
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


@dataclass(frozen=True, slots=True)
class ObjectPreview:
    """What a recipe would make of one object.

    Parameters
    ----------
    changes
        The elements that change, in the order of their places.
    unchanged
        Number of elements that stay as they are.
    modality
        The object's modality, empty when it could not be read.
    actions, rules, notes
        Counts by action, by index of the rule, and of what was noteworthy.
    reason, where
        Why the object would be quarantined, and where in it; None and empty when it would not.
    """

    changes: tuple[Change, ...]
    unchanged: int
    modality: str = ""
    actions: dict[str, int] = field(default_factory=dict)
    rules: dict[int, int] = field(default_factory=dict)
    notes: dict[Reason, int] = field(default_factory=dict)
    reason: Reason | None = None
    where: str = ""


class Difference(NamedTuple):
    """An element that two recipes treat differently."""

    path: str
    name: str
    one: ChangeKind | None
    other: ChangeKind | None


def preview_object(
    deidentifier: Deidentifier,
    storage: ObjectStorage,
    key: str,
    *,
    size: int,
    etag: str | None = None,
    placeholders: Placeholders | None = None,
) -> ObjectPreview:
    """Tell what would become of one object.

    Parameters
    ----------
    deidentifier
        Recipe and settings.
    storage, key, size, etag
        The object; of a large one only the elements before its pixel data are read.
    placeholders
        Shared between the previews that are compared, so that only rules make differences.
    """
    try:
        examined = read_examined(deidentifier, storage, key, size=size, etag=etag)
        pseudonyms = (placeholders or Placeholders()).resolve(examined.examination.originals)
        result = deidentifier.rewrite(examined.examination, pseudonyms)
    except Quarantine as quarantine:
        return ObjectPreview((), 0, reason=quarantine.reason, where=quarantine.where)
    header = b"".join(part for part in result.parts if not isinstance(part, SourceRange))
    original = _read(examined.data)
    before, after = _elements(original, original), _elements(_read(header), original)
    changes = tuple(_changes(before, after))
    return ObjectPreview(
        changes,
        unchanged=len(before) - sum(change.kind is not ChangeKind.ADDED for change in changes),
        modality=examined.examination.modality,
        actions=dict(result.actions),
        rules=dict(result.rules),
        notes=dict(result.notes),
    )


def differences(one: ObjectPreview, other: ObjectPreview) -> tuple[Difference, ...]:
    """Return the elements that two recipes treat differently, of two previews of one object."""
    first = {change.path: change for change in one.changes}
    second = {change.path: change for change in other.changes}
    found = []
    for path in sorted({*first, *second}):
        left, right = first.get(path), second.get(path)
        known = left or right
        if known is not None and (
            left is None or right is None or (left.kind, left.after) != (right.kind, right.after)
        ):
            found.append(Difference(path, known.name, left.kind if left else None, right.kind if right else None))
    return tuple(found)


def _changes(before: dict[str, _Shown], after: dict[str, _Shown]) -> Iterator[Change]:
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield Change(path, new.name, ChangeKind.ADDED, None, new.value)
        elif old is not None and new is None:
            yield Change(path, old.name, ChangeKind.REMOVED, old.value, None)
        elif old is not None and new is not None and old.encoded != new.encoded:
            kind = ChangeKind.CHANGED if new.value else ChangeKind.EMPTIED
            yield Change(path, old.name, kind, old.value, new.value)


class _Shown(NamedTuple):
    name: str
    value: str
    encoded: object
    """What is compared: the shown value may be a part of the whole."""


def _read(data: bytes) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)


def _elements(dataset: pydicom.FileDataset, original: pydicom.FileDataset) -> dict[str, _Shown]:
    """Return the elements before the pixel data, by the places that they have, or had in the original."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict([*_flat(dataset.file_meta, "", original.file_meta), *_flat(dataset, "", original)])


def _flat(dataset: Dataset, place: str, original: Dataset) -> Iterator[tuple[str, _Shown]]:
    for element in dataset:
        path = f"{place}({element.tag.group:04x},{element.tag.element:04x})"
        if element.VR == "SQ":
            items = len(element.value)
            yield path, _Shown(element.name, f"{items} items", items)
            before = original[element.tag].value if element.tag in original else element.value
            for number, item in zip(_numbers(element.value, before), element.value, strict=True):
                yield from _flat(item, f"{path}[{number}]", before[number] if number < len(before) else item)
        else:
            yield path, _Shown(element.name, _text(element), element.value)


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


def _text(element: DataElement) -> str:
    if isinstance(element.value, bytes):
        return f"{len(element.value)} bytes" if element.value else ""
    text = "" if element.value is None else str(element.value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


@dataclass(slots=True)
class SampleSummary:
    """What a recipe would do to a sample of objects, in counts.

    Parameters
    ----------
    objects
        Objects previewed, by modality.
    rules
        Elements that each rule acted on, by the rule's index.
    actions, notes, reasons
        Counts by action, of what was noteworthy, and of objects that would be quarantined.
    differences
        With two recipes: in how many objects each element is treated differently.
    """

    objects: Counter[str] = field(default_factory=Counter)
    rules: Counter[int] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    notes: Counter[Reason] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    differences: Counter[Difference] = field(default_factory=Counter)

    def add(self, preview: ObjectPreview, other: ObjectPreview | None) -> None:
        """Count one object."""
        self.objects[preview.modality] += 1
        self.rules.update(preview.rules)
        self.actions.update(preview.actions)
        self.notes.update(preview.notes)
        if preview.reason is not None:
            self.reasons[preview.reason] += 1
        if other is not None:
            self.differences.update(differences(preview, other))
