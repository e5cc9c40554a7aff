"""DICOM objects as scanners write them, made from a seed, in every encoding.

The encoder here is written from PS3.5 sections 6 and 7 alone and shares no code with the engine or with pydicom, so
that tests compare three readings of the standard. Identifiers are random; the structure (elements, nesting, private
blocks) is what CT, MR and reporting systems of the large vendors send.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_deid.score.identity import Patient, digits, person, uid, word

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
SECRET = "Zimmerwald^Ottokar"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"
NATIVE_SYNTAXES = (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE)

LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "AT": "HH", "UV": "Q", "SV": "q"}
_WORD = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
UNDEFINED = 0xFFFFFFFF


class Element(NamedTuple):
    """One element: `value` is text, a number, a list of those, bytes (little endian words), or items for SQ."""

    tag: int
    vr: str
    value: Any


Items = Sequence[Sequence[Element]]


def element(keyword: str, value: Any, vr: str | None = None) -> Element:
    """Return the element that a keyword of the dictionary names."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return Element(tag, vr or dictionary_VR(tag).split(" ")[0], value)


@dataclass(frozen=True)
class Encoding:
    """Encoding of elements: transfer syntax, length form of sequences and items, and Python codec of text."""

    transfer_syntax: str = EXPLICIT_LE
    sequences: Literal["defined", "undefined"] = "undefined"
    items: Literal["defined", "undefined"] = "undefined"
    codec: str = "latin-1"
    group_lengths: bool = False

    @property
    def explicit(self) -> bool:
        return self.transfer_syntax != IMPLICIT_LE

    @property
    def order(self) -> Literal["<", ">"]:
        return ">" if self.transfer_syntax == EXPLICIT_BE else "<"


def all_encodings(codec: str = "latin-1") -> Iterator[Encoding]:
    """Every native transfer syntax in every length form."""
    for syntax in NATIVE_SYNTAXES:
        for sequences in ("defined", "undefined"):
            for items in ("defined", "undefined"):
                yield Encoding(syntax, sequences, items, codec)


def encode(elements: Iterable[Element], encoding: Encoding) -> bytes:
    """Return the encoded data set (not deflated), in ascending tag order."""
    ordered = sorted(elements, key=lambda e: e.tag)
    if not encoding.group_lengths:
        return b"".join(_encode_element(e, encoding) for e in ordered)
    parts = []
    for group in sorted({e.tag >> 16 for e in ordered}):
        body = b"".join(_encode_element(e, encoding) for e in ordered if e.tag >> 16 == group)
        parts.append(_encode_element(Element(group << 16, "UL", len(body)), encoding) + body)
    return b"".join(parts)


def _encode_element(e: Element, encoding: Encoding) -> bytes:
    if e.vr == "SQ":
        value = _encode_items(e.value, encoding)
        undefined = encoding.sequences == "undefined"
        delimiter = struct.pack(encoding.order + "HHI", 0xFFFE, 0xE0DD, 0) if undefined else b""
        return _header(e, UNDEFINED if undefined else len(value), encoding) + value + delimiter
    if e.tag == 0x7FE00010 and isinstance(e.value, tuple):
        return _header(e, UNDEFINED, encoding) + _fragments(e.value)
    value = encode_value(e, encoding)
    return _header(e, len(value), encoding) + value


def _encode_items(items: Items, encoding: Encoding) -> bytes:
    undefined = encoding.items == "undefined"
    parts = []
    for item in items:
        body = encode(item, Encoding(**{**encoding.__dict__, "group_lengths": False}))
        length = UNDEFINED if undefined else len(body)
        parts.append(struct.pack(encoding.order + "HHI", 0xFFFE, 0xE000, length) + body)
        if undefined:
            parts.append(struct.pack(encoding.order + "HHI", 0xFFFE, 0xE00D, 0))
    return b"".join(parts)


