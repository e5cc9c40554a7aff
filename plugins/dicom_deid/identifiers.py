"""Identifiers of source objects and the kinds of pseudonym that replace them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

PatientKey = Literal["id", "id-and-issuer"]
"""What identifies a patient: the PatientID alone, or with its IssuerOfPatientID."""
_BEFORE_ISSUER = "^^^"


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


def with_issuer(patient_id: str, issuer: str) -> str:
    """Return a PatientID with its issuer, as HL7 v2 writes it in the data type CX: ``ID^^^ISSUER``.

    Without an issuer it is the PatientID alone.
    """
    return f"{patient_id}{_BEFORE_ISSUER}{issuer}" if patient_id and issuer else patient_id


def without_issuer(patient: str) -> tuple[str, str]:
    """Return the PatientID and the issuer of the result of :func:`with_issuer`."""
    patient_id, _, issuer = patient.partition(_BEFORE_ISSUER)
    return patient_id, issuer
