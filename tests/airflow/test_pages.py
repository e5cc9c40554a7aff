"""Access to the pages, protection of their forms, and what they may not show."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pydicom
import pytest
from fastapi.routing import APIRoute
from PIL import Image
from starlette.datastructures import FormData
from tests.support.airflow import PROJECT, USERS, Deployment, deployment
from tests.support.datasets import part10, sr_elements
from tests.support.held import COLUMNS, ROWS, Device, held_image, held_images
from tests.support.runs import RunEnvironment, patients, small_ct

from dicom_deid.database import AccessReason, AuditRecord, Database, WithdrawalRequest
from dicom_deid.database.quarantine import HeldGroup, HeldObject, list_decisions, list_held_groups, list_held_objects
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline.withdrawal import continue_withdrawal
from dicom_deid.sandbox import Sandbox
from dicom_deid.web.app import create_app
from dicom_deid.web.rendering import redirect
from dicom_deid.web.trigger import FormField

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(900),
]

CT = "1.2.840.10008.5.1.4.1.1.2"
NAME, SOURCE_KEY = "Quixote", "Quixote_Ana/1.dcm"
WITHDRAWN_PATIENT = "MRN-5551212"
REVIEWERS, LOCATORS = ("user", "op", "admin"), ("op", "admin")
ROUTES = [route for route in create_app().routes if isinstance(route, APIRoute)]


class Pages(NamedTuple):
    """The pages over one run that held some objects and released one."""

    airflow: Deployment
    place: RunEnvironment
    run_id: str
    groups: Mapping[str, HeldGroup]
    objects: Mapping[str, HeldObject]
    released: AuditRecord

    def values(self, reason: str = "pixel-risk") -> dict[str, object]:
        """Return values of the parameters of the routes."""
        return {
            "run_id": self.run_id,
            "name": "desktop",
            "link_id": self.released.link_id,
            "number": self.released.number,
            "group_id": self.groups[reason].group_id,
            "decision_id": 1,
            "withdrawal_id": uuid.UUID(int=0),
            "dag_id": "some_dag",
            "dag_run_id": "manual__1",
            "digest": "0" * 64,
        }

    def client(self, user: str | None) -> httpx.Client:
        """Return a browser's session."""
        cookies = {} if user is None else {"_token": self.airflow.airflow.token(user)}
        return httpx.Client(base_url=f"{self.airflow.airflow.url}/dicom-deid", cookies=cookies, timeout=120)

    def get(self, path: str, user: str | None) -> httpx.Response:
        with self.client(user) as client:
            return client.get(path, headers={"Accept": "text/html"})

    def token(self, user: str) -> str:
        """Return the token of the user's forms, from a page."""
        found = re.search(r'name="token" content="(\w+)"', self.get("/objects", user).text)
        assert found is not None
        return found[1]

    def post(self, path: str, user: str | None, fields: Mapping[str, object] | None = None) -> httpx.Response:
        token = {"token": self.token(user)} if user else {}
        with self.client(user) as client:
            return client.post(path, data={**token, **(fields or {})})

    def object_fields(self, reason: str) -> dict[str, object]:
        held = self.objects[reason]
        return {"link_id": held.link_id, "number": held.number}

    def events(self, kind: str) -> list[dict[str, object]]:
        with Database.connect(self.airflow.database_url, keys=self.airflow.keys) as database:
            assert database.verify().problems == []
            rows = database.connection.query("", "SELECT body FROM audit_event WHERE kind = %s", (kind,))
        return [json.loads(body) for (body,) in rows]


