"""Functions of users: the object that they see, and the search of what they write."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from tests.support import datasets, real_world
from tests.support.datasets import Element, Encoding, element
from tests.support.engine import RULES_ALONE, read, run

from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

SEARCHED = RULES_ALONE.replace(residuals="quarantine")
NAME, PATIENT_ID, BIRTH_DATE = "Okonkwo^Adaeze", "MRN7788123", "19600229"
ENCODINGS = (Encoding(), Encoding(datasets.IMPLICIT_LE), Encoding(datasets.EXPLICIT_BE))
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS, ids=["explicit", "implicit", "big-endian"])


def an_object(*extra: Element, encoding: Encoding = ENCODINGS[0]) -> bytes:
    return datasets.part10(
        [
            element("SOPClassUID", datasets.CT_IMAGE),
            element("SOPInstanceUID", "1.2.3.4.77"),
            element("StudyDate", "20210314"),
            element("PatientName", NAME),
            element("PatientID", PATIENT_ID),
            element("PatientBirthDate", BIRTH_DATE),
            *extra,
        ],
        encoding,
    )


def hash_id(item: Any, value: str, field: Any, dicom: Dataset) -> str:
    return "HASHED01"


def copy_id(item: Any, value: str, field: Any, dicom: Dataset) -> str:
    return str(dicom.PatientID)


def route(item: Any, value: str, field: Any, dicom: Dataset) -> str:
    return f"{dicom.get('PatientID')} {dicom.get('StudyDate')} {dicom.get('PatientBirthDate')}"


def birth_year(item: Any, value: str, field: Any, dicom: Dataset) -> str:
    return str(dicom.PatientBirthDate)[:4]


def unchanged(item: Any, value: str, field: Any, dicom: Dataset) -> Any:
    return field.element.value


def number(item: Any, value: str, field: Any, dicom: Dataset) -> int:
    return 42


def a_sequence(item: Any, value: str, field: Any, dicom: Dataset) -> Sequence:
    code = Dataset()
    code.CodeValue = "X1"
    return Sequence([code])


def has_items(item: Any, value: str, field: Any, dicom: Dataset) -> bool:
    return field.element.VR == "SQ" and len(field.element.value) > 0


def is_of_acme(item: Any, value: str, field: Any, dicom: Dataset) -> bool:
    return bool(field.element.is_private and field.element.private_creator == "ACME")


FUNCTIONS = {
    one.__name__: one
    for one in (hash_id, copy_id, route, birth_year, unchanged, number, a_sequence, has_items, is_of_acme)
}


def deidentify(data: bytes, recipe: str, **settings: Any) -> Dataset:
    return read(run(data, recipe, SEARCHED.replace(**settings), functions=FUNCTIONS))


@every_encoding
def test_a_function_sees_what_earlier_rules_left(encoding: Encoding) -> None:
    """Catches the original PatientID in another element: rules before the function were applied."""
    recipe = (
        "REPLACE PatientID func:hash_id\nREPLACE PatientName func:copy_id\nJITTER StudyDate 31\n"
        "REMOVE PatientBirthDate\nADD PatientComments func:route\n"
    )
    new = deidentify(an_object(encoding=encoding), recipe)
    assert new.PatientName == "HASHED01"
    assert new.PatientComments == "HASHED01 20210414 None"


def test_a_function_sees_pseudonyms() -> None:
    recipe = "REPLACE PatientID func:generate_value\nREPLACE PatientName func:copy_id\n"
    new = deidentify(an_object(), recipe)
    assert str(new.PatientName) == new.PatientID != PATIENT_ID


def test_a_function_may_use_what_a_later_rule_removes() -> None:
    """The order of the recipe counts, not that of the tags."""
    new = deidentify(
        an_object(element("PatientAge", "061Y")), "REPLACE PatientAge func:birth_year\nREMOVE PatientBirthDate"
    )
    assert new.PatientAge == "1960"
    assert "PatientBirthDate" not in new


LEAKING = "REPLACE PatientName func:copy_id\nREPLACE PatientID func:hash_id\n"


def test_what_a_function_writes_is_searched() -> None:
    """Here the function runs before the identifier is replaced."""
    with pytest.raises(Quarantine) as caught:
        deidentify(an_object(), LEAKING)
    assert caught.value.reason is Reason.RESIDUAL_FOUND
    assert PATIENT_ID not in str(caught.value)


def test_what_a_function_writes_into_items_of_another_encoding_is_searched() -> None:
    """The items of a sequence of VR UN have implicit VRs."""
    item = real_world.el(0x00080104, None, "No Views")
    data = real_world.meta() + real_world.data_set(real_world.items(0x00400260, "UN", item))
    with pytest.raises(Quarantine) as caught:
        deidentify(data, "REPLACE CodeMeaning func:copy_id\nREPLACE PatientID func:hash_id\n")
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize("policy", ["redact-token", "remove-element"])
def test_the_policy_for_residuals_holds_for_what_is_written(policy: str) -> None:
    assert PATIENT_ID not in str(deidentify(an_object(), LEAKING, residuals=policy))


def test_what_a_variable_writes_is_searched() -> None:
    with pytest.raises(Quarantine) as caught:
        run(
            an_object(element("PatientComments", "x")),
            "REPLACE PatientComments var:note\nREMOVE PatientID",
            SEARCHED,
            variables={"note": f"was {PATIENT_ID}"},
        )
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@every_encoding
def test_a_sequence_has_its_items(encoding: Encoding) -> None:
    sequence = Element(0x00081032, "SQ", [[element("CodeValue", "1"), element("CodeMeaning", "x")]])
    data = an_object(sequence, encoding=encoding)
    assert "ProcedureCodeSequence" not in deidentify(data, "REMOVE ProcedureCodeSequence func:has_items")
    new = deidentify(data, "REPLACE ProcedureCodeSequence func:a_sequence")
    assert [one.CodeValue for one in new.ProcedureCodeSequence] == ["X1"]


@every_encoding
def test_a_function_adds_a_sequence(encoding: Encoding) -> None:
    new = deidentify(an_object(encoding=encoding), "ADD ProcedureCodeSequence func:a_sequence")
    assert [one.CodeValue for one in new.ProcedureCodeSequence] == ["X1"]


def test_a_number_is_written_as_text() -> None:
    new = deidentify(
        an_object(element("StudyID", "7"), element("SeriesNumber", "3")), "REPLACE endswith:StudyID func:number"
    )
    assert new.StudyID == "42"


def test_a_private_element_has_its_creator() -> None:
    data = an_object(Element(0x00290010, "LO", "ACME"), Element(0x00291001, "LO", "something"))
    new = deidentify(data, "REMOVE ALL func:is_of_acme", private_elements="keep")
    assert 0x00291001 not in new
    assert 0x00290010 in new


def test_text_that_a_function_leaves_keeps_its_bytes() -> None:
    """Text in several character sets has more than one encoding."""
    text = b"M\xfcller \x1b-L\xb4\xdc\x1b-A and"
    data = an_object(
        element("SpecificCharacterSet", "ISO 2022 IR 100\\ISO 2022 IR 144"), element("StudyDescription", text)
    )
    new = run(data, "REPLACE StudyDescription func:unchanged", RULES_ALONE, functions=FUNCTIONS)
    assert text in new.to_bytes()
