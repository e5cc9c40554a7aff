"""Tests of `recipe check`: the report and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from tests.support.recipes import recipe_texts

from dicom_deid.cli.recipe import recipe
from dicom_deid.recipe import CompiledRecipe, ElementName, Recipe
from dicom_deid.recipe.check import check
from dicom_deid.recipe.element_names import DICTIONARY_TAGS
from dicom_deid.recipe.profile_attributes import profile_attributes


def shadows(rules: str) -> list[str]:
    return [one.shadowed for one in check(Recipe.parse(f"FORMAT dicom\n%header\n{rules}\n", "r")).rules]


@pytest.mark.parametrize(
    ("rules", "index", "words"),
    [
        ("REMOVE contains:Trial\nREMOVE ClinicalTrialSponsorName", 1, "r:3 overrides it"),
        ("REMOVE PatientName\nREPLACE PatientName X", 0, "r:4 changes the element"),
        ("KEEP PatientName\nBLANK PatientName", 1, "r:3 keeps the element"),
        ("BLANK PixelData", 0, "no rule but ADD"),
        ("KEEP ReferencedStudySequence__PatientID", 0, "at the root only"),
        ("REPLACE PatientName X\nREPLACE PatientName Y", 0, "r:4 overrides it"),
        ("ADD PatientComments X\nADD PatientComments Y", 0, "r:4 overrides it"),
        ("X/D OperatorIdentificationSequence\nX/D OperatorIdentificationSequence", 1, "r:3 overrides it"),
        ("KEEP ContentDate\nZ/D ContentDate 19000101", 1, "r:3 keeps the element"),
        ("REMOVE content:121022,DCM,TEXT\nKEEP content:121022,dcm,text", 0, "r:4 keeps the item"),
        ("REMOVE content:121022,DCM,TEXT\nREPLACE content:121022,DCM,TEXT x", 0, "r:4 overrides it"),
    ],
)
def test_rules_that_never_apply_are_reported_with_the_reason(rules: str, index: int, words: str) -> None:
    """Catches a shadow that is not seen, or blamed on the wrong line."""
    found = shadows(rules)
    assert words in found[index]
    assert sum(map(bool, found)) == 1


@given(recipe_texts())
@settings(deadline=None, max_examples=30)
def test_a_shadowed_rule_is_in_no_steps(text: str) -> None:
    """Catches a rule that is called idle and acts on an element of the dictionary after all."""
    drawn = Recipe.parse(text)
    plan = CompiledRecipe(drawn)
    report = check(drawn)
    idle = {index for index, one in enumerate(report.rules) if one.shadowed}
    names = [ElementName.of(tag) for tag in DICTIONARY_TAGS]
    acting = {
        step.rule_index
        for name in names
        if not plan.is_kept(name) and not plan.is_skipped(name)
        for step in plan.steps(name, plan.presence([name]))
    }
    assert not idle & acting


def test_the_report_of_the_desktop_recipe() -> None:
    """Figures that were measured apart from this code: 50 dates, 101 trial elements, one rule written twice."""
    report = check(Recipe.named("desktop"))
    reached = {str(one.rule.field): one.reaches for one in report.rules}
    assert len(reached["endswith:Date"] or ()) == 50
    assert len(reached["contains:Trial"] or ()) == 101
    assert {str(one.rule.field) for one in report.rules if one.shadowed} >= {"PerformingPhysicianName"}
    untouched = {attribute.name for attribute in report.direct_identifiers_untouched}
    assert {"Responsible Person", "Medical Record Locator"} <= untouched
    assert not {"Patient's Name", "Patient ID", "Accession Number"} & untouched


def test_an_empty_recipe_leaves_every_attribute_of_the_table_alone() -> None:
    """Catches rows that are lost on the way from the table."""
    assert check(Recipe.parse("FORMAT dicom\n")).untouched == profile_attributes()
    assert len(profile_attributes()) == 657


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("REMOVE contains:NoSuchWord", "selects no element"),
        ("JITTER PatientID 3", "has VR LO"),
        ("REMOVE PatientID var:x", "if the variable is true"),
        ("REPLACE PatientName func:generate_value", "looks like a UID"),
        ("ADD PatientName func:generate_value", "looks like a UID"),
        ("REPLACE endswith:PhysicianName func:generate_value", "looks like a UID"),
    ],
)
def test_what_may_not_be_meant_is_warned_about(line: str, words: str) -> None:
    """Catches a slip that the language allows."""
    (report,) = check(Recipe.parse(f"FORMAT dicom\n%header\n{line}\n")).rules
    assert words in report.warnings[0]


def test_dates_with_time_that_keep_their_day_are_warned_about() -> None:
    """Catches a true date beside the shifted one: DA is shifted and DT is not."""
    (warning,) = check(Recipe.named("desktop")).warnings
    assert "AcquisitionDateTime" in warning
    line = warning.rpartition("add: ")[2]
    fragment = Recipe.parse(f"FORMAT dicom\n%header\n{line}\n")
    assert check(Recipe.combine(Recipe.named("desktop"), fragment)).warnings == ()
    assert check(Recipe.parse("FORMAT dicom\n%header\nREMOVE StudyDate\n")).warnings == ()


@pytest.mark.parametrize("line", ["REMOVE ALL", 'REPLACE SpecificCharacterSet "ISO_IR 192"'])
def test_text_that_would_be_read_in_another_character_set_is_warned_about(line: str) -> None:
    """Catches text in Cyrillic that is read as Latin because a recipe removes whatever it does not name."""
    (warning,) = check(Recipe.parse(f"FORMAT dicom\n%header\n{line}\n")).warnings
    assert "SpecificCharacterSet" in warning
    kept = warning.rpartition("add: ")[2]
    assert check(Recipe.parse(f"FORMAT dicom\n%header\n{line}\n{kept}\n")).warnings == ()


def test_the_profile_has_no_warnings() -> None:
    """Catches a code or an attribute of the table that the check does not know."""
    report = check(Recipe.named("ps3.15-basic"))
    assert [warning for one in report.rules for warning in one.warnings] == []
    assert report.warnings == ()


def test_the_command_prints_the_report_and_exits_0() -> None:
    """Tests of the printed report."""
    result = CliRunner().invoke(recipe, ["check", "desktop"])
    assert result.exit_code == 0
    assert "desktop.dicom:65  JITTER endswith:Date 31\n      50 elements: InstanceCreationDate" in result.output
    assert "Rules that never apply: 3" in result.output
    assert "(0010,1090) Medical Record Locator" in result.output
    assert "desktop" in CliRunner().invoke(recipe, ["list"]).output


def test_the_command_lists_what_the_device_catalogue_covers() -> None:
    """Each label names its manufacturer and model."""
    result = CliRunner().invoke(recipe, ["check", "desktop", "devices", "--all"])
    assert result.exit_code == 0
    filters = Recipe.named("devices").filters
    coverage = result.output.partition(f"What the filters do with pixels: {len(filters)} labels\n")[2]
    kinds = [line for line in coverage.splitlines() if line.startswith("  ")][:4]
    counts = [int(line.split()[0]) for line in kinds]
    assert sum(counts) == len(filters)
    assert [line.partition(":")[0].split(maxsplit=1)[1] for line in kinds] == [
        "hold the object",
        "blank regions and clear a risk",
        "blank regions and clear nothing",
        "call the pixels clean",
    ]
    assert all(one.label in coverage for one in filters)
    assert "US philips EPIQ" in coverage


def test_the_command_prints_every_problem_and_exits_2(tmp_path: Path) -> None:
    """Catches an exit code that a script would take for success."""
    path = tmp_path / "bad.dicom"
    path.write_text("FORMAT dicom\n%header\nremove PatientID\nREMOVE PatientNam\n")
    result = CliRunner().invoke(recipe, ["check", str(path)])
    assert result.exit_code == 2
    assert "bad.dicom:3:1: unknown action 'remove'; did you mean REMOVE?" in result.output
    assert "bad.dicom:4:8: unknown field 'PatientNam'" in result.output


def test_an_unknown_code_of_the_dicom_terminology_is_reported() -> None:
    """Catches a slip of the pen in a code, which would let an item pass, and a warning on a local code."""
    rules = "REMOVE content:12102,DCM,TEXT\nREMOVE content:121022,DCM,TEXT\nREMOVE content:12102,99LOCAL,TEXT"
    report = check(Recipe.parse(f"FORMAT dicom\n%header\n{rules}\n"))
    (warning,) = report.rules[0].warnings
    assert "did you mean 1" in warning
    assert not report.rules[1].warnings
    assert not report.rules[2].warnings
    assert [one.reaches for one in report.rules][1] == ("content:121022,DCM,TEXT",)


def test_composite_actions_are_reported_by_sop_class() -> None:
    """Catches a report that promises one action where the object's SOP class decides."""
    rules = "Z/D ContentDate 19000101\nX/D OperatorIdentificationSequence\nREMOVE PatientName"
    date, sequence, name = check(Recipe.parse(f"FORMAT dicom\n%header\n{rules}\n")).rules
    assert {word.split()[0] for word in date.by_type.split(", ")} == {"BLANK", "REPLACE"}
    assert sequence.by_type.startswith("REMOVE")
    assert sequence.shadowed == name.by_type == ""
