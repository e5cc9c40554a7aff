"""Field expressions and names of elements."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe import ElementName, Recipe
from dicom_deid.recipe.element_names import DICTIONARY_TAGS
from dicom_deid.recipe.fields import FieldExpression

CREATOR = "SIEMENS CSA HEADER"
PATIENT_NAME = ElementName.of(0x00100010)
NESTED_NAME = ElementName.of(0x00100010, parent="ReferencedStudySequence")
PRIVATE = ElementName.of(0x00291108, vr="CS", private_creator=CREATOR)
UNKNOWN_PRIVATE = ElementName.of(0x00291177, vr="LO", private_creator=CREATOR)
PRIVATE_CREATOR = ElementName.of(0x00290011)
OVERLAY = ElementName.of(0x60023000)


def field(text: str) -> FieldExpression:
    return Recipe.parse(f"FORMAT dicom\n%header\nBLANK {text}\n").rules[0].field


@given(st.sampled_from(DICTIONARY_TAGS) | st.integers(0x00080000, 0xFFFFFFFF), st.sampled_from([None, CREATOR]))
def test_elements_are_called_as_pydicom_calls_them(tag: int, creator: str | None) -> None:
    """deid matches against the names that pydicom gives; catches a name that differs for any tag."""
    is_private = bool(tag & 0x10000)
    is_member = tag & 0xFFFF >= 0x1000
    creator = creator if is_private and is_member else None
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if creator is not None:
            dataset.add_new((tag >> 16 << 16) | (tag >> 8 & 0xFF), "LO", creator)
        dataset.add_new(tag, "UN", b"")
    element = dataset[tag]
    ours = ElementName.of(tag, private_creator=creator)
    assert (ours.keyword, ours.name, ours.is_private) == (element.keyword, element.name, element.tag.is_private)


@given(st.sampled_from(DICTIONARY_TAGS))
def test_an_added_element_has_one_vr(tag: int) -> None:
    """Catches `US or SS`, which cannot be written."""
    assert len(vr_of(tag)) == 2


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("patientname", {PATIENT_NAME, NESTED_NAME}),
        ("(0010,0010)", {PATIENT_NAME, NESTED_NAME}),
        ("00100010", {PATIENT_NAME, NESTED_NAME}),
        ('"Patient\'s name"', {PATIENT_NAME, NESTED_NAME}),
        ("ReferencedStudySequence__PatientName", {NESTED_NAME}),
        ("contains:ReferencedStudy", {NESTED_NAME}),
        ("endswith:^PatientName", {PATIENT_NAME, NESTED_NAME}),
        (f'(0029,"{CREATOR.lower()}",08)', {PRIVATE}),
        (f'0029,"{CREATOR}",77', {UNKNOWN_PRIVATE}),
        (f'contains:"{CREATOR}"', {PRIVATE, UNKNOWN_PRIVATE}),
        ("(0029,1108)", {PRIVATE}),
        ('"[CSA Image Header Type]"', {PRIVATE}),
        ('"Private tag data"', {UNKNOWN_PRIVATE}),
        ("endswith:type]", {PRIVATE}),
        ('"Private Creator"', {PRIVATE_CREATOR}),
        ('"Overlay Data"', {OVERLAY}),
        ("60023000", {OVERLAY}),
        ("select:vr:cs", {PRIVATE}),
        ("select:GROUP:29", {PRIVATE, UNKNOWN_PRIVATE, PRIVATE_CREATOR}),
        ("except:patient|0029", {OVERLAY}),
        ("All", {PATIENT_NAME, NESTED_NAME, PRIVATE, UNKNOWN_PRIVATE, PRIVATE_CREATOR, OVERLAY}),
    ],
)
def test_expressions_select_by_every_name(text: str, selected: set[ElementName]) -> None:
    """Catches a name that is not looked at, or a place (nested, private) that is taken for another."""
    everything = {PATIENT_NAME, NESTED_NAME, PRIVATE, UNKNOWN_PRIVATE, PRIVATE_CREATOR, OVERLAY}
    assert {element for element in everything if field(text).selects(element)} == selected


def test_the_desktop_recipe_reaches_what_it_was_measured_to_reach() -> None:
    """50 date keywords, all DA, and 101 of trials: the figures measured on deid."""
    names = [ElementName.of(tag) for tag in DICTIONARY_TAGS]
    dates = [name for name in names if field("endswith:Date").selects(name)]
    assert (len(dates), {name.vr for name in dates}) == (50, {"DA"})
    assert sum(field("contains:Trial").selects(name) for name in names) == 101