def _fragments(fragments: Sequence[bytes]) -> bytes:
    parts = [struct.pack("<HHI", 0xFFFE, 0xE000, len(f)) + f for f in (b"", *fragments)]
    return b"".join(parts) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _header(e: Element, length: int, encoding: Encoding) -> bytes:
    order = encoding.order
    tag = struct.pack(order + "HH", e.tag >> 16, e.tag & 0xFFFF)
    if not encoding.explicit:
        return tag + struct.pack("<I", length)
    if e.vr in LONG_VRS:
        return tag + e.vr.encode() + b"\0\0" + struct.pack(order + "I", length)
    return tag + e.vr.encode() + struct.pack(order + "H", length)


def encode_value(e: Element, encoding: Encoding) -> bytes:
    """Return the value field of an element that is no sequence, padded to even length."""
    if isinstance(e.value, bytes | bytearray | memoryview):
        return _swap(bytes(e.value), e.vr, encoding)
    values = e.value if isinstance(e.value, list | tuple) else [e.value]
    if e.vr in _BINARY:
        pack = struct.Struct(encoding.order + _BINARY[e.vr]).pack
        return b"".join(pack(v >> 16, v & 0xFFFF) if e.vr == "AT" else pack(v) for v in values)
    codec = encoding.codec if e.vr in ("PN", "LO", "SH", "LT", "ST", "UC", "UT") else "ascii"
    value = "\\".join(str(v) for v in values).encode(codec)
    return value + (b"\0" if e.vr == "UI" else b" ") * (len(value) % 2)


def _swap(value: bytes, vr: str, encoding: Encoding) -> bytes:
    value += b"\0" * (len(value) % 2)
    size = _WORD.get(vr, 1)
    if encoding.order == "<" or size == 1:
        return value
    swapped = bytearray(len(value))
    for i in range(size):
        swapped[i::size] = value[size - 1 - i :: size]
    return bytes(swapped)


def part10(
    elements: Sequence[Element],
    encoding: Encoding = Encoding(),
    *,
    preamble: bytes = bytes(128),
    meta: Sequence[Element] = (),
    complete: bool = True,
) -> bytes:
    """Return a whole object: preamble, file meta information (PS3.10 section 7.1), more of it, and data set.

    Study and Series Instance UID, without which no object is valid, are added unless `complete` is false.
    """
    if complete:
        there = {e.tag for e in elements}
        uids = (element("StudyInstanceUID", "1.2.3.99"), element("SeriesInstanceUID", "1.2.3.99.1"))
        elements = [*elements, *(uid for uid in uids if uid.tag not in there)]
    body = encode(elements, encoding)
    if encoding.transfer_syntax == DEFLATED_LE:
        deflate = zlib.compressobj(wbits=-15)
        body = deflate.compress(body) + deflate.flush()
        body += b"\0" * (len(body) % 2)
    values = {e.tag: e.value for e in elements}
    meta = [
        Element(0x00020001, "OB", b"\0\1"),
        Element(0x00020002, "UI", values.get(0x00080016, RAW_DATA)),
        Element(0x00020003, "UI", values.get(0x00080018, "1.2.3")),
        Element(0x00020010, "UI", encoding.transfer_syntax),
        Element(0x00020012, "UI", "1.3.12.2.1107.5.99.3.20080101"),
        Element(0x00020013, "SH", "SCANNER VB42"),
        Element(0x00020016, "AE", "SCANNER"),
        *meta,
    ]
    encoded = encode(meta, Encoding())
    return preamble + b"DICM" + encode([Element(0x00020000, "UL", len(encoded))], Encoding()) + encoded + body


# --------------------------------------------------------------------------------------------------------------- parts


def code(value: str, scheme: str, meaning: str) -> list[Element]:
    """Return a code item (PS3.3 section 8.8)."""
    return [element("CodeValue", value), element("CodingSchemeDesignator", scheme), element("CodeMeaning", meaning)]


def reference(sop_class: str, instance: str) -> list[Element]:
    """Return an item that refers to one instance."""
    return [element("ReferencedSOPClassUID", sop_class), element("ReferencedSOPInstanceUID", instance)]


