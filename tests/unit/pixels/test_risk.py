"""Pixel risk: policies, filters and SOP classes."""

from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.uid import UID_dictionary

from dicom_deid.engine.pixels import (
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

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT = ObjectFacts(STORAGE + "2", "1.2.840.10008.1.2.1", True, "CT", r"ORIGINAL\PRIMARY\AXIAL")
US = ObjectFacts(STORAGE + "6.1", "1.2.840.10008.1.2.1", True, "US", r"ORIGINAL\PRIMARY")


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
        (CT._replace(conversion_type="WSD"), Reason.PIXEL_RISK),
        (CT._replace(image_type=r"DERIVED\SECONDARY\SCREEN SAVE"), Reason.PIXEL_RISK),
        (CT._replace(modality="OT"), Reason.PIXEL_RISK),
        (CT._replace(sop_class_uid=STORAGE + "7"), Reason.PIXEL_RISK),
        (CT._replace(transfer_syntax_uid="1.2.840.10008.1.2.4.104"), Reason.VIDEO),
        (US, Reason.PIXEL_RISK),
        (US._replace(burned_in_annotation="NO"), Reason.PIXEL_RISK),
    ],
)
def test_risk(facts: ObjectFacts, reason: Reason | None) -> None:
    assert pixel_risk(facts) is reason


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
    assert pixel_risk(ObjectFacts(uid, "1.2.840.10008.1.2.1", True)) in (Reason.PIXEL_RISK, Reason.VIDEO)


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


def match_of(text: str) -> FilterMatch:
    header = Dataset()
    header.Modality = "US"
    return PixelFilters(Recipe.parse("FORMAT dicom\n" + text).filters).match(header)


NOTHING = FilterMatch()
CLEANS = match_of("%filter graylist\nLABEL x\n contains Modality US\n coordinates 0,0,5,5\n")
KEEPS = match_of("%filter graylist\nLABEL x\n contains Modality US\n keepcoordinates 0,0,5,5\n")
MISSES = match_of("%filter graylist\nLABEL x\n contains Modality US\n coordinates from:SequenceOfUltrasoundRegions\n")
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
        (US, KEEPS, "quarantine", Reason.PIXEL_RISK),
        (US, MISSES, "quarantine", Reason.PIXEL_RISK),
        (US, WHITE, "quarantine", PixelDecision()),
        (BURNED, WHITE, "quarantine", Reason.BURNED_IN_ANNOTATION),
        (BURNED, CLEANS, "quarantine", PixelDecision(clean=True)),
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
    """A rule that blanks nothing of this object does not clear it; a blanked corner does not hide a face."""
    settings = Settings(pixel_risk=policy)  # type: ignore[arg-type]
    if isinstance(expected, PixelDecision):
        assert decide_pixels(facts, match, settings) == expected
    else:
        with pytest.raises(Quarantine) as caught:
            decide_pixels(facts, match, settings)
        assert caught.value.reason is expected


def test_documents_follow_their_policy() -> None:
    report = STORAGE + "88.33"
    with pytest.raises(Quarantine) as caught:
        decide_document(report, Settings())
    assert caught.value.reason is Reason.STRUCTURED_CONTENT
    assert decide_document(report, Settings(documents="allow")) is Reason.STRUCTURED_CONTENT
    assert decide_document(report, Settings(), cleaned=frozenset({Reason.STRUCTURED_CONTENT})) is None
    assert decide_document(CT.sop_class_uid, Settings()) is None
