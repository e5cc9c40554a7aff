"""Clear the quarantine in a browser: draw rectangles, decide, apply, and check the pixels of released objects.

``DICOM_DEID_SCREENSHOTS=docs/images pytest tests/browser`` also writes the pictures of the documentation.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.test_browser import PATIENCE, browser, check, log_in, page, picture
from tests.support.airflow import PROJECT, Deployment, deployment
from tests.support.datasets import part10, sr_elements
from tests.support.held import BANNER_ROWS, COLUMNS, ROWS, Device, held_image
from tests.support.runs import RunEnvironment

from dicom_deid.database import Database
from dicom_deid.database.quarantine import count_held, list_decisions
from dicom_deid.engine.settings import Settings
from dicom_deid.sandbox import Sandbox

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(900),
    # As every module that starts an Airflow: one at a time.
    pytest.mark.xdist_group("airflow"),
]

__all__ = ["browser", "page"]

DEVICES = [Device("ACME", f"Echo {number}") for number in range(1, 4)]
IMAGES = 8
OTHER_DECISIONS = {
    "Echo 3": "Exclude",
    "residual-found": "Overwrite",
    "structured-content": "Leave held",
    "not-dicom": "Leave held",
}
CT = "1.2.840.10008.5.1.4.1.1.2"


class Held(NamedTuple):
    """A deployment with held objects."""

    airflow: Deployment
    place: RunEnvironment

    @property
    def pages(self) -> str:
        return f"{self.airflow.airflow.url}/dicom-deid"


@pytest.fixture(scope="module")
def held(sandbox_servers: Sandbox) -> Iterator[Held]:
    with deployment(sandbox_servers, f"r{uuid.uuid4().hex[:12]}") as airflow:
        airflow.airflow.wait_for_dags("dicom_deid_review")
        bucket = airflow.bucket(f"review-{uuid.uuid4().hex[:8]}").removeprefix("s3://")
        place = RunEnvironment(airflow.sandbox.s3, bucket, airflow.database_url, airflow.keys)
        for device in DEVICES:
            for number in range(IMAGES):
                patient = f"{device.model[-1]}P{number % 3}"
                place.put({f"{device.model}/{number}": held_image(device, number=number, patient_id=patient, frames=2)})
        ct = Device("ACME", "CT")
        comment = held_image(
            ct, modality="CT", sop_class=CT, name="Quixote^Ana", patient_id="Q1", comment="saw Quixote"
        )
        place.put({"comment": comment, "report": part10(sr_elements(1)), "text": b"no DICOM" * 40})
        place.run(project=PROJECT, settings=Settings())
        yield Held(airflow, place)


def open_group(page: Page, held: Held, text: str) -> None:
    page.goto(f"{held.pages}/quarantine")
    page.get_by_role("row", name=text).get_by_role("link").click()
    # Loaded with its script.
    page.wait_for_url(re.compile("/groups/"))


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


def objects_held(held: Held) -> int:
    with Database.connect(held.airflow.database_url, keys=held.airflow.keys) as database:
        return count_held(database.connection, {}).objects


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_the_quarantine_is_cleared_in_a_browser(held: Held, browser: Browser, page: Page) -> None:
    """A mask drawn by mouse, one typed by keyboard, one allowed, and other actions; then all are applied."""
    errors: list[str] = []
    log_in(page, held.airflow, "uma")
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{held.pages}/quarantine")
    picture(page, "quarantine")
    check(page)
    # By mouse: the projection over the group, a rectangle, a rule.
    open_group(page, held, "Echo 1")
    page.get_by_label("Show").select_option("maximum:group")
    expect(page.locator("#status")).to_have_text(f"maximum of {2 * IMAGES} of {2 * IMAGES} frames, {IMAGES} objects")
    draw(page, 0, 0, 1, BANNER_ROWS / ROWS)
    expect(page.locator("#rectangles li")).to_have_count(1)
    picture(page, "review")
    page.get_by_label("rule of project").check()
    page.get_by_role("button", name="Record decision").click()
    expect(page.get_by_text("mask (1)").first).to_be_visible()
    # By keyboard only.
    open_group(page, held, "Echo 2")
    page.get_by_role("button", name="Show picture").press("Enter")
    expect(page.locator("#status")).to_have_text("1 of 2")
    page.get_by_role("button", name="Add rectangle").press("Enter")
    for side, value in (("left", 0), ("top", 0), ("right", COLUMNS), ("bottom", BANNER_ROWS)):
        page.get_by_label(side, exact=True).fill(str(value))
    page.get_by_role("button", name="Record decision").press("Enter")
    expect(page.get_by_text("mask (2)").first).to_be_visible()
    for text, action in OTHER_DECISIONS.items():
        open_group(page, held, text)
        page.get_by_role("radio", name=re.compile(f"^{action}")).check()
        page.get_by_role("button", name="Record decision").click()
        expect(page.locator("tbody a[href*=decision]").first).to_be_visible()
    page.goto(f"{held.pages}/decisions")
    check(page)
    page.get_by_role("button", name="Apply decisions").click()
    expect(page.get_by_role("heading", name="Review started")).to_be_visible()
    run_id = page.locator("main li a").inner_text()
    assert held.airflow.airflow.wait_for_run("dicom_deid_review", run_id) == "success"
    assert errors == []
    written = [pydicom.dcmread(io.BytesIO(data)) for data in held.place.get().values()]
    images = [each for each in written if each.Modality == "US"]
    assert len(written) == 2 * IMAGES + 1
    assert len(images) == 2 * IMAGES
    for image in images:
        assert not image.pixel_array[:, :BANNER_ROWS].any()
        assert image.pixel_array[:, BANNER_ROWS:].all()
    assert objects_held(held) == 2
    with Database.connect(held.airflow.database_url, keys=held.airflow.keys) as database:
        assert {each.person for each in list_decisions(database.connection)} == {"uma"}
        assert database.verify().problems == []


@pytest.mark.parametrize("page", ["dark"], indirect=True)
def test_the_review_page_is_accessible(held: Held, page: Page) -> None:
    """axe-core, keyboard and dark mode; pictures, masked text and a content tree."""
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
    held.place.put({"late/report": part10(sr_elements(2))})
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


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_a_viewer_sees_groups_and_no_objects(held: Held, page: Page) -> None:
    log_in(page, held.airflow, "vic")
    page.goto(f"{held.pages}/quarantine")
    page.locator("tbody th a").first.click()
    expect(page.get_by_text("You need permission")).to_be_visible()
    expect(page.locator("canvas, form")).to_have_count(0)
