"""Text to recipe: what is accepted, what is refused and where, and that nothing is lost on the way."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.recipes import recipe_texts, rule_lines

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe import Action, DeidFunction, Function, Literal, Recipe, RecipeError, Variable

HEAD = "FORMAT dicom\n%header\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, "r.dicom")
    return [str(problem) for problem in caught.value.problems]


def value_of(line: str) -> object:
    return Recipe.parse(HEAD + line).rules[0].value


@given(recipe_texts())
@settings(deadline=None)
def test_the_printed_recipe_parses_to_an_equal_one(text: str) -> None:
    """Catches a printer that loses quotes, order or arguments, and a parser that reads its own output otherwise."""
    recipe = Recipe.parse(text)
    again = Recipe.parse(str(recipe))
    assert again == recipe
    assert again.digest == recipe.digest
    assert str(again) == str(recipe)


@given(recipe_texts(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_comments_and_blanks_change_neither_recipe_nor_digest(text: str, random: object) -> None:
    """Catches a digest made of the bytes of the file, and a comment that becomes part of a value."""
    noisy = "\ufeff# a header\r\n\n" + "".join(
        f"\t {line}  {'# note' if not line.startswith('FORMAT') else ''}\r\n\n# more\n" for line in text.splitlines()
    )
    assert Recipe.parse(noisy) == Recipe.parse(text)
    assert Recipe.parse(noisy).digest == Recipe.parse(text).digest


@given(rule_lines(), rule_lines())
def test_the_digest_tells_two_meanings_apart(first: str, second: str) -> None:
    """Catches a digest that leaves out a part of a rule."""
    one, other = Recipe.parse(HEAD + first), Recipe.parse(HEAD + second)
    assert (one == other) == (one.digest == other.digest)


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("PatientID", 1),
        ("(0018,0050)", 1),
        ('(0018,"GEMS_ACQU_01",23)', 1),
        ('(0019,"GEMS_ACQU_01",23', 1),
        ('(0019,"GEMS_ACQU_01",23) Slope', 26),
    ],
)
def test_a_list_of_safe_elements_takes_private_elements_only(line: str, column: int) -> None:
    """Catches a list of the site that is read as less, or more, than it says."""
    (problem,) = problems_of(f"FORMAT dicom\n%safe-private\n{line}\n")
    assert problem.startswith(f"r.dicom:3:{column}: ")


def test_the_digest_depends_on_the_order_of_rules() -> None:
    """Order is meaning."""
    lines = ["REPLACE StudyDate 20200101", "JITTER StudyDate 3"]
    assert Recipe.parse(HEAD + "\n".join(lines)).digest != Recipe.parse(HEAD + "\n".join(lines[::-1])).digest


MUTATIONS = {
    "unknown value type": lambda line: re.sub(r"^(\w+) .*", r"\1 content:121022,DCM,TXT 1", line),
    "lower-case action": lambda line: line[0].lower() + line[1:].lower() if " " in line else line,
    "misspelt action": lambda line: "X" + line,
    "unknown field": lambda line: re.sub(r"^(\w+) .*", r"\1 NoSuchKeywordAnywhere 1", line),
    "unknown expander": lambda line: re.sub(r"^(\w+) .*", r"\1 contians:x 1", line),
    "no field": lambda line: line.split()[0],
    "no regular expression": lambda line: re.sub(r"^(\w+) .*", r"\1 contains:( 1", line),
    "no VR": lambda line: re.sub(r"^(\w+) .*", r"\1 select:VR:XX 1", line),
    "undefined list": lambda line: (
        re.sub(r"^(\w+) .*", r"\1 fields:nowhere", line) + " 1" * line.startswith(("J", "RE"))
    ),
    "open quote": lambda line: line + ' "',
    "unknown function": lambda line: re.sub(r"^(\w+) .*", r"\1 StudyDate deid_func:jiter", line),
    "wrong argument": lambda line: re.sub(r"^(\w+) .*", r"\1 StudyDate deid_func:jitter weeks=1", line),
    "another action in a list": lambda line: "SPLIT " + line,
}


@given(recipe_texts(), st.data(), st.sampled_from(sorted(MUTATIONS)))
@settings(deadline=None)
def test_every_invalid_line_is_named_by_its_number(text: str, data: st.DataObject, mutation: str) -> None:
    """Catches a wrong line that passes silently, or is reported at another line."""
    lines = text.splitlines()
    header = lines.index("%header")
    number = data.draw(st.integers(header + 1, len(lines) - 1))
    lines[number] = MUTATIONS[mutation](lines[number])
    with pytest.raises(RecipeError) as caught:
        Recipe.parse("\n".join(lines), "r.dicom")
    assert number + 1 in {problem.line for problem in caught.value.problems}
    assert all(problem.file == "r.dicom" and problem.column >= 1 for problem in caught.value.problems)


def test_all_problems_are_reported_together_with_place_and_nearest_word() -> None:
    """Catches a parser that stops at the first problem, and columns that are off."""
    text = """%headr
