"""The elements of a header, and what differs between an original and the object that the rules made of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pydicom
import pytest
from pydicom.dataset import Dataset
from tests.support import datasets
from tests.support.datasets import Encoding, all_encodings, element, part10

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.objectstore import LocalStore
from dicom_deid.pipeline.changes import changes_between, read_elements
from dicom_deid.pipeline.preview import preview_object
from dicom_deid.recipe import Recipe


def as_pydicom_reads(dataset: Dataset, prefix: str = "") -> Iterator[tuple[str, tuple[str, object]]]:
    """Yield path, VR and value of each element of a data set."""
    for found in dataset:
        path = f"{prefix}({found.tag >> 16:04x},{found.tag & 0xFFFF:04x})"
        yield path, (str(found.VR), len(found.value) if found.VR == "SQ" else found.value)
        for number, item in enumerate(found.value if found.VR == "SQ" else ()):
            yield from as_pydicom_reads(item, f"{path}[{number}]")


@pytest.mark.parametrize("kind", datasets.KINDS)
@pytest.mark.parametrize("encoding", list(all_encodings()), ids=str)
def test_the_elements_are_those_that_pydicom_reads(kind: str, encoding: Encoding) -> None:
    """Catches an element that is left out of a comparison, or shown with the path or value of another."""
    data = part10(datasets.KINDS[kind](5), encoding)
    header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    expected = dict([*as_pydicom_reads(header.file_meta), *as_pydicom_reads(header)])
    found = read_elements(data)
    assert {path: (one.vr, one.value) for path, one in found.items()} == expected
    assert len(found) == len(expected)
    # A new object takes from the original what both have.
    assert all(found[path] is one for path, one in read_elements(data, found).items())


@pytest.mark.parametrize("encoding", list(all_encodings()), ids=str)
def test_items_keep_their_numbers_when_others_are_removed(encoding: Encoding) -> None:
    """Catches items that are compared with others, for example because equal items are read once."""

    def item(number: int, text: str) -> list[datasets.Element]:
        name = datasets.code(f"{number % 3}", "99X", "Name")
        inner = [element("ConceptNameCodeSequence", [name]), element("TextValue", text)]
        return datasets.content_item("TEXT", name, [element("TextValue", text)], [inner, inner])

    def report(items: list[list[datasets.Element]]) -> bytes:
        return part10([element("PatientID", "1"), element("ContentSequence", items)], encoding)

    before = read_elements(report([item(number, f"text {number // 2}") for number in range(6)]))
    after = read_elements(report([item(2, "text 1"), item(3, "other"), item(5, "text 2")]), before)
    changes = {change.path: change.kind.value for change in changes_between(before, after)}
    assert changes["(0040,a730)"] == "changed"
    values = {
        path: kind for path, kind in changes.items() if path.endswith("[0](0040,a160)") or path[13:] == "](0040,a160)"
    }
    removed = {
        path: "removed"
        for number in (0, 1, 4)
        for path in (f"(0040,a730)[{number}](0040,a160)", f"(0040,a730)[{number}](0040,a730)[0](0040,a160)")
    }
    changed = dict.fromkeys(("(0040,a730)[3](0040,a160)", "(0040,a730)[3](0040,a730)[0](0040,a160)"), "changed")
    assert values == removed | changed


@pytest.mark.parametrize("lengths", ["defined", "undefined"])
def test_a_sequence_that_was_read_before_is_not_nested_deeper(lengths: Literal["defined", "undefined"]) -> None:
    """Catches a recursion that is deeper than Python's limit: items that contain items which were read before."""

    def nested(inner: list[datasets.Element]) -> list[datasets.Element]:
        for _ in range(60):
            inner = [element("ReferencedSeriesSequence", [inner])]
        return inner

    one = nested([element("PatientID", "1")])
    data = part10([element("ReferencedStudySequence", [one, nested(one)])], Encoding(sequences=lengths, items=lengths))
    with pytest.raises(Quarantine, match="nesting-too-deep"):
        read_elements(data)


class Counting(LocalStore):
    """A directory that counts the reads of it."""

    reads = 0

    def read(self, key, **how):
        self.reads += 1
        return super().read(key, **how)


def test_an_object_is_read_once_for_several_recipes(tmp_path: Path) -> None:
    """Catches a second request, or a second recipe that is shown what the first one did."""
    data = part10([element("PatientName", "Doe^John"), element("PatientID", "1"), *datasets.ct_elements(1)[:12]])
    (tmp_path / "a").write_bytes(data)
    store = Counting(tmp_path)
    seen = Settings(residuals="report", pixel_risk="allow", documents="allow")
    engines = [
        Deidentifier(Recipe.parse(f"FORMAT dicom\n%header\nREPLACE PatientName {new}\n", "r"), seen) for new in "AB"
    ]
    previews = preview_object(engines, store, "a", size=len(data))
    names = [change.after for one in previews for change in one.changes if change.name == "Patient's Name"]
    assert (names, store.reads) == (["A", "B"], 1)
