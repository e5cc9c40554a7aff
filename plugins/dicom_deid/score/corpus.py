"""Generate the corpus: objects of all modalities with planted identifiers, and the answer key."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np

from dicom_deid.score.builder import Builder, tag
from dicom_deid.score.expectations import Case, Category, Path, PrivateTag
from dicom_deid.score.identity import Patient, digits, person, uid, word
from dicom_deid.score.picture import burn, noise

_STORAGE = "1.2.840.10008.5.1.4.1.1"

MODALITIES: dict[str, str] = {
    "CT": f"{_STORAGE}.2",
    "MR": f"{_STORAGE}.4",
    "PT": f"{_STORAGE}.128",
    "NM": f"{_STORAGE}.20",
    "CR": f"{_STORAGE}.1",
    "DX": f"{_STORAGE}.1.1",
    "MG": f"{_STORAGE}.1.2",
    "XA": f"{_STORAGE}.12.1",
    "RF": f"{_STORAGE}.12.2",
    "US": f"{_STORAGE}.6.1",
    "OT": f"{_STORAGE}.7",
    "SR": f"{_STORAGE}.88.33",
    "KO": f"{_STORAGE}.88.59",
    "PR": f"{_STORAGE}.11.1",
    "RTSTRUCT": f"{_STORAGE}.481.3",
    "RTPLAN": f"{_STORAGE}.481.5",
    "SEG": f"{_STORAGE}.66.4",
    "ECG": f"{_STORAGE}.9.1.1",
    "DOC": f"{_STORAGE}.104.1",
}
"""SOP class by the name of the kind of object in the table."""

_BURNED_IN = ("US", "OT", "CR", "XA")
_WITHOUT_PIXELS = ("SR", "KO", "PR", "RTSTRUCT", "RTPLAN", "ECG", "DOC")
_WORDS = ("follow up", "with contrast", "axial thin slices", "routine protocol", "left knee", "low dose", "repeat view")
# Technical elements that are not in Table E.1-1, into which some users write free text.
_UNLISTED = (
    "ReceiveCoilName",
    "ConvolutionKernel",
    "FilterType",
    "SequenceName",
    "ContrastBolusAgent",
    "TransducerData",
)
_DESCRIPTIONS = (
    "StudyDescription",
    "SeriesDescription",
    "ImageComments",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "DerivationDescription",
    "AcquisitionProtocolDescription",
)
# Private elements that PS3.15 Table E.3.10-1 lists as safe.
_SAFE_PRIVATE: tuple[tuple[PrivateTag, str, object], ...] = (
    (PrivateTag(0x0019, "GEMS_ACQU_01", 0x23), "DS", "27.5"),
    (PrivateTag(0x2001, "Philips Imaging DD 001", 0x03), "FL", 1000.0),
    (PrivateTag(0x7053, "Philips PET Private Group", 0x00), "DS", "1.25"),
)

# Private elements that The Cancer Imaging Archive keeps (knowledge base of 1 February 2024), and that the table lacks.
_SITE_PRIVATE: tuple[tuple[PrivateTag, str, object], ...] = (
    (PrivateTag(0x0043, "GEMS_PARM_01", 0x2F), "SS", 2),
    (PrivateTag(0x0019, "GEMS_ACQU_01", 0x02), "SL", 912),
)


def generate(seed: int, *, patients: int = 4) -> list[Case]:
    """Return the corpus: one object of each kind per patient.

    Parameters
    ----------
    seed
        Seed of the random number generator.
    patients
        Number of patients.
    """
    rng = random.Random(seed)  # noqa: S311 - a corpus is no secret
    cases: list[Case] = []
    for number in range(patients):
        patient = Patient.draw(rng)
        images: list[Case] = []
        for modality, sop_class in MODALITIES.items():
            builder = Builder(rng, patient, modality, sop_class)
            _common(builder)
            _KINDS.get(modality, _image)(builder, images)
            case = builder.case(f"patient{number}-{modality.lower()}.dcm", number)
            cases.append(case)
            if modality not in _WITHOUT_PIXELS:
                images.append(case)
    return cases


def _common(builder: Builder) -> None:
    """Write the elements that every object has: patient, study, series, equipment."""
    _own_elements(builder)
    _people(builder)
    _dates(builder)
    _descriptions(builder)
    _nested(builder)
    builder.unsafe_private()
    for private, vr, value in (*_SAFE_PRIVATE, *_SITE_PRIVATE):
        builder.place((private,), value, vr)
        builder.expect(Category.TAG_RETAINED, (private,), str(value))
    builder.expect(Category.METHOD_STAMPED, ())


def _own_elements(builder: Builder) -> None:
    patient, path = builder.patient, builder.path
    builder.filling("SpecificCharacterSet", "ISO_IR 192")
    builder.plain("SOPClassUID", builder.sop_class)
    builder.plain("Modality", builder.modality)
    builder.plain("SeriesNumber", builder.rng.randrange(1, 20))
    builder.plain("InstanceNumber", builder.rng.randrange(1, 200))
    builder.plain("Manufacturer", "Example Imaging")
    builder.own_uid(path("SOPInstanceUID"), builder.instance_uid)
    builder.own_uid(path("StudyInstanceUID"), patient.study_uid)
    builder.own_uid(path("SeriesInstanceUID"), uid(builder.rng))
    builder.own_uid(path("FrameOfReferenceUID"), patient.frame_of_reference_uid)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"):
        builder.expect(Category.TEXT_NOTNULL, path(keyword))
    builder.expect(Category.PATID_CONSISTENT, path("PatientID"), patient.patient_id)


def _people(builder: Builder) -> None:
    patient, path = builder.patient, builder.path
    for keyword, value in (
        ("PatientName", patient.name),
        ("PatientID", patient.patient_id),
        ("AccessionNumber", patient.accession_number),
        ("StudyID", patient.study_id),
        ("OtherPatientIDs", patient.other_id),
        ("PatientMotherBirthName", patient.mother_name),
        ("PatientAddress", patient.address),
        ("PatientTelephoneNumbers", patient.telephone),
        ("ReferringPhysicianName", patient.referring),
        ("PerformingPhysicianName", patient.performing),
        ("OperatorsName", patient.operator),
        ("InstitutionName", patient.institution),
        ("StationName", patient.station),
        ("DeviceSerialNumber", patient.serial_number),
    ):
        builder.identifier(path(keyword), value)


def _dates(builder: Builder) -> None:
    patient, path = builder.patient, builder.path
    builder.identifier(path("PatientBirthDate"), patient.birth_date.strftime("%Y%m%d"))
    age = f"{(patient.study_date - patient.birth_date).days // 365:03d}Y"
    builder.place(path("PatientAge"), age)
    # HIPAA: ages over 89 are one category.
    builder.expect(Category.TEXT_REMOVED if age > "089Y" else Category.TEXT_RETAINED, path("PatientAge"), age)
    for keyword, days in (("StudyDate", 0), ("SeriesDate", 0), ("ContentDate", 1), ("AcquisitionDateTime", 0)):
        builder.day(path(keyword), patient.study_date + timedelta(days=days))
    for keyword in ("StudyTime", "SeriesTime", "ContentTime"):
        builder.filling(keyword, f"{builder.rng.randrange(8, 18):02d}1530")


def _descriptions(builder: Builder) -> None:
    """Write sentences with an identifier into some descriptions, and a name into an element that no table lists."""
    patient, rng = builder.patient, builder.rng
    family, given = patient.name.split("^")
    earlier = patient.study_date - timedelta(days=rng.randrange(30, 900))
    forms = (
        family,
        f"{given} {family}",
        patient.name,
        patient.patient_id,
        patient.accession_number,
        f"Dr. {patient.referring.split('^')[0]}",
        patient.telephone,
        _written(rng, earlier),
        f"MRN {digits(rng, 7)}",
    )
    for keyword in rng.sample(_DESCRIPTIONS, 4):
        builder.sentence(builder.path(keyword), rng.choice(_WORDS), rng.choice(forms))
    keyword = rng.choice(_UNLISTED)
    path = builder.path(keyword)
    builder.place(path, f"{family.upper()} 12")
    builder.expect(Category.TEXT_REMOVED, path, family)
    builder.planted.add(family)


def _written(rng: random.Random, day: date) -> str:
    form = rng.choice(("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %B %Y", "%Y%m%d", "%B %d, %Y"))
    return day.strftime(form)


def _nested(builder: Builder) -> None:
    """Write identifiers, dates and UIDs into items, two deep."""
    patient, rng, path = builder.patient, builder.rng, builder.path
    builder.identifier(path("OtherPatientIDsSequence", 0, "PatientID"), patient.other_id)
    request = path("RequestAttributesSequence", 0)
    builder.identifier((*request, tag("AccessionNumber")), patient.accession_number)
    builder.sentence((*request, tag("RequestedProcedureDescription")), rng.choice(_WORDS), patient.name.split("^")[0])
    builder.own_uid((*request, tag("StudyInstanceUID")), patient.study_uid)
    builder.own_uid(path("ReferencedStudySequence", 0, "ReferencedSOPInstanceUID"), patient.study_uid)
    builder.place(path("ReferencedStudySequence", 0, "ReferencedSOPClassUID"), "1.2.840.10008.3.1.2.3.1")
    observed = path("SourcePatientGroupIdentificationSequence", 0)
    builder.identifier((*observed, tag("PatientID")), digits(rng, 9))
    deep = path("ProcedureCodeSequence", 0, "EquivalentCodeSequence", 0)
    builder.place((*deep, tag("CodeValue")), "P5-08000")
    builder.place((*deep, tag("CodeMeaning")), "Thorax")
    builder.expect(Category.TAG_RETAINED, (*deep, tag("CodeValue")), "P5-08000")
    person_path = path("PerformedProtocolCodeSequence", 0, "ProtocolContextSequence", 0, "PersonName")
    builder.identifier(person_path, person(rng))


# --------------------------------------------------------------------------------------------------- kinds of object


def _image(builder: Builder, images: list[Case]) -> None:
    """Write an image, some kinds with burned-in text, with a reference to an earlier object."""
    rng, modality = builder.rng, builder.modality
    colour = modality in ("US", "OT")
    bits = 8 if colour else 16
    rows, columns = (192, 256) if modality in _BURNED_IN else (64, 64)
    light = modality == "CR"
    pixels = noise(rng, rows, columns, bits=12 if bits == 16 else 8, samples=3 if colour else 1, light=light)
    if modality in _BURNED_IN:
        family = builder.patient.name.split("^")[0].upper()
        for line, text in enumerate((family, builder.patient.patient_id)):
            value = 0 if light else 255 if bits == 8 else 4000
            box, _ = burn(pixels, text, 6, 4 + 22 * line, size=16, value=value)
            builder.boxes.append(box)
        builder.filling("BurnedInAnnotation", "YES")
        builder.may_be_quarantined = True
        builder.expect(Category.PIXELS_HIDDEN, ())
        builder.expect(Category.PIXELS_RETAINED, ())
    # Fluoroscopy often has burned-in text: a policy may quarantine it even though this object has none.
    builder.may_be_quarantined |= modality == "RF"
    _pixel_module(builder, pixels, bits)
    if images:
        # PS3.15 Table E.1-1 removes other references from an image unless its IOD requires them.
        builder.reference(builder.path("ReferencedInstanceSequence", 0, "ReferencedSOPInstanceUID"), rng.choice(images))
    if modality == "PT":
        isotope = builder.path("RadiopharmaceuticalInformationSequence", 0)
        builder.day((*isotope, tag("RadiopharmaceuticalStartDateTime")), builder.patient.study_date)


def _pixel_module(builder: Builder, pixels: np.ndarray, bits: int) -> None:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    builder.plain("SamplesPerPixel", samples)
    builder.plain("PhotometricInterpretation", "RGB" if samples == 3 else "MONOCHROME2")
    if samples == 3:
        builder.plain("PlanarConfiguration", 0)
    builder.plain("Rows", pixels.shape[0])
    builder.plain("Columns", pixels.shape[1])
    builder.plain("BitsAllocated", bits)
    builder.plain("BitsStored", 8 if bits == 8 else 12)
    builder.plain("HighBit", 7 if bits == 8 else 11)
    builder.plain("PixelRepresentation", 0)
    builder.filling("ImageType", ["ORIGINAL", "PRIMARY"])
    builder.place(builder.path("PixelData"), pixels.tobytes(), "OB" if bits == 8 else "OW")
    if not builder.boxes:
        builder.expect(Category.PIXELS_RETAINED, ())


def _content(builder: Builder, number: int, value_type: str, concept: tuple[str, str]) -> Path:
    """Write one content item and return its path without the last part."""
    item = builder.path("ContentSequence", number)
    builder.place((*item, tag("RelationshipType")), "CONTAINS")
    builder.place((*item, tag("ValueType")), value_type)
    name = (*item, tag("ConceptNameCodeSequence"), 0)
    for keyword, value in (("CodeValue", concept[0]), ("CodingSchemeDesignator", "DCM"), ("CodeMeaning", concept[1])):
        builder.place((*name, tag(keyword)), value)
    return item


def _report(builder: Builder, images: list[Case]) -> None:
    """Write a content tree with names, dates, UIDs and findings."""
    patient, rng = builder.patient, builder.rng
    builder.may_be_quarantined = True
    builder.plain("ValueType", "CONTAINER")
    builder.plain("CompletionFlag", "COMPLETE")
    builder.plain("VerificationFlag", "UNVERIFIED")
    observer = _content(builder, 0, "PNAME", ("121008", "Person Observer Name"))
    builder.identifier((*observer, tag("PersonName")), patient.performing)
    finding = _content(builder, 1, "TEXT", ("121071", "Finding"))
    builder.sentence((*finding, tag("TextValue")), rng.choice(_WORDS), patient.name.split("^")[0])
    day = _content(builder, 2, "DATE", ("111060", "Study Date"))
    builder.day((*day, tag("Date")), patient.study_date)
    study = _content(builder, 3, "UIDREF", ("110180", "Study Instance UID"))
    builder.own_uid((*study, tag("UID")), patient.study_uid)
    if images:
        # PS3.15 Table E.3.4-1 retains this reference.
        image = _content(builder, 4, "IMAGE", ("121112", "Source of Measurement"))
        reference = (*image, tag("ReferencedSOPSequence"), 0, tag("ReferencedSOPInstanceUID"))
        builder.reference(reference, rng.choice(images))


def _presentation(builder: Builder, images: list[Case]) -> None:
    """Write a presentation state with a name in its annotation."""
    builder.may_be_quarantined = True
    builder.filling("ContentLabel", "ANNOTATION")
    builder.identifier(builder.path("ContentCreatorName"), builder.patient.operator)
    text = builder.path("GraphicAnnotationSequence", 0, "TextObjectSequence", 0, "UnformattedTextValue")
    builder.sentence(text, builder.rng.choice(_WORDS), builder.patient.name.split("^")[0])
    if images:
        series = builder.path("ReferencedSeriesSequence", 0)
        image = (*series, tag("ReferencedImageSequence"), 0, tag("ReferencedSOPInstanceUID"))
        builder.reference(image, builder.rng.choice(images))


def _structure_set(builder: Builder, images: list[Case]) -> None:
    """Write a radiotherapy object: labels, dates, names of structures, references."""
    builder.day(builder.path("StructureSetDate"), builder.patient.study_date)
    roi = builder.path("StructureSetROISequence", 0)
    builder.place((*roi, tag("ROINumber")), 1)
    builder.sentence((*roi, tag("ROIName")), "left lung", builder.patient.name.split("^")[0])
    builder.own_uid((*roi, tag("ReferencedFrameOfReferenceUID")), builder.patient.frame_of_reference_uid)
    if images:
        contour = builder.path("ROIContourSequence", 0, "ContourSequence", 0, "ContourImageSequence", 0)
        builder.reference((*contour, tag("ReferencedSOPInstanceUID")), builder.rng.choice(images))


def _plan(builder: Builder, images: list[Case]) -> None:
    """Write a radiotherapy plan."""
    builder.day(builder.path("RTPlanDate"), builder.patient.study_date)
    builder.filling("RTPlanLabel", "PLAN 1")
    builder.plain("RTPlanGeometry", "PATIENT")
    builder.identifier(builder.path("ReviewerName"), person(builder.rng))


def _waveform(builder: Builder, images: list[Case]) -> None:
    """Write an electrocardiogram's header with one short multiplex group."""
    group = builder.path("WaveformSequence", 0)
    builder.place((*group, tag("NumberOfWaveformChannels")), 1)
    builder.place((*group, tag("WaveformData")), builder.rng.randbytes(64), "OW")
    builder.expect(Category.TAG_RETAINED, (*group, tag("NumberOfWaveformChannels")), "1")
    note = builder.path("WaveformAnnotationSequence", 0, "UnformattedTextValue")
    builder.sentence(note, builder.rng.choice(_WORDS), builder.patient.name.split("^")[0])


def _document(builder: Builder, images: list[Case]) -> None:
    """Write an encapsulated document, which cannot be cleaned and should be quarantined."""
    builder.may_be_quarantined = True
    builder.filling("MIMETypeOfEncapsulatedDocument", "application/pdf")
    text = f"%PDF-1.4 % report for {builder.patient.name} {word(builder.rng)}".encode()
    builder.place(builder.path("EncapsulatedDocument"), text + b" " * (len(text) % 2), "OB")


_KINDS: dict[str, Callable[[Builder, list[Case]], None]] = {
    "SR": _report,
    "KO": _report,
    "PR": _presentation,
    "RTSTRUCT": _structure_set,
    "RTPLAN": _plan,
    "ECG": _waveform,
    "DOC": _document,
}
