"""Public DICOM objects that Python packages ship as test data."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from pydicom import dcmread

PACKAGES = ("deid-data", "heudiconv", "nibabel", "pydicom", "pynetdicom")
ORDINARY = frozenset({"CR", "CT", "DX", "MG", "MR", "PT"})
"""Modalities whose objects a site expects to pass."""


def installed() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def modality(data: bytes) -> str:
    """Return the modality of an object as pydicom reads it; nothing where it has none or cannot be read."""
    try:
        return str(dcmread(io.BytesIO(data), force=True, stop_before_pixels=True).get("Modality", ""))
    except Exception:
        return ""


def objects(package: str) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of each DICOM Part 10 file of a package."""
    for path in sorted(distribution(package).files or ()):
        located = Path(str(path.locate()))
        if not located.is_file() or located.suffix in (".py", ".pyc", ".json", ".md"):
            continue
        data = located.read_bytes()
        if located.suffix == ".gz":
            data = gzip.decompress(data)
        if data[128:132] == b"DICM":
            yield str(path), data