@pytest.fixture(scope="module")
def pages(sandbox_servers: Sandbox) -> Iterator[Pages]:
    """Airflow's API server over a run that was made without it."""
    with deployment(sandbox_servers, f"p{uuid.uuid4().hex[:12]}", components=("api-server",)) as airflow:
        bucket = airflow.bucket(f"pages-{uuid.uuid4().hex[:8]}").removeprefix("s3://")
        place = RunEnvironment(airflow.sandbox.s3, bucket, airflow.database_url, airflow.keys)
        place.put(held_images(Device("ACME", "Echo 1"), patients=2, images=2))
        ct = Device("ACME", "CT 1")
        name = f"{NAME}^Ana"
        place.put({SOURCE_KEY: held_image(ct, modality="CT", sop_class=CT, name=name, comment=f"saw {NAME}")})
        place.put({"good.dcm": held_image(ct, number=2, modality="CT", sop_class=CT, name=name)})
        place.put(
            {"withdrawn.dcm": held_image(ct, number=3, modality="CT", sop_class=CT, patient_id=WITHDRAWN_PATIENT)}
        )
        place.put({"report.dcm": part10(sr_elements(1)), "notes.txt": f"{NAME} was here".encode() * 20})
        ran = place.run(project=PROJECT, settings=Settings())
        with Database.connect(airflow.database_url, keys=airflow.keys) as database:
            groups = {each.reason: each for each in list_held_groups(database.connection, {})}
            objects = {each.reason: each for each in list_held_objects(database.connection, {})}
            released = database.trace("good.dcm")[-1]
        yield Pages(airflow, place, ran.planned.run_id, groups, objects, released)


def test_every_route_requires_a_login_and_its_permission(pages: Pages) -> None:
    """FastAPI checks nothing by itself: a route without a dependency is open to all."""
    for route in ROUTES:
        method = next(iter(route.methods))
        name = "pages.css" if route.path.startswith("/static") else "desktop"
        path = route.path.format(**pages.values() | {"name": name})
        path += f"?project={PROJECT}" if path.endswith(".dicom") else ""
        for user, role in (*USERS.items(), (None, None)):
            with pages.client(user) as client:
                answer = client.request(method, path, headers={"Accept": "text/html"})
            if user is None:
                allowed = {401}
            elif method == "GET":
                allowed = {404} if "digest" in route.path else {200}
                if path.startswith("/vocabulary.dicom") and role not in LOCATORS:
                    allowed = {403}
                if path == "/archive/run":
                    # The form of a DAG that this deployment has not.
                    allowed = {409} if role in REVIEWERS else {403}
            else:
                # Without the token of the form.
                allowed = {403}
            assert answer.status_code in allowed, (method, path, role, answer.text[:200])


def test_every_post_needs_its_permission(pages: Pages) -> None:
    """With the token of the form, those who may review or locate get through, the others do not."""
    for route in ROUTES:
        if "POST" not in route.methods:
            continue
        path = route.path.format(**pages.values("not-dicom") | {"decision_id": 999, "name": "none"})
        needed = LOCATORS if path.startswith("/runs") or path.endswith("/four-eyes") else REVIEWERS
        needed = tuple(USERS.values()) if path == "/objects" else needed
        for user, role in USERS.items():
            status = pages.post(path, user).status_code
            assert (status == 403) == (role not in needed), (path, role, status)


