"""Tests of the pages in a real browser.

``DICOM_DEID_SCREENSHOTS=docs/images pytest tests/browser`` also writes the pictures of the documentation.
"""

from __future__ import annotations

import csv
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.support.airflow import Deployment, deployment
from tests.support.programs import program
from tests.support.runs import RunEnvironment, patients, series

from dicom_deid.pipeline import plan_run, report_run
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.samples import sample_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(900),
]

DAG, PREVIEW = "dicom_deid_on_demand", "dicom_deid_preview"
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 90_000
LAPTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 800}
expect.set_options(timeout=PATIENCE)
WAITING = ("awaiting_input", "deferred")
"""States of a task that waits for a person; Airflow 3.3 has the first."""


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
    context = browser.new_context(viewport=LAPTOP, color_scheme=request.param)
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def picture(page: Page, name: str) -> None:
    """Write a picture for the documentation if DICOM_DEID_SCREENSHOTS is set."""
    folder = os.environ.get("DICOM_DEID_SCREENSHOTS")
    if folder and page.evaluate("matchMedia('(prefers-color-scheme: light)').matches"):
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def log_in(page: Page, airflow: Deployment, user: str) -> None:
    """Log in."""
    page.goto(airflow.airflow.url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", airflow.airflow.passwords[user])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/login" not in address)


def check(page: Page) -> None:
    """Check the current page with axe-core and the keyboard, at laptop and phone size."""
    for size in (LAPTOP, PHONE):
        page.set_viewport_size(size)
        page.reload()
        expect(page.locator("h1")).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], page.url
    page.set_viewport_size(LAPTOP)
    assert out_of_reach(page) == [], page.url


