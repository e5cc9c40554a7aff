"""Replacements, dates, chains of rules, and the functions of users."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import datasets
from tests.support.datasets import element
from tests.support.engine import RULES_ALONE, pseudonyms, read, rules, run

from dicom_deid.engine import Deidentifier
from dicom_deid.engine.dates import shift_date, shift_date_time
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

DAYS = st.integers(-20_000, 20_000)
DATES = st.dates(date(1900, 1, 1), date(2100, 12, 31))


@given(DATES, DATES, DAYS)
def test_intervals_are_preserved(first, second, days):
    """Catches a shift that depends on the date."""
    shifted = [shift_date(day.strftime("%Y%m%d"), days) for day in (first, second)]
    moved = [date(int(text[:4]), int(text[4:6]), int(text[6:])) for text in shifted if text]
    assert moved[1] - moved[0] == second - first
    assert moved[0] - first == timedelta(days)


@given(
    DATES,
    DAYS,
    st.sampled_from(["", "07", "0727", "072730", "072730.5", "235959.123456"]),
    st.sampled_from(["", "+0100"]),
)
def test_a_date_time_keeps_its_precision_and_moves_with_its_date(day, days, time, offset):
    """Catches DT and DA that part company, and digits that the value never had."""
    text = day.strftime("%Y%m%d")
    moved = shift_date_time(text + time + offset, days)
    assert moved == f"{shift_date(text, days)}{time}{offset}"


@pytest.mark.parametrize("value", ["00000000", "UNKNOWN", "20040119-20040120", "2004", "200401", "20041301", "19"])
def test_what_is_no_complete_date_is_emptied_and_noted(value):
    """Catches an original date that stays because it could not be parsed, or is completed from today."""
    elements = [e for e in datasets.ct_elements(1) if e.tag != 0x00100030]
    data = datasets.part10([*elements, element("PatientBirthDate", value)])
    new = run(data, "JITTER PatientBirthDate 31")
    assert read(new).PatientBirthDate in (None, "")
    assert new.notes[Reason.DATE_EMPTIED] == 1


def test_rules_act_in_order():
    data = datasets.part10([*datasets.ct_elements(1), element("PatientComments", "original")])
    expectations = {
        "REPLACE StudyDate 20200101\nJITTER StudyDate 1": "20200102",
        "JITTER StudyDate 1\nREPLACE StudyDate 20200101": "20200101",
        "BLANK StudyDate\nJITTER StudyDate 1": "",
        "REPLACE StudyDate 20200101\nJITTER StudyDate 1\nJITTER StudyDate 2": "20200104",
        "REMOVE StudyDate\nREPLACE StudyDate 20200101": "20200101",
        "KEEP StudyDate\nREMOVE StudyDate": str(read(data).StudyDate),
        "ADD StudyDate 20210101\nJITTER StudyDate 1": "20210102",
        "KEEP StudyDate\nADD StudyDate 20210101": "20210101",
    }
    for recipe, expected in expectations.items():
        assert (read(run(data, recipe)).get("StudyDate") or "") == expected, recipe
    assert "StudyDate" not in read(run(data, "ADD StudyDate 20210101\nREMOVE StudyDate"))


def test_a_patient_has_one_offset_for_all_dates():
    """Catches dates of one patient that move by different numbers of days."""
    data = datasets.ct(9)
    before, after = read(data), read(run(data, "JITTER endswith:Date var:patient_offset"))
    original = Identifier(IdentifierKind.DATE_OFFSET, before.PatientID)
    days = int(pseudonyms([original])[original])
    for keyword in ("StudyDate", "PatientBirthDate", "SeriesDate"):
        assert after[keyword].value == shift_date(before[keyword].value, days)


def test_an_empty_identifier_is_keyed_by_its_study():
    """Catches two patients without an identifier who are merged into one."""

    def engine_originals(study: str) -> list[Identifier]:
        kept = [e for e in datasets.ct_elements(1) if e.tag not in (0x00100020, 0x0020000D, 0x00080050, 0x00200010)]
        empty = [element(keyword, "") for keyword in ("PatientID", "AccessionNumber", "StudyID")]
        data = datasets.part10([*kept, *empty, element("StudyInstanceUID", study)])
        recipe = rules(
            "\n".join(f"REPLACE {k} func:generate_value" for k in ("PatientID", "AccessionNumber", "StudyID"))
        )
        return [
            one
            for one in Deidentifier(recipe, RULES_ALONE).analyse(data).identifiers
            if one.kind is not IdentifierKind.UID
        ]

    for study in ("1.2.3", "1.2.4"):
        keyed = (IdentifierKind.ACCESSION_NUMBER, IdentifierKind.PATIENT_ID, IdentifierKind.STUDY_ID)
        assert {Identifier(kind, study) for kind in keyed} <= set(engine_originals(study))


def test_each_value_of_several_has_its_pseudonym():
    elements = [e for e in datasets.ct_elements(1) if e.tag != 0x00100020]
    data = datasets.part10([*elements, element("PatientID", ["A1", "B2"])])
    new = read(run(data, "REPLACE PatientID func:generate_value"))
    expected = pseudonyms([Identifier(IdentifierKind.PATIENT_ID, "A1"), Identifier(IdentifierKind.PATIENT_ID, "B2")])
    assert list(new.PatientID) == list(expected.values())


def test_padding_does_not_make_another_original():
    """Catches a patient who gets a second pseudonym because another device pads with blanks or nulls."""
    seen = set()
    for value in (b"AB", b" AB ", b"AB\0\0", b"AB  "):
        elements = [e for e in datasets.ct_elements(1) if e.tag != 0x00100020]
        data = datasets.part10([*elements, element("PatientID", value)])
        seen.add(str(read(run(data, "REPLACE PatientID func:generate_value")).PatientID))
    assert seen == set(pseudonyms([Identifier(IdentifierKind.PATIENT_ID, "AB")]).values())


def test_references_follow_and_well_known_uids_stay():
    """Catches a reference that still names the original instance, or a class that got a pseudonym."""
    data = datasets.part10(datasets.sr_elements(3))
    recipe = "REPLACE SOPInstanceUID func:generate_value\nREPLACE StudyInstanceUID func:generate_value"
    before, after = read(data), read(run(data, recipe))
    assert after.SOPClassUID == before.SOPClassUID

    def uids(dataset):
        return [e for e in dataset.iterall() if e.VR == "UI"]

    for old, new in zip(uids(before), uids(after), strict=True):
        if "Class" in old.keyword or old.keyword in ("CodingSchemeUID", "MappingResourceUID"):
            assert old.value == new.value
        else:
            assert (
                pseudonyms([Identifier(IdentifierKind.UID, old.value)])[Identifier(IdentifierKind.UID, old.value)]
                == new.value
            )


@pytest.mark.parametrize(
    ("term", "codec", "name"),
    [
        ("ISO_IR 192", "utf-8", "Müller^Jürgen"),
        ("GB18030", "gb18030", "王^小东"),
        ("ISO_IR 100", "latin-1", "Äneas^Rüdiger"),
        ("ISO_IR 144", "iso8859_5", "Люксембург"),
    ],
)
def test_replacements_are_written_in_the_character_set(term, codec, name):
    elements = [e for e in datasets.ct_elements(1) if e.tag not in (0x00080005, 0x00100010)]
    with_set = [*elements, element("SpecificCharacterSet", term), element("PatientName", "x")]
    data = datasets.part10(with_set, datasets.Encoding(codec=codec))
    assert str(read(run(data, f"REPLACE PatientName {name}")).PatientName) == name


def test_what_the_character_set_cannot_write_is_an_error():
    """Catches mojibake."""
    elements = [e for e in datasets.ct_elements(1) if e.tag != 0x00080005]
    data = datasets.part10([*elements, element("SpecificCharacterSet", "ISO_IR 100")])
    with pytest.raises(Quarantine) as caught:
        run(data, "REPLACE PatientName 王^小东")
    assert caught.value.reason is Reason.NOT_ENCODABLE


def test_functions_see_the_element_and_the_object():
    def initials(item, value, field, dicom):
        assert value == "func:initials"
        return f"{str(field.element.value)[:1]}{dicom.Modality}"

    data = datasets.ct(1)
    assert str(read(run(data, "REPLACE PatientName func:initials", functions={"initials": initials})).PatientName) == (
        f"{str(read(data).PatientName)[:1]}CT"
    )


@pytest.mark.parametrize("result", [None, ValueError("SECRET^NAME")], ids=["nothing", "raises"])
def test_a_failing_function_quarantines_without_its_message(result):
    """Catches an original that stays, or a message of a function that carries a value."""

    def failing(item, value, field, dicom):
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(Quarantine) as caught:
        run(datasets.ct(1), "REPLACE PatientName func:failing", functions={"failing": failing})
    assert caught.value.reason is Reason.FUNCTION_FAILED
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("line", ["REPLACE PatientName var:nobody", "REPLACE PatientName func:nobody"])
def test_undefined_names_are_refused_before_the_first_object(line):
    with pytest.raises(ConfigurationError, match=r"test\.dicom:3: .*nobody"):
        Deidentifier(rules(line))


def test_a_condition_decides():
    data = datasets.ct(1)
    engine = {"functions": {"is_ct": lambda item, value, field, dicom: dicom.Modality == "CT"}}
    assert "PatientName" not in read(run(data, "REMOVE PatientName func:is_ct", **engine))
    assert "PatientName" in read(run(data, "REMOVE PatientName var:no", variables={"no": ""}))


@pytest.mark.parametrize("name", ["basic_uuid", "suffix_uuid", "dicom_uuid org_root=1.2.3", "pydicom_uuid"])
def test_the_functions_of_the_language(name):
    data = datasets.ct(1)
    values = [read(run(data, f"REPLACE PatientComments deid_func:{name}\nADD PatientComments x")) for _ in range(1)]
    assert values[0].PatientComments == "x"
    new = read(run(data, f"REPLACE SeriesDescription deid_func:{name}")).SeriesDescription
    assert new != read(data).SeriesDescription
    if name == "pydicom_uuid":
        assert new == read(run(data, f"REPLACE SeriesDescription deid_func:{name}")).SeriesDescription


def test_numbers_are_cast_to_their_vr():
    new = read(run(datasets.ct(1), "REPLACE Rows 7\nREPLACE SliceThickness 2.5"))
    assert (new.Rows, new.SliceThickness) == (7, 2.5)


def test_values_lists_remove_what_holds_them():
    """Catches a name that stays in a description although a list collected it."""
    elements = [e for e in datasets.ct_elements(1) if e.tag not in (0x00100010, 0x0008103E)]
    named = [*elements, element("PatientName", "Rosalind^Franklin"), element("SeriesDescription", "seen by FRANKLIN")]
    recipe = '%values names\nSPLIT PatientName by="^";minlength=4\n%header\nREMOVE values:names\nREPLACE PatientName x'
    new = read(
        run(
            datasets.part10(named),
            Recipe.parse(f"FORMAT dicom\n{recipe}"),
            RULES_ALONE.replace(private_elements="remove"),
        )
    )
    assert "SeriesDescription" not in new
    assert str(new.PatientName) == "x"


def test_values_lists_collect_a_value_that_is_not_valid_for_its_vr():
    """Catches text in a number, which pydicom cannot read, being collected as the repr of its bytes."""
    kept = [e for e in datasets.ct_elements(1) if e.tag != 0x0008103E]
    invalid = [element("AcquisitionDuration", b"NO7788"), element("SeriesDescription", "number NO7788")]
    recipe = "%values numbers\nFIELD AcquisitionDuration\n%header\nREMOVE AcquisitionDuration\nREMOVE values:numbers"
    new = read(run(datasets.part10([*kept, *invalid]), Recipe.parse(f"FORMAT dicom\n{recipe}")))
    assert "SeriesDescription" not in new
