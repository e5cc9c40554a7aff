"""Identifiers in corners: sequences in the place of pixels, UIDs and sequences in other VRs, mixed VRs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR
from tests.support import datasets
from tests.support.datasets import Element, Encoding, Items, element
from tests.support.engine import RULES_ALONE, pseudonyms

from dicom_deid.dicom.vr import KNOWN_VRS, LONG_FORM_VRS, TEXT_VRS
from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

NAME = "Okonkwo^Adaeze"
UID = b"1.2.826.0.1.3680043.77"
RECIPES = ("desktop", "ps3.15-basic")
NAMED: Items = [[element("PatientName", NAME)]]


@cache
def engine(recipe: str) -> Deidentifier:
    return Deidentifier(Recipe.named(recipe), RULES_ALONE)


def written(recipe: str, data: bytes) -> bytes:
    """Return the new object; nothing if the object is quarantined."""
    try:
        return engine(recipe).deidentify(data, pseudonyms).to_bytes()
    except Quarantine:
        return b""


def an_object(*extra: Element, encoding: Encoding | None = None) -> bytes:
    common = [
        element("SOPClassUID", datasets.CT_IMAGE),
        element("SOPInstanceUID", "1.2.3.4.77"),
        element("PatientID", "MRN7788123"),
    ]
    return datasets.part10(sorted([*common, *extra]), encoding or Encoding())


def raw_element(tag: int, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + struct.pack("<2xI" if vr in LONG_FORM_VRS else "<H", len(value)) + value


def item(value: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def with_raw(*elements: bytes) -> bytes:
    """Return an object with encoded elements before its PatientID."""
    before = struct.pack("<HH2s", 0x0010, 0x0020, b"LO")
    return an_object().replace(before, b"".join(elements) + before, 1)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("syntax", [datasets.EXPLICIT_LE, datasets.IMPLICIT_LE, datasets.EXPLICIT_BE])
@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009, 0x7FE00010, 0x60003000, 0x601E3000, 0x50003000, 0x54001010])
def test_a_sequence_in_the_place_of_pixels_is_no_pixels(tag: int, syntax: str, recipe: str) -> None:
    """Catches bytes that are copied because of their tag, and which readers of another VR read as elements."""
    output = written(recipe, an_object(Element(tag, "SQ", NAMED), encoding=Encoding(syntax)))
    assert NAME.encode() not in output


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009, 0x60003000])
def test_a_sequence_of_undefined_length_in_the_place_of_pixels_is_no_pixels(tag: int, recipe: str) -> None:
    inner = item(raw_element(0x00100010, "PN", NAME.encode()))
    sequence = struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, b"SQ", 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert NAME.encode() not in written(recipe, an_object() + sequence + inner + end)


def uid_tags() -> Iterator[int]:
    """Yield the tags of VR UI whose values are UIDs of objects, by PS3.6: others are of the standard or of software."""
    public = (
        "CreatorVersionUID",
        "SOPClass",
        "TransferSyntax",
        "CodingScheme",
        "ContextUID",
        "MappingResource",
        "TemplateUID",
        "ClassUID",
    )
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr == "UI" and tag >> 16 not in (0x0000, 0x0002, 0x0004) and not any(each in keyword for each in public):
            yield tag


def test_there_are_as_many_uids_as_were_found_to_survive() -> None:
    assert len(list(uid_tags())) >= 67
    assert len(KNOWN_VRS) >= 31


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("vr", sorted(KNOWN_VRS))
def test_a_uid_is_never_kept_for_its_vr(vr: str, recipe: str) -> None:
    """Each UID of the dictionary, written with each VR: replaced, removed, or the object is quarantined."""
    left = []
    for tag in uid_tags():
        sequence = raw_element(0x00081140, "SQ", item(raw_element(tag, vr, UID)))
        if UID in written(recipe, with_raw(sequence)):
            left.append(f"{tag:08x}")
    assert left == []


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("vr", ["OB", "OW", "UN", "UT", "OF", "UC"])
def test_a_sequence_that_is_written_as_bytes_or_text_hides_nothing(vr: str, recipe: str) -> None:
    """Catches items that readers with a dictionary parse, and that the engine takes for one value."""
    named = item(raw_element(0x00100010, "PN", NAME.encode()))
    implicit = item(struct.pack("<HHI", 0x0010, 0x0010, len(NAME)) + NAME.encode())
    for tag in (0x00081140, 0x00081111, 0x00400275, 0x00283010, 0x00081115):
        assert dictionary_VR(tag) == "SQ"
        for items in (named, implicit):
            assert NAME.encode() not in written(recipe, with_raw(raw_element(tag, vr, items))), f"{tag:08x}"


@pytest.mark.parametrize("vr", ["OB", "LO", "DS"])
@pytest.mark.parametrize(
    "lines", ["", "%values none\nSPLIT StudyID by='^';minlength=999\n%header\nREMOVE values:none\n"]
)
def test_a_sequence_of_another_vr_is_held_whatever_rules_leave(vr: str, lines: str) -> None:
    """Catches a rule that has a condition, and whose element is not looked at where it is not met."""
    recipe = Recipe.parse(f"FORMAT dicom\n{lines or '%header'}")
    with pytest.raises(Quarantine) as caught:
        Deidentifier(recipe, RULES_ALONE).analyse(with_raw(raw_element(0x00400275, vr, b"12 ")))
    assert (caught.value.reason, caught.value.where) == (Reason.MALFORMED, "(0040,0275)")


@pytest.mark.parametrize("recipe", RECIPES)
def test_implicit_elements_among_explicit_ones_are_read(recipe: str) -> None:
    """A second reader (dcmtk) takes bytes without a VR for an element of implicit VR, and goes on behind it."""
    name = struct.pack("<HHI", 0x0010, 0x0010, len(NAME)) + NAME.encode()
    assert NAME.encode() not in written(recipe, with_raw(name))
    nested = raw_element(0x00081140, "SQ", item(raw_element(0x00081150, "UI", b"1.2.840.10008.1.1\0") + name))
    assert NAME.encode() not in written(recipe, with_raw(nested))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tag", [0x00283010, 0x00283000, 0x00289110, 0x00409096])
def test_a_name_nested_in_a_table_of_values_does_not_survive(tag: int, recipe: str) -> None:
    """`deid` passes over the VOI LUT Sequence; only the settings for parity with it may."""
    assert NAME.encode() not in written(recipe, an_object(Element(tag, "SQ", NAMED)))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("vr", sorted(KNOWN_VRS - LONG_FORM_VRS))
def test_a_character_set_of_any_vr_stays(vr: str, recipe: str) -> None:
    """Catches a character set that is replaced as a UID, so that text is decoded wrongly or not at all."""
    description = element("ContentDescription", "M\xfcller")
    data = an_object(element("SpecificCharacterSet", "ISO_IR 100"), description)
    output = written(recipe, data.replace(b"\x08\0\5\0CS", b"\x08\0\5\0" + vr.encode()))
    assert not output or b"ISO_IR 100" in output
    assert output or vr not in TEXT_VRS
