"""A patient is withdrawn and erased from real servers, killed at every stage."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.killable_withdrawal import ACCESS, STAGES, patient_is_known
from tests.support.runs import RunEnvironment, patients, series

from dicom_deid.cli import main
from dicom_deid.pipeline.release import release_run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def terminal(place, monkeypatch):
    """Run a command with the servers of the place."""
    monkeypatch.setenv("DICOM_DEID_DATABASE", place.database)
    monkeypatch.setenv("DICOM_DEID_KEYS", place.keys.to_text())
    connection = place.connection
    monkeypatch.setenv("AWS_ENDPOINT_URL", connection.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", connection.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", connection.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", connection.region)

    def invoke(*arguments: str, expect: int = 0) -> str:
        result = CliRunner().invoke(main, [*arguments, "--person", "olga", "--reason", "consent withdrawn"])
        assert result.exit_code == expect, result.output
        return result.output

    return invoke


def test_a_patient_withdraws(place, terminal):
    people = patients(3)
    place.put(series(people, 4))
    ran = place.run()
    before = place.get()
    target = f"s3://{place.bucket}/released"
    release_run(place.connections, run_id=ran.planned.run_id, release_to=target, person="vic")
    assert place.get("released") == before
    patient = ["--project", "test", "--patient", people[1].patient_id]
    counted = terminal("release", "withdraw", *patient, "--dry-run")
    assert "4 objects would be withdrawn" in counted
    assert place.get() == before
    done = terminal("release", "withdraw", *patient)
    assert "destination: 4 copies" in done
    assert "release: 4 copies" in done
    after = place.get()
    assert len(after) == 8
    assert place.get("released") == after
    assert all(before[key] == data for key, data in after.items())
    # Nothing of the patient is written again, not even a new object.
    place.put(series(people, 5))
    assert len(place.run().planned.summary.batches) == 1
    assert len(place.get()) == 10
    withdrawal = done.split("Withdrawal ")[1].split(":")[0]
    assert "of 5 objects was undone" in terminal("release", "withdraw", "--project", "test", "--undo", withdrawal)
    place.run()
    assert len(place.get()) == 15
    assert set(before) <= set(place.get())
    terminal("release", "withdraw", *patient)
    erased = terminal("crosswalk", "erase", people[1].patient_id, "--project", "test", "--yes")
    assert "pseudonyms were erased" in erased
    with place.connections.open_database() as database:
        assert not patient_is_known(database, people[1].patient_id)
        assert patient_is_known(database, people[0].patient_id)
        assert database.verify().problems == []


def test_a_project_ends(place, terminal):
    place.put(series(patients(2), 3))
    place.run()
    wrong = terminal("project", "delete", "test", "--confirm", "tset", expect=2)
    assert "nothing was deleted" in wrong
    assert len(place.get()) == 6
    assert "Project test was deleted" in terminal("project", "delete", "test", "--confirm", "test")
    assert place.get() == {}
    with place.connections.open_database() as database:
        assert database.verify().problems == []
        assert database.queries.crosswalk_sizes() == {}


class Workers:
    """A process that forks a worker for each order."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
        command = [sys.executable, "-m", "tests.support.killable_withdrawal"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment)

    def work(self, *order: object) -> int:
        """Run a worker to its end, and return its exit code."""
        pickle.dump(order, self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("passage", [1, 3])
def test_killed_at_every_stage_the_end_is_that_of_an_undisturbed_withdrawal(place, passage):
    people = patients(6)
    place.put(series(people, 5))
    place.run()
    before = place.get()
    workers, killed = Workers(), 0
    try:
        for person in people[:5]:
            # At later passages only deletions are killed: everything else happens once.
            for stage in (each for each in STAGES if passage == 1 or "delete" in each):
                code = workers.work(place.connections, "test", person.patient_id, (stage, passage))
                assert code in (0, -9)
                killed += code == -9
            assert workers.work(place.connections, "test", person.patient_id, None) == 0
    finally:
        workers.close()
    assert killed >= (45 if passage == 1 else 10), killed
    left = place.get()
    assert len(left) == 5
    assert all(before[key] == data for key, data in left.items())
    with place.connections.open_database() as database:
        assert database.verify().problems == []
        assert [patient_is_known(database, each.patient_id) for each in people] == [False] * 5 + [True]
        assert database.open_withdrawals() == []
        assert database.crosswalk(database.project("test")).export(ACCESS) is not None
    assert place.query("SELECT count(*) FROM deletion") == [(0,)]
