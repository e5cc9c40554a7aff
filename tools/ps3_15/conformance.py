"""Generate the conformance page: every row of both tables with its action, its rule and its test."""

from __future__ import annotations

from collections import Counter

from dicom_deid.recipe.types import sop_classes
from tools.ps3_15.recipes import (
    REPEATING_GROUPS,
    SUPPLEMENTS,
    TITLES,
    Rule,
    basic_content_rules,
    basic_rules,
    line_of,
    option_content_rules,
    option_rules,
    supplementary_rules,
)
from tools.ps3_15.table import ContentRow, Row, read_content_rows, read_rows

TEST = "tests/unit/profiles/test_conformance.py::test_row"
CONTENT_TEST = "tests/unit/profiles/test_structured_content.py"

HEAD = """# Conformance with PS3.15 Annex E, edition 2026d

Made by `python -m tools.ps3_15` from Tables E.1-1 and E.3.4-1 and from the rules of the recipes; a test
compares this page with the output of the generator.

**Basic profile.** `X` remove, `Z` empty (or a dummy, which the standard allows), `D` dummy of the element's VR, `U` the
pseudonym of the UID, the same in every object of the project. Composite actions are resolved by the type that the IOD
of the object's SOP class gives the attribute, at the root and in items (the strictest of all places); by the strictest
that any IOD gives it, where the SOP class is none of the standard's, or where file meta information and data set do not
agree on it. References that an IOD needs (`X/Z/U*`) stay with the pseudonyms of their UIDs, even where they may be
empty; others are removed, unless [a fragment](recipe-language.md#by-type) keeps them. The column *resolved* counts the
SOP classes by the action that remains at the root. Every rule holds at every depth. Private attributes are the setting
`private_elements` (`remove` for the basic profile). A sequence with action `D` or `U` keeps its items, whose elements
have rows of their own.

**Options.** `K` keep, `C` clean. Where several options name one attribute, the last in the order of this table decides:
dates that are modified are modified even if the device's identity is retained.

"""

CONTENT_HEAD = """## Table E.3.4-1

Content items of a concept name and value type, wherever content items occur: in the tree of a report (ContentSequence,
at any depth) and in the sequences of PS3.3 that are made of a content item macro, such as AcquisitionContextSequence or
SpecimenPreparationStepContentItemSequence, where a rule has not emptied them.

- `X` removes the item with its children; a ContentSequence that is left without items goes too. In an object that
  refers to items by position (ReferencedContentItemIdentifier) no item is removed: its value, and all values inside
  it, become dummies.
- `D` writes a dummy of the value type; of a reference (UIDREF, COMPOSITE, IMAGE, WAVEFORM) the pseudonym of the UID.
- `X/D` is `D`: the object does not say whether a template needs the item, and a dummy is valid in any.
- `K` keeps the value. `C` of a date shifts it by the patient's offset (a time of day stays); `C` of a text takes out
  what identifies.
- Items that the table does not name follow the rows of Table E.1-1 for their elements: under the basic profile their
  texts, codes, numbers, names, dates and UIDs become dummies; the Clean Structured Content Option keeps codes and
  numbers and cleans texts.
- SNOMED codes are also recognised as reports wrote them before (SRT).
- A report is quarantined as `malformed` if the rule of an item cannot be determined: no value type or an unknown one,
  no concept name where its value type needs one, or several. Outside of reports, where earlier editions had no value
  type, the value of the item decides, and an item without a name follows the rows of Table E.1-1.

"""

SUPPLEMENT_HEAD = """## Attributes that the table does not name

The basic profile also removes these attributes, which may identify a patient or a person, or lead to the original
objects, and which Table E.1-1 does not list. They are an addition of this package, not a part of the standard; an
option does not keep them, a rule of your own does. Tests: `tests/unit/profiles/test_conformance.py::test_supplement`.

Public elements that the dictionary does not know are removed too (setting `unknown_elements` = `remove`). The audit
counts them as `unknown-element-removed`; the preview and the page of an object list them by tag.

"""

