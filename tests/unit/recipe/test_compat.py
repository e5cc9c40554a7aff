"""`%compat deid`: what `deid` ignores silently is ignored too, and every such line is named."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dicom_deid.cli.recipe import recipe as command
from dicom_deid.recipe import Action, Recipe, RecipeError

deid = pytest.importorskip("deid")
DATA = Path(deid.__file__).parent / "data"
HEAD = "%compat deid\nFORMAT dicom\n"


def ignored(text: str) -> list[str]:
    return [str(problem) for problem in Recipe.parse(HEAD + text, "r").warnings]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deid.dicom", ["OverlayDescription", "Manfacturer", "Manfacturer", "Manufacture", "PatientsName", "jitter"]),
        ("deid.dicom.ultrasound", ["PatientsName", "jitter"]),
        ("deid.dicom.xray.chest", []),
    ],
)
def test_the_recipes_that_deid_ships_are_read(name: str, words: list[str]) -> None:
    """Catches a recipe of a deid user that cannot be used, and a line that is ignored without a warning."""
    text = (DATA / name).read_text()
    recipe = Recipe.parse(HEAD + text, "r")
    assert len(recipe.warnings) == len(words)
    for problem, word in zip(recipe.warnings, words, strict=True):
        assert f"unknown field '{word}'" in problem.message
        assert word in text.splitlines()[problem.line - len(HEAD.splitlines()) - 1]
    assert Recipe.parse(str(recipe)) == recipe
    if words:
        with pytest.raises(RecipeError):
            Recipe.parse(text)


@pytest.mark.parametrize(
    ("line", "warning", "rules"),
    [
        ("remove PatientID", "unknown action 'remove'; did you mean REMOVE?", 0),
        ("REMOVE PatientNam", "unknown field 'PatientNam'", 0),
        ("REMOVE beginswith:Patient", "unknown expander 'beginswith:'; did you mean endswith:?", 0),
        ("REMOVE fields:none", "no section %fields none defines this list", 0),
        ("BLANK PatientID x", "BLANK takes no value", 1),
        ("KEEP PatientID x", "KEEP takes no value", 1),
        ("REMOVE PatientID x", "the condition of REMOVE", 1),
    ],
)
def test_what_deid_ignores_is_a_warning(line: str, warning: str, rules: int) -> None:
    """Catches a rule that is lost with its ignored value, and a line that still stops the recipe."""
    text = f"%header\n{line}\nBLANK StudyID\n"
    recipe = Recipe.parse(HEAD + text, "r")
    (problem,) = recipe.warnings
    assert str(problem).startswith("r:4:")
    assert f"ignored, as deid does: {warning}" in str(problem)
    assert len(recipe.rules) == rules + 1
    assert all(rule.value is None for rule in recipe.rules)
    with pytest.raises(RecipeError):
        Recipe.parse(f"FORMAT dicom\n{text}")


@pytest.mark.parametrize("line", ["JITTER StudyDate many", "REMOVE startswith:(", "REPLACE StudyID func:", "ADD ALL x"])
def test_what_deid_does_not_ignore_stays_an_error(line: str) -> None:
    """Catches leniency towards lines with an effect in deid that differs from no effect."""
    with pytest.raises(RecipeError):
        Recipe.parse(f"{HEAD}%header\n{line}\n")


def test_only_the_file_with_the_line_is_read_leniently(tmp_path: Path) -> None:
    """Catches a line of one file that hides the slips of another."""
    lenient, strict = tmp_path / "a.dicom", tmp_path / "b.dicom"
    lenient.write_text(f"{HEAD}%header\nREMOVE PatientNam\nREMOVE PatientID\n")
    strict.write_text("FORMAT dicom\n%header\nREMOVE PatientNam\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.resolve(lenient, strict)
    assert [problem.file for problem in caught.value.problems] == ["b.dicom"]
    combined = Recipe.combine(Recipe.resolve(lenient), Recipe.named("desktop"))
    assert len(combined.warnings) == 1
    assert combined.rules[0].action is Action.REMOVE


def test_other_programs_are_refused() -> None:
    with pytest.raises(RecipeError, match="%compat takes deid"):
        Recipe.parse("%compat ctp\nFORMAT dicom\n")


def test_the_command_prints_what_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "r.dicom"
    path.write_text(f"{HEAD}%header\nREMOVE PatientNam\n")
    result = CliRunner().invoke(command, ["check", str(path)])
    assert result.exit_code == 0
    assert "Warnings: 1\n  r.dicom:4:8: ignored, as deid does: unknown field 'PatientNam'" in result.output


def test_the_nearest_word_is_searched_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a comparison of every unknown word with the whole dictionary: a thousand of them took 74 s."""
    compared: list[int] = []
    search = difflib.get_close_matches

    def counting(word: str, candidates: list[str], **options: Any) -> list[str]:
        compared.append(len(candidates))
        return search(word, candidates, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    lines = "REMOVE PatientNaem\nREMOVE StudyInstnceUID\nREMOVE Xyzzy\n"
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(f"FORMAT dicom\n%header\n{lines}")
    assert [problem.nearest for problem in caught.value.problems] == ["PatientName", "StudyInstanceUID", None]
    assert max(compared) < 20
