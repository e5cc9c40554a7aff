"""The page on the recipe language says what is so."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import Dataset
from tests.support.datasets import ct
from tests.support.engine import read, run

from dicom_deid.cli.recipe import recipe
from dicom_deid.recipe import Recipe, RecipeError
from dicom_deid.recipe.compiler import SKIPPED
from dicom_deid.recipe.parser import SECTIONS

PAGE = Path(__file__).parents[3].joinpath("docs", "recipe-language.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL))
def test_every_example_is_a_recipe(block: str) -> None:
    """Catches an example that a reader copies and that is refused."""
    text = block if "%" in block else f"%header\n{block}"
    assert Recipe.parse(text if text.startswith("FORMAT") else f"FORMAT dicom\n{text}")


def test_the_fragment_for_references_keeps_them_with_pseudonyms(tmp_path: Path) -> None:
    """Catches a fragment that keeps nothing, or that keeps the original UIDs too."""
    fragment = tmp_path / "references.dicom"
    fragment.write_text(
        next(block for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if "%option" in block)
    )
    dataset = read(ct(1))
    item = Dataset()
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SourceImageSequence = dataset.ReferencedImageSequence = [item]
    dataset.save_as(file := io.BytesIO())
    recipes = (Recipe.resolve("ps3.15-basic"), Recipe.resolve("ps3.15-basic", str(fragment)))
    alone, kept = (read(run(file.getvalue(), recipe)) for recipe in recipes)
    assert not {"SourceImageSequence", "ReferencedImageSequence"} & set(alone.dir())
    for sequence in (kept.SourceImageSequence, kept.ReferencedImageSequence):
        assert sequence[0].ReferencedSOPInstanceUID == kept.SOPInstanceUID != dataset.SOPInstanceUID


def test_every_section_and_every_skipped_element_is_documented() -> None:
    """Catches a page that forgets one."""
    page = PAGE.replace("Red/Green/BluePalette", "RedPalette GreenPalette BluePalette")
    page += "".join(f" {colour}PaletteColorLookupTableData" for colour in ("Red", "Green"))
    assert all(f"`%{section}" in page for section in SECTIONS)
    assert all(keyword in page for keyword in SKIPPED)


def test_the_example_of_errors_is_what_the_command_prints(tmp_path: Path) -> None:
    """Catches messages that have changed since."""
    path = tmp_path / "mine.dicom"
    path.write_text("FORMAT dicom\n\n%header\nremove PatientID\nREMOVE PatientNam\nREMOVE contains:a(\n")
    printed = CliRunner().invoke(recipe, ["check", str(path)]).output
    assert printed in PAGE


@pytest.mark.parametrize(
    "lines",
    [
        "remove PatientID",
        "REMOVE startswith:",
        r"REMOVE contains:\D",
        "REMOVE select:VR:PNX",
        "BLANK PatientID y",
        "KEEP PatientID y",
        "REMOVE PatientID y",
        "REMOVE (0008,1110)__0__(0010,0010)",
    ],
)
def test_what_the_page_calls_an_error_is_one(lines: str) -> None:
    """Catches a row of the table of differences that no longer holds."""
    with pytest.raises(RecipeError):
        Recipe.parse(f"FORMAT dicom\n%header\n{lines}\n")
