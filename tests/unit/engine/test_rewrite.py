"""Unchanged elements keep their bytes; changes are applied wherever they should be."""

from __future__ import annotations

import random

import pytest
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element
from tests.support.engine import RULES_ALONE, every_element, pseudonyms, read, rules, run

from dicom_deid.dicom.deflate import inflate
from dicom_deid.dicom.part10 import read_header
from dicom_deid.dicom.walk import MAX_DEPTH
from dicom_deid.engine import Deidentifier, NeedMoreDataError, Settings
from dicom_deid.engine.element_refs import iter_elements
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceRange
from dicom_deid.pipeline.changes import read_elements
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

ENCODINGS = list(datasets.all_encodings())
IDS = [f"{e.transfer_syntax.rpartition('.')[2]}-{e.sequences}-{e.items}" for e in ENCODINGS]
DESKTOP = Recipe.named("desktop")


@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
def test_an_empty_recipe_in_parity_mode_gives_back_the_same_bytes(encoding):
    """Catches any re-encoding: a changed length form, VR or order of elements."""
    data = datasets.ct(3, encoding)
    assert run(data, "", Settings.parity()).to_bytes() == data


@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
def test_every_encoding_of_an_object_gives_the_same_elements(encoding):
    """Catches a rule that is missed, or a length that is wrong, in one encoding only."""
    expected = every_element(read(run(datasets.ct(5), DESKTOP)))
    got = every_element(read(run(datasets.ct(5, encoding), DESKTOP)))
    if encoding.order == ">":
        # Pixel words are in the other byte order, and unchanged.
        del got["/(7FE0,0010)"], expected["/(7FE0,0010)"]
    if not encoding.explicit:
        # Unknown private elements have no VR there; those that are left are safe ones, whose bytes are the same.
        got = {path: value for path, value in got.items() if not isinstance(value, bytes)}
        expected = {path: value for path, value in expected.items() if path in got or not isinstance(value, bytes)}
        private = {path for path in expected if int(path.rpartition("(")[2][:4], 16) % 2}
        got = {path: value for path, value in got.items() if path not in private}
        expected = {path: value for path, value in expected.items() if path not in private}
    assert got == expected


@pytest.mark.parametrize("lengths", ["defined", "undefined"])
def test_lengths_are_right_after_nested_changes(lengths):
    """Catches an enclosing length that does not follow what grew or shrank three levels below."""
    inner = [element("PatientID", "A"), element("PatientName", "Doe^Jane"), element("PatientSex", "F")]
    for _ in range(3):
        inner = [element("ReferencedStudySequence", [inner, inner]), element("PatientComments", "x" * 33)]
    data = datasets.part10([*datasets.ct_elements(1), *inner], Encoding(sequences=lengths, items=lengths))
    new = run(data, "REPLACE PatientID a-much-longer-identifier\nREMOVE PatientName\nBLANK PatientComments")
    items = read(new)
    for _ in range(3):
        assert items.PatientComments in (None, "")
        items = items.ReferencedStudySequence[1]
    assert (items.PatientID, items.PatientSex) == ("a-much-longer-identifier", "F")
    assert "PatientName" not in items


def test_group_lengths_are_right_after_a_change():
    """Catches a retired group length (gggg,0000) that still counts what was removed or added."""
    data = datasets.ct(7, Encoding(group_lengths=True))
    new = run(data, DESKTOP).to_bytes()
    dataset = read(new)
    groups = {element.tag.group: element.value for element in dataset if element.tag.element == 0}
    assert {0x0008, 0x0010, 0x0020} <= set(groups)
    for group, length in groups.items():
        members = [element for element in dataset.elements() if element.tag.group == group and element.tag.element]
        start = new.index(group.to_bytes(2, "little") + b"\0\0UL\4\0") + 12
        following = [e.tag for e in dataset.elements() if e.tag.group > group]
        end = start + length
        assert members
        if following:
            assert new[end : end + 2] == min(following).group.to_bytes(2, "little")


def test_pixel_data_is_a_view_of_the_source_and_not_a_copy():
    """Catches a copy of the pixels before the one that joins the parts."""
    data = datasets.ct(1)
    views = [part for part in run(data, DESKTOP).parts if isinstance(part, memoryview)]
    assert sum(len(view) for view in views) > 500_000
    assert all(view.obj is data for view in views)


def test_file_meta_is_rebuilt_from_the_data_set():
    """Catches a leak by preamble, SourceApplicationEntityTitle or the original MediaStorageSOPInstanceUID."""
    data = datasets.part10(datasets.ct_elements(2), preamble=b"DOE^JANE".ljust(128, b"x"))
    original = read(data)
    new = run(data, DESKTOP).to_bytes()
    dataset = read(new)
    assert new[:128] == bytes(128)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID != original.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in dataset.file_meta
    assert dataset.file_meta.FileMetaInformationGroupLength == new.index(b"\x08\x00") - 144


def test_deidentification_attributes_are_written():
    dataset = read(run(datasets.ct(2), DESKTOP))
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert list(dataset.DeidentificationMethod)[1] == f"recipe desktop sha256 {DESKTOP.digest[:16]}"


@pytest.mark.parametrize("size", range(0, 40, 7))
def test_a_cut_object_is_quarantined_and_says_where(size):
    data = datasets.ct(1)
    with pytest.raises(Quarantine) as caught:
        run(data[: len(data) - 1 - size * 97], DESKTOP)
    assert caught.value.reason is Reason.TRUNCATED
    assert caught.value.where


