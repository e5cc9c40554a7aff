"""Bounds on time and memory, and details that never show bytes of a value."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
import zlib

import pytest
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element
from tests.support.engine import RULES_ALONE, read, run

from dicom_deid.dicom.values import character_set, decode_text, encode_text
from dicom_deid.dicom.vr import KNOWN_VRS
from dicom_deid.engine import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

DESKTOP = Recipe.named("desktop")
SEARCHED = RULES_ALONE.replace(residuals="quarantine")
NAME = "Okonkwo^Adaeze"


def an_object(*extra: Element, encoding: Encoding | None = None) -> bytes:
    common = [
        element("SOPClassUID", datasets.CT_IMAGE),
        element("SOPInstanceUID", "1.2.3.4.77"),
        element("PatientName", NAME),
        element("PatientID", "MRN7788123"),
    ]
    return datasets.part10([*common, *extra], encoding or Encoding())


def quarantined(data: bytes, recipe: str | Recipe = DESKTOP, settings: Settings = SEARCHED) -> Quarantine:
    with pytest.raises(Quarantine) as caught:
        run(data, recipe, settings)
    return caught.value


def test_many_distinct_tags_are_refused_in_time() -> None:
    tags = (tag for tag in range(0x41000000, 0x41130000) if not tag & 0x10000)
    many = b"".join(struct.pack("<HH2sHH", tag >> 16, tag & 0xFFFF, b"US", 2, 0) for tag in tags if tag & 0xFFFF)
    began = time.process_time()
    assert quarantined(an_object() + many).reason is Reason.HEADER_TOO_LARGE
    assert time.process_time() - began < 5


def test_memory_for_a_deflated_object_is_bounded() -> None:
    """Catches an engine that inflates everything before it looks at the size."""
    body = zlib.compressobj(wbits=-15)
    head = datasets.part10([], Encoding(datasets.DEFLATED_LE), complete=False)
    head = head[: head.index(b"SCANNER VB42") + 12 + 16]
    element_ = struct.pack("<HH2s2xI", 0x0009, 0x1000, b"OB", 100_000_000)
    deflated = body.compress(element_) + b"".join(body.compress(bytes(10_000_000)) for _ in range(10)) + body.flush()
    tracemalloc.start()
    try:
        problem = quarantined(head + deflated, settings=RULES_ALONE.replace(max_inflated_bytes=20_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem.reason is Reason.INFLATED_TOO_LARGE
    assert peak < 60_000_000


def test_a_replacement_longer_than_its_header_allows_is_refused() -> None:
    uids = "\\".join(f"1.2.3.{number}" for number in range(2500))
    assert quarantined(an_object(element("FailedSOPInstanceUIDList", uids))).reason is Reason.INVALID_REPLACEMENT


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_removed_sequence_may_end_in_a_cut_header(cut: int) -> None:
    """The residual search parses what the rules remove."""
    inner = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 4) + b"Doe " + b"\x10\0\x20\0LO\2"[:cut]
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    sequence = struct.pack("<HH2s2xI", 0x0010, 0x1002, b"SQ", len(item)) + item
    data = an_object().replace(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"), sequence + b"\x20\0\x0d\0UI", 1)
    assert quarantined(data).reason is Reason.MALFORMED


def test_a_detail_never_shows_an_unknown_tag() -> None:
    """Four bytes of a name at the position of a tag would be printed as a tag."""
    for name in (b"Okonkwo^Adaeze", b"\xc5\xf5\xce\xb0\xc5\xf5\xce\xb0", b"Ok\0\0Ok\0\0"):
        data = an_object() + name + b"UT\0\0\xff\xff\0\0"
        shown = str(quarantined(data))
        assert not any(f"{low:02x}" in shown.partition(" at ")[0] for low in name if low)


@pytest.mark.parametrize(("policy", "left"), [("keep", True), ("remove", False)])
def test_elements_that_no_dictionary_knows(policy: str, left: bool) -> None:
    nested = Element(0x00081140, "SQ", [[Element(0x0008FF01, "LO", "anything")]])
    data = an_object(Element(0x0018FF01, "LO", "anything"), nested, Element(0x60000022, "LO", "a known overlay"))
    result = run(data, "REMOVE PatientName", RULES_ALONE.replace(unknown_elements=policy))
    assert (0x0018FF01 in read(result)) is left
    assert (b"anything" in result.to_bytes()) is left
    assert b"a known overlay" in result.to_bytes()
    assert result.actions.get("unknown-element-removed", 0) == (0 if left else 2)


def test_an_unknown_element_that_a_rule_selects_follows_the_rule() -> None:
    data = an_object(Element(0x0018FF01, "LO", "anything"))
    new = read(run(data, 'REPLACE (0018,ff01) "something"', RULES_ALONE.replace(unknown_elements="remove")))
    assert new[0x0018FF01].value == "something"


@pytest.mark.parametrize("sop_class", ["1.3.46.670589.50.1.9", datasets.CT_IMAGE])
@pytest.mark.parametrize("depth", [0, 1])
def test_content_items_of_another_class_are_held(sop_class: str, depth: int) -> None:
    item = [
        element("RelationshipType", "CONTAINS"),
        element("ValueType", "TEXT"),
        element("TextValue", "of a daughter"),
    ]
    content = Element(0x0040A730, "SQ", [item])
    data = an_object(element("SOPClassUID", sop_class), Element(0x00081140, "SQ", [[content]]) if depth else content)
    assert quarantined(data, "REMOVE PatientName", RULES_ALONE.replace(documents="quarantine")).reason is (
        Reason.STRUCTURED_CONTENT
    )


TEXTS = {
    b"\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    b"ISO 2022 IR 13\\ISO 2022 IR 87": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    b"\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    b"ISO 2022 IR 100\\ISO 2022 IR 144": "Müller^Дмитрий",
}


@pytest.mark.parametrize("terms", TEXTS)
@pytest.mark.parametrize("vr", ["PN", "LO"])
def test_text_of_several_character_sets_is_written_with_code_extensions(terms: bytes, vr: str) -> None:
    codecs = character_set(terms)
    encoded = encode_text(TEXTS[terms], vr, codecs)
    assert decode_text(encoded, vr, codecs) == TEXTS[terms]
    # Delimiters are of the first character set: no escape sequence is open before them.
    assert all(decode_text(part, vr, codecs) for part in encoded.split(b"^" if vr == "PN" else b"\\"))


@pytest.mark.parametrize("vr", sorted(KNOWN_VRS - {"UI"}))
@pytest.mark.parametrize("recipe", ["desktop", "ps3.15-basic"])
def test_a_uid_is_replaced_in_every_vr(vr: str, recipe: str) -> None:
    """Every VR that ReferencedSOPInstanceUID may be written with: replaced, refused, or removed."""
    raw = b"1.2.826.0.1.3680043.77"
    long_form = vr in {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
    head = struct.pack("<HH2s", 0x0008, 0x1155, vr.encode())
    value = head + (struct.pack("<2xI", len(raw)) if long_form else struct.pack("<H", len(raw))) + raw
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
    sequence = struct.pack("<HH2s2xI", 0x0008, 0x1140, b"SQ", len(item)) + item
    at = struct.pack("<HH2s", 0x0010, 0x0010, b"PN")
    data = an_object().replace(at, sequence + at, 1)
    output = b""
    with contextlib.suppress(Quarantine):
        output = run(data, Recipe.named(recipe)).to_bytes()
    assert raw not in output


def an_image(
    pixels: bytes, *, side: int = 4, bits: int = 16, frames: int = 1, tag: int = 0x7FE00010, syntax: str = ""
) -> bytes:
    sizes = {"SamplesPerPixel": 1, "Rows": side, "Columns": side, "BitsAllocated": bits, "BitsStored": bits}
    sizes |= {"HighBit": bits - 1, "PixelRepresentation": 0}
    return an_object(
        *(element(keyword, value) for keyword, value in sizes.items()),
        element("PhotometricInterpretation", "MONOCHROME2"),
        element("NumberOfFrames", str(frames)),
        Element(tag, {0x7FE00008: "OF", 0x7FE00009: "OD"}.get(tag, "OW"), pixels),
        encoding=Encoding(syntax or datasets.EXPLICIT_LE),
    )


@pytest.mark.parametrize("syntax", [datasets.EXPLICIT_LE, datasets.IMPLICIT_LE, datasets.EXPLICIT_BE])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("text", [NAME, NAME + 50 * " ", 64 * "x", 4096 * "x"])
def test_text_after_the_last_frame_is_blanked(syntax: str, frames: int, text: str) -> None:
    pixels = bytes(range(1, 33)) * frames
    data = an_image(pixels + text.encode(), frames=frames, syntax=syntax)
    result = run(data, "REMOVE PatientName")
    assert read(result).PixelData == read(data).PixelData[: len(pixels)] + bytes(len(text))
    assert result.actions["bytes-after-pixels-blanked"] == 1


@pytest.mark.parametrize(
    ("bits", "size", "tag"),
    [(1, 2, 0x7FE00010), (12, 24, 0x7FE00010), (8, 16, 0x7FE00010), (32, 64, 0x7FE00008), (64, 128, 0x7FE00009)],
)
def test_text_after_pixels_of_any_size_is_blanked(bits: int, size: int, tag: int) -> None:
    """Catches pixels of less than a byte, and of floating-point numbers."""
    data = an_image(bytes(range(1, size + 1)) + 8 * NAME.encode(), bits=bits, tag=tag)
    result = run(data, "REMOVE PatientName")
    assert read(result)[tag].value == bytes(range(1, size + 1)) + bytes(8 * len(NAME))


def test_text_after_pixels_that_are_cleaned_is_blanked() -> None:
    """Catches bytes after the frames that are taken for more frames when a rectangle is blanked."""
    recipe = "FORMAT dicom\n%filter graylist\nLABEL all\n contains PatientID MRN\n coordinates 0,0,1,1\n"
    data = an_image(bytes(range(1, 33)) + 64 * b"x")
    pixels = read(run(data, Recipe.parse(recipe, "r"))).PixelData
    assert pixels[2:] == bytes(range(3, 33)) + bytes(64)


@pytest.mark.parametrize("size", [2048, 4096, 20480])
def test_pixel_data_of_the_right_size_is_not_touched(size: int) -> None:
    """Also where NumberOfFrames counts too few."""
    pixels = bytes(range(1, 33)) * (size // 32)
    result = run(an_image(pixels, side=32), "REMOVE PatientName")
    assert read(result).PixelData == pixels
    assert "bytes-after-pixels-blanked" not in result.actions


def test_a_name_in_a_colour_profile_is_found() -> None:
    profile = bytes(128) + b"desc" + NAME.replace("^", " ").encode() + bytes(4)
    wide = bytes(128) + b"mluc" + NAME.partition("^")[0].encode("utf-16-be") + bytes(4)
    for value in (profile, wide):
        data = an_object(Element(0x00282000, "OB", value + bytes(len(value) % 2)))
        assert quarantined(data, "REMOVE PatientName").reason is Reason.RESIDUAL_FOUND
