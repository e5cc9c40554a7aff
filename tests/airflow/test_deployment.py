"""Runs in a real Airflow, the pages that show them, and a search for identifiers in everything that Airflow stores."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote, unquote

import httpx
import psycopg2
import pytest
from tests.support.airflow import PROJECT, Deployment, Metrics
from tests.support.runs import patients, series, small_ct

from dicom_deid.database import Database
from dicom_deid.exceptions import ConfigurationError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(900),
]

DAG = "dicom_deid_on_demand"
PATIENTS = patients(3, seed=77)
ABSENT_PATIENT_ID = "PLANTED-58213"
BEFORE_THE_FIRST_RUN = ("/", "/quarantine", "/projects")


class Done(NamedTuple):
    """A run that has ended."""

    run_id: str
    state: str
    deid_run_id: str
    counts: dict[str, int]
    source: str
    destination: str
    destination_key: str
    object_id: str
    quarantined_hash: str


@pytest.fixture(scope="module")
def first_pages(airflow: Deployment) -> dict[str, httpx.Response]:
    """The pages before the first run: without a schema, and with an empty one."""
    found = {f"without a schema {path}": page(airflow, path, "vic") for path in BEFORE_THE_FIRST_RUN}
    with Database.connect(airflow.database_url, keys=airflow.keys) as database:
        database.upgrade()
    return found | {f"with an empty schema {path}": page(airflow, path, "vic") for path in BEFORE_THE_FIRST_RUN}


@pytest.fixture(scope="module")
def done(airflow: Deployment, first_pages: dict[str, httpx.Response]) -> Done:
    """A run over objects of three patients, one of which is cut short and one not DICOM."""
    objects = series(PATIENTS, slices=4)
    name = PATIENTS[0].name.replace("^", "_")
    objects[f"{name}/cut.dcm"] = small_ct(9, PATIENTS[0])[:-100]
    objects[f"{name}/notes.txt"] = f"{PATIENTS[0].name} was here".encode()
    source = airflow.bucket(f"source-{uuid.uuid4().hex[:8]}", objects)
    destination = airflow.bucket(f"destination-{uuid.uuid4().hex[:8]}")
    conf = {
        "source": source,
        "destination": destination,
        "pixel_risk": "allow",
        "reason": "a test",
        "create_project": True,
        "max_quarantine_ratio": 1,
    }
    run_id, state = airflow.run(DAG, conf)
    counts = airflow.xcom(DAG, run_id, "dicom_deid.report", "counts")
    assert isinstance(counts, dict)
    with psycopg2.connect(airflow.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path TO dicom_deid")
        cursor.execute("SELECT destination_key, object_id::text FROM audit WHERE outcome = 'deidentified' LIMIT 1")
        destination_key, object_id = cursor.fetchone()
        cursor.execute("SELECT object_id::text FROM audit WHERE outcome = 'quarantined' LIMIT 1")
        (quarantined_hash,) = cursor.fetchone()
    return Done(
        run_id=run_id,
        state=state,
        deid_run_id=counts["run_id"],
        counts=counts,
        source=source,
        destination=destination,
        destination_key=destination_key,
        object_id=object_id,
        quarantined_hash=quarantined_hash,
    )


def page(airflow: Deployment, path: str, user: str | None) -> httpx.Response:
    """Ask for a page as a browser that has logged in would: with the cookie that Airflow's UI has."""
    cookies = {} if user is None else {"_token": airflow.airflow.token(user)}
    with httpx.Client(cookies=cookies, timeout=60) as client:
        return client.get(f"{airflow.airflow.url}/dicom-deid{path}", headers={"Accept": "text/html"})


def test_before_the_first_run_the_pages_say_what_to_do(first_pages: dict[str, httpx.Response]) -> None:
    """Catches first pages that show an error about missing tables, or nothing."""
    assert len(first_pages) == 2 * len(BEFORE_THE_FIRST_RUN)
    for name, answer in first_pages.items():
        assert (answer.status_code, "No runs yet" in answer.text) == (200, True), name
        assert "/dags/dicom_deid_on_demand" in answer.text, name


def test_a_run_through_the_form(airflow: Deployment, done: Done) -> None:
    """The counts of a run that is triggered with the form are those of its input."""
    assert done.state == "success"
    assert done.counts["listed"] == 14
    assert done.counts["deidentified"] + done.counts["quarantined"] == 14
    assert done.counts["reasons"]["not-dicom"] == 1
    assert done.counts["reasons"]["truncated"] == 1
    written = airflow.sandbox.s3.client().list_objects_v2(Bucket=done.destination.removeprefix("s3://"))
    assert written["KeyCount"] == done.counts["deidentified"]


