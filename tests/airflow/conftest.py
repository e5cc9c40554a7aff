"""Airflow deployments shared by the tests of a module."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from tests.support.airflow import Deployment, Metrics, deployment

from dicom_deid.sandbox import Sandbox


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    """Receive the metrics that Airflow's processes send."""
    server = Metrics()
    yield server
    server.close()


@pytest.fixture(scope="module")
def airflow(sandbox_servers: Sandbox, metrics: Metrics) -> Iterator[Deployment]:
    """Airflow with the LocalExecutor, and the DAGs of this repository."""
    environment = {**metrics.environment(), "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    with deployment(sandbox_servers, f"a{uuid.uuid4().hex[:12]}", environment=environment) as running:
        yield running
