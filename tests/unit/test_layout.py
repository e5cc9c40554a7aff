"""Imports point down, Airflow is not imported by the engine, and the wheel is complete."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "plugins" / "dicom_deid"


def test_an_arrow_may_only_point_down():
    """Catches an import against the layers of the house."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module", ["dicom_deid", "dicom_deid.engine", "dicom_deid.recipe", "dicom_deid.pipeline", "dicom_deid.cli"]
)
def test_airflow_is_not_imported(module):
    """Catches three seconds and a logging configuration that a script did not ask for."""
    code = f"import sys, json, {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "airflow" not in json.loads(done.stdout)


def test_the_wheel_holds_the_package_and_its_data(tmp_path):
    """Catches a recipe, a table, a page or a migration that is left out of what users install."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= names
    assert not [name for name in names if not name.startswith(("dicom_deid/", "airflow_provider_dicom_deid"))]


def test_each_pinned_version_installs_on_the_first_python_3_11():
    """Distributions of Linux ship early patch releases: a pin that needs a later one cannot be installed there."""
    required = {one.name: one.metadata.get("Requires-Python") or "" for one in distributions()}
    assert [name for name, needed in required.items() if not SpecifierSet(needed).contains("3.11.0")] == []
