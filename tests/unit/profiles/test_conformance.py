"""Every row of PS3.15 Table E.1-1 is carried out by the recipe, at the root and nested, in any object.

Catches: a row whose rule selects nothing, or another element; an action that another rule overrides; a dummy that is
not valid for its VR; an option that does not reach its rows. `docs/conformance.md` names these tests row by row.
"""

from __future__ import annotations

import io
from functools import cache

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from tests.support.datasets import (
    CT_IMAGE,
    ENHANCED_MR_IMAGE,
    RAW_DATA,
    Element,
    Encoding,
    element,
    encode_value,
    part10,
)
from tools.ps3_15.recipes import OWN_VALUES, SUPPLEMENTS
from tools.ps3_15.table import Row, read_rows

from dicom_deid.dicom.part10 import read_header
from dicom_deid.engine import Deidentifier
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.recipe import CompiledRecipe, ElementName, Recipe
from dicom_deid.recipe.element_names import DICTIONARY_TAGS
from dicom_deid.recipe.types import sop_classes, types_of

ROWS = read_rows()
DATA_SET_ROWS = [row for row in ROWS if row.in_data_set]
HOLDER = "ReferencedSeriesSequence"
UID = "1.2.826.0.1.3680043.8.498.77"
VALUES = {
    "AE": "SECRET",
    "AS": "061Y",
    "CS": "SECRET",
    "DA": "20110304",
    "DS": "81.5",
    "DT": "20110304101112",
    "IS": "7",
    "OB": b"SECRET",
    "PN": "Secret^Name",
    "TM": "101112",
    "UI": UID,
    "UN": b"SECRET",
    "UR": "http://secret.example",
    "US": 7,
}
# With a value type, so that it is a content item in sequences that require one.
ITEM = [element("RetrieveLocationUID", "1.2.3.4.5"), element("ValueType", "CONTAINER")]


def value_of(vr: str) -> object:
    return [ITEM] if vr == "SQ" else VALUES.get(vr, "Secret text")


def an_object(row: Row, sop_class: str) -> bytes:
    """Return an object with the row's element at the root and two items deep."""
    tag = int(row.tag[1:5] + row.tag[6:10], 16)
    subject = Element(tag, row.vr, value_of(row.vr))
    base = [
        element("SOPClassUID", sop_class),
        element("SOPInstanceUID", "1.2.3"),
        element("StudyInstanceUID", "1.2.4"),
        element("PatientID", "77"),
        element(HOLDER, [[element(HOLDER, [[subject]])]]),
    ]
    return part10([*(e for e in base if e.tag != tag), subject])


def resolve(identifiers):
    forms = {IdentifierKind.UID: "2.25.", IdentifierKind.DATE_OFFSET: "-"}
    return {one: f"{forms.get(one.kind, 'P')}{number}" for number, one in enumerate(identifiers, 31)}


@cache
def engine(options: tuple[Option, ...] = ()) -> Deidentifier:
    settings = profile_settings(options).replace(residuals="off", pixel_risk="allow", documents="allow")
    return Deidentifier(Recipe.resolve(*recipe_names(options)), settings)


def outcome(row: Row, options: tuple[Option, ...] = (), sop_class: str = RAW_DATA) -> list[DataElement | None]:
    """Return the row's element at the root and nested, as the profile leaves them."""
    dataset = dcmread(io.BytesIO(engine(options).deidentify(an_object(row, sop_class), resolve).to_bytes()))
    holders: list[Dataset] = [dataset]
    if HOLDER in dataset:
        holders.append(dataset[HOLDER].value[0][HOLDER].value[0])
    return [holder.get(int(row.tag[1:5] + row.tag[6:10], 16)) for holder in holders]


def original(row: Row) -> bytes:
    return encode_value(Element(0x00100010, row.vr, value_of(row.vr)), Encoding())


