"""Previews: elements that change their places, and the objects of a sample."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.datasets import COMPREHENSIVE_SR, code, content_item, element, part10

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import LocalStore
from dicom_deid.pipeline.preview import ChangeKind, Treatment, by_treatment, differences, preview_object
from dicom_deid.pipeline.sample import draw_objects
from dicom_deid.recipe import Recipe

REMOVED = code("121022", "DCM", "Accession Number")
LEFT = code("121071", "DCM", "Finding")
DEIDENTIFIER = Deidentifier(
    Recipe.parse("FORMAT dicom\n%header\nREMOVE content:121022,DCM,TEXT\n"),
    Settings(residuals="off", documents="allow", stamp_method=False),
)


@pytest.mark.parametrize("stays", list(product([True, False], repeat=4)), ids=str)
def test_items_are_shown_at_the_places_that_they_had(stays: tuple[bool, ...], tmp_path: Path) -> None:
    """Catches a preview that compares an item with the one that took its place."""
    tree = [
        content_item("TEXT", LEFT if each else REMOVED, [element("TextValue", f"text {number}")])
        for number, each in enumerate(stays)
    ]
    uids = [element("SOPInstanceUID", "1.2.3"), element("StudyInstanceUID", "1.2.4")]
    data = part10([element("SOPClassUID", COMPREHENSIVE_SR), *uids, element("ContentSequence", tree)])
    (tmp_path / "report.dcm").write_bytes(data)
    (preview,) = preview_object([DEIDENTIFIER], LocalStore(tmp_path), "report.dcm", size=len(data))
    texts = {change.path: change for change in preview.changes if change.path.endswith("(0040,a160)")}
    assert set(texts) == {f"(0040,a730)[{number}](0040,a160)" for number, each in enumerate(stays) if not each}
    assert {change.kind for change in texts.values()} <= {ChangeKind.REMOVED}


def test_differences_are_grouped_by_the_rules_that_make_them(tmp_path: Path) -> None:
    """Catches a line for each item, and an element that is shown with the rule of another."""
    numbers = [content_item("TEXT", LEFT, [element("TextValue", f"text {number}")]) for number in range(40)]
    data = part10(
        [
            element("SOPClassUID", COMPREHENSIVE_SR),
            element("SOPInstanceUID", "1.2.3"),
            element("StudyInstanceUID", "1.2.4"),
            element("StudyDate", "20260102"),
            element("ReferencedStudySequence", [[element("ReferencedSOPInstanceUID", "1.2.5")]]),
            element("PatientSex", "F"),
            element("ContentSequence", numbers),
        ]
    )
    (tmp_path / "report.dcm").write_bytes(data)
    settings = Settings(residuals="off", documents="allow", stamp_method=False)
    uids = "FORMAT dicom\n%header\nREPLACE SOPInstanceUID func:generate_value\n"
    recipes = (
        "JITTER endswith:Date 31",
        "REMOVE StudyDate\nREMOVE ReferencedStudySequence\nREPLACE TextValue X\nADD PatientAge 030Y",
    )
    engines = [Deidentifier(Recipe.parse(f"{uids}{text}\n"), settings) for text in recipes]
    one, other = preview_object(engines, LocalStore(tmp_path), "report.dcm", size=len(data))
    found = by_treatment(differences(one, other))
    stays, removed = Treatment(None), ChangeKind.REMOVED
    sequence = Treatment(removed, "REMOVE ReferencedStudySequence")
    assert found == {
        (Treatment(ChangeKind.CHANGED, "JITTER endswith:Date 31"), Treatment(removed, "REMOVE StudyDate")): Counter(
            {"Study Date": 1}
        ),
        (stays, sequence): Counter({"Referenced Study Sequence": 1}),
        # A setting, not a rule, replaces references.
        (Treatment(ChangeKind.CHANGED), sequence): Counter({"Referenced SOP Instance UID": 1}),
        (stays, Treatment(ChangeKind.ADDED, "ADD PatientAge 030Y")): Counter({"Patient's Age": 1}),
        (stays, Treatment(ChangeKind.CHANGED, "REPLACE TextValue X")): Counter({"Text Value": 40}),
    }


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), unique=True),
    st.integers(min_value=1, max_value=40),
)
def test_a_sample_is_drawn_from_all_folders(drawn: list[tuple[str, int]], count: int) -> None:
    """Catches a sample of the first folders of the listing, or one that has an object twice."""
    listing = [
        SourceObject(f"{folder}/{number:02}", 1, "e", datetime(2026, 1, 2, tzinfo=UTC))
        for folder, number in sorted(drawn)
    ]
    sample = draw_objects(listing, count)
    assert sample == draw_objects(listing, count)
    assert len(sample) == len(set(sample)) == min(count, len(listing))
    of_folder = Counter(found.key[0] for found in sample)
    available = Counter(folder for folder, _ in drawn)
    # No folder has an object that another one with objects left lacks.
    unfilled = [of_folder[folder] for folder in available if of_folder[folder] < available[folder]]
    assert not unfilled or max(of_folder.values()) <= min(unfilled) + 1
