"""The peers that figures are compared with: each one de-identifies objects from memory or tmpfs.

A peer does the work that its users get from it: deid runs the desktop recipe itself; the others run their own profile,
which removes about as much. What a peer cannot do in memory it does on tmpfs, which costs it nothing that shows.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pydicom

DESKTOP_RECIPE = Path(__file__).parents[1] / "plugins/dicom_deid/recipes/desktop.dicom"

Call = Callable[[], object]


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what peers print out of the tables."""
    with Path(os.devnull).open("w", encoding="ascii") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


class _Deid:
    """deid with the desktop recipe and generators as the desktop application had them."""

    def __init__(self) -> None:
        from deid.config import DeidRecipe

        self.recipe = DeidRecipe(deid=str(DESKTOP_RECIPE))
        self.known: dict[str, str] = {}

    def generate(self, item: object, value: object, field: object, dicom: object) -> str:
        original = str(field.element.value)
        return self.known.setdefault(original, f"1.2.3.{len(self.known) + 1}")

    def object(self, data: bytes) -> bytes:
        from deid.dicom.parser import DicomParser

        with silence():
            parser = DicomParser(pydicom.dcmread(io.BytesIO(data)), recipe=self.recipe)
            parser.define("generate_value", self.generate)
            parser.parse(strip_sequences=False, remove_private=False)
        return _write(parser.dicom)


def deid(data: bytes) -> Call:
    """Return a call of deid with the desktop recipe."""
    program = _Deid()
    return lambda: program.object(data)


def dicognito(data: bytes) -> Call:
    """Return a call of dicognito."""
    from dicognito.anonymizer import Anonymizer

    anonymizer = Anonymizer()

    def call() -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(data))
        anonymizer.anonymize(dataset)
        return _write(dataset)

    return call


def dicom_anonymizer(data: bytes) -> Call:
    """Return a call of dicom-anonymizer (PS3.15 basic profile)."""
    from dicomanonymizer import anonymize_dataset

    def call() -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(data))
        anonymize_dataset(dataset, delete_private_tags=True)
        return _write(dataset)

    return call


def pydicom_round_trip(data: bytes) -> Call:
    """Return a read and a write with pydicom, which changes nothing: the floor of all that is built on it."""
    return lambda: _write(pydicom.dcmread(io.BytesIO(data)))


def dcmanon(data: bytes) -> Call:
    """Return a call of dcmanon (Rust) with its default profile, from a file on tmpfs."""
    from dcmanon import Anonymizer

    path = _scratch() / f"{uuid.uuid4().hex}.dcm"
    path.write_bytes(data)
    anonymizer = Anonymizer()
    return lambda: anonymizer.anonymize(str(path))


def fw_file_rs(data: bytes) -> Call:
    """Return a call of fw-file-rs (Rust) with the desktop recipe's plain rules; it reads and writes the header only."""
    from fw_file_rs import dcm

    context = dcm.Context().deid_profile(_fw_profile())
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" in dataset:
        del dataset.PixelData
    header = _write(dataset)
    return lambda: context.deid_header(header)


def memcpy(data: bytes) -> Call:
    """Return one copy of the bytes: the floor of all."""
    view = memoryview(data)
    return lambda: bytearray(view)


def collection(name: str) -> Callable[[bytes], bytes]:
    """Return a function of a peer that de-identifies one object after the other with one state for all of them."""
    if name == "deid":
        return _Deid().object
    if name == "dicom-anonymizer":
        return lambda data: bytes(dicom_anonymizer(data)())
    if name == "dicognito":
        from dicognito.anonymizer import Anonymizer

        anonymizer = Anonymizer()

        def by_dicognito(data: bytes) -> bytes:
            dataset = pydicom.dcmread(io.BytesIO(data))
            anonymizer.anonymize(dataset)
            return _write(dataset)

        return by_dicognito
    return lambda data: bytes(dcmanon(data)())


