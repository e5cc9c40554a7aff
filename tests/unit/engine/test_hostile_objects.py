"""Objects that are not what their headers say."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import datasets
from tests.support.datasets import SECRET, Element, Encoding, an_object, element
from tests.support.engine import RULES_ALONE, pseudonyms, read, rules, run

from dicom_deid.engine import Deidentifier, NeedMoreDataError, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceRange
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

DESKTOP = Recipe.named("desktop")
PLAIN = Encoding()
SWEPT = RULES_ALONE.replace(residuals="quarantine")


def hidden() -> list[list[Element]]:
    return [[element("PatientName", SECRET), element("PatientID", "PID991234")]]


@pytest.mark.parametrize("recipe", ["JITTER StudyDate 31", "JITTER endswith:Date var:patient_offset"])
def test_a_date_that_is_a_sequence_hides_nothing(recipe):
    data = an_object(Element(0x00080020, "SQ", hidden()))
    new = run(data, f"{recipe}\nREPLACE PatientName x\nREMOVE PatientID")
    assert SECRET.encode() not in new.to_bytes()
    assert "StudyDate" in read(new)


@pytest.mark.parametrize("recipe", ["JITTER PatientBirthDate 31", "JITTER PatientBirthDate var:patient_offset"])
def test_a_date_with_the_vr_of_a_time_is_shifted(recipe):
    data = an_object(Element(0x00100030, "TM", "19500131"))
    assert b"19500131" not in run(data, recipe).to_bytes()


@pytest.mark.parametrize(
    "pixels",
    [Element(0x7FE00010, "SQ", hidden()), Element(0x7FE00010, "UT", SECRET), Element(0x7FE00010, "LO", SECRET)],
)
def test_pixel_data_of_a_wrong_vr_is_refused(pixels):
    with pytest.raises(Quarantine) as caught:
        run(an_object(pixels), DESKTOP)
    assert caught.value.reason is Reason.MALFORMED


def test_an_identifier_with_the_vr_of_a_sequence_is_refused():
    with pytest.raises(Quarantine):
        run(an_object(Element(0x00080060, "SQ", hidden())), DESKTOP)


def test_a_well_known_uid_in_an_instance_element_is_replaced():
    """Catches the original that one element needs and another gives up."""
    uid = "1.2.840.10008.1.1"
    data = an_object(element("SOPInstanceUID", uid), Element(0x00080058, "UI", [uid, "1.2.3.9"]))
    assert next(iter(read(run(data, DESKTOP)).FailedSOPInstanceUIDList)) == uid


def test_group_2_in_the_data_set_is_refused():
    data = an_object()
    at = data.index(b"\x08\x00\x60\x00CS")
    stray = b"\x02\x00\x16\x00AE\x0a\x00ZIMMERWALD"
    assert b"ZIMMERWALD" not in run(data[:at] + stray + data[at:], DESKTOP).to_bytes()


@pytest.mark.parametrize("recipe", ["", "REPLACE PatientName x"])
def test_bytes_behind_a_deflated_data_set_are_left_out(recipe):
    data = an_object(encoding=Encoding(datasets.DEFLATED_LE))
    assert b"Zimmerwald" not in run(data + b"Zimmerwald", recipe, Settings.parity()).to_bytes()


def test_a_deflate_bomb_is_refused_before_it_fills_the_memory():
    bomb = zlib.compressobj(9, wbits=-15)
    body = bomb.compress(bytes(50_000_000)) + bomb.flush()
    data = an_object(encoding=Encoding(datasets.DEFLATED_LE))
    start = data.index(datasets.DEFLATED_LE.encode())
    head = data[: data.index(b"\x02\x00\x16\x00AE", start) + 16]
    with pytest.raises(Quarantine) as caught:
        run(head + body, DESKTOP, RULES_ALONE.replace(max_inflated_bytes=1_000_000))
    assert caught.value.reason is Reason.INFLATED_TOO_LARGE


def test_a_wrong_length_does_not_print_text_as_a_tag():
    """Catches four letters of a name in an audit row, in the place of a tag."""
    data = an_object()
    at = data.index(b"\x10\x00\x10\x00PN") + 6
    with pytest.raises(Quarantine) as caught:
        run(data[:at] + struct.pack("<H", 4) + data[at + 2 :], DESKTOP)
    assert "6d6d" not in str(caught.value)
    assert "6572" not in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [
        element("ImageComments", "Ref UI: Zimmerwald today"),
        element("RetrieveURL", "http://pacs/?n=Zimmerwald"),
        element("RetrieveAETitle", "ZIMMERWALD"),
        Element(0x00204000, "CS", "OTTOKAR "),
        element("ImageComments", "Zimmerwald1950"),
        element("ImageComments", "seen by ZimmerwaldOttokar"),
    ],
)
def test_the_residual_search_finds_what_hides_behind_a_word(extra):
    with pytest.raises(Quarantine) as caught:
        run(an_object(extra), DESKTOP, SWEPT)
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize(
    "text", ["January 31, 1950", "31 January 1950", "31/01/50", "19500131101500", "31.1.50", "31. Jan 1950"]
)
def test_the_residual_search_finds_dates_as_people_write_them(text):
    with pytest.raises(Quarantine):
        run(an_object(element("PatientBirthDate", "19500131"), element("ImageComments", text)), DESKTOP, SWEPT)


@pytest.mark.parametrize(
    ("name", "text"),
    [("张^伟明", "患者张伟明复查"), ("홍^길동", "환자 홍길동 씨"), ("O'Brien^Al", "OBrien"), ("Li^Wu", "Li Wu")],
)
def test_the_residual_search_finds_names_without_blanks_around_them(name, text):
    named = [
        element("SpecificCharacterSet", "ISO_IR 192"),
        element("PatientName", name),
        element("ImageComments", text),
    ]
    with pytest.raises(Quarantine):
        run(an_object(*named, encoding=Encoding(codec="utf-8")), DESKTOP, SWEPT)


def test_the_residual_search_reads_text_that_is_not_of_the_declared_character_set():
    named = [
        element("SpecificCharacterSet", "ISO_IR 192"),
        Element(0x00100010, "PN", "Müllersohn^Hanswurst".encode("latin-1")),
        Element(0x00204000, "LT", "Herr Hanswurst".encode("latin-1")),
    ]
    with pytest.raises(Quarantine):
        run(an_object(*named), DESKTOP, SWEPT)


def test_removing_a_residual_that_cannot_be_removed_ends():
    """Catches a search that never ends."""
    opaque = Element(0x00420011, "OB", b"Zimmerwald")
    new = run(an_object(opaque), DESKTOP, RULES_ALONE.replace(residuals="remove-element"))
    assert b"Zimmerwald" not in new.to_bytes()


# Large objects, analysed from their beginning


def in_parts(data: bytes, given: int, settings: Settings) -> bytes:
    engine = Deidentifier(DESKTOP, settings)
    while True:
        try:
            analysis = engine.analyse(data[:given], size=len(data))
            break
        except NeedMoreDataError as more:
            given = min(max(more.at_least, given + 1), len(data))
    if analysis.pixel_data is not None:
        end = analysis.pixel_data[1]
        if end is None:
            end = data.rindex(b"\xfe\xff\xdd\xe0\0\0\0\0") + 8
        engine.analyse_tail(analysis, data[end:])
    new = engine.rewrite(analysis, pseudonyms(analysis.identifiers))
    return b"".join(data[p.start : p.end] if isinstance(p, SourceRange) else p for p in new.parts)


@pytest.mark.parametrize("encapsulated", [False, True])
@pytest.mark.parametrize("given", range(100, 1400, 41))
def test_the_first_read_may_end_anywhere(given, encapsulated):
    """Catches bytes after the pixel data that are copied because the beginning held the whole pixel data."""
    pixels = Element(0x7FE00010, "OB", (b"\xff\xd8" + bytes(300), bytes(90))) if encapsulated else None
    tail = [Element(0xFFFCFFFC, "OB", SECRET.encode())]
    syntax = Encoding(datasets.JPEG_BASELINE if encapsulated else datasets.EXPLICIT_LE)
    data = an_object(*([pixels] if pixels else []), *tail, encoding=syntax)
    whole = run(data, DESKTOP).to_bytes()
    assert SECRET.encode() not in whole
    assert in_parts(data, given, RULES_ALONE) == whole


def test_the_end_of_a_large_object_is_searched():
    private = [Element(0x7FE10010, "LO", "SOMEBODY"), Element(0x7FE11001, "UN", b"seen Zimmerwald ")]
    data = an_object(*private)
    for length in (200, 600, len(data) - 40):
        with pytest.raises(Quarantine) as caught:
            in_parts(data, length, SWEPT.replace(private_elements="keep"))
        assert caught.value.reason is Reason.RESIDUAL_FOUND


def test_an_identifier_behind_the_pixel_data_of_a_large_object_is_refused():
    data = an_object() + b"\x08\x00\x18\x00UI\x08\x001.2.3.9\0"
    with pytest.raises(Quarantine):
        in_parts(data, len(data) - 40, RULES_ALONE)


def test_an_undefined_modality_is_not_in_the_key():
    """Catches free text in destination keys and audit rows."""
    new = run(an_object(element("Modality", "OTTOKAR")), DESKTOP)
    assert "Modality" not in new.identifiers
    assert Deidentifier(rules(""), RULES_ALONE).analyse(an_object(element("Modality", "OTTOKAR"))).modality == ""


@pytest.mark.parametrize("recipe", ["desktop", "ps3.15-basic"])
def test_a_mixture_of_explicit_and_implicit_vrs_is_made_explicit(recipe):
    """Readers decide by the first element, which the rules may remove: the output has explicit VRs alone."""
    data = bytearray(datasets.part10(datasets.ct_elements(1), Encoding(datasets.IMPLICIT_LE)))
    # The file meta information becomes the beginning of a data set with explicit VRs.
    data[132:136] = b"\1\0\0\0"
    output = run(bytes(data), Recipe.named(recipe)).to_bytes()
    assert read(output).Rows == read(datasets.part10(datasets.ct_elements(1))).Rows


TALK = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.pipeline.changes import read_elements
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.recipe import Recipe

def values(item, value, field, dicom):
    return str(field.element.value) + str(dicom.PatientWeight) + str(dicom.AcquisitionDateTime)

recipe = Recipe.resolve(sys.argv[2])
for path in sys.argv[3:]:
    engine = Deidentifier(recipe, Settings(residuals="report", pixel_risk="allow"), functions={"values": values})
    try:
        analysis = engine.analyse(open(path, "rb").read())
        engine.rewrite(analysis, PreviewPseudonyms().resolve(analysis.identifiers))
    except Quarantine as quarantine:
        print(quarantine)
    try:
        print(sum(len(element.texts) for element in read_elements(open(path, "rb").read()).values()))
    except Quarantine as quarantine:
        print(quarantine)
"""