def test_a_second_run_finds_nothing_to_do(airflow: Deployment, done: Done) -> None:
    """Catches a plan that forgets what the audit knows, and a report that fails when there is no batch."""
    conf = {"source": done.source, "destination": done.destination, "pixel_risk": "allow"}
    run_id, state = airflow.run(DAG, conf)
    counts = airflow.xcom(DAG, run_id, "dicom_deid.report", "counts")
    assert isinstance(counts, dict)
    assert (state, counts["planned"], counts["already_done"]) == ("success", 0, 14)


def test_a_preview_writes_nothing(airflow: Deployment, done: Done) -> None:
    """Catches a preview that leaves objects, pseudonyms or a run behind."""
    destination = airflow.bucket(f"dry-{uuid.uuid4().hex[:8]}")
    with Database.connect(airflow.database_url, keys=airflow.keys) as database:
        before = len(database.runs()), database.queries.crosswalk_sizes()
        run_id, state = airflow.run(DAG, {"source": done.source, "destination": destination, "preview": True})
        assert state == "success"
        assert (len(database.runs()), database.queries.crosswalk_sizes()) == before
    assert airflow.sandbox.s3.client().list_objects_v2(Bucket=destination.removeprefix("s3://"))["KeyCount"] == 0
    page = airflow.airflow.request("GET", f"/dicom-deid/dags/{DAG}/runs/{quote(run_id, safe='')}").raise_for_status()
    assert "Rules that act" in page.text
    assert "PatientName" in page.text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"source": "incoming"}, "source"),
        ({"destination": "https://example.org/x"}, "destination"),
        ({"recipe": "dekstop"}, "recipe"),
        ({"private_elements": "some"}, "private_elements"),
        ({"limit": 0}, "limit"),
        ({"limit": 10**12}, "limit"),
        ({"preview": "perhaps"}, "preview"),
        ({"profile_options": ["retain-everything"]}, "profile_options"),
    ],
)
def test_wrong_values_are_refused_at_the_trigger(airflow: Deployment, wrong: dict[str, object], named: str) -> None:
    """Catches a form that takes a value on which the run fails later, or says not which field is wrong."""
    airflow.airflow.wait_for_dags(DAG)
    with pytest.raises(ConfigurationError, match=named):
        airflow.airflow.trigger(DAG, {"source": "s3://source", "destination": "s3://destination"} | wrong)


def test_the_form_of_the_connection(airflow: Deployment) -> None:
    """Catches a connection type that the UI does not offer, or whose test button says nothing, or shows the keys."""
    offered = airflow.airflow.request("GET", "/ui/connections/hook_meta").raise_for_status().json()
    (form,) = [each for each in offered if each["connection_type"] == "dicom_deid"]
    assert {"project", "recipe", "uid_strategy"} <= set(form["extra_fields"])
    assert form["standard_fields"]["password"]["title"] == "Keys"
    assert form["standard_fields"]["host"]["hidden"]
    body = {"connection_id": "new", "conn_type": "dicom_deid", "password": airflow.keys.to_text()}
    for recipe, good, told in (("desktop", True, "rules; keys are readable"), ("dekstop", False, "dekstop")):
        asked = {**body, "extra": json.dumps({"recipe": recipe})}
        answer = airflow.airflow.request("POST", "/api/v2/connections/test", json=asked).raise_for_status().json()
        assert (answer["status"], told in answer["message"]) == (good, True)
        assert airflow.keys.to_text() not in answer["message"]


@pytest.mark.parametrize(
    ("interval", "planned"),
    [
        (None, 14),
        ((datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) + timedelta(days=2)), 14),
        ((datetime(2016, 1, 1, tzinfo=UTC), datetime(2016, 2, 1, tzinfo=UTC)), 0),
    ],
    ids=["no date", "now", "2016"],
)
def test_a_partition_is_what_was_modified_in_its_period(
    airflow: Deployment, done: Done, interval: tuple[datetime, datetime] | None, planned: int
) -> None:
    """Catches a run that fails for want of a date, or that takes objects of another month."""
    dag, destination = "dicom_deid_backfill", airflow.bucket(f"partition-{uuid.uuid4().hex[:8]}")
    airflow.airflow.wait_for_dags(dag)
    airflow.airflow.request("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": False}).raise_for_status()
    start, end = (each.isoformat() for each in interval) if interval else (None, None)
    body = {
        "logical_date": start,
        "data_interval_start": start,
        "data_interval_end": end,
        "conf": {"source": done.source, "destination": destination, "pixel_risk": "allow"},
    }
    answer = airflow.airflow.request("POST", f"/api/v2/dags/{dag}/dagRuns", json=body).raise_for_status()
    run_id = answer.json()["dag_run_id"]
    assert airflow.airflow.wait_for_run(dag, run_id) == "success"
    counts = airflow.xcom(dag, run_id, "dicom_deid.report", "counts")
    assert isinstance(counts, dict)
    assert counts["planned"] == planned


