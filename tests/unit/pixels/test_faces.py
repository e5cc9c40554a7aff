"""Heads are recognised by their headers, with attributes missing or wrong."""

from __future__ import annotations

import random

import pytest
from tests.support.datasets import element, part10
from tests.support.engine import pseudonyms

from dicom_deid.engine.deidentifier import Deidentifier
from dicom_deid.engine.pixels.faces import FaceFacts, face_evidence
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
HEADS = {
    "HEAD": ("CT Head w/o contrast", "Brain 1.0 H31s", "sinus", "MPRAGE sag", "cCT Kopf nativ", "IRM encéphale TETE"),
    "BRAIN": ("T1 BRAIN", "FLAIR neuro", "Stroke protocol"),
    "NECK": ("CTA Head and Neck", "Hals-CT"),
}
OTHERS = {
    "CHEST": (("CT Chest/Abd", "Thorax 5.0", "Lung screening"), (310, 450)),
    "ABDOMEN": (("Abdomen/Pelvis portal", "MR LIVER", "MRCP"), (320, 480)),
    "BREAST": (("MR Breast bilateral", "Mamma dyn"), (300, 380)),
    "HEART": (("Cardiac cine", "CT coronary", "Herz kurze Achse"), (200, 380)),
    "LSPINE": (("Lumbar spine", "LWS sag", "Wirbelkörper"), (200, 320)),
    "SHOULDER": (("MR Shoulder", "Schulter links", "HOMBRO"), (140, 200)),
    "KNEE": (("MR Knee left", "PD sag KNEE", "Knie rechts"), (140, 180)),
    "HAND": (("MR Wrist", "Hand rechts"), (80, 160)),
    "FOOT": (("MR Ankle", "Fuss nativ"), (120, 200)),
}
FAULTS = ("none", "no part", "no description", "wrong part", "nothing")


def draw(
    rng: random.Random, part: str, descriptions: tuple[str, ...], sizes: tuple[float, float], fault: str
) -> FaceFacts:
    """A series whose body part or descriptions are missing, or whose body part is wrong."""
    wrong = rng.choice([*HEADS, *OTHERS])
    return FaceFacts(
        rng.choice([CT, MR]),
        {"no part": "", "nothing": "", "wrong part": wrong}.get(fault, part),
        "" if fault in ("no description", "nothing") else rng.choice(descriptions),
        field_of_view=rng.uniform(*sizes),
    )


def marked(kinds: list[str], fault: str) -> float:
    """Return the share of marked series of other parts of the body, by a fault of their headers."""
    rng = random.Random(20261127)
    drawn = [draw(rng, part, *OTHERS[part], fault) for part in rng.choices(kinds, k=3000)]
    return sum(1 for facts in drawn if face_evidence(facts)) / len(drawn)


@pytest.mark.parametrize("fault", FAULTS)
def test_all_heads_are_marked(fault: str) -> None:
    """Of 1,000 heads with a field of view of 180 to 280 mm none is missed, whichever attribute is missing or wrong."""
    rng = random.Random(20261126)
    for _ in range(1000):
        part = rng.choice(list(HEADS))
        assert face_evidence(draw(rng, part, HEADS[part], (180, 280), fault))


@pytest.mark.parametrize("fault", FAULTS)
def test_large_parts_of_the_body_are_not_marked(fault: str) -> None:
    """Chest, abdomen and breasts, even if BodyPartExamined names the head."""
    assert marked(["CHEST", "ABDOMEN", "BREAST"], fault) <= 0.02


@pytest.mark.parametrize(
    ("fault", "most"), [("none", 0), ("no part", 0), ("wrong part", 0.12), ("no description", 0.25), ("nothing", 0.45)]
)
def test_parts_of_the_size_of_a_head(fault: str, most: float) -> None:
    """A description clears them; without one, a heart or a spine of the size of a head may be one."""
    assert marked(["HEART", "LSPINE", "SHOULDER", "KNEE", "HAND", "FOOT"], fault) <= most


@pytest.mark.parametrize(
    ("facts", "is_marked"),
    [
        (FaceFacts(CT, "CHEST", "", field_of_view=230), True),
        (FaceFacts(CT, "CHEST", "CT Chest", field_of_view=230), False),
        (FaceFacts(CT, "", "", "H31s", field_of_view=500), True),
        (FaceFacts(MR, "", "", "", "HeadNeck_20", 350), True),
        (FaceFacts(MR, "", "", "", "", 0), True),
        (FaceFacts(MR, "KNEE", "", "", "", 0), False),
        (FaceFacts(CT, "WHOLEBODY", "PET/CT", "", "", 500), True),
        (FaceFacts("1.2.840.10008.5.1.4.1.1.1", "SKULL", "", "", "", 230), False),
        (FaceFacts(CT, "", "Forehead protocols", "", "", 400), False),
        (FaceFacts(CT, "HEAD", "CT Chest", "", "", 400), False),
        (FaceFacts(CT, "HEAD", "CT Chest", "", "", 250), True),
        (FaceFacts(CT, "HEAD", "Polytrauma", "", "", 500), True),
        (FaceFacts(MR, "SHOULDER", "", "", "", 180), False),
    ],
)
def test_evidence(facts: FaceFacts, is_marked: bool) -> None:
    assert bool(face_evidence(facts)) is is_marked


def an_object() -> bytes:
    return part10(
        [
            element("ImageType", "ORIGINAL\\PRIMARY\\AXIAL"),
            element("SOPClassUID", CT),
            element("SOPInstanceUID", "1.2.3"),
            element("Modality", "CT"),
            element("Rows", (512).to_bytes(2, "little"), "US"),
            element("Columns", (512).to_bytes(2, "little"), "US"),
            element("PixelSpacing", "0.45\\0.45"),
            element("PixelData", bytes(200), "OW"),
        ]
    )


@pytest.mark.parametrize(("policy", "noted"), [("allow", 0), ("report", 1)])
def test_the_audit_counts_what_may_show_a_face(policy: str, noted: int) -> None:
    settings = Settings(faces=policy, residuals="off")
    result = Deidentifier(Recipe.parse("FORMAT dicom\n%header\nREMOVE PatientName\n"), settings).deidentify(
        an_object(), pseudonyms
    )
    assert result.notes.get(Reason.FACE_POSSIBLE, 0) == noted


def test_what_may_show_a_face_is_held() -> None:
    recipe = Recipe.parse("FORMAT dicom\n%header\nREMOVE PatientName\n")
    with pytest.raises(Quarantine) as caught:
        Deidentifier(recipe, Settings(faces="hold")).analyse(an_object())
    assert caught.value.reason is Reason.FACE_POSSIBLE
    assert "PixelSpacing" in caught.value.where
