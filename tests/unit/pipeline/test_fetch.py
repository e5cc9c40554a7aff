"""A large object is examined up to its pixel data and after it, and nothing of it is copied unexamined."""

import hashlib
import os
import tracemalloc
from functools import cache, partial
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from tests.support.datasets import (
    DEFLATED_LE,
    JPEG_BASELINE,
    Element,
    Encoding,
    all_encodings,
    ct_elements,
    element,
    part10,
)
from tests.support.real_world import LAST, PATIENT_ID, STRUCTURES

from dicom_deid.dicom.root_elements import read_root_elements
from dicom_deid.dicom.walk import NeedMoreDataError
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.free_text import read_free_texts
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceRange
from dicom_deid.pipeline import fetch
from dicom_deid.pipeline.fetch import (
    MoreMemoryNeeded,
    excluding_criterion,
    fetch_object,
    fetch_root_elements,
    read_patient_terms,
)
from dicom_deid.pipeline.header_facts import FACT_TAGS
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe
from dicom_deid.recipe.selection import Selection
from dicom_deid.sandbox.samples import sample_files

DEIDENTIFIER = Deidentifier(Recipe.named("desktop"), Settings(residuals="off", pixel_risk="allow", documents="allow"))
FILES = dict(sample_files())
TAIL = [Element(0x7FE10010, "LO", "A VENDOR"), Element(0x7FE11001, "LO", "Doe^John")]


class Bytes:
    """A storage of one object, which counts what is read."""

    def __init__(self, data):
        self.data, self.read_bytes = data, 0

    def read(self, key, *, etag=None, size=None, version_id=None, start=None, end=None):
        part = self.data[start:end]
        self.read_bytes += len(part)
        return part


def rewrite(data, large_object_bytes):
    storage = Bytes(data)
    fetched = fetch_object(DEIDENTIFIER, storage, "k", size=len(data), large_object_bytes=large_object_bytes)
    pseudonyms = {each: PLACEHOLDERS[each] for each in fetched.analysis.identifiers}
    result = DEIDENTIFIER.rewrite(fetched.analysis, pseudonyms)
    joined = b"".join(data[p.start : p.end] if isinstance(p, SourceRange) else p for p in result.parts)
    return joined, storage, fetched, result


class _Placeholders(dict):
    placeholders = PreviewPseudonyms()

    def __missing__(self, original):
        self.update(self.placeholders.resolve([original]))
        return self[original]


PLACEHOLDERS = _Placeholders()


def ct(pixels, tail=(), syntax=None):
    kept = [each for each in ct_elements(3, rows=500, columns=512) if each.tag != 0x7FE00010]
    encoding = Encoding(syntax) if syntax else Encoding()
    return part10([*kept, element("PixelData", pixels, "OB" if syntax else "OW"), *tail], encoding)


NATIVE = ct(bytes(range(256)) * 2000, TAIL)
ENCAPSULATED = ct((b"", b"\xff\xd8" + b"x" * 300_000, b"\xff\xd8" + b"y" * 100_000), TAIL, JPEG_BASELINE)


@pytest.mark.parametrize("kind", ["native", "encapsulated"])
@settings(max_examples=40, deadline=None)
@given(first=st.integers(200, 6000))
def test_the_large_path_writes_the_same_bytes_wherever_the_first_read_ends(kind, first):
    data = NATIVE if kind == "native" else ENCAPSULATED
    whole, *_ = rewrite(data, 10**9)
    before = fetch.FIRST_BYTES
    fetch.FIRST_BYTES = first
    try:
        large, storage, fetched, result = rewrite(data, 1)
    finally:
        fetch.FIRST_BYTES = before
    assert hashlib.sha256(large).digest() == hashlib.sha256(whole).digest()
    assert storage.read_bytes < 40_000
    assert any(isinstance(part, SourceRange) for part in result.parts)
    assert fetched.sha256 is None


def test_the_first_read_ending_between_two_elements_copies_nothing_unexamined(monkeypatch):
    whole, *_ = rewrite(NATIVE, 10**9)
    ends = [end for end in range(200, 4600) if NATIVE[end : end + 2] in (b"\x10\0", b"\x20\0", b"\x28\0", b"\x40\0")]
    for end in ends:
        monkeypatch.setattr(fetch, "FIRST_BYTES", end)
        assert hashlib.sha256(rewrite(NATIVE, 1)[0]).digest() == hashlib.sha256(whole).digest()


