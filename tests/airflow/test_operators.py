"""The operators over the real stores, without a scheduler: what they do when something is wrong."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowSkipException
from tests.support.runs import patients, series

from dicom_deid.database import Database, KeyRing
from dicom_deid.exceptions import ConfigurationError, DatabaseError, ObjectStoreError, Quarantine
from dicom_deid.notifications.notifiers import QuarantineNotifier, message
from dicom_deid.operators.base import RETRY_POLICY, TooManyQuarantined, WorkLeft
from dicom_deid.operators.deidentify import BatchStopped, DicomDeidentifyOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.preview import DicomPreviewOperator
from dicom_deid.operators.release import DicomReleaseOperator
from dicom_deid.operators.report import DicomReportOperator
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

    def context(self, task_id: str) -> dict[str, Any]:
        """Return the context of a run that was triggered without a logical date."""
        dag_run = SimpleNamespace(run_type="manual", triggering_user_name="olga", logical_date=None)
        return {"ti": Instance(task_id, self.run_id), "dag_run": dag_run, "outlet_events": {}}

    def plan(self, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Plan a run; return what the other tasks get."""
        given = {"source": f"s3://{self.bucket}/in", "destination": f"s3://{self.bucket}/out", "settings": CALM}
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
    """Counts that do not add up, or a logical date that the operators need and a run need not have."""
    run, batches = site.plan()
    for batch in batches:
        site.deidentify(run, batch)
    counts = site.report(run)
    assert (counts["deidentified"], counts["quarantined"], counts["failed"]) == (12, 1, 0)
    assert len(site.keys_of("out")) == 12


def test_only_references_travel(site: Site) -> None:
    """A key of an object, a password or a key of the crosswalk in what goes from task to task."""
    text = json.dumps(site.plan())
    secrets = [site.s3.secret_key, site.keys.to_text(), site.database]
    names = {key.split("/")[1] for key in site.keys_of("in")}
    assert [word for word in [*secrets, *names] if word in text] == []


def test_who_asked_and_why_is_recorded(site: Site) -> None:
    """A run in the audit that nobody asked for."""
    run, _ = site.plan(reason="a study")
    with Database.connect(site.database, keys=site.keys) as database:
        request = database.run(run["run_id"]).request
    assert (request.triggered_by, request.reason, request.airflow["run_id"]) == ("olga", "a study", site.run_id)


def test_planning_again_is_the_same_run(site: Site) -> None:
    """A retried planning task that leaves a second run behind."""
    assert site.plan()[0]["run_id"] == site.plan()[0]["run_id"]


def test_a_killed_batch_gives_the_rest_back(site: Site) -> None:
    """A task that is told to stop and goes on, or that loses what it had done."""
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


def test_on_kill_before_the_work_does_nothing() -> None:
    """A kill that arrives while the task still imports."""
    DicomDeidentifyOperator(task_id="work", run={}, batch={}).on_kill()


def test_work_that_is_left_fails_the_run(site: Site) -> None:
    """A run that is called a success although a batch was never done."""
    run, _ = site.plan()
    with pytest.raises(WorkLeft, match="13 objects"):
        site.report(run)
    with Database.connect(site.database, keys=site.keys) as database:
        assert database.run(run["run_id"]).state == "failed"


def test_lineage_names_places_and_counts(site: Site) -> None:
    """Lineage that names an object, another place than the one that is read, or a destination that is not written."""
    source, destination = f"s3://{site.bucket}", f"s3://{site.bucket}/out"
    plan = DicomPlanOperator(task_id="plan", source=source, prefix="in", destination=destination, settings=CALM)
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
        DicomPlanOperator(task_id="p", source=source, prefix="in", destination=destination, only_preview=True),
    ):
        assert looking.get_openlineage_facets_on_start().outputs == []


