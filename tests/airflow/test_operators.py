"""Tests of the operators on real stores without a scheduler."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, exceptions
from airflow.sdk.definitions.asset import AssetUniqueKey
from airflow.sdk.execution_time.context import OutletEventAccessor
from airflow.utils.types import DagRunType
from tests.support.runs import patients, series

from dicom_deid.airflow_compat import AirflowFailException, AirflowSkipException, XComNotFound
from dicom_deid.database import Database, KeyRing
from dicom_deid.exceptions import ConfigurationError, DatabaseError, ObjectStoreError, Quarantine
from dicom_deid.notifications import QuarantineNotifier
from dicom_deid.notifications.notifiers import message
from dicom_deid.operators import (
    DicomApprovalOperator,
    DicomDeidentifyOperator,
    DicomDeidTaskGroup,
    DicomPlanOperator,
    DicomPreviewOperator,
    DicomReleaseOperator,
    DicomReportOperator,
    DicomWarningsOperator,
    DicomWithdrawOperator,
)
from dicom_deid.operators.base import DicomDeidOperator, TooManyQuarantined, WorkLeft
from dicom_deid.operators.deidentify import BatchStopped
from dicom_deid.pipeline.batch import BatchResult
from dicom_deid.reasons import Outcome, Reason
from dicom_deid.recipe import RecipeError
from dicom_deid.sandbox import S3Service
from dicom_deid.sandbox.deployment import connection_documents

CALM = {"pixel_risk": "allow", "residuals": "off", "documents": "allow"}


class Instance:
    """A task instance that keeps what is pushed."""

    def __init__(self, task_id: str, run_id: str) -> None:
        self.dag_id, self.task_id, self.run_id = "d", task_id, run_id
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self.pushed.get(key)


class Site:
    """Connections to fresh stores, and a source with objects in it."""

    def __init__(self, s3: S3Service, bucket: str, database: str, keys: KeyRing) -> None:
        self.s3, self.bucket, self.database, self.keys = s3, bucket, database, keys
        self.run_id = f"run-{uuid.uuid4().hex}"
        self.conf: dict[str, Any] = {}

    def context(self, task_id: str) -> dict[str, Any]:
        """Return the context of a run that was triggered without a logical date."""
        dag_run = SimpleNamespace(
            run_type=DagRunType.MANUAL, triggering_user_name="olga", logical_date=None, conf=self.conf
        )
        dag = SimpleNamespace(params={"limit": None, "source": None})
        return {"ti": Instance(task_id, self.run_id), "dag": dag, "dag_run": dag_run, "outlet_events": {}}

    def plan(self, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Plan a run; return what the other tasks get."""
        given = {
            "source": f"s3://{self.bucket}/in",
            "destination": f"s3://{self.bucket}/out",
            "settings": CALM,
            "create_project": True,
        }
        context = self.context("plan")
        batches = DicomPlanOperator(task_id="plan", **(given | changes)).execute(context)
        return context["ti"].pushed["run"], batches

    def deidentify(self, run: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        return DicomDeidentifyOperator(task_id="work", run=run, batch=batch).execute(self.context("work"))

    def report(self, run: dict[str, Any], **options: Any) -> dict[str, Any]:
        return DicomReportOperator(task_id="report", run=run, **options).execute(self.context("report"))

    def keys_of(self, prefix: str) -> list[str]:
        """Return the keys below a prefix."""
        listed = self.s3.client().list_objects_v2(Bucket=self.bucket, Prefix=f"{prefix}/")
        return [each["Key"] for each in listed.get("Contents", [])]


@pytest.fixture
def site(s3: S3Service, s3_bucket: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Twelve objects of two patients, one text, and the four connections."""
    keys = KeyRing.generate()
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    for name, document in connection_documents(storage, postgres_url, keys, project="operators").items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", document)
    client = s3.client()
    for key, data in {**series(patients(2), slices=6), "notes.txt": b"no DICOM"}.items():
        client.put_object(Bucket=s3_bucket, Key=f"in/{key}", Body=data)
    yield Site(s3, s3_bucket, postgres_url, keys)
    for prefix in ("in", "out", "released"):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=s3_bucket, Prefix=prefix):
            for each in page.get("Contents", []):
                client.delete_object(Bucket=s3_bucket, Key=each["Key"])


def test_a_whole_run(site: Site) -> None:
    """Catches counts that do not add up, or a logical date that the operators need and a run need not have."""
    run, batches = site.plan()
    for batch in batches:
        site.deidentify(run, batch)
    counts = site.report(run)
    assert (counts["deidentified"], counts["quarantined"], counts["failed"]) == (12, 1, 0)
    assert len(site.keys_of("out")) == 12


def test_only_references_travel(site: Site) -> None:
    """Catches a key of an object, a password or a key of the crosswalk in what goes from task to task."""
    text = json.dumps(site.plan())
    secrets = [site.s3.secret_key, site.keys.to_text(), site.database]
    names = {key.split("/")[1] for key in site.keys_of("in")}
    assert [word for word in [*secrets, *names] if word in text] == []


def test_who_asked_and_why_is_recorded(site: Site) -> None:
    """Catches a run in the audit without its requester."""
    run, _ = site.plan(reason="a study")
    with Database.connect(site.database, keys=site.keys) as database:
        request = database.run(run["run_id"]).request
    assert (request.triggered_by, request.reason, request.airflow_context["run_id"]) == ("olga", "a study", site.run_id)
    assert request.airflow_context["run_type"] == "manual"


def test_planning_again_is_the_same_run(site: Site) -> None:
    """Catches a retried planning task that leaves a second run behind."""
    assert site.plan()[0]["run_id"] == site.plan()[0]["run_id"]


def test_a_run_whose_objects_another_run_has_done_ends(site: Site) -> None:
    """Catches a run that keeps open objects because a run planned before it has done them."""
    first = site.plan()
    site.run_id += "-second"
    second = site.plan()
    for run, batches in (first, second):
        for batch in batches:
            site.deidentify(run, batch)
    assert [site.report(run)["deidentified"] for run, _ in (first, second)] == [12, 0]
    with Database.connect(site.database, keys=site.keys) as database:
        report = database.report(second[0]["run_id"])
    assert (report.run.state, report.open, report.done_by_other_runs) == ("succeeded", 0, 13)


def test_a_killed_batch_releases_its_remaining_objects(site: Site) -> None:
    """Catches a task that ignores the signal, or that loses finished work."""
    run, (batch,) = site.plan(options={"transfers": 1, "in_flight_bytes": 1})
    operator = DicomDeidentifyOperator(task_id="work", run=run, batch=batch)

    class Stopping(Instance):
        def xcom_push(self, key: str, value: Any) -> None:
            # The task has begun and is killed at once.
            operator.on_kill()

    with pytest.raises(BatchStopped):
        operator.execute(site.context("work") | {"ti": Stopping("work", site.run_id)})
    assert len(site.keys_of("out")) < 12
    site.deidentify(run, batch)
    assert site.report(run)["deidentified"] == 12


def test_on_kill_before_the_batch_starts_does_nothing() -> None:
    """Catches a kill that arrives while the task still imports."""
    DicomDeidentifyOperator(task_id="work", run={}, batch={}).on_kill()


def test_unfinished_batches_fail_the_run(site: Site) -> None:
    """Catches a run that is called a success although a batch was never done."""
    run, _ = site.plan()
    with pytest.raises(AirflowFailException, match="13 objects") as raised:
        site.report(run)
    assert isinstance(raised.value.__cause__, WorkLeft)
    with Database.connect(site.database, keys=site.keys) as database:
        assert database.run(run["run_id"]).state == "failed"


def test_lineage_names_places_and_counts(site: Site) -> None:
    """Catches lineage that names an object, a place that is not read, or a destination that is not written."""
    source, destination = f"s3://{site.bucket}", f"s3://{site.bucket}/out"
    plan = DicomPlanOperator(
        task_id="plan", source=source, prefix="in", destination=destination, settings=CALM, create_project=True
    )
    context = site.context("plan")
    (batch,) = plan.execute(context)
    run = context["ti"].pushed["run"]
    work, report = DicomDeidentifyOperator(task_id="w", run=run, batch=batch), DicomReportOperator(task_id="r", run=run)
    for operator in (work, report):
        operator.execute(site.context("x"))
    lineages = [plan.get_openlineage_facets_on_start()]
    lineages += [each.get_openlineage_facets_on_complete(None) for each in (work, report)]
    for lineage in lineages:
        assert [(each.namespace, each.name) for each in lineage.inputs] == [(source, "in")]
        assert [(each.namespace, each.name) for each in lineage.outputs] == [(source, "out")]
    written = [lineage.outputs[0].outputFacets["outputStatistics"].fileCount for lineage in lineages[1:]]
    assert written == [12, 12]
    for looking in (
        DicomPreviewOperator(task_id="p", source=source, prefix="in"),
        DicomPlanOperator(task_id="p", source=source, prefix="in", destination=destination, preview=True),
    ):
        assert looking.get_openlineage_facets_on_start().outputs == []


def test_a_quarantine_ratio_above_the_limit_is_a_warning(site: Site) -> None:
    """Catches a ratio that is ignored, and a warning that fails the report."""
    run, (batch,) = site.plan()
    site.deidentify(run, batch)
    with pytest.raises(AirflowFailException, match=r"7\.7%.*5\.0%") as raised:
        site.report(run, max_quarantine_ratio=0.05, on_excess="fail")
    assert isinstance(raised.value.__cause__, TooManyQuarantined)
    for allowed, warned in (("0.05", True), (0.08, False)):
        warnings = site.report(run, max_quarantine_ratio=allowed)["warnings"]
        assert any("7.7% of the objects" in warning for warning in warnings) is warned


def test_an_object_deleted_from_the_destination_is_a_warning_of_the_report(site: Site) -> None:
    run, batches = site.plan()
    for batch in batches:
        site.deidentify(run, batch)
    assert site.report(run)["differences"] == {}
    key = site.keys_of("out")[0]
    site.s3.client().delete_object(Bucket=site.bucket, Key=key)
    site.s3.client().put_object(Bucket=site.bucket, Key="out/another program's", Body=b"x")
    counts = site.report(run)
    assert counts["differences"] == {"lost": 1, "unknown": 1}
    assert any("1 lost" in warning and "audit reconcile" in warning for warning in counts["warnings"])
    assert site.report(run, reconcile=False)["differences"] == {}


def test_a_source_without_objects_is_a_warning(site: Site) -> None:
    """Catches a misspelt prefix that ends in a green run over nothing."""
    run, batches = site.plan(prefix="no-such-folder/")
    assert batches == []
    (warning,) = site.report(run)["warnings"]
    assert f"s3://{site.bucket}/in/no-such-folder/" in warning


@pytest.mark.parametrize(
    ("counts", "error"),
    [
        ({"warnings": ["No object was listed at s3://b."]}, AirflowFailException),
        (None, AirflowSkipException),
        ({"warnings": []}, None),
    ],
)
def test_warnings_are_shown_as_a_failed_task(counts: dict[str, Any] | None, error: type[Exception] | None) -> None:
    """Catches warnings that are not visible, and a failed task in a run without warnings."""
    instance = Instance("warnings", "r")
    instance.pushed["counts"] = counts
    operator = DicomWarningsOperator(task_id="warnings", report_task_id="report")
    if error is None:
        operator.execute({"ti": instance})
    else:
        with pytest.raises(error):
            operator.execute({"ti": instance})


def test_a_failed_plan_is_named_by_the_report() -> None:
    """Catches a report whose log has a stack trace of XCom where it should say that nothing was planned."""
    with DAG("failed_plan"):
        group = DicomDeidTaskGroup(source="s3://a", destination="s3://b")

    class NoXCom:
        def xcom_pull(self, **_: Any) -> Any:
            raise XComNotFound("failed_plan", "dicom_deid.plan", "run")

    with pytest.raises(AirflowFailException, match="planning task failed"):
        group.report.render_template_fields({"ti": NoXCom(), "expanded_ti_count": None})


def test_only_what_was_written_is_released(site: Site) -> None:
    """Catches the release of an object that was not de-identified, or was changed in the staging place."""
    run, (batch,) = site.plan()
    site.deidentify(run, batch)
    client = site.s3.client()
    client.put_object(Bucket=site.bucket, Key="out/stray.dcm", Body=b"nobody knows")
    release = DicomReleaseOperator(task_id="release", run=run, release_to=f"s3://{site.bucket}/released")
    assert [release.execute(site.context("release")) for _ in range(2)] == [12, 12]
    assert len(site.keys_of("released")) == 12
    changed = site.keys_of("out")[0]
    client.put_object(Bucket=site.bucket, Key=changed, Body=b"changed since")
    again = DicomReleaseOperator(task_id="release", run=run, release_to=f"s3://{site.bucket}/released-again")
    with pytest.raises(AirflowFailException, match="object-changed") as raised:
        again.execute(site.context("release"))
    assert isinstance(raised.value.__cause__, Quarantine)


def test_approval_and_release_are_audited(site: Site) -> None:
    """Catches a release without its approver, and one that its requester approved."""
    run, (batch,) = site.plan()
    site.deidentify(run, batch)

    def release(person: str) -> DicomReleaseOperator:
        approval = {"responded_by_user": {"id": person, "name": person}, "chosen_options": ["Approve"]}
        target = f"s3://{site.bucket}/released"
        return DicomReleaseOperator(task_id="release", run=run, release_to=target, approval=approval)

    with pytest.raises(AirflowFailException, match="cannot approve"):
        release("olga").execute(site.context("release"))
    assert site.keys_of("released") == []
    assert release("vic").execute(site.context("release")) == 12
    with Database.connect(site.database, keys=site.keys) as database:
        events = database.connection.query("", "SELECT kind, body FROM audit_event WHERE kind LIKE 'release-%'")
        assert database.verify().problems == []
    assert [kind for kind, _ in events] == ["release-approved", "release-begun", "release-finished"]
    assert all('"vic"' in body and f"s3://{site.bucket}/released" in body for _, body in events)


@pytest.mark.skipif(not hasattr(OutletEventAccessor, "add_partitions"), reason="Airflow 3.3 is the first that has it")
def test_an_asset_event_has_the_partition_of_the_run(site: Site) -> None:
    """Catches a downstream DAG that does not know which month was de-identified."""
    run, (batch,) = site.plan()
    site.deidentify(run, batch)
    asset = Asset("months")
    context = site.context("report") | {"outlet_events": {asset: OutletEventAccessor(AssetUniqueKey.from_asset(asset))}}
    DicomReportOperator(task_id="report", run=run, outlets=[asset], partition="2024-05").execute(context)
    event = context["outlet_events"][asset]
    assert event.partition_keys == {"2024-05"}
    assert (event.extra["partition"], event.extra["deidentified"]) == ("2024-05", 12)
    with Database.connect(site.database, keys=site.keys) as database:
        assert event.extra["audit_head"] == database.report(run["run_id"]).audit_head
        assert database.verify(expected_head=event.extra["audit_head"]).problems == []


class Withdrawals:
    """The task `withdraw` over a list of one patient of the site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        run, batches = site.plan()
        for batch in batches:
            site.deidentify(run, batch)
        self.patient = patients(2)[0].patient_id
        self.list = f"s3://{site.bucket}/in/lists/withdraw.csv"
        self.put(f"kind,value\npatient,{self.patient}\n")

    def put(self, text: str) -> None:
        self.site.s3.client().put_object(Bucket=self.site.bucket, Key="in/lists/withdraw.csv", Body=text.encode())

    def execute(self, **given: Any) -> dict[str, Any]:
        context = self.site.context("withdraw")
        operator = DicomWithdrawOperator(task_id="withdraw", **{"reason": "consent withdrawn", **given})
        return operator.execute(context)

    def events(self, kind: str) -> list[dict[str, Any]]:
        with Database.connect(self.site.database, keys=self.site.keys) as database:
            assert database.verify().problems == []
            rows = database.connection.query("", "SELECT body FROM audit_event WHERE kind = %s", (kind,))
        return [json.loads(body) for (body,) in rows]


@pytest.fixture
def withdrawals(site: Site) -> Withdrawals:
    return Withdrawals(site)


def test_a_list_is_withdrawn_and_nothing_of_it_is_passed_on(
    withdrawals: Withdrawals, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    counted = withdrawals.execute(withdrawal_list=withdrawals.list, preview="true")
    assert counted == {"withdrawal_id": None, "objects": 6, "destination": 6, "unknown": 0}
    assert len(withdrawals.site.keys_of("out")) == 12
    done = withdrawals.execute(withdrawal_list=withdrawals.list)
    assert (done["objects"], done["deleted"], len(withdrawals.site.keys_of("out"))) == (6, 6, 6)
    (event,) = withdrawals.events("withdrawal-begun")
    assert (event["person"], event["reason"]) == ("olga", "consent withdrawn")
    assert withdrawals.patient not in json.dumps([done, event]) + caplog.text + "".join(capfd.readouterr())
    assert withdrawals.execute(undo=done["withdrawal_id"]) == {"withdrawal_id": done["withdrawal_id"], "objects": 6}


def test_what_a_decision_released_is_withdrawn(withdrawals: Withdrawals) -> None:
    with Database.connect(withdrawals.site.database, keys=withdrawals.site.keys) as database:
        ((number,),) = database.connection.query(
            "",
            """WITH made AS (
                INSERT INTO decision (project_id, action, is_rule, rules, settings, note, person)
                SELECT project_id, 'release', false, '', '{}', '', 'olga' FROM project RETURNING decision_id
            ) INSERT INTO decided_object (scope_id, key_hash, etag, decision_id, outcome, run_id, link_id, number)
            SELECT d.scope_id, d.key_hash, d.etag, decision_id, d.outcome, a.run_id, a.link_id, a.number
            FROM made, audit a JOIN processed_object d USING (object_id) WHERE a.number < 2 RETURNING decision_id""",
        )[:1]
    counted = withdrawals.execute(decision=str(number), preview="true")
    done = withdrawals.execute(decision=number)
    assert counted["objects"] == done["objects"] == done["deleted"] == 12 - len(withdrawals.site.keys_of("out"))
    assert 0 < done["objects"] < 12
    (event,) = withdrawals.events("withdrawal-begun")
    assert event["decision"] == number


def test_a_retry_continues_the_withdrawal_that_was_begun(
    withdrawals: Withdrawals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a second withdrawal, and one of a list that was changed or deleted meanwhile."""

    def fail(*_: Any, **__: Any) -> int:
        raise ObjectStoreError("deleting an object: 503")

    with monkeypatch.context() as patch:
        patch.setattr("dicom_deid.pipeline.withdrawal.continue_withdrawal", fail)
        with pytest.raises(ObjectStoreError):
            withdrawals.execute(withdrawal_list=withdrawals.list)
    withdrawals.put("kind,value\nnonsense,\n")
    assert withdrawals.execute(withdrawal_list=withdrawals.list)["deleted"] == 6
    assert withdrawals.execute(withdrawal_list=withdrawals.list)["deleted"] == 0
    assert [len(withdrawals.events(f"withdrawal-{kind}")) for kind in ("begun", "finished")] == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,value\nname,Doe\n", "line 2: not of the form"),
        ("patient\n", "line 1: not of the form"),
        ("\x00\xff", "line 1: not of the form"),
        ("kind,value\n", "Say what to withdraw"),
    ],
)
def test_a_list_that_is_no_list_names_the_line_and_no_value(withdrawals: Withdrawals, text: str, message: str) -> None:
    withdrawals.put(text)
    with pytest.raises(AirflowFailException, match=message) as caught:
        withdrawals.execute(withdrawal_list=withdrawals.list)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Give one of"),
        ({"withdrawal_list": "s3://b/k", "deleted_sources": "True"}, "Give one of"),
        ({"withdrawal_list": "s3://b/k", "decision": 1}, "Give one of"),
        ({"decision": "seven"}, "decision must be"),
        ({"decision": 7}, "no decision 7 in project 'operators'"),
        ({"withdrawal_id": str(uuid.UUID(int=1))}, "no such withdrawal"),
        ({"withdrawal_id": "first"}, "an id is not of the form of one"),
        ({"withdrawal_list": "list.csv"}, "must be s3://"),
        ({"withdrawal_list": "/nowhere/list.csv"}, "There is no list"),
        ({"undo": str(uuid.UUID(int=0))}, "no such withdrawal"),
        ({"deleted_sources": True, "reason": " "}, "Say who asks, and why"),
    ],
)
def test_a_withdrawal_that_cannot_be_begun_says_why(
    withdrawals: Withdrawals, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        withdrawals.execute(**given)


def test_a_run_without_settled_objects_is_skipped(site: Site) -> None:
    """Catches a red task each time that an event finds an incomplete study, or an empty bucket."""
    run, batches = site.plan(settle_seconds=3600)
    assert batches == []
    with pytest.raises(AirflowSkipException, match="No object has settled"):
        site.report(run)
    assert len(site.plan(settle_seconds=0)[1]) == 1


def test_a_preview_is_skipped_by_the_others(site: Site) -> None:
    """Catches a report that fails after a preview, because there is no run."""
    run, batches = site.plan(preview=True)
    assert batches == []
    with pytest.raises(AirflowSkipException):
        site.report(run)


def test_two_recipes_are_compared(site: Site) -> None:
    """Catches a comparison that names no difference, or a value of an object."""
    operator = DicomPreviewOperator(
        task_id="p", source=f"s3://{site.bucket}/in", sample=3, compare_with="ps3.15-basic", settings=CALM
    )
    context = site.context("p")
    operator.execute(context)
    report = context["ti"].pushed["preview"]
    assert sum(report["objects"].values()) >= 6
    assert report["rules"]
    assert all(rule["elements"] for rule in report["rules"])
    differing = {each["elements"]: (each["one"], each["other"]) for each in report["differences"]}
    assert differing["Patient's Birth Date"] == ("changed: JITTER endswith:Date 31", "emptied: BLANK PatientBirthDate")
    text = json.dumps(report)
    assert [patient.name for patient in patients(2) if patient.name in text or patient.patient_id in text] == []
    assert site.keys_of("out") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": "s3://no-such-bucket-here/in"},
            r"s3://no-such-bucket-here/in \(connection 'dicom_deid_source'\) cannot be used: .*bucket does not exist",
        ),
        ({"source_conn_id": "no_such_connection"}, "no connection 'no_such_connection'"),
        ({"source": ""}, "No source is given"),
        ({"destination": "s3//deidentified"}, "destination must be s3://"),
        ({"destination": "out"}, "destination must be s3://"),
        ({"quarantine": "s3:/quarantine"}, "quarantine must be s3://"),
        ({"quarantine": "s3://anywhere/held"}, "quarantine locations of the connection dicom_deid_default"),
        ({"recipes": "no-such-recipe"}, "no-such-recipe"),
        ({"profile_options": ["retain-uids"]}, r"ps3\.15-basic"),
        ({"settings": {"colour": "red"}}, "colour.*valid are.*pixel_risk"),
        ({"settings": {"pixel_risk": "quarantin"}}, "pixel_risk.*allow"),
        ({"options": {"colour": "red"}}, "colour; did you mean cohort"),
        ({"limit": 0}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 10**12}, "limit"),
        ({"preview": "perhaps"}, "preview must be true or false"),
        ({"preview": 1}, "preview must be true or false"),
        ({"retry_quarantined": ""}, "retry_quarantined must be true or false"),
        ({"create_project": "no"}, "create_project must be true or false"),
        ({"newer_than": "yesterday"}, "newer_than"),
    ],
)
def test_wrong_arguments_fail_before_the_first_object(site: Site, changes: dict[str, Any], message: str) -> None:
    """Catches a wrong value that a batch finds hours later, or that is taken for another one."""
    with pytest.raises(AirflowFailException, match=message):
        site.plan(**changes)


def test_a_missing_extra_is_named_when_planning(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run whose objects all fail because text recognition is not installed."""
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(AirflowFailException, match=r"needs the extra ocr.*rapidocr"):
        site.plan(settings=CALM | {"pixel_risk": "ocr"})


def test_a_batch_with_failed_objects_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a successful task with failed objects, also in a retry that finds the batch finished."""
    run, (batch,) = site.plan()
    result = BatchResult(outcomes={Outcome.FAILED: 2, Outcome.DEIDENTIFIED: 9}, reasons={Reason.INTERNAL_ERROR: 2})
    monkeypatch.setattr("dicom_deid.pipeline.batch.run_batch", lambda *_, **__: result)
    with pytest.raises(AirflowFailException, match=r"2 objects failed \(internal-error\)"):
        site.deidentify(run, batch)


@pytest.mark.parametrize(
    ("quarantine", "is_allowed"),
    [
        *(("s3://held", True), ("s3://held/ward/7", True), ("/srv/held/a", True), ("file:///srv/held/", True)),
        *(("s3://held2", False), ("s3://other", False), ("s3://held/../other", False), ("/srv", False)),
        *(("/srv/held/../a", False), ("/srv/heldback", False), ("file:///srv/held/%2e%2e/a", False)),
    ],
)
def test_originals_are_copied_only_to_quarantine_locations_of_the_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch, quarantine: str, is_allowed: bool
) -> None:
    """Catches a user who may trigger a DAG, and has originals copied to any bucket."""
    document = json.loads(os.environ["AIRFLOW_CONN_DICOM_DEID_DEFAULT"])
    document["extra"] = {**document["extra"], "quarantine_locations": "s3://held/, /srv/held"}
    monkeypatch.setenv("AIRFLOW_CONN_DICOM_DEID_DEFAULT", json.dumps(document))
    places = {"source": f"s3://{site.bucket}/in", "destination": f"s3://{site.bucket}/out"}
    operator = DicomPlanOperator(task_id="plan", quarantine=quarantine, **places)
    with contextlib.nullcontext() if is_allowed else pytest.raises(ConfigurationError, match="quarantine locations"):
        assert operator.configuration(site.context("plan")).quarantine == quarantine


@pytest.mark.parametrize(("preview", "planned"), [("False", 1), ("false", 1), ("True", 0)])
def test_a_templated_switch_means_what_it_says(site: Site, preview: str, planned: int) -> None:
    """Catches the text "False" taken for true."""
    assert len(site.plan(preview=preview)[1]) == planned


def test_an_unknown_key_of_the_conf_is_refused(site: Site) -> None:
    """Catches a misspelt limit that Airflow ignores, so that the run takes the whole archive."""
    site.conf = {"limt": 10}
    with pytest.raises(AirflowFailException, match="no parameter limt; did you mean limit"):
        site.plan()


def test_a_project_is_created_only_on_request(site: Site) -> None:
    """Catches a misspelt project that becomes a new pseudonymisation domain."""
    with pytest.raises(AirflowFailException, match="There is no project 'operators'"):
        site.plan(create_project=False)
    site.plan()
    with pytest.raises(AirflowFailException, match="did you mean 'operators'"):
        site.plan(project="operator", create_project="false")
    site.plan(create_project=False)


def test_the_patient_key_of_a_form_is_that_of_the_project(site: Site) -> None:
    site.plan(patient_key="id-and-issuer")
    site.plan()
    with pytest.raises(AirflowFailException, match="created with another patient_key"):
        site.plan(patient_key="id")


def test_a_scheduled_run_can_be_skipped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a backfill DAG that starts a run over everything when it is unpaused."""
    context = site.context("plan")
    context["dag_run"].run_type = DagRunType.SCHEDULED
    plan = DicomPlanOperator(task_id="plan", source="", destination="", skip_scheduled=True)
    assert plan.execute(context) == []
    with pytest.raises(AirflowSkipException, match="start a backfill"):
        site.report(context["ti"].pushed["run"])


@pytest.mark.parametrize(
    ("error", "fails"),
    [
        (ConfigurationError("x"), True),
        (RecipeError([]), True),
        (Quarantine(Reason.OBJECT_CHANGED), True),
        (ObjectStoreError("x"), False),
        (DatabaseError("x"), False),
        (BatchStopped("x"), False),
    ],
)
def test_which_errors_are_retried(error: Exception, fails: bool) -> None:
    """Catches a wrong recipe that is tried six times, and a store outage of a minute that fails the night."""

    class Failing(DicomDeidOperator):
        def run_task(self, context: Any) -> Any:
            raise error

    with pytest.raises(AirflowFailException if fails else type(error)):
        Failing(task_id="x").execute({})


@pytest.mark.skipif(not hasattr(exceptions, "TaskAwaitingInput"), reason="Airflow 3.3 is the first that waits so")
def test_a_retry_keeps_the_answer_of_an_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a retry that drops the answer, so that the run waits for a person who has answered already."""
    asked: list[str] = []

    def ask(operator: ApprovalOperator, context: Any) -> None:
        asked.append(context["ti"].id)
        raise exceptions.TaskAwaitingInput(method_name="execute_complete")

    class State(dict[str, Any]):
        def set(self, key: str, value: Any) -> None:
            self[key] = value

    monkeypatch.setattr(ApprovalOperator, "execute", ask)
    state = State()
    for instance in ("first", "first", "cleared"):
        operator = DicomApprovalOperator(task_id="approve", subject="Release?")
        with pytest.raises(exceptions.TaskAwaitingInput):
            operator.execute({"ti": SimpleNamespace(id=instance), "task_state_store": state})
    assert asked == ["first", "cleared"]


@pytest.mark.parametrize(
    ("person", "choice", "fails"), [("ada", "Approve", True), ("ada", "Reject", False), ("olga", "Approve", False)]
)
def test_the_requester_cannot_approve(person: str, choice: str, fails: bool) -> None:
    """Catches a release that one person requests and approves."""
    operator = DicomApprovalOperator(task_id="approve", subject="Release?", retries=3)
    assert operator.retries <= 1
    event = {
        "chosen_options": [choice],
        "params_input": {},
        "responded_at": datetime(2026, 1, 2, tzinfo=UTC),
        "responded_by_user": {"id": person, "name": person},
    }
    context = {"dag_run": SimpleNamespace(triggering_user_name="ada")}
    if fails:
        with pytest.raises(AirflowFailException, match="cannot approve"):
            operator.execute_complete(context, event)
    else:
        assert operator.execute_complete(context, event)["chosen_options"] == [choice]


def test_the_notifier_sends_only_failures_and_warnings() -> None:
    """Catches a message for every successful run."""
    sent: list[tuple[str, str]] = []

    def deliver(subject: str, text: str) -> Any:
        sent.append((subject, text))
        return SimpleNamespace(notify=lambda context: None)

    instance = Instance("report", "r")
    notifier = QuarantineNotifier(deliver)
    counts = {"deidentified": 9, "quarantined": 0, "failed": 0, "reasons": {}, "warnings": []}
    for quarantined in (0, 2):
        instance.pushed["counts"] = counts | {"quarantined": quarantined, "reasons": {"truncated": quarantined}}
        notifier.notify({"ti": instance})
    assert [subject for subject, _ in sent] == ["2 objects quarantined, 0 warnings"]
    assert sent[0] == message("d, r", instance.pushed["counts"])
    assert "Send it again from its source." in sent[0][1]
