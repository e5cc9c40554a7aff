"""The recipes of the basic profile and of each option, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dicom_deid.recipe.profile_attributes import EDITION
from tools.ps3_15.table import ContentRow, Row, read_content_rows, read_rows

DUMMIES = {
    "AE": "ANONYMIZED",
    "AS": "000D",
    "CS": "ANONYMIZED",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "LO": "Anonymized",
    "LT": "Anonymized",
    "OB": "Anonymized",
    "PN": "Anonymous",
    "SH": "Anonymized",
    "ST": "Anonymized",
    "TM": "000000",
    "UC": "Anonymized",
    "UN": "Anonymized",
    "UR": "urn:anonymized",
    "UT": "Anonymized",
}
"""A value of each VR that says nothing."""

OWN_VALUES = {
    "PatientName": "Anonymous",
    "PatientID": "func:generate_value",
    "StudyID": "func:generate_value",
    "AccessionNumber": "func:generate_value",
}
"""Rows whose action Z or D writes a pseudonym or a well-known dummy (Table E.1-1a allows a dummy for Z)."""

CODE_SEQUENCES = ("InstitutionCodeSequence", "PersonIdentificationCodeSequence")
"""Sequences with action D whose items hold nothing but a code: the code is replaced by a dummy."""

CODE_DUMMIES = {"CodeValue": "ANONYMIZED", "CodingSchemeDesignator": "99ANON", "CodeMeaning": "Anonymized"}

FREE_TEXT = {
    "ContentSequence": [
        ("REPLACE", "TextValue", "Anonymized"),
        ("REPLACE", "endswith:ContentSequence__ConceptCodeSequence__CodeValue", "ANONYMIZED"),
        ("REPLACE", "endswith:ContentSequence__ConceptCodeSequence__CodingSchemeDesignator", "99ANON"),
        ("REPLACE", "endswith:ContentSequence__ConceptCodeSequence__CodeMeaning", "Anonymized"),
        ("REPLACE", "endswith:ContentSequence__MeasuredValueSequence__NumericValue", "0"),
        ("REMOVE", "endswith:ContentSequence__MeasuredValueSequence__FloatingPointValue", ""),
        ("REMOVE", "endswith:ContentSequence__MeasuredValueSequence__RationalNumeratorValue", ""),
        ("REMOVE", "endswith:ContentSequence__MeasuredValueSequence__RationalDenominatorValue", ""),
    ],
}
"""Sequences with action D whose items hold values that no row of the table names."""

SUPPLEMENTS = {
    "dates in alternative calendars": (
        "PatientBirthDateInAlternativeCalendar",
        "PatientDeathDateInAlternativeCalendar",
        "PatientAlternativeCalendar",
    ),
    "placer and filler order numbers, and their issuers": (
        "OrderPlacerIdentifierSequence",
        "OrderFillerIdentifierSequence",
        "PlacerOrderNumberProcedure",
        "FillerOrderNumberProcedure",
        "PlacerOrderNumberImagingServiceRequestRetired",
        "FillerOrderNumberImagingServiceRequestRetired",
    ),
    "addresses at which originals are stored or retrieved": (
        "StoredInstanceBaseURI",
        "FolderAccessURI",
        "FileAccessURI",
        "FilenameInContainer",
        "RetrieveURL",
        "PixelDataProviderURL",
        "StorageURL",
        "RetrieveURI",
    ),
    "names of persons and how to reach them": (
        "SecondaryReviewerName",
        "EvaluatorName",
        "DocumentAuthorTrial",
        "ContactDisplayName",
        "ContactURI",
    ),
}
"""Identifying attributes that Table E.1-1 does not name, by kind; the basic profile removes them too."""

REPEATING_GROUPS = {
    "(50XX,XXXX)": "startswith:50[0-9a-f]{6}",
    "(60XX,3000)": "startswith:60[0-9a-f]{2}3000",
    "(60XX,4000)": "startswith:60[0-9a-f]{2}4000",
}

CLEAN_TEXT = "func:dicom_deid.engine.descriptors:clean_text"
UNCHANGED = "func:dicom_deid.engine.descriptors:unchanged"
TEXT_VRS = ("LO", "LT", "SH", "ST", "UC", "UT")

TITLES = {
    "retain-safe-private": "Retain Safe Private Option (E.3.10)",
    "retain-uids": "Retain UIDs Option (E.3.9)",
    "retain-device-identity": "Retain Device Identity Option (E.3.8)",
    "retain-institution-identity": "Retain Institution Identity Option (E.3.11)",
    "retain-patient-characteristics": "Retain Patient Characteristics Option (E.3.7)",
    "retain-longitudinal-full-dates": "Retain Longitudinal Temporal Information with Full Dates Option (E.3.6)",
    "retain-longitudinal-modified-dates": "Retain Longitudinal Temporal Information with Modified Dates Option (E.3.6)",
    "clean-descriptors": "Clean Descriptors Option (E.3.5)",
    "clean-structured-content": "Clean Structured Content Option (E.3.4)",
    "clean-graphics": "Clean Graphics Option (E.3.3)",
    "clean-pixel-data": "Clean Pixel Data Option (E.3.1)",
}

NOTES = {
    "retain-safe-private": "Safe private elements (Table E.3.10-1) are a setting: private_elements = safe.",
    "clean-pixel-data": "Pixels are cleaned by %filter rules for your devices, or by OCR: pixel_risk = ocr.",
    "retain-longitudinal-modified-dates": "Days are shifted by var:patient_offset, one number a patient; times stay.",
    "clean-descriptors": "Text is kept but for what may identify: the function describes what it takes out.",
    "clean-graphics": "The text of annotations is cleaned; overlays and curves, which cannot be, stay removed.",
}

Rule = tuple[str, str, str]


def basic_rules(row: Row) -> list[Rule]:
    """Return the rules that carry out the basic profile's action for one row."""
    if row.tag in REPEATING_GROUPS:
        return [("REMOVE", REPEATING_GROUPS[row.tag], "")]
    if not row.in_data_set:
        return []
    if row.keyword in OWN_VALUES:
        return [("REPLACE", row.keyword, OWN_VALUES[row.keyword])]
    if row.is_composite:
        dummy = DUMMIES[row.vr] if row.basic.endswith("D") and row.vr != "SQ" else ""
        return [(row.basic, row.keyword, dummy), *sequence_dummies(row)]
    if row.basic == "X":
        return [("REMOVE", row.keyword, "")]
    if row.basic == "Z":
        return [("BLANK", row.keyword, "")]
    if row.vr == "SQ":
        return sequence_dummies(row)
    if row.vr == "UI":
        return [("REPLACE", row.keyword, "func:generate_value")]
    return [("REPLACE", row.keyword, DUMMIES[row.vr])]


