"""Originals and the kinds of pseudonym that stand for them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class IdentifierKind(StrEnum):
    """A name space of pseudonyms inside a project: one original has one pseudonym a kind."""

    UID = "UID"
    PATIENT_ID = "PatientID"
    ACCESSION_NUMBER = "AccessionNumber"
    STUDY_ID = "StudyID"
    DATE_OFFSET = "DateOffset"
    """Days, a signed integer as text, by which a patient's dates are shifted; the original is the PatientID."""


class Identifier(NamedTuple):
    """An identifier as it stands in a source object: PHI, never to be logged.

    The value is normalised: decoded in the object's character set, without DICOM padding and surrounding blanks.
    """

    kind: IdentifierKind
    value: str

    def __repr__(self) -> str:
        return f"Original({self.kind.value}, ...)"
