"""Describe an object by its header: its identifiers, and the device that made it."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

from dicom_deid.database import ObjectIdentity
from dicom_deid.database.quarantine import DeviceFacts
from dicom_deid.dicom.root_elements import RootElements
from dicom_deid.engine import AnalysisResult
from dicom_deid.engine.pixels.layouts import is_free_of, patient_words
from dicom_deid.identifiers import PatientKey, with_issuer
from dicom_deid.pipeline.indexing import INDEX_TAGS

_MAX_UID = 64
FACT_TAGS = INDEX_TAGS | {tag_for_keyword("SoftwareVersions") or 0}
"""Tags of the elements that are read of a held object."""


def device_facts(header: RootElements) -> DeviceFacts:
    """Return the attributes of a held object that group the objects of one device.

    A value that holds a word of the patient's name or the PatientID is left out.
    """
    words = patient_words(f"{header.original('PatientName')} {header.original('PatientID')}")

    def fact(keyword: str) -> str:
        text = "\\".join(component.strip("\0 ") for component in header.original(keyword).split("\\"))
        return text if is_free_of(text, words) else ""

    return DeviceFacts(
        modality=fact("Modality"),
        sop_class_uid=fact("SOPClassUID"),
        transfer_syntax_uid=header.header.transfer_syntax.uid[:_MAX_UID],
        manufacturer=fact("Manufacturer"),
        model=fact("ManufacturerModelName"),
        software=fact("SoftwareVersions"),
        rows=header.number("Rows"),
        columns=header.number("Columns"),
        patient_id=header.original("PatientID"),
        study_instance_uid=header.original("StudyInstanceUID"),
    )


def object_identity(header: AnalysisResult | RootElements, patient_key: PatientKey) -> ObjectIdentity:
    """Return the original identifiers that an object can be withdrawn by; PHI."""
    original = header.original
    patient, issuer = original("PatientID"), original("IssuerOfPatientID")
    return ObjectIdentity(
        patient_id=with_issuer(patient, issuer) if patient_key == "id-and-issuer" else patient,
        issuer_of_patient_id=issuer,
        accession_number=original("AccessionNumber"),
        study_instance_uid=original("StudyInstanceUID"),
        series_instance_uid=original("SeriesInstanceUID"),
        sop_instance_uid=original("SOPInstanceUID"),
    )
