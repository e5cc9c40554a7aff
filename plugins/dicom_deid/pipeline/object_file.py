"""A stored object as a file that is read in ranges, and the attributes of its header that say what it is."""

from __future__ import annotations

from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from dicom_deid.database import ObjectIdentity
from dicom_deid.database.quarantine import DeviceFacts
from dicom_deid.engine.pixels.layouts import is_free_of, patient_words
from dicom_deid.exceptions import DicomDeidError, Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore
from dicom_deid.objectstore.base import Buffer
from dicom_deid.objectstore.ranged_file import ranged_file
from dicom_deid.reasons import Reason

MAX_HEADER_BYTES = 16 * 2**20
"""Limit of what the API server reads of a header: it shares its memory with all other pages."""

_MAX_FACT = 64
_COLUMNS = 0x00280011
# SOPClassUID, SOPInstanceUID, AccessionNumber, Modality, Manufacturer, ManufacturerModelName, PatientName, PatientID,
# IssuerOfPatientID, SoftwareVersions, StudyInstanceUID, SeriesInstanceUID, Rows, Columns.
_FACTS: list[BaseTag | int] = [
    0x00080016, 0x00080018, 0x00080050, 0x00080060, 0x00080070, 0x00081090, 0x00100010, 0x00100020, 0x00100021,
    0x00181020, 0x0020000D, 0x0020000E, 0x00280010, _COLUMNS,
]  # fmt: skip


def open_object(storage: ObjectStore, stored: SourceObject, max_bytes: int = MAX_HEADER_BYTES) -> BinaryIO:
    """Return an object as a file that reads ranges of it when they are needed.

    Parameters
    ----------
    storage, stored
        The object, as it was listed.
    max_bytes
        Reading more than this in total raises `Quarantine` with `HEADER_TOO_LARGE`.
    """
    left = max_bytes

    def read(start: int, end: int) -> Buffer:
        nonlocal left
        if left <= 0:
            raise Quarantine(Reason.HEADER_TOO_LARGE)
        end = min(end, start + left)
        left -= end - start
        return storage.read(
            stored.key, etag=stored.etag, version_id=stored.version_id, size=stored.size, start=start, end=end
        )

    return ranged_file(read, stored.size)


def read_header_facts(storage: ObjectStore, stored: SourceObject) -> tuple[DeviceFacts, ObjectIdentity] | None:
    """Return the attributes of a held object that group the objects of one device, and its identifiers.

    A value that holds a word of the patient's name or the PatientID is left out of the former.

    Returns
    -------
    tuple of DeviceFacts and ObjectIdentity, or None
        None if the header cannot be read. The identifiers are PHI.

    Raises
    ------
    Quarantine, ObjectStoreError
        The object cannot be read.
    """
    try:
        header = read_partial(
            open_object(storage, stored, 2**20),
            stop_when=lambda tag, _vr, _length: int(tag) > _COLUMNS,
            force=True,
            specific_tags=_FACTS,
        )
        return _device_facts(header), _identity(header)
    except DicomDeidError:
        raise
    except Exception:
        # Messages of pydicom may hold values.
        return None


def _device_facts(header: Dataset) -> DeviceFacts:
    words = patient_words(f"{_text(header, 'PatientName')} {_text(header, 'PatientID')}")

    def fact(keyword: str) -> str:
        text = _text(header, keyword)
        return text if is_free_of(text, words) else ""

    return DeviceFacts(
        modality=fact("Modality"),
        sop_class_uid=fact("SOPClassUID"),
        transfer_syntax_uid=str(getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID") or "")[:_MAX_FACT],
        manufacturer=fact("Manufacturer"),
        model=fact("ManufacturerModelName"),
        software=fact("SoftwareVersions"),
        rows=header.get("Rows"),
        columns=header.get("Columns"),
        patient_id=_text(header, "PatientID"),
        study_instance_uid=_text(header, "StudyInstanceUID"),
    )


def _identity(header: Dataset) -> ObjectIdentity:
    return ObjectIdentity(
        patient_id=_text(header, "PatientID"),
        issuer_of_patient_id=_text(header, "IssuerOfPatientID"),
        accession_number=_text(header, "AccessionNumber"),
        study_instance_uid=_text(header, "StudyInstanceUID"),
        series_instance_uid=_text(header, "SeriesInstanceUID"),
        sop_instance_uid=_text(header, "SOPInstanceUID"),
    )


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    if value is None:
        return ""
    return "\\".join(map(str, value)).strip() if isinstance(value, MultiValue) else str(value).strip()
