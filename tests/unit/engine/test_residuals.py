"""Originals that the rules removed from one element and that are in another element."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element
from tests.support.engine import RULES_ALONE, found_in, read, rules, run

from dicom_deid.dicom.vr import vr_of
from dicom_deid.engine import Deidentifier
from dicom_deid.engine.residuals import search
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

RECIPE = """
REPLACE PatientName x
REPLACE PatientID func:generate_value
REMOVE PatientAddress
JITTER PatientBirthDate 31
REPLACE StudyInstanceUID func:generate_value
"""
STUDY = "1.2.3.4.999.12.777"
PLANTED = {0x0020000D, 0x00100010, 0x00100020, 0x00100030, 0x0008103E, 0x00101040, 0x00104000}
ENCODINGS = [Encoding(), Encoding(datasets.IMPLICIT_LE), Encoding(datasets.EXPLICIT_BE), Encoding(datasets.DEFLATED_LE)]


def an_object(*extra: Element, encoding: Encoding = ENCODINGS[0]) -> bytes:
    kept = [e for e in datasets.ct_elements(1) if e.tag not in PLANTED and e.vr not in ("SQ", "LO", "PN", "ST", "LT")]
    kept = [e for e in kept if not (e.tag >> 16) % 2]
    return datasets.part10(
        [
            *kept,
            *([] if any(e.tag == 0x0020000D for e in extra) else [element("StudyInstanceUID", STUDY)]),
            *([] if any(e.tag == 0x00100010 for e in extra) else [element("PatientName", "Van der Berg^Annika")]),
            *([] if any(e.tag == 0x00100020 for e in extra) else [element("PatientID", "QX-81723")]),
            element("PatientBirthDate", "19630704"),
            element("PatientAddress", "12 Orchard Lane, Oldtown"),
            *extra,
        ],
        encoding,
    )


def searched(data: bytes, policy: str = "quarantine", recipe: str = RECIPE):
    return run(data, recipe, RULES_ALONE.replace(residuals=policy, private_elements="keep"))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["explicit", "implicit", "big-endian", "deflated"])
@pytest.mark.parametrize(
    "text",
    [
        "seen by annika today",
        "BERG",
        "id qx-81723.",
        "born 4.7.1963",
        "born 1963-07-04",
        "07/04/1963",
        "4 Jul 1963",
        "04JUL1963",
        "July 4th, 1963",
        "4th of July 1963",
        "04071963",
        "1963_07_04",
        "from 12 Orchard Lane",
    ],
)
def test_an_original_in_a_description_is_found(text, encoding):
    """Catches a form or an encoding in which an original passes."""
    with pytest.raises(Quarantine) as caught:
        searched(an_object(element("SeriesDescription", text), encoding=encoding))
    assert caught.value.reason is Reason.RESIDUAL_FOUND
    assert found_in(caught) == "SeriesDescription"
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["Annikalee", "Bergamot", "81723", "119630704", "der", "orchard lanes", "anonymous x"])
def test_a_part_of_another_word_is_not(text):
    """Catches "Ann" found in "Annular": a quarantine without a way forward."""
    searched(an_object(element("SeriesDescription", text)))


@pytest.mark.parametrize("text", ["4th of June 1963", "July 14th 1963", "04AUG1963", "14071963", "24.7.1963"])
def test_another_day_is_not(text):
    searched(an_object(element("SeriesDescription", text)))


@pytest.mark.parametrize("name", ["Σωκράτης^Ιων", "Кузнецов^Иван", "王小^东明"])
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_names_of_every_script_are_found_in_both_orders_of_utf_16(name, codec):
    """Only Latin letters have the same bytes in both orders, but for the outer ones."""
    hidden = f"name: {name.split('^')[0].upper()} !".encode(codec)
    private = [Element(0x00290010, "LO", "SOMEBODY"), Element(0x00291001, "OB", hidden)]
    kept = [e for e in datasets.ct_elements(1) if e.tag not in {*PLANTED, 0x00080005} and not (e.tag >> 16) % 2]
    kept = [e for e in kept if e.vr not in ("SQ", "LO", "PN", "ST", "LT")]
    named = [element("SpecificCharacterSet", "ISO_IR 192"), element("PatientName", name)]
    with pytest.raises(Quarantine):
        searched(datasets.part10([*kept, *named, *private], Encoding(codec="utf-8")))


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Müller^Jörg", "MUELLER"),
        ("Müller^Jörg", "jorg"),
        ("Søndergård^Åse", "soendergaard"),
        ("Søndergård^Åse", "Sondergard"),
        ("Weiß^Ann", "weiss"),
        ("O'Brien^Ann", "OBRIEN"),
    ],
)
def test_a_name_without_its_accents_is_found(name, written):
    """As it is typed where the letters are not at hand."""
    kept = [e for e in datasets.ct_elements(1) if e.tag not in {*PLANTED, 0x00080005} and not (e.tag >> 16) % 2]
    kept = [e for e in kept if e.vr not in ("SQ", "LO", "PN", "ST", "LT")]
    text = element("SeriesDescription", f"of {written}, left")
    named = [element("SpecificCharacterSet", "ISO_IR 100"), element("PatientName", name), text]
    with pytest.raises(Quarantine):
        searched(datasets.part10([*kept, *named], Encoding(codec="latin-1")))


_BESIDE = {
    "UTF-8, before and after": ("ISO_IR 192", "患者Annikaさん".encode()),
    "UTF-8 that is declared as another": ("ISO_IR 100", "Annikaさん".encode()),
    "GB 18030, a letter as second byte": ("GB18030", "丄Annika复".encode("gb18030")),
    "GB 18030, an identifier": ("GB18030", "患者QX-81723复查".encode("gb18030")),
    "half-width katakana": ("ISO_IR 13", "ﾔﾏAnnikaｻﾝ".encode("shift_jis")),
    "kanji in escapes": ("\\ISO 2022 IR 87", "患者Annikaさん".encode("iso2022_jp")),
    "Hangul, an escape at the beginning": ("\\ISO 2022 IR 149", b"\x1b$)CAnnika" + "씨".encode("euc_kr")),
    "Cyrillic, an escape before": ("ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-LAnnika \xda\xde"),
    "a letter wrong, UTF-8": ("ISO_IR 192", "患者Anika女士".encode()),
    "a letter wrong, kanji in escapes": ("\\ISO 2022 IR 87", "患者Anika さん".encode("iso2022_jp")),
}


@pytest.mark.parametrize("place", _BESIDE)
def test_a_name_in_a_text_without_blanks_between_words_is_found(place):
    """Catches names in Latin letters beside characters of other scripts, whose bytes look like letters."""
    term, text = _BESIDE[place]
    with pytest.raises(Quarantine) as caught:
        searched(an_object(element("SpecificCharacterSet", term), element("ImageComments", text)))
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("ISO_IR 100", "géannika"),
        ("ISO_IR 192", "annikaée"),
        ("ISO_IR 144", "ужannika"),
        ("GB18030", "géannika"),
        ("\\ISO 2022 IR 87", "患者brannika"),
    ],
)
def test_a_part_of_a_word_with_accents_is_not(term, text):
    codec = {"ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8", "ISO_IR 144": "iso8859_5", "GB18030": "gb18030"}
    value = text.encode(codec.get(term, "iso2022_jp"))
    searched(an_object(element("SpecificCharacterSet", term), element("ImageComments", value)))


@pytest.mark.parametrize("written", ["(555) 120 4417", "555.120.4417", "5551204417", "555-120-4417"])
def test_a_number_in_groups_is_found_however_it_is_delimited(written):
    data = an_object(
        element("PatientTelephoneNumbers", "555-120-4417"), element("SeriesDescription", f"tel {written}.")
    )
    with pytest.raises(Quarantine):
        searched(data, recipe=RECIPE + "REMOVE PatientTelephoneNumbers\n")


def test_the_day_of_a_date_and_time_is_found():
    data = an_object(element("AcquisitionDateTime", "20110203101112.5"), element("SeriesDescription", "of 3.2.2011"))
    with pytest.raises(Quarantine):
        searched(data, recipe=RECIPE + "JITTER AcquisitionDateTime 31\n")


def references(uids):
    return element("ReferencedImageSequence", [[element("ReferencedSOPInstanceUID", uid)] for uid in uids])


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("codec", ["ascii", "utf-16-le", "utf-16-be"])
def test_a_uid_that_a_sequence_refers_to_is_found(count, codec):
    """Few are searched one by one, many at once."""
    uids = [f"1.2.826.0.1.77.{number}" for number in range(100, 100 + count)]
    recipe = RECIPE + "REPLACE SOPInstanceUID func:generate_value\n"
    settings = RULES_ALONE.replace(residuals="quarantine", private_elements="keep", follow_uid_references=True)
    for text, found in ((f"see {uids[-1]} !", True), ("see 1.2.826.0.1.77.99 !", False), (f"see {uids[0]}4 !", False)):
        private = [Element(0x00290010, "LO", "SOMEBODY"), Element(0x00291001, "OB", text.encode(codec))]
        data = an_object(references(uids), *private)
        if found:
            with pytest.raises(Quarantine):
                run(data, recipe, settings)
        else:
            run(data, recipe, settings)


def test_objects_that_refer_to_each_other_share_their_patterns():
    """To make the patterns costs as much as ten objects do."""
    deidentifier = Deidentifier(
        rules(RECIPE + "REPLACE SOPInstanceUID func:generate_value\n"),
        RULES_ALONE.replace(residuals="quarantine", follow_uid_references=True),
    )
    first, second = (deidentifier.analyse(an_object(references([f"1.2.826.0.1.77.{n}"]))) for n in (1, 2))
    assert first.removed.terms is second.removed.terms


@pytest.mark.parametrize("policy", ["quarantine", "report"])
def test_file_meta_information_that_is_kept_is_searched(policy):
    """By rules alone it is kept as it is, and may name the patient too."""
    for text, found in ((b"by Annika", True), (b"by Annikalee", False)):
        meta = [Element(0x00020100, "UI", "1.2.3.4"), Element(0x00020102, "OB", text + b" " * (len(text) % 2))]
        data = datasets.part10(
            [element("SOPInstanceUID", "1.2.3"), element("PatientName", "Berg^Annika")], Encoding(), meta=meta
        )
        settings = RULES_ALONE.replace(residuals=policy, rebuild_file_meta=False)
        if found and policy == "quarantine":
            with pytest.raises(Quarantine) as caught:
                run(data, RECIPE, settings)
            assert found_in(caught) == "PrivateInformation"
        else:
            assert run(data, RECIPE, settings).notes.get(Reason.RESIDUAL_REPORTED, 0) == found


@pytest.mark.parametrize("codec", ["ascii", "utf-16-le", "utf-16-be", "utf-8"])
@pytest.mark.parametrize("vr", ["UN", "OB", "LO"])
def test_private_bytes_are_searched_in_every_form(codec, vr):
    hidden = "name: Annika !".encode(codec)
    private = [Element(0x00290010, "LO", "SOMEBODY"), Element(0x00291001, vr, hidden)]
    with pytest.raises(Quarantine):
        searched(an_object(*private))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["explicit", "implicit", "big-endian", "deflated"])
@pytest.mark.parametrize("inner", ENCODINGS[:3], ids=["explicit", "implicit", "big-endian"])
@pytest.mark.parametrize("hidden", [element("PatientBirthDate", "19630704"), element("StudyInstanceUID", STUDY)])
@pytest.mark.parametrize("vr", ["UN", "OB"])
def test_a_data_set_in_private_bytes_is_searched(vr, hidden, inner, encoding):
    """Catches an encoded date or UID where no rule applies: in a sequence written as UN."""
    item = datasets.encode([hidden], inner)
    block = [Element(0x00290010, "LO", "ACME"), Element(0x00291010, vr, b"\xfe\xff\x00\xe0" + bytes(4) + item)]
    with pytest.raises(Quarantine) as caught:
        searched(an_object(element("StudyInstanceUID", STUDY), *block, encoding=encoding))
    assert (caught.value.reason, found_in(caught)) == (Reason.RESIDUAL_FOUND, "(0029,1010)")


WRONG_VRS = ("UN", "OB", "CS", "UT", "LO", "IS", "DA", "DT", "UI", "PN")


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["explicit", "implicit", "big-endian", "deflated"])
@pytest.mark.parametrize("vr", WRONG_VRS)
@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("PatientName", "Zimmerwald^Ottokar", "seen by Zimmerwald"),
        ("PatientID", "QZ-817233", "id QZ-817233"),
        ("PatientBirthDate", "19510203", "born 3.2.1951"),
        ("StudyInstanceUID", STUDY, f"see {STUDY}"),
    ],
)
def test_an_original_of_another_vr_is_searched(keyword, value, text, vr, encoding):
    """Catches an original that is not known as one because its element says UN, as archives make of what they do not
    know, or has a VR that is not its own."""
    tag = element(keyword, "").tag
    kept = (0x00080016, 0x00080018, 0x0020000D)
    others = [e for e in datasets.ct_elements(1) if e.tag in kept and e.tag != tag]
    original = Element(tag, vr, value.encode() + b" " * (len(value) % 2))
    data = datasets.part10([*others, original, element("SeriesDescription", text)], encoding)
    with pytest.raises(Quarantine) as caught:
        searched(data, recipe=f"REMOVE {keyword}")
    assert (caught.value.reason, found_in(caught)) == (Reason.RESIDUAL_FOUND, "SeriesDescription")


def test_nested_text_is_searched():
    inner = [element("CodeMeaning", "as told by Annika")]
    with pytest.raises(Quarantine) as caught:
        searched(an_object(element("ProcedureCodeSequence", [inner])))
    assert found_in(caught) == "ProcedureCodeSequence__CodeMeaning"


@pytest.mark.parametrize(
    ("term", "codec", "name", "text"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jürgen", "mit MÜLLER besprochen"),
        ("ISO_IR 192", "utf-8", "Ångström^Ö", "ångström"),
        ("GB18030", "gb18030", "王^小东", "病人 小东 复查"),
    ],
)
def test_names_in_other_character_sets(term, codec, name, text):
    elements = [element("SpecificCharacterSet", term), element("PatientName", name), element("SeriesDescription", text)]
    kept = [e for e in datasets.ct_elements(1) if e.tag not in {*PLANTED, 0x00080005} and not (e.tag >> 16) % 2]
    kept = [e for e in kept if e.vr not in ("SQ", "LO", "PN", "ST", "LT")]
    with pytest.raises(Quarantine):
        searched(datasets.part10([*kept, *elements], Encoding(codec=codec)))


def test_redaction_takes_the_word_and_leaves_the_rest():
    new = searched(an_object(element("SeriesDescription", "seen by Annika, 04.07.1963, left")), "redact-token")
    assert read(new).SeriesDescription == "seen by ******, **********, left"
    assert new.notes[Reason.RESIDUAL_REMOVED] == 2


@pytest.mark.parametrize(
    "encoding", [Encoding(sequences=s, items=i) for s in ("defined", "undefined") for i in ("defined", "undefined")]
)
def test_removal_takes_the_element_and_lengths_follow(encoding):
    inner = [element("CodeMeaning", "as told by Annika"), element("CodeValue", "T1")]
    data = an_object(element("ProcedureCodeSequence", [inner]), element("PatientComments", "Annika"), encoding=encoding)
    new = read(searched(data, "remove-element"))
    assert "PatientComments" not in new
    assert [e.keyword for e in new.ProcedureCodeSequence[0]] == ["CodeValue"]


@pytest.mark.parametrize("syntax", datasets.NATIVE_SYNTAXES)
def test_no_wrong_group_length_is_left_by_a_removal(syntax):
    """Catches a group length that still counts the removed element, or one in its items."""
    encoding = Encoding(syntax, "defined", "defined", group_lengths=True)
    nested = element("RequestAttributesSequence", [[element("RequestedProcedureDescription", "for Annika")]])
    new = read(
        searched(an_object(element("SeriesDescription", "seen by Annika"), nested, encoding=encoding), "remove-element")
    )
    assert "SeriesDescription" not in new
    assert [one.tag for one in new if one.tag.element == 0] == []


def test_a_report_changes_nothing_and_counts():
    data = an_object(element("SeriesDescription", "Annika Annika"))
    new = searched(data, "report")
    assert read(new).SeriesDescription == "Annika Annika"
    assert new.notes[Reason.RESIDUAL_REPORTED] == 2


def test_what_a_rule_wrote_is_not_a_residual():
    searched(an_object(), recipe="REPLACE PatientName Annika\nREPLACE PatientID func:generate_value")


def test_text_after_the_pixel_data_is_searched():
    with pytest.raises(Quarantine):
        searched(an_object(Element(0x7FE10010, "LO", "SOMEBODY"), Element(0x7FE11001, "LO", "Annika")))


_TOKENS = st.lists(st.sampled_from(["Annika", "ANNIKALEE", "berg", "Bergamot", "of", " ", " ", ",", "7"]), max_size=6)
_KEYWORDS = ("SeriesDescription", "ImageComments", "ProtocolName", "PatientComments", "AcquisitionComments")
_FORMS = ("annika", "berg", "annikaberg", "bergannika")


def brute_force(text):
    """Count the words by looking at every place of a text."""
    low = text.rstrip().lower()
    spans = {(at, at + len(form)) for form in _FORMS for at in range(len(low)) if low.startswith(form, at)}
    return sum(not low[a - 1 : a].isalpha() and not low[b : b + 1].isalpha() for a, b in spans)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_TOKENS, min_size=5, max_size=5),
    st.sampled_from(ENCODINGS),
    st.integers(0, 31),
    st.sampled_from([search._BLOCK, 131, 250]),
)
def test_every_word_in_every_element_that_is_left_is_found_once(texts, encoding, removed, block):
    """Against a count letter by letter: catches a word at the edge of a block or a removed value, or counted twice."""
    values = {keyword: "".join(tokens) for keyword, tokens in zip(_KEYWORDS, texts, strict=True)}
    kept = [keyword for number, keyword in enumerate(_KEYWORDS) if not removed >> number & 1]
    recipe = "REPLACE PatientName x\n" + "".join(f"REMOVE {each}\n" for each in _KEYWORDS if each not in kept)
    elements = [element(keyword, value if keyword in kept else "Annika") for keyword, value in values.items()]
    named = [element("PatientName", "Berg^Annika"), element("SOPInstanceUID", "1.2.3"), element("PatientSex", "F")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "_BLOCK", block)
        patched.setattr(search, "_OVERLAP", 100)
        new = searched(datasets.part10([*named, *elements], encoding), "report", recipe)
    assert new.notes.get(Reason.RESIDUAL_REPORTED, 0) == sum(brute_force(values[keyword]) for keyword in kept)


@pytest.mark.parametrize(
    ("terms", "codec", "name", "text", "left"),
    [
        (r"\\ISO 2022 IR 87", "iso2022_jp", "山田^太郎", "膝の山田氏", "膝の＊＊氏"),
        # The escape sequences between the two parts of the name stay.
        (r"\\ISO 2022 IR 87", "iso2022_jp", "山田^太郎", "膝の山田 太郎氏", "膝の＊＊*＊＊氏"),
        ("GB18030", "gb18030", "王^小东", "病人 小东 复查", "病人 **** 复查"),
        ("ISO_IR 192", "utf-8", "王^小东", "病人 小东 复查", "病人 ****** 复查"),
    ],
)
def test_redacted_text_of_a_multi_byte_character_set_stays_valid(terms, codec, name, text, left):
    """Catches an asterisk in place of each byte where a character has two: readers fail or show another text."""
    elements = [
        element("SpecificCharacterSet", terms.replace("\\\\", "\\")),
        element("SOPInstanceUID", "1.2.3"),
        element("PatientName", name),
        element("ImageComments", text),
    ]
    new = searched(datasets.part10(elements, Encoding(codec=codec)), "redact-token", "REPLACE PatientName x")
    assert read(new).ImageComments == left


def test_an_identifier_that_repeats_another_is_redacted_and_does_not_hold_the_object():
    """Information systems write the accession number into each identifier of an order."""
    recipe = RECIPE + "REPLACE AccessionNumber func:generate_value\n"
    repeated = [element("AccessionNumber", "999887722"), element("RequestedProcedureID", "999887722")]
    new = searched(an_object(*repeated), recipe=recipe)
    assert read(new).RequestedProcedureID == "*********"
    assert new.notes[Reason.RESIDUAL_REMOVED] == 1
    with pytest.raises(Quarantine) as caught:
        searched(an_object(*repeated, element("SeriesDescription", "of 999887722")), recipe=recipe)
    assert caught.value.where == "SeriesDescription, original value of AccessionNumber"


@pytest.mark.parametrize(
    ("keyword", "value", "left"),
    [
        ("GantryID", "SOLOMON", "*******"),
        ("PerformedProcedureStepID", "SOLOMON ", "*******"),
        ("GantryID", "SOLOMON 2", ""),
    ],
)
def test_a_name_that_is_a_whole_identifier_is_redacted_and_does_not_hold_the_object(keyword, value, left):
    """Catches a station whose name users write as that of the operator; a part of an identifier still holds it."""
    data = an_object(element("OperatorsName", "SOLOMON"), element(keyword, value))
    recipe = RECIPE + "REMOVE OperatorsName\n"
    if left:
        assert read(searched(data, recipe=recipe))[keyword].value == left
        return
    with pytest.raises(Quarantine):
        searched(data, recipe=recipe)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Doe^BABYBOY", "newborn babyboy"),
        ("Doe^(PEDI)", "Pedi-NICU newborn"),
        ("Enter text", "report text"),
    ],
)
def test_a_word_in_place_of_a_name_holds_no_object(name, text):
    """Catches what is written into names of newborns and templates, found in descriptions."""
    searched(an_object(element("PatientName", name), element("SeriesDescription", text)))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyID", "VL-Photo ( IO)"),
        ("StudyDescription", "CT BRAIN WO IVCON"),
        ("ProtocolName", "ED HEAD NEURO SEQ"),
        ("StationName", "SOMATOM X1"),
        ("StudyID", "DICOM"),
        ("PatientComments", "left knee painful"),
    ],
)
def test_a_removed_value_that_identifies_nobody_holds_no_object(keyword, value):
    """Catches the words of a description, or a station that is called like its model, taken for identifiers."""
    code = [element("CodeMeaning", value), element("CodeValue", value[:16]), element("CodingSchemeDesignator", "99X")]
    others = [element("ProcedureCodeSequence", [code]), element("ManufacturerModelName", value)]
    private = [Element(0x00290010, "LO", "SOMEBODY"), Element(0x00291001, "LO", f"model {value}")]
    searched(an_object(element(keyword, value), *others, *private), recipe=f"{RECIPE}REMOVE {keyword}\n")


@pytest.mark.parametrize("encoding", ENCODINGS[:3], ids=["explicit", "implicit", "big-endian"])
@pytest.mark.parametrize("keyword", ["Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"])
def test_a_station_that_is_called_like_its_device_holds_no_object(keyword, encoding):
    """Catches the name of a device that is not read in one of the encodings."""
    names = [element("StationName", "XQTOM-91"), element(keyword, "Xqtom-91")]
    private = [Element(0x00290010, "LO", "SOMEBODY"), Element(0x00291001, "LO", "model XQTOM-91")]
    recipe = f"{RECIPE}REMOVE StationName\n"
    searched(an_object(*names, *private, encoding=encoding), recipe=recipe)
    with pytest.raises(Quarantine):
        searched(an_object(names[0], *private, encoding=encoding), recipe=recipe)


# One attribute of each VR that the rules leave; every UID becomes a pseudonym.
_OF_EACH_VR = {
    vr_of(tag): tag for tag in DicomDictionary if 0x00300000 < tag < 0x50000000 and vr_of(tag) not in ("SQ", "UI")
}


@pytest.mark.parametrize("value", [b"Annika Berg, 2 times    ", b"Annika, ", b"QX-81723, "])
@pytest.mark.parametrize(("vr", "tag"), sorted(_OF_EACH_VR.items()))
def test_a_name_is_found_whatever_the_vr_of_the_element_that_has_it(vr, tag, value):
    """Catches text in the value of numbers, dates or codes, which a search of text elements alone does not read."""
    with pytest.raises(Quarantine) as caught:
        searched(an_object(Element(tag, vr, value)))
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize("vr", ["OB", "OW", "OF"])
def test_a_short_name_in_a_table_of_numbers_is_a_coincidence(vr):
    table = random.Random(1).randbytes(2**16) + b"\0Ann\0\0Ann,"
    searched(an_object(element("PatientName", "Ann"), Element(0x00283006, vr, table)))


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "CodeValue", "CodingSchemeDesignator"])
def test_codes_are_searched_for_whole_identifiers_of_six_characters_alone(keyword):
    """Catches a name or a short identifier found in a code: HAND, 99ANN, ISO_IR 100."""

    def with_code(value):
        if keyword.startswith("Cod"):
            return an_object(element("PatientID", value), element("ViewCodeSequence", [[element(keyword, value)]]))
        return an_object(element("PatientID", value), element(keyword, value))

    searched(with_code("99X12"))
    with pytest.raises(Quarantine):
        searched(with_code("QX81723"))
    latin = element("SpecificCharacterSet", "ISO_IR 100")
    searched(an_object(latin, element("PatientID", "ISO_IR 100")))
    searched(an_object(latin, element("PatientName", "Iso^Latin"), element("BodyPartExamined", "ISO")))


def test_the_detail_names_the_residual_that_holds_the_object():
    detail = "ImageComments, original value of PatientBirthDate"
    with pytest.raises(Quarantine) as caught:
        searched(an_object(element("ImageComments", "born 4. Juli 1963")))
    assert caught.value.where == detail


_PET = Element(0x00540081, "US", 5)
_COMMENTS = "CommentsOnThePerformedProcedureStep"


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["explicit", "implicit", "big-endian", "deflated"])
@pytest.mark.parametrize("text", ["Seen bredaigux", "Seen mr hand"])
@pytest.mark.parametrize("is_in_item", [False, True])
def test_a_value_whose_end_the_next_tag_continues(text, encoding, is_in_item):
    """Catches letters that are the tag of the next element: group 0054 reads as t, an item as latin 1."""
    name = element("PatientName", "Hand^Bredaiguv")
    extra = [element(_COMMENTS, text), _PET]
    if is_in_item:
        items = [[element("CodeMeaning", text)]] * 2
        extra = [element("ViewCodeSequence", items)]
    with pytest.raises(Quarantine) as caught:
        searched(an_object(name, *extra, encoding=encoding))
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["explicit", "implicit", "big-endian", "deflated"])
@pytest.mark.parametrize("length", [14, 100, 200])
def test_a_value_whose_beginning_its_length_precedes(length, encoding):
    """Catches a length that is a letter of the first word: in big endian order its last byte is before the value."""
    comments = element("ImageComments", "Bredaigux seen".ljust(length, "."))
    with pytest.raises(Quarantine) as caught:
        searched(an_object(element("PatientName", "Hand^Bredaiguv"), comments, encoding=encoding))
    assert caught.value.reason is Reason.RESIDUAL_FOUND
