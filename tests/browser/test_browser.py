"""A person's way through the UI, in a real browser; the pictures of the documentation are taken on the way.

``DICOM_DEID_SCREENSHOTS=docs/images pytest tests/browser`` takes them anew.
"""

from __future__ import annotations

import csv
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.support.airflow import Deployment, deployment
from tests.support.programs import program

from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.samples import sample_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(900),
    # As every module that starts an Airflow: one at a time.
    pytest.mark.xdist_group("airflow"),
]

DAG = "dicom_deid_on_demand"
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 90_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def airflow(sandbox_servers: Sandbox) -> Iterator[Deployment]:
    """Airflow with a source of real objects."""
    with deployment(sandbox_servers, f"b{uuid.uuid4().hex[:12]}") as running:
        running.airflow.wait_for_dags(DAG)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program("chromium"), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a laptop's size."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=request.param)
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def picture(page: Page, name: str) -> None:
    """Take a picture for the documentation, when asked to."""
    folder = os.environ.get("DICOM_DEID_SCREENSHOTS")
    if folder and page.evaluate("matchMedia('(prefers-color-scheme: light)').matches"):
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def log_in(page: Page, airflow: Deployment, user: str) -> None:
    """Log in as a person does."""
    page.goto(airflow.airflow.url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", airflow.airflow.passwords[user])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/login" not in address)


def test_from_the_form_to_the_quarantine_list(airflow: Deployment, page: Page, tmp_path: Path) -> None:
    """Whatever a person cannot find, read or press on the way from the form to the quarantine list."""
    objects = {name: path.read_bytes() for name, path in sample_files() if "charset_files" in name}
    objects["notes.txt"] = b"not DICOM"
    source = airflow.bucket(f"source-{uuid.uuid4().hex[:8]}", objects)
    destination = airflow.bucket(f"destination-{uuid.uuid4().hex[:8]}")
    log_in(page, airflow, "olga")
    fill_the_form(page, airflow, source, destination)
    run_id = unquote(urlsplit(page.url).path.rpartition("/runs/")[2].partition("/")[0])
    # The word alone stands on the page before the run has ended, and its first task makes the tables.
    assert airflow.airflow.wait_for_run(DAG, run_id) == "success"
    expect(page.get_by_text("Success").first).to_be_visible()
    picture(page, "run")
    follow_a_quarantined_object(page, airflow)
    look_at_the_other_pages(page, airflow)
    download_the_list(page, airflow, tmp_path)


def fill_the_form(page: Page, airflow: Deployment, source: str, destination: str) -> None:
    page.goto(f"{airflow.airflow.url}/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_role("button", name="From where to where").click()
    page.fill("input[name=element_source]", source)
    page.fill("input[name=element_destination]", destination)
    picture(page, "form")
    page.get_by_role("button", name="Who asks, and why").click()
    page.fill("textarea[name=element_purpose]", "To see the way")
    page.locator("[role=dialog]").get_by_role("button", name=re.compile("^Trigger")).last.click()
    page.wait_for_url(re.compile(r"/runs/manual"))


def follow_a_quarantined_object(page: Page, airflow: Deployment) -> None:
    page.goto(f"{airflow.airflow.url}/plugin/dicom-deid-pages")
    # Not into the frame: Playwright may read an empty document where the screen shows the page.
    expect(page.locator("iframe")).to_have_attribute("src", "/dicom-deid/")
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    picture(page, "pages")
    page.locator("tbody th a").first.click()
    expect(page.get_by_role("heading", name="Quarantined and failed")).to_be_visible()
    picture(page, "run-page")
    page.get_by_role("link", name="not-dicom").click()
    expect(page.get_by_role("heading", name="Objects: not-dicom")).to_be_visible()
    page.locator("table").last.locator("tbody th a").first.click()
    expect(page.get_by_role("heading", name="What happened to an object")).to_be_visible()
    expect(page.get_by_text("The object is not DICOM.").first).to_be_visible()
    picture(page, "object")


def look_at_the_other_pages(page: Page, airflow: Deployment) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    for path in ("/", "/quarantine", "/objects", "/recipes", "/recipes/desktop", "/projects"):
        page.goto(f"{airflow.airflow.url}/dicom-deid{path}")
        expect(page.locator("h1")).to_be_visible()
        assert low_contrast(page) == []
        page.set_viewport_size({"width": 390, "height": 800})
        page.reload()
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        page.set_viewport_size({"width": 1280, "height": 800})
    assert errors == []
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Runs"


def download_the_list(page: Page, airflow: Deployment, place: Path) -> None:
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    page.locator("tbody th a").first.click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Quarantine list (CSV)").click()
    waiting.value.save_as(place / "list.csv")
    rows = list(csv.DictReader((place / "list.csv").open()))
    assert "notes.txt" in {row["source_key"] for row in rows}


def low_contrast(page: Page) -> list[str]:
    """Return the texts whose colour stands out less than WCAG 2.1 AA asks for: 4.5 to 1, or 3 to 1 when large."""
    return list(page.evaluate(CONTRAST))


CONTRAST = """
() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || !element.offsetParent || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const pair = [light(parse(style.color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) bad.push(`${element.tagName} ${element.className} ${ratio.toFixed(2)}`);
  }
  return bad;
}
"""