def patient_and_study(rng: random.Random, patient: Patient, sop_class: str, modality: str) -> list[Element]:
    """Return the patient, study, series and equipment modules that every image of a scanner has."""
    day = patient.study_date.strftime("%Y%m%d")
    other = patient.study_date.replace(year=patient.study_date.year - 1, day=3).strftime("%Y%m%d")
    return [
        element("SpecificCharacterSet", "ISO_IR 100"),
        element("InstanceCreationDate", day),
        element("InstanceCreationTime", "101502.125000"),
        element("SOPClassUID", sop_class),
        element("SOPInstanceUID", uid(rng)),
        element("StudyDate", day),
        element("SeriesDate", day),
        element("AcquisitionDate", day),
        element("ContentDate", day),
        element("AcquisitionDateTime", f"{day}101455.250000"),
        element("StudyTime", "100911.000000"),
        element("SeriesTime", "101401.750000"),
        element("AcquisitionTime", "101455.250000"),
        element("ContentTime", "101455.250000"),
        element("AccessionNumber", patient.accession_number),
        element("Modality", modality),
        element("InstitutionName", patient.institution),
        element("InstitutionAddress", patient.address),
        element("ReferringPhysicianName", patient.referring),
        element("StationName", patient.station),
        element("StudyDescription", "Thorax^Routine (Adult)"),
        element("ProcedureCodeSequence", [code("CTTHX", "99LOCAL", "CT thorax")]),
        element("SeriesDescription", "Thorax 3.0 axial"),
        element("InstitutionalDepartmentName", "Radiology"),
        element("PhysiciansOfRecord", patient.referring),
        element("PerformingPhysicianName", patient.performing),
        element("OperatorsName", [patient.operator, person(rng)]),
        element("ReferencedStudySequence", [reference("1.2.840.10008.3.1.2.3.1", patient.study_uid)]),
        element("ReferencedPerformedProcedureStepSequence", [reference("1.2.840.10008.3.1.2.3.3", uid(rng))]),
        element("PatientName", patient.name),
        element("PatientID", patient.patient_id),
        element("IssuerOfPatientID", word(rng)),
        element("PatientBirthDate", patient.birth_date.strftime("%Y%m%d")),
        element("PatientSex", rng.choice("FM")),
        element("OtherPatientIDs", patient.other_id),
        element(
            "OtherPatientIDsSequence", [[element("PatientID", patient.other_id), element("TypeOfPatientID", "TEXT")]]
        ),
        element("PatientAge", "061Y"),
        element("PatientSize", "1.75"),
        element("PatientWeight", "80"),
        element("PatientAddress", patient.address),
        element("PatientTelephoneNumbers", patient.telephone),
        element("AdditionalPatientHistory", f"Seen before on {other}"),
        element("BodyPartExamined", "CHEST"),
        element("DeviceSerialNumber", patient.serial_number),
        element("SoftwareVersions", ["syngo CT", "VB42"]),
        element("ProtocolName", "Thorax Routine"),
        element("PatientPosition", "HFS"),
        element("StudyInstanceUID", patient.study_uid),
        element("SeriesInstanceUID", uid(rng)),
        element("StudyID", patient.study_id),
        element("SeriesNumber", 3),
        element("AcquisitionNumber", 1),
        element("InstanceNumber", rng.randrange(1, 900)),
        element("FrameOfReferenceUID", patient.frame_of_reference_uid),
        element("RequestingPhysician", patient.referring),
        element("RequestedProcedureDescription", "CT thorax with contrast"),
        element("PerformedProcedureStepStartDate", day),
        element("PerformedProcedureStepStartTime", "100911.000000"),
        element("PerformedProcedureStepID", digits(rng, 8)),
        element("PerformedProcedureStepDescription", "CT thorax"),
        element(
            "RequestAttributesSequence",
            [
                [
                    element("RequestedProcedureDescription", "CT thorax"),
                    element("ScheduledProcedureStepDescription", "CT thorax"),
                    element("ScheduledProcedureStepID", digits(rng, 8)),
                    element("RequestedProcedureID", digits(rng, 8)),
                    element("ScheduledProtocolCodeSequence", [code("THX", "99LOCAL", "Thorax routine")]),
                ]
            ],
        ),
    ]


