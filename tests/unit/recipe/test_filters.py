"""Sections ``%filter``: read as `deid` reads them, and decided as it decides."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset

from dicom_deid.recipe import Coordinates, Filter, Recipe, RecipeError, Rectangle

deid_config = pytest.importorskip("deid.config")

HEAD = "FORMAT dicom\n%filter graylist\n"
UNKNOWN = "Manfacturer"
US_REGIONS = 0x00186011


def filters_of(body: str) -> tuple[Filter, ...]:
    return Recipe.parse(HEAD + body).filters


def read_as_deid(body: str) -> tuple[Filter, ...]:
    return Recipe.parse(f"%compat deid\n{HEAD}{body}").filters


def flagged_by_deid(body: str, dataset: FileDataset, path: Path) -> list[list[object]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from deid.dicom.pixels.detect import has_burned_pixels

        path.write_text(HEAD + body)
        found = has_burned_pixels(dataset, deid=deid_config.DeidRecipe(str(path)))
    return [result["coordinates"] for result in found["results"]]


def value_of(dataset: FileDataset, tag: int) -> str | None:
    element = dataset.get(tag)
    return None if element is None else str(element.value or "")


CRITERIA = st.one_of(
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["contains", "notcontains", "equals", "notequals"]),
        st.sampled_from(["Modality", "Manufacturer", "SeriesDescription", UNKNOWN]),
        st.sampled_from(["CT", "ct", "GE", "GE Medical", "GE|Siemens", "dose", "^ge"]),
    )
)
PRESENCE = st.builds(
    "{} {}".format,
    st.sampled_from(["missing", "present", "empty"]),
    st.sampled_from(["Modality", "Manufacturer", "SeriesDescription", UNKNOWN]),
)


@st.composite
def label_bodies(draw: st.DrawFn) -> str:
    lines = []
    for number in range(draw(st.integers(1, 3))):
        lines.append(f"LABEL Device {number}")
        for index in range(draw(st.integers(1, 3))):
            # deid mixes up the values of a line with a criterion without a value before one with a value.
            criteria = draw(st.lists(draw(st.sampled_from([CRITERIA, PRESENCE])), min_size=1, max_size=3))
            operators = draw(st.lists(st.sampled_from([" + ", " || "]), min_size=2, max_size=2))
            line = criteria[0] + "".join(a + b for a, b in zip(operators, criteria[1:], strict=False))
            lines.append((draw(st.sampled_from(["", "+ ", "|| "])) if index else "") + line)
        lines += draw(
            st.lists(
                st.sampled_from(
                    ["coordinates 0,0,512,121", "keepcoordinates 1,2,3,4", "ctpcoordinates 1,2,3,4", "coordinates all"]
                ),
                max_size=3,
            )
        )
    return "\n".join(lines) + "\n"


@given(
    label_bodies(),
    st.sampled_from([None, "", "CT"]),
    st.sampled_from([None, "", "GE MEDICAL", "Siemens AS"]),
    st.sampled_from([None, "Dose Report"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filters_are_decided_as_deid_decides(
    tmp_path: Path, body: str, modality: str | None, manufacturer: str | None, description: str | None
) -> None:
    """Catches wrong operators, a first-match where all matches count, and coordinates out of order."""
    dataset = FileDataset("memory", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    for keyword, value in (
        ("Modality", modality),
        ("Manufacturer", manufacturer),
        ("SeriesDescription", description),
    ):
        if value is not None:
            setattr(dataset, keyword, value)
    matching = [one for one in read_as_deid(body) if one.matches(lambda tag: value_of(dataset, tag))]
    expected = flagged_by_deid(body, dataset, tmp_path / "filter.dicom")
    ours = [[[int(one.keep), str(one).split()[1]] for one in matched.coordinates] for matched in matching]
    assert ours == expected


def test_coordinates_keep_their_order_and_kind() -> None:
    """A later line covers an earlier one, so that order is meaning; CTP gives width and height."""
    (one,) = filters_of(
        "LABEL x # (someone)\n  coordinates all # everything\n  keepcoordinates 10,20,30, 40\n"
        "ctpcoordinates 10,20,30,40\nctpkeepcoordinates ALL\nKeepCoordinates from:SequenceOfUltrasoundRegions\n"
    )
    assert one.label == "x"
    assert one.coordinates == (
        Coordinates(False),
        Coordinates(True, Rectangle(10, 20, 30, 40)),
        Coordinates(False, Rectangle(10, 20, 40, 60)),
        Coordinates(True),
        Coordinates(True, from_tag=US_REGIONS),
    )
    assert one.matches(lambda tag: None), "without criteria a filter holds for every object"


def test_a_value_may_hold_an_operator() -> None:
    """The + of a device's name is no operator, since no criterion follows."""
    (one,) = filters_of("LABEL x\ncontains ManufacturerModelName SOMATOM AS+ || contains SeriesDescription A+B\n")
    assert [criterion.value for criterion in one.lines[0].criteria] == ["SOMATOM AS+", "A+B"]
    assert one.lines[0].operators == ("||",)


