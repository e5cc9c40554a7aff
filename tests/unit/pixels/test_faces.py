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
    "CHEST": ("CT Chest/Abd", "Thorax 5.0", "Lung screening"),
    "ABDOMEN": ("Abdomen/Pelvis portal", "MR LIVER", "MRCP"),
    "KNEE": ("MR Knee left", "PD sag KNEE", "Knie rechts"),
    "LSPINE": ("Lumbar spine", "LWS sag", "T2 SPINE"),
    "HEART": ("Cardiac cine", "CT coronary", "HEART short axis"),
}


def draw(rng: random.Random, kinds: dict[str, tuple[str, ...]], sizes: tuple[float, float]) -> FaceFacts:
    """A series whose body part or descriptions are missing, or whose body part is wrong."""
    part = rng.choice(list(kinds))
    description = rng.choice(kinds[part])
    fault = rng.choice(["none", "no part", "no description", "wrong part", "nothing"])
    return FaceFacts(
        rng.choice([CT, MR]),
        {"no part": "", "nothing": "", "wrong part": rng.choice([*HEADS, *OTHERS])}.get(fault, part),
        "" if fault in ("no description", "nothing") else description,
        field_of_view=rng.uniform(*sizes),
    )


def test_all_heads_and_few_others() -> None:
    """Of 2,000 heads with a field of view of 180 to 280 mm none is missed."""
    rng = random.Random(20261126)
    heads = [draw(rng, HEADS, (180, 280)) for _ in range(2000)]
    assert all(face_evidence(facts) for facts in heads)


def test_other_parts_of_usual_size_are_not_marked() -> None:
    """With the right part of the body, whatever is missing otherwise; a wrong one that names the head counts."""
    rng = random.Random(20261127)
    others = [draw(rng, OTHERS, (310, 500)) for _ in range(4000)]
    others = [facts for facts in others if facts.body_part not in HEADS]
    marked = [facts for facts in others if face_evidence(facts)]
    assert len(marked) <= 0.02 * len(others)


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