def sequence_dummies(row: Row) -> list[Rule]:
    """Return the rules for a sequence whose items may stay: what other rows do not name in them gets a dummy."""
    if row.keyword in CODE_SEQUENCES:
        return [("REPLACE", f"endswith:{row.keyword}__{part}", dummy) for part, dummy in CODE_DUMMIES.items()]
    return list(FREE_TEXT.get(row.keyword, ()))


def option_rules(option: str, row: Row) -> list[Rule]:
    """Return the rules of an option that differ from the basic profile for one row.

    A rule of an option replaces the basic profile's rules for the same field.
    """
    code = row.options.get(option, "")
    if not code or not row.in_data_set:
        return []
    if code == "K" and row.vr == "UI" and option != "retain-uids":
        # The engine replaces every UID by its pseudonym unless a rule says otherwise.
        return [("REPLACE", row.keyword, UNCHANGED)]
    if code == "K":
        return [("KEEP", field, "") for field in basic_fields(row) or [row.keyword]]
    return clean(option, row)


def basic_fields(row: Row) -> list[str]:
    """Return the field expressions of the basic profile's rules for one row."""
    return list(dict.fromkeys(field for _, field, _ in basic_rules(row)))


def clean(option: str, row: Row) -> list[Rule]:
    """Return the rules for action C, which depends on what the option is about."""
    if option == "retain-longitudinal-modified-dates":
        return _clean_date(row)
    if option == "retain-device-identity":
        return [("REPLACE", row.keyword, DUMMIES[row.vr])]
    if option == "clean-graphics":
        return [("REPLACE", "UnformattedTextValue", CLEAN_TEXT)] if row.keyword == "GraphicAnnotationSequence" else []
    if option == "clean-structured-content":
        return _clean_content(row)
    return _clean_descriptor(row)


def _clean_date(row: Row) -> list[Rule]:
    if row.vr in ("DA", "DT"):
        return [("JITTER", row.keyword, "var:patient_offset")]
    # A time of day, or an offset from UTC, says nothing once the day is shifted. Other VRs cannot be shifted.
    return [("KEEP", row.keyword, "")] if row.vr in ("TM", "SH") else []


def _clean_content(row: Row) -> list[Rule]:
    if row.keyword == "ContentSequence":
        kept = [field for _, field, _ in FREE_TEXT["ContentSequence"] if field != "TextValue"]
        return [*(("KEEP", field, "") for field in kept), ("REPLACE", "TextValue", CLEAN_TEXT)]
    return [("KEEP", row.keyword, "")]


