"""Programs that we did not write, which read what we write."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return the path of a program; skip the test where it is missing, except in continuous integration."""
    path = shutil.which(name) or shutil.which(name, path=".venv/bin")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return path