def out_of_reach(page: Page) -> list[str]:
    """Return the controls that the Tab key does not reach, or reaches without a visible focus."""
    page.reload()
    for _ in range(page.evaluate(f"{USABLE}.length")):
        page.keyboard.press("Tab")
        page.evaluate(
            "document.activeElement.dataset.reached = getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        )
    return list(page.evaluate(f"{USABLE}.filter((e) => e.dataset.reached !== 'true').map((e) => e.outerHTML)"))


USABLE = """[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
    .filter((e) => e.checkVisibility() && !e.disabled && !(e.type === 'radio' && !e.checked))"""


def test_before_the_first_run(airflow: Deployment, page: Page) -> None:
    """The first page explains what to do and links to the DAG."""
    log_in(page, airflow, "olga")
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    check(page)
    page.get_by_role("link", name="dicom_deid_on_demand").click()
    expect(page.get_by_role("button", name="Trigger").first).to_be_visible()


@pytest.fixture(scope="module")
def previewed(airflow: Deployment) -> str:
    """The id of a DAG run that compared two recipes, before any run."""
    source = airflow.bucket(f"previewed-{uuid.uuid4().hex[:8]}", series(patients(3), slices=4) | {"a.txt": b"no DICOM"})
    run_id, state = airflow.run(PREVIEW, {"source": source, "compare_with": "ps3.15-basic"})
    assert state == "success"
    return run_id


def test_the_tab_of_a_preview(airflow: Deployment, previewed: str, page: Page) -> None:
    """A preview shows rules, reasons and differences in the tab of its DAG run."""
    log_in(page, airflow, "olga")
    page.goto(f"{airflow.airflow.url}/dags/{PREVIEW}/runs/{quote(previewed, safe='')}")
    page.get_by_role("link", name="De-identification", exact=True).click()
    frame = page.frame_locator("iframe")
    for heading in ("Rules that act", "Would be quarantined", "Differences between the two recipes"):
        expect(frame.get_by_role("heading", name=heading)).to_be_visible()
    picture(page, "preview")
    page.goto(f"{airflow.airflow.url}/dicom-deid/dags/{PREVIEW}/runs/{quote(previewed, safe='')}")
    check(page)


def test_a_heading_sorts_its_table(airflow: Deployment, page: Page) -> None:
    """Rows are sorted as numbers or as text, in both directions, with the keyboard too."""
    log_in(page, airflow, "vic")
    page.goto(f"{airflow.airflow.url}/dicom-deid/recipes")
    table = page.get_by_role("region", name="Recipes", exact=True)

    def column(number: int) -> list[str]:
        return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()

    heading = table.get_by_role("button", name="Rules")
    heading.click()
    rules = [int(text.replace(",", "")) for text in column(2)]
    assert rules == sorted(rules, reverse=True)
    assert len(set(rules)) > 2
    heading.press("Enter")
    assert [int(text.replace(",", "")) for text in column(2)] == rules[::-1]
    expect(table.get_by_role("columnheader", name="Rules")).to_have_attribute("aria-sort", "ascending")
    table.get_by_role("button", name="Recipe", exact=True).click()
    assert column(1) == sorted(column(1))
    check(page)


def test_the_form_of_the_connection(airflow: Deployment, page: Page) -> None:
    """The form asks for keys, project and recipe, and for nothing that the connection does not have."""
    log_in(page, airflow, "ada")
    page.goto(f"{airflow.airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    page.fill("input[name=connection_id]", "dicom_deid_default")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").fill("DICOM")
    page.get_by_role("option", name="DICOM de-identification").click()
    expect(dialog.get_by_text("Keys", exact=True)).to_be_visible()
    expect(dialog.get_by_text("Host", exact=True)).to_have_count(0)
    dialog.get_by_role("button", name="Extra Fields", exact=True).click()
    expect(dialog.get_by_text("Project", exact=True)).to_be_visible()
    expect(dialog.get_by_text("Recipe", exact=True)).to_be_visible()
    picture(page, "connection")


@pytest.fixture
def source(airflow: Deployment) -> str:
    """A source of real objects, and one that is none."""
    objects = {name: path.read_bytes() for name, path in sample_files() if "charset_files" in name}
    objects["notes.txt"] = b"not DICOM"
    return airflow.bucket(f"source-{uuid.uuid4().hex[:8]}", objects)


def keys_of(airflow: Deployment, bucket: str) -> list[str]:
    listed = airflow.sandbox.s3.client().list_objects_v2(Bucket=bucket.removeprefix("s3://"))
    return [each["Key"] for each in listed.get("Contents", [])]


def test_from_the_form_to_the_quarantine_list(airflow: Deployment, source: str, page: Page, tmp_path: Path) -> None:
    """A user gets from the trigger form to the quarantine list."""
    errors: list[str] = []
    destination = airflow.bucket(f"destination-{uuid.uuid4().hex[:8]}")
    log_in(page, airflow, "olga")
    fill_the_form(page, airflow, source, destination)
    run_id = unquote(urlsplit(page.url).path.rpartition("/runs/")[2].partition("/")[0])
    # The page shows the word before the run has ended, and its first task creates the tables.
    assert airflow.airflow.wait_for_run(DAG, run_id) == "success"
    expect(page.get_by_text("Success").first).to_be_visible()
    picture(page, "run")
    look_into_the_frame(page)
    look_at_the_tab(page, airflow, run_id)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    follow_a_quarantined_object(page, airflow)
    follow_a_written_object(page, airflow, keys_of(airflow, destination))
    look_at_the_other_pages(page, airflow)
    download_the_list(page, airflow, tmp_path)
    assert errors == []


def fill_the_form(page: Page, airflow: Deployment, source: str, destination: str) -> None:
    page.goto(f"{airflow.airflow.url}/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    page.fill("input[name=element_source]", source)
    page.fill("input[name=element_destination]", destination)
    picture(page, "form")
    page.get_by_role("button", name="Project and quarantine").click()
    page.locator("label:has(input[name=element_create_project])").click()
    page.get_by_role("button", name="Audit").click()
    page.fill("textarea[name=element_reason]", "To see the way")
    page.locator("[role=dialog]").get_by_role("button", name=re.compile("^Trigger")).last.click()
    page.wait_for_url(re.compile(r"/runs/manual"))


def look_into_the_frame(page: Page) -> None:
    """Open the pages inside Airflow's UI."""
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="De-identification").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Runs")).to_be_visible()
    expect(frame.locator("canvas").first).to_be_visible()
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark" if dark else "light")
    frame.get_by_role("link", name="Quarantine").click()
    expect(frame.get_by_role("link", name="not-dicom").first).to_be_visible()


def look_at_the_tab(page: Page, airflow: Deployment, run_id: str) -> None:
    """Open the tab of the DAG run."""
    page.goto(f"{airflow.airflow.url}/dags/{DAG}/runs/{quote(run_id, safe='')}")
    page.get_by_role("link", name="De-identification", exact=True).click()
    expect(page.frame_locator("iframe").get_by_role("heading", name=re.compile("^Run of"))).to_be_visible()


def follow_a_quarantined_object(page: Page, airflow: Deployment) -> None:
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    page.locator("tbody th a").first.click()
    expect(page.get_by_role("heading", name="Quarantined and failed")).to_be_visible()
    picture(page, "run-page")
    check(page)
    page.get_by_role("link", name="not-dicom").first.click()
    page.locator("tbody th a", has_text="not-dicom").first.click()
    expect(page.get_by_role("heading", name=re.compile("^not-dicom"))).to_be_visible()
    page.locator("table").last.locator("tbody th a").first.click()
    expect(page.get_by_role("heading", name="History of an object")).to_be_visible()
    expect(page.get_by_text("The object is not DICOM.").first).to_be_visible()
    check(page)


def follow_a_written_object(page: Page, airflow: Deployment, keys: list[str]) -> None:
    page.goto(f"{airflow.airflow.url}/dicom-deid/objects")
    page.get_by_label(re.compile("^Source key, destination key")).fill(keys[0])
    page.keyboard.press("Enter")
    expect(page.get_by_text("deidentified", exact=True).first).to_be_visible()
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    page.locator("tbody th a").first.click()
    page.get_by_role("region", name="Recently de-identified").get_by_role("link", name=keys[0]).click()
    expect(page.get_by_text("deidentified", exact=True).first).to_be_visible()
    picture(page, "object")
    check(page)
    page.get_by_role("button", name="Compare before and after").first.click()
    patient = page.get_by_role("row", name=re.compile("Patient's Name"))
    expect(patient).to_contain_text("changed")
    expect(patient).to_contain_text("Anonymous")
    picture(page, "comparison")
    check(page)


def look_at_the_other_pages(page: Page, airflow: Deployment) -> None:
    for path in (
        "/",
        "/quarantine",
        "/decisions",
        "/archive",
        "/vocabulary",
        "/objects",
        "/recipes",
        "/recipes/desktop",
        "/projects",
    ):
        page.goto(f"{airflow.airflow.url}/dicom-deid{path}")
        check(page)
    plan_from_the_archive(page, airflow)
    page.goto(f"{airflow.airflow.url}/dicom-deid/quarantine")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.locator("select[name=reason]").focus()
    page.keyboard.type("not-d")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("reason=not-dicom"))
    assert {each.inner_text() for each in page.locator("tbody th").all()} == {"not-dicom"}


