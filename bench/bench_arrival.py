"""Delay from stored to de-identified when objects arrive continuously, and what a dying triggerer loses.

Objects are stored at a constant rate in folders, each is announced to an SQS queue (moto) as stores do, and the
triggerer is killed again and again. Airflow with the example DAG `dicom_deid_on_arrival`, SeaweedFS and PostgreSQL run
on this machine. Run it with `make bench-arrival`; `ARGS="--watcher listing"` lists the source instead of reading the
queue.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from tests.support.airflow import PROJECT, Deployment, deployment
from tests.support.runs import patients, small_ct

from dicom_deid.database import Database
from dicom_deid.sandbox import Sandbox

DAG = "dicom_deid_on_arrival"
PER_FOLDER = 20
_AUDITED = "SELECT source_etag, outcome, recorded_at FROM audit"


@dataclass
class Arrivals:
    """Stored objects: the folder of each ETag, and the time of each folder's newest object."""

    folder_of: dict[str, int] = field(default_factory=dict)
    newest: dict[int, datetime] = field(default_factory=dict)


@contextmanager
def queue() -> Iterator[tuple[str, str, Any]]:
    """Start an SQS server; yield its address, the URL of a queue, and a client."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "sqs", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    try:
        yield address, client.create_queue(QueueName="arrivals")["QueueUrl"], client
    finally:
        server.stop()


def store(sandbox: Sandbox, bucket: str, given: argparse.Namespace, arrivals: Arrivals, announce: Any) -> None:
    """Store objects at the rate that was asked for, and announce each."""
    client = sandbox.s3.client()
    people = patients(given.rate * given.seconds // PER_FOLDER + 1)
    began = time.monotonic()
    for number in range(given.rate * given.seconds):
        folder = number // PER_FOLDER
        time.sleep(max(0.0, began + number / given.rate - time.monotonic()))
        key = f"{folder:06}/{number:06}.dcm"
        stored = client.put_object(Bucket=bucket, Key=key, Body=small_ct(number, people[folder]))
        arrivals.folder_of[stored["ETag"].strip('"')] = folder
        arrivals.newest[folder] = datetime.now(UTC)
        announce(json.dumps({"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}))


def audited(running: Deployment) -> list[tuple[str, str, datetime]]:
    """Return ETag of the source, outcome and time of each audit row."""
    with Database.connect(running.database_url, keys=running.keys) as database:
        return [
            (str(etag).strip('"'), str(outcome), at) for etag, outcome, at in database.connection.query("", _AUDITED)
        ]


def run(sandbox: Sandbox, given: argparse.Namespace, address: str, url: str, client: Any) -> None:
    """Let objects arrive, kill the triggerer on the way, and print the figures."""
    for bucket in ("arrivals", "arrived"):
        sandbox.s3.client().create_bucket(Bucket=bucket)
    extra = {"endpoint_url": address, "region_name": "us-east-1"}
    environment = {
        "AIRFLOW__DICOM_DEID__ARRIVAL_SOURCE": "s3://arrivals",
        "AIRFLOW__DICOM_DEID__ARRIVAL_DESTINATION": "s3://arrived",
        "AIRFLOW__DICOM_DEID__ARRIVAL_SETTLE_SECONDS": str(given.settle),
        "AIRFLOW__DICOM_DEID__ARRIVAL_QUEUE": url if given.watcher == "queue" else "",
        "AIRFLOW_CONN_DICOM_DEID_QUEUE": json.dumps(
            {"conn_type": "aws", "login": "a", "password": "b", "extra": extra}
        ),
    }
    arrivals = Arrivals()
    with deployment(sandbox, "bench", environment=environment) as running:
        with Database.connect(running.database_url, keys=running.keys) as database:
            database.upgrade()
            database.project(PROJECT)
        running.airflow.wait_for_dags(DAG)
        running.airflow.request("PATCH", f"/api/v2/dags/{DAG}", json={"is_paused": False}).raise_for_status()
        storing = threading.Thread(
            target=store,
            args=(
                sandbox,
                "arrivals",
                given,
                arrivals,
                lambda body: client.send_message(QueueUrl=url, MessageBody=body),
            ),
        )
        storing.start()
        kills = 0
        while storing.is_alive():
            storing.join(given.seconds / (given.kills + 1))
            if storing.is_alive() and kills < given.kills:
                running.airflow.stop_component("triggerer", kill=True)
                running.airflow.start_component("triggerer")
                kills += 1
        wanted = given.rate * given.seconds
        deadline = time.monotonic() + given.patience
        while len(rows := audited(running)) < wanted and time.monotonic() < deadline:
            time.sleep(2)
        # Time for objects to be processed twice.
        time.sleep(given.settle + 20)
        rows = audited(running)
        runs = running.airflow.request("GET", f"/api/v2/dags/{DAG}/dagRuns").json()["total_entries"]
    report(given, arrivals, rows, kills, runs)


def report(
    given: argparse.Namespace, arrivals: Arrivals, rows: list[tuple[str, str, datetime]], kills: int, runs: int
) -> None:
    """Print delays, losses and repetitions."""
    times = Counter(etag for etag, _, _ in rows)
    first: dict[str, datetime] = {}
    for etag, _, at in sorted(rows, key=lambda row: row[2]):
        first.setdefault(etag, at)
    delays = sorted(
        (at - arrivals.newest[arrivals.folder_of[etag]]).total_seconds() - given.settle for etag, at in first.items()
    )
    quantile = statistics.quantiles(delays, n=100)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(row[1] for row in rows).items())
    print(
        f"{given.rate} objects/s for {given.seconds} s in folders of {PER_FOLDER}, settling {given.settle:g} s, "
        f"watcher {given.watcher}, {os.cpu_count()} cores"
    )
    print(f"  {len(arrivals.folder_of)} stored: {outcomes}; {runs} DAG runs; triggerer killed {kills} times")
    print(f"  lost {len(arrivals.folder_of) - len(first)}, processed twice {sum(n > 1 for n in times.values())}")
    print(
        f"  seconds from settled to de-identified: median {quantile[49]:.1f}, p95 {quantile[94]:.1f}, "
        f"longest {delays[-1]:.1f}"
    )


def main() -> None:
    """Run it against servers of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10, help="objects per second")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--kills", type=int, default=20, help="how often the triggerer is killed")
    parser.add_argument("--settle", type=float, default=30.0)
    parser.add_argument("--watcher", choices=["queue", "listing"], default="queue")
    parser.add_argument("--patience", type=float, default=600.0, help="longest time to wait for the last object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicom-deid-bench-") as directory, queue() as (address, url, client):
        sandbox = Sandbox(Path(directory) / "sandbox", keep=True)
        sandbox.start()
        try:
            run(sandbox, given, address, url, client)
        finally:
            sandbox.stop()


if __name__ == "__main__":
    main()
