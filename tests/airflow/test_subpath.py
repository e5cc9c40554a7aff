"""Airflow behind a proxy that serves it below a path (`[api] base_url`): pages, links and navigation."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.airflow import DAGS, PROJECT

from dicom_deid.database import Database, KeyRing
from dicom_deid.links import run_page
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.airflow import AirflowOptions, AirflowSandbox, create_database
from dicom_deid.sandbox.deployment import connection_documents

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(600),
]
PATH = "/tools/airflow"


@pytest.fixture(scope="module")
def airflow(sandbox_servers: Sandbox) -> Iterator[AirflowSandbox]:
    """An API server below a path, and a project to show."""
    name = f"s{uuid.uuid4().hex[:12]}"
    for database in ("airflow", "deid"):
        create_database(sandbox_servers.postgres_url, f"{name}_{database}")
    keys, url = KeyRing.generate(), sandbox_servers.database_url(f"{name}_deid")
    with Database.connect(url, keys=keys) as database:
        database.upgrade()
        database.project(PROJECT)
    s3 = sandbox_servers.s3
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    home = Path(tempfile.mkdtemp(prefix="dicom-deid-subpath-"))
    options = AirflowOptions(
        home=home,
        database_url=sandbox_servers.database_url(f"{name}_airflow").replace("postgresql://", "postgresql+psycopg2://"),
        dags_folder=DAGS,
        connections=connection_documents(storage, url, keys, project=PROJECT),
    )
    running = AirflowSandbox(options)
    running.url += PATH
    running.environment["AIRFLOW__API__BASE_URL"] = running.url
    try:
        running.start(["api-server"], timeout=240)
        yield running
    finally:
        running.stop()
        shutil.rmtree(home, ignore_errors=True)


def test_every_address_of_a_page_is_below_the_path(airflow: AirflowSandbox) -> None:
    """Catches a style sheet, script or link that the proxy does not pass on."""
    cookies = {"_token": airflow.token("admin")}
    for path in ("/", "/quarantine", "/recipes", "/projects"):
        address = f"{airflow.url}/dicom-deid{path}"
        answer = httpx.get(address, cookies=cookies, headers={"Accept": "text/html"}, timeout=60)
        assert answer.status_code == 200, path
        found = set(re.findall(r"""(?:src|href|action)=["'](/[^"']*)""", answer.text))
        assert found
        assert [each for each in found if not each.startswith(f"{PATH}/")] == [], path
        for each in found:
            if "/static/" in each:
                root = airflow.url.removesuffix(PATH)
                assert httpx.get(root + each, cookies=cookies, timeout=60).status_code == 200, each


def test_the_navigation_leads_below_the_path(airflow: AirflowSandbox) -> None:
    """Catches an entry of the navigation that leads to the root of the host."""
    plugins = airflow.request("GET", "/api/v2/plugins").raise_for_status().json()["plugins"]
    (plugin,) = [each for each in plugins if each["name"] == "dicom_deid"]
    hrefs = [view["href"] for view in plugin["external_views"]]
    assert hrefs
    assert all(href.startswith(f"{PATH}/dicom-deid/") for href in hrefs), json.dumps(hrefs)


def test_the_link_of_a_task_is_below_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a button on a task that leads to the root of the host."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"https://example.org{PATH}/")
    assert run_page("a b") == f"{PATH}/dicom-deid/runs/a%20b"