def _clean_descriptor(row: Row) -> list[Rule]:
    if row.vr in TEXT_VRS:
        return [("REPLACE", row.keyword, CLEAN_TEXT)]
    if row.vr == "SQ":
        meaning = [("REPLACE", f"endswith:{row.keyword}__CodeMeaning", CLEAN_TEXT)] if "Code" in row.keyword else []
        return [("KEEP", row.keyword, ""), *meaning]
    # Bytes and enumerated values are not descriptions that can be cleaned: the basic action stays.
    return []


CONTENT_DUMMIES = {
    "TEXT": DUMMIES["UT"],
    "PNAME": DUMMIES["PN"],
    "DATE": DUMMIES["DA"],
    "TIME": DUMMIES["TM"],
    "DATETIME": DUMMIES["DT"],
    **dict.fromkeys(("UIDREF", "COMPOSITE", "IMAGE", "WAVEFORM"), "func:generate_value"),
}
"""By value type, what action D of Table E.3.4-1 writes: of a reference, the pseudonym of the instance."""


def basic_content_rules(row: ContentRow) -> list[Rule]:
    """Return the rules that carry out the basic profile's action for content items."""
    if row.action == "X":
        return [("REMOVE", field, "") for field in row.fields]
    return [("REPLACE", field, CONTENT_DUMMIES[row.value_type]) for field in row.fields]


def option_content_rules(option: str, row: ContentRow) -> list[Rule]:
    """Return the rules of an option that differ from the basic profile for content items."""
    code = row.options.get(option, "")
    if not code:
        return []
    if code == "C" and option == "clean-descriptors":
        return [("REPLACE", field, CLEAN_TEXT) for field in row.fields]
    if code == "C" and row.value_type != "TIME":
        return [("JITTER", field, "var:patient_offset") for field in row.fields]
    return [("KEEP", field, "") for field in row.fields]


def basic_text() -> str:
    """Return the recipe of the Basic Application Level Confidentiality Profile."""
    head = (
        f"# DICOM PS3.15 {EDITION} Annex E, Basic Application Level Confidentiality Profile: all rows of Table E.1-1.\n"
        "# Made by `python -m tools.ps3_15`; docs/conformance.md shows each row, its action and its test.\n"
        "# Composite actions (X/Z/D ...) are resolved by the type that the object's SOP class gives the attribute.\n"
    )
    rules = (rule for row in read_rows() for rule in basic_rules(row))
    return (
        head
        + _body("header", rules)
        + _supplement()
        + _content_body((row, basic_content_rules(row)) for row in read_content_rows())
    )


def supplementary_rules(keywords: Sequence[str]) -> list[Rule]:
    """Return the rules for attributes that Table E.1-1 does not name."""
    return [("REMOVE", keyword, "") for keyword in keywords]


def _supplement() -> str:
    lines = ["\n# Not in Table E.1-1: added by this package.\n"]
    for text, keywords in SUPPLEMENTS.items():
        lines.append(f"\n# {text}\n")
        lines += [f"{line_of(rule)}\n" for rule in supplementary_rules(keywords)]
    return "".join(lines)


def option_text(option: str) -> str:
    """Return the fragment of one option."""
    head = [f"# DICOM PS3.15 {EDITION} Annex E, {TITLES[option]}.", "# Made by `python -m tools.ps3_15`."]
    head.append(
        "# A rule here takes the place of the recipe's rules for the same field; KEEP of an element only takes them."
    )
    if option in NOTES:
        head.append(f"# {NOTES[option]}")
    rules = (rule for row in read_rows() for rule in option_rules(option, row))
    content = ((row, option_content_rules(option, row)) for row in read_content_rows())
    return "\n".join(head) + "\n" + _body("option", rules) + _content_body(content)


def _body(section: str, rules: Iterator[Rule]) -> str:
    lines = map(line_of, rules)
    return f"\nFORMAT dicom\n\n%{section}\n\n" + "".join(f"{line}\n" for line in dict.fromkeys(lines))


def _content_body(rows: Iterable[tuple[ContentRow, list[Rule]]]) -> str:
    lines = [f"{line_of(rule)}  # {row.meaning}\n" for row, rules in rows for rule in rules]
    return "".join(["\n# Structured content (Table E.3.4-1).\n\n", *lines]) if lines else ""


def line_of(rule: Rule) -> str:
    """Return a rule as a line of a recipe."""
    return " ".join(part for part in rule if part)