def test_libraries_log_no_value(tmp_path):
    """A library that warns of a value quotes it, and the log of the task keeps it."""
    wrong = [
        [
            element("StudyInstanceUID", f"1.2.{SECRET}"),
            element("PatientWeight", SECRET),
            element("InstanceNumber", SECRET),
        ],
        [element("PatientID", SECRET * 9), element("AcquisitionDateTime", SECRET), element("PatientSex", SECRET)],
        [element("SpecificCharacterSet", SECRET)],
        [element("SpecificCharacterSet", f"ISO_IR 192\\{SECRET}"), element("StudyDescription", b"\xff\xfe")],
    ]
    paths = [tmp_path / f"{number}.dcm" for number in range(len(wrong) + 1)]
    for path, elements in zip(paths, wrong, strict=False):
        path.write_bytes(an_object(*elements, element("PatientComments", "x")))
    syntax = f"1.2.{SECRET}"
    paths[-1].write_bytes(an_object(encoding=Encoding()).replace(b"1.2.840.10008.1.2.1\0", syntax.encode()[:20]))
    recipe = tmp_path / "r.dicom"
    recipe.write_text(
        "FORMAT dicom\n%values all\nFIELD ALL\n%header\nREPLACE PatientComments func:values\nREMOVE values:all"
    )
    arguments = [sys.executable, "-c", TALK, "--", str(recipe), *map(str, paths)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) >= len(paths)
    assert SECRET[:8] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "term", ["FOO", "FOO\\ISO 2022 IR 87", "ISO_IR 192\\FOO", "ISO-IR 999", "rot_13", "cp037", "utf_16", "utf_7", "hex"]
)
def test_an_unknown_character_set_is_quarantined(term):
    """Catches text wrongly read as Latin-1: original values in it are not found."""
    with pytest.raises(Quarantine) as caught:
        run(an_object(element("SpecificCharacterSet", term)), DESKTOP)
    assert (caught.value.reason, caught.value.where) == (Reason.UNSUPPORTED_CHARACTER_SET, "(0008,0005)")


