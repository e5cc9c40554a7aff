"""The first run on one's own servers: init, check and dags, as the README has them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
from tests.support.runs import patients, series

from dicom_deid.database import Database, KeyRing
from dicom_deid.sandbox import S3Service

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(s3: S3Service, postgres_url: str, tmp_path: Path) -> Command:
    """Call `dicom-deid` in a process of its own."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": str(Path(sys.executable).parent),
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parents[3] / "plugins")),
            "DICOM_DEID_DATABASE": postgres_url,
            **s3.environment(),
            **environment,
        }
        return subprocess.run(["dicom-deid", *arguments], env=variables, capture_output=True, text=True, cwd=tmp_path)

    return call


def connections_of(printed: str) -> dict[str, dict[str, object]]:
    """Return the connections that the printed commands add, by id."""
    words = [shlex.split(line) for line in printed.splitlines()]
    assert all(line[:3] == ["airflow", "connections", "add"] and line[4] == "--conn-json" for line in words)
    return {line[3]: json.loads(line[5]) for line in words}


def test_init_makes_everything_and_prints_connections_that_work(
    command: Command, s3: S3Service, postgres_url: str
) -> None:
    """A first user who has to put together keys, schema, roles, project and four connections from four documents."""
    done = command("init", "--project", "study-1")
    assert done.returncode == 0, done.stderr
    connections = connections_of(done.stdout)
    assert sorted(connections) == [f"dicom_deid_{name}" for name in ("database", "default", "destination", "source")]
    assert connections["dicom_deid_source"]["password"] == s3.secret_key
    keys = KeyRing.parse(str(connections["dicom_deid_default"]["password"]))
    with Database.connect(postgres_url, keys=keys) as database:
        assert database.project("study-1", create=False).name == "study-1"
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'dicom_deid_%'")
        assert cursor.fetchone()[0] >= 4
    again = command("init", "--project", "study-1", DICOM_DEID_KEYS=keys.to_text())
    assert again.returncode == 0, again.stderr
    assert connections_of(again.stdout) == connections


def test_check_says_ok_for_each_or_what_to_do(
    command: Command, s3: S3Service, s3_bucket: str, postgres_url: str
) -> None:
    """A fault that is found by the first run, or a check that leaves objects behind."""
    keys = {"DICOM_DEID_KEYS": KeyRing.generate().to_text()}
    places = [f"s3://{s3_bucket}/in", f"s3://{s3_bucket}/out", "--project", "p"]
    before = command("check", *places, **keys)
    assert before.returncode == 1
    lines = dict(line.split(": ", 1) for line in before.stdout.splitlines())
    assert "run `dicom-deid init`" in lines["database"]
    assert f"no object below s3://{s3_bucket}/in" in before.stdout
    assert lines["recipe and extras"].startswith("OK")
    assert lines["destination"].startswith("write, conditional write and delete: OK")
    client = s3.client()
    for key, data in series(patients(1), 1).items():
        client.put_object(Bucket=s3_bucket, Key=f"in/{key}", Body=data)
    command("init", "--project", "p", **keys)
    after = command("check", *places, **keys)
    assert after.returncode == 0, after.stdout
    assert after.stdout.count("OK") == len(after.stdout.splitlines()) == 7
    assert "possible" in after.stdout
    listed = client.list_objects_v2(Bucket=s3_bucket, Prefix="out/")
    assert listed["KeyCount"] == 0
    missing = command("check", "s3://no-such-bucket/in", f"s3://{s3_bucket}/out", "--project", "q", **keys)
    assert missing.returncode == 1
    assert "s3://no-such-bucket/in cannot be used" in missing.stdout
    assert "There is no project 'q'" in missing.stdout
    for each in client.list_objects_v2(Bucket=s3_bucket)["Contents"]:
        client.delete_object(Bucket=s3_bucket, Key=each["Key"])


def test_check_needs_only_what_a_run_needs(command: Command, s3_bucket: str, postgres_url: str, tmp_path: Path) -> None:
    """A login without the rights of a writer, whose first batch would fail."""
    keys = {"DICOM_DEID_KEYS": KeyRing.generate().to_text()}
    assert command("init", "--project", "p", **keys).returncode == 0
    name = f"weak_{os.getpid()}"
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'weak' IN ROLE dicom_deid_reader")
    try:
        host = postgres_url.rpartition("@")[2]
        places = [str(tmp_path), f"s3://{s3_bucket}/out", "--project", "p"]
        weak = command("check", *places, **keys, DICOM_DEID_DATABASE=f"postgresql://{name}:weak@{host}")
        assert "the login lacks" in weak.stdout
        assert "INSERT ON audit" in weak.stdout
    finally:
        with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP ROLE {name}")


def test_dags_are_installed_and_own_changes_kept(command: Command, tmp_path: Path) -> None:
    """An upgrade that overwrites a DAG that the site has changed."""
    done = command("dags", "install", "dags")
    assert done.returncode == 0, done.stderr
    nightly = tmp_path / "dags" / "dicom_deid_nightly.py"
    assert str(Path("dags") / nightly.name) in done.stdout.splitlines()
    assert command("dags", "install", "dags").returncode == 0
    nightly.write_text("# changed\n")
    refused = command("dags", "install", "dags")
    assert (refused.returncode, "dicom_deid_nightly.py" in refused.stderr) == (2, True)
    assert nightly.read_text() == "# changed\n"
    assert command("dags", "install", "dags", "--force").returncode == 0
    assert "DAG(" in nightly.read_text()
