"""Every row of PS3.15 Table E.3.4-1 is applied to the content items of its concept at any place.

Catches: an item that a row names and the recipe leaves, or of which a child stays; an item that no row names and that
goes; a value that an option should keep, shift or clean and does not; a reference by position that points elsewhere
afterwards; an item whose rule cannot be determined and that passes. `docs/conformance.md` names these tests row by row.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from tests.support.datasets import (
    COMPREHENSIVE_SR,
    CT_IMAGE,
    Element,
    Encoding,
    all_encodings,
    code,
    content_item,
    element,
    part10,
    reference,
)
from tools.ps3_15.table import ContentRow, read_content_rows

from dicom_deid.engine import Deidentifier
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import VALUE_TYPES, Recipe

ROWS = read_content_rows()
UID = "1.2.826.0.1.3680043.8.498.77.4"
TEXT = "Nodule stable, seen by Dr Quillon on 2011-03-04"
SECRETS = {
    "TEXT": element("TextValue", TEXT),
    "CODE": element("ConceptCodeSequence", [code("SECRET", "99SECRET", "Secret meaning")]),
    "NUM": element(
        "MeasuredValueSequence",
        [[element("NumericValue", "81.5"), element("FloatingPointValue", 81.5)]],
    ),
    "PNAME": element("PersonName", "Secret^Name"),
    "DATE": element("Date", "20110304"),
    "TIME": element("Time", "101112"),
    "DATETIME": element("DateTime", "20110304101112"),
    "UIDREF": element("UID", UID),
    **dict.fromkeys(("COMPOSITE", "IMAGE", "WAVEFORM"), element("ReferencedSOPSequence", [reference(CT_IMAGE, UID)])),
    "CONTAINER": element("ContinuityOfContent", "SEPARATE"),
}
HEADING = code("121070", "DCM", "Findings")
ENCODINGS = list(all_encodings())
EXPLICIT = Encoding()


def item(concept: Sequence[str], value_type: str, children: Sequence[Sequence[Element]] = ()) -> list[Element]:
    return content_item(value_type, code(*concept[:2], "Concept"), [SECRETS[value_type]], children)


def container(*children: list[Element]) -> list[Element]:
    return content_item("CONTAINER", HEADING, [SECRETS["CONTAINER"]], children)


def report(*tree: list[Element], encoding: Encoding = EXPLICIT, extra: Sequence[Element] = ()) -> bytes:
    elements = [
        element("SOPClassUID", COMPREHENSIVE_SR),
        element("SOPInstanceUID", "1.2.3"),
        element("StudyInstanceUID", "1.2.4"),
        element("PatientID", "77"),
        element("ValueType", "CONTAINER"),
        element("ConceptNameCodeSequence", [code("18748-4", "LN", "Diagnostic Imaging Report")]),
        element("ContentSequence", tree),
        *extra,
    ]
    return part10(elements, encoding)


def resolve(identifiers):
    forms = {IdentifierKind.UID: "2.25.", IdentifierKind.DATE_OFFSET: "-"}
    return {one: f"{forms.get(one.kind, 'P')}{number}" for number, one in enumerate(identifiers, 31)}


@cache
def engine(options: tuple[Option, ...] = ()) -> Deidentifier:
    settings = profile_settings(options).replace(residuals="off", documents="allow")
    return Deidentifier(Recipe.resolve(*recipe_names(options)), settings)


def deidentified(data: bytes, options: tuple[Option, ...] = ()) -> Dataset:
    return dcmread(io.BytesIO(engine(options).deidentify(data, resolve).to_bytes()))


def items_of(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the content items of a tree from the top to the bottom."""
    for one in dataset.get("ContentSequence", ()):
        yield one
        yield from items_of(one)


def found(dataset: Dataset, concept: Sequence[str], value_type: str) -> list[Dataset]:
    return [
        one
        for one in items_of(dataset)
        if one.get("ValueType") == value_type
        and one.ConceptNameCodeSequence[0].CodeValue == concept[0]
        and one.ConceptNameCodeSequence[0].CodingSchemeDesignator == concept[1]
    ]