def test_a_large_object_without_pixel_data_is_read_whole_or_refused(monkeypatch):
    data = part10([*ct_elements(3, rows=1, columns=1)[:-1], element("EncapsulatedDocument", b"%PDF" * 5000, "OB")])
    _, _, fetched, result = rewrite(data, 1)
    assert fetched.sha256 is not None
    assert not any(isinstance(part, SourceRange) for part in result.parts)
    monkeypatch.setattr(fetch, "MAX_HEADER_BYTES", 1000)
    monkeypatch.setattr(fetch, "FIRST_BYTES", 500)
    with pytest.raises(Quarantine) as caught:
        rewrite(data, 1)
    assert caught.value.reason is Reason.HEADER_TOO_LARGE


@pytest.mark.parametrize("syntax", [None, JPEG_BASELINE])
@pytest.mark.parametrize("followed", ["signature", "padding", "signature and padding"])
def test_signatures_and_padding_after_large_pixel_data_come_out_as_of_a_small_object(syntax, followed):
    """A signature must not outlive a change before it."""
    tail = [
        *(
            [Element(0xFFFAFFFA, "SQ", [[element("DigitalSignatureUID", "1.2.3.4")]])]
            if "signature" in followed
            else ()
        ),
        *([Element(0xFFFCFFFC, "OB", b"Doe^John" * 8)] if "padding" in followed else ()),
    ]
    pixels = (b"", b"\xff\xd8" + b"x" * 300_000) if syntax else bytes(range(256)) * 2000
    data = ct(pixels, tail, syntax)
    whole, *_, of_whole = rewrite(data, 10**9)
    large, _, _, of_large = rewrite(data, 1)
    assert hashlib.sha256(large).digest() == hashlib.sha256(whole).digest()
    assert (of_large.notes, of_large.actions) == (of_whole.notes, of_whole.actions)
    assert b"Doe^John" not in large
    assert b"1.2.3.4\0" not in large


@pytest.mark.parametrize("cut", [1, 30, 1000])
def test_a_large_object_that_ends_too_soon_is_truncated(cut):
    native = ct(bytes(range(256)) * 2000)
    for data in (native[:-cut], ENCAPSULATED[: -cut - 40]):
        with pytest.raises(Quarantine) as caught:
            rewrite(data, 1)
        assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("tail", [(), TAIL], ids=["last", "followed"])
@pytest.mark.parametrize("text", ["Doe^John", "Doe^John" * 9000])
def test_text_after_the_frames_is_blanked_however_the_object_is_read(text, tail, monkeypatch):
    """Catches bytes after the last frame that are copied because the pixel data is not read."""
    monkeypatch.setattr(fetch, "FIRST_BYTES", 6000)
    data = ct(bytes(range(256)) * 2000 + text.encode(), tail)
    whole = DEIDENTIFIER.deidentify(data, lambda originals: {each: PLACEHOLDERS[each] for each in originals})
    for large_object_bytes in (10**9, 1):
        written, storage, _, result = rewrite(data, large_object_bytes)
        assert hashlib.sha256(written).digest() == hashlib.sha256(whole.to_bytes()).digest()
        assert result.actions["bytes-after-pixels-blanked"] == 1
        assert b"Doe^John" not in written
    assert storage.read_bytes < 40_000 + len(text)
    assert any(isinstance(part, SourceRange) for part in result.parts)


