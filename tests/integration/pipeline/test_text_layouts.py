"""Where the images of a device show text is learned, used, and unlearned."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from tests.support.images import image_dataset
from tests.support.runs import Ran, RunEnvironment

from dicom_deid.database import Database
from dicom_deid.database.quarantine import project_rules
from dicom_deid.database.text_layouts import layout_rules, list_layouts
from dicom_deid.engine.pixels import TextFinder
from dicom_deid.engine.pixels.layouts import is_sampled
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline import plan_run
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")

SEARCH = Settings(residuals="off", pixel_risk="ocr", layout_objects=3)
BANNER, ELSEWHERE = (10, 8), (10, 100)
ROWS, COLUMNS = 128, 320
DECIDE = """
INSERT INTO decision (project_id, action, is_rule, rules, settings, note, person, approved_at)
SELECT project_id, 'release', true, E'%filter graylist\nLABEL x\n  equals Manufacturer Other', '{}', '', 'ann', now()
FROM project
"""


def ultrasound(number: int, *places: tuple[int, int], model: str = "Echo 1", sampled: bool = False) -> bytes:
    """Return an image with a number at each place; its UID is in the 2 % sample or not."""
    picture = Image.new("L", (COLUMNS, ROWS))
    for place in places:
        ImageDraw.Draw(picture).text(place, f"MRN: {700000 + number}", fill=255, font=ImageFont.load_default(16))
    dataset = image_dataset(np.asarray(picture).tobytes(), rows=ROWS, columns=COLUMNS)
    uids = (f"1.2.826.0.1.{number}.{index}" for index in range(1, 2000))
    dataset.SOPInstanceUID = next(uid for uid in uids if is_sampled(uid) is sampled)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.SoftwareVersions = "ACME", model, ["1.0", "a|b"]
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 30
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = COLUMNS, ROWS
    dataset.SequenceOfUltrasoundRegions = [region]
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture
def place(s3, s3_bucket, postgres_url) -> RunEnvironment:
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pictures of each search."""
    counted: list[int] = []
    real = TextFinder.find

    def find(self: TextFinder, pictures, scale):  # type: ignore[no-untyped-def]
        counted.append(len(pictures))
        return real(self, pictures, scale)

    monkeypatch.setattr(TextFinder, "find", find)
    return counted


def run(place: RunEnvironment) -> Ran:
    return place.run(settings=SEARCH, recipes=("desktop",))


def test_a_layout_is_learned_used_and_unlearned(place: RunEnvironment, searches: list[int]) -> None:
    place.put({f"{number}.dcm": ultrasound(number, BANNER) for number in range(4)})
    first = run(place)
    assert set(first.outcomes.values()) == {("deidentified", None)}
    assert len(searches) == 4

    # The first object gave the place, three more agreed with it: later objects are not searched, and those that are
    # done are not done again although the digests have changed.
    searches.clear()
    place.put({"5.dcm": ultrasound(5, BANNER), "other.dcm": ultrasound(6, BANNER, model="Echo 2")})
    second = run(place)
    assert {key: value[0] for key, value in second.outcomes.items()} == dict.fromkeys(
        ("5.dcm", "other.dcm"), "deidentified"
    )
    assert len(searches) == 1, "only the other device is searched"
    assert second.planned.configuration.digest != first.planned.configuration.digest
    assert not any(shows(data, BANNER) for data in place.get().values()), "the place is blank in every object"

    # One of the sample shows text elsewhere: it is held, and the layout is not used again.
    place.put({"6.dcm": ultrasound(7, BANNER, ELSEWHERE, sampled=True)})
    third = run(place)
    assert third.outcomes == {"6.dcm": ("quarantined", Reason.TEXT_OUTSIDE_LAYOUT.value)}
    searches.clear()
    place.put({"7.dcm": ultrasound(8, BANNER)})
    assert run(place).outcomes == {"7.dcm": ("deidentified", None)}
    assert len(searches) == 1


def shows(data: bytes, where: tuple[int, int]) -> bool:
    pixels = dcmread(io.BytesIO(data)).pixel_array
    return bool(pixels[where[1] : where[1] + 16, where[0] : where[0] + 100].any())


def test_a_sampled_object_that_agrees_is_released(place: RunEnvironment, searches: list[int]) -> None:
    place.put({f"{number}.dcm": ultrasound(number, BANNER) for number in range(4)})
    run(place)
    searches.clear()
    place.put({"5.dcm": ultrasound(5, BANNER, sampled=True)})
    assert run(place).outcomes == {"5.dcm": ("deidentified", None)}
    assert len(searches) == 1


def test_a_plan_that_is_retried_keeps_the_layouts_and_rules_of_its_run(place: RunEnvironment) -> None:
    """Catches a retry that is refused as another run because a layout was learned, or a device decided, meanwhile."""
    place.put({f"{number}.dcm": ultrasound(number, BANNER) for number in range(4)})
    late = place.configuration(settings=SEARCH, recipes=("desktop",)).replace(external_id="dag/run/plan")
    planned = plan_run(late, place.connections)
    run(place)
    assert run(place).planned.configuration.project_rules
    with Database.connect(place.database, keys=place.keys) as database:
        database.connection.query("deciding", DECIDE)
        assert "decision 1" in project_rules(database.connection, "test")
    again = plan_run(late, place.connections)
    assert (again.run_id, again.configuration) == (planned.run_id, planned.configuration)
    assert again.configuration.project_rules == ""


def test_rules_are_exported_as_filters_that_match(place: RunEnvironment) -> None:
    """With the margin, so that the places of a moved letter are blank too."""
    place.put({f"{number}.dcm": ultrasound(number, BANNER) for number in range(4)})
    run(place)
    with Database.connect(place.database, keys=place.keys) as database:
        text = layout_rules(database.connection, "test", 3, "graylist")
        (layout,) = list_layouts(database.connection, "test")
        assert (layout.objects, layout.agreeing, layout.unlearned_at) == (4, 3, None)
        assert layout_rules(database.connection, "test", 4, "graylist") == ""
    recipe = Recipe.parse(f"FORMAT dicom\n{text}", "exported")
    (exported,) = recipe.filters
    assert exported.clears == ("burned-in-annotation", "pixel-risk")
    assert "SequenceOfUltrasoundRegions 0,30,320,128" in text