@pytest.mark.parametrize(
    ("term", "codec"),
    [
        *(("ISO IR 100", "latin-1"), ("ISO-IR 144", "iso8859_5"), ("latin_1", "latin-1"), ("utf-8", "utf-8")),
        *(("ISO_IR_100", "latin-1"), ("ISO-2022-IR-100", "latin-1"), ("cp1252", "cp1252"), ("", "latin-1")),
    ],
)
def test_common_spellings_of_a_character_set_pass(term, codec):
    """Catches objects of many archives that are held back for a blank in the place of an underscore."""
    name = "Иванов^Пётр" if codec == "iso8859_5" else "Müller^Jörg"
    encoding = Encoding(codec=codec)
    data = an_object(
        element("SpecificCharacterSet", term),
        element("OtherPatientNames", name),
        element("StudyID", name),
        encoding=encoding,
    )
    deidentifier = Deidentifier(rules("REPLACE StudyID func:generate_value"), RULES_ALONE)
    assert [original.value for original in deidentifier.analyse(data).identifiers] == [name]


ASKED = (0x00080008, 0x00180088, 0x00280010, 0x00281101, 0x0018602C)
FILTERS = Recipe.parse(
    "FORMAT dicom\n%filter graylist\nLABEL all\n"
    + "".join(f" {'+' if tag != ASKED[0] else ''} notcontains 0x{tag:08x} zzz\n" for tag in ASKED)
    + " coordinates 0,0,2,2\n coordinates from:SequenceOfUltrasoundRegions\n",
    "test.dicom",
)
VRS = st.sampled_from(["US", "SS", "FD", "DS", "IS", "AT", "UN", "SQ", "OB", "CS", "UV"])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*ASKED, 0x00186011]), VRS, st.binary(max_size=20))
def test_a_filter_asks_for_elements_of_any_vr_and_length(tag, vr, value):
    """Catches what pydicom raises of them, which ends a batch as a fault of the program."""
    data = an_object(Element(tag, vr, value)) if vr != "SQ" else an_object(Element(tag, vr, hidden()))
    with suppress(Quarantine):
        Deidentifier(FILTERS, RULES_ALONE).deidentify(data, pseudonyms)


def test_an_element_of_a_wrong_length_that_a_filter_asks_for_is_compared_as_it_is():
    recipe = Recipe.parse("FORMAT dicom\n%filter hold\nLABEL all\n contains 0x0018602c Doe\n")
    data = an_object(Element(0x0018602C, "FD", b"Doe^"))
    with pytest.raises(Quarantine) as caught:
        Deidentifier(recipe, RULES_ALONE.replace(pixel_risk="quarantine")).analyse(data)
    assert caught.value.reason is Reason.PIXEL_RISK
