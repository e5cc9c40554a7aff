"""Pixel risk: policies, filters and SOP classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom import Dataset
from pydicom.uid import UID_dictionary

from dicom_deid.engine.pixels import (
    LEARNED,
    PROJECT_RULES,
    FilterMatch,
    ObjectFacts,
    PixelDecision,
    PixelFilters,
    decide_document,
    decide_pixels,
    document_risk,
    pixel_risk,
)
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

EXPLICIT = "1.2.840.10008.1.2.1"
STORAGE = "1.2.840.10008.5.1.4.1.1."
CT = ObjectFacts(STORAGE + "2", EXPLICIT, True, "CT", r"ORIGINAL\PRIMARY\AXIAL")
RT_DOSE = ObjectFacts(STORAGE + "481.2", EXPLICIT, True, "RTDOSE")
MG = ObjectFacts(STORAGE + "1.2", EXPLICIT, True, "MG", "DERIVED\\PRIMARY\\")
SLIDE = ObjectFacts(
    STORAGE + "77.1.6", EXPLICIT, True, "SM", r"ORIGINAL\PRIMARY\VOLUME\NONE", specimen_label_in_image="NO"
)
US = ObjectFacts(STORAGE + "6.1", EXPLICIT, True, "US", r"ORIGINAL\PRIMARY")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (CT, None),
        (CT._replace(image_type=r"DERIVED\SECONDARY\MPR"), None),
        (CT._replace(has_pixel_data=False, burned_in_annotation="YES"), None),
        (CT._replace(burned_in_annotation="NO"), None),
        (CT._replace(burned_in_annotation="yes "), Reason.BURNED_IN_ANNOTATION),
        (CT._replace(burned_in_annotation="Y"), Reason.BURNED_IN_ANNOTATION),
        (CT._replace(recognizable_visual_features="YES"), Reason.RECOGNIZABLE_VISUAL_FEATURES),
        (CT._replace(conversion_type="WSD"), None),
        (CT._replace(conversion_type="SYN"), None),
        (CT._replace(conversion_type="DF"), Reason.PIXEL_RISK),
        (RT_DOSE._replace(image_type=r"ORIGINAL\PRIMARY\DOSE"), None),
        (RT_DOSE._replace(image_type=r"ORIGINAL\PRIMARY\DOSE\SCREEN"), Reason.PIXEL_RISK),
        (CT._replace(conversion_type="SD"), Reason.PIXEL_RISK),
        (CT._replace(image_type=""), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"ORIGINAL\SECONDARY\DI SCAN DOC\DOC_A"), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"DERIVED\PRIMARY\LOCALIZER"), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"ORIGINAL\PRIMARY\LOCALIZER"), None),
        (CT._replace(image_type=r"DERIVED\SECONDARY"), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"DERIVED\SECONDARY\PROT"), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"ORIGINAL\PRIMARY\PROTON"), None),
        (CT._replace(modality="CT/SR"), Reason.PIXEL_RISK),
        (CT._replace(modality=""), Reason.PIXEL_RISK),
        (CT._replace(secondary_capture_model="Volume Viewer"), Reason.PIXEL_RISK),
        (CT._replace(secondary_capture_date="20240101"), Reason.PIXEL_RISK),
        (CT._replace(series_description="Dose Report"), Reason.PIXEL_RISK),
        (CT._replace(series_description="Head 1.0"), None),
        (CT._replace(sop_class_uid="1.2.3.4"), Reason.PIXEL_RISK),
        (CT._replace(sop_class_uid=""), Reason.PIXEL_RISK),
        (RT_DOSE, None),
        (ObjectFacts(STORAGE + "481.1", EXPLICIT, True, "RTIMAGE", r"DERIVED\SECONDARY\DRR", "WSD"), None),
        (MG, None),
        (MG._replace(image_type=r"DERIVED\SECONDARY"), Reason.PIXEL_RISK),
        (SLIDE, None),
        (SLIDE._replace(image_type=r"ORIGINAL\PRIMARY\LABEL\NONE"), Reason.PIXEL_RISK),
        (SLIDE._replace(image_type=r"ORIGINAL\PRIMARY\OVERVIEW\NONE"), Reason.PIXEL_RISK),
        (SLIDE._replace(specimen_label_in_image="YES"), Reason.PIXEL_RISK),
        (SLIDE._replace(specimen_label_in_image=""), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"DERIVED\SECONDARY\SCREEN SAVE"), Reason.PIXEL_RISK),
        (CT._replace(modality="OT"), Reason.PIXEL_RISK),
        (CT._replace(sop_class_uid=STORAGE + "7"), Reason.PIXEL_RISK),
        (CT._replace(transfer_syntax_uid="1.2.840.10008.1.2.4.104"), Reason.VIDEO),
        (US, Reason.PIXEL_RISK),
        (US._replace(burned_in_annotation="NO"), Reason.PIXEL_RISK),
    ],
)
def test_risk(facts: ObjectFacts, reason: Reason | None) -> None:
    risk = pixel_risk(facts)
    assert (risk and risk.reason) is reason
    assert risk is None or risk.detail.startswith("(")


def named(*words: str) -> list[str]:
    """Storage SOP classes of the standard whose names hold one of the words."""
    return [
        str(uid)
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and any(word in name for word in words)
        if str(uid).startswith(STORAGE)
    ]


@pytest.mark.parametrize("uid", named("Secondary Capture", "Ultrasound", "Endoscopic", "Photographic", "Microscopic"))
def test_every_class_of_a_risky_name_is_known(uid: str) -> None:
    """A class of the standard's list that is not listed would pass."""
    risk = pixel_risk(ObjectFacts(uid, EXPLICIT, True, "CT", r"ORIGINAL\PRIMARY\AXIAL"))
    assert risk is not None
    assert risk.reason in (Reason.PIXEL_RISK, Reason.VIDEO)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("Encapsulated", "Voice Audio"), Reason.ENCAPSULATED_DOCUMENT),
        ((" SR ", "Key Object"), Reason.STRUCTURED_CONTENT),
        (("Presentation State",), Reason.GRAPHIC_CONTENT),
    ],
)
def test_every_document_class_is_known(words: tuple[str, ...], reason: Reason) -> None:
    classes = named(*words)
    assert classes
    assert {uid: document_risk(uid) for uid in classes} == dict.fromkeys(classes, reason)