@pytest.mark.parametrize("cut", [1, 8, 9, 10])
def test_a_large_object_that_ends_after_its_frames_is_truncated(cut, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_BYTES", 6000)
    data = ct(bytes(range(256)) * 2000 + b"Doe^John")[:-cut]
    for large_object_bytes in (10**9, 1):
        with pytest.raises(Quarantine) as caught:
            rewrite(data, large_object_bytes)
        assert caught.value.reason is Reason.TRUNCATED


@cache
def sweeping(residuals):
    return Deidentifier(Recipe.named("desktop"), Settings(residuals=residuals, pixel_risk="allow"))


def outcome(work):
    """Return what a call returns as comparable values, or its reason."""
    try:
        return work()
    except Quarantine as quarantine:
        return quarantine.reason, quarantine.where, quarantine.offset


@pytest.mark.parametrize("residuals", ["quarantine", "redact-token"])
@pytest.mark.parametrize("name", FILES)
def test_an_object_in_memory_comes_out_as_if_the_engine_had_been_given_all_of_it(name, residuals):
    """Pixel data that the engine does not see must change nothing: not the bytes, not the reasons, not the counts."""
    data = FILES[name].read_bytes()
    deidentifier = sweeping(residuals)

    def told(analysis, parts):
        result = deidentifier.rewrite(analysis, {each: PLACEHOLDERS[each] for each in analysis.identifiers})
        return b"".join(parts(result)), result.identifiers, result.actions, result.notes

    def in_memory():
        fetched = fetch_object(deidentifier, Bytes(memoryview(data)), "k", size=len(data))
        return told(
            fetched.analysis,
            lambda result: [data[p.start : p.end] if isinstance(p, SourceRange) else p for p in result.parts],
        )

    assert outcome(in_memory) == outcome(lambda: told(deidentifier.analyse(data), lambda result: result.parts))


def test_native_pixel_data_at_the_end_is_not_copied():
    """A copy of every object's pixels would cost more than the rest."""
    data = ct(bytes(range(256)) * 2000)
    fetched = fetch_object(DEIDENTIFIER, Bytes(memoryview(data)), "k", size=len(data))
    assert len(fetched.analysis.source) < len(data) - 256 * 2000 + 1


def deflated(count, content=bytes):
    plain = [each for each in ct_elements(3, rows=1024, columns=512) if each.tag != 0x7FE00010]
    frames = element("NumberOfFrames", str(count // 2**20))
    pixels = element("PixelData", content(count), "OW")
    return part10([*plain, frames, pixels], Encoding(transfer_syntax=DEFLATED_LE))


def test_a_deflated_object_asks_for_the_memory_that_it_needs():
    """Objects of a few KB may inflate to hundreds of MB each: their bytes must be counted before they are inflated."""
    data = deflated(5 * 2**20)
    assert len(data) < 2**16
    with pytest.raises(MoreMemoryNeeded) as caught:
        fetch_object(DEIDENTIFIER, Bytes(data), "k", size=len(data), max_inflated_bytes=len(data))
    fetched = fetch_object(DEIDENTIFIER, Bytes(data), "k", size=len(data), max_inflated_bytes=caught.value.size)
    assert caught.value.size == len(fetched.analysis.walk.data) > 5 * 2**20


def test_an_object_that_inflates_beyond_the_limit_is_quarantined_before_it_is_in_memory():
    limited = Deidentifier(Recipe.named("desktop"), Settings(residuals="off", max_inflated_bytes=8 * 2**20))
    data = deflated(64 * 2**20)
    tracemalloc.start()
    for room in (len(data), None):
        with pytest.raises(Quarantine) as refused:
            fetch_object(limited, Bytes(data), "k", size=len(data), max_inflated_bytes=room)
        assert refused.value.reason is Reason.INFLATED_TOO_LARGE
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("residuals", ["off", "quarantine"])
def test_a_deflated_object_is_in_memory_once(residuals):
    """Catches pieces that are joined, copies of what is searched, and a second reader that inflates the pixels too."""
    recipe = Recipe.resolve("desktop", "devices")
    with_filters = Deidentifier(recipe, Settings(residuals=residuals, pixel_risk="allow"))
    data = deflated(40 * 2**20)
    tracemalloc.start()
    fetched = fetch_object(with_filters, Bytes(data), "k", size=len(data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fetched.analysis.walk.data) > 40 * 2**20
    assert peak < 52 * 2**20


def test_the_header_scan_of_a_deflated_object_asks_for_memory_too():
    """A retry scans many recorded objects at the same time."""
    data = deflated(5 * 2**20)
    read = partial(read_patient_terms, DEIDENTIFIER, Bytes(data), "k", size=len(data), etag="e", version_id=None)
    with pytest.raises(MoreMemoryNeeded):
        read(max_inflated_bytes=len(data))
    patient, terms = read()
    assert patient
    assert terms


def test_a_large_deflated_object_asks_for_memory_before_it_is_read(monkeypatch):
    monkeypatch.setattr(fetch, "LARGE_OBJECT_BYTES", 2**20)
    data = deflated(3 * 2**20, os.urandom)
    store = Bytes(data)
    read = partial(fetch_object, DEIDENTIFIER, store, "k", size=len(data), large_object_bytes=2**20)
    with pytest.raises(MoreMemoryNeeded) as caught:
        read(max_inflated_bytes=len(data))
    assert caught.value.size == len(data) + DEIDENTIFIER.settings.max_inflated_bytes
    assert store.read_bytes <= fetch.FIRST_BYTES
    assert len(read().analysis.walk.data) > 3 * 2**20


def excluded(data, criterion):
    selection = Selection.parse(exclude=criterion)
    header = fetch_root_elements(Bytes(data), "k", selection.tags, size=len(data), etag=None, version_id=None)
    return excluding_criterion(selection, header)


@pytest.mark.parametrize("structure", [one for one in STRUCTURES if one.reason is None], ids=lambda one: one.name)
def test_criteria_see_what_the_engine_reads(structure):
    """Catches an object that is de-identified though criteria exclude it, because they could not be evaluated."""
    criterion = f"equals WindowCenter {LAST}"
    assert excluded(structure.build(), criterion) == f"exclude: {criterion}"


@pytest.mark.parametrize("encoding", list(all_encodings()), ids=str)
def test_root_elements_are_those_that_pydicom_reads(encoding):
    """Catches a value that the index reads otherwise, also where only the beginning of an object is given."""
    data = part10(ct_elements(7, rows=16, columns=16), encoding)
    header = dcmread(BytesIO(data))
    texts = [one.keyword for one in header if one.tag in FACT_TAGS and one.VR != "US" and one.VM == 1]
    expected = {keyword: str(header[keyword].value) for keyword in texts}
    assert {"PatientID", "PatientName", "SOPInstanceUID", "Manufacturer"} <= expected.keys()
    enough = 0
    for length in [*range(150, len(data), 61), len(data)]:
        try:
            found = read_root_elements(data[:length], FACT_TAGS, size=len(data))
        except NeedMoreDataError:
            assert not enough
            continue
        enough = enough or length
        assert {keyword: found.original(keyword) for keyword in texts} == expected
        assert (found.number("Rows"), found.number("Columns")) == (16, 16)
    assert enough < len(data)


@pytest.mark.parametrize("structure", [one for one in STRUCTURES if one.reason is None], ids=lambda one: one.name)
def test_root_elements_are_those_that_the_engine_reads(structure):
    data = structure.build()
    assert read_root_elements(data, FACT_TAGS, size=len(data)).original("PatientID") == PATIENT_ID


def unreadable_after_the_patient():
    data = part10(ct_elements(1, rows=16, columns=16))
    yield "cut", data[: data.index(b"\x18\x00", data.index(b"\x10\x00\x20\x00LO")) + 5]
    yield "transfer syntax", data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0", 1)
    others = [one for one in ct_elements(1, rows=16, columns=16) if one.tag != 0x00080005]
    yield "character set", part10([*others, element("SpecificCharacterSet", "ISO_IR 999")])


@pytest.mark.parametrize(("name", "data"), list(unreadable_after_the_patient()))
def test_the_patient_of_an_object_that_cannot_be_read_is_known(name, data):
    """Catches a copy in quarantine that the withdrawal of its patient does not find."""
    with pytest.raises(Quarantine):
        read_root_elements(data, FACT_TAGS, size=len(data))
    header = dcmread(BytesIO(part10(ct_elements(1, rows=16, columns=16))))
    assert read_root_elements(data, FACT_TAGS, size=len(data), lenient=True).original("PatientID") == header.PatientID


@pytest.mark.parametrize("structure", [one for one in STRUCTURES if one.reason is None], ids=lambda one: one.name)
def test_free_texts_are_read_from_what_the_engine_reads(structure):
    """Catches an object that ends the report of frequent words, or is missing in it."""
    assert read_free_texts(structure.build(), partial=False)[0] == PATIENT_ID


def test_criteria_are_evaluated_on_all_of_a_deflated_header():
    """Catches a criterion that is evaluated on the beginning of a header alone."""
    comments = [Element(0x00200011 + number, "UT", "x" * 2**20) for number in range(0x100, 0x103)]
    data = part10([*ct_elements(4, rows=16, columns=16), *comments], Encoding(DEFLATED_LE))
    assert excluded(data, "equals Rows 16") == "exclude: equals Rows 16"