def test_values_stay_with_their_criteria() -> None:
    """deid gives the value of the second criterion to the first when the first takes none."""
    (one,) = filters_of("LABEL x\nmissing Manufacturer || contains Modality CT\n")
    assert one.matches({0x00080070: "GE", 0x00080060: "CT"}.get)
    assert not one.matches({0x00080070: "GE", 0x00080060: "MR"}.get)
    assert one.lines[0].tags == {0x00080070, 0x00080060}


def test_zero_is_a_value() -> None:
    """deid takes a 0 for an empty value."""
    (one,) = filters_of("LABEL x\nempty SeriesNumber\n")
    assert not one.matches({0x00200011: "0"}.get)
    assert one.matches({0x00200011: ""}.get)


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("contians Modality CT", 1, "did you mean contains?"),
        ("contains", 1, "needs a field"),
        ("  contains Modality", 12, "a value"),
        ("contains Modalty CT", 10, "did you mean Modality?"),
        ("contains Modality C(", 20, "regular expression"),
        ("missing Modality CT", 18, "a field only"),
        ("present Modality + contians Manufacturer GE", 18, "a field only"),
        ("coordinates 1,2,3", 13, "four numbers"),
        ("coordinates 1,2,3,x", 13, "four numbers"),
        ("coordinates 10,0,5,5", 13, "below its minimum"),
        ("coordinates 1,2,3,-4", 13, "four numbers"),
        ("ctpcoordinates from:SequenceOfUltrasoundRegions", 16, "four numbers, or all"),
        ("coordinates from:PatientID", 18, "not a sequence"),
        ("coordinates outside:PatientID", 21, "not a sequence"),
        ("clears", 1, "clears needs burned-in-annotation or pixel-risk"),
        ("clears pixel-risk video", 19, "not 'video'"),
        ("clears pixelrisk", 8, "did you mean pixel-risk?"),
        ("coordinates from:SequenceOfUltrasoundRegion", 18, "did you mean SequenceOfUltrasoundRegions?"),
    ],
)
def test_wrong_filter_lines_are_refused_where_they_stand(line: str, column: int, words: str) -> None:
    """Catches a filter that never matches, or blanks nothing, because of a slip of the pen."""
    with pytest.raises(RecipeError) as caught:
        filters_of(f"LABEL x\n{line}\n")
    (problem,) = map(str, caught.value.problems)
    assert problem.startswith(f"recipe:4:{column}: ")
    assert words in problem


@pytest.mark.parametrize(("body", "words"), [("contains Modality CT\n", "first LABEL"), ("LABEL\n", "needs a name")])
def test_criteria_belong_to_a_label(body: str, words: str) -> None:
    """Catches criteria that hang in the air."""
    with pytest.raises(RecipeError, match=words):
        filters_of(body)
