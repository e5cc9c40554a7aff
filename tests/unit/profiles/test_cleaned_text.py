"""Cleaned descriptions are swept for residuals, and a residual at the end of a value is found whatever follows."""

import io

import pytest
from pydicom import dcmread
from tests.support.datasets import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Element, Encoding, element, part10

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.recipe import Recipe

CLEAN = "FORMAT dicom\n%header\nREMOVE PatientName\nREPLACE StudyDescription func:{}\n"
CLEAN_TEXT = "dicom_deid.engine.descriptors:clean_text"
OPEN = Settings(residuals="redact-token", pixel_risk="allow", documents="allow", private_elements="keep")


def outcome(recipe: str, data: bytes):
    result = Deidentifier(Recipe.parse(recipe), OPEN).deidentify(data, lambda _: {})
    return dcmread(io.BytesIO(result.to_bytes()))


def test_name_that_cleaning_leaves_is_redacted() -> None:
    # Would catch a sweep that trusts whatever a rule wrote.
    data = part10(
        [
            element("SOPInstanceUID", "1.2.3"),
            element("StudyDescription", "knee of Torvelin, MRN 1234567"),
            element("PatientName", "Torvelin^Anna"),
        ]
    )
    assert outcome(CLEAN.format(CLEAN_TEXT), data).StudyDescription == "knee of ********,"


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
@pytest.mark.parametrize("follower", [0x00410010, 0x00540016, 0x00990010])
def test_what_follows_the_value_is_no_part_of_the_word(syntax: str, follower: int) -> None:
    # Would catch a search that takes the next element's tag (A, T, a byte above 127) for a letter of the word.
    after = Element(follower, "SQ", []) if follower == 0x00540016 else Element(follower, "LO", "CREATOR")
    data = part10(
        [
            element("SOPInstanceUID", "1.2.3"),
            element("PatientName", "Torvelin^Anna"),
            element("ImageComments", "knee of Torvelin"),
            after,
        ],
        Encoding(syntax),
    )
    assert outcome("FORMAT dicom\n%header\nREMOVE PatientName\n", data).ImageComments == "knee of ********"
