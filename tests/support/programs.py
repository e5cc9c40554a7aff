"""Independent programs that the tests run, and which tests were skipped because one is missing."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

PACKAGES = {
    "chromium": "chromium",
    "dciodvfy": "dicom3tools",
    "dcmdump": "dcmtk",
    "dcmdjpeg": "dcmtk",
    "dcmdjpls": "dcmtk",
    "dcmdrle": "dcmtk",
    "gdcmconv": "libgdcm-tools",
    "gdcmdump": "libgdcm-tools",
    "gdcminfo": "libgdcm-tools",
    "gdcmraw": "libgdcm-tools",
    "redis-server": "redis-server",
}
"""Debian packages of the programs."""


def program(name: str) -> str:
    """Return the path of a program; skip the test if it is not installed, except in continuous integration."""
    assert name in PACKAGES, f"add the package of {name} to PACKAGES"
    path = shutil.which(name)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return path


def missing_programs(reasons: Iterable[str]) -> list[str]:
    """Return lines about the tests that were skipped for want of a program, and the command that installs them all.

    Parameters
    ----------
    reasons
        Reason of each skipped test.
    """
    found = Counter(match[1] for reason in reasons if (match := re.search(r"(\S+) is not installed$", reason)))
    if not found:
        return []
    lines = [f"{count} tests were skipped because {name} is not installed." for name, count in sorted(found.items())]
    packages = sorted({PACKAGES[name] for name in found})
    return [*lines, f"Install what is missing: sudo apt-get install --no-install-recommends {' '.join(packages)}"]
