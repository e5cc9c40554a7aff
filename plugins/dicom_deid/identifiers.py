"""Identifiers of source objects and the kinds of pseudonym that replace them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class IdentifierKind(StrEnum):
    """Name space of pseudonyms in a project: one original value has one pseudonym per kind."""

    UID = "UID"
    PATIENT_ID = "PatientID"
    ACCESSION_NUMBER = "AccessionNumber"
    STUDY_ID = "StudyID"
    DATE_OFFSET = "DateOffset"
    """Shift of a patient's dates in days, as text; the original value is the PatientID."""


class Identifier(NamedTuple):
    """An identifier found in a source object. PHI: never log it.

    The value is normalised: decoded in the object's character set, without DICOM padding and surrounding blanks.
    """

    kind: IdentifierKind
    value: str

    def __repr__(self) -> str:
        return f"Identifier({self.kind.value}, ...)"