def is_original(found: DataElement | None, row: Row) -> bool:
    if found is None:
        return False
    if row.vr == "SQ":
        return len(found.value) == 1 and "RetrieveLocationUID" in found.value[0]
    value = found.value if isinstance(found.value, bytes) else str(found.value).encode()
    return value.rstrip(b" \0") == original(row).rstrip(b" \0") if row.vr != "US" else found.value == VALUES["US"]


@pytest.mark.filterwarnings("error:Invalid value for VR")
@pytest.mark.parametrize("row", DATA_SET_ROWS, ids=lambda row: row.tag[1:5] + row.tag[6:10])
def test_row(row: Row) -> None:
    for found, root in zip(outcome(row), (True, False), strict=False):
        check_outcome(found, row, row.action(RAW_DATA, root=root))


def check_outcome(found: DataElement | None, row: Row, action: str) -> None:
    if row.keyword in OWN_VALUES or (row.vr == "SQ" and action in "DU"):
        # A sequence stays, its elements have rows of their own.
        assert found is not None
        assert row.vr == "SQ" or not is_original(found, row)
    elif action == "X":
        assert found is None
    elif action == "Z":
        assert found is not None
        assert not found.value
    else:
        assert found is not None
        assert found.value not in (None, "", b"")
        assert not is_original(found, row)


def classes_by_type(row: Row, *, root: bool) -> dict[str, str]:
    """Return a SOP class for each type that any gives the row's attribute at a place."""
    return {types_of(uid).of(row.keyword, root): uid for uid in ("", *sop_classes())}


COMPOSITE = [
    pytest.param(row, sop_class, root, id=f"{row.keyword}-{'root' if root else 'nested'}-type{type_}")
    for row in DATA_SET_ROWS
    if row.is_composite
    for root in (True, False)
    for type_, sop_class in classes_by_type(row, root=root).items()
]


@pytest.mark.parametrize(("row", "sop_class", "root"), COMPOSITE)
def test_composite_action(row: Row, sop_class: str, root: bool) -> None:
    """Catches an attribute that is removed where an IOD needs it, or that stays, if a dummy, where none does."""
    found = outcome(row, sop_class=sop_class or "1.2.3.4.5")[not root]
    check_outcome(found, row, row.action(sop_class, root=root))


def test_types_are_read_at_their_place() -> None:
    """Facts of PS3.3 that hold in the table: a slip of a column would move them."""
    ct, enhanced_mr, rt_plan = "1.2.840.10008.5.1.4.1.1.2", ENHANCED_MR_IMAGE, "1.2.840.10008.5.1.4.1.1.481.5"
    assert types_of(ct).of("AcquisitionDateTime", True) == "3"
    assert types_of(enhanced_mr).of("AcquisitionDateTime", True) == "1"
    assert types_of(enhanced_mr).of("ContentDate", True) == "1"
    assert types_of(ct).of("ReferencedImageSequence", True) == "3"
    assert types_of(enhanced_mr).of("ReferencedImageSequence", False) <= "2"
    assert types_of(ct).of("RTPlanDate", True) == "3"
    assert types_of(rt_plan).of("RTPlanDate", True) == "2"
    assert types_of("1.2.3") == types_of("")


@pytest.mark.parametrize(
    ("in_file_meta", "in_data_set"),
    [(RAW_DATA, CT_IMAGE), (CT_IMAGE, RAW_DATA), (CT_IMAGE, ""), ("", CT_IMAGE), ("1.2.3.4", "1.2.3.4")],
)
def test_a_sop_class_that_is_in_doubt(in_file_meta: str, in_data_set: str) -> None:
    """Catches an engine that believes one of two: the strictest types hold."""
    one, other = dated_object(in_file_meta), dated_object(in_data_set)
    data = one[: read_header(one).data_set_start] + other[read_header(other).data_set_start :]
    dataset = dcmread(io.BytesIO(engine().deidentify(data, resolve).to_bytes()))
    assert dataset.InstanceCreationDate == dataset.ContentDate == "19000101"


def test_a_sop_class_that_is_agreed_on() -> None:
    """In a CT image one of the dates may be absent, and the other empty."""
    dataset = dcmread(io.BytesIO(engine().deidentify(dated_object(CT_IMAGE), resolve).to_bytes()))
    assert "InstanceCreationDate" not in dataset
    assert "ContentDate" in dataset
    assert not dataset.ContentDate


