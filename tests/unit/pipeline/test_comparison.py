"""An object beside its result: the page shows the actions and nothing of an original."""

import random
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.comparisons import headers, plain, read
from tests.support.datasets import DEFLATED_LE, Element, Encoding, ct_elements, element, part10

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import LocalStore
from dicom_deid.pipeline import comparison
from dicom_deid.pipeline.changes import ChangeKind, read_elements
from dicom_deid.pipeline.comparison import NotCompared, compare, compare_objects
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.recipe import Recipe
from dicom_deid.score.identity import Patient


@settings(max_examples=300, deadline=None)
@given(headers())
def test_no_word_of_an_original_is_shown(drawn):
    """A cleaned text, a redacted name, a value that a function moved to another element: each keeps words."""
    before, after, words = drawn
    for change in compare(read(before), read(after)).changes:
        shown = plain(change.value or "")
        assert [word for word in words if plain(word) in re.sub(r"[\W_]", "", shown)] == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["desktop", "ps3.15-basic"]))
def test_values_written_by_rules_are_shown(seed, recipe):
    """Catches a page that withholds everything, and one that shows an identifier."""
    patient = Patient.draw(random.Random(seed))
    data = part10(ct_elements(seed, rows=1, columns=1, patient=patient))
    deidentifier = Deidentifier(Recipe.named(recipe), Settings(residuals="off", pixel_risk="allow"))
    analysis = deidentifier.analyse(data)
    new = deidentifier.rewrite(analysis, PreviewPseudonyms().resolve(analysis.identifiers)).to_bytes()
    compared = compare(read_elements(data), read_elements(new))
    by_path = {change.path: change for change in compared.changes}
    assert by_path["(0010,0020)"].value or recipe != "desktop"
    assert by_path["(0020,000d)"].value.startswith("2.25.")
    values = " ".join(change.value or "" for change in compared.changes)
    parts = [part for part in re.split(r"[\^ ]", patient.name) if len(part) > 2]
    assert [word for word in (patient.patient_id, *parts) if word in values] == []
    withheld = sum(change.withheld for change in compared.changes)
    assert withheld <= len(compared.changes) / 5


@pytest.mark.parametrize(
    ("old", "new", "withheld"),
    [
        (element("PatientName", "Müller^Jörg"), "MULLER", True),
        (element("PatientName", "Doe^John"), "J D", True),
        (element("PatientName", "山田^太郎"), "山田*", True),
        (element("PatientComments", "seen by Dr. Li"), "seen by ***", True),
        (element("PatientID", "4711-22"), "PAT471122", True),
        (element("StudyDate", "20240213"), "20240105", False),
        (element("AcquisitionDateTime", "20240213143000"), "20240105143000", True),
        (element("PatientWeight", "70.52"), "70.5", True),
        (element("StudyInstanceUID", "1.2.840.113619.2.55"), "2.25.113619113", True),
        (element("StudyInstanceUID", "1.2.840.113619.2.55"), "2.25.998877", False),
        (element("PatientSex", "M"), "O", False),
    ],
)
def test_an_element_beside_its_own_original(old, new, withheld):
    """Initials, accents, short names of other scripts, a time of day behind a shifted date, a number cut short."""
    (change,) = compare(read([old]), read([Element(old.tag, old.vr, new)])).changes
    assert (change.kind, change.withheld, change.value is None) == (ChangeKind.CHANGED, withheld, withheld)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (element("PatientName", "Kim^Ann"), element("StudyDescription", "Head of Ann")),
        (element("PatientID", "JD"), element("StudyID", "JD")),
        (element("PatientName", "山田^太郎"), element("StudyDescription", "山田さん")),
        (element("PatientID", "4711220"), element("StudyID", "S4711220X")),
        (Element(0x00091001, "UN", b"D\0o\0e\0r\0"), element("StudyDescription", "by Doer")),
    ],
)
def test_an_element_beside_the_originals_of_others(old, new):
    """A rule or an item that moved: the new value of one element is the original of another."""
    creator = [Element(0x00090010, "LO", "A VENDOR")] if old.tag == 0x00091001 else []
    after = compare(read([*creator, old]), read([new])).changes
    assert [(change.value, change.withheld) for change in after if change.kind is ChangeKind.ADDED] == [(None, True)]


