"""Clear the quarantine in a browser: draw rectangles, decide, apply, and check the pixels of released objects.

``DICOM_DEID_SCREENSHOTS=docs/images pytest tests/browser`` also writes the pictures of the documentation.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from tests.browser.test_browser import PATIENCE, browser, check, log_in, page, picture
from tests.support.airflow import PROJECT, Deployment, deployment
from tests.support.datasets import element, part10, sr_elements
from tests.support.held import COLUMNS, ROWS, Device, held_image
from tests.support.runs import RunEnvironment

from dicom_deid.database import Database
from dicom_deid.database.quarantine import count_held, list_decisions, list_held_groups, project_rules
from dicom_deid.database.text_layouts import record_layouts
from dicom_deid.engine.pixels import SHOWS_TEXT
from dicom_deid.engine.settings import Settings
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.samples import sample_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1800),
]

__all__ = ["browser", "page"]

DEVICES = [Device("ACME", f"Echo {number:02}") for number in range(20)]
OBJECTS = int(os.environ.get("DICOM_DEID_HELD_OBJECTS", "200"))
"""Held images; ``make bench-review`` sets 1,000."""
MOST_DECISIONS = 40
MASKED, EXCLUDED = DEVICES[:-1], DEVICES[-1]
CLIP = "Turbo"
"""Model of the device of an ultrasound clip that pydicom ships."""
OTHER_DECISIONS = {
    EXCLUDED.model: "Exclude",
    "residual-found": "Overwrite",
    "structured-content": "Leave held",
    "not-dicom": "Leave held",
    CLIP: "Leave held",
}
CT = "1.2.840.10008.5.1.4.1.1.2"
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>endobj\ntrailer<</Root 1 0 R>>\n"
)
LETTER = part10(
    [
        element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.104.1"),
        element("SOPInstanceUID", "1.2.3.4"),
        element("StudyInstanceUID", "1.2.3"),
        element("SeriesInstanceUID", "1.2.3.1"),
        element("EncapsulatedDocument", PDF),
    ]
)


class Held(NamedTuple):
    """A deployment with held objects, and the images among them by source key."""

    airflow: Deployment
    place: RunEnvironment
    images: Mapping[str, bytes]

    @property
    def pages(self) -> str:
        return f"{self.airflow.airflow.url}/dicom-deid"


def banner_rows(device: Device) -> int:
    """Return the height of the banner of a device: each has its own."""
    return 4 + DEVICES.index(device)


def image(device: Device, number: int, *, text: str = "") -> bytes:
    """Return an image of two frames of one of the patients of a device."""
    patient = f"{device.model[-2:]}P{number % 3}"
    return held_image(device, number=number, patient_id=patient, frames=2, banner_rows=banner_rows(device), text=text)


@pytest.fixture(scope="module")
def held(sandbox_servers: Sandbox) -> Iterator[Held]:
    with deployment(sandbox_servers, f"r{uuid.uuid4().hex[:12]}") as airflow:
        airflow.airflow.wait_for_dags("dicom_deid_review")
        bucket = airflow.bucket(f"review-{uuid.uuid4().hex[:8]}").removeprefix("s3://")
        place = RunEnvironment(airflow.sandbox.s3, bucket, airflow.database_url, airflow.keys)
        images = {
            f"{device.model}/{number}": image(device, number)
            for device in DEVICES
            for number in range(OBJECTS // len(DEVICES))
        }
        ct = Device("ACME", "CT")
        comment = held_image(
            ct, modality="CT", sop_class=CT, name="Quixote^Ana", patient_id="Q1", comment="saw Quixote"
        )
        (clip,) = (path.read_bytes() for _, path in sample_files() if path.name == "examples_ybr_color.dcm")
        others = {"comment": comment, "report": part10(sr_elements(1)), "text": b"no DICOM" * 40, "clip": clip}
        place.put({**images, **others})
        place.run(project=PROJECT, settings=Settings())
        yield Held(airflow, place, images)


def open_group(page: Page, held: Held, text: str) -> None:
    """Follow the link of the only group whose row has the text."""
    page.goto(f"{held.pages}/quarantine")
    page.get_by_role("row", name=text).get_by_role("link").click()
    # Loaded with its script.
    page.wait_for_url(re.compile("/groups/"))
    expect(page.locator("#decide")).to_have_attribute("data-ready", "yes")


def draw(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Drag over the picture; sides as parts of its size."""
    canvas = page.locator("#picture")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=4)
    page.mouse.up()