class TextRedactor:
    """dicom-dre's redactor of free text, in an interpreter of its own (it needs Python 3.12).

    The environment variable DICOM_DRE_PYTHON names the interpreter of an environment that holds it.
    """

    _PROGRAM = """
import json, sys
from dicom_dre.text_redactor import get_text_redactor
redactor = get_text_redactor("default.csv")
for line in sys.stdin:
    text = redactor.redact_text(json.loads(line))
    print(json.dumps(text if isinstance(text, str) else text[0]), flush=True)
"""

    def __init__(self, python: str) -> None:
        self._program = subprocess.Popen(
            [python, "-c", self._PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @classmethod
    def start(cls) -> TextRedactor | None:
        """Return the redactor; None, with a message, where it is not installed."""
        python = os.environ.get("DICOM_DRE_PYTHON", sys.executable)
        found = subprocess.run([python, "-c", "import dicom_dre.text_redactor"], check=False, capture_output=True)
        if found.returncode != 0:
            print("dicom-dre is left out: set DICOM_DRE_PYTHON to a Python 3.12 that holds it.", file=sys.stderr)
            return None
        return cls(python)

    def __call__(self, text: str) -> str:
        """Return a text without what it redacts."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(text) + "\n")
        self._program.stdin.flush()
        return str(json.loads(self._program.stdout.readline()))


def gdcmanon_seconds(data: bytes, *, objects: int = 100) -> float | None:
    """Return seconds an object of gdcmanon (C++) in its dumb mode with the desktop recipe's plain rules.

    The time to start the program is taken off: the difference between many objects and one. None when it is not
    installed.
    """
    if shutil.which("gdcmanon") is None:
        return None

    def run(count: int) -> float:
        with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
            source, target = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            target.mkdir()
            for n in range(count):
                (source / f"{n}.dcm").write_bytes(data)
            began = _seconds_of_children()
            done = subprocess.run(
                ["gdcmanon", "--dumb", "-r", "--continue", *_gdcm_arguments(), str(source), str(target)],
                check=False,
                capture_output=True,
            )
            seconds = _seconds_of_children() - began
            written = sum(1 for _ in target.iterdir())
        if done.returncode != 0 or written != count:
            raise RuntimeError(f"gdcmanon wrote {written} of {count} objects")
        return seconds

    alone = min(run(1) for _ in range(3))
    return (min(run(objects) for _ in range(3)) - alone) / (objects - 1)


_VERSION_OF_DICOM_DRE = "from dicom_dre import __version__; print(__version__)"
_DICOM_DRE = """
import sys, time
from pathlib import Path
from dicom_dre import DeidParameters, deidentify_file, default_profile
source, target, profile = Path(sys.argv[1]), Path(sys.argv[2]), default_profile()
samples = []
for _ in range(int(sys.argv[3])):
    began = time.process_time()
    deidentify_file(source, target, profile=profile, parameters=DeidParameters(), rename_to_sop_uid=False)
    samples.append(time.process_time() - began)
print(sorted(samples)[len(samples) // 2])
"""


def dicom_dre_seconds(data: bytes, *, objects: int = 30) -> float | None:
    """Return seconds an object of dicom-dre with its default profile; None where it is not installed, or refuses it.

    It needs Python 3.12: that of the environment variable ``DICOM_DRE_PYTHON``, or ``python3.12``.
    """
    if not _of_dicom_dre(_VERSION_OF_DICOM_DRE):
        print("dicom-dre is skipped: install it for Python 3.12 and name that Python in DICOM_DRE_PYTHON", flush=True)
        return None
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        source, target = Path(folder, "in.dcm"), Path(folder, "out.dcm")
        source.write_bytes(data)
        seconds = _of_dicom_dre(_DICOM_DRE, str(source), str(target), str(objects))
        return float(seconds) if target.exists() else None


@functools.cache
def _of_dicom_dre(code: str, *arguments: str) -> str:
    """Return what Python code prints that imports dicom-dre; an empty string if it fails."""
    python = os.environ.get("DICOM_DRE_PYTHON", "python3.12")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [python, "-c", code, *arguments], check=False, capture_output=True, text=True, env=environment
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


PEERS: dict[str, Callable[[bytes], Call]] = {
    "deid": deid,
    "dicognito": dicognito,
    "dicom-anonymizer": dicom_anonymizer,
    "dcmanon": dcmanon,
    "fw-file-rs": fw_file_rs,
    "pydicom": pydicom_round_trip,
    "memcpy": memcpy,
}

LABELS = {
    "deid": "deid (the same recipe)",
    "dcmanon": "dcmanon (Rust)",
    "fw-file-rs": "fw-file-rs (Rust, header only)",
    "gdcmanon": "gdcmanon (C++, without its start)",
    "dicom-dre": "dicom-dre (default profile)",
    "pydicom": "pydicom, read and write",
    "memcpy": "memcpy, one copy of the bytes",
}


def peer_version(name: str) -> str:
    """Return the version of a peer, or an empty string for what has none."""
    if name == "memcpy":
        return ""
    if name == "dicom-dre":
        return _of_dicom_dre(_VERSION_OF_DICOM_DRE)
    if name == "gdcmanon":
        done = subprocess.run(["gdcmanon", "--version"], check=False, capture_output=True, text=True)
        return (done.stdout + done.stderr).split("$")[0].replace("gdcmanon: gdcm", "").strip()
    return version(name)


def quiet() -> None:
    """Silence the log lines of peers."""
    logging.disable(logging.WARNING)
    os.environ["MESSAGELEVEL"] = "QUIET"
    from deid.logger import bot

    bot.level = -1


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write(dataset: pydicom.Dataset) -> bytes:
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def _scratch() -> Path:
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _plain_rules() -> Iterator[tuple[str, str]]:
    for line in DESKTOP_RECIPE.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("REMOVE", "REPLACE") and ":" not in words[1]:
            yield words[0], words[1]


def _fw_profile() -> str:
    lines = ["version: 1", "name: desktop", "dicom:", "  fields:"]
    for action, keyword in dict.fromkeys(_plain_rules()):
        lines.append(f"    - name: {keyword}")
        if action == "REMOVE":
            lines.append("      remove: true")
        else:
            lines.append("      hashuid: true" if keyword.endswith("UID") else "      replace-with: '1234567'")
    return "\n".join(lines) + "\n"


def _gdcm_arguments() -> list[str]:
    from pydicom.datadict import tag_for_keyword

    arguments = []
    for action, keyword in dict.fromkeys(_plain_rules()):
        tag = tag_for_keyword(keyword)
        assert tag is not None
        name = f"{tag >> 16:04x},{tag & 0xFFFF:04x}"
        arguments += ["--remove", name] if action == "REMOVE" else ["--replace", f"{name}=1.2.3.4"]
    return arguments
