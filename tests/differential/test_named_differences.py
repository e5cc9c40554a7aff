"""Every place where the engine differs from the `deid` package on purpose, with both behaviours.

Would catch: the engine taking over one of these behaviours again, and a new version of deid that no longer has it, so
that the documentation would be wrong.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from tests.support import datasets
from tests.support.datasets import Element, element
from tests.support.oracle import FUNCTIONS, by_deid, by_engine, engine_for

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe, RecipeError

pytest.importorskip("deid")

HEAD = "FORMAT dicom\n%header\n"
OPEN = Settings(residuals="off", pixel_risk="allow", documents="allow")


def an_object(*extra: Element) -> bytes:
    """Return a small CT slice; elements of the same tag take the place of its own."""
    tags = {e.tag for e in extra}
    return datasets.part10([*(e for e in datasets.ct_elements(5, rows=4, columns=4) if e.tag not in tags), *extra])


@pytest.fixture
def deid(tmp_path: Path):
    """Run deid with a recipe's lines."""

    def run(lines: str, data: bytes) -> Dataset:
        path = tmp_path / "recipe.dicom"
        path.write_text(HEAD + lines)
        return by_deid(data, path)

    return run


def ours(lines: str, data: bytes, settings: Settings | None = None) -> Dataset:
    return dcmread(io.BytesIO(by_engine(data, engine_for(HEAD + lines, settings))))


def pseudonyms(lines: str, data: bytes) -> tuple[Dataset, dict[Identifier, str]]:
    """Run the engine as it is by default, with pseudonyms from a mapping."""
    found: dict[Identifier, str] = {}

    def resolve(identifiers):
        for one in identifiers:
            found.setdefault(one, f"2.25.{len(found) + 1}" if one.kind is IdentifierKind.UID else f"P{len(found) + 1}")
        return found

    result = Deidentifier(Recipe.parse(HEAD + lines), OPEN).deidentify(data, resolve)
    return dcmread(io.BytesIO(result.to_bytes())), found


def test_comment_after_a_field(deid) -> None:
    lines = "REMOVE PatientID # not needed\n"
    assert "PatientID" in deid(lines, an_object())
    assert "PatientID" not in ours(lines, an_object())


@pytest.mark.parametrize(
    "line", ["remove PatientID", "ERASE PatientID", "REMOVE startwith:Patient", "REMOVE PatientNam"]
)
def test_invalid_values(deid, line: str) -> None:
    # deid takes no notice of the line (or, for an unknown verb, empties): without a message.
    assert "PatientID" in deid(line + "\n", an_object())
    with pytest.raises(RecipeError):
        Recipe.parse(HEAD + line + "\n")


def test_undefined_names(deid) -> None:
    before = dcmread(io.BytesIO(an_object())).PatientID
    for value in ("var:nobody", "func:nobody"):
        assert deid(f"REPLACE PatientID {value}\n", an_object()).PatientID == before
        with pytest.raises(ConfigurationError):
            engine_for(HEAD + f"REPLACE PatientID {value}\n")


def test_function_that_returns_nothing(deid) -> None:
    data = an_object()
    lines = "REPLACE PatientID func:silent\n"
    assert deid(lines, data).PatientID == dcmread(io.BytesIO(data)).PatientID
    engine = Deidentifier(Recipe.parse(HEAD + lines), Settings.parity(), functions={"silent": lambda **_: None})
    with pytest.raises(Quarantine) as caught:
        by_engine(data, engine)
    assert caught.value.reason is Reason.FUNCTION_FAILED


def test_a_condition_sees_the_original_object(deid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "is_replaced", lambda item, value, field, dicom: dicom.PatientID == "x")
    lines = "REPLACE PatientID x\nREMOVE PatientSex func:is_replaced\n"
    assert "PatientSex" not in deid(lines, an_object())
    assert "PatientSex" in ours(lines, an_object())


@pytest.mark.parametrize("date", ["00000000", "UNKNOWN", "20200101-20200201"])
def test_date_that_cannot_be_read(deid, date: str) -> None:
    data = an_object(element("StudyDate", date))
    with pytest.raises(Exception, match=r".*"):  # whatever dateutil raises
        deid("JITTER StudyDate 3\n", data)
    engine = engine_for(HEAD + "JITTER StudyDate 3\n")
    result = engine.deidentify(data, lambda _: {})
    assert dcmread(io.BytesIO(result.to_bytes())).StudyDate == ""
    assert result.notes == {Reason.DATE_EMPTIED: 1}


