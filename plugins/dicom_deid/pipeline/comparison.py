"""Compare an object at the source with its result at the destination, without showing original values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dicom_deid.dicom.part10 import read_header
from dicom_deid.dicom.walk import NeedMoreDataError
from dicom_deid.exceptions import DicomDeidError, Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore
from dicom_deid.pipeline.changes import ChangeKind, Elements, changes_between, count_unchanged, read_elements
from dicom_deid.pipeline.object_file import MAX_HEADER_BYTES, open_object
from dicom_deid.pipeline.phi_masking import paths_to_hide
from dicom_deid.reasons import Reason

_BEGINNING = 2**16


class NotCompared(DicomDeidError):
    """The two objects cannot be compared; the message says why, without a key or a value."""


class ShownChange(NamedTuple):
    """One element that differs in the new object.

    Parameters
    ----------
    path, name, kind
        As of a `Change`.
    value
        The new value; None if there is none, or if it contains text of an original value.
    withheld
        Whether it contains such text.
    """

    path: str
    name: str
    kind: ChangeKind
    value: str | None
    withheld: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between the elements before the pixel data.

    Parameters
    ----------
    changes
        The elements that changed, in the order of their paths.
    unchanged
        Number of elements that are the same.
    """

    changes: tuple[ShownChange, ...]
    unchanged: int


def compare_objects(
    source: ObjectStore, original: SourceObject, destination: ObjectStore, written: SourceObject
) -> Comparison:
    """Compare a source object with its result; only the elements before the pixel data are read.

    Parameters
    ----------
    source, original
        The source object, as it was listed.
    destination, written
        The new object, as it was written.

    Raises
    ------
    NotCompared
        One of them is gone, was overwritten, or cannot be read here.
    ObjectStoreError
        A store is unavailable.
    """
    before = _elements(source, original, "source")
    after = _elements(destination, written, "destination", before)
    return compare(before, after)


def compare(before: Elements, after: Elements) -> Comparison:
    """Compare two headers by path."""
    changes = list(changes_between(before, after))
    new = {change.path: change.new for change in changes if change.new is not None}
    withheld = paths_to_hide(before, new)
    return Comparison(
        tuple(
            ShownChange(
                change.path,
                change.name,
                change.kind,
                None if change.path in withheld else change.after or None,
                change.path in withheld,
            )
            for change in changes
        ),
        unchanged=count_unchanged(before, changes),
    )


_WHY = {
    Reason.OBJECT_VANISHED: "is gone, or cannot be reached from Airflow's API server",
    Reason.OBJECT_CHANGED: "was overwritten since; it is not the object that the audit records",
    Reason.HEADER_TOO_LARGE: f"has more than {MAX_HEADER_BYTES // 2**20} MB before its pixel data",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "is deflated as a whole, and is not inflated here",
}


def _elements(storage: ObjectStore, stored: SourceObject, which: str, original: Elements | None = None) -> Elements:
    try:
        return _read(storage, stored, original)
    except Quarantine as quarantine:
        why = _WHY.get(quarantine.reason, "cannot be read")
    raise NotCompared(f"The {which} object {why}.")


def _read(storage: ObjectStore, stored: SourceObject, original: Elements | None) -> Elements:
    file = open_object(storage, stored, MAX_HEADER_BYTES)
    data = file.read(_BEGINNING)
    if read_header(data).transfer_syntax.deflated:
        raise Quarantine(Reason.UNSUPPORTED_TRANSFER_SYNTAX)
    while True:
        try:
            return read_elements(data, original, partial=len(data) < stored.size)
        except NeedMoreDataError as needed:
            data += file.read(max(needed.at_least - len(data), len(data)))