def image_pixel(rng: random.Random, rows: int, columns: int, frames: int = 1) -> list[Element]:
    """Return the image pixel module with 16-bit noise."""
    return [
        element("SamplesPerPixel", 1),
        element("PhotometricInterpretation", "MONOCHROME2"),
        element("Rows", rows),
        element("Columns", columns),
        element("PixelSpacing", ["0.7421875", "0.7421875"]),
        element("BitsAllocated", 16),
        element("BitsStored", 12),
        element("HighBit", 11),
        element("PixelRepresentation", 0),
        element("SmallestImagePixelValue", 0, "US"),
        element("LargestImagePixelValue", 4095, "US"),
        element("WindowCenter", ["40", "-600"]),
        element("WindowWidth", ["400", "1200"]),
        element("PixelData", rng.randbytes(rows * columns * 2 * frames), "OW"),
    ]


def siemens_block(rng: random.Random, patient: Patient) -> list[Element]:
    """Return private blocks in the manner of one vendor, the patient's name among them."""
    header = b"SV10\4\3\2\1" + struct.pack("<II", 24, 77) + rng.randbytes(900)
    return [
        Element(0x00090010, "LO", "SIEMENS CT VA1 DUMMY"),
        Element(0x00091010, "LO", "Volume zoom"),
        Element(0x00091011, "SH", patient.patient_id),
        Element(0x00190010, "LO", "SIEMENS CT VA0  COAD"),
        Element(0x001910B0, "DS", "165"),
        Element(0x001910B1, "IS", 0),
        Element(0x00290010, "LO", "SIEMENS CSA HEADER"),
        Element(0x00290011, "LO", "SIEMENS MEDCOM HEADER"),
        Element(0x00291008, "CS", "CT NUM 4"),
        Element(0x00291009, "LO", "VB42"),
        Element(0x00291010, "OB", header + patient.name.encode("latin-1") + b"\0"),
        Element(0x00291131, "LO", "MED 2.1"),
        Element(
            0x00291140, "SQ", [[Element(0x00290010, "LO", "SIEMENS MEDCOM HEADER"), Element(0x00291041, "CS", "X")]]
        ),
    ]


def ge_block(rng: random.Random, patient: Patient) -> list[Element]:
    """Return private blocks in the manner of another vendor: some are safe by PS3.15 Table E.3.10-1."""
    return [
        Element(0x00090010, "LO", "GEMS_IDEN_01"),
        Element(0x00091001, "LO", "GE_GENESIS_FF"),
        Element(0x00091002, "SH", "CT01"),
        Element(0x00091027, "SL", 1356602400 + rng.randrange(10**7)),
        Element(0x00190010, "LO", "GEMS_ACQU_01"),
        Element(0x00191002, "SL", 888),
        Element(0x00191023, "DS", "27.500000"),
        Element(0x00191024, "DS", "11.281"),
        Element(0x00191027, "DS", "0.800000"),
        Element(0x00430010, "LO", "GEMS_PARM_01"),
        Element(0x00431010, "US", 400),
        Element(0x00431027, "SH", "/1.375:1"),
        Element(0x00431029, "OB", rng.randbytes(240)),
        Element(0x0043102A, "OB", b"operator " + patient.operator.encode("latin-1")),
    ]


def philips_block(rng: random.Random, patient: Patient) -> list[Element]:
    """Return private blocks in the manner of a third vendor, with a private sequence."""
    return [
        Element(0x20010010, "LO", "Philips Imaging DD 001"),
        Element(0x20011001, "FL", 0.0),
        Element(0x20011003, "FL", 1000.0),
        Element(0x20011008, "IS", 1),
        Element(
            0x2001105F, "SQ", [[Element(0x20010010, "LO", "Philips Imaging DD 001"), Element(0x2001102D, "SS", 40)]]
        ),
        Element(0x20050010, "LO", "Philips MR Imaging DD 001"),
        Element(0x20051070, "LO", patient.operator),
        Element(0x20051080, "SQ", []),
        Element(0x200510A0, "FL", rng.random()),
    ]


# ------------------------------------------------------------------------------------------------------------- objects


