"""Read outputs as other readers do: pydicom, DCMTK and GDCM each have their own habits with malformed elements.

Mutated objects of a patient are de-identified by rules alone, and each reader lists the elements that the rules
replace. An original in one of them is an element that this reader finds and the engine does not.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from tests.fuzz.mutate import mutate, rearrange
from tests.support import datasets
from tests.support.datasets import element, part10
from tests.support.engine import RULES_ALONE, pseudonyms
from tests.support.programs import program
from tests.support.real_world import NAME, PATIENT_ID, STRUCTURES

from dicom_deid.engine import Deidentifier
from dicom_deid.engine.profiles import profile_settings, recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.recipe import Recipe

ENGINES = (
    Deidentifier(Recipe.named("desktop"), RULES_ALONE),
    Deidentifier(Recipe.resolve(*recipe_names()), profile_settings((), RULES_ALONE)),
)
_REPLACED = ("0010,0010", "0010,0020", "0008,0090", "0010,1000")
_ORIGINALS = (NAME, PATIENT_ID)
_AT_ONCE = 50
_LINE = re.compile(rf"\(({'|'.join(_REPLACED)})\).*({'|'.join(map(re.escape, _ORIGINALS))})")
_SEARCH = [word for tag in _REPLACED for word in ("+P", tag)]
COMMANDS = {
    "dcmdump": ["dcmdump", "-q", *_SEARCH],
    "dcmdump, converting": ["dcmdump", "-q", "+Ep", "+uc", "-vr", "+oi", "+vi", "+pe", *_SEARCH],
    "gdcmdump": ["gdcmdump", "--recursive", "--ignore-errors"],
}


def seeds() -> list[bytes]:
    """Return objects of the patient: unusual structures, and sequences in each encoding."""
    person = [element("PatientName", NAME), element("OtherPatientIDs", PATIENT_ID)]
    deeper = [*person, element("ReferencedStudySequence", [person, []])]
    elements = [
        element("SOPClassUID", datasets.CT_IMAGE),
        element("SOPInstanceUID", "1.2.3.4.5.6"),
        element("ReferringPhysicianName", NAME),
        element("ReferencedSeriesSequence", [deeper, person]),
        element("PatientName", NAME),
        element("PatientID", PATIENT_ID),
        element("RedPaletteColorLookupTableData", bytes(range(64))),
    ]
    plain = [each for each in datasets.all_encodings() if each.transfer_syntax != datasets.DEFLATED_LE]
    return [*(one.build() for one in STRUCTURES), *(part10(elements, encoding) for encoding in plain)]


def mutated_outputs(rng: random.Random, inputs: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield mutated objects that are de-identified, and what the engines write of them."""
    corpus = seeds()
    for _ in range(inputs):
        data = rng.choice((mutate, rearrange))(rng, corpus)
        for engine in ENGINES:
            try:
                yield data, engine.deidentify(data, pseudonyms).to_bytes()
            except Quarantine:
                continue


def originals_found(outputs: Sequence[bytes]) -> dict[int, str]:
    """Return the reader that finds an original in an output, by the index of the output."""
    found: dict[int, str] = {}
    for start in range(0, len(outputs), _AT_ONCE):
        with tempfile.TemporaryDirectory() as name:
            paths = [Path(name) / f"{number:05d}.dcm" for number in range(len(outputs[start : start + _AT_ONCE]))]
            for path, data in zip(paths, outputs[start:], strict=False):
                path.write_bytes(data)
            found |= {start + paths.index(path): reader for path, reader in _found_in(Path(name), paths)}
    return found


def _found_in(folder: Path, paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if _is_found_by_pydicom(path.read_bytes()):
            yield path, "pydicom"
    for reader, command in COMMANDS.items():
        # A reader that aborts at one object does not see those behind it.
        whole = _run(command, [folder] if reader == "gdcmdump" else paths)
        if whole.returncode >= 0 and not _LINE.search(whole.stdout):
            continue
        yield from ((path, reader) for path in paths if _LINE.search(_run(command, [path]).stdout))


def _run(command: Sequence[str], paths: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(command[0]), *command[1:], *map(str, paths)],
        capture_output=True,
        encoding="latin-1",
        timeout=120,
        check=False,
    )


def _is_found_by_pydicom(data: bytes) -> bool:
    texts: list[str] = []

    def read(dataset: Dataset, one: object) -> None:
        tag = one.tag  # type: ignore[attr-defined]
        if f"{tag.group:04x},{tag.element:04x}" in _REPLACED:
            texts.append(str(dataset[tag].value))

    # It counts if it fails after what it found.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        dcmread(io.BytesIO(data), force=True).walk(read)
    return any(original in text for text in texts for original in _ORIGINALS)
