"""A real Airflow for tests, over the shared servers, with users of every role."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dicom_deid.database import KeyRing
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.airflow import COMPONENTS, AirflowOptions, AirflowSandbox, create_database
from dicom_deid.sandbox.deployment import connection_documents

DAGS = Path(__file__).parents[2] / "dags"
USERS = {"ada": "admin", "olga": "op", "uma": "user", "vic": "viewer"}
PROJECT = "airflow-tests"


class Metrics:
    """A StatsD server that keeps every line."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.lines: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while data := self._socket.recv(65536):
            self.lines += data.decode(errors="replace").splitlines()

    def close(self) -> None:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", self.port))

    def environment(self) -> dict[str, str]:
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }


class Deployment:
    """Airflow, the servers under it, and what is needed to look into the store."""

    def __init__(
        self,
        sandbox: Sandbox,
        airflow: AirflowSandbox,
        database_url: str,
        keys: KeyRing,
        connections: Mapping[str, str] | None = None,
    ) -> None:
        self.connections = connections or {}
        self.sandbox = sandbox
        self.airflow = airflow
        self.database_url = database_url
        self.keys = keys

    def bucket(self, name: str, objects: Mapping[str, bytes] | None = None) -> str:
        """Make a bucket with objects in it and return its address."""
        client = self.sandbox.s3.client()
        client.create_bucket(Bucket=name)
        for key, data in (objects or {}).items():
            client.put_object(Bucket=name, Key=key, Body=data)
        return f"s3://{name}"

    def run(self, dag_id: str, conf: Mapping[str, object], timeout: float = 240) -> tuple[str, str]:
        """Trigger a DAG, wait for its end, and return run id and state."""
        self.airflow.wait_for_dags(dag_id)
        run_id = self.airflow.trigger(dag_id, conf)
        return run_id, self.airflow.wait_for_run(dag_id, run_id, timeout=timeout)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> object:
        """Return an XCom value."""
        place = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self.airflow.request("GET", place, params={"map_index": map_index, "deserialize": True})
        return answer.raise_for_status().json()["value"]


@contextmanager
def deployment(
    sandbox: Sandbox,
    name: str,
    *,
    components: tuple[str, ...] = COMPONENTS,
    environment: Mapping[str, str] | None = None,
    executor: str = "LocalExecutor",
    port: int | None = None,
    connections_in_airflow: bool = True,
) -> Iterator[Deployment]:
    """Start an Airflow with databases of its own, and stop it; without connections if only workers have them."""
    create_database(sandbox.postgres_url, f"{name}_airflow")
    create_database(sandbox.postgres_url, f"{name}_deid")
    database_url = sandbox.database_url(f"{name}_deid")
    keys = KeyRing.generate()
    s3 = sandbox.s3
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    connections = connection_documents(storage, database_url, keys, project=PROJECT)
    home = Path(tempfile.mkdtemp(prefix="dicom-deid-airflow-"))
    airflow = AirflowSandbox(
        AirflowOptions(
            home=home,
            database_url=sandbox.database_url(f"{name}_airflow").replace("postgresql://", "postgresql+psycopg2://"),
            dags_folder=DAGS,
            connections=connections if connections_in_airflow else {},
            users=USERS,
            executor=executor,
            environment=environment or {},
            port=port,
        )
    )
    try:
        airflow.start(components, timeout=240)
        yield Deployment(sandbox, airflow, database_url, keys, connections)
    finally:
        airflow.stop()
        shutil.rmtree(home, ignore_errors=True)
