"""The services of ``docker-compose.yaml`` as processes: its commands, environment and mounts, with two workers."""

from __future__ import annotations

import json
import os
import shlex
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
from dicom_deid.sandbox.deployment import connection_documents
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


VOLUMES = ("secrets", "server-secrets", "login", "logs")
"""The volumes of the compose file that Airflow and Redis mount; they are directories here."""


class Services:
    """The services of the compose file as processes of this machine, each with the mounts that the file gives it."""

    def __init__(self, home: Path, replaced: dict[str, str]) -> None:
        self.home = home
        self.replaced = {f"{target}": str(home / volume) for volume, target in targets().items()} | replaced
        for volume in VOLUMES:
            (home / volume).mkdir()

    def translate(self, text: str) -> str:
        """Return a text of the file with the paths and addresses of this machine."""
        for theirs, ours in self.replaced.items():
            text = text.replace(theirs, ours)
        return text.replace("$$", "$")

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service."""
        found = COMPOSE["services"][service].get("environment") or {}
        return {name: self.translate(value) for name, value in found.items()}

    def command(self, service: str) -> str:
        """Return the command of a service."""
        return self.translate(COMPOSE["services"][service]["command"])

    def wrapper(self, service: str) -> list[str]:
        """Return the words that start a process with the service's mounts: read-only, writable, or not at all."""
        given = dict(volume.split(":", 1) for volume in COMPOSE["services"][service]["volumes"])
        steps = []
        for volume in VOLUMES:
            place = shlex.quote(str(self.home / volume))
            if volume not in given:
                steps.append(f"mount -t tmpfs -o ro none {place}")
            elif given[volume].endswith(":ro"):
                steps.append(f"mount --bind {place} {place} && mount -o remount,bind,ro {place}")
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        script = " && ".join([*steps, 'exec "$@"'])
        return ["unshare", "--mount", *user, "sh", "-c", script, "sh"]

    def run(self, service: str, environment: dict[str, str]) -> None:
        """Run the command of a service to its end."""
        words = [*self.wrapper(service), *shlex.split(self.command(service))]
        subprocess.run(words, env=environment, check=True, cwd=self.home)


