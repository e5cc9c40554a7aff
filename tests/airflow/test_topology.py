"""The services of ``docker-compose.yaml`` as processes: its commands, environment and mounts, with two workers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from tests.support.airflow import DAGS, Deployment
from tests.support.programs import program
from tests.support.runs import patients, series

from dicom_deid.database import Database, KeyRing
from dicom_deid.sandbox import S3Service
from dicom_deid.sandbox.airflow import AirflowOptions, AirflowSandbox
from dicom_deid.sandbox.ports import free_ports
from dicom_deid.sandbox.postgresql import server_program
from dicom_deid.sandbox.seaweedfs import PORT_OPTIONS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(1500),
]

COMPOSE: dict[str, Any] = yaml.safe_load((DAGS.parent / "docker-compose.yaml").read_text())
ON_DEMAND, BACKFILL = "dicom_deid_on_demand", "dicom_deid_backfill"
PARTITIONS = 30
QUICK = {
    # A lost worker is missed after five minutes by default.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}


VOLUMES = ("secrets", "server-secrets", "login", "logs", "database", "objects")
"""The volumes of the compose file; they are directories here."""
NO_ROOT = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
"""Words that start a server whose image has a user of its own, other than Airflow's."""


class Services:
    """The services of the compose file as processes of this machine, each with the mounts that the file gives it.

    Parameters
    ----------
    home
        Directory of the volumes.
    replaced
        Texts of the compose file and of the files that `secrets` writes, such as addresses, by those of this machine.
    variables
        Environment variables of health checks, for what is another port here.
    """

    def __init__(self, home: Path, replaced: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.home = home
        self.variables = variables
        self.replaced = {f"{target}": str(home / volume) for volume, target in targets().items()} | dict(replaced)
        self.processes: list[subprocess.Popen[bytes]] = []
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

    def run(self, service: str, environment: Mapping[str, str]) -> None:
        """Run the command of a service to its end."""
        words = [*self.wrapper(service), *shlex.split(self.command(service))]
        subprocess.run(words, env=environment, check=True, cwd=self.home)

    def start(self, service: str, words: Sequence[str | Path]) -> None:
        """Start a server in the background, and wait until the health check of the file finds it healthy."""
        log = (self.home / f"{service}.log").open("wb")
        everything = [*self.wrapper(service), *words]
        process = subprocess.Popen(everything, stdout=log, stderr=log, cwd=self.home, start_new_session=True)
        self.processes.append(process)
        wait_until(lambda: self.is_healthy(service, os.environ), 60, f"{service} is healthy")

    def is_healthy(self, service: str, environment: Mapping[str, str]) -> bool:
        """Return whether the health check of a service succeeds."""
        kind, *words = [self.translate(word) for word in COMPOSE["services"][service]["healthcheck"]["test"]]
        words = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        path = f"{Path(sys.executable).parent}:{server_program('psql').parent}:{os.environ['PATH']}"
        environment = {**environment, **self.variables, "PATH": path}
        done = subprocess.run([*self.wrapper(service), *words], env=environment, capture_output=True, check=False)
        return done.returncode == 0

    def stop(self) -> None:
        """Stop the servers."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait()


def targets() -> dict[str, str]:
    """Return where the volumes are mounted in the containers."""
    mounts = [volume.split(":") for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    return {mount[0]: mount[1] for mount in mounts if mount[0] in VOLUMES}


@dataclass(frozen=True)
class Servers:
    """The object store of the compose file."""

    s3: S3Service


class Topology(Deployment):
    """A deployment of the services of the compose file."""

    def __init__(self, airflow: AirflowSandbox, services: Services) -> None:
        found = json.loads((services.home / "secrets" / "connections.json").read_text())
        store, database = found["dicom_deid_source"], found["dicom_deid_database"]
        s3 = S3Service(store["extra"]["endpoint_url"], store["login"], store["password"])
        url = "postgresql://{login}:{password}@{host}:{port}/{schema}".format(**database)
        super().__init__(Servers(s3), airflow, url, KeyRing.parse(found["dicom_deid_default"]["password"]))
        self.services = services


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    """All services of the compose file, with their commands, environment and mounts, and two workers."""
    program("redis-server")
    home = Path(tempfile.mkdtemp(prefix="dicom-deid-topology-"))
    # The images of PostgreSQL and Redis have other users than Airflow's.
    home.chmod(0o755)
    postgres, redis, *storage = free_ports(2 + len(PORT_OPTIONS))
    # The database of Airflow is in the secrets.
    airflow = AirflowSandbox(AirflowOptions(home=home / "airflow", database_url="", dags_folder=DAGS))
    ports = " ".join(f"-{option}={port}" for option, port in zip(PORT_OPTIONS, storage, strict=True))
    replaced = {
        "/opt/airflow/dags": str(DAGS),
        "http://api-server:8080": airflow.url,
        "${AIRFLOW_BASE_URL:-http://localhost:8080}": airflow.url,
        "http://localhost:8080": airflow.url,
        "postgres:5432": f"127.0.0.1:{postgres}",
        "redis:6379": f"127.0.0.1:{redis}",
        "storage:8333": f"127.0.0.1:{storage[0]}",
        "-ip=storage -ip.bind=0.0.0.0 -s3.port=8333": f"-ip=127.0.0.1 -ip.bind=127.0.0.1 {ports} -s3.port.iceberg=0 "
        "-s3.port.lance=0",
        '"127.0.0.1", 8333': f'"127.0.0.1", {storage[0]}',
        "redis-server": f"redis-server --port {redis} --bind 127.0.0.1",
        "redis-cli": f"redis-cli -p {redis}",
        "celery@": "worker1@",
    }
    services = Services(home, replaced, {"PGPORT": str(postgres), "HOSTNAME": socket.gethostname()})
    environment = {"PATH": airflow.environment["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    try:
        services.run("secrets", environment)
        replace_addresses(services)
        airflow.passwords = json.loads((home / "login" / "passwords.json").read_text())
        start_postgres(services, postgres)
        assert COMPOSE["services"]["redis"]["user"] == "redis"
        services.start("redis", [*NO_ROOT, *shlex.split(services.command("redis"))])
        services.start("storage", ["env", f"PATH={environment['PATH']}", *shlex.split(services.command("storage"))])
        for key, value in services.environment("api-server").items():
            # A plain variable would win over the command that reads the secret.
            airflow.environment.pop(key.removesuffix("_CMD"), None)
            airflow.environment[key] = value
        # A container has one name.
        airflow.environment["AIRFLOW__CORE__HOSTNAME_CALLABLE"] = "socket.gethostname"
        airflow.environment |= QUICK | {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs")}
        (home / "airflow").mkdir()
        services.run("migrate", airflow.environment)
        for service in ("api-server", "scheduler", "dag-processor", "triggerer"):
            airflow.start_component(services.command(service), wrapper=services.wrapper(service))
        airflow.wait_until_healthy(("scheduler", "dag-processor", "triggerer"), 240)
        deployed = Topology(airflow, services)
        for number in (1, 2):
            start_worker(deployed, number)
        yield deployed
    finally:
        airflow.stop()
        services.stop()
        shutil.rmtree(home, ignore_errors=True)


def start_postgres(services: Services, port: int) -> None:
    """Do what the image of PostgreSQL does on its first start: make a superuser, run the mounted script."""
    data, password = services.home / "database", services.home / "server-secrets" / "postgres-password"
    assert services.environment("postgres") == {"POSTGRES_PASSWORD_FILE": str(password)}
    if NO_ROOT:
        shutil.chown(data, "nobody")
    initialise = [server_program("initdb"), "--pgdata", data, "--username", "postgres", "--pwfile", password]
    subprocess.run([*NO_ROOT, *initialise, "--auth=scram-sha-256", "--no-sync"], check=True, capture_output=True)
    options = ["-p", str(port), "-c", "unix_socket_directories=", "-c", "fsync=off"]
    services.start("postgres", [*NO_ROOT, server_program("postgres"), "-D", data, *options])
    script = services.translate((DAGS.parent / "docker" / "create-databases.sh").read_text())
    programs = f"{server_program('psql').parent}:{os.environ['PATH']}"
    environment = {"PATH": programs, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": password.read_text()}
    subprocess.run([*services.wrapper("postgres"), "sh", "-c", script], env=environment, check=True)


def replace_addresses(services: Services) -> None:
    """Write the addresses of this machine into the secrets, and slow the source down."""
    for path in (services.home / "secrets").iterdir():
        path.write_text(services.translate(path.read_text()))
    path = services.home / "secrets" / "connections.json"
    connections = json.loads(path.read_text())
    connections["dicom_deid_database"] |= {"host": "127.0.0.1", "port": int(services.variables["PGPORT"])}
    # Slow enough to be killed in the middle.
    connections["dicom_deid_source"]["extra"]["dicom_deid"] = {"requests_per_second": 2}
    path.write_text(json.dumps(connections))


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


@pytest.mark.parametrize("service", ["api-server", "scheduler", "dag-processor", "triggerer", "worker"])
def test_the_health_check_of_a_service_succeeds(topology: Topology, service: str) -> None:
    """Catches a check that never succeeds: services that depend on it would not start, or it would be restarted."""
    environment = topology.airflow.environment
    wait_until(lambda: topology.services.is_healthy(service, environment), 120, f"{service} is healthy")


def test_a_role_cannot_connect_to_the_database_of_the_other(topology: Topology) -> None:
    """Catches Airflow's role that may read the crosswalk."""
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(topology.database_url.removesuffix("dicom_deid") + "airflow")


def test_the_demonstration_is_stored(topology: Topology) -> None:
    """Catches a demo profile whose command fails."""
    topology.services.run("seed", topology.airflow.environment)
    listed = topology.sandbox.s3.client().list_objects_v2(Bucket="incoming", Prefix="demo/")
    assert listed["KeyCount"] > 100


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