def test_what_was_done_is_counted_by_action() -> None:
    """Catches an audit that says `X/D` where it can say what was done, or says one thing where two may have been."""
    in_ct = engine().deidentify(dated_object(CT_IMAGE), resolve).actions
    assert in_ct["REMOVE"] == in_ct["BLANK"] == 1
    assert engine().deidentify(dated_object("1.2.3.4"), resolve).actions["X/D"] == 1


def dated_object(sop_class: str) -> bytes:
    dates = [element("InstanceCreationDate", "20110304"), element("ContentDate", "20110304")]
    return part10([element("SOPClassUID", sop_class), element("SOPInstanceUID", "1.2.3"), *dates])


OPTION_ROWS = [
    pytest.param(row, Option(option), id=f"{option}-{row.tag[1:5]}{row.tag[6:10]}")
    for row in DATA_SET_ROWS
    for option, code in row.options.items()
    if code == "K"
]


@pytest.mark.parametrize(("row", "option"), OPTION_ROWS)
def test_option_keeps(row: Row, option: Option) -> None:
    for found in outcome(row, (option,)):
        assert found is not None
        assert is_original(found, row)


MODIFIED = [
    row for row in DATA_SET_ROWS if "retain-longitudinal-modified-dates" in row.options and row.vr in ("DA", "DT")
]


@pytest.mark.parametrize("row", MODIFIED, ids=lambda row: row.tag[1:5] + row.tag[6:10])
def test_dates_are_shifted(row: Row) -> None:
    for found in outcome(row, (Option.RETAIN_LONGITUDINAL_MODIFIED_DATES,)):
        assert found is not None
        assert str(found.value)[:6] in ("201101", "201102"), "a month before the fourth of March"


def test_rows_of_the_engine() -> None:
    """Rows that no rule of the recipe carries out: commands, file meta, DICOMDIR and private attributes."""
    others = [row.tag for row in ROWS if not row.in_data_set and not row.tag.startswith(("(50XX", "(60XX"))]
    assert {tag[1:5] for tag in others} == {"0000", "0002", "0004", "RIVA"}
    data = part10(
        [*ITEM, element("SOPInstanceUID", "1.2.3"), Element(0x00090010, "LO", "ACME"), Element(0x00091001, "LO", "x")]
    )
    dataset = dcmread(io.BytesIO(engine().deidentify(data, resolve).to_bytes()))
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID != "1.2.3"
    assert not [e for e in dataset if e.tag.is_private]


@pytest.mark.parametrize("keyword", [keyword for keywords in SUPPLEMENTS.values() for keyword in keywords])
def test_supplement(keyword: str) -> None:
    """Attributes that may identify, that Table E.1-1 does not name and that the recipe removes."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    row = Row(f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keyword, keyword, dictionary_VR(tag), "X", {})
    assert row.tag not in {one.tag for one in ROWS}
    assert outcome(row) == [None, None]


def test_no_name_of_a_person_is_left_out() -> None:
    """Every attribute of VR PN in the dictionary is removed, emptied or replaced."""
    compiled = CompiledRecipe(Recipe.named("ps3.15-basic"))
    left = [tag for tag in DICTIONARY_TAGS if tag >> 16 > 4 and not compiled.steps(ElementName.of(tag))]
    assert [tag for tag in left if ElementName.of(tag).vr == "PN"] == []


@pytest.mark.parametrize("tag", ["50XXXXXX", "60XX3000", "60XX4000"])
def test_repeating_groups(tag: str) -> None:
    number = int(tag.replace("XX", "02", 1).replace("XXXX", "3000"), 16)
    data = part10([element("SOPInstanceUID", "1.2.3"), Element(number, "OW", b"\0\1\0\1")])
    assert number in dcmread(io.BytesIO(data))
    assert number not in dcmread(io.BytesIO(engine().deidentify(data, resolve).to_bytes()))
