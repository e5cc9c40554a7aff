"""A test run on a machine without some of the programs says what was skipped, and how to change that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROBE = """
from tests.support.programs import program


def test_page():
    program("chromium")


def test_reader():
    program("gdcminfo")


def test_other():
    program("gdcmraw")
"""


def test_the_end_of_a_test_run_names_the_command(tmp_path: Path) -> None:
    """A newcomer who believes that all tests ran, or who does not know what to install."""
    (tmp_path / "test_probe.py").write_text(PROBE)
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"PATH": "/nowhere"}
    words = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "1 tests were skipped because chromium is not installed." in done.stdout
    assert "sudo apt-get install --no-install-recommends chromium libgdcm-tools\n" in done.stdout