def record(page: Page) -> None:
    """Send the decision, and wait until the page shows it."""
    page.get_by_role("button", name="Record decision").click()
    expect(page.locator("tbody a[href*=decision]").first).to_be_visible()


def mask_by_mouse(page: Page, held: Held, device: Device) -> None:
    """Look at the projection over the group, draw a rectangle, and make it a rule."""
    count = OBJECTS // len(DEVICES)
    shown = min(count, 50)
    open_group(page, held, device.model)
    page.get_by_label("Show").select_option("maximum:group")
    expect(page.locator("#status")).to_have_text(f"maximum of {2 * shown} of {2 * shown} frames, {shown} objects")
    draw(page, 0, 0, 1, banner_rows(device) / ROWS)
    expect(page.locator("#rectangles li")).to_have_count(1)
    page.get_by_label("rule of project").check()
    record(page)


def look_at_a_clip(page: Page, held: Held) -> None:
    """Look at the projection over the frames of a real clip, and draw a rectangle."""
    open_group(page, held, CLIP)
    page.get_by_label("Show").select_option("maximum")
    expect(page.locator("#status")).to_have_text("maximum of 30 of 30 frames, 1 object")
    draw(page, 0, 0, 1, 0.12)
    picture(page, "review")


def mask_by_keyboard(page: Page, held: Held, device: Device) -> None:
    open_group(page, held, device.model)
    page.get_by_role("button", name="Show picture").press("Enter")
    expect(page.locator("#status")).to_have_text("1 of 2")
    page.get_by_role("button", name="Add rectangle").press("Enter")
    for side, value in (("left", 0), ("top", 0), ("right", COLUMNS), ("bottom", banner_rows(device))):
        page.get_by_label(side, exact=True).fill(str(value))
    page.get_by_label("rule of project").press("Space")
    page.get_by_role("button", name="Record decision").press("Enter")
    expect(page.locator("tbody a[href*=decision]").first).to_be_visible()


def apply_decisions(page: Page, held: Held) -> None:
    page.goto(f"{held.pages}/decisions")
    page.get_by_role("button", name="Apply decisions").click()
    expect(page.get_by_role("heading", name="Review started")).to_be_visible()
    for run_id in page.locator("main li a").all_inner_texts():
        assert held.airflow.airflow.wait_for_run("dicom_deid_review", run_id, timeout=800) == "success"


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_the_quarantine_is_cleared_in_a_browser(held: Held, page: Page) -> None:
    """Each device is masked by a rectangle that is drawn; every pixel of every released object is checked.

    One device is masked by keyboard only, and other reasons get other actions.
    """
    errors: list[str] = []
    log_in(page, held.airflow, "uma")
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{held.pages}/quarantine")
    picture(page, "quarantine")
    check(page)
    look_at_a_clip(page, held)
    mask_by_keyboard(page, held, MASKED[-1])
    for device in MASKED[:-1]:
        mask_by_mouse(page, held, device)
    for text, action in OTHER_DECISIONS.items():
        open_group(page, held, text)
        page.get_by_role("radio", name=re.compile(f"^{action}")).check()
        record(page)
    page.goto(f"{held.pages}/decisions")
    check(page)
    apply_decisions(page, held)
    assert errors == []
    with Database.connect(held.airflow.database_url, keys=held.airflow.keys) as database:
        decisions = list_decisions(database.connection)
        left = count_held(database.connection, {})
        assert database.verify().problems == []
    assert len(decisions) <= MOST_DECISIONS
    assert {each.person for each in decisions} == {"uma"}
    assert (left.groups, left.objects) == (3, 3)
    assert_masked(held)


def assert_masked(held: Held) -> None:
    """Check that every image of a masked device is released, blank inside its mask and unchanged outside."""
    expected = sorted(
        masked_pixels(data, device).tobytes()
        for device in MASKED
        for key, data in held.images.items()
        if key.startswith(f"{device.model}/")
    )
    written = [pydicom.dcmread(io.BytesIO(data)) for data in held.place.get().values()]
    assert sorted(each.Modality for each in written) == ["CT"] + len(expected) * ["US"]
    assert sorted(each.pixel_array.tobytes() for each in written if each.Modality == "US") == expected


