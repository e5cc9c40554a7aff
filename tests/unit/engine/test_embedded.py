"""Data sets in values that are none are held, and values that look a little like one are not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import datasets
from tests.support.datasets import SECRET, Element, Encoding, an_object, element
from tests.support.engine import pseudonyms

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

PLAIN = Settings(pixel_risk="allow", documents="allow", residuals="off")
DESKTOP = Recipe.named("desktop")
ENCODINGS = [Encoding(datasets.EXPLICIT_LE), Encoding(datasets.IMPLICIT_LE), Encoding(datasets.EXPLICIT_BE)]
IDS = ["explicit", "implicit", "big-endian"]
RED_LUT = 0x00281201


def held(data: bytes, recipe: Recipe = DESKTOP, policy: Settings = PLAIN) -> str:
    """Return why an object is held; nothing where it is not."""
    engine = Deidentifier(recipe, policy)
    try:
        # Later times with what the engine has learned of the elements that repeat.
        for _ in range(4):
            analysis = engine.analyse(data)
            engine.rewrite(analysis, pseudonyms(analysis.identifiers))
    except Quarantine as problem:
        return problem.where if problem.reason is Reason.MALFORMED else str(problem.reason)
    return ""


def an_item(inner: Encoding, *, is_delimited: bool = False) -> bytes:
    """Return an item with a name."""
    order = inner.order
    content = datasets.encode([element("PatientName", SECRET)], inner)
    if is_delimited:
        end = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0)
        return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + end
    return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(content)) + content


@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
@pytest.mark.parametrize("inner", ENCODINGS, ids=IDS)
@pytest.mark.parametrize("is_delimited", [False, True])
@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        *((RED_LUT, "OW"), (RED_LUT, "UN"), (0x00282000, "OB"), (0x00660016, "OF"), (0x00281101, "US")),
        *((0x00180050, "DS"), (0x00180050, "FD"), (0x00184000, "LT"), (0x00080060, "CS"), (0x0040A160, "UT")),
    ],
)
def test_a_sequence_item_in_a_value_is_held(tag, vr, inner, encoding, is_delimited):
    """Catches a name in a sequence that is written at the tag or with the VR of something else."""
    value = an_item(inner, is_delimited=is_delimited)
    value += b"\0" * (-len(value) % 8)
    data = an_object(Element(tag, "OB", value), encoding=encoding)
    if encoding.explicit and vr != "OB":
        data = rewritten(data, tag, vr, value, encoding)
    assert "a data set" in held(data)


def rewritten(data: bytes, tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    """Return an object in which an element of VR OB has another."""
    order = encoding.order
    begin = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    is_short = vr in ("US", "DS", "FD", "LT", "CS")
    length = struct.pack(f"{order}H", len(value)) if is_short else struct.pack(f"{order}HI", 0, len(value))
    old = begin + b"OB" + struct.pack(f"{order}HI", 0, len(value)) + value
    assert data.count(old) == 1
    return data.replace(old, begin + vr.encode() + length + value)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
@pytest.mark.parametrize("inner", ENCODINGS, ids=IDS)
@pytest.mark.parametrize("is_nested", [False, True])
def test_elements_and_files_in_bytes_are_held(inner, encoding, is_nested):
    """Catches a data set without an item around it, and a whole file."""
    bare = datasets.encode([element("PatientName", SECRET), element("PatientID", "PID991234")], inner)
    for value in (bare, an_object(encoding=inner)):
        bytes_of = Element(RED_LUT, "OB", value)
        nested = Element(0x00081140, "SQ", [[bytes_of]])
        assert "a data set" in held(an_object(nested if is_nested else bytes_of, encoding=encoding))


def test_a_rule_that_removes_the_element_releases_the_object():
    data = an_object(Element(0x00282000, "OB", an_item(ENCODINGS[0])))
    recipe = Recipe.parse("FORMAT dicom\n%header\nREMOVE ICCProfile\nREPLACE PatientName x\n", "one")
    assert held(data, recipe) == ""
    nested = an_object(Element(0x00081140, "SQ", [[Element(0x00282000, "OB", an_item(ENCODINGS[0]))]]))
    assert held(nested, recipe) == ""


def test_private_bytes_are_held_unless_all_private_elements_stay():
    """Catches a data set at the tag of a private element that is safe."""
    block = [Element(0x00190010, "LO", "SIEMENS MR HEADER"), Element(0x0019100C, "OB", an_item(ENCODINGS[0]))]
    assert held(an_object(*block), policy=PLAIN.replace(private_elements="keep")) == ""
    assert "a data set" in held(an_object(*block), policy=PLAIN.replace(private_elements="safe"))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
@pytest.mark.parametrize("bits", [8, 16])
def test_lookup_tables_are_no_data_sets(bits, encoding):
    """Catches a false alarm on ramps, constant tables, inverted ones, and one that has the bytes of an item."""
    size = 1 << bits
    for numbers in (range(size), range(size - 1, -1, -1), [0] * size, [0xFFFE, 0xE000] * 8, [8, 0x60, 2, 0] * 3):
        value = struct.pack(f"<{len(numbers)}H", *numbers)
        offset = b"\0\0" if numbers == [0xFFFE, 0xE000] * 8 else b""
        lut = Element(RED_LUT, "OW" if encoding.explicit else "OB", offset + value)
        assert held(an_object(lut, encoding=encoding)) == ""


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=8, max_size=400).filter(lambda value: not value.startswith((b"\xfe\xff", b"\xff\xfe"))))
def test_random_bytes_are_no_data_sets(value):
    assert held(an_object(Element(RED_LUT, "OW", value + b"\0" * (len(value) % 2)))) == ""


def test_items_of_sequences_and_icons_are_no_values():
    """Catches a false alarm on an item after a value that ends as a header does, and on fragments of pixels."""
    last = [Element(0x00181030, "LO", "US\0\1"), Element(0x0018103E, "LO", "OB\0\0\x20\0\0\0")]
    many = Element(0x00081140, "SQ", [last, last, [element("PatientName", SECRET)]])
    icon = Element(0x00880200, "SQ", [[Element(0x7FE00010, "OB", (b"\1\2\3\4",))]])
    for encoding in ENCODINGS[:2]:
        assert held(an_object(many, encoding=encoding)) == ""
    assert held(an_object(many, icon)) == ""