def test_a_wrong_recipe_option_fails_at_once(airflow: Deployment, done: Done) -> None:
    """Catches configuration errors that are retried: they would fail again, minutes later."""
    conf = {"source": done.source, "destination": done.destination, "profile_options": ["retain-uids"]}
    run_id, state = airflow.run(DAG, conf)
    tries = airflow.airflow.request("GET", f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/dicom_deid.plan").json()
    assert (state, tries["state"], tries["try_number"]) == ("failed", "failed", 1)


def test_the_task_links_to_its_page(airflow: Deployment, done: Done) -> None:
    """Catches an extra link that is empty or leads to no page."""
    place = f"/api/v2/dags/{DAG}/dagRuns/{done.run_id}/taskInstances/dicom_deid.report/links"
    links = airflow.airflow.request("GET", place).raise_for_status().json()["extra_links"]
    address = links["De-identification run"]
    assert address == f"/dicom-deid/runs/{done.deid_run_id}"
    assert page(airflow, address.removeprefix("/dicom-deid"), "vic").status_code == 200


def test_batches_are_labelled(airflow: Deployment, done: Done) -> None:
    """Catches a mapped task that shows a bare number."""
    place = f"/api/v2/dags/{DAG}/dagRuns/{done.run_id}/taskInstances/dicom_deid.deidentify/listMapped"
    mapped = airflow.airflow.request("GET", place).raise_for_status().json()["task_instances"]
    assert [re.match(r"\d+: 14 objects, ", each["rendered_map_index"]) is not None for each in mapped] == [True]


def addresses(done: Done) -> list[str]:
    """Return the pages about a run."""
    return [
        "/",
        f"/runs/{done.deid_run_id}",
        f"/runs/{done.deid_run_id}/live",
        f"/runs/{done.deid_run_id}/audit.csv",
        "/quarantine",
        "/quarantine.csv",
        "/projects",
        f"/quarantine?run_id={done.deid_run_id}&reason=not-dicom",
        f"/objects?key={done.object_id}",
        f"/objects?key={done.destination_key}",
        f"/objects?key={done.quarantined_hash}",
    ]


def test_a_forged_token_is_refused(airflow: Deployment) -> None:
    """Catches a page that does not check the signature of a token."""
    head, body, _ = airflow.airflow.token("ada").split(".")
    answer = httpx.get(f"{airflow.airflow.url}/dicom-deid/", cookies={"_token": f"{head}.{body}.AAAA"})
    assert answer.status_code in (401, 403)


def test_the_framework_adds_no_open_route(airflow: Deployment) -> None:
    """FastAPI's own documentation routes, which are open to everyone unless turned off."""
    for address in ("/docs", "/redoc", "/openapi.json"):
        assert page(airflow, address, None).status_code in (401, 404)


def test_the_downloads_hold_the_run(airflow: Deployment, done: Done) -> None:
    """Catches a download that leaves rows out."""
    audit = list(csv.DictReader(io.StringIO(page(airflow, f"/runs/{done.deid_run_id}/audit.csv", "vic").text)))
    assert len(audit) == 14


def identifiers() -> set[str]:
    """Every text in the inputs that names a patient, people, a place or an examination."""
    found = {ABSENT_PATIENT_ID}
    for patient in PATIENTS:
        texts = [str(value) for value in astuple(patient) if not isinstance(value, date)]
        found |= {text for text in texts if len(text) >= 5}
        found |= {part for part in re.split(r"[\^ ]", patient.name) if len(part) >= 4}
        found.add(patient.name.replace("^", "_"))
    return found


def rows_of(url: str) -> Iterator[tuple[str, str]]:
    """Return every row of every table of a database as text."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{schema}"."{table}" t')
            yield from ((f"{schema}.{table}", row) for (row,) in cursor.fetchall())


def test_a_withdrawal_through_the_page_and_through_a_list(airflow: Deployment, done: Done) -> None:
    """Originals are entered on the page, and the DAG deletes the copies; the next test looks for them in Airflow."""
    dag_id, reason = "dicom_deid_withdraw", "consent withdrawn"
    airflow.airflow.wait_for_dags(dag_id)
    token = re.search(r'name="token" content="(\w+)"', page(airflow, "/withdrawals", "olga").text)
    assert token is not None
    fields = {"token": token[1], "project": PROJECT, "kind": "patient", "values": PATIENTS[2].patient_id}
    with httpx.Client(cookies={"_token": airflow.airflow.token("olga")}, timeout=60) as client:
        answer = client.post(f"{airflow.airflow.url}/dicom-deid/withdrawals", data={**fields, "reason": reason})
    run_id = re.search(rf"/dags/{dag_id}/runs/([^\"]+)", answer.text)
    assert run_id is not None, answer.text
    assert airflow.airflow.wait_for_run(dag_id, unquote(run_id[1])) == "success"
    assert "finished" in page(airflow, "/withdrawals", "vic").text
    listed = f"patient,{PATIENTS[2].patient_id}\nstudy,{PATIENTS[1].study_uid}\n".encode()
    withdrawal_list = f"{airflow.bucket(f'lists-{uuid.uuid4().hex[:8]}', {'list.csv': listed})}/list.csv"
    conf = {"withdrawal_list": withdrawal_list, "reason": reason, "preview": True}
    run_id, state = airflow.run(dag_id, conf)
    counts = airflow.xcom(dag_id, run_id, "withdraw", "return_value")
    assert state == "success"
    assert isinstance(counts, dict)
    assert counts["withdrawal_id"] is None


def test_the_lines_of_a_cohort_list_are_answered(airflow: Deployment, done: Done) -> None:
    """The list has originals, also of a patient who is not in the archive; the next test looks for them."""
    dag_id = "dicom_deid_cohort"
    airflow.airflow.wait_for_dags(dag_id)
    key = next(iter(series(PATIENTS[1:2], slices=1)))
    # The generated objects of a patient have several issuers.
    listed = f"PatientID,SourceKey\n{PATIENTS[1].patient_id},\n{ABSENT_PATIENT_ID},\n,{key}\n"
    conf = {
        "source": done.source,
        "destination": airflow.bucket(f"cohort-{uuid.uuid4().hex[:8]}"),
        "cohort": f"{airflow.bucket(f'lists-{uuid.uuid4().hex[:8]}', {'list.csv': listed.encode()})}/list.csv",
        "pixel_risk": "allow",
        "reason": "a study",
    }
    run_id, state = airflow.run(dag_id, conf)
    counts = airflow.xcom(dag_id, run_id, "dicom_deid.report", "counts")
    assert isinstance(counts, dict)
    assert (state, counts["deidentified"]) == ("success", 1)
    answers = page(airflow, f"/runs/{counts['run_id']}/cohort.csv", "vic").text
    assert answers.split() == ["line,status,objects", "2,ambiguous,4", "3,absent,0", "4,found,1"]


def test_no_identifier_leaves_the_store(airflow: Deployment, done: Done, metrics: Metrics) -> None:
    """Catches an identifier in a log, an XCom, a rendered field, a metric, a page, or in clear in a table."""
    wanted = re.compile("|".join(re.escape(text) for text in sorted(identifiers(), key=len, reverse=True)))
    found = []
    for path in airflow.airflow.options.home.rglob("*.log"):
        found += [("log", path.name)] * bool(wanted.search(path.read_text(errors="replace")))
    for url in (
        airflow.sandbox.database_url(airflow.airflow.options.database_url.rpartition("/")[2]),
        airflow.database_url,
    ):
        found += [("table", table) for table, row in rows_of(url) if wanted.search(row)]
    found += [("metric", line) for line in metrics.lines if wanted.search(line)]
    for address in addresses(done):
        found += [("page", address)] * bool(wanted.search(page(airflow, address, "ada").text))
    assert found == []


def test_metrics_are_sent(airflow: Deployment, done: Done, metrics: Metrics) -> None:
    """Catches counts that never reach the site's dashboards."""
    objects = [line for line in metrics.lines if "dicom_deid.objects" in line]
    assert any("outcome=deidentified" in line for line in objects)
    assert any("dicom_deid.bytes" in line for line in metrics.lines)
    assert any("dicom_deid.stage,stage=reading" in line for line in metrics.lines)


def test_a_failed_plan_is_named_in_the_log_of_the_report(airflow: Deployment, done: Done) -> None:
    """Catches a report that ends with an error about XCom, where it should name the task to look at."""
    conf = {"source": "s3://no-such-bucket-here", "destination": done.destination}
    run_id, state = airflow.run(DAG, conf)
    assert state == "failed"
    assert "the planning task failed" in log_of(airflow, DAG, run_id, "dicom_deid.report")
    assert "no-such-bucket-here" in log_of(airflow, DAG, run_id, "dicom_deid.plan")


def test_an_unknown_parameter_fails_the_run(airflow: Deployment, done: Done) -> None:
    """Catches a misspelt parameter that Airflow accepts and ignores."""
    run_id, state = airflow.run(DAG, {"source": done.source, "destination": done.destination, "limt": 1})
    assert state == "failed"
    assert "did you mean limit?" in log_of(airflow, DAG, run_id, "dicom_deid.plan")


def test_a_warning_is_a_failed_task_of_a_successful_run(airflow: Deployment, done: Done) -> None:
    """Catches a run over nothing, because of a misspelt prefix, that looks like any other."""
    conf = {"source": done.source, "destination": done.destination, "prefix": "no-such-folder/"}
    run_id, state = airflow.run(DAG, conf)
    place = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances"
    instances = airflow.airflow.request("GET", place).raise_for_status().json()["task_instances"]
    states = {each["task_id"]: each["state"] for each in instances}
    assert (state, states["dicom_deid.report"], states["dicom_deid.warnings"]) == ("success", "success", "failed")
    assert "No object was listed" in log_of(airflow, DAG, run_id, "dicom_deid.warnings")


def log_of(airflow: Deployment, dag_id: str, run_id: str, task_id: str) -> str:
    """Return the log of the first try of a task."""
    place = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1"
    return airflow.airflow.request("GET", place).raise_for_status().text


def test_unpausing_starts_nothing_without_a_source(airflow: Deployment, done: Done) -> None:
    """Catches a DAG that processes a default bucket, or the whole archive, when it is unpaused."""
    for dag, states in (("dicom_deid_nightly", {"failed"}), ("dicom_deid_backfill", {"success"})):
        airflow.airflow.wait_for_dags(dag)
        airflow.airflow.request("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": False}).raise_for_status()
        found = scheduled_runs(airflow, dag)
        assert {airflow.airflow.wait_for_run(dag, run_id) for run_id in found} == states
        for run_id in found:
            log = log_of(airflow, dag, run_id, "dicom_deid.plan")
            assert "No source is given" in log or "start a backfill" in log
        airflow.airflow.request("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": True}).raise_for_status()


