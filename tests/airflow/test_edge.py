"""A worker in the hospital that reaches Airflow by HTTP only: no database of Airflow, no open port, own credentials."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psutil
import pytest
from tests.support.airflow import Deployment, deployment
from tests.support.runs import patients, series

from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.ports import free_ports

pytest.importorskip("airflow.providers.edge3", reason="needs apache-airflow-providers-edge3")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(900),
]
DAG = "dicom_deid_on_demand"


@pytest.fixture(scope="module")
def edge(sandbox_servers: Sandbox) -> Iterator[Deployment]:
    """Airflow with the EdgeExecutor, which does not know the connections, and a worker that has them."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AIRFLOW__EDGE__API_ENABLED": "True",
        "AIRFLOW__EDGE__API_URL": f"{url}/edge_worker/v1/rpcapi",
        "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
        "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "2",
    }
    with deployment(
        sandbox_servers,
        f"e{uuid.uuid4().hex[:12]}",
        environment=environment,
        executor="airflow.providers.edge3.executors.EdgeExecutor",
        port=port,
        components=("api-server", "scheduler", "dag-processor"),
        connections_in_airflow=False,
    ) as running:
        running.airflow.start_component(
            "edge worker --concurrency 2 --edge-hostname hospital",
            name="edge-worker",
            environment={
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:9/none",
                **{f"AIRFLOW_CONN_{name.upper()}": text for name, text in running.connections.items()},
            },
        )
        yield running


def test_a_run_on_an_edge_worker(edge: Deployment) -> None:
    """Catches an operator that needs Airflow's database, or credentials that must leave the hospital."""
    source = edge.bucket(f"edge-{uuid.uuid4().hex[:8]}", series(patients(2), slices=3))
    destination = edge.bucket(f"edged-{uuid.uuid4().hex[:8]}")
    conf = {"source": source, "destination": destination, "pixel_risk": "allow", "create_project": True}
    run_id, state = edge.run(DAG, conf, timeout=600)
    assert state == "success"
    counts = edge.xcom(DAG, run_id, "dicom_deid.report", "counts")
    assert isinstance(counts, dict)
    assert counts["deidentified"] == 6
    worker = edge.airflow.process("edge-worker")
    processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    listening = [each for process in processes for each in process.net_connections() if each.status == "LISTEN"]
    assert listening == []
    assert not [name for name in edge.airflow.environment if name.startswith("AIRFLOW_CONN_")]
