"""Steps, additions and lists, where the comparison with `deid` cannot see."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_deid.recipe import Action, CompiledRecipe, Concept, ElementName, Literal, Recipe, types_of
from dicom_deid.recipe.element_names import DICTIONARY_TAGS

PATIENT_ID = ElementName.of(0x00100020)
STUDY_DATE = ElementName.of(0x00080020)
COMMENTS = ElementName.of(0x00104000)


def plan(rules: str, lists: str = "") -> CompiledRecipe:
    return CompiledRecipe(Recipe.parse(f"FORMAT dicom\n{lists}\n%header\n{rules}\n"))


def actions(rules: str, element: ElementName) -> list[tuple[int, str]]:
    return [(step.rule_index, step.action.value) for step in plan(rules).steps(element)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("REMOVE StudyDate\nJITTER StudyDate 3", [(1, "JITTER")]),
        ("JITTER StudyDate 1\nJITTER StudyDate 2", [(0, "JITTER"), (1, "JITTER")]),
        ("REMOVE ALL\nBLANK StudyDate", [(0, "REMOVE")]),
        ("BLANK StudyDate\nREMOVE StudyDate", [(1, "REMOVE")]),
        ("BLANK StudyDate\nJITTER StudyDate 3", [(0, "BLANK")]),
        ("REPLACE StudyDate 20200101\nBLANK StudyDate", [(1, "BLANK")]),
        ("REPLACE StudyDate 20200101\nREPLACE StudyDate func:f", [(0, "REPLACE"), (1, "REPLACE")]),
        ("JITTER StudyDate 3\nREPLACE StudyDate deid_func:jitter", [(0, "JITTER"), (1, "REPLACE")]),
        ("JITTER StudyDate 3\nREPLACE StudyDate 20200101", [(1, "REPLACE")]),
        ("REMOVE StudyDate func:f\nBLANK StudyDate", [(0, "REMOVE"), (1, "BLANK")]),
        ("REMOVE StudyDate\nADD StudyDate 20200101\nJITTER StudyDate 3", [(1, "ADD"), (2, "JITTER")]),
        ("ADD StudyDate 20200101\nREMOVE StudyDate", [(0, "ADD"), (1, "REMOVE")]),
    ],
)
def test_steps_are_simplified_without_losing_one_that_matters(rules: str, expected: list[tuple[int, str]]) -> None:
    """Catches work for nothing, and a dropped step whose result a function would have seen."""
    assert actions(rules, STUDY_DATE) == expected


def test_an_addition_is_made_at_the_root_only() -> None:
    """Catches an ADD that writes into sequences."""
    nested = ElementName.of(0x00104000, parent="ReferencedStudySequence")
    assert actions("ADD PatientComments x", nested) == []
    assert actions("ADD PatientComments x", COMMENTS) == [(0, "ADD")]


def test_additions_carry_a_vr_that_can_be_written() -> None:
    """Catches the VR of deid, ST, for a tag that the dictionary knows."""
    found = plan('ADD 00100030 20200101\nADD 00091001 x\nADD SmallestImagePixelValue 3\nADD "Study ID" x').additions
    assert [addition.element.vr for addition in found] == ["DA", "ST", "US", "SH"]
    assert [addition.element.keyword for addition in found] == [
        "PatientBirthDate",
        "",
        "SmallestImagePixelValue",
        "StudyID",
    ]


def test_only_rules_after_an_addition_see_an_element_that_was_hidden() -> None:
    """Catches rules that touch a kept element before the ADD that uncovers it."""
    kept = plan("KEEP PatientID\nREPLACE PatientID a\nADD PatientID b\nREPLACE PatientID c")
    (addition,) = kept.additions
    assert kept.is_kept(PATIENT_ID)
    assert not kept.is_kept(ElementName.of(0x00100020, parent="ReferencedStudySequence"))
    assert [step.value for step in kept.steps_of_addition(addition)] == [Literal("b"), Literal("c")]


def test_presence_is_asked_for_only_where_it_matters() -> None:
    """Catches an engine that would walk an object twice for nothing, or once where twice is needed."""
    by_tag = "%fields a\nFIELD PatientID\nFIELD select:GROUP:0008"
    assert not plan("REMOVE fields:a", by_tag).needs_presence
    assert not plan("REMOVE PatientID", "%fields a\nFIELD contains:x").needs_presence
    assert plan("REMOVE fields:a", "%fields a\nFIELD contains:ReferencedStudy").needs_presence
    assert plan("ADD PatientID x\nREMOVE fields:a", by_tag).needs_presence


def test_a_list_selects_the_tags_that_stand_in_the_object() -> None:
    """deid turns a list to tags, so that a nested hit selects the tag everywhere."""
    nested = ElementName.of(0x00100020, parent="ReferencedStudySequence")
    one = plan("REMOVE fields:a", "%fields a\nFIELD contains:ReferencedStudySequence__PatientID")
    assert one.steps(PATIENT_ID) == ()
    assert one.steps(PATIENT_ID, one.presence([nested]))[0].action is Action.REMOVE


def test_values_are_collected_and_found_as_text() -> None:
    """deid searches values as regular expressions, and so misses `Doe^John` and stumbles over `(`."""
    one = plan("BLANK values:v", '%values v\nFIELD PatientID\nSPLIT PatientName by="^";minlength=3')
    name = ElementName.of(0x00100010)
    assert one.needs_values
    assert one.gives_values(name)
    assert not one.gives_values(COMMENTS)
    lists = one.collect_values([(PATIENT_ID, ["A(1", ""]), (name, ["Doe^Jo^Ann", "Roe"])])
    assert all(lists.hits("v", [text]) for text in ("see a(1", "DOE", "Annular", "x roe"))
    assert not any(lists.hits("v", [text]) for text in ("", "jo", "A1", "^"))
    assert not one.collect_values([]).hits("v", ["anything", ""])


def test_a_plan_answers_the_same_whatever_it_was_asked_before() -> None:
    """The engine caches answers and shares a plan between threads."""
    recipe = Recipe.named("desktop")
    names = [ElementName.of(tag) for tag in DICTIONARY_TAGS]
    used = CompiledRecipe(recipe)
    forwards = [used.steps(name) for name in names]
    backwards = [used.steps(name) for name in reversed(names)][::-1]
    assert forwards == backwards == [CompiledRecipe(recipe).steps(name) for name in names]


CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
OPHTHALMIC_PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.1"


@pytest.mark.parametrize(
    ("rule", "sop_class", "expected"),
    [
        ("X/Z/D AcquisitionDateTime 19000101", CT_IMAGE, "REMOVE"),
        ("X/Z/D AcquisitionDateTime 19000101", ENHANCED_MR_IMAGE, "REPLACE"),
        ("Z/D ContentDate 19000101", CT_IMAGE, "BLANK"),
        ("Z/D ContentDate 19000101", "", "REPLACE"),
        ("X/Z/U* SourceImageSequence", CT_IMAGE, "REMOVE"),
        ("X/Z/U* SourceImageSequence", OPHTHALMIC_PHOTOGRAPHY, None),
        ("X/D OperatorIdentificationSequence", "", "REMOVE"),
    ],
)
def test_composite_actions_are_resolved_by_type(rule: str, sop_class: str, expected: str | None) -> None:
    """Facts of PS3.3: catches a type that is read for another attribute, place or SOP class."""
    recipe = Recipe.parse(f"FORMAT dicom\n%header\n{rule}\n")
    (only,) = recipe.rules
    element = ElementName.of(only.field.tag)
    steps = CompiledRecipe(recipe, types_of(sop_class)).steps(element)
    assert [step.action.value for step in steps] == ([expected] if expected else [])
    assert CompiledRecipe(recipe).depends_on_sop_class


def test_a_resolved_action_takes_precedence_as_its_plain_form_does() -> None:
    """Catches a dummy that does not protect from REMOVE, or a removal that does."""
    recipe = Recipe.parse("FORMAT dicom\n%header\nX/Z/D AcquisitionDateTime 19000101\nREMOVE endswith:DateTime\n")
    element = ElementName.of(0x0008002A)
    assert [step.rule_index for step in CompiledRecipe(recipe, types_of(ENHANCED_MR_IMAGE)).steps(element)] == [0]
    assert {step.action for step in CompiledRecipe(recipe, types_of(CT_IMAGE)).steps(element)} == {Action.REMOVE}


SUBJECT_ID = "content:121030,DCM,TEXT"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["REMOVE"], [(0, "REMOVE")]),
        (["REPLACE {} x", "REMOVE"], [(0, "REPLACE")]),
        (["REMOVE", "KEEP"], []),
        (["BLANK", "REPLACE {} x", "REPLACE {} y"], [(2, "REPLACE")]),
    ],
)
def test_rules_for_content_items_take_precedence_as_others_do(
    rules: list[str], expected: list[tuple[int, str]]
) -> None:
    """Catches a precedence of its own, and a concept that is found in one case of its letters only."""
    lines = [(rule if "{}" in rule else f"{rule} {{}}").format(SUBJECT_ID) for rule in rules]
    found = plan("\n".join([*lines, "REMOVE content:121030,DCM,PNAME"]))
    assert [
        (step.rule_index, step.action.value) for step in found.content_items[Concept.of("121030", "dcm", "text")]
    ] == (expected)
    assert len(found.content_items) == 2


def test_rules_for_content_items_are_none_for_elements() -> None:
    """Catches a KEEP of content items that makes the engine list every object, and a rule that hits elements."""
    found = plan(f"KEEP {SUBJECT_ID}\nREMOVE content:121022,DCM,TEXT")
    assert not found.has_keeps
    assert not found.needs_presence
    assert not any(found.steps(ElementName.of(tag)) for tag in DICTIONARY_TAGS)


def test_an_option_keeps_content_items_by_a_rule(tmp_path: Path) -> None:
    """Catches an option whose KEEP only takes the profile's rule away, so that rules for elements reach the value."""
    (tmp_path / "profile.dicom").write_text(f"FORMAT dicom\n%header\nREMOVE {SUBJECT_ID}\nREPLACE TextValue x\n")
    (tmp_path / "option.dicom").write_text(f"FORMAT dicom\n%option\nKEEP {SUBJECT_ID.lower()}\nKEEP TextValue\n")
    combined = Recipe.from_path([tmp_path / "profile.dicom", tmp_path / "option.dicom"])
    assert [str(rule) for rule in combined.rules] == [f"KEEP {SUBJECT_ID.lower()}"]