def test_zeros_after_the_last_element_are_left_out():
    data = datasets.ct(1)
    new = run(data + bytes(500), DESKTOP)
    assert new.notes[Reason.TRAILING_BYTES_REMOVED] == 1
    assert new.to_bytes() == run(data, DESKTOP).to_bytes()


def test_signatures_are_removed_when_anything_changes():
    """Catches an invalid signature that claims to be valid."""
    signed = [*datasets.ct_elements(1), Element(0xFFFAFFFA, "SQ", [[element("DigitalSignatureUID", "1.2.3.4")]])]
    data = datasets.part10(signed)
    assert "DigitalSignaturesSequence" not in read(run(data, "REMOVE PatientName"))
    untouched = RULES_ALONE.replace(stamp_method=False, private_elements="keep", rebuild_file_meta=False)
    assert run(data, "", untouched).to_bytes() == data


@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
def test_all_readers_have_the_same_limit_on_nested_sequences(encoding):
    """Catches an object that a run de-identifies and a preview refuses, or that reaches Python's recursion limit."""

    def nested(depth):
        inner = [element("PatientID", "1")]
        for _ in range(depth):
            inner = [element("ReferencedStudySequence", [inner])]
        return datasets.part10([*datasets.ct_elements(1), *inner], encoding)

    def refer_to(data):
        start, encoding, body = _data_set(data)
        return iter_elements(body, start, encoding)

    shifts = Settings(residuals="report", pixel_risk="allow")
    readers = (lambda data: run(data, "REMOVE PatientID", shifts), read_elements, refer_to)
    for reader in readers:
        reader(nested(MAX_DEPTH))
        with pytest.raises(Quarantine) as caught:
            reader(nested(MAX_DEPTH + 1))
        assert caught.value.reason is Reason.NESTING_TOO_DEEP


def _data_set(data):
    """Return where the data set begins, its encoding, and the object without compression."""
    header = read_header(data)
    start = header.data_set_start
    if header.transfer_syntax.deflated:
        data, start = inflate(data, start, 2**20)[0], 0
    return start, header.transfer_syntax.encoding, data


@pytest.mark.parametrize("lengths", ["defined", "undefined"])
def test_a_search_for_one_position_ends_there(lengths):
    """Catches a search that reads the rest of a large report for a name at its beginning."""
    tree = [[element("TextValue", f"text {number}")] for number in range(300)]
    elements = [element("PatientName", "Doe^Jane"), element("ContentSequence", tree), element("PixelData", b"")]
    data = datasets.part10(elements, datasets.Encoding(sequences=lengths, items=lengths))
    start, encoding, _ = _data_set(data)
    last = data.index(b"text 299")
    assert [one.element.nested_name for one in iter_elements(data, start, encoding, wanted=[last])] == [
        "ContentSequence__TextValue"
    ]
    # The rest cannot be read.
    broken = data[: last - 40] + bytes(40) + data[last:]
    for position, name in ((data.index(b"Doe"), "PatientName"), (data.index(b"text 7"), "ContentSequence__TextValue")):
        found = iter_elements(broken, start, encoding, wanted=[position])
        assert [one.element.nested_name for one in found] == [name]


def test_an_added_element_out_of_order_is_refused_rather_than_doubled():
    """Catches two elements of one tag: a reader may use the original."""
    data = datasets.ct(1)
    method = b"\x12\x00\x62\x00CS\x02\x00NO"
    with pytest.raises(Quarantine) as caught:
        run(data + method, "")
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("seed", range(4))
def test_the_beginning_and_the_tail_of_an_object_give_the_same_as_the_whole(seed):
    """Catches a large object that is treated otherwise than a small one."""

    rng = random.Random(seed)
    tail = [Element(0xFFFCFFFC, "OB", rng.randbytes(64))]
    data = datasets.part10([*datasets.ct_elements(seed), *(tail if seed % 2 else [])])
    engine = Deidentifier(DESKTOP, RULES_ALONE)
    whole = engine.deidentify(data, pseudonyms).to_bytes()
    given = 256
    while True:
        try:
            analysis = engine.analyse(data[:given], size=len(data))
            break
        except NeedMoreDataError as more:
            given = max(more.at_least, given + 1)
    assert given < 20_000
    assert analysis.pixel_data is not None
    end = analysis.pixel_data[1]
    assert end is not None
    engine.analyse_tail(analysis, data[end:])
    new = engine.rewrite(analysis, pseudonyms(analysis.identifiers))
    joined = b"".join(data[p.start : p.end] if isinstance(p, SourceRange) else p for p in new.parts)
    assert joined == whole
    assert new.size == len(whole)


def test_rules_are_counted_by_line():
    new = run(datasets.ct(4), DESKTOP)
    lines = {DESKTOP.rules[index].field.text: count for index, count in new.rules.items()}
    assert lines["PatientID"] >= 1
    assert new.actions["REPLACE"] == sum(c for i, c in new.rules.items() if DESKTOP.rules[i].action == "REPLACE")


def test_no_rules_and_parity_changes_nothing_in_a_private_block():
    data = datasets.ct(1)
    assert run(data, rules(""), Settings.parity()).actions == {}
