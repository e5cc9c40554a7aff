"""Tests of the arrival DAG: a study is de-identified once, when it is complete, also after a killed triggerer."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from tests.support.airflow import PROJECT, Deployment, deployment
from tests.support.runs import patients, series

from dicom_deid.database import Database
from dicom_deid.objects import SourceObject
from dicom_deid.pipeline.arrivals import settled_objects
from dicom_deid.sandbox import S3Service, Sandbox
from dicom_deid.triggers import NewObjectsTrigger, SettledMessagesTrigger

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAG, SETTLE = "dicom_deid_on_arrival", 5.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 20))))
def test_a_folder_is_taken_as_a_whole_or_not_at_all(drawn: list[tuple[str, int, int]]) -> None:
    """Catches half a study that is released, because its other half had not arrived."""
    listing = sorted(
        SourceObject(f"{folder}/{number}", 1, "e", NOW - timedelta(seconds=age)) for folder, number, age in drawn
    )
    before = NOW - timedelta(seconds=10)
    found = list(settled_objects(listing, before))
    for folder in "abc":
        whole = [each for each in listing if each.key.startswith(folder)]
        taken = [each for each in found if each.key.startswith(folder)]
        assert taken == (whole if all(each.last_modified < before for each in whole) else [])


def test_the_trigger_fires_once_for_what_has_settled(
    s3: S3Service, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an event for objects that are still arriving, a missing event, and one at each poll."""
    extra = {"endpoint_url": s3.endpoint_url, "region_name": s3.region}
    document = {"conn_type": "aws", "login": s3.access_key, "password": s3.secret_key, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ARRIVALS", json.dumps(document))
    trigger = NewObjectsTrigger(
        source=f"s3://{s3_bucket}", settle_seconds=2, poll_seconds=0.2, source_conn_id="arrivals"
    )
    assert NewObjectsTrigger(**trigger.serialize()[1]).serialize() == trigger.serialize()
    client = s3.client()

    async def next_event(events: AsyncIterator[object], seconds: float) -> object | None:
        waiting = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait({waiting}, timeout=seconds)
        pending.append(waiting)
        return waiting.result() if done else None

    pending: list[asyncio.Future[object]] = []

    async def watch() -> None:
        events = trigger.run()
        client.put_object(Bucket=s3_bucket, Key="study/1", Body=b"x")
        began = time.monotonic()
        event = await next_event(events, 20)
        assert event is not None
        assert time.monotonic() - began > 0.9
        assert "study" not in str(event.payload)
        assert await next_event(events, 1.5) is None
        client.put_object(Bucket=s3_bucket, Key="study/2", Body=b"x")
        assert (await asyncio.wait_for(pending[-1], 20)) is not None

    asyncio.run(watch())
    for key in ("study/1", "study/2"):
        client.delete_object(Bucket=s3_bucket, Key=key)


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """A store that announces new objects of the bucket `incoming` on a queue: S3 client, and the queue's URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    extra = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_QUEUE", json.dumps({"conn_type": "aws", "login": "a", "password": "b", "extra": extra})
    )
    session = boto3.session.Session("a", "b", region_name="us-east-1")
    s3, sqs = (session.client(name, endpoint_url=extra["endpoint_url"]) for name in ("s3", "sqs"))
    url = sqs.create_queue(QueueName="arrivals")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket="incoming")
    configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    s3.put_bucket_notification_configuration(Bucket="incoming", NotificationConfiguration=configuration)
    sqs.purge_queue(QueueUrl=url)
    yield s3, url
    server.stop()


def test_messages_of_a_queue_start_one_event_without_their_keys(announced: tuple[Any, str]) -> None:
    """Catches a source key in Airflow's database, an event before the object settled, or one for each message."""
    msg_queue = pytest.importorskip("airflow.providers.common.messaging.triggers.msg_queue")
    pytest.importorskip("aiobotocore")
    s3, url = announced
    messages = msg_queue.MessageQueueTrigger(scheme="sqs", sqs_queue=url, aws_conn_id="queue", waiter_delay=1)
    trigger = SettledMessagesTrigger(messages=messages, settle_seconds=3)
    path, arguments = trigger.serialize()
    assert path == "dicom_deid.triggers.SettledMessagesTrigger"
    # Airflow hashes and stores arguments of these types as they are.
    assert {type(value) for value in arguments.values()} <= {str, int, float}
    trigger = SettledMessagesTrigger(**arguments)
    assert trigger.serialize() == (path, arguments)

    async def watch() -> None:
        events, started = trigger.run(), time.monotonic()
        # After a start there may be objects whose messages were lost.
        await asyncio.wait_for(anext(events), 20)
        while (await asyncio.wait({waiting := asyncio.ensure_future(anext(events))}, timeout=6))[0]:
            assert time.monotonic() - started < 20
        began = time.monotonic()
        for number in range(3):
            s3.put_object(Bucket="incoming", Key=f"Doe_Jane/{number}", Body=b"x")
        event = await asyncio.wait_for(waiting, 30)
        assert time.monotonic() - began > 3
        assert "Doe" not in str(event.payload)
        # A message that the queue delivers late makes an event of its own.
        further = 0
        while (await asyncio.wait({waiting := asyncio.ensure_future(anext(events))}, timeout=6))[0]:
            further += 1
        assert further < 2
        waiting.cancel()

    asyncio.run(watch())


class Silent(BaseEventTrigger):
    """A queue without messages."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "x.Silent", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(3600)
        yield TriggerEvent({})


def test_objects_are_reported_though_the_watcher_never_lives_until_they_settle() -> None:
    """Catches arrivals that wait until a triggerer that is restarted again and again has settled itself."""
    trigger = SettledMessagesTrigger(messages=Silent(), settle_seconds=20)

    async def watch() -> int:
        events, count, ends = trigger.run(), 0, time.monotonic() + 11
        while (await asyncio.wait({waiting := asyncio.ensure_future(anext(events))}, timeout=ends - time.monotonic()))[
            0
        ]:
            count += 1
        waiting.cancel()
        return count

    assert asyncio.run(watch()) >= 2


class Unreachable(BaseEventTrigger):
    """A queue that fails, with a key in its message."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "x.Unreachable", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise ValueError("Doe_Jane/1")
        yield


def test_a_queue_that_fails_does_not_end_the_watcher(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a watcher that stops when the queue is away, or a source key in the log."""
    trigger = SettledMessagesTrigger(messages=Unreachable(), settle_seconds=0, sweep_seconds=2)

    async def watch() -> None:
        events = trigger.run()
        for _ in range(3):
            await asyncio.wait_for(anext(events), 20)

    asyncio.run(watch())
    assert "Doe" not in caplog.text


@pytest.fixture(scope="module")
def arriving(sandbox_servers: Sandbox) -> Iterator[tuple[Deployment, str, str]]:
    """Airflow that watches a bucket; the bucket, and the one that results go to."""
    name = uuid.uuid4().hex[:12]
    source, destination = f"arrivals-{name}", f"arrived-{name}"
    for bucket in (source, destination):
        sandbox_servers.s3.client().create_bucket(Bucket=bucket)
    environment = {
        "AIRFLOW__DICOM_DEID__ARRIVAL_SOURCE": f"s3://{source}",
        "AIRFLOW__DICOM_DEID__ARRIVAL_DESTINATION": f"s3://{destination}",
        "AIRFLOW__DICOM_DEID__ARRIVAL_SETTLE_SECONDS": str(SETTLE),
    }
    with deployment(sandbox_servers, f"r{name}", environment=environment) as running:
        with Database.connect(running.database_url, keys=running.keys) as database:
            database.upgrade()
            database.project(PROJECT)
        running.airflow.wait_for_dags(DAG)
        running.airflow.request("PATCH", f"/api/v2/dags/{DAG}", json={"is_paused": False}).raise_for_status()
        yield running, source, destination


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(900)
def test_no_object_is_lost_or_done_twice_when_the_triggerer_dies(arriving: tuple[Deployment, str, str]) -> None:
    """Catches arrivals that are lost when the watcher dies, or that are processed by two runs."""
    running, source, _ = arriving
    client = running.sandbox.s3.client()
    count = 0
    for number, (key, data) in enumerate(series(patients(4, seed=11), slices=3).items()):
        client.put_object(Bucket=source, Key=key, Body=data)
        count += 1
        if number % 4 == 3:
            running.airflow.stop_component("triggerer", kill=True)
            running.airflow.start_component("triggerer")
        time.sleep(1)
    deadline = time.monotonic() + 500
    while attempts_of(running) < count:
        assert time.monotonic() < deadline, f"{attempts_of(running)} of {count} objects"
        time.sleep(2)
    time.sleep(2 * SETTLE)
    assert attempts_of(running) == count


def attempts_of(running: Deployment) -> int:
    """Return how many attempts the audit holds."""
    with Database.connect(running.database_url, keys=running.keys) as database:
        return int(database.connection.query("", "SELECT count(*) FROM audit")[0][0])