def test_the_action_of_each_element_is_shown():
    """Catches an element that is left out, or shown with the wrong action."""
    item = [element("CodeValue", "T-1")]
    before = [element("PatientName", "Doe"), element("PatientAge", "050Y"), element("Modality", "CT")]
    before += [element("PatientID", "77"), Element(0x00081032, "SQ", [item, item])]
    after = [element("PatientName", "Anonymous"), element("PatientAge", ""), element("Modality", "CT")]
    after += [element("PatientIdentityRemoved", "YES"), Element(0x00081032, "SQ", [item])]
    compared = compare(read(before), read(after))
    assert {change.path: (change.kind.value, change.value) for change in compared.changes} == {
        "(0008,1032)": ("changed", "1 items"),
        "(0008,1032)[1](0008,0100)": ("removed", None),
        "(0010,0010)": ("changed", "Anonymous"),
        "(0010,0020)": ("removed", None),
        "(0010,1010)": ("emptied", None),
        "(0012,0062)": ("added", "YES"),
    }
    assert compared.unchanged == len(read(before)) - 5


class Counting(LocalStore):
    """A directory that counts what is read of it."""

    count = 0

    def read(self, key, **how):
        data = super().read(key, **how)
        self.count += len(data)
        return data


def stored(storage: LocalStore, key: str, data: bytes) -> SourceObject:
    (Path(storage.url) / key).write_bytes(data)
    found = storage.find(key)
    assert found is not None
    return found


def big(patient_name: str = "Doe^John") -> bytes:
    pixels = element("PixelData", bytes(8_000_000), "OW")
    return part10([element("PatientName", patient_name), element("SOPInstanceUID", "1.2.3"), pixels])


def test_only_the_beginning_is_read(tmp_path):
    """Catches a page that reads a whole large object."""
    storage = Counting(tmp_path)
    one, other = stored(storage, "a", big()), stored(storage, "b", big("Anonymous"))
    compared = compare_objects(storage, one, storage, other)
    assert [change.value for change in compared.changes] == ["Anonymous"]
    assert storage.count <= 4 * 2**18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "source object is gone"),
        (lambda path: path.write_bytes(big("Roe^Jane")), "source object was overwritten"),
    ],
)
def test_a_changed_object_is_not_shown(tmp_path, change, message):
    """Catches a page that compares the wrong version, or shows an original that was not searched."""
    storage = LocalStore(tmp_path)
    one, other = stored(storage, "Doe^John", big()), stored(storage, "b", big("Anonymous"))
    change(tmp_path / "Doe^John")
    with pytest.raises(NotCompared, match=message) as caught:
        compare_objects(storage, one, storage, other)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"Doe^John was here" * 40, "cannot be read"),
        (part10([element("PatientName", "Doe")], Encoding(DEFLATED_LE)), "deflated"),
        (part10([element("PatientComments", "x" * 5000, "LT"), element("PixelData", b"12", "OW")]), "more than"),
    ],
    ids=["empty", "text", "deflated", "long"],
)
def test_what_cannot_be_read_is_not_shown(tmp_path, monkeypatch, data, message):
    """Catches an exception of a library, whose text may hold a value, and a header that fills the memory."""
    monkeypatch.setattr(comparison, "MAX_HEADER_BYTES", 4096)
    storage = LocalStore(tmp_path)
    one, other = stored(storage, "a", data), stored(storage, "b", part10([element("PatientName", "A")]))
    with pytest.raises(NotCompared, match=message):
        compare_objects(storage, one, storage, other)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_nothing_of_their_own(tmp_path_factory, data):
    """Exceptions of pydicom on damaged bytes may name values."""
    whole = bytearray(part10(ct_elements(5, rows=1, columns=1)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(132, len(whole) - 1))] = data.draw(st.integers(0, 255))
    storage = LocalStore(tmp_path_factory.mktemp("damaged"))
    one = stored(storage, "a", bytes(whole))
    # Anything else than this one exception fails the test.
    with suppress(NotCompared):
        compare_objects(storage, one, storage, one)


def test_a_source_object_needs_no_date_to_be_read(tmp_path):
    """The audit has none of the source's times; what is read is decided by ETag and size."""
    storage = LocalStore(tmp_path)
    one = stored(storage, "a", big())
    undated = one._replace(last_modified=datetime(1970, 1, 1, tzinfo=UTC))
    assert compare_objects(storage, undated, storage, one).changes == ()
