"""Free text passes only where every word is vouched for."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from tests.support.datasets import element, part10
from tests.support.engine import pseudonyms

from dicom_deid.dicom.values import character_set, decode_text
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.descriptors import without_identifiers
from dicom_deid.engine.vocabulary import Vocabulary
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

IDENTITY = [
    element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
    element("SOPInstanceUID", "1.2.3"),
    element("StudyInstanceUID", "1.2.34567.1"),
    element("PatientID", "P-10012"),
    element("PatientName", "Torvelin^Anna"),
    element("Modality", "CT"),
]


def cleaned(free_text: str, recipe: str = "desktop", words: str = "", **texts: str) -> Dataset:
    data = part10([*IDENTITY, *(element(keyword, text) for keyword, text in texts.items())])
    rules = Recipe.combine(Recipe.named(recipe), Recipe.parse(f"FORMAT dicom\n%vocabulary\n{words}\n"))
    settings = Settings(free_text=free_text, pixel_risk="allow", documents="allow")
    return dcmread(io.BytesIO(Deidentifier(rules, settings).deidentify(data, pseudonyms).to_bytes()))


@pytest.mark.parametrize(
    "text",
    [
        "Thorax^Routine (Adult)",
        "t1_mprage_sag_p2_iso 1.0",
        "ThoraxRoutine 5.0 B30f",
        "AX T2 FLAIR FS 3mm",
        "Knie links nativ",
        "IRM genou gauche T2 FS",
        "TC torace con contrasto",
        "RM rodilla derecha",
        "MRI knie rechts",
        "a.p. view, 2 images, TR500 TE15",
        "Untersuchung Oberschenkel re.",
        "patient's left knee",
    ],
)
def test_words_of_radiology_stay(text: str) -> None:
    assert Vocabulary().mask(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("knee, sister Maria Lopez", "knee, sister ***** *****"),
        ("seen by J. Smith", "seen by ** *****"),
        ("O'Brien knee", "******* knee"),
        ("visit 1234567", "visit *******"),
        ("AB1234CD", "********"),
        ("in 2019", "in ****"),
        ("KNEE_Hutchinson_T2", "KNEE_**********_T2"),
        ("12 Orchard Lane", "12 ******* ****"),
        ("Миронов knee", "******* knee"),
    ],
)
def test_other_words_are_masked(text: str, masked: str) -> None:
    """A relative, a doctor, an address, a number: no element of the object names them."""
    assert Vocabulary().mask(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("stone protocol", "stone protocol"),
        ("long axis, Dixon fat", "long axis, Dixon fat"),
        ("knee, Stone", "knee, *****"),
        ("seen by Stone today", "seen by ***** today"),
        ("patient: Young knee", "patient: ***** knee"),
        ("sister Rose Stone", "sister **** *****"),
        ("KNEE_Stone_Young", "KNEE_Stone_*****"),
        ("MarkStone", "*********"),
    ],
)
def test_a_word_that_is_also_a_name_stays_only_beside_another_word(text: str, masked: str) -> None:
    assert Vocabulary().mask(text) == masked


def test_the_archive_vouches_for_words_that_are_no_common_names() -> None:
    vocabulary = Vocabulary(archive={"zentralklinik", "schneider", "1234567"})
    assert vocabulary.mask("Zentralklinik Schneider 1234567") == "Zentralklinik ********* *******"
    assert vocabulary.unknown_words("Schneider Quellmann 1234567 AB12CD34 J. Neurocenter's") == {
        "quellmann",
        "neurocenter",
    }


@given(st.text(max_size=200))
def test_a_mask_keeps_the_length_and_is_stable(text: str) -> None:
    """Masked again, a text stays the same: a retry and a second run give the same bytes."""
    vocabulary = Vocabulary()
    masked = vocabulary.mask(text)
    assert len(masked) == len(text)
    assert vocabulary.mask(masked) == masked


def test_a_site_vouches_for_words_in_its_recipe() -> None:
    text = {"SeriesDescription": "Zentralklinik KNEE"}
    assert cleaned("vocabulary", **text).SeriesDescription == "************* KNEE"
    assert cleaned("vocabulary", words="zentralKlinik  # ours", **text).SeriesDescription == "Zentralklinik KNEE"


@pytest.mark.parametrize(
    ("free_text", "left"),
    [
        ("known-originals", "knee of ****, sister Maria Lopez"),
        ("vocabulary", "knee of ****, sister ***** *****"),
    ],
)
def test_what_is_known_of_the_patient_is_redacted_in_free_text(free_text: str, left: str) -> None:
    """An object is not held for what can be taken out of a description."""
    new = cleaned(free_text, SeriesDescription="knee of Anna, sister Maria Lopez", StudyDescription="CT KNEE")
    assert (new.SeriesDescription, new.StudyDescription) == (left, "CT KNEE")


def test_free_text_is_kept_by_default_and_a_residual_holds_the_object() -> None:
    assert cleaned("keep", SeriesDescription="sister Maria Lopez").SeriesDescription == "sister Maria Lopez"
    with pytest.raises(Quarantine) as caught:
        cleaned("keep", SeriesDescription="knee of Anna")
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize("free_text", ["known-originals", "vocabulary"])
def test_a_residual_elsewhere_holds_the_object_whatever_happens_to_free_text(free_text: str) -> None:
    with pytest.raises(Quarantine):
        cleaned(free_text, StationName="ct1", RequestedProcedureID="ANNA TORVELIN")


def test_a_rule_of_the_recipe_decides_over_the_vocabulary() -> None:
    """The vocabulary cleans what the recipe has no rule for, and changes no rule."""
    recipe = Recipe.parse("FORMAT dicom\n%header\nREPLACE SeriesDescription Hutchinson\nREMOVE StudyDescription\n")
    data = part10([*IDENTITY, element("SeriesDescription", "x"), element("StudyDescription", "knee")])
    settings = Settings(free_text="vocabulary", pixel_risk="allow", documents="allow")
    new = dcmread(io.BytesIO(Deidentifier(recipe, settings).deidentify(data, pseudonyms).to_bytes()))
    assert new.SeriesDescription == "Hutchinson"
    assert "StudyDescription" not in new


def test_text_of_content_items_and_meanings_of_diagnoses_are_cleaned_too() -> None:
    """The recipe has no rule for them; it may replace a code meaning by what it likes."""
    item = [element("ValueType", "TEXT"), element("TextValue", "knee, sister Maria Lopez")]
    diagnosis = [element("CodeValue", "X"), element("CodeMeaning", "knee of Maria")]
    data = part10(
        [
            *IDENTITY,
            element("AdmittingDiagnosesCodeSequence", [diagnosis]),
            element("ContentSequence", [item]),
        ]
    )
    settings = Settings(free_text="vocabulary", pixel_risk="allow", documents="allow")

    def meaning_and_text(recipe: Recipe) -> tuple[str, str]:
        new = dcmread(io.BytesIO(Deidentifier(recipe, settings).deidentify(data, pseudonyms).to_bytes()))
        return new.AdmittingDiagnosesCodeSequence[0].CodeMeaning, new.ContentSequence[0].TextValue

    assert meaning_and_text(Recipe.named("desktop")) == ("knee of *****", "knee, sister ***** *****")
    own = Recipe.parse("FORMAT dicom\n%header\nREPLACE CodeMeaning Hutchinson\n")
    assert meaning_and_text(own) == ("Hutchinson", "knee, sister ***** *****")


def test_the_examples_of_the_page_are_what_the_engine_writes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "free-text.md").read_text(encoding="utf-8")
    example = next(line for line in page.splitlines() if "   ->   " in line)
    text, masked = (part.strip() for part in example.split("->"))
    assert Vocabulary().mask(without_identifiers(text)) == masked
    assert without_identifiers("MRN: 12-34-567 knee") == "knee"


MULTI_BYTE = {
    "Korean": ("\\ISO 2022 IR 149", b"CT knee \x1b$)C\xb1\xe8", b"\x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf knee"),
    "Japanese": ("\\ISO 2022 IR 87", b"knee \x1b$B:8\x1b(B", b"\x1b$B;3ED\x1b(B knee"),
    "Japanese and Korean": (
        "\\ISO 2022 IR 87\\ISO 2022 IR 149",
        b"\x1b$B:8\x1b(B knee \x1b$)C\xb1\xe8",
        b"\x1b$B;3ED\x1b(B knee \x1b$)C\xb1\xe8",
    ),
    "katakana and kanji": (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\x1b$B:8\x1b(J knee \xd4",
        b"\x1b$B;3ED\x1b(J knee \xd4\xcf\xc0\xde",
    ),
    "simplified Chinese": ("\\ISO 2022 IR 58", b"\x1b$)A\xd7\xf3 knee", b"\x1b$)A\xcd\xf5\xd0\xa1 knee"),
    "Latin and Cyrillic": (
        "\\ISO 2022 IR 100\\ISO 2022 IR 144",
        b"\x1b-Ag\xe9n\xe9ral knee \x1b-L\xda\xde\xdb\xd5\xdd\xde",
        b"\x1b-Ab\xe4rlach knee \x1b-L\xbb\xee\xd4\xd0",
    ),
    "GB 18030": ("GB18030", "左 knee".encode("gb18030"), "王小东 knee".encode("gb18030")),
}
"""A character set, a text of known words, and one with others."""


@pytest.mark.parametrize("language", MULTI_BYTE)
@pytest.mark.parametrize("more", ["", "known value"])
def test_text_in_several_character_sets_keeps_its_bytes_or_its_escapes(language: str, more: str) -> None:
    terms, known, unknown = MULTI_BYTE[language]
    codecs, second = character_set(terms.encode()), b"\\" + known if more else b""
    site = re.findall(r"\w+", decode_text(known, "LO", codecs))
    recipe = Recipe.combine(Recipe.named("desktop"), Recipe.parse(f"FORMAT dicom\n%vocabulary\n{' '.join(site)}\n"))
    settings = Settings(free_text="vocabulary", pixel_risk="allow", documents="allow")

    def cleaned_bytes(value: bytes) -> bytes:
        elements = [*IDENTITY, element("SpecificCharacterSet", terms), element("SeriesDescription", value)]
        new = Deidentifier(recipe, settings).deidentify(part10(elements), pseudonyms).to_bytes()
        at = new.index(b"\x08\x00\x3e\x10LO")
        return new[at + 8 : at + 8 + int.from_bytes(new[at + 6 : at + 8], "little")].rstrip(b" \0")

    assert cleaned_bytes(known + second) == known + second
    masked = decode_text(cleaned_bytes(unknown + second), "LO", codecs)
    assert masked == Vocabulary(site).mask(decode_text(unknown + second, "LO", codecs))
    assert "*" in masked
