"""Assess whether pixels or documents may identify the patient, and apply the policies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from dicom_deid.engine.pixels.filters import FilterMatch
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Filter

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_VIDEO_SYNTAXES = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")
_VIDEO_CLASSES = frozenset(_STORAGE + last for last in ("77.1.1.1", "77.1.2.1", "77.1.4.1"))

CLEAN_CLASSES = {
    _STORAGE + last: kind
    for kind, lasts in {
        "CR": ("1",),
        "DX": ("1.1", "1.1.1"),
        "MG": ("1.2", "1.2.1", "13.1.3", "13.1.4", "13.1.5"),
        "IO": ("1.3", "1.3.1"),
        "CT": ("2", "2.1", "2.2"),
        "MR": ("4", "4.1", "4.3", "4.4"),
        "NM": ("20",),
        "PT": ("128", "128.1", "130"),
        "XA, computed": ("13.1.1", "13.1.2"),
        "whole slide": ("77.1.6",),
        "parametric map": ("30",),
        "segmentation": ("66.4", "66.7"),
        "RT": ("481.1", "481.2"),
    }.items()
    for last in lasts
}
"""SOP classes whose pixels the device acquires or computes without text. Any other class is at risk."""

CLEAN_MODALITIES = frozenset({"CR", "CT", "DX", "IO", "MG", "MR", "NM", "PT", "PX", "RTDOSE", "RTIMAGE", "SEG", "SM"})
"""Values of Modality (PS3.3 section C.7.3.1.1.1) of such pixels. Any other value is at risk."""

_GREY_KINDS = frozenset({"CR", "CT", "DX", "IO", "MG", "PT", "RT", "XA, computed", "parametric map"})
_GREY = ("MONOCHROME1", "MONOCHROME2")
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT"})
_RT_DOSE = _STORAGE + "481.2"
_CLEAN_CONVERSIONS = frozenset({"DI", "SYN", "WSD"})

RISKY_IMAGE_TYPE_WORDS = frozenset(
    {"CAPTURE", "CAPTURED", "DEMOGRAPHICDATA", "DIGITISED", "DIGITIZED", "DOC", "DOCUMENT", "DOSE", "FILM", "INVALID"}
    | {"MRSC", "PASTED", "PATIENTINFO", "PROCESSED", "PROT", "REPORT", "REPORTDATA", "SAVE", "SAVED", "SCAN", "SCANNED"}
    | {"SCREEN", "SCREENSHOT"}
)
"""Words that devices write into ImageType of screen shots, dose pages, scans and similar images."""

RISKY_DESCRIPTIONS = (
    "DOSE REPORT",
    "DOSE INFO",
    "PATIENT PROTOCOL",
    "SAVE",
    "SCREEN CAPTURE",
    "SCREENSHOT",
    "SECONDARY CAPTURE",
    "SCANNED",
    "NOMINATION FORM",
    "OUTSIDE HOSPITAL",
)
"""Phrases in SeriesDescription of such images."""

_FIELDS = {
    0x00080008: ("ImageType", "image_type"),
    0x0008103E: ("SeriesDescription", "series_description"),
    0x00080064: ("ConversionType", "conversion_type"),
    0x00181012: ("DateOfSecondaryCapture", "secondary_capture_date"),
    0x00181016: ("SecondaryCaptureDeviceManufacturer", "secondary_capture_manufacturer"),
    0x00181018: ("SecondaryCaptureDeviceManufacturerModelName", "secondary_capture_model"),
    0x00181019: ("SecondaryCaptureDeviceSoftwareVersions", "secondary_capture_software"),
    0x00280004: ("PhotometricInterpretation", "photometric_interpretation"),
    0x00280301: ("BurnedInAnnotation", "burned_in_annotation"),
    0x00280302: ("RecognizableVisualFeatures", "recognizable_visual_features"),
    0x00480010: ("SpecimenLabelInImage", "specimen_label_in_image"),
}
FACTS = {tag: keyword for tag, (keyword, _) in _FIELDS.items()}
"""Root elements that the risk depends on, in addition to the identifiers that every walk captures."""


class ObjectFacts(NamedTuple):
    r"""Header values that the risk depends on, as text; empty if missing, components joined by a backslash."""

    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    has_pixel_data: bool = False
    modality: str = ""
    image_type: str = ""
    conversion_type: str = ""
    burned_in_annotation: str = ""
    recognizable_visual_features: str = ""
    series_description: str = ""
    secondary_capture_date: str = ""
    secondary_capture_manufacturer: str = ""
    secondary_capture_model: str = ""
    secondary_capture_software: str = ""
    specimen_label_in_image: str = ""
    photometric_interpretation: str = ""

    @classmethod
    def of(
        cls, text: Callable[[str], str], transfer_syntax_uid: str = "", *, has_pixel_data: bool = True
    ) -> ObjectFacts:
        """Return the facts of an object, given its root elements as text by keyword."""
        return cls(
            text("SOPClassUID"),
            transfer_syntax_uid,
            has_pixel_data,
            text("Modality"),
            **{field: text(keyword) for keyword, field in _FIELDS.values()},
        )


class Risk(NamedTuple):
    """Why pixels may identify the patient.

    Parameters
    ----------
    reason
        The reason code.
    detail
        The element and what about it; never a value of the object, except a word of the lists above.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class PixelDecision:
    """The action for an object's pixels.

    Parameters
    ----------
    clean
        Whether to blank the regions of the filters.
    find_text
        Whether to search text in the pixels and blank it, see `TextFinder`.
    check
        Whether what the filters leave visible is searched because they clear the object: text holds it, unless
        `find_text` blanks it.
    allowed
        A risk that the policy allows, recorded in the audit.
    """

    clean: bool = False
    find_text: bool = False
    check: bool = False
    allowed: Reason | None = None