def value(one: Dataset) -> object:
    """Return the value of a content item."""
    holder = SECRETS[one.ValueType]
    held = one[holder.tag]
    if held.VR != "SQ":
        return held.value
    inner = {"NUM": "NumericValue", "CODE": "CodeValue"}.get(one.ValueType, "ReferencedSOPInstanceUID")
    return held.value[0][inner].value


def row_id(row: ContentRow) -> str:
    return f"{row.code}-{row.value_type}"


def outcome(row: ContentRow, options: tuple[Option, ...] = ()) -> list[Dataset]:
    """Return the row's items, one at depth 1 and one at depth 3, as the profile leaves them."""
    concept = (row.code, row.scheme)
    subject = item(concept, row.value_type)
    encoding = ENCODINGS[ROWS.index(row) % len(ENCODINGS)]
    dataset = deidentified(
        report(container(), subject, container(container(subject, container()), container()), encoding=encoding),
        options,
    )
    assert len(found(dataset, ("121070", "DCM"), "CONTAINER")) == 5, "what stands beside the item stays"
    return found(dataset, concept, row.value_type)


@pytest.mark.filterwarnings("error:Invalid value for VR")
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_row(row: ContentRow) -> None:
    left = outcome(row)
    if row.action == "X":
        assert left == []
        return
    assert len(left) == 2
    for one in left:
        assert value(one) not in ("", None, value(_original(row)))


def _original(row: ContentRow) -> Dataset:
    dataset = dcmread(io.BytesIO(report(item((row.code, row.scheme), row.value_type))))
    first: Dataset = dataset.ContentSequence[0]
    return first


OPTION_ROWS = [
    pytest.param(row, Option(option), action, id=f"{option}-{row_id(row)}")
    for row in ROWS
    for option, action in row.options.items()
]


@pytest.mark.parametrize(("row", "option", "action"), OPTION_ROWS)
def test_option(row: ContentRow, option: Option, action: str) -> None:
    left = outcome(row, (option,))
    assert len(left) == 2
    for one in left:
        if action == "K" or row.value_type == "TIME":
            if row.value_type != "CONTAINER":
                assert value(one) == value(_original(row))
        elif option is Option.CLEAN_DESCRIPTORS:
            assert one.TextValue.startswith("Nodule stable")
            assert "Quillon" not in one.TextValue
            assert "2011" not in one.TextValue
        else:
            assert str(value(one))[:6] in ("201101", "201102"), "a month before the fourth of March"


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_row_holds_where_content_is_cleaned(row: ContentRow) -> None:
    """Items of the table are removed or replaced also if other content is cleaned and kept."""
    left = outcome(row, (Option.CLEAN_STRUCTURED_CONTENT,))
    assert len(left) == (0 if row.action == "X" else 2)
    for one in left:
        assert value(one) != value(_original(row))
        assert "Nodule" not in str(value(one))


@pytest.mark.parametrize("row", [row for row in ROWS if row.action == "X"], ids=row_id)
def test_neighbours_stay(row: ContentRow) -> None:
    """Another code, scheme or value type is another concept."""
    other_type = "TEXT" if row.value_type != "TEXT" else "CODE"
    concepts = [
        ((f"{row.code}0"[-16:], row.scheme), row.value_type),
        ((row.code, "99LOCAL"), row.value_type),
        *(
            []
            if any((r.code, r.value_type) == (row.code, other_type) for r in ROWS)
            else [((row.code, row.scheme), other_type)]
        ),
    ]
    dataset = deidentified(report(*(item(concept, value_type) for concept, value_type in concepts)))
    assert len(dataset.ContentSequence) == len(concepts)