def scheduled_runs(airflow: Deployment, dag: str) -> list[str]:
    """Return the ids of the runs that the schedule started, of which there is one at least."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        query = {"run_type": "scheduled"}
        found = airflow.airflow.request("GET", f"/api/v2/dags/{dag}/dagRuns", params=query).raise_for_status().json()
        if found["dag_runs"]:
            return [run["dag_run_id"] for run in found["dag_runs"]]
        time.sleep(0.5)
    raise AssertionError(f"the schedule started no run of {dag}")


def test_the_nightly_run(airflow: Deployment, done: Done) -> None:
    """Catches a scheduled run with its deadline, asset event and notifier, which `dag.test` does not run."""
    source = airflow.bucket(f"nightly-{uuid.uuid4().hex[:8]}", {"notes.txt": b"no DICOM"})
    destination = airflow.bucket(f"nightly-{uuid.uuid4().hex[:8]}-out")
    for name, value in (("source", source), ("destination", destination)):
        body = {"key": f"dicom_deid_nightly_{name}", "value": value}
        airflow.airflow.request("POST", "/api/v2/variables", json=body).raise_for_status()
    run_id, state = airflow.run("dicom_deid_nightly", {})
    assert state == "success"
    events = airflow.airflow.request("GET", "/api/v2/assets/events").raise_for_status().json()["asset_events"]
    # The schedule starts a run of its own when the DAG is unpaused: one of the two processes the object.
    reasons = {
        event["source_run_id"]: event["extra"]["reasons"]
        for event in events
        if event["source_dag_id"] == "dicom_deid_nightly"
    }
    assert run_id in reasons
    assert [each for each in reasons.values() if each] == [{"not-dicom": 1}]