def plan_from_the_archive(page: Page, airflow: Deployment) -> None:
    """Filter the archive, open the trigger form with these criteria, and start a dry run."""
    page.goto(f"{airflow.airflow.url}/dicom-deid/archive")
    page.locator("tbody th a").first.click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Plan a run with these criteria").click()
    expect(page.locator("[name=select]")).to_have_value(re.compile("equals Modality"))
    expect(page.locator("[name=source]")).to_have_value(re.compile("s3://"))
    expect(page.locator("[name=preview]")).to_be_checked()
    check(page)
    page.locator("[name=recipe]").select_option("ps3.15-basic")
    page.locator("[name=destination]").fill(airflow.bucket(f"planned-{uuid.uuid4().hex[:8]}"))
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="Run started")).to_be_visible()
    run_id = page.locator("main a").inner_text()
    assert airflow.airflow.wait_for_run(DAG, run_id) == "success"


def download_the_list(page: Page, airflow: Deployment, place: Path) -> None:
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    page.locator("tbody th a").first.click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Quarantine list (CSV)").click()
    waiting.value.save_as(place / "list.csv")
    rows = list(csv.DictReader((place / "list.csv").open()))
    assert "notes.txt" in {row["source_key"] for row in rows}


@pytest.mark.parametrize("page", ["dark"], indirect=True)
def test_a_run_is_shown_as_it_goes(airflow: Deployment, page: Page) -> None:
    """Counts of a running run are updated, also after a failed request."""
    bucket = airflow.bucket(f"live-{uuid.uuid4().hex[:8]}").removeprefix("s3://")
    place = RunEnvironment(airflow.sandbox.s3, bucket, airflow.database_url, airflow.keys)
    place.put(series(patients(2), slices=3))
    configuration = place.configuration()
    planned = plan_run(configuration, place.connections)
    log_in(page, airflow, "vic")
    page.route("**/live", lambda route: route.abort(), times=1)
    page.goto(f"{airflow.airflow.url}/dicom-deid/runs/{planned.run_id}")
    expect(page.locator("#state")).to_have_text("running")
    expect(page.locator("[data-count=deidentified]")).to_have_text("0")
    place.work(configuration, planned)
    expect(page.locator("[data-count=deidentified]")).to_have_text("6")
    expect(page.locator("#state")).to_have_text("running")
    report_run(place.connections, run_id=planned.run_id, state="succeeded")
    expect(page.locator("#state")).to_have_text("succeeded")