def targets() -> dict[str, str]:
    """Return where the volumes are mounted in the containers."""
    mounts = [volume.split(":") for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    return {mount[0]: mount[1] for mount in mounts if mount[0] in VOLUMES}


class Topology(Deployment):
    """A deployment of the services of the compose file."""

    def __init__(self, sandbox: Sandbox, airflow: AirflowSandbox, url: str, keys: KeyRing, services: Services) -> None:
        super().__init__(sandbox, airflow, url, keys)
        self.services = services


@pytest.fixture(scope="module")
def topology(sandbox_servers: Sandbox) -> Iterator[Topology]:
    """The services of the compose file, with their mounts; PostgreSQL and S3 are those of the sandbox."""
    name = f"t{uuid.uuid4().hex[:12]}"
    for database in ("airflow", "deid"):
        create_database(sandbox_servers.postgres_url, f"{name}_{database}")
    home = Path(tempfile.mkdtemp(prefix="dicom-deid-topology-"))
    # The image's user of Redis is another than Airflow's.
    home.chmod(0o755)
    (port,) = free_ports(1)
    keys = KeyRing.generate()
    url = sandbox_servers.database_url(f"{name}_airflow").replace("postgresql://", "postgresql+psycopg2://")
    airflow = AirflowSandbox(AirflowOptions(home=home / "airflow", database_url=url, dags_folder=DAGS))
    places = {
        "/opt/airflow/dags": str(DAGS),
        "http://api-server:8080": airflow.url,
        "${AIRFLOW_BASE_URL:-http://localhost:8080}": airflow.url,
    }
    services = Services(home, places)
    services.run("secrets", {"PATH": airflow.environment["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    replace_addresses(home, sandbox_servers, f"{name}_deid", url, port, keys)
    airflow.passwords = json.loads((home / "login" / "passwords.json").read_text())
    for key, value in services.environment("api-server").items():
        # A plain variable would win over the command that reads the secret.
        airflow.environment.pop(key.removesuffix("_CMD"), None)
        airflow.environment[key] = value
    airflow.environment |= QUICK | {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs")}
    (home / "airflow").mkdir()
    redis = start_redis(services, port)
    try:
        services.run("migrate", airflow.environment)
        for service in ("api-server", "scheduler", "dag-processor", "triggerer"):
            airflow.start_component(services.command(service), wrapper=services.wrapper(service))
        airflow.wait_until_healthy(("scheduler", "dag-processor", "triggerer"), 240)
        database_url = sandbox_servers.database_url(f"{name}_deid")
        deployed = Topology(sandbox_servers, airflow, database_url, keys, services)
        for number in (1, 2):
            start_worker(deployed, number)
        yield deployed
    finally:
        airflow.stop()
        redis.terminate()
        redis.wait()
        shutil.rmtree(home, ignore_errors=True)


def start_redis(services: Services, port: int) -> subprocess.Popen[bytes]:
    """Start the service's command as a user that is not root, which the file says too."""
    assert COMPOSE["services"]["redis"]["user"] == "redis"
    program("redis-server")
    script = services.command("redis").replace("redis-server", f"redis-server --port {port} --bind 127.0.0.1")
    other = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
    words = [*services.wrapper("redis"), *other, *shlex.split(script)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir(), start_new_session=True)


def replace_addresses(
    home: Path, sandbox: Sandbox, database: str, airflow_url: str, redis_port: int, keys: KeyRing
) -> None:
    """Write the addresses of this machine into the files that hold them."""
    place, s3 = home / "secrets", sandbox.s3
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    documents = connection_documents(storage, sandbox.database_url(database), keys, project="topology")
    connections = {name: json.loads(document) for name, document in documents.items()}
    # Slow enough to be killed in the middle.
    connections["dicom_deid_source"]["extra"]["dicom_deid"] = {"requests_per_second": 2}
    (place / "connections.json").write_text(json.dumps(connections))
    (place / "database-url").write_text(airflow_url)
    (place / "result-backend-url").write_text(f"db+{airflow_url}")
    password = (home / "server-secrets" / "redis-password").read_text()
    (place / "broker-url").write_text(f"redis://:{password}@127.0.0.1:{redis_port}/0")


def start_worker(deployed: Topology, number: int) -> None:
    """Start a worker with the service's command; containers have names of their own, processes must be given them."""
    (port,) = free_ports(1)
    services = deployed.services
    environment = services.environment("worker") | {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port)}
    words = f"{services.command('worker')} --celery-hostname worker{number}@%h"
    deployed.airflow.start_component(
        words, name=f"worker{number}", environment=environment, wrapper=services.wrapper("worker")
    )


def test_connections_can_be_changed_in_the_ui(topology: Topology) -> None:
    """Catches a connection of the deployment that shadows what was changed in the UI, or that the UI does not show."""
    place = "/api/v2/connections/dicom_deid_destination"
    found = topology.airflow.request("GET", place).raise_for_status().json()
    assert found["conn_type"] == "aws"
    body = {"connection_id": "dicom_deid_destination", "conn_type": "aws", "description": "changed"}
    answer = topology.airflow.request("PATCH", place, params={"update_mask": ["description"]}, json=body)
    assert answer.raise_for_status().json()["description"] == "changed"
    topology.services.run("migrate", topology.airflow.environment)
    assert topology.airflow.request("GET", place).json()["description"] == "changed"


def test_the_secrets_are_read_only(topology: Topology) -> None:
    """Catches a mount of this test that is not what the compose file says: then the other tests prove nothing."""
    services = topology.services
    for volume, service, writable in (
        ("secrets", "scheduler", False),
        ("secrets", "api-server", False),
        ("login", "api-server", True),
        ("login", "worker", False),
        ("server-secrets", "worker", False),
    ):
        path = services.home / volume / "probe"
        done = subprocess.run([*services.wrapper(service), "touch", str(path)], capture_output=True, check=False)
        assert (done.returncode == 0) is writable, (volume, service)
    hidden = [*services.wrapper("worker"), "ls", str(services.home / "server-secrets")]
    assert subprocess.run(hidden, capture_output=True, check=True).stdout == b""


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something, no longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(1)


def objects_done(deployed: Deployment) -> int:
    """Return how many objects the audit knows of."""
    with Database.connect(deployed.database_url, keys=deployed.keys) as database:
        database.upgrade()
        return int(database.connection.query("counting", "SELECT count(*) FROM audit")[0][0])


def test_a_killed_worker_loses_nothing(topology: Topology) -> None:
    """Catches a run that hangs, fails, loses objects or does them twice when a worker's machine is lost."""
    airflow = topology.airflow
    source = topology.bucket(f"source-{uuid.uuid4().hex[:8]}", series(patients(3), slices=20))
    destination = topology.bucket(f"destination-{uuid.uuid4().hex[:8]}")
    airflow.wait_for_dags(ON_DEMAND)
    conf = {"source": source, "destination": destination, "pixel_risk": "allow", "create_project": True}
    run_id = airflow.trigger(ON_DEMAND, conf)
    place = f"/api/v2/dags/{ON_DEMAND}/dagRuns/{run_id}/taskInstances"

    def batch() -> dict[str, Any]:
        instances = airflow.request("GET", place).raise_for_status().json()["task_instances"]
        return next(
            (each for each in instances if each["task_id"] == "dicom_deid.deidentify" and each["map_index"] >= 0), {}
        )

    wait_until(lambda: batch().get("state") == "running", 240, "the batch runs")
    written = topology.sandbox.s3.client()
    bucket = destination.removeprefix("s3://")
    wait_until(lambda: written.list_objects_v2(Bucket=bucket)["KeyCount"] >= 3, 120, "three objects are written")
    with_task = worker_of(airflow, batch()["id"])
    airflow.stop_component(with_task, kill=True)
    assert written.list_objects_v2(Bucket=bucket)["KeyCount"] < 60
    assert airflow.wait_for_run(ON_DEMAND, run_id, timeout=600) == "success"
    counts = topology.xcom(ON_DEMAND, run_id, "dicom_deid.report", "counts")
    assert isinstance(counts, dict)
    assert counts["deidentified"] + counts["quarantined"] == 60
    assert written.list_objects_v2(Bucket=bucket)["KeyCount"] == counts["deidentified"]
    assert batch()["try_number"] >= 2
    start_worker(topology, int(with_task.removeprefix("worker")))


def worker_of(airflow: AirflowSandbox, task_instance_id: str) -> str:
    """Return the worker whose log names the task instance."""
    found = [
        name
        for name in ("worker1", "worker2")
        if task_instance_id in airflow.process_log(name).read_text(errors="replace")
    ]
    return found[0]


def test_a_backfill_of_thirty_partitions_survives_a_killed_worker(topology: Topology) -> None:
    """Catches a backfill that stops, skips a partition, or mixes up prefixes when a worker is lost on the way."""
    airflow = topology.airflow
    months = [f"{2020 + number // 12}/{number % 12 + 1:02d}" for number in range(PARTITIONS)]
    made = series(patients(PARTITIONS, seed=5), slices=1)
    objects = {f"{month}/{key}": data for month, (key, data) in zip(months, made.items(), strict=True)}
    source = topology.bucket(f"archive-{uuid.uuid4().hex[:8]}", objects)
    destination = topology.bucket(f"released-{uuid.uuid4().hex[:8]}")
    airflow.wait_for_dags(BACKFILL)
    airflow.request("PATCH", f"/api/v2/dags/{BACKFILL}", json={"is_paused": False}).raise_for_status()
    before = objects_done(topology)
    conf = {
        "source": source,
        "destination": destination,
        "partition": "prefix",
        "pixel_risk": "allow",
        "create_project": True,
    }
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
    start_worker(topology, 2)
    wait_until(lambda: len(ended()) >= PARTITIONS, 1200, "thirty partitions are done")
    assert set(ended()) == {"success"}
    assert objects_done(topology) - before == PARTITIONS