def ct_elements(seed: int, *, rows: int = 512, columns: int = 512, patient: Patient | None = None) -> list[Element]:
    """Return a CT slice: 147 elements in all, nested ones and private ones included."""
    rng = random.Random(seed)
    patient = patient or Patient.draw(rng)
    return [
        *patient_and_study(rng, patient, CT_IMAGE, "CT"),
        element("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]),
        element("Manufacturer", "SIEMENS"),
        element("ManufacturerModelName", "SOMATOM Definition AS+"),
        element("ContrastBolusAgent", "Ultravist"),
        element("ScanOptions", "SPIRAL"),
        element("SliceThickness", "3"),
        element("KVP", "120"),
        element("DataCollectionDiameter", "500"),
        element("ReconstructionDiameter", "380"),
        element("DistanceSourceToDetector", "1085.6"),
        element("DistanceSourceToPatient", "595"),
        element("GantryDetectorTilt", "0"),
        element("TableHeight", "171.5"),
        element("RotationDirection", "CW"),
        element("ExposureTime", 500),
        element("XRayTubeCurrent", 177),
        element("Exposure", 96),
        element("FilterType", "FLAT"),
        element("GeneratorPower", 21),
        element("FocalSpots", "1.2"),
        element("DateOfLastCalibration", patient.study_date.strftime("%Y%m%d")),
        element("TimeOfLastCalibration", "074500.000000"),
        element("ConvolutionKernel", "I30f"),
        element("ImagePositionPatient", ["-190.0", "-361.5", "-1201.5"]),
        element("ImageOrientationPatient", ["1", "0", "0", "0", "1", "0"]),
        element("PositionReferenceIndicator", ""),
        element("SliceLocation", "-1201.5"),
        element("ImageComments", ""),
        element("RescaleIntercept", "-1024"),
        element("RescaleSlope", "1"),
        element("ReferencedImageSequence", [reference(CT_IMAGE, uid(rng)), reference(CT_IMAGE, uid(rng))]),
        element("SourceImageSequence", [reference(CT_IMAGE, uid(rng))]),
        element("ExposureModulationType", "XYZ_EC"),
        element("CTDIvol", 6.48),
        *siemens_block(rng, patient),
        *image_pixel(rng, rows, columns),
    ]


def mr_elements(seed: int, *, rows: int = 256, columns: int = 256, patient: Patient | None = None) -> list[Element]:
    """Return an MR slice with two vendors' private blocks."""
    rng = random.Random(seed)
    patient = patient or Patient.draw(rng)
    return [
        *patient_and_study(rng, patient, MR_IMAGE, "MR"),
        element("ImageType", ["ORIGINAL", "PRIMARY", "M", "SE"]),
        element("Manufacturer", "GE MEDICAL SYSTEMS"),
        element("ScanningSequence", "SE"),
        element("SequenceVariant", ["SK", "SP"]),
        element("MRAcquisitionType", "2D"),
        element("SequenceName", "*se2d1"),
        element("SliceThickness", "5"),
        element("RepetitionTime", "500"),
        element("EchoTime", "15"),
        element("NumberOfAverages", "1"),
        element("ImagingFrequency", "63.86"),
        element("EchoNumbers", 1),
        element("MagneticFieldStrength", "1.5"),
        element("FlipAngle", "90"),
        element("SpacingBetweenSlices", "6"),
        element("ImagePositionPatient", ["-120", "-120", "4.5"]),
        element("ImageOrientationPatient", ["1", "0", "0", "0", "1", "0"]),
        *ge_block(rng, patient),
        *philips_block(rng, patient),
        *image_pixel(rng, rows, columns),
    ]


def enhanced_mr_elements(seed: int, *, frames: int = 40, rows: int = 64, columns: int = 64) -> list[Element]:
    """Return an enhanced multi-frame image: functional groups, nested three deep, for every frame."""
    rng = random.Random(seed)
    patient = Patient.draw(rng)
    day = patient.study_date.strftime("%Y%m%d")
    per_frame = [
        [
            element(
                "FrameContentSequence",
                [
                    [
                        element("FrameAcquisitionDateTime", f"{day}1015{n % 60:02d}.000000"),
                        element("FrameReferenceDateTime", f"{day}1015{n % 60:02d}.000000"),
                        element("FrameAcquisitionDuration", 12.5),
                        element("DimensionIndexValues", [1, n + 1]),
                    ]
                ],
            ),
            element("PlanePositionSequence", [[element("ImagePositionPatient", ["0", "0", str(n * 3)])]]),
            element(
                "ReferencedImageSequence",
                [
                    [
                        *reference(MR_IMAGE, uid(rng)),
                        element("PurposeOfReferenceCodeSequence", [code("121311", "DCM", "Localizer")]),
                    ]
                ],
            ),
        ]
        for n in range(frames)
    ]
    return [
        *patient_and_study(rng, patient, ENHANCED_MR_IMAGE, "MR"),
        element("ImageType", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
        element("NumberOfFrames", frames),
        element(
            "SharedFunctionalGroupsSequence",
            [
                [
                    element(
                        "PlaneOrientationSequence",
                        [[element("ImageOrientationPatient", ["1", "0", "0", "0", "1", "0"])]],
                    )
                ]
            ],
        ),
        element("PerFrameFunctionalGroupsSequence", per_frame),
        *philips_block(rng, patient),
        *image_pixel(rng, rows, columns, frames),
    ]


def content_item(value_type: str, concept: list[Element], value: list[Element], children: Items = ()) -> list[Element]:
    """Return one item of an SR content tree (PS3.3 section C.17.3)."""
    item = [
        element("RelationshipType", "CONTAINS"),
        element("ValueType", value_type),
        element("ConceptNameCodeSequence", [concept]),
        *value,
    ]
    return [*item, element("ContentSequence", children)] if children else item


def sr_elements(seed: int, *, findings: int = 8) -> list[Element]:
    """Return a structured report with names, dates and references in its content tree."""
    rng = random.Random(seed)
    patient = Patient.draw(rng)
    day = patient.study_date.strftime("%Y%m%d")
    tree: list[list[Element]] = [
        content_item(
            "PNAME", code("121008", "DCM", "Person Observer Name"), [element("PersonName", patient.performing)]
        ),
        content_item("DATE", code("111060", "DCM", "Study Date"), [element("Date", day)]),
        content_item("UIDREF", code("110180", "DCM", "Study Instance UID"), [element("UID", patient.study_uid)]),
    ]
    for _ in range(findings):
        image = content_item(
            "IMAGE",
            code("121200", "DCM", "Illustration of ROI"),
            [element("ReferencedSOPSequence", [reference(CT_IMAGE, uid(rng))])],
        )
        tree.append(
            content_item(
                "CONTAINER",
                code("121070", "DCM", "Findings"),
                [element("ContinuityOfContent", "SEPARATE")],
                [
                    content_item(
                        "TEXT",
                        code("121071", "DCM", "Finding"),
                        [element("TextValue", f"{patient.name.split('^')[0]}: no change")],
                    ),
                    image,
                ],
            )
        )
    return [
        *patient_and_study(rng, patient, COMPREHENSIVE_SR, "SR"),
        element("Manufacturer", "Reporting"),
        element("ValueType", "CONTAINER"),
        element("ConceptNameCodeSequence", [code("18748-4", "LN", "Diagnostic Imaging Report")]),
        element("ContinuityOfContent", "SEPARATE"),
        element("ContentSequence", tree),
        element("CompletionFlag", "COMPLETE"),
        element("VerificationFlag", "VERIFIED"),
        element(
            "VerifyingObserverSequence",
            [[element("VerifyingObserverName", patient.performing), element("VerificationDateTime", f"{day}120000")]],
        ),
    ]


def nested_elements(seed: int, count: int, *, depth: int = 4) -> list[Element]:
    """Return an object of about `count` elements, nearly all of them in nested items `depth` deep."""
    rng = random.Random(seed)
    patient = Patient.draw(rng)
    day = patient.study_date.strftime("%Y%m%d")

    def leaf() -> list[Element]:
        return [
            element("StudyDate", day),
            element("InstitutionName", patient.institution),
            *reference(CT_IMAGE, uid(rng)),
            element("PatientName", patient.name),
            element("SliceThickness", "3"),
            element("Rows", 512),
            element("ImageComments", "as before"),
        ]

    items = [leaf() for _ in range(max(1, count // 8))]
    for _ in range(depth - 1):
        grouped = [items[i : i + 16] for i in range(0, len(items), 16)]
        items = [[element("ReferencedSeriesSequence", group)] for group in grouped]
    return [
        *patient_and_study(rng, patient, RAW_DATA, "OT"),
        element("ReferencedSeriesSequence", items),
    ]


def count_elements(elements: Sequence[Element]) -> int:
    """Return the number of elements, those in items included."""
    nested = sum(count_elements(item) for e in elements if e.vr == "SQ" for item in e.value)
    return len(elements) + nested


CHARACTER_SETS = {
    "ISO_IR 100": ("latin-1", "Müller^Jörg"),
    "ISO_IR 101": ("iso8859_2", "Dvořák^Jiří"),
    "ISO_IR 144": ("iso8859_5", "Иванов^Пётр"),
    "ISO_IR 126": ("iso8859_7", "Διονυσιος^Α"),
    "ISO_IR 127": ("iso8859_6", "قباني^لنزار"),
    "ISO_IR 138": ("iso8859_8", "שרון^דבורה"),
    "ISO_IR 148": ("iso8859_9", "Çavuşoğlu^Işıl"),
    "ISO_IR 166": ("iso8859_11", "นามสกุล^ชื่อ"),
    "ISO_IR 13": ("shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "ISO_IR 192": ("utf-8", "Wang^XiaoDong=王^小東"),
    "GB18030": ("gb18030", "Wang^XiaoDong=王^小东"),
    "GBK": ("gbk", "Wang^XiaoDong=王^小东"),
}


def with_character_set(elements: Sequence[Element], term: str) -> tuple[list[Element], str]:
    """Return the elements with the character set and a name written in it, and the codec to encode them with."""
    codec, name = CHARACTER_SETS[term]
    changed = {0x00080005: term, 0x00100010: name}
    return [e._replace(value=changed[e.tag]) if e.tag in changed else e for e in elements], codec


KINDS = {"ct": ct_elements, "mr": mr_elements, "enhanced-mr": enhanced_mr_elements, "sr": sr_elements}


def ct(seed: int, encoding: Encoding = Encoding(), **changes: Any) -> bytes:
    """Return a CT object, ready to be stored."""
    return part10(ct_elements(seed, **changes), encoding)


def series(kind: str, seed: int, count: int) -> Iterator[list[Element]]:
    """Yield the objects of one series: what differs is what a scanner writes anew for each image."""
    for number, rng in enumerate((random.Random(seed + n) for n in range(count)), 1):
        time = f"1014{number // 60 % 60:02d}.{rng.randrange(10**6):06d}"
        of_instance = {
            "SOPInstanceUID": uid(rng),
            "InstanceNumber": number,
            "InstanceCreationTime": time,
            "AcquisitionTime": time,
            "ContentTime": time,
            "ImagePositionPatient": ["-190.0", "-361.5", str(-1201.5 + number * 3)],
            "SliceLocation": str(-1201.5 + number * 3),
            "XRayTubeCurrent": rng.randrange(150, 200),
            "Exposure": rng.randrange(80, 99),
            "SmallestImagePixelValue": rng.randrange(90),
            "LargestImagePixelValue": rng.randrange(2000, 4095),
        }
        changed = {tag_for_keyword(keyword): value for keyword, value in of_instance.items()}
        csa = {0x00291010: b"SV10" + rng.randbytes(900)}
        yield [
            one._replace(value=(changed | csa)[one.tag]) if one.tag in changed or one.tag in csa else one
            for one in KINDS[kind](seed)
        ]


def an_object(*extra: Element, without: tuple[int, ...] = (), encoding: Encoding = Encoding()) -> bytes:
    """Return a small CT image of the patient `SECRET`, with more elements or others in place of its own."""
    kept = [
        element("SOPClassUID", CT_IMAGE),
        element("SOPInstanceUID", "1.2.3.4.5"),
        element("StudyInstanceUID", "1.2.3.4"),
        element("Modality", "CT"),
        element("PatientName", SECRET),
        element("PatientID", "PID991234"),
        *image_pixel(random.Random(1), 4, 4),
    ]
    replaced = {e.tag for e in extra}
    return part10([*(e for e in kept if e.tag not in replaced and e.tag not in without), *extra], encoding)