def is_video(transfer_syntax_uid: str) -> bool:
    """Return whether a transfer syntax is a video stream (MPEG-2, MPEG-4, HEVC, SMPTE ST 2110)."""
    return transfer_syntax_uid.startswith(_VIDEO_SYNTAXES)


@lru_cache(maxsize=4096)
def pixel_risk(facts: ObjectFacts) -> Risk | None:
    """Return why the pixels of an object may identify the patient, or None.

    Only known kinds of images are not at risk; an unknown or private SOP class is. BurnedInAnnotation NO does not
    clear an object of another kind: devices write it without checking.
    """
    if not facts.has_pixel_data:
        return None
    if is_video(facts.transfer_syntax_uid):
        return Risk(Reason.VIDEO, "(0002,0010) TransferSyntaxUID is a video stream")
    if facts.sop_class_uid in _VIDEO_CLASSES:
        return Risk(Reason.VIDEO, "(0008,0016) SOPClassUID is a video class")
    if _says_yes(facts.recognizable_visual_features):
        return Risk(Reason.RECOGNIZABLE_VISUAL_FEATURES, "(0028,0302) RecognizableVisualFeatures is not NO")
    if _says_yes(facts.burned_in_annotation):
        return Risk(Reason.BURNED_IN_ANNOTATION, "(0028,0301) BurnedInAnnotation is not NO")
    detail = next((found for test in _KIND_TESTS if (found := test(facts))), "")
    return Risk(Reason.PIXEL_RISK, detail) if detail else None


def _says_yes(value: str) -> bool:
    return value.strip().upper() not in ("", "NO", "N")


def _class_risk(facts: ObjectFacts) -> str:
    if facts.sop_class_uid in CLEAN_CLASSES:
        return ""
    return "(0008,0016) SOPClassUID is not a kind of image that is known to be without text"


def _modality_risk(facts: ObjectFacts) -> str:
    if facts.modality.strip().upper() in CLEAN_MODALITIES:
        return ""
    return "(0008,0060) Modality is not one that is known to be without text"


