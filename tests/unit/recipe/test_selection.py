"""Criteria of a run: comparisons by order, the line that excludes an object, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.recipe import RecipeError
from dicom_deid.recipe.criteria import criterion_line, parse_criteria
from dicom_deid.recipe.element_names import keywords
from dicom_deid.recipe.selection import Selection


def excluded_by(values: Mapping[str, str], select: str = "", exclude: str = "") -> str:
    by_tag = {keywords()[keyword]: value for keyword, value in values.items()}
    return Selection.parse(select, exclude).excluded_by(by_tag.get)


@pytest.mark.parametrize(
    ("line", "value", "expected"),
    [
        ("between StudyDate 20190101 20201231", "20190101", True),
        ("between StudyDate 20190101 20201231", "20201231", True),
        ("between StudyDate 20190101 20201231", "20181231", False),
        ("between StudyDate 2019 2020", "20200630", True),
        ("between StudyDate 2019 2020", "20210101", False),
        ("between StudyDate 2019 2020", "2019.04.24", True),
        ("between StudyDate 2019 2020", "", False),
        ("between StudyDate 20190101 20201231", "UNKNOWN", False),
        ("between StudyDate 20190101 20201231", "2019", False),
        ("less AcquisitionDateTime 2019", "20181231235959.5+0100", True),
        ("greater StudyTime 1200", "130000", True),
        ("less Rows 64", "63", True),
        ("less Rows 64", "64", False),
        ("less SliceThickness 1.5", "1.25", True),
        ("greater SliceThickness 1.5", "many", False),
        ("less PixelSpacing 0.5", "0.75\\0.25", True),
        ("less PatientAge 018Y", "011M", True),
        ("less PatientAge 018Y", "020Y", False),
        ("greater PatientAge 089Y", "090Y", True),
    ],
)
def test_comparisons(line: str, value: str, expected: bool) -> None:
    """Catches a comparison as text where numbers or ages are meant, and one that holds for what cannot be compared."""
    (criterion,) = parse_criteria(line, 1).criteria
    assert criterion.holds(value) is expected
    assert criterion.holds(None) is False
    assert str(parse_criteria(str(parse_criteria(line, 1)), 1)) == line


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_between_is_neither_less_nor_greater(value: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    lines = (f"between Rows {low} {high}", f"less Rows {low}", f"greater Rows {high}")
    assert sum(parse_criteria(line, 1).holds(lambda tag: str(value)) for line in lines) == 1


CT = {"Modality": "CT", "StudyDate": "20200315", "BodyPartExamined": "CHEST", "ImageType": "ORIGINAL\\PRIMARY\\AXIAL"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"Modality": "MR"}, ""),
        ({"Modality": "US"}, "select: equals Modality CT || equals Modality MR"),
        ({"StudyDate": "20181231"}, "select: greater StudyDate 2018"),
        ({"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}, "exclude: contains ImageType LOCALIZER"),
        ({"BodyPartExamined": "HEAD"}, "exclude: missing BodyPartExamined || notequals BodyPartExamined CHEST"),
    ],
)
def test_every_select_line_and_no_exclude_line_must_hold(changed: dict[str, str], expected: str) -> None:
    """Catches lines that are joined the wrong way, and an object that is excluded without the line that did it."""
    select = "equals Modality CT || equals Modality MR   # thorax\n\ngreater StudyDate 2018\n"
    exclude = (
        "# no scouts\ncontains ImageType LOCALIZER\nmissing BodyPartExamined || notequals BodyPartExamined CHEST\n"
    )
    assert excluded_by(CT | changed, select, exclude) == expected


def test_no_criteria_exclude_nothing() -> None:
    assert not Selection.parse()
    assert Selection.parse("\n# nothing\n", "").digest == ""
    assert excluded_by(CT) == ""


def test_the_digest_depends_on_the_criteria_alone() -> None:
    """Catches objects that are read again for a comment, and criteria that change without it."""
    digests = [
        Selection.parse("equals Modality CT").digest,
        Selection.parse("  equals Modality CT # note\n").digest,
        Selection.parse("", "equals Modality CT").digest,
        Selection.parse("equals Modality MR").digest,
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("select", "exclude", "words"),
    [
        ("equal Modality CT", "", "select:1:1: unknown criterion 'equal'; did you mean equals?"),
        ("\n equals Modalty CT", "", "select:2:9: unknown field 'Modalty': no keyword or tag; did you mean Modality?"),
        ("", "less Modality 3", "exclude:1:15: less compares dates, times, ages and numbers; Modality has VR CS"),
        ("", "less Rows many", "exclude:1:11: 'many' is not a value of VR US, such as 64"),
        ("between StudyDate 20190101", "", "select:1:19: between takes a field and two values"),
        ("between StudyDate 20190101 2018", "", "select:1:28: the second value is below the first"),
        (
            "between StudyDate 2019-01-01 2020",
            "",
            "select:1:19: '2019-01-01' is not a value of VR DA",
        ),
        ("equals PatientID 7788", "", "select:1:1: PatientID identifies patients or objects"),
        ("contains ReferringPhysicianName Doe", "", "ReferringPhysicianName identifies"),
        ("", "equals StudyInstanceUID 1.2.3", "exclude:1:1: StudyInstanceUID identifies"),
    ],
)
def test_wrong_criteria_are_refused_at_their_place(select: str, exclude: str, words: str) -> None:
    """Catches a slip that selects nothing or everything, and the value of an identifier in the settings of a run."""
    with pytest.raises(RecipeError) as caught:
        Selection.parse(select, exclude)
    assert words in str(caught.value)
    assert str(caught.value).startswith("1 problem in the criteria")


def test_an_identifier_may_be_asked_for_without_its_value() -> None:
    assert excluded_by({"PatientID": ""}, exclude="empty PatientID") == "exclude: empty PatientID"


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(RecipeError) as caught:
        Selection.parse("equal Modality CT\nless Rows x", "present Row")
    assert [(one.file, one.line) for one in caught.value.problems] == [("select", 1), ("select", 2), ("exclude", 1)]


@pytest.mark.parametrize("value", ["CT", "Philips | Elscint", "a + equals Modality MR", "x # y", "(5.0)", ""])
def test_the_line_of_a_value_holds_for_that_value_only(value: str) -> None:
    """Catches a value whose characters have a meaning in the recipe language."""
    (line,) = Selection.parse(criterion_line("Manufacturer", value)).select
    assert line.holds(lambda _: value)
    assert not line.holds(lambda _: "Philips" if value else "x")
