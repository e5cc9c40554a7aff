"""Assess whether a CT or MR image can show a face, from its header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSES = frozenset(_STORAGE + last for last in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4"))

# Whole words, or beginnings of words that end in *; English, German, French, Spanish, Italian, Dutch.
_HEAD = (
    "HEAD* BRAIN* CEREB* CRAN* SKULL* NEURO* FACE FACIAL* ORBIT* SINUS* NECK* MANDIB* MAXILL* DENTAL TEETH PITUIT* "
    "HYPOPHYS* SELLA* IAC IACS MASTOID* TEMPORAL* STROKE* CIRCLE WILLIS COW INTRACRAN* HEADNECK WHOLEBODY WB FMRI "
    "HIRN* KOPF* SCHAEDEL* SCHADEL* GESICHT* HALS* NASENNEBENH* TETE CERVEAU ENCEPHAL* VISAGE COU CABEZA CEREBRO* "
    "CUELLO CARA TESTA ENCEFALO VOLTO COLLO HOOFD HERSENEN SCHEDEL MPRAGE TOF DTI MEMPR BRAVO HNECK"
)
_ELSEWHERE = (
    "CHEST* THORA* LUNG* ABDOM* PELVI* LIVER* HEPAT* KIDNEY* RENAL* BLADDER* UROGRA* PROSTAT* UTER* OVAR* PANCREA* "
    "BOWEL* COLON* ENTERO* SPINE* LUMBAR* LSPINE TSPINE LWS BWS SACR* KNEE* HIP HIPS FEMUR* TIBIA* ANKLE* FOOT FEET "
    "SHOULDER* ELBOW* WRIST* HAND HANDS FINGER* ARM LEG LEGS EXTREM* CARDI* HEART* CORONAR* AORTA* BREAST* MAMMA* MRCP "
    "THIGH* CALF CALVES LEBER* BECKEN* LUNGE* KNIE* HUFTE* HUEFTE* GENOU* EPAULE* CHEVILLE* RODILLA* GINOCCHIO* "
    "SCHULTER* FUSS FUESSE HANDGELENK* SPRUNGGELENK* ELLENBOGEN* WIRBEL* HERZ* BRUST* NIERE* POIGNET* HANCHE* RACHIS "
    "COEUR FOIE HOMBRO* TOBILLO* CADERA* COLUMNA* CORAZON SPALLA* CAVIGLIA* CUORE SCHOUDER* ENKEL* VOET POLS HEUP* "
    "BORST*"
)
# Of these no scanner makes a default.
_LIMBS = (
    "KNEE* ANKLE* FOOT FEET SHOULDER* ELBOW* WRIST* HAND HANDS FINGER* ARM LEG LEGS EXTREM* FEMUR* TIBIA* THIGH* CALF "
    "HIP HIPS BREAST*"
)
_LEAST_FACE, _MOST_HEAD = 170.0, 300.0
"""Field of view in mm in which an image of an unknown part of the body is taken for one of a head."""


class FaceFacts(NamedTuple):
    """Header values that a face depends on; texts are empty if missing, sizes 0."""

    sop_class_uid: str = ""
    body_part: str = ""
    descriptions: str = ""
    kernel: str = ""
    coil: str = ""
    field_of_view: float = 0.0


FACE_ELEMENTS = {
    0x00081030: "StudyDescription",
    0x0008103E: "SeriesDescription",
    0x00180015: "BodyPartExamined",
    0x00181030: "ProtocolName",
    0x00181100: "ReconstructionDiameter",
    0x00181160: "FilterType",
    0x00181210: "ConvolutionKernel",
    0x00181250: "ReceiveCoilName",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280030: "PixelSpacing",
    0x00321060: "RequestedProcedureDescription",
}
"""Root elements that the assessment reads, in addition to SOPClassUID."""


def face_facts(values: Mapping[str, bytes], *, big_endian: bool) -> FaceFacts:
    """Return the facts of an object, given the values of its root elements by keyword."""

    def text(keyword: str) -> str:
        return values[keyword].decode("iso8859").strip("\0 ")

    order: Literal["big", "little"] = "big" if big_endian else "little"
    rows, columns = (int.from_bytes(values[keyword][:2], order) for keyword in ("Rows", "Columns"))
    descriptions = ("StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")
    spacing = [_number(part) for part in text("PixelSpacing").split("\\")]
    across = max(rows * spacing[0], columns * spacing[-1]) if all(spacing) else _number(text("ReconstructionDiameter"))
    return FaceFacts(
        text("SOPClassUID"),
        text("BodyPartExamined"),
        " ".join(text(keyword) for keyword in descriptions),
        f"{text('ConvolutionKernel')} {text('FilterType')}",
        text("ReceiveCoilName"),
        across,
    )


def _number(text: str) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return 0.0


def face_evidence(facts: FaceFacts) -> str:
    """Return why an image can show a face, or nothing.

    Any word for the head counts, wherever it is; in BodyPartExamined not if the descriptions name another part of the
    body and the field of view is not that of a head. Words for other parts in descriptions, which a person or a
    protocol chose, count against it; BodyPartExamined alone does so for limbs and breasts only, because scanners fill
    it with a default. With neither, the field of view decides.
    """
    if facts.sop_class_uid not in _CLASSES:
        return ""
    is_head_size = not facts.field_of_view or _LEAST_FACE <= facts.field_of_view <= _MOST_HEAD
    is_elsewhere = _matches(_OTHER_WORDS, facts.descriptions) or _matches(_OTHER_WORDS, facts.coil)
    if is_elsewhere and not is_head_size and not _matches(_HEAD_WORDS, facts.descriptions):
        facts = facts._replace(body_part="")
    texts = {
        "(0018,0015) BodyPartExamined": facts.body_part,
        "a description": facts.descriptions,
        "(0018,1250) ReceiveCoilName": facts.coil,
        "(0018,1160) FilterType": facts.kernel,
    }
    for name, text in texts.items():
        if _matches(_HEAD_WORDS, text):
            return f"{name} names the head"
    if re.match(r"H[a-z]?\d{2}", facts.kernel):
        return "(0018,1210) ConvolutionKernel is one for heads"
    if is_elsewhere or _matches(_LIMB_WORDS, facts.body_part) or not is_head_size:
        return ""
    if facts.field_of_view:
        return "(0028,0030) PixelSpacing gives the field of view of a head"
    return "" if _matches(_OTHER_WORDS, facts.body_part) else "neither the part of the body nor the size is known"


def _words(text: str) -> re.Pattern[str]:
    parts = (word[:-1] if word.endswith("*") else f"{word}(?![A-Z])" for word in text.split())
    return re.compile(f"(?<![A-Z])(?:{'|'.join(parts)})")


_HEAD_WORDS, _OTHER_WORDS, _LIMB_WORDS = _words(_HEAD), _words(_ELSEWHERE), _words(_LIMBS)


def _matches(words: re.Pattern[str], text: str) -> bool:
    return words.search(text.upper()) is not None