def test_too_many_quarantined(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A ratio that is not looked at, or a warning that fails the task all the same."""
    run, (batch,) = site.plan()
    site.deidentify(run, batch)
    with pytest.raises(TooManyQuarantined, match=r"7\.7%.*5\.0%"):
        site.report(run, max_quarantine_ratio=0.05)
    assert site.report(run, max_quarantine_ratio=0.05, on_excess="warn")["quarantined"] == 1
    assert site.report(run, max_quarantine_ratio=0.08)["quarantined"] == 1


def test_only_what_was_written_is_released(site: Site) -> None:
    """An object that lies in the staging place but was never de-identified, or one that was changed there."""
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
    with pytest.raises(Quarantine, match="object-changed"):
        again.execute(site.context("release"))


def test_a_dry_run_is_skipped_by_the_others(site: Site) -> None:
    """A report that fails after a dry run, for want of a run."""
    run, batches = site.plan(only_preview=True)
    assert batches == []
    with pytest.raises(AirflowSkipException):
        site.report(run)


def test_two_recipes_are_compared(site: Site) -> None:
    """A comparison that names no difference, or a value of an object."""
    operator = DicomPreviewOperator(
        task_id="p", source=f"s3://{site.bucket}/in", sample=3, compare_with="ps3.15-basic", settings=CALM
    )
    report = operator.execute(site.context("p"))
    assert sum(report["objects"].values()) >= 6
    differing = {each["name"]: (each["one"], each["other"]) for each in report["differences"]}
    assert differing["Patient's Birth Date"] == ("changed", "emptied")
    text = json.dumps(report)
    assert [patient.name for patient in patients(2) if patient.name in text or patient.patient_id in text] == []
    assert site.keys_of("out") == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"source": "s3://no-such-bucket-here"}, ConfigurationError, "the bucket does not exist"),
        ({"recipes": "no-such-recipe"}, ConfigurationError, "no-such-recipe"),
        ({"profile_options": ["retain-uids"]}, ConfigurationError, r"ps3\.15-basic"),
        ({"settings": {"colour": "red"}}, ConfigurationError, "colour"),
        ({"options": {"colour": "red"}}, ConfigurationError, "colour"),
        ({"limit": 0}, ConfigurationError, "limit"),
        ({"newer_than": "yesterday"}, ConfigurationError, "newer_than"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_object(
    site: Site, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A wrong word that is found out by a batch, hours later."""
    with pytest.raises(error, match=message):
        site.plan(**changes)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (ConfigurationError("x"), RetryAction.FAIL),
        (RecipeError([]), RetryAction.FAIL),
        (TooManyQuarantined("x"), RetryAction.FAIL),
        (WorkLeft("x"), RetryAction.FAIL),
        (ObjectStoreError("x"), RetryAction.DEFAULT),
        (DatabaseError("x"), RetryAction.DEFAULT),
        (BatchStopped("x"), RetryAction.DEFAULT),
    ],
)
def test_which_errors_are_worth_a_retry(error: Exception, action: RetryAction) -> None:
    """A wrong recipe that is tried six times, or a storage that is away for a minute and fails the night."""
    assert RETRY_POLICY.evaluate(error, 1, 3).action is action


def test_the_notifier_speaks_only_when_there_is_reason() -> None:
    """A mail every night, which nobody reads after a week."""
    sent: list[tuple[str, str]] = []

    def deliver(subject: str, text: str) -> Any:
        sent.append((subject, text))
        return SimpleNamespace(notify=lambda context: None)

    instance = Instance("report", "r")
    notifier = QuarantineNotifier(deliver)
    counts = {"deidentified": 9, "quarantined": 0, "failed": 0, "reasons": {}}
    for quarantined in (0, 2):
        instance.pushed["counts"] = counts | {"quarantined": quarantined, "reasons": {"truncated": quarantined}}
        notifier.notify({"ti": instance})
    assert [subject for subject, _ in sent] == ["2 quarantined objects need a look"]
    assert sent[0] == message("d, r", instance.pushed["counts"])
    assert "Send it again from its source." in sent[0][1]
