"""Every row of PS3.15 Table E.1-1 is carried out by the recipe, at the root and nested, in any object.

Catches: a row whose rule selects nothing, or another element; an action that another rule overrides; a dummy that is
not valid for its VR; an option that does not reach its rows. `docs/conformance.md` names these tests row by row.
"""

from __future__ import annotations

import io
from functools import cache

import pytest
from bench.ps3_15.table import Row, read_rows
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from tests.support.datasets import RAW_DATA, Element, Encoding, element, encode_value, part10

from dicom_deid.deidentify import Deidentifier
from dicom_deid.deidentify.profiles import Option, profile_settings, recipe_names
from dicom_deid.originals import Kind
from dicom_deid.recipe import Recipe

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
# With a value type, so that it is a content item where such must stand.
ITEM = [element("RetrieveLocationUID", "1.2.3.4.5"), element("ValueType", "CONTAINER")]


def value_of(vr: str) -> object:
    return [ITEM] if vr == "SQ" else VALUES.get(vr, "Secret text")


def an_object(row: Row) -> bytes:
    """Return an object with the row's element at the root and two items deep."""
    tag = int(row.tag[1:5] + row.tag[6:10], 16)
    subject = Element(tag, row.vr, value_of(row.vr))
    base = [
        element("SOPClassUID", RAW_DATA),
        element("SOPInstanceUID", "1.2.3"),
        element("StudyInstanceUID", "1.2.4"),
        element("PatientID", "77"),
        element(HOLDER, [[element(HOLDER, [[subject]])]]),
    ]
    return part10([*(e for e in base if e.tag != tag), subject])


def resolve(originals):  # type: ignore[no-untyped-def]
    forms = {Kind.UID: "2.25.", Kind.DATE_OFFSET: "-"}
    return {one: f"{forms.get(one.kind, 'P')}{number}" for number, one in enumerate(originals, 31)}


@cache
def engine(options: tuple[Option, ...] = ()) -> Deidentifier:
    settings = profile_settings(options).replace(residuals="off", pixel_risk="allow", documents="allow")
    return Deidentifier(Recipe.resolve(*recipe_names(options)), settings)


def outcome(row: Row, options: tuple[Option, ...] = ()) -> list[DataElement | None]:
    """Return the row's element at the root and nested, as the profile leaves them."""
    dataset = dcmread(io.BytesIO(engine(options).deidentify(an_object(row), resolve).to_bytes()))
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
    for found in outcome(row):
        if row.action == "X":
            assert found is None
        elif row.vr == "SQ" and row.action in "DU":
            # The sequence stays, its elements have rows of their own.
            assert found is not None
        elif row.action in "DU":
            assert found is not None
            assert found.value not in (None, "", b"")
            assert not is_original(found, row)
        else:
            assert found is not None
            assert not is_original(found, row)


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
    assert {tag[1:5] for tag in others} == {"0000", "0002", "0004", "GGGG"}
    data = part10(
        [*ITEM, element("SOPInstanceUID", "1.2.3"), Element(0x00090010, "LO", "ACME"), Element(0x00091001, "LO", "x")]
    )
    dataset = dcmread(io.BytesIO(engine().deidentify(data, resolve).to_bytes()))
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID != "1.2.3"
    assert not [e for e in dataset if e.tag.is_private]


@pytest.mark.parametrize("tag", ["50XXXXXX", "60XX3000", "60XX4000"])
def test_repeating_groups(tag: str) -> None:
    number = int(tag.replace("XX", "02", 1).replace("XXXX", "3000"), 16)
    data = part10([element("SOPInstanceUID", "1.2.3"), Element(number, "OW", b"\0\1\0\1")])
    assert number in dcmread(io.BytesIO(data))
    assert number not in dcmread(io.BytesIO(engine().deidentify(data, resolve).to_bytes()))