def wait_until_asked(airflow: Deployment, dag: str, run_id: str) -> None:
    """Wait until the task that asks waits for the answer.

    The request alone is there earlier. Airflow can lose a task that is answered while its process still ends.
    """
    place = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/approve"
    deadline = time.monotonic() + PATIENCE / 1000
    while airflow.airflow.request("GET", place).raise_for_status().json()["state"] not in WAITING:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_approved_objects_are_released(airflow: Deployment, source: str, page: Page) -> None:
    """Objects are released after the approval in the UI and not before."""
    dag = "dicom_deid_with_approval"
    staging, released = (airflow.bucket(f"{name}-{uuid.uuid4().hex[:8]}") for name in ("staging", "released"))
    airflow.airflow.wait_for_dags(dag)
    conf = {
        "source": source,
        "destination": staging,
        "release_to": released,
        "pixel_risk": "allow",
        "create_project": True,
    }
    run_id = airflow.airflow.trigger(dag, conf)
    log_in(page, airflow, "olga")
    wait_until_asked(airflow, dag, run_id)
    page.goto(f"{airflow.airflow.url}/required_actions")
    page.get_by_role("link", name=re.compile(r"Release \d+ de-identified objects")).first.click()
    expect(page.get_by_text(re.compile("1 not-dicom"))).to_be_visible()
    expect(page.get_by_role("link", name="the run")).to_have_attribute("href", re.compile("^/dicom-deid/runs/"))
    picture(page, "approve")
    assert keys_of(airflow, released) == []
    page.get_by_role("button", name="Approve").click()
    assert airflow.airflow.wait_for_run(dag, run_id) == "success"
    assert keys_of(airflow, released) == keys_of(airflow, staging) != []
    page.goto(f"{airflow.airflow.url}/dicom-deid/")
    expect(page.locator("canvas").first).to_be_visible()
    picture(page, "pages")