def test_forms_are_protected(pages: Pages) -> None:
    """Forms of other sites, tokens of other users and old tokens are refused."""
    path = f"/quarantine/groups/{pages.groups['not-dicom'].group_id}/decide"
    fields = {"action": "hold", "extent": "group"}
    mine = pages.token("uma")
    for token, headers in (
        ("", {}),
        (pages.token("olga"), {}),
        ("é", {}),
        (mine, {"Origin": "https://evil.example"}),
        (mine, {"Sec-Fetch-Site": "cross-site"}),
        (mine, {"Sec-Fetch-Site": "same-site"}),
    ):
        with pages.client("uma") as client:
            answer = client.post(path, data={**fields, "token": token}, headers=headers)
        assert answer.status_code == 403, (token, headers)
    with pages.client("uma") as client:
        answer = client.post(path, data={**fields, "token": mine}, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303


def test_get_requests_change_nothing(pages: Pages) -> None:
    """No row of any table is written by a GET request."""
    with closing(Database.connect(pages.airflow.database_url, keys=pages.airflow.keys)) as database:
        count = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"

        def written() -> object:
            database.connection.query("", "SELECT pg_stat_force_next_flush()")
            return database.connection.query("", count)[0][0]

        before = written()
        for route in ROUTES:
            if "GET" in route.methods and route.path != "/static/{name}":
                pages.get(route.path.format(**pages.values()), "ada")
        assert written() == before


def test_pages_show_no_original(pages: Pages) -> None:
    """Catches a patient's name or a source key on a page that was opened by GET."""
    for route in ROUTES:
        if "GET" in route.methods and route.path != "/static/{name}":
            for reason in pages.groups:
                text = pages.get(route.path.format(**pages.values(reason)), "ada").text
                assert NAME not in text, route.path


def test_pages_load_nothing_from_other_hosts(pages: Pages) -> None:
    for route in ROUTES:
        if "GET" in route.methods and route.path != "/static/{name}":
            answer = pages.get(route.path.format(**pages.values()), "ada")
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", answer.text) == []


def test_a_picture(pages: Pages) -> None:
    """The frame as it is in the object; the look is recorded before."""
    path = f"/quarantine/groups/{pages.groups['pixel-risk'].group_id}/picture"
    answer = pages.post(path, "uma", pages.object_fields("pixel-risk"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert shown.shape == (64, 96)
    assert (shown[:8] == 255).all()
    event = pages.events("held-object-shown")[-1]
    held = pages.objects["pixel-risk"]
    assert (event["person"], event["what"]) == ("uma", "frame 0")
    assert event["objects"] == [[held.link_id, held.number, held.object_id]]
    whole = {**pages.object_fields("pixel-risk"), "projection": "maximum", "whole_group": "true"}
    answer = pages.post(path, "uma", whole)
    assert (answer.headers["x-frames"], answer.headers["x-objects"]) == ("4", "4")
    assert len(pages.events("held-object-shown")[-1]["objects"]) == 4


def test_a_picture_that_cannot_be_drawn(pages: Pages) -> None:
    path = f"/quarantine/groups/{pages.groups['pixel-risk'].group_id}/picture"
    answer = pages.post(path, "uma", {**pages.object_fields("pixel-risk"), "frame": 5})
    assert (answer.status_code, answer.json()["detail"]) == (422, "The object has 1 frames.")
    answer = pages.post(path, "uma", pages.object_fields("not-dicom"))
    assert answer.status_code == 404


def test_text_is_masked_until_it_is_asked_for_in_clear(pages: Pages) -> None:
    path = f"/quarantine/groups/{pages.groups['residual-found'].group_id}/text"
    masked = pages.post(path, "uma", pages.object_fields("residual-found"))
    assert masked.status_code == 200
    assert NAME not in masked.text
    assert "Image Comments" in masked.text
    assert "Patient&#39;s Name" in masked.text
    clear = pages.post(path, "uma", {**pages.object_fields("residual-found"), "clear": "true"})
    assert f"saw {NAME}" in clear.text
    assert [event["what"] for event in pages.events("held-object-shown")][-2:] == [
        "residual text",
        "residual text in clear",
    ]


@pytest.mark.parametrize(
    ("reason", "shown"), [("structured-content", "CONTAINER"), ("not-dicom", "PS3.10 section 7.1")]
)
def test_reports_and_unreadable_objects(pages: Pages, reason: str, shown: str) -> None:
    path = f"/quarantine/groups/{pages.groups[reason].group_id}/text"
    answer = pages.post(path, "uma", pages.object_fields(reason))
    assert (answer.status_code, shown in answer.text) == (200, True)


def test_a_decision_of_a_page(pages: Pages) -> None:
    """It is recorded with the user who is logged in, and shown on the pages."""
    group = pages.groups["structured-content"]
    path = f"/quarantine/groups/{group.group_id}/decide"
    answer = pages.post(path, "uma", {"action": "allow", "extent": "group", "note": "<b>seen</b>", "person": "other"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/dicom-deid/quarantine/groups/{group.group_id}")
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        newest = list_decisions(database.connection)[0]
    assert (newest.person, newest.action, newest.note) == ("uma", "allow", "<b>seen</b>")
    text = pages.get("/decisions", "vic").text
    assert "&lt;b&gt;seen&lt;/b&gt;" in text
    assert pages.post(f"/decisions/{newest.decision_id}/revoke", "uma").status_code == 303
    wrong = {"action": "mask", "extent": "group", "rectangles": "0,0,9,9"}
    assert pages.post(path, "uma", wrong).status_code == 503 or "not possible" in pages.post(path, "uma", wrong).text


def test_applying_without_the_dag_says_what_is_missing(pages: Pages) -> None:
    group = pages.groups["pixel-risk"]
    pages.post(f"/quarantine/groups/{group.group_id}/decide", "uma", {"action": "retry", "extent": "group"})
    answer = pages.post("/reviews", "uma")
    assert (answer.status_code, "dicom_deid_review" in answer.text) == (409, True)


def test_a_withdrawal_of_a_page(pages: Pages) -> None:
    """It is counted, begun in the name of the user, listed and undone; values are in no answer and in no event."""
    project = {"project": PROJECT, "kind": "patient", "values": f"{WITHDRAWN_PATIENT}\n", "reason": "consent withdrawn"}
    counted = pages.post("/withdrawals", "uma", project | {"preview": "true"})
    assert (counted.status_code, "1 objects would be withdrawn" in counted.text) == (200, True)
    assert pages.post("/withdrawals", "vic", project).status_code == 403
    assert pages.post("/withdrawals", "uma", project | {"values": " "}).status_code == 422
    mistyped = pages.post("/withdrawals", "uma", {**project, "values": "", "decision": "999"})
    assert (mistyped.status_code, "There is no decision 999" in mistyped.text) == (422, True)
    assert pages.events("withdrawal-begun") == []
    # There is no DAG here that would delete the copies: the withdrawal is begun all the same, and can be continued.
    answer = pages.post("/withdrawals", "uma", project)
    assert (answer.status_code, "dicom_deid_withdraw" in answer.text) == (409, True)
    (event,) = pages.events("withdrawal-begun")
    assert (event["person"], event["reason"], event["objects"]) == ("uma", "consent withdrawn", 1)
    listed = pages.get("/withdrawals", "uma").text
    assert re.findall("running|Continue", listed) == ["running", "Continue"]
    assert WITHDRAWN_PATIENT not in counted.text + answer.text + listed + json.dumps(event)
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        (withdrawal_id,) = database.open_withdrawals()
    continue_withdrawal(pages.place.connections, PROJECT, withdrawal_id)
    undone = pages.post(f"/withdrawals/{withdrawal_id}/undo", "uma", {**project, "reason": "given again"})
    assert "The withdrawal of 1 objects was undone" in undone.text
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        ((object_id,),) = database.connection.query(
            "", "SELECT object_id::text FROM audit WHERE outcome = 'withdrawn' AND run_id = %s", (withdrawal_id,)
        )
    history = pages.get(f"/objects?key={object_id}", "vic").text
    assert "then withdrawn" in history
    assert "The copy in the destination was deleted" in history


def test_the_history_of_an_object_says_superseded_withdrawn_and_erased(pages: Pages, tmp_path: Path) -> None:
    place, (patient,) = pages.place, patients(1)
    place.put({"a.dcm": small_ct(7, patient)}, prefix="history")
    places = {"source": f"s3://{place.bucket}/history", "destination": f"s3://{place.bucket}/history-out"}
    recipe = tmp_path / "more.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREMOVE Manufacturer\n")
    for recipes in (("desktop",), ("desktop", str(recipe))):
        run_id = place.run(project="history", recipes=recipes, **places).planned.run_id

    def history() -> list[str]:
        text = pages.get(f"/objects?key={object_id}", "vic").text
        return re.findall(r"then \w+|Erased", text)

    access = AccessReason(person="olga", reason="consent withdrawn")
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        ((object_id,),) = database.connection.query(
            "", "SELECT object_id::text FROM audit WHERE run_id = %s", (run_id,)
        )
        assert history() == ["then superseded"]
        project = database.project("history")
        begun = database.withdraw(project, WithdrawalRequest(patients=[patient.patient_id]), access)
        continue_withdrawal(place.connections, "history", str(begun.withdrawal_id))
        assert history() == ["then withdrawn", "then superseded"]
        database.erase_patients(project, [patient.patient_id], access)
    assert history() == ["Erased", "then withdrawn", "Erased", "then superseded", "Erased"]


@pytest.mark.parametrize("path", ["/", "/quarantine", "/decisions", "/archive", "/withdrawals", "/recipes"])
def test_lists_have_pages(pages: Pages, path: str) -> None:
    """Catches a list that shows everything at once, or the same rows on each of its pages."""
    assert "<h1>" in pages.get(f"{path}?page=1", "vic").text
    behind = pages.get(f"{path}?page=50", "vic")
    assert (behind.status_code, pages.run_id in behind.text) == (200, False)
    assert pages.get(f"{path}?page=0", "vic").status_code == 422


def test_withdrawals_are_listed_by_project_and_page(pages: Pages) -> None:
    """Catches a filter or page of the list that shows the wrong withdrawals."""
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        listed = database.queries.withdrawals(PROJECT, 10)
        assert listed
        assert database.queries.withdrawals(PROJECT, 10, offset=len(listed)) == []
    other = pages.get("/withdrawals?project=other", "vic").text
    assert ("consent withdrawn" in other, "Nothing was withdrawn" in other) == (False, True)
    assert "consent withdrawn" in pages.get(f"/withdrawals?project={PROJECT}", "vic").text


def test_downloads(pages: Pages) -> None:
    """Groups without originals; source keys only to those who may locate, and recorded."""
    rows = list(csv.DictReader(io.StringIO(pages.get("/quarantine.csv", "vic").text)))
    assert {row["reason"] for row in rows} == set(pages.groups)
    answer = pages.post(f"/runs/{pages.run_id}/quarantine.csv", "olga")
    assert SOURCE_KEY in {row["source_key"] for row in csv.DictReader(io.StringIO(answer.text))}
    assert any(event["person"] == "olga" for event in pages.events("source-keys-read"))


def test_objects_that_have_lost_their_source_are_counted_and_listed(pages: Pages) -> None:
    lost = "UPDATE processed_object SET source_deleted_at = %s WHERE object_id = %s"
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        database.connection.query("", lost, ("2026-01-02", pages.released.object_id))
        text = pages.get(f"/runs/{pages.run_id}", "vic").text
        answer = pages.get(f"/runs/{pages.run_id}/deleted-sources.csv", "vic").text
        database.connection.query("", lost, (None, pages.released.object_id))
    assert "1 released objects have lost their source object" in text
    (row,) = csv.DictReader(io.StringIO(answer))
    assert (row["object_id"], row["destination_key"]) == (pages.released.object_id, pages.released.destination_key)
    assert "lost their source" not in pages.get(f"/runs/{pages.run_id}", "vic").text


def test_filters_of_the_quarantine(pages: Pages) -> None:
    text = pages.get("/quarantine?modality=CT", "vic").text
    assert ("residual-found</a>" in text, "pixel-risk</a>" in text) == (True, False)
    assert pages.get("/quarantine?run_id=x", "vic").status_code == 422
    assert pages.get("/quarantine?sort=key_hash", "vic").status_code == 422


def test_the_address_of_a_proxy_is_respected(pages: Pages) -> None:
    """Catches links of the pages begin with the path under which Airflow is served."""
    text = pages.get("/quarantine", "vic").text
    assert 'href="/dicom-deid/static/pages.css"' in text


def test_an_object_is_compared_element_by_element(pages: Pages) -> None:
    """Without original values, and recorded before the source is opened."""
    path = "/runs/{run_id}/objects/{link_id}/{number}".format(**pages.values())
    answer = pages.post(path, "olga")
    assert answer.status_code == 200
    assert "Patient&#39;s Name" in answer.text
    assert NAME not in answer.text
    assert any(event["person"] == "olga" for event in pages.events("source-keys-read"))
    assert pages.post(path + "999", "olga").status_code == 404


def test_a_deleted_object_is_not_compared(pages: Pages) -> None:
    path = "/runs/{run_id}/objects/{link_id}/{number}".format(**pages.values())
    client, bucket = pages.place.s3.client(), pages.place.bucket
    key = f"out/{pages.released.destination_key}"
    whole = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.put_object(Bucket=bucket, Key=key, Body=b"another")
    answer = pages.post(path, "olga")
    assert (answer.status_code, "overwritten" in answer.text) == (409, True)
    client.delete_object(Bucket=bucket, Key=key)
    answer = pages.post(path, "olga")
    assert (answer.status_code, "gone" in answer.text) == (409, True)
    client.put_object(Bucket=bucket, Key=key, Body=whole)
    assert pages.post(path, "olga").status_code == 200


@pytest.mark.parametrize("what", ["source key", "destination key", "object id", "pseudonym"])
def test_objects_are_searched(pages: Pages, what: str) -> None:
    """The key is in the body, and the page does not repeat it."""
    destination_key = pages.released.destination_key
    key = {
        "source key": SOURCE_KEY,
        "destination key": destination_key,
        "object id": pages.objects["residual-found"].object_id,
        "pseudonym": destination_key.split("/")[1],
    }[what]
    text = pages.post("/objects", "vic", {"key": key}).text
    assert ("deidentified" if destination_key.startswith(key) or key in destination_key else "residual-found") in text
    assert NAME not in text
    assert "No object found" in pages.post("/objects", "vic", {"key": "%"}).text


def test_the_archive_is_counted_and_filtered(pages: Pages) -> None:
    """Counts of the index by modality, and the criteria of a run over what the filters show."""
    rows = list(csv.DictReader(io.StringIO(pages.get(f"/archive.csv?project={PROJECT}&modality=CT", "vic").text)))
    assert {(row["modality"], row["model"]) for row in rows} == {("CT", "CT 1")}
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        states = database.queries.object_states(PROJECT)
    assert [int(row["deidentified"]) for row in rows] == [states["deidentified"]]
    assert "Plan a run" in pages.get(f"/archive?project={PROJECT}&modality=CT", "uma").text
    assert "Plan a run" not in pages.get(f"/archive?project={PROJECT}&modality=CT", "vic").text
    for user, status in (("vic", 403), ("uma", 409)):
        assert pages.get(f"/archive/run?project={PROJECT}&modality=CT", user).status_code == status
        assert pages.post("/archive/run", user, {"destination": "s3://b"}).status_code == status


def test_the_values_of_a_trigger_form_have_the_types_of_the_params() -> None:
    """Catches a number or a switch that is sent to the DAG as text."""
    sent = FormData(
        [("on", "true"), ("many", "a"), ("many", "b"), ("count", "12"), ("part", "0.5"), ("text", " x\r\ny ")]
    )
    expected = {"on": True, "off": False, "many": ["a", "b"], "count": 12, "part": 0.5, "text": "x\ny", "none": None}
    types = {"on": "boolean", "off": "boolean", "many": ["null", "array"], "count": "integer", "part": "number"}
    types |= {"text": "string", "none": ["null", "string"]}
    found = {name: FormField(name, None, {"type": kind}).sent(sent) for name, kind in types.items()}
    assert found == expected
    number = FormField("text", None, {"type": "integer"})
    assert (number.sent(sent), number.allows("x\ny"), number.allows(3)) == ("x\ny", False, True)


def test_objects_are_searched_by_an_original_identifier(pages: Pages) -> None:
    """Only by those who may see source keys, and recorded: the search links an original with its pseudonym."""
    study = str(pydicom.dcmread(io.BytesIO(held_image(Device("ACME", "CT 1"), number=2))).StudyInstanceUID)
    assert "deidentified" in pages.post("/objects", "olga", {"key": study}).text
    assert pages.events("objects-searched")[-1]["person"] == "olga"
    assert "No object found" in pages.post("/objects", "vic", {"key": study}).text


def large_image(device: Device, megabytes: int) -> bytes:
    """Return an image of one frame of 1024 x 1024 bytes per megabyte."""
    small = held_image(device, patient_id="L1", frames=megabytes)
    head = small[: small.index(b"\xe0\x7f\x10\x00OB")]
    for tag, value in ((b"\x28\x00\x10\x00", ROWS), (b"\x28\x00\x11\x00", COLUMNS)):
        head = head.replace(tag + b"US\x02\x00" + value.to_bytes(2, "little"), tag + b"US\x02\x00\x00\x04")
    return head + b"\xe0\x7f\x10\x00OB\0\0" + (megabytes << 20).to_bytes(4, "little") + bytes(megabytes << 20)


class Memory:
    """Peak of the resident memory of the process that listens on a port, and of its children, in MB."""

    def __init__(self, port: int) -> None:
        (self._server,) = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN
        }
        self._ends = threading.Event()
        self.before = self.peak = self._now()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(0.02):
            self.peak = max(self.peak, self._now())

    def _now(self) -> float:
        server = psutil.Process(self._server)
        return sum(each.memory_info().rss for each in (server, *server.children(recursive=True))) / 1e6


def test_pictures_of_a_large_object_for_ten_reviewers(pages: Pages) -> None:
    """200 MB: the first picture in 2 s and 300 MB, ten reviewers at once below 1 GB, the API server included."""
    device = Device("ACME", "Large")
    pages.place.put({"large.dcm": large_image(device, 200)})
    pages.place.run(project=PROJECT, settings=Settings())
    with Database.connect(pages.airflow.database_url, keys=pages.airflow.keys) as database:
        (held,) = list_held_objects(database.connection, {"model": device.model})
    path = f"/quarantine/groups/{held.group_id}/picture"
    fields = {"token": pages.token("uma"), "link_id": held.link_id, "number": held.number}
    port = urlsplit(pages.airflow.airflow.url).port
    assert port is not None

    def look(number: int) -> tuple[int, int]:
        projection = {"projection": "maximum"} if number % 2 else {}
        with pages.client("uma") as client:
            answer = client.post(path, data={**fields, **projection, "frame": 10 * number})
        return answer.status_code, len(answer.content)

    with Memory(port) as first:
        began = time.monotonic()
        assert look(0)[0] == 200
        seconds = time.monotonic() - began
    with Memory(port) as all_at_once, ThreadPoolExecutor(10) as reviewers:
        looks = list(reviewers.map(look, range(10)))
    assert {status for status, _ in looks} == {200}
    print(
        f"first picture {seconds:.2f} s, memory {first.before:.0f} to {first.peak:.0f} MB; "
        f"ten at once to {all_at_once.peak:.0f} MB"
    )
    assert first.peak - first.before < 300
    assert all_at_once.peak < 1000
    assert seconds < 2


def test_answers_to_forms_stay_below_the_path_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a redirect to the root of the host, where a proxy serves something else."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host.example/tools/airflow/")
    assert redirect("/decisions").headers["location"] == "/tools/airflow/dicom-deid/decisions"
    assert redirect("/decisions").status_code == 303
