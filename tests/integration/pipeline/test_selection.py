"""Criteria of a run: excluded objects are recorded with the criterion, and read again only when something changes."""

from __future__ import annotations

import pytest
from tests.support.datasets import IMPLICIT_LE, Encoding, ct_elements, element, part10
from tests.support.runs import RunEnvironment

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import S3Store
from dicom_deid.pipeline import report_run

DEFLATED = Encoding("1.2.840.10008.1.2.1.99")
EXCLUDE = "equals Modality SR\ncontains ImageType LOCALIZER"


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def ct(seed: int, encoding: Encoding = Encoding(), *, rows: int = 16, **changed: str) -> bytes:  # noqa: B008
    changes = {one.tag: one for one in (element(keyword, value) for keyword, value in changed.items())}
    kept = [one for one in ct_elements(seed, rows=rows, columns=rows) if one.tag not in changes]
    return part10([*kept, *changes.values()], encoding)


def objects() -> dict[str, bytes]:
    return {
        "axial.dcm": ct(1, ImageType="ORIGINAL\\PRIMARY\\AXIAL"),
        "scout.dcm": ct(2, ImageType="ORIGINAL\\PRIMARY\\LOCALIZER"),
        "scout-deflated.dcm": ct(3, DEFLATED, ImageType="ORIGINAL\\PRIMARY\\LOCALIZER"),
        "report.dcm": ct(4, Modality="SR"),
        # Rows is not in the first read of the header.
        "big-scout.dcm": ct(
            5, Encoding(IMPLICIT_LE), rows=256, ImageType="ORIGINAL\\PRIMARY\\LOCALIZER", ImageComments="x" * 70_000
        ),
        "notes.txt": b"no DICOM" * 40,
    }


def test_excluded_objects_are_recorded_with_the_criterion(place):
    """Catches an excluded object that is written or quarantined, and one that is not DICOM and counts as excluded."""
    place.put(objects())
    ran = place.run(exclude=EXCLUDE)
    details = {row.item.key: (row.outcome.value, row.detail) for row in ran.rows}
    assert details.pop("axial.dcm") == ("deidentified", "")
    assert details.pop("notes.txt")[0] == "quarantined"
    assert details.pop("report.dcm") == ("excluded", "exclude: equals Modality SR")
    assert set(details.values()) == {("excluded", "exclude: contains ImageType LOCALIZER")}
    assert len(place.get()) == 1
    report = report_run(place.connections, run_id=ran.planned.run_id, state="succeeded")
    assert report.outcomes == {"deidentified": 1, "quarantined": 1, "excluded": 4}
    assert report.quarantine_ratio == 0.5


def test_objects_that_are_not_selected_are_excluded(place):
    place.put(objects())
    ran = place.run(select="equals Modality CT + less Rows 64\nnotcontains ImageType LOCALIZER")
    kept = {key for key, (outcome, _) in ran.outcomes.items() if outcome == "deidentified"}
    assert kept == {"axial.dcm"}
    details = {row.item.key: row.detail for row in ran.rows}
    assert details["big-scout.dcm"] == "select: equals Modality CT + less Rows 64"
    assert details["scout.dcm"] == "select: notcontains ImageType LOCALIZER"


def test_excluded_objects_are_read_again_only_when_they_or_the_criteria_change(place, monkeypatch):
    """Catches a run that reads all excluded objects every night, and one that misses what is no longer excluded."""
    place.put(objects())
    place.run(exclude=EXCLUDE)
    reads: list[str] = []
    read = S3Store.read
    monkeypatch.setattr(S3Store, "read", lambda self, key, **named: reads.append(key) or read(self, key, **named))
    again = place.run(exclude=f"{EXCLUDE}  # the same criteria")
    assert (again.planned.summary.planned, reads) == (0, [])
    place.put({"scout.dcm": ct(2, ImageType="ORIGINAL\\PRIMARY\\AXIAL")})
    changed = place.run(exclude=EXCLUDE)
    assert {key: outcome for key, (outcome, _) in changed.outcomes.items()} == {"scout.dcm": "deidentified"}
    reads.clear()
    fewer = place.run(exclude="equals Modality SR")
    outcomes = {key: outcome for key, (outcome, _) in fewer.outcomes.items()}
    # What was de-identified is not done again for other criteria.
    assert outcomes == {
        "scout-deflated.dcm": "deidentified",
        "big-scout.dcm": "deidentified",
        "report.dcm": "excluded",
    }
    assert fewer.planned.summary.why == {"criteria": 3}


def test_criteria_are_checked_before_anything_is_planned(place):
    with pytest.raises(ConfigurationError, match="exclude:1:1: unknown criterion 'equal'; did you mean equals"):
        place.configuration(exclude="equal Modality CT")
