"""The topology of ``docker-compose.yaml`` as processes: its commands and environment, Celery, Redis, two workers."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.airflow import DAGS, Deployment
from tests.support.programs import program
from tests.support.runs import patients, series

from dicom_deid.database import Database, KeyRing
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.airflow import AirflowOptions, AirflowSandbox, create_database
from dicom_deid.sandbox.deployment import connection_documents, write_secrets
from dicom_deid.sandbox.ports import free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(1500),
    # As every module that starts an Airflow: one at a time.
    pytest.mark.xdist_group("airflow"),
]

COMPOSE: dict[str, Any] = yaml.safe_load((DAGS.parent / "docker-compose.yaml").read_text())
ON_DEMAND, BACKFILL = "dicom_deid_on_demand", "dicom_deid_backfill"
PARTITIONS = 30
QUICK = {
    # A lost worker is missed after five minutes by default.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """A Redis that asks for a password; its address without one."""
    (port,) = free_ports(1)
    password = secrets.token_urlsafe(12)
    words = f"--port {port} --bind 127.0.0.1 --requirepass {password} --save"
    command = [program("redis-server"), *words.split(), ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
    yield f":{password}@127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def topology(sandbox_servers: Sandbox, redis: str) -> Iterator[Deployment]:
    """The services of the compose file, their names resolved to this machine."""
    name = f"t{uuid.uuid4().hex[:12]}"
    for database in ("airflow", "deid"):
        create_database(sandbox_servers.postgres_url, f"{name}_{database}")
    home = Path(tempfile.mkdtemp(prefix="dicom-deid-topology-"))
    keys = KeyRing.generate()
    url = sandbox_servers.database_url(f"{name}_airflow").replace("postgresql://", "postgresql+psycopg2://")
    airflow = AirflowSandbox(AirflowOptions(home=home, database_url=url, dags_folder=DAGS))
    write_secrets(home / "secrets", home / "servers")
    replace_addresses(home / "secrets", sandbox_servers, f"{name}_deid", url, redis, keys)
    airflow.passwords = json.loads((home / "secrets" / "passwords.json").read_text())
    for key, value in compose_environment("api-server", airflow, home).items():
        # A plain variable would win over the command that reads the secret.
        airflow.environment.pop(key.removesuffix("_CMD"), None)
        airflow.environment[key] = value
    airflow.environment |= QUICK
    deployed = Deployment(sandbox_servers, airflow, sandbox_servers.database_url(f"{name}_deid"), keys)
    try:
        airflow.start([command("api-server"), command("scheduler"), command("dag-processor"), command("triggerer")])
        for number in (1, 2):
            start_worker(airflow, home, number)
        yield deployed
    finally:
        airflow.stop()
        shutil.rmtree(home, ignore_errors=True)


def command(service: str) -> str:
    """Return what a service runs."""
    found: str = COMPOSE["services"][service]["command"]
    return found


def compose_environment(service: str, airflow: AirflowSandbox, home: Path) -> dict[str, str]:
    """Return the environment of a service, with the places of this machine."""
    places = {
        "/run/dicom-deid": str(home / "secrets"),
        "/opt/airflow/dags": str(DAGS),
        "http://api-server:8080": airflow.url,
        "${AIRFLOW_BASE_URL:-http://localhost:8080}": airflow.url,
    }
    found = {}
    for key, value in COMPOSE["services"][service]["environment"].items():
        for theirs, ours in places.items():
            value = value.replace(theirs, ours)
        found[key] = value
    return found


def replace_addresses(
    place: Path, sandbox: Sandbox, database: str, airflow_url: str, redis: str, keys: KeyRing
) -> None:
    """Write the addresses of this machine into the files that hold them."""
    s3 = sandbox.s3
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    documents = connection_documents(storage, sandbox.database_url(database), keys, project="topology")
    connections = {name: json.loads(document) for name, document in documents.items()}
    # Slow enough to be killed in the middle.
    connections["dicom_deid_source"]["extra"]["dicom_deid"] = {"requests_per_second": 2}
    (place / "connections.json").write_text(json.dumps(connections))
    (place / "database-url").write_text(airflow_url)
    (place / "result-backend-url").write_text(f"db+{airflow_url}")
    (place / "broker-url").write_text(f"redis://{redis}")


def start_worker(airflow: AirflowSandbox, home: Path, number: int) -> None:
    """Start a worker with the service's command; containers have names of their own, processes must be given them."""
    (port,) = free_ports(1)
    environment = compose_environment("worker", airflow, home)
    environment["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] = str(port)
    words = f"{command('worker')} --celery-hostname worker{number}@%h"
    airflow.start_component(words, name=f"worker{number}", environment=environment)


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something, no longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(1)


def objects_done(deployed: Deployment) -> int:
    """Return how many objects the audit knows of."""
    with Database.connect(deployed.database_url, keys=deployed.keys) as database:
        return int(database.connection.query("", "SELECT count(*) FROM audit")[0][0])


def test_a_worker_dies_in_the_middle(topology: Deployment) -> None:
    """A run that hangs, fails, loses objects or does them twice when a worker's machine is lost."""
    airflow = topology.airflow
    source = topology.bucket(f"source-{uuid.uuid4().hex[:8]}", series(patients(3), slices=20))
    destination = topology.bucket(f"destination-{uuid.uuid4().hex[:8]}")
    airflow.wait_for_dags(ON_DEMAND)
    conf = {"source": source, "destination": destination, "pixel_risk": "allow"}
    run_id = airflow.trigger(ON_DEMAND, conf)
    place = f"/api/v2/dags/{ON_DEMAND}/dagRuns/{run_id}/taskInstances"

    def batch() -> dict[str, Any]:
        instances = airflow.request("GET", place).raise_for_status().json()["task_instances"]
        return next((each for each in instances if each["task_id"] == "deidentify" and each["map_index"] >= 0), {})

    wait_until(lambda: batch().get("state") == "running", 240, "the batch runs")
    written = topology.sandbox.s3.client()
    bucket = destination.removeprefix("s3://")
    wait_until(lambda: written.list_objects_v2(Bucket=bucket)["KeyCount"] >= 3, 120, "three objects are written")
    with_task = worker_of(airflow, batch()["id"])
    airflow.stop_component(with_task, kill=True)
    assert written.list_objects_v2(Bucket=bucket)["KeyCount"] < 60
    assert airflow.wait_for_run(ON_DEMAND, run_id, timeout=600) == "success"
    counts = topology.xcom(ON_DEMAND, run_id, "report", "counts")
    assert isinstance(counts, dict)
    assert counts["deidentified"] + counts["quarantined"] == 60
    assert written.list_objects_v2(Bucket=bucket)["KeyCount"] == counts["deidentified"]
    assert batch()["try_number"] >= 2
    start_worker(airflow, airflow.options.home, int(with_task.removeprefix("worker")))


def worker_of(airflow: AirflowSandbox, task_instance_id: str) -> str:
    """Return the worker whose log names the task instance."""
    found = [
        name
        for name in ("worker1", "worker2")
        if task_instance_id in airflow.process_log(name).read_text(errors="replace")
    ]
    return found[0]


def test_thirty_partitions_and_a_dead_worker(topology: Deployment) -> None:
    """A backfill that stops, skips a partition, or mixes up prefixes when a worker is lost on the way."""
    airflow = topology.airflow
    months = [f"{2020 + number // 12}/{number % 12 + 1:02d}" for number in range(PARTITIONS)]
    made = series(patients(PARTITIONS, seed=5), slices=1)
    objects = {f"{month}/{key}": data for month, (key, data) in zip(months, made.items(), strict=True)}
    source = topology.bucket(f"archive-{uuid.uuid4().hex[:8]}", objects)
    destination = topology.bucket(f"released-{uuid.uuid4().hex[:8]}")
    airflow.wait_for_dags(BACKFILL)
    airflow.request("PATCH", f"/api/v2/dags/{BACKFILL}", json={"is_paused": False}).raise_for_status()
    before = objects_done(topology)
    conf = {"source": source, "destination": destination, "partition": "prefix", "pixel_risk": "allow"}
    airflow.run(
        "backfill", "create", "--dag-id", BACKFILL, "--from-date", "2020-01-01", "--to-date", "2022-06-30",
        "--max-active-runs", "4", "--run-backwards", "--dag-run-conf", json.dumps(conf),
    )  # fmt: skip

    def ended() -> list[str]:
        query = {"run_type": ["backfill"], "limit": 100}
        runs = airflow.request("GET", f"/api/v2/dags/{BACKFILL}/dagRuns", params=query).raise_for_status().json()
        return [run["state"] for run in runs["dag_runs"] if run["state"] in ("success", "failed")]

    wait_until(lambda: len(ended()) >= 3, 600, "three partitions are done")
    airflow.stop_component("worker2", kill=True)
    start_worker(airflow, airflow.options.home, 2)
    wait_until(lambda: len(ended()) >= PARTITIONS, 1200, "thirty partitions are done")
    assert set(ended()) == {"success"}
    assert objects_done(topology) - before == PARTITIONS