def masked_pixels(data: bytes, device: Device) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = pydicom.dcmread(io.BytesIO(data)).pixel_array.copy()
    pixels[:, : banner_rows(device)] = 0
    return pixels


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_new_text_outside_a_mask_is_held_again(held: Held, page: Page) -> None:
    """Later objects of a masked device are released by its rule, except one that shows text elsewhere."""
    device = MASKED[0]
    with Database.connect(held.airflow.database_url, keys=held.airflow.keys) as database:
        assert f"equals ManufacturerModelName {device.model}" in project_rules(database.connection, PROJECT)
    later = {"calm": image(device, 1000), "text": image(device, 1001, text="ROE JANE 4711")}
    held.place.put(later, prefix="in/later")
    configuration = held.place.configuration(
        source=f"s3://{held.place.bucket}/in/later", project=PROJECT, settings=Settings()
    )
    assert held.place.run(configuration).outcomes == {
        "calm": ("deidentified", None),
        "text": ("quarantined", "pixel-risk"),
    }
    log_in(page, held.airflow, "uma")
    open_group(page, held, SHOWS_TEXT)
    page.get_by_role("button", name="Show picture").click()
    expect(page.locator("#status")).to_have_text("1 of 2")
    draw(page, 0, 0, 1, 1)
    draw(page, 0, 0, 1, banner_rows(device) / ROWS)
    # The reviewer sees that the text is none of the patient's.
    page.get_by_label("Rectangle 1", exact=True).select_option("may show text")
    expect(page.locator("#decide [name=text]")).to_have_value(f"0,0,{COLUMNS},{ROWS}")
    page.get_by_label("rule of project").check()
    record(page)
    apply_decisions(page, held)
    with Database.connect(held.airflow.database_url, keys=held.airflow.keys) as database:
        assert list_held_groups(database.connection, {"model": device.model}) == []
    released = [pydicom.dcmread(io.BytesIO(data)).pixel_array for data in held.place.get().values()]
    expected = masked_pixels(later["text"], device)
    assert any(np.array_equal(each, expected) for each in released)


@pytest.mark.parametrize("page", ["dark"], indirect=True)
def test_the_review_page_is_accessible(held: Held, page: Page) -> None:
    """axe-core, keyboard and dark mode; pictures, masked text, a content tree, a PDF, and learned text layouts."""
    for number, modality in enumerate(("US", "CT")):
        comment = "saw Quixote again" if modality == "CT" else ""
        image = held_image(
            Device("Late", f"Model {number}"),
            modality=modality,
            sop_class=CT if modality == "CT" else "1.2.840.10008.5.1.4.1.1.6.1",
            name="Quixote^Ana",
            patient_id=f"L{number}",
            comment=comment,
            number=100 + number,
        )
        held.place.put({f"late/{number}": image})
    held.place.put({"late/report": part10(sr_elements(2)), "late/letter": LETTER})
    held.place.run(project=PROJECT, settings=Settings())
    log_in(page, held.airflow, "uma")
    open_group(page, held, "Model 0")
    check(page)
    open_group(page, held, "Model 1")
    page.get_by_role("button", name="Show details").click()
    expect(page.get_by_text("saw ███████ again")).to_be_visible()
    page.get_by_role("button", name="Show in clear").click()
    expect(page.get_by_text("saw Quixote again")).to_be_visible()
    check(page)
    open_group(page, held, "structured-content")
    page.get_by_role("button", name="Show content").click()
    expect(page.locator(".tree li").first).to_be_visible(timeout=PATIENCE)
    open_group(page, held, "encapsulated-document")
    page.get_by_role("button", name="Show picture").click()
    expect(page.locator("#status")).to_have_text("1 of 1")
    check(page)
    with Database.connect(held.airflow.database_url, keys=held.airflow.keys) as database:
        project = database.project(PROJECT, create=False)
        criteria = "equals Manufacturer ACME\nequals SequenceOfUltrasoundRegions 0,30,320,128"
        record_layouts(database.connection, project.project_id, [(criteria, [(2, 97, 117, 124)])], ())
    page.goto(f"{held.pages}/decisions?project={PROJECT}")
    expect(page.get_by_role("heading", name="Text layouts")).to_be_visible()
    check(page)


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_a_viewer_sees_groups_and_no_objects(held: Held, page: Page) -> None:
    log_in(page, held.airflow, "vic")
    page.goto(f"{held.pages}/quarantine")
    page.locator("tbody th a").first.click()
    expect(page.get_by_text("You need permission")).to_be_visible()
    expect(page.locator("canvas, form")).to_have_count(0)
