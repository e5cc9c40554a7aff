"""Assess whether pixels or documents may identify the patient, and apply the policies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from dicom_deid.engine.pixels.filters import FilterMatch
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_VIDEO_SYNTAXES = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")
_VIDEO_CLASSES = frozenset(_STORAGE + last for last in ("77.1.1.1", "77.1.2.1", "77.1.4.1"))

RISKY_CLASSES = {
    _STORAGE + last: why
    for why, lasts in {
        "secondary capture": ("7", "7.1", "7.2", "7.3", "7.4"),
        "ultrasound": ("3", "3.1", "6", "6.1", "6.2"),
        "hardcopy (retired)": ("27", "29", "30"),
        "angiography and fluoroscopy": ("12.1", "12.1.1", "12.2", "12.2.1", "12.3"),
        "endoscopy, microscopy, photography": ("77.1", "77.2", "77.1.1", "77.1.2", "77.1.3", "77.1.4", "77.1.7"),
        "eyes": ("77.1.5.1", "77.1.5.2", "77.1.5.4", "77.1.5.5", "77.1.5.6", "77.1.5.7", "77.1.5.8"),
        "whole slide: the label is an image": ("77.1.6",),
    }.items()
    for last in lasts
}
"""SOP classes whose pixels often show identifiers, with the kind of image."""

RISKY_MODALITIES = frozenset(
    # The kinds above stored under another SOP class, digitised film, and images composed at a workstation.
    {"US", "IVUS", "XA", "RF", "ES", "GM", "SM", "XC", "OP", "OPT", "DG", "DMS", "EC", "BDUS", "HC", "OT", "SC", "FID"}
)
"""Values of Modality (PS3.3 section C.7.3.1.1.1) whose pixels often show identifiers."""

RISKY_IMAGE_TYPE_WORDS = ("SCREEN", "SAVE", "CAPTURE", "DOSE", "PASTED", "REPORT", "FILM")
"""Words in ImageType with which devices mark screen shots, dose pages and similar images."""


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


@dataclass(frozen=True, slots=True)
class PixelDecision:
    """The action for an object's pixels.

    Parameters
    ----------
    clean
        Whether to blank the regions of the filters.
    find_text
        Whether to search text in the pixels and blank it, see `TextFinder`.
    allowed
        A risk that the policy allows, recorded in the audit.
    """

    clean: bool = False
    find_text: bool = False
    allowed: Reason | None = None


def is_video(transfer_syntax_uid: str) -> bool:
    """Return whether a transfer syntax is a video stream (MPEG-2, MPEG-4, HEVC, SMPTE ST 2110)."""
    return transfer_syntax_uid.startswith(_VIDEO_SYNTAXES)


@lru_cache(maxsize=4096)
def pixel_risk(facts: ObjectFacts) -> Reason | None:
    """Return why the pixels of an object may identify the patient, or None.

    BurnedInAnnotation NO does not clear an object of a risky kind: devices write it without checking.
    """
    if not facts.has_pixel_data:
        return None
    if is_video(facts.transfer_syntax_uid) or facts.sop_class_uid in _VIDEO_CLASSES:
        return Reason.VIDEO
    if _says_yes(facts.recognizable_visual_features):
        return Reason.RECOGNIZABLE_VISUAL_FEATURES
    if _says_yes(facts.burned_in_annotation):
        return Reason.BURNED_IN_ANNOTATION
    return Reason.PIXEL_RISK if _is_risky_kind(facts) else None


def _says_yes(value: str) -> bool:
    return value.strip().upper() not in ("", "NO", "N")


def _is_risky_kind(facts: ObjectFacts) -> bool:
    image_type = facts.image_type.upper()
    return (
        facts.sop_class_uid in RISKY_CLASSES
        or facts.modality.strip().upper() in RISKY_MODALITIES
        or bool(facts.conversion_type.strip())
        or any(word in image_type for word in RISKY_IMAGE_TYPE_WORDS)
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

    A filter with coordinates clears burned-in text and the kind of object; a filter of a section named ``whitelist``
    clears the kind of object. No filter clears recognisable features or video, and text search finds no faces.

    Raises
    ------
    Quarantine
        With the risk as its reason, under the policy `quarantine` or if text search does not apply; `video` also if a
        filter would blank parts of a video.
    """
    risk = _remaining_risk(facts, match)
    if risk is None:
        return PixelDecision(clean=match.cleans)
    if match.cleans and risk is Reason.VIDEO:
        raise Quarantine(risk, _where(match))
    if settings.pixel_risk == "allow":
        return PixelDecision(clean=match.cleans, allowed=risk)
    if settings.pixel_risk == "ocr" and risk in (Reason.PIXEL_RISK, Reason.BURNED_IN_ANNOTATION):
        return PixelDecision(clean=match.cleans, find_text=True)
    raise Quarantine(risk, _where(match))


def _remaining_risk(facts: ObjectFacts, match: FilterMatch) -> Reason | None:
    """Return the risk that the filters do not clear."""
    risk = pixel_risk(facts)
    if match.cleans and risk in (Reason.PIXEL_RISK, Reason.BURNED_IN_ANNOTATION):
        risk = None
    if match.whitelisted and risk is Reason.PIXEL_RISK:
        risk = None
    if risk is None and match.flagged and not match.cleans and facts.has_pixel_data:
        risk = Reason.PIXEL_RISK
    return risk


def _where(match: FilterMatch) -> str:
    """Return the place in the recipe of the last filter that matches."""
    return f"{match.filters[-1].source}:{match.filters[-1].line}" if match.filters else ""


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
    raise Quarantine(risk, "(0008,0016)")