def match_of(text: str, name: str = "recipe") -> FilterMatch:
    header = Dataset()
    header.Modality = "US"
    header.Rows, header.Columns = 20, 30
    return PixelFilters(Recipe.parse("FORMAT dicom\n" + text, name).filters).match(header)


NOTHING = FilterMatch()
MASK = "%filter graylist\nLABEL x\n contains Modality US\n coordinates 0,0,5,5\n"
MASKS = match_of(MASK)
CLEANS = match_of(MASK + " clears pixel-risk\n")
CLEANS_ALL = match_of(MASK + " clears pixel-risk burned-in-annotation\n")
FAR = match_of(MASK.replace("0,0,5,5", "50,0,90,5") + " clears pixel-risk\n")
KEEPS = match_of("%filter graylist\nLABEL x\n contains Modality US\n keepcoordinates 0,0,5,5\n")
MISSES = match_of("%filter graylist\nLABEL x\n contains Modality US\n coordinates from:SequenceOfUltrasoundRegions\n")
OUTSIDE = match_of(
    "%filter whitelist\nLABEL x\n contains Modality US\n coordinates outside:SequenceOfUltrasoundRegions\n"
)
MASKS_AND_WHITE = match_of(MASK + "%filter whitelist\nLABEL y\n contains Modality US\n")
CLEANS_AND_FLAGS = match_of(MASK + " clears pixel-risk\n%filter hold\nLABEL y\n contains Modality US\n")
WHITE_AND_FLAGS = match_of(
    "%filter whitelist\nLABEL x\n contains Modality US\n%filter hold\nLABEL y\n contains Modality US\n"
)
WHITE = match_of("%filter whitelist\nLABEL x\n contains Modality US\n")
FLAGS = match_of("%filter blacklist\nLABEL x\n contains Modality US\n")
BURNED = US._replace(burned_in_annotation="YES")
VIDEO = US._replace(transfer_syntax_uid="1.2.840.10008.1.2.4.102")
FACE = CT._replace(recognizable_visual_features="YES")