ENGINE_ROWS = {
    "(0000": "command elements are in no stored object",
    "(0002": "engine: file meta information is rebuilt",
    "(0004": "engine: a DICOMDIR is quarantined",
    "PRIVA": "engine: setting `private_elements`",
}


def rules_cell(rules: list[Rule]) -> str:
    """Return rules as lines of code."""
    return "<br>".join(f"`{line_of(rule)}`" for rule in rules)


def content_row(row: ContentRow) -> tuple[str, ...]:
    """Return the cells of one row of Table E.3.4-1."""
    options = [
        f"{option} ({code}): {', '.join(dict.fromkeys(rule[0] for rule in option_content_rules(option, row)))}"
        for option, code in row.options.items()
    ]
    return (
        f"({row.code}, {row.scheme})",
        row.meaning,
        row.value_type,
        row.basic,
        row.action,
        rules_cell(basic_content_rules(row)),
        "<br>".join(options),
        f"`test_row[{row.code}-{row.value_type}]`",
    )


def rule_cell(row: Row) -> str:
    """Return the rules of the basic profile for one row."""
    rules = basic_rules(row)
    if rules:
        return rules_cell(rules)
    return ENGINE_ROWS.get(row.tag[:5], "items kept; each element in them has a row of its own")


def resolved_cell(row: Row) -> str:
    """Return the basic profile's action; of a composite one, in how many SOP classes which remains."""
    if not (row.in_data_set or row.tag in REPEATING_GROUPS):
        return ""
    if not row.is_composite:
        return row.basic
    found = Counter(row.action(uid) for uid in sop_classes())
    return ", ".join(f"{action} {found[action]}" for action in "XZDU" if found[action])


def option_cell(row: Row) -> str:
    """Return what each option does with one row."""
    cells = []
    for option, code in row.options.items():
        rules = option_rules(option, row)
        done = ", ".join(dict.fromkeys(rule[0] for rule in rules)) or "as basic"
        cells.append(f"{option} ({code}): {done}")
    return "<br>".join(cells)


def test_cell(row: Row) -> str:
    """Return the test of one row."""
    if row.in_data_set or row.tag in REPEATING_GROUPS:
        composite = ", `test_composite_action`" if row.is_composite else ""
        return f"`test_row[{row.tag[1:5]}{row.tag[6:10]}]`{composite}"
    return "`test_rows_of_the_engine`"


def conformance_text() -> str:
    """Return the page."""
    rows = [
        (
            row.tag,
            row.keyword or row.name,
            row.vr,
            row.basic,
            resolved_cell(row),
            rule_cell(row),
            option_cell(row),
            test_cell(row),
        )
        for row in read_rows()
    ]
    head = ("tag", "attribute", "VR", "table", "resolved", "rule", "options", "test")
    options = compact(
        ("option", "fragment", "rows"),
        [
            (
                title,
                f"`ps3.15-{option}.dicom`",
                str(sum(1 for row in read_rows() if option in row.options)),
            )
            for option, title in TITLES.items()
        ],
    )
    missing = (
        "The Clean Recognizable Visual Features Option (E.3.2) is refused: faces cannot be "
        "detected reliably. Objects that say `RecognizableVisualFeatures` `YES` are quarantined.\n\n"
    )
    supplements = compact(
        ("attributes", "rule"),
        [(text, rules_cell(supplementary_rules(keywords))) for text, keywords in SUPPLEMENTS.items()],
    )
    content_head = ("concept", "meaning", "value type", "table", "resolved", "rule", "options", "test")
    content = compact(content_head, [content_row(row) for row in read_content_rows()])
    return (
        f"{HEAD}{options}\n{missing}## Table E.1-1\n\nTests: `{TEST}`.\n\n{compact(head, rows)}\n"
        f"{SUPPLEMENT_HEAD}{supplements}\n"
        f"{CONTENT_HEAD}Tests: `{CONTENT_TEST}`; the options' in `test_option`.\n\n{content}"
    )


def compact(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table without padding: its cells are long."""
    lines = ["|".join(("", *head, "")), "|" + "---|" * len(head)]
    lines += ["|".join(("", *(cell.replace("|", "\\|") for cell in row), "")) for row in rows]
    return "\n".join(lines) + "\n"
