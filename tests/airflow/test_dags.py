"""Tests of the example DAGs as the DAG processor reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.airflow import DAGS

from dicom_deid.operators import forms
from dicom_deid.recipe import Recipe

DAG_IDS = sorted(path.stem for path in DAGS.glob("dicom_deid_*.py"))

READ = """
import json, sys, time
import airflow.sdk
from airflow.sdk import BaseHook

def forbid(*arguments, **options):
    raise AssertionError("a connection was read while parsing")

BaseHook.get_connection = forbid
FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.fork")
watched = []
sys.addaudithook(lambda event, arguments: watched.append(f"{event} {arguments}") if event in FORBIDDEN else None)
sys.path.insert(0, sys.argv[1])
began = time.process_time()
modules = [__import__(name) for name in sys.argv[2:]]
seconds = time.process_time() - began
from airflow.serialization import serialized_objects
# Airflow 3.1 has another name for it.
serialization = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG)
dags = {module.dag.dag_id: serialization.to_dict(module.dag)["dag"] for module in modules}
print(json.dumps({"seconds": seconds, "watched": watched, "dags": dags}, default=str))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Read all DAG files in a fresh process and return what it reports."""
    home = tmp_path_factory.mktemp("home")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW_")}
    environment |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [sys.executable, "-c", READ, str(DAGS), *DAG_IDS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_all_dags_are_read(parsed: dict[str, object]) -> None:
    """Catches a file that fails to import or names its DAG otherwise."""
    words = (
        "backfill", "check", "cohort", "nightly", "on_arrival", "on_demand", "preview", "review", "with_approval",
        "withdraw",
    )  # fmt: skip
    assert [f"dicom_deid_{word}" for word in words] == DAG_IDS
    assert sorted(parsed["dags"]) == DAG_IDS


def test_reading_is_quick(parsed: dict[str, object]) -> None:
    """Catches a heavy import at the top of a DAG or operator: the DAG processor reads the files again and again."""
    assert parsed["seconds"] < 1.0


def test_reading_makes_no_connection(parsed: dict[str, object]) -> None:
    """Catches a DAG that connects, or starts a process, while it is parsed."""
    # The standard library asks `ldconfig` where shared libraries are, and `file` what the interpreter is.
    asked = ("ldconfig", "('file', ")
    assert [event for event in parsed["watched"] if not any(word in event for word in asked)] == []


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_a_dag_file_is_short(dag_id: str) -> None:
    """Logic belongs in operators; a DAG file must fit on one page."""
    assert len((DAGS / f"{dag_id}.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_form_fields_have_titles_and_descriptions(parsed: dict[str, object], dag_id: str) -> None:
    """Catches a field of the trigger form without a title or a description, or an important one in a closed section."""
    params = dict(parsed["dags"][dag_id].get("params", []))
    opened = {name for name, param in params.items() if not param["schema"]["__var"].get("section")}
    asked = {"cohort", "release_to", "recipe", "compare_with", "run_id", "withdrawal_list", "reason"}
    assert opened <= {"preview", "source", "destination"} | asked
    for name, param in params.items():
        schema = param["schema"]["__var"]
        assert schema.get("title"), name
        assert schema.get("description_md"), name


def test_no_dag_has_a_default_location(parsed: dict[str, object]) -> None:
    """Catches a DAG that reads or writes a default bucket when none is named."""
    assert "s3://" not in "".join(
        line for dag_id in DAG_IDS for line in (DAGS / f"{dag_id}.py").read_text().split('"""', 2)[2].splitlines()
    )
    for dag_id in DAG_IDS:
        for name, param in dict(parsed["dags"][dag_id].get("params", [])).items():
            assert "s3://" not in str(param.get("default")), (dag_id, name)


def test_no_field_of_the_withdrawal_takes_an_identifier(parsed: dict[str, object]) -> None:
    """Catches a field for a patient or study: Airflow stores and shows what is entered."""
    params = dict(parsed["dags"]["dicom_deid_withdraw"]["params"])
    assert set(params) == {
        "withdrawal_list", "reason", "preview", "decision", "deleted_sources", "withdrawal_id", "undo", "project"
    }  # fmt: skip
    assert "s3://" in params["withdrawal_list"]["schema"]["__var"]["pattern"]


def test_own_recipes_are_in_the_drop_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a site adds its own recipes to the form without editing a DAG."""
    (tmp_path / "site.dicom").write_text("FORMAT dicom\n%header\nREMOVE PatientName\n")
    monkeypatch.setenv("AIRFLOW__DICOM_DEID__RECIPES_FOLDER", str(tmp_path))
    schema = forms.recipe_param("Recipe", "Rules").schema
    path = str(tmp_path / "site.dicom")
    assert path in schema["enum"]
    assert schema["values_display"][path] == "site (own)"
    assert f"{path}, devices" in schema["enum"]
    assert Recipe.resolve(path).rules


def test_the_nightly_run_is_alone(parsed: dict[str, object]) -> None:
    """Catches two nightly runs at once, and a catch-up of missed nights."""
    nightly = parsed["dags"]["dicom_deid_nightly"]
    # Airflow 3.1 leaves out what is the default.
    assert (nightly["max_active_runs"], nightly.get("catchup", False)) == (1, False)


def test_an_approval_is_retried_once_at_most(parsed: dict[str, object]) -> None:
    """Catches retries that ask a person again: the scheduler reads their number from the serialised DAG."""
    tasks = [each["__var"] for each in parsed["dags"]["dicom_deid_with_approval"]["tasks"]]
    (retries,) = [task.get("retries", 0) for task in tasks if task["task_id"] == "approve"]
    assert retries <= 1
    assert max(task.get("retries", 0) for task in tasks) == 3


def test_plugins_folder_gives_one_plugin(tmp_path: Path) -> None:
    """Airflow imports every file of plugins/; the package must register one plugin only."""
    script = """
import json
from airflow import plugins_manager
if hasattr(plugins_manager, "_get_plugins"):
    plugins, errors = plugins_manager._get_plugins()
else:  # Airflow 3.1
    plugins_manager.ensure_plugins_loaded()
    plugins, errors = plugins_manager.plugins, plugins_manager.import_errors
print(json.dumps([[p.name for p in plugins if p.name == "dicom_deid"], errors]))
"""
    environment = dict(os.environ) | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(DAGS.parent / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [["dicom_deid"], {}]
