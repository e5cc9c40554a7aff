"""Expectations about a de-identified object: the answer key."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset


class Category(StrEnum):
    """Category of an expectation: those of the MIDI-B challenge, then our own."""

    TAG_RETAINED = "tag_retained"
    """An element without patient information is still present."""
    TEXT_NOTNULL = "text_notnull"
    """An element that every object of the kind must have holds a value."""
    TEXT_RETAINED = "text_retained"
    """The harmless words of a description are still present."""
    TEXT_REMOVED = "text_removed"
    """A planted identifier is no longer in its element."""
    DATE_SHIFTED = "date_shifted"
    """A date has another day, and is a date."""
    UID_CHANGED = "uid_changed"
    """A UID of the patient's objects was replaced."""
    PIXELS_HIDDEN = "pixels_hidden"
    """Burned-in text cannot be read."""
    PIXELS_RETAINED = "pixels_retained"
    """Pixels outside of text are unchanged."""
    UID_CONSISTENT = "uid_consistent"
    """One original UID has one new UID in all objects, and no other has it."""
    PATID_CONSISTENT = "patid_consistent"
    """One patient has one new PatientID in all objects, and no other has it."""
    DATE_INTERVALS = "date_intervals"
    """All dates of a patient are shifted by the same number of days."""
    REFERENCES_RESOLVE = "references_resolve"
    """A reference still points to the same object."""
    METHOD_STAMPED = "method_stamped"
    """The object records that it was de-identified, and how."""
    IDENTIFIERS_ELSEWHERE = "identifiers_elsewhere"
    """A planted identifier is not found in the object's bytes, in any encoding."""
    DELIVERED = "delivered"
    """An object without pixel or document risk was de-identified, not quarantined, and is readable."""


HEADER_CATEGORIES = tuple(category for category in Category if not category.startswith("pixels"))
"""All categories but those about pixels."""


@dataclass(frozen=True, slots=True)
class PrivateTag:
    """A private element by its private creator; its block may change."""

    group: int
    creator: str
    element: int


PathPart = int | PrivateTag
"""A tag, or in between two tags the number of an item."""
Path = tuple[PathPart, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation about one element, or about the object if `path` is empty.

    Parameters
    ----------
    category
        Category of the expectation.
    path
        Tag, item number, tag, ... down to the element.
    value
        The words, date, UID or identifier in the original object.
    """

    category: Category
    path: Path = ()
    value: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels that contains text, in every frame; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int
    text: str = ""
    is_dark: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One object of the corpus and its answer key.

    Parameters
    ----------
    name
        File name, unique in the corpus.
    modality, patient
        Kind of object, and number of the patient.
    data
        The object as stored.
    key
        Expectations about the output.
    identifiers
        Planted texts that must not occur anywhere in the output.
    references
        Path of each reference and the name of the case it points to.
    text_boxes
        Regions of burned-in text.
    may_be_quarantined
        True for an object that a policy may quarantine (burned-in text, documents).
    """

    name: str
    modality: str
    patient: int
    data: bytes
    key: tuple[Expectation, ...]
    identifiers: tuple[str, ...]
    references: tuple[tuple[Path, str], ...] = ()
    text_boxes: tuple[Box, ...] = ()
    may_be_quarantined: bool = False

    @property
    def dataset(self) -> Dataset:
        """The object as stored, read by pydicom."""
        return dcmread(io.BytesIO(self.data))


def find(dataset: Dataset, path: Path) -> DataElement | None:
    """Return the element at a path, or None if it does not exist."""
    current: Dataset = dataset
    for index in range(0, len(path), 2):
        element = _element(current, path[index])
        if element is None or index + 1 == len(path):
            return element
        number = path[index + 1]
        if element.VR != "SQ" or not isinstance(number, int) or number >= len(element.value):
            return None
        current = element.value[number]
    return None


def _element(dataset: Dataset, part: PathPart) -> DataElement | None:
    if isinstance(part, int):
        return dataset.get(part)
    try:
        return dataset.private_block(part.group, part.creator)[part.element]
    except KeyError:
        return None


def text_of(element: DataElement | None) -> str:
    """Return an element's value as text, values joined by a backslash; bytes are read as Latin-1."""
    if element is None or element.value is None:
        return ""
    if isinstance(element.value, bytes):
        return element.value.decode("latin-1")
    if isinstance(element.value, str) or not hasattr(element.value, "__iter__"):
        return str(element.value)
    if element.VR == "PN":
        return str(element.value)
    return "\\".join(str(value) for value in element.value)
