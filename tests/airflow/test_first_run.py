"""The first run of a new user: the commands of the README, literally, on an empty Airflow and an empty database."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.runs import patients, series

from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.airflow import COMPONENTS, AirflowOptions, AirflowSandbox, create_database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.timeout(900),
]
ROOT = Path(__file__).parents[2]
DAG = "dicom_deid_on_demand"


def commands(document: str) -> list[str]:
    """Return the commands of the first block that begins with the installation, lines with a backslash joined."""
    text = (ROOT / document).read_text()
    block = re.search(r"^    pip install airflow-provider.*?(?=\n\S)", text, re.MULTILINE | re.DOTALL)
    assert block
    joined = block[0].replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def airflow(sandbox_servers: Sandbox) -> Iterator[AirflowSandbox]:
    """An Airflow without DAGs and connections."""
    name = f"f{uuid.uuid4().hex[:12]}"
    create_database(sandbox_servers.postgres_url, f"{name}_airflow")
    home = Path(tempfile.mkdtemp(prefix="dicom-deid-first-"))
    (home / "dags").mkdir()
    running = AirflowSandbox(
        AirflowOptions(
            home=home,
            database_url=sandbox_servers.database_url(f"{name}_airflow").replace(
                "postgresql://", "postgresql+psycopg2://"
            ),
            dags_folder=home / "dags",
            environment={"AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5"},
        )
    )
    try:
        running.start(COMPONENTS[:3], timeout=240)
        yield running
    finally:
        running.stop()
        shutil.rmtree(home, ignore_errors=True)


def test_both_documents_show_the_same_commands() -> None:
    """README and docs/airflow.md show the same commands."""
    assert commands("README.md") == commands("docs/airflow.md")


def test_the_commands_of_the_readme(airflow: AirflowSandbox, sandbox_servers: Sandbox) -> None:
    """Catches a user who follows the README gets a finished run."""
    name = f"first_{uuid.uuid4().hex[:12]}"
    create_database(sandbox_servers.postgres_url, name)
    bucket, client = name.replace("_", "-"), sandbox_servers.s3.client()
    client.create_bucket(Bucket=bucket)
    for key, data in series(patients(1), 2).items():
        client.put_object(Bucket=bucket, Key=f"archive/ct/{key}", Body=data)
    environment = airflow.environment | sandbox_servers.s3.environment()
    environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", str(ROOT / "plugins"))
    lines = commands("README.md")
    assert lines[0].startswith("pip install")
    for line in lines[1:]:
        word = line.replace("postgresql://...", sandbox_servers.database_url(name))
        word = word.replace("s3://archive", f"s3://{bucket}/archive").replace(
            "s3://research", f"s3://{bucket}/research"
        )
        if word.startswith("airflow dags trigger"):
            airflow.wait_for_dags(DAG, timeout=300)
        done = subprocess.run(
            ["sh", "-ec", word], env=environment, cwd=airflow.options.home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr[-1000:]}"
    runs = airflow.request("GET", f"/api/v2/dags/{DAG}/dagRuns").raise_for_status().json()["dag_runs"]
    (run_id,) = [run["dag_run_id"] for run in runs]
    assert airflow.wait_for_run(DAG, run_id) == "success"
    assert client.list_objects_v2(Bucket=bucket, Prefix="research/")["KeyCount"] == 0
    conf = json.loads(re.search(r"--conf\s+'(.*)'", word)[1]) | {"preview": False, "pixel_risk": "allow"}
    assert airflow.wait_for_run(DAG, airflow.trigger(DAG, conf)) == "success"
    assert client.list_objects_v2(Bucket=bucket, Prefix="research/")["KeyCount"] == 2