%header
remove PatientID
REMOVE PatientNam
REMOVE contans:x
  REMOVE contains:a(
REMOVE 0010,0020
REMOVE fields:peple
REPLACE PatientID deid_func:dicom_uid
JITTER StudyDate 1.5
%fields people
FIELD PatientName
"""
    assert problems_of(text) == [
        "r.dicom:1:1: the line 'FORMAT dicom' is missing",
        "r.dicom:1:1: unknown section %headr; did you mean %header?",
        "r.dicom:3:1: unknown action 'remove'; did you mean REMOVE?",
        "r.dicom:4:8: unknown field 'PatientNam': no keyword, element name or tag; did you mean PatientName?",
        "r.dicom:5:8: unknown expander 'contans:'; did you mean contains:?",
        "r.dicom:6:20: not a regular expression: missing ), unterminated subpattern",
        "r.dicom:7:8: unknown field '0010,0020': no keyword, element name or tag; did you mean (0010,0020)?",
        "r.dicom:8:15: no section %fields peple defines this list; did you mean people?",
        "r.dicom:9:29: unknown function deid_func:dicom_uid; did you mean dicom_uuid?",
        "r.dicom:10:18: JITTER takes a whole number of days, of at most 7 digits",
    ]


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("ADD contains:x y", 5, "one element"),
        ("ADD ReferencedStudySequence__PatientID y", 5, "one element"),
        ('ADD 0029,"SIEMENS CSA HEADER",08 y', 5, "one element"),
        ("ADD ReferencedStudySequence y", 29, "empty sequence"),
        ("ADD PatientID", 14, "needs a value"),
        ("REPLACE PatientID # nothing", 18, "needs a value"),
        ("REMOVE", 1, "needs a field"),
        ("REMOVE PatientID yes", 18, "condition"),
        ("REMOVE PatientID deid_func:basic_uuid", 18, "condition"),
        ("BLANK PatientID x", 17, "takes no value"),
        ("KEEP PatientID x", 16, "takes no value"),
        ("X/Z/D PatientComments x", 7, "PS3.15 Table E.1-1"),
        ("X/Z/D contains:ContentDate x", 7, "PS3.15 Table E.1-1"),
        ("Z/D ContentDate", 16, "needs a value"),
        ("X/Z AcquisitionDate x", 21, "takes no value"),
        ("X/D OperatorIdentificationSequence x", 36, "of a sequence takes no value"),
        ("X/Z/U* ContentDate", 8, "needs a sequence"),
        ("X/Z/U ReferencedImageSequence", 1, "did you mean X/Z/U*?"),
        ("X/D content:111018,DCM,DATE 19000101", 1, "a content item has no type"),
        ("ADD content:121022,DCM,TEXT x", 5, "one element"),
        ("REMOVE content:121022,DCM", 16, "code, scheme, value type"),
        ("REMOVE content:121022,DCM,TEXTS", 27, "did you mean TEXT?"),
        ("REMOVE content:,DCM,TEXT", 16, "not a code"),
        (r"REMOVE content:12\1,DCM,TEXT", 16, "not a code"),
        ("REMOVE content:121022,,TEXT", 23, "coding scheme"),
        ("REMOVE content:121022,A-SCHEME-TOO-LONG,TEXT", 23, "coding scheme"),
        ("REMOVE content:121022,DCM,TEXT func:f", 32, "no condition"),
        ("REPLACE content:121032,DCM,CODE x", 1, "cannot write the value of a CODE item"),
        (" BLANK content:121070,DCM,CONTAINER", 2, "cannot write the value of a CONTAINER item"),
        ("JITTER content:111061,DCM,TIME 3", 1, "not a TIME item"),
        ("REPLACE PatientID Func:x", 19, "lower case"),
        ("REPLACE PatientID func:", 24, "not a name"),
        ("REPLACE PatientID func:a b", 26, "nothing may follow"),
        ("REPLACE PatientID deid_func:basic_uuid x=1", 40, "takes no argument"),
        ("REPLACE PatientID deid_func:jitter days=x", 41, "whole number"),
        ("REPLACE PatientID deid_func:jitter 3", 36, "KEY=VALUE"),
        ("REPLACE PatientID deid_func:dicom_uuid org_root=01.2", 49, "UID root"),
        ("REPLACE PatientID deid_func:dicom_uuid org_root=1.2.", 49, "UID root"),
        ("REPLACE PatientID deid_func:pydicom_uuid prefix=1.2", 49, "ends with a dot"),
        ("REPLACE PatientID deid_func:pydicom_uuid prefix=none", 29, "needs a prefix"),
        ("ADD PatientID deid_func:pydicom_uuid", 15, "no UID to map"),
        ("ADD PatientID deid_func:jitter", 15, "no date"),
        ("JITTER StudyDate deid_func:jitter days=1", 18, "REPLACE"),
        (r"REMOVE contains:^\D+$", 18, "lower case"),
        ("REMOVE startswith:", 19, "needs an expression"),
        ("REMOVE select:GROUP:00100", 21, "group number"),
        ("REMOVE (0010, 0020)", 8, "unknown field"),
        ("REMOVE (0008,1110)__0__(0010,0010)", 8, "unknown field"),
        ("REMOVE fields:", 15, "name of a list"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(line: str, column: int, words: str) -> None:
    """Each is a line that deid reads otherwise than it looks, or drops, or that fails at the first object."""
    (problem,) = problems_of(HEAD + line)
    assert problem.startswith(f"r.dicom:3:{column}: ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FORMAT nifti\n", "FORMAT dicom"),
        ("format dicom\n", "upper case"),
        ("FORMAT dicom\nREMOVE PatientID\n", "before the first section"),
        ("FORMAT dicom\n%fields\n", "needs a name"),
        ("FORMAT dicom\n%header x\n", "takes no name"),
        ("FORMAT dicom\n%fields a\nSPLIT PatientID\n", "takes FIELD"),
        ("FORMAT dicom\n%fields a\nREMOVE PatientID\n", "takes FIELD"),
        ("FORMAT dicom\n%fields a\nFIELD fields:a\n", "another list"),
        ("FORMAT dicom\n%fields a\nFIELD content:121022,DCM,TEXT\n", "not of content items"),
        ("FORMAT dicom\n%fields a\nFIELD PatientID x\n", "nothing may follow"),
        ("FORMAT dicom\n%values a\nSPLIT PatientID by=\n", "SPLIT takes"),
        ('FORMAT dicom\n%values a\nSPLIT PatientID by=""\n', "by is a text"),
        ("FORMAT dicom\n%values a\nSPLIT PatientID minlength=0\n", "from 1"),
        ("FORMAT dicom\n%values a\nSPLIT PatientID minlenght=3\n", "did you mean minlength?"),
    ],
)
def test_wrong_sections_and_lists_are_refused(text: str, words: str) -> None:
    """Catches sections and list lines that are read as something else or dropped."""
    (problem,) = problems_of(text)
    assert words in problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('""', Literal("")),
        ("''", Literal("")),
        ("A   B", Literal("A B")),
        ('"A   B"', Literal("A   B")),
        ("A # note", Literal("A")),
        ('"A # no note"', Literal("A # no note")),
        ('"O\'Neil"', Literal("O'Neil")),
        ("DERIVED\\PRIMARY", Literal("DERIVED\\PRIMARY")),
        ('"var:x"', Literal("var:x")),
        ("var:x", Variable("x")),
        ("func:x # note", Function("x")),
        ("func:package.module:function", Function("package.module:function")),
        ("deid_func:jitter", DeidFunction("jitter", {"days": 1, "years": 0})),
        ("deid_func:jitter years=2 days=-3", DeidFunction("jitter", {"days": -3, "years": 2})),
        ("deid_func:dicom_uuid org_root=1.2.3", DeidFunction("dicom_uuid", {"org_root": "1.2.3"})),
        ("deid_func:pydicom_uuid", DeidFunction("pydicom_uuid", {"prefix": "2.25.", "stable_remapping": True})),
    ],
)
def test_values_are_read_as_documented(text: str, value: object) -> None:
    """Catches quoting, comments and defaults that differ from the documentation."""
    assert value_of(f"REPLACE PatientComments {text}") == value


@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\n\r")))
def test_any_text_survives_as_a_literal(text: str) -> None:
    """Catches a printer of literals that some quote, blank or sign defeats."""
    assert value_of(f"REPLACE PatientComments {Literal(text)}") == Literal(text)


def test_rules_know_their_file_and_line_through_a_combination(tmp_path: Path) -> None:
    """Catches line numbers that count from the beginning of the whole instead of the file."""
    first, second = tmp_path / "a.dicom", tmp_path / "b.dicom"
    first.write_text("FORMAT dicom\n%header\nREMOVE fields:ids\n")
    second.write_text("FORMAT DICOM\n\n%fields ids\nFIELD PatientID\n%HEADER\n\nKEEP StudyID\n")
    recipe = Recipe.from_path([first, second])
    assert [(rule.action, rule.source, rule.line) for rule in recipe.rules] == [
        (Action.REMOVE, "a.dicom", 3),
        (Action.KEEP, "b.dicom", 7),
    ]
    assert recipe.name == "a+b"
    with pytest.raises(RecipeError, match="no section %fields ids"):
        Recipe.from_path(first)


def test_combined_lists_and_filters_are_joined_in_order() -> None:
    """deid drops the lists of the second file, and the filters of the first that share a name."""
    one = Recipe.parse("FORMAT dicom\n%fields a\nFIELD PatientID\n%filter g\nLABEL x\npresent Modality\n")
    two = Recipe.parse("FORMAT dicom\n%fields a\nFIELD StudyID\n%filter g\nLABEL y\npresent Modality\n")
    both = Recipe.combine(one, two)
    assert [str(entry.field) for entry in both.fields["a"]] == ["PatientID", "StudyID"]
    assert [one.label for one in both.filters] == ["x", "y"]


def test_problems_of_several_files_are_reported_together(tmp_path: Path) -> None:
    """Catches a second file whose problems are reported only after the first is corrected."""
    paths = [tmp_path / "b.dicom", tmp_path / "a.dicom"]
    for path in paths:
        path.write_text("FORMAT dicom\n%header\nREMOVE Nonsenses\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.from_path(paths)
    assert [problem.file for problem in caught.value.problems] == ["b.dicom", "a.dicom"]


def test_the_desktop_recipe_is_read_in_full() -> None:
    """The recipe of the former desktop application: 68 lines, none refused."""
    recipe = Recipe.named("desktop")
    assert len(recipe.rules) == 68
    assert recipe == Recipe.resolve("desktop")
    assert "desktop" in Recipe.shipped()


@pytest.mark.parametrize("name", ["desktp", "missing.dicom", "some/where.dicom"])
def test_a_missing_recipe_is_reported(name: str) -> None:
    """Catches a traceback where a message is due."""
    with pytest.raises(ConfigurationError, match=r"did you mean desktop|No such file"):
        Recipe.resolve(name)


def test_a_recipe_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Catches a UnicodeDecodeError that reaches the user."""
    path = tmp_path / "latin.dicom"
    path.write_bytes(b"FORMAT dicom\n# caf\xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        Recipe.from_path(path)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    """Catches an exception of another kind, whatever the file holds."""
    for candidate in (
        text,
        HEAD + text,
        f"FORMAT dicom\n%filter a\nLABEL b\n{text}",
        f"FORMAT dicom\n%values v\n{text}",
    ):
        with contextlib.suppress(RecipeError):
            Recipe.parse(candidate)