def test_items_that_the_table_does_not_name() -> None:
    """Texts, codes and numbers are dummies under the basic profile; cleaned or kept where content is cleaned."""
    own = ("77", "99LOCAL")
    data = report(item(own, "TEXT"), item(own, "CODE"), item(own, "NUM"), item(own, "PNAME"))
    text, coded, number, name = items_of(deidentified(data))
    assert (value(text), value(coded), value(number), value(name)) == ("Anonymized", "ANONYMIZED", 0, "Anonymous")
    assert "FloatingPointValue" not in number.MeasuredValueSequence[0]
    text, coded, number, name = items_of(deidentified(data, (Option.CLEAN_STRUCTURED_CONTENT,)))
    assert (value(coded), value(number), value(name)) == ("SECRET", 81.5, "Anonymous")
    assert number.MeasuredValueSequence[0].FloatingPointValue == 81.5
    assert str(value(text)).startswith("Nodule stable")
    assert "Quillon" not in str(value(text))


ACCESSION = ("121022", "DCM")


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_an_item_is_removed_with_its_children(encoding: Encoding) -> None:
    data = report(container(item(ACCESSION, "TEXT", [item(("77", "99LOCAL"), "PNAME")])), encoding=encoding)
    (left,) = items_of(deidentified(data))
    assert "ContentSequence" not in left, "an empty tree is not valid"


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_an_empty_content_tree_is_removed(encoding: Encoding) -> None:
    grouped = Encoding(**{**encoding.__dict__, "group_lengths": True})
    data = report(item(ACCESSION, "TEXT"), item(ACCESSION, "TEXT"), encoding=grouped)
    dataset = deidentified(data)
    assert "ContentSequence" not in dataset
    out = engine().deidentify(data, resolve).to_bytes()
    again = Deidentifier(Recipe.parse("FORMAT dicom\n%header\n"), Settings.parity()).deidentify(out, resolve)
    assert dcmread(io.BytesIO(again.to_bytes())) == dataset, "lengths of groups, sequences and items are right"


@pytest.mark.parametrize("options", [(), (Option.CLEAN_STRUCTURED_CONTENT, Option.RETAIN_DEVICE_IDENTITY)], ids=str)
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_positions_stay_where_items_refer_to_them(encoding: Encoding, options: tuple[Option, ...]) -> None:
    """Nothing is removed from a tree with references by position, and nothing of what would be removed is left."""
    to_remove = [
        item((row.code, row.scheme), row.value_type, [item(("113880", "DCM"), "TEXT"), item(("7", "99LOCAL"), "NUM")])
        for row in ROWS
        if row.action == "X" and "retain-device-identity" not in row.options
    ]
    by_reference = [
        element("RelationshipType", "INFERRED FROM"),
        element("ReferencedContentItemIdentifier", [1, len(to_remove) + 1, 1]),
    ]
    data = report(*to_remove, container(item(("7", "99LOCAL"), "NUM"), by_reference), encoding=encoding)
    before, after = dcmread(io.BytesIO(data)), deidentified(data, options)
    assert [one.get("ValueType") for one in items_of(before)] == [one.get("ValueType") for one in items_of(after)]
    assert next(one for one in items_of(after) if "ReferencedContentItemIdentifier" in one)
    for number, one in enumerate(after.ContentSequence[:-1]):
        for left in (one, *items_of(one)):
            if left.ValueType != "CONTAINER":
                assert value(left) not in ("", None)
                assert value(left) != value(_original_of(left)), number


def _original_of(left: Dataset) -> Dataset:
    dataset = dcmread(io.BytesIO(report(item(ACCESSION, left.ValueType))))
    first: Dataset = dataset.ContentSequence[0]
    return first


def test_snomed_codes_of_before() -> None:
    """Reports of before 2018 write the same concept with a code of the scheme SRT."""
    data = report(item(("F-02455", "SRT"), "TEXT"), item(("160476009", "SCT"), "TEXT"))
    assert "ContentSequence" not in deidentified(data)


def test_a_value_of_another_type_than_declared() -> None:
    """An item that declares a code and holds the text of Subject ID is known by what it holds."""
    subject = item(("121020", "DCM"), "CODE")
    assert "ContentSequence" not in deidentified(report([*subject, SECRETS["TEXT"]]))


def test_a_value_that_is_a_sequence() -> None:
    hidden = Element(SECRETS["TEXT"].tag, "SQ", [[element("PatientName", "Secret^Name")]])
    serial = content_item("TEXT", code("113880", "DCM", "Device Serial Number"), [hidden])
    with pytest.raises(Quarantine) as problem:
        deidentified(report(serial), (Option.RETAIN_DEVICE_IDENTITY,))
    assert problem.value.reason is Reason.MALFORMED


