"""A recipe without rules gives back the data set byte for byte, and others read what the engine writes.

Catches: a walk that loses, moves or re-encodes an element, a length that is wrong after a change, and an output that
is worse than its input in the eyes of pydicom, gdcm or dciodvfy.
"""

from __future__ import annotations

import io
import re
import subprocess
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from tests.support import datasets
from tests.support.oracle import FILES
from tests.support.programs import program

from dicom_deid.dicom.part10 import read_header
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.profiles import profile_settings, recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.recipe import Recipe
from dicom_deid.score.corpus import generate

OPEN = Settings(residuals="off", pixel_risk="allow", documents="allow", private_elements="keep")
EMPTY = Deidentifier(Recipe.parse("FORMAT dicom\n%header\n"), Settings.parity())
# Every element has a rule, and its condition is never true.
IDLE = Deidentifier(
    Recipe.parse('FORMAT dicom\n%values nothing\nSPLIT StudyID by="^";minlength=999\n%header\nREMOVE values:nothing\n'),
    Settings.parity(),
)
DESKTOP = Deidentifier(Recipe.named("desktop"), OPEN)
PROFILE = Deidentifier(
    Recipe.resolve(*recipe_names()), profile_settings().replace(residuals="off", pixel_risk="allow", documents="allow")
)


def resolve(identifiers):
    return {one: f"2.25.{n}" if one.kind == "UID" else f"P{n}" for n, one in enumerate(identifiers, 1)}


def deidentified(path: Path) -> bytes:
    """Return the outcome of the desktop recipe, or skip: quarantined files are named in `test_against_deid`."""
    try:
        return DESKTOP.deidentify(path.read_bytes(), resolve).to_bytes()
    except Quarantine as quarantine:
        pytest.skip(f"quarantined: {quarantine.reason}")


def data_set(data: bytes) -> bytes:
    return data[read_header(data).data_set_start :]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_rules_no_change(path: Path) -> None:
    data = path.read_bytes()
    try:
        result = EMPTY.deidentify(data, resolve)
    except Quarantine as quarantine:
        with pytest.raises(Quarantine):
            IDLE.deidentify(data, resolve)
        pytest.skip(f"quarantined: {quarantine.reason}")
    assert IDLE.deidentify(data, resolve).to_bytes() == result.to_bytes()
    trailing = sum(result.notes.values())
    out = result.to_bytes()
    if read_header(data).transfer_syntax.deflated:
        assert dcmread_equal(out, data)
    else:
        assert data.startswith(out) if trailing else out == data


def dcmread_equal(one: bytes, other: bytes) -> bool:
    return dcmread(io.BytesIO(one)) == dcmread(io.BytesIO(other))


@pytest.mark.parametrize("kind", datasets.KINDS)
@pytest.mark.parametrize("encoding", list(datasets.all_encodings()), ids=str)
def test_no_rules_no_change_in_any_encoding(kind: str, encoding: datasets.Encoding) -> None:
    data = datasets.part10(datasets.KINDS[kind](3), encoding)
    out = EMPTY.deidentify(data, resolve).to_bytes()
    assert dcmread_equal(out, data) if encoding.transfer_syntax == datasets.DEFLATED_LE else out == data


def test_no_rules_new_file_meta() -> None:
    """With the file meta information rebuilt the data set is still the same bytes."""
    engine = Deidentifier(Recipe.parse("FORMAT dicom\n%header\n"), OPEN.replace(stamp_method=False))
    data = datasets.ct(3)
    assert data_set(engine.deidentify(data, resolve).to_bytes()) == data_set(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**30), st.sampled_from(sorted(datasets.KINDS)), st.sampled_from(list(datasets.all_encodings())))
def test_output_passes_the_empty_recipe_unchanged(seed: int, kind: str, encoding: datasets.Encoding) -> None:
    """Group and sequence lengths are right after a change: an output goes through the empty recipe unchanged."""
    grouped = datasets.Encoding(**{**encoding.__dict__, "group_lengths": encoding.sequences == "defined"})
    out = DESKTOP.deidentify(datasets.part10(datasets.KINDS[kind](seed), grouped), resolve).to_bytes()
    again = EMPTY.deidentify(out, resolve).to_bytes()
    assert dcmread_equal(again, out) if encoding.transfer_syntax == datasets.DEFLATED_LE else again == out


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pydicom_reads_every_output(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.dcm"
    out.write_bytes(deidentified(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = dcmread(path, force=True)
        after = dcmread(out)
        for _ in after.iterall():
            pass
    assert after.file_meta.MediaStorageSOPInstanceUID == after.get(
        "SOPInstanceUID", after.file_meta.MediaStorageSOPInstanceUID
    )
    if "PixelData" in before:
        assert after["PixelData"].value == before["PixelData"].value


def run(name: str, *arguments: str) -> str:
    done = subprocess.run([program(name), *arguments], check=False, capture_output=True, timeout=60)
    return (done.stdout + done.stderr).decode("latin-1") + f"\nexit {done.returncode}"


def test_gdcm_reads_every_output(tmp_path: Path) -> None:
    worse = []
    for path in FILES:
        try:
            data = DESKTOP.deidentify(path.read_bytes(), resolve).to_bytes()
        except Quarantine:
            continue
        out = tmp_path / "out.dcm"
        out.write_bytes(data)
        if "exit 0" not in run("gdcminfo", str(out)) and "exit 0" in run("gdcminfo", str(path)):
            worse.append(path.name)
    assert worse == []


# Caused by the rules of the desktop recipe: it removes elements that an IOD wants to be there, if empty.
CAUSED_BY_THE_RECIPE = re.compile(r"Missing attribute Type 2|Institution|Station|Operators|Physician|Trial")


def test_dciodvfy_finds_no_new_error(tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in FILES}
    found = new_errors(DESKTOP, files, tmp_path)
    assert [error for error in found if not CAUSED_BY_THE_RECIPE.search(error)] == []


def test_dciodvfy_finds_no_new_error_after_the_profile(tmp_path: Path) -> None:
    """The profile removes and empties only elements that the object's IOD does not require."""
    files = {path.name: path.read_bytes() for path in FILES}
    files |= {kind: datasets.part10(elements(3)) for kind, elements in datasets.KINDS.items()}
    files |= {case.name: case.data for case in generate(3, patients=1)}
    assert new_errors(PROFILE, files, tmp_path) == []


def new_errors(engine: Deidentifier, files: dict[str, bytes], folder: Path) -> list[str]:
    """Return what dciodvfy finds wrong with outputs and not with inputs, each with the name of the file."""
    new = []
    before, after = folder / "before.dcm", folder / "after.dcm"
    for name, data in files.items():
        try:
            after.write_bytes(engine.deidentify(data, resolve).to_bytes())
        except Quarantine:
            continue
        before.write_bytes(data)
        known, found = (set(errors(run("dciodvfy", str(path)))) for path in (before, after))
        new += [f"{name}: {error}" for error in sorted(found - known)]
    return new


def errors(report: str) -> list[str]:
    # Values and positions differ between input and output: an error is known by its words.
    return [
        re.sub(r"<[^>]*>|'[^']*'|\(0x[^)]*\)|[0-9.]{3,}|[0-9.]+$", "", line)
        for line in report.splitlines()
        if line.startswith("Error")
    ]