def test_precision_of_a_shifted_date_and_time(deid) -> None:
    data = an_object(element("AcquisitionDateTime", "20200228101112"))
    lines = "JITTER AcquisitionDateTime 2\n"
    assert str(deid(lines, data).AcquisitionDateTime) == "20200301101112.000000"
    assert str(ours(lines, data).AcquisitionDateTime) == "20200301101112"


def test_added_transfer_syntax(deid) -> None:
    # deid writes a transfer syntax that the data set does not have, and nothing can read the object.
    lines = "ADD TransferSyntaxUID 1.2.3\n"
    assert deid(lines, an_object()).file_meta.TransferSyntaxUID == "1.2.3"
    assert ours(lines, an_object()).file_meta.TransferSyntaxUID == datasets.EXPLICIT_LE


def test_media_storage_instance_follows(deid) -> None:
    lines = "REPLACE SOPInstanceUID func:generate_value\n"
    theirs = deid(lines, an_object())
    assert theirs.file_meta.MediaStorageSOPInstanceUID != theirs.SOPInstanceUID
    mine, _ = pseudonyms(lines, an_object())
    assert mine.file_meta.MediaStorageSOPInstanceUID == mine.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in mine.file_meta


def test_references_follow(deid) -> None:
    before = dcmread(io.BytesIO(an_object()))
    lines = "REPLACE StudyInstanceUID func:generate_value\n"
    theirs = deid(lines, an_object())
    assert theirs.FrameOfReferenceUID == before.FrameOfReferenceUID
    mine, _ = pseudonyms(lines, an_object())
    study = mine.ReferencedStudySequence[0]
    assert study.ReferencedSOPInstanceUID == mine.StudyInstanceUID, "one UID under two keywords, one pseudonym"
    assert study.ReferencedSOPClassUID == before.ReferencedStudySequence[0].ReferencedSOPClassUID
    assert mine.FrameOfReferenceUID != before.FrameOfReferenceUID


def test_empty_identifiers_are_keyed_by_the_study() -> None:
    # With the desktop application's functions two patients without an identifier became one: deid itself has no say.
    data = an_object(element("PatientID", ""), element("StudyID", ""))
    study = str(dcmread(io.BytesIO(data)).StudyInstanceUID)
    _, found = pseudonyms("REPLACE PatientID func:generate_value\nREPLACE StudyID func:generate_value\n", data)
    assert {Identifier(IdentifierKind.PATIENT_ID, study), Identifier(IdentifierKind.STUDY_ID, study)} <= set(found)


def test_every_value_of_an_identifier_is_mapped() -> None:
    data = an_object(element("OtherPatientIDs", ["A1", "B2"]), element("StudyInstanceUID", ["1.2.3", "1.2.4"]))
    mine, found = pseudonyms("REPLACE StudyInstanceUID func:generate_value\n", data)
    expected = [found[Identifier(IdentifierKind.UID, "1.2.3")], found[Identifier(IdentifierKind.UID, "1.2.4")]]
    assert list(mine.StudyInstanceUID) == expected


def test_deidentification_attributes_are_valid(deid) -> None:
    lines = "ADD PatientIdentityRemoved Yes\n"
    assert deid(lines, an_object()).PatientIdentityRemoved == "Yes"
    mine, _ = pseudonyms(lines, an_object())
    assert mine.PatientIdentityRemoved == "YES"


def test_private_elements(deid) -> None:
    tag = 0x00091011
    assert tag in deid("REMOVE PatientID\n", an_object())
    mine, _ = pseudonyms("REMOVE PatientID\n", an_object())
    assert tag not in mine


def test_objects_that_are_not_dicom_are_not_changed(deid) -> None:
    lines = "ADD PatientIdentityRemoved YES\n"
    text = b"This is a letter, not an image. " * 20
    assert deid(lines, text).PatientIdentityRemoved == "YES"
    with pytest.raises(Quarantine) as caught:
        ours(lines, text)
    assert caught.value.reason is Reason.NOT_DICOM