def with_children(one: list[Element], children: list[list[Element]]) -> list[Element]:
    return [*one, element("ContentSequence", children)]


ITEM = st.builds(
    item,
    st.one_of(st.sampled_from([(row.code, row.scheme) for row in ROWS]), st.just(("77", "99LOCAL"))),
    st.sampled_from(sorted(SECRETS)),
)
TREE = st.recursive(
    ITEM, lambda children: st.builds(with_children, ITEM, st.lists(children, min_size=1, max_size=3)), max_leaves=12
)
BY_REFERENCE = [element("RelationshipType", "INFERRED FROM"), element("ReferencedContentItemIdentifier", [1, 1])]


@settings(max_examples=150, deadline=None)
@given(st.lists(TREE, min_size=1, max_size=4), st.booleans(), st.sampled_from(ENCODINGS))
def test_no_value_survives_in_any_tree(tree: list[list[Element]], by_reference: bool, encoding: Encoding) -> None:
    """Catches a combination of concepts, value types and places through which a value slips, whatever is removed."""
    data = report(*tree, *([BY_REFERENCE] if by_reference else []), encoding=encoding)
    out = deidentified(data)
    text = str(out)
    for secret in ("Nodule", "Quillon", "SECRET", "Secret", "81.5", "20110304", "101112", UID):
        assert secret not in text


# Content items outside of reports


def macro(concept: Sequence[str], held: Element, value_type: str | None = None) -> list[Element]:
    declared = [] if value_type is None else [element("ValueType", value_type)]
    return [*declared, element("ConceptNameCodeSequence", [code(*concept[:2], "Concept")]), held]


@pytest.mark.parametrize("value_type", ["TEXT", None])
def test_acquisition_context(value_type: str | None) -> None:
    items = [
        macro(ACCESSION, SECRETS["TEXT"], value_type),
        macro(("77", "99LOCAL"), element("NumericValue", "7"), value_type and "NUMERIC"),
    ]
    nested = element("ReferencedSeriesSequence", [[element("AcquisitionContextSequence", items[:1])]])
    data = report(container(), extra=[element("AcquisitionContextSequence", items), nested])
    assert "AcquisitionContextSequence" not in deidentified(data), "not part of a report"
    dataset = deidentified(data, (Option.CLEAN_STRUCTURED_CONTENT,))
    (left,) = dataset.AcquisitionContextSequence
    assert left.NumericValue == 7
    assert not dataset.ReferencedSeriesSequence[0].AcquisitionContextSequence


def test_an_item_without_a_name_outside_of_reports() -> None:
    """It follows the rules for elements, and does not keep an image from being delivered."""
    protocol = element("ProtocolContextSequence", [[element("PersonName", "Secret^Name")]])
    data = report(container(), extra=[element("PerformedProtocolCodeSequence", [[protocol]])])
    (left,) = deidentified(data).PerformedProtocolCodeSequence[0].ProtocolContextSequence
    assert left.PersonName == "Anonymous"


def test_an_item_with_two_names_outside_of_reports() -> None:
    """One of the names may be that of what must go: the object is refused."""
    names = element("ConceptNameCodeSequence", [code("77", "99LOCAL", "Other"), code(*ACCESSION, "Accession Number")])
    protocol = element("ProtocolContextSequence", [[element("ValueType", "TEXT"), names, SECRETS["TEXT"]]])
    with pytest.raises(Quarantine) as problem:
        deidentified(report(container(), extra=[element("PerformedProtocolCodeSequence", [[protocol]])]))
    assert problem.value.reason is Reason.MALFORMED