def _image_type_risk(facts: ObjectFacts) -> str:
    image_type = facts.image_type.strip().upper()
    if not image_type:
        return "" if facts.sop_class_uid == _RT_DOSE else "(0008,0008) ImageType is missing"
    words = set(re.split(r"[^A-Z0-9]+", image_type))
    risky = sorted(words & RISKY_IMAGE_TYPE_WORDS - ({"DOSE"} if facts.sop_class_uid == _RT_DOSE else set()))
    if risky:
        return f"(0008,0008) ImageType has the word {risky[0]}"
    components = [component.strip() for component in image_type.split("\\")]
    if facts.modality.strip().upper() in _CROSS_SECTIONAL and "DERIVED" in words:
        # PS3.3 sections C.8.2.1.1.1 and C.8.3.1.1.1 require value 3; derived localizers show the planned planes.
        if len(components) < 3 or not components[2]:
            return "(0008,0008) ImageType is DERIVED and has no value 3"
        if components[2] == "LOCALIZER":
            return "(0008,0008) ImageType is a derived LOCALIZER"
    if facts.modality.strip().upper() == "MG" and "SECONDARY" in words:
        return "(0008,0008) ImageType of a mammogram is SECONDARY, as of digitised film"
    return ""


def _conversion_risk(facts: ObjectFacts) -> str:
    conversion = facts.conversion_type.strip().upper()
    if not conversion or conversion in _CLEAN_CONVERSIONS:
        return ""
    return "(0008,0064) ConversionType is a scan, film, video or drawing"


def _capture_risk(facts: ObjectFacts) -> str:
    named = (name for name in _FIELDS.values() if name[1].startswith("secondary_capture") and getattr(facts, name[1]))
    return next((f"(0018,1012) to (0018,1019): {keyword} is present" for keyword, _ in named), "")


def _description_risk(facts: ObjectFacts) -> str:
    description = facts.series_description.upper()
    found = next((phrase for phrase in RISKY_DESCRIPTIONS if phrase in description), "")
    return f"(0008,103e) SeriesDescription has {found}" if found else ""


def _slide_risk(facts: ObjectFacts) -> str:
    if CLEAN_CLASSES.get(facts.sop_class_uid) != "whole slide":
        return ""
    if {"LABEL", "OVERVIEW"} & set(re.split(r"[^A-Z]+", facts.image_type.upper())):
        return "(0008,0008) ImageType is LABEL or OVERVIEW of a slide"
    return "" if facts.specimen_label_in_image.strip() == "NO" else "(0048,0010) SpecimenLabelInImage is not NO"


def _colour_risk(facts: ObjectFacts) -> str:
    """Images of these classes are grey (PS3.3 section C.8); workstations write their screens in colour."""
    photometric = facts.photometric_interpretation.strip()
    if not photometric or photometric in _GREY or CLEAN_CLASSES.get(facts.sop_class_uid) not in _GREY_KINDS:
        return ""
    return "(0028,0004) PhotometricInterpretation is not that of a grey image, as the SOP class requires"


_KIND_TESTS: tuple[Callable[[ObjectFacts], str], ...] = (
    _class_risk,
    _modality_risk,
    _image_type_risk,
    _conversion_risk,
    _capture_risk,
    _description_risk,
    _slide_risk,
    _colour_risk,
)


@lru_cache(maxsize=4096)
def document_risk(sop_class_uid: str) -> Reason | None:
    """Return why an object that is not an image may hold identifiers outside its attributes, or None.

    Encapsulated PDF, CDA, STL, OBJ, MTL and voice recordings are `encapsulated-document`; structured reports and key
    object selections `structured-content`; presentation states and the retired overlays and curves
    `graphic-content`.
    """
    last = sop_class_uid.removeprefix(_STORAGE)
    if last == sop_class_uid:
        return None
    if last.startswith("104.") or last in ("9.4.1", "9.4.2"):
        return Reason.ENCAPSULATED_DOCUMENT
    if last.startswith("88."):
        return Reason.STRUCTURED_CONTENT
    if last.startswith("11.") or last in ("8", "9"):
        return Reason.GRAPHIC_CONTENT
    return None