@pytest.mark.parametrize(
    ("facts", "match", "policy", "expected"),
    [
        (CT, NOTHING, "quarantine", PixelDecision()),
        (CT, CLEANS, "quarantine", PixelDecision(clean=True)),
        (CT, FLAGS, "quarantine", Reason.PIXEL_RISK),
        (CT, FLAGS, "ocr", PixelDecision(find_text=True)),
        (US, NOTHING, "quarantine", Reason.PIXEL_RISK),
        (US, NOTHING, "allow", PixelDecision(allowed=Reason.PIXEL_RISK)),
        (US, NOTHING, "ocr", PixelDecision(find_text=True)),
        (US, CLEANS, "quarantine", PixelDecision(clean=True)),
        (US, MASKS, "quarantine", Reason.PIXEL_RISK),
        (US, MASKS, "ocr", PixelDecision(clean=True, find_text=True)),
        (US, FAR, "quarantine", Reason.PIXEL_RISK),
        (US, OUTSIDE, "quarantine", PixelDecision()),
        (US, MASKS_AND_WHITE, "quarantine", Reason.PIXEL_RISK),
        (US, CLEANS_AND_FLAGS, "quarantine", Reason.PIXEL_RISK),
        (CT, CLEANS_AND_FLAGS, "quarantine", Reason.PIXEL_RISK),
        (CT, WHITE_AND_FLAGS, "quarantine", Reason.PIXEL_RISK),
        (CT, MASKS, "quarantine", PixelDecision(clean=True)),
        (US, KEEPS, "quarantine", Reason.PIXEL_RISK),
        (US, MISSES, "quarantine", Reason.PIXEL_RISK),
        (US, WHITE, "quarantine", PixelDecision()),
        (BURNED, WHITE, "quarantine", Reason.BURNED_IN_ANNOTATION),
        (BURNED, CLEANS, "quarantine", Reason.BURNED_IN_ANNOTATION),
        (BURNED, CLEANS_ALL, "quarantine", PixelDecision(clean=True)),
        (BURNED, NOTHING, "ocr", PixelDecision(find_text=True)),
        (VIDEO, NOTHING, "ocr", Reason.VIDEO),
        (VIDEO, NOTHING, "allow", PixelDecision(allowed=Reason.VIDEO)),
        (VIDEO, CLEANS, "allow", Reason.VIDEO),
        (FACE, CLEANS, "quarantine", Reason.RECOGNIZABLE_VISUAL_FEATURES),
        (FACE, NOTHING, "ocr", Reason.RECOGNIZABLE_VISUAL_FEATURES),
        (FACE, CLEANS, "allow", PixelDecision(clean=True, allowed=Reason.RECOGNIZABLE_VISUAL_FEATURES)),
    ],
)
def test_decision(facts: ObjectFacts, match: FilterMatch, policy: str, expected: PixelDecision | Reason) -> None:
    """Hold beats blank beats clean, and a label clears only what it says and only where it blanks something."""
    settings = Settings(pixel_risk=policy)
    if isinstance(expected, PixelDecision):
        assert decide_pixels(facts, match, settings) == expected
    else:
        with pytest.raises(Quarantine) as caught:
            decide_pixels(facts, match, settings)
        assert caught.value.reason is expected


REVIEWED = match_of(MASK + " clears pixel-risk burned-in-annotation\n", PROJECT_RULES)
ALLOWED = match_of("%filter whitelist\nLABEL x\n contains Modality US\n", PROJECT_RULES)
LEARNT = match_of(MASK.replace("graylist", LEARNED) + " clears pixel-risk\n", PROJECT_RULES)
CHECKED = PixelDecision(clean=True, check=True)


@pytest.mark.parametrize(
    ("facts", "match", "settings", "expected"),
    [
        (US, REVIEWED, Settings(), CHECKED),
        (BURNED, REVIEWED, Settings(), CHECKED),
        (US, ALLOWED, Settings(), PixelDecision(check=True)),
        (US, REVIEWED, Settings(pixel_risk="ocr"), PixelDecision(clean=True, find_text=True, check=True)),
        (US, ALLOWED, Settings(pixel_risk="ocr"), PixelDecision(find_text=True, check=True)),
        (FACE, REVIEWED, Settings(pixel_risk="allow"), replace(CHECKED, allowed=Reason.RECOGNIZABLE_VISUAL_FEATURES)),
        (US, REVIEWED, Settings(check_masks="none"), PixelDecision(clean=True)),
        # Rules select by the device: they also match images of it that no reviewer had to see.
        (CT, REVIEWED, Settings(), PixelDecision(clean=True)),
        # Layouts are searched for in a sample.
        (US, LEARNT, Settings(), PixelDecision(clean=True)),
        (US, CLEANS, Settings(check_masks="all"), CHECKED),
        (US, WHITE, Settings(check_masks="all"), PixelDecision()),
        (VIDEO, ALLOWED, Settings(pixel_risk="allow"), PixelDecision(allowed=Reason.VIDEO)),
    ],
)
def test_what_decisions_leave_visible_is_searched(
    facts: ObjectFacts, match: FilterMatch, settings: Settings, expected: PixelDecision
) -> None:
    assert decide_pixels(facts, match, settings) == expected


def test_documents_follow_their_policy() -> None:
    report = STORAGE + "88.33"
    with pytest.raises(Quarantine) as caught:
        decide_document(report, Settings())
    assert caught.value.reason is Reason.STRUCTURED_CONTENT
    assert decide_document(report, Settings(documents="allow")) is Reason.STRUCTURED_CONTENT
    assert decide_document(report, Settings(), cleaned=frozenset({Reason.STRUCTURED_CONTENT})) is None
    assert decide_document(CT.sop_class_uid, Settings()) is None