def test_values_of_several_names(deid) -> None:
    # deid splits the text of the list, "['A^B', 'C^D']", and searches its brackets as a regular expression.
    data = an_object(element("OperatorsName", ["Torvel^Anna", "Quist^Bo"]), element("ImageComments", "Torvel was here"))
    sections = 'FORMAT dicom\n%values people\nSPLIT OperatorsName by="^"\n%header\nREMOVE values:people\n'
    mine = dcmread(io.BytesIO(by_engine(data, engine_for(sections))))
    assert "ImageComments" not in mine
    assert "OperatorsName" not in mine
    assert "Modality" in mine


@pytest.mark.parametrize("length", ["defined", "undefined"])
def test_private_sequences_have_their_creator(length: str, tmp_path: Path) -> None:
    # To deid a private sequence of undefined length has no creator, so that no rule can select it by name.
    data = datasets.part10(datasets.mr_elements(1), datasets.Encoding(sequences=length))
    path = tmp_path / "recipe.dicom"
    path.write_text(f"{HEAD}BLANK contains:Sequence\n")
    assert len(by_deid(data, path)[0x2001105F].value) == (1 if length == "undefined" else 0)
    assert len(ours("BLANK contains:Sequence\n", data)[0x2001105F].value) == 0


def test_text_of_another_character_set_keeps_its_bytes(deid) -> None:
    # deid has decoded the name when SpecificCharacterSet goes, so that writing the name fails or changes it.
    data = an_object(
        element("SpecificCharacterSet", "ISO_IR 144"), element("PatientName", "Люксембург".encode("iso8859-5"))
    )
    assert deid("BLANK SpecificCharacterSet\n", data).PatientName == "Люксембург"
    mine = ours("BLANK SpecificCharacterSet\n", data).get_item("PatientName")
    assert mine.value.strip() == "Люксембург".encode("iso8859-5")


def test_values_in_a_sequence(tmp_path: Path) -> None:
    # deid searches the items as pydicom prints them, with the names of their elements: "Referenced SOP Class UID".
    data = an_object(element("PatientName", "Referenced^Qoxivar"))
    sections = 'FORMAT dicom\n%values people\nSPLIT PatientName by="^"\n%header\nREMOVE values:people\n'
    path = tmp_path / "recipe.dicom"
    path.write_text(sections)
    assert "ReferencedStudySequence" not in by_deid(data, path)
    assert "ReferencedStudySequence" in dcmread(io.BytesIO(by_engine(data, engine_for(sections))))


def test_values_are_text_not_patterns(deid) -> None:
    data = an_object(element("PatientID", "C.T"), element("Modality", "CAT"))
    sections = "FORMAT dicom\n%values ids\nFIELD PatientID\n%header\nREMOVE values:ids\n"
    mine = dcmread(io.BytesIO(by_engine(data, engine_for(sections))))
    assert "PatientID" not in mine
    assert mine.Modality == "CAT"


def test_sequence_in_a_sequence_of_its_own_tag(deid) -> None:
    inner = [element("ValueType", "TEXT"), element("TextValue", "as before")]
    tree = [[element("ValueType", "CONTAINER"), element("ContentSequence", [inner])]]
    data = an_object(element("ContentSequence", tree))
    with pytest.raises(AttributeError):
        deid("REMOVE ContentSequence\nREMOVE TextValue\n", data)
    assert "ContentSequence" not in ours("REMOVE ContentSequence\nREMOVE TextValue\n", data)


def test_malformed_element_does_not_end_the_run() -> None:
    data = bytearray(an_object())
    at = data.index(b"\x08\x00\x60\x00CS")
    data[at + 6 : at + 8] = b"\xff\xff"
    with pytest.raises(Quarantine) as caught:
        ours("REMOVE PatientID\n", bytes(data))
    assert caught.value.reason in (Reason.MALFORMED, Reason.TRUNCATED)


def test_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    # deid hands the file back unchanged.
    with pytest.raises(ConfigurationError):
        Recipe.from_path(tmp_path / "nowhere.dicom")


def test_index_of_files_is_not_edited() -> None:
    data = datasets.part10([element("SOPClassUID", "1.2.840.10008.1.3.10"), element("FileSetID", "DISK")])
    with pytest.raises(Quarantine) as caught:
        ours("REMOVE FileSetID\n", data)
    assert caught.value.reason is Reason.DICOMDIR