def test_specimen_preparation() -> None:
    steps = [macro(("121041", "DCM"), SECRETS["TEXT"], "TEXT"), macro(("111703", "DCM"), SECRETS["TEXT"], "TEXT")]
    preparation = [
        [element("SpecimenPreparationStepContentItemSequence", [*steps, macro(("7", "99X"), SECRETS["CODE"], "CODE")])]
    ]
    data = report(
        container(),
        extra=[
            element("SpecimenDescriptionSequence", [[element("SpecimenPreparationSequence", preparation)]]),
        ],
    )
    dataset = deidentified(data, (Option.CLEAN_STRUCTURED_CONTENT,))
    (description,) = dataset.SpecimenDescriptionSequence
    (left,) = description.SpecimenPreparationSequence[0].SpecimenPreparationStepContentItemSequence
    assert value(left) == "SECRET"


# Items whose rule cannot be determined

NAME = element("ConceptNameCodeSequence", [code("121022", "DCM", "Accession Number")])
MALFORMED = {
    "no concept name": [element("ValueType", "TEXT"), SECRETS["TEXT"]],
    "an empty concept name": [
        element("ValueType", "TEXT"),
        element("ConceptNameCodeSequence", []),
        SECRETS["TEXT"],
    ],
    "no value type": [NAME, SECRETS["TEXT"]],
    "an unknown value type": [element("ValueType", "TXT"), NAME, SECRETS["TEXT"]],
    "two value types": [element("ValueType", ["CODE", "TEXT"]), NAME, SECRETS["TEXT"]],
    "two items of concept name": [
        element("ValueType", "TEXT"),
        element("ConceptNameCodeSequence", [code("77", "99LOCAL", "Other"), code("121022", "DCM", "Accession Number")]),
        SECRETS["TEXT"],
    ],
    "two codes": [
        element("ValueType", "TEXT"),
        element("ConceptNameCodeSequence", [[*code("77", "DCM", "Other"), element("LongCodeValue", "121022")]]),
        SECRETS["TEXT"],
    ],
    "no coding scheme": [
        element("ValueType", "TEXT"),
        element("ConceptNameCodeSequence", [[element("CodeValue", "121022"), element("CodeMeaning", "x")]]),
        SECRETS["TEXT"],
    ],
    "a value beside a reference": [
        element("ReferencedContentItemIdentifier", [1, 1]),
        SECRETS["TEXT"],
    ],
    "nothing": [element("RelationshipType", "CONTAINS")],
}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("case", MALFORMED)
def test_an_item_whose_rule_cannot_be_determined(case: str, encoding: Encoding) -> None:
    for tree in ([MALFORMED[case]], [container(MALFORMED[case])]):
        with pytest.raises(Quarantine) as problem:
            deidentified(report(*tree, encoding=encoding))
        assert problem.value.reason is Reason.MALFORMED
        assert problem.value.where.startswith("(0040,a730)")


@pytest.mark.parametrize("value_type", sorted({*VALUE_TYPES} - {*SECRETS}))
def test_coordinates_and_tables_pass(value_type: str) -> None:
    """Items of other value types need no name, and no row names them."""
    data = report(container([element("RelationshipType", "CONTAINS"), element("ValueType", value_type)]))
    assert [one.ValueType for one in items_of(deidentified(data))] == ["CONTAINER", value_type]


# The residual search

SWEEPING = Deidentifier(
    Recipe.resolve(*recipe_names()), profile_settings().replace(residuals="quarantine", documents="allow")
)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_what_a_removed_item_held_is_searched(encoding: Encoding) -> None:
    fellow = content_item("PNAME", code("121088", "DCM", "Fellow"), [element("PersonName", "Quillon^Vantreese")])
    data = report(fellow, encoding=encoding, extra=[element("SoftwareVersions", "read by Vantreese")])
    with pytest.raises(Quarantine) as problem:
        SWEEPING.deidentify(data, resolve)
    assert problem.value.reason is Reason.RESIDUAL_FOUND


def test_the_name_of_a_removed_concept_is_no_residual() -> None:
    concept = code("121022", "DCM", "Accession Number")
    removed = content_item("TEXT", concept, [element("TextValue", "4711 8")])
    left = content_item("CODE", concept, [SECRETS["CODE"]])
    dataset = dcmread(io.BytesIO(SWEEPING.deidentify(report(removed, left), resolve).to_bytes()))
    assert len(dataset.ContentSequence) == 1