def decide_pixels(facts: ObjectFacts, match: FilterMatch, settings: Settings) -> PixelDecision:
    """Decide what to do with an object's pixels, from the filters that match and the policy for risk.

    A filter clears the risks that it names, see `FilterMatch`. No filter clears recognisable features or video, and
    text search finds no faces. Where a reviewer has decided, `Settings.check_masks` says whether what the decision
    leaves visible is searched for text.

    Raises
    ------
    Quarantine
        With the risk as its reason, under the policy `quarantine` or if text search does not apply; `video` also if a
        filter would blank parts of a video.
    """
    risk = _remaining_risk(facts, match)
    check = _is_checked(facts, match, settings)
    if risk is None:
        return PixelDecision(clean=match.cleans, find_text=check and settings.pixel_risk == "ocr", check=check)
    if match.cleans and risk.reason is Reason.VIDEO:
        raise Quarantine(*risk)
    if settings.pixel_risk == "allow":
        return PixelDecision(clean=match.cleans, check=check, allowed=risk.reason)
    if settings.pixel_risk == "ocr" and risk.reason in (Reason.PIXEL_RISK, Reason.BURNED_IN_ANNOTATION):
        return PixelDecision(clean=match.cleans, find_text=True)
    raise Quarantine(*risk)


def _is_checked(facts: ObjectFacts, match: FilterMatch, settings: Settings) -> bool:
    """Return whether what the filters leave visible is searched for text; a decision is about objects at risk."""
    if is_video(facts.transfer_syntax_uid):
        return False
    if settings.check_masks == "all" and match.cleans:
        return True
    is_reviewed = settings.check_masks != "none" and match.is_reviewed
    return is_reviewed and (match.holding is not None or pixel_risk(facts) is not None)


def _remaining_risk(facts: ObjectFacts, match: FilterMatch) -> Risk | None:
    """Return the risk that the filters do not clear."""
    risk = pixel_risk(facts)
    if risk is not None and risk.reason is Reason.BURNED_IN_ANNOTATION and risk.reason in match.clears:
        risk = pixel_risk(facts._replace(burned_in_annotation=""))
    if risk is not None and risk.reason in match.clears:
        risk = None
    if risk is None and match.holding is not None and facts.has_pixel_data:
        risk = Risk(Reason.PIXEL_RISK, f"{_place(match.holding)} holds the object")
    elif risk is not None and match.filters and risk.reason in (Reason.PIXEL_RISK, Reason.BURNED_IN_ANNOTATION):
        said = match.holding or match.filters[-1]
        risk = risk._replace(detail=f"{risk.detail}; {_place(said)} does not clear it")
    return risk


def _place(a_filter: Filter) -> str:
    """Return the place of a filter in its recipe."""
    return f"{a_filter.source}:{a_filter.line}"


def decide_document(
    sop_class_uid: str, settings: Settings, *, cleaned: frozenset[Reason] = frozenset()
) -> Reason | None:
    """Decide what to do with a document, report or presentation state.

    Parameters
    ----------
    sop_class_uid
        SOP class of the object.
    settings
        Settings with the `documents` policy.
    cleaned
        Kinds that options of the recipe clean: `structured-content` with clean-structured-content,
        `graphic-content` with clean-graphics.

    Returns
    -------
    Reason or None
        A risk that the policy allows, recorded in the audit; None if there is none.

    Raises
    ------
    Quarantine
        With the risk as its reason, under the policy `quarantine`.
    """
    risk = document_risk(sop_class_uid)
    if risk is None or risk in cleaned:
        return None
    if settings.documents == "allow":
        return risk
    raise Quarantine(risk, "(0008,0016) SOPClassUID")
