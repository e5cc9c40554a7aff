"""Structures of real files: the engine reads what other readers read, and all readers read what it writes."""

from __future__ import annotations

import io
import re
import subprocess
import warnings
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from tests.support import real_world
from tests.support.engine import RULES_ALONE, run
from tests.support.programs import program
from tests.support.real_world import ALL, DCMTK, GDCM, LAST, NAME, PATIENT_ID, PYDICOM, STRUCTURES, Structure

from dicom_deid.engine.profiles import profile_settings, recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.recipe import Recipe

TOOLS = {DCMTK: "dcmdump", GDCM: "gdcmdump"}
RECIPES = {
    "desktop": (Recipe.named("desktop"), RULES_ALONE),
    "ps3.15-basic": (Recipe.resolve(*recipe_names()), profile_settings((), RULES_ALONE)),
}
KEPT = RULES_ALONE.replace(private_elements="keep")

every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=[one.name for one in STRUCTURES])


def _pydicom_text(data: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(io.BytesIO(data), force=True)
        lines: list[str] = []
        dataset.walk(lambda one, element: lines.append(f"{element.tag} {_shown(one, element.tag)}"))
    return "\n".join(lines)


def _shown(dataset: Dataset, tag: int) -> str:
    element = dataset[tag]
    return "" if element.VR == "SQ" else str(element.value)


def text_of(reader: str, data: bytes, folder: Path) -> str:
    """Return the elements as a reader prints them; an empty text if it fails."""
    if reader == PYDICOM:
        try:
            return _pydicom_text(data)
        except Exception:
            return ""
    path = folder / "object.dcm"
    path.write_bytes(data)
    done = subprocess.run([program(TOOLS[reader]), str(path)], capture_output=True, check=False)
    return done.stdout.decode("latin-1") if done.returncode == 0 else ""


def finds(text: str, *values: str) -> bool:
    return all(re.search(rf"(?<![0-9]){re.escape(value)}(?![0-9])", text) for value in values)


@every_structure
@pytest.mark.parametrize("reader", sorted(ALL))
def test_readers_read_the_input_as_it_is_noted(structure: Structure, reader: str, tmp_path: Path) -> None:
    text = text_of(reader, structure.build(), tmp_path)
    assert finds(text, NAME, PATIENT_ID, LAST) == (reader in structure.readers)


@every_structure
@pytest.mark.parametrize("reader", sorted(ALL))
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_reader_reads_the_output(structure: Structure, reader: str, recipe: str, tmp_path: Path) -> None:
    rules, settings = RECIPES[recipe]
    if structure.reason is not None:
        with pytest.raises(Quarantine) as caught:
            run(structure.build(), rules, settings)
        assert caught.value.reason is structure.reason
        return
    output = run(structure.build(), rules, settings).to_bytes()
    text = text_of(reader, output, tmp_path)
    assert finds(text, LAST) or reader not in structure.readers_of_output
    for data in (text, output.decode("latin-1")):
        assert NAME not in data
        assert PATIENT_ID not in data


@every_structure
def test_the_engine_reads_its_output_as_it_is(structure: Structure) -> None:
    """Catches lengths that are wrong: rules that do nothing leave every byte of an output as it is."""
    if structure.reason is not None:
        pytest.skip("quarantined")
    output = run(structure.build(), Recipe.named("desktop"), KEPT).to_bytes()
    again = run(output, "BLANK PatientComments", KEPT.replace(stamp_method=False)).to_bytes()
    assert again == output


def test_names_are_unique() -> None:
    names = [one.name for one in STRUCTURES]
    assert len(names) == len(set(names)) > 10
    assert real_world.plain() == STRUCTURES[0].build()
