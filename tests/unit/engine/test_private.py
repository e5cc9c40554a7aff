"""Private elements: what stays, what goes, and whose blocks they are."""

from __future__ import annotations

import pytest
from tests.support import datasets
from tests.support.datasets import Element, Encoding
from tests.support.engine import RULES_ALONE, read, run

from dicom_deid.engine.handlers.private import safe_private_elements
from dicom_deid.recipe import Recipe

GE = [
    Element(0x00190010, "LO", "GEMS_ACQU_01"),
    Element(0x00190011, "LO", "UNKNOWN VENDOR"),
    Element(0x00191023, "DS", "1.5"),
    Element(0x001910FE, "LO", "Doe^Jane"),
    Element(0x00191123, "LO", "Doe^Jane"),
    Element(0x00431010, "LO", "not in order"),
]


def objects(extra):
    kept = [e for e in datasets.ct_elements(1) if not (e.tag >> 16) % 2]
    for encoding in (Encoding(), Encoding(datasets.IMPLICIT_LE), Encoding(datasets.EXPLICIT_BE)):
        yield datasets.part10([*kept, *extra], encoding)


def private(dataset):
    return {f"{e.tag.group:04x}{e.tag.element:04x}" for e in dataset.elements() if e.tag.is_private}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("remove", set()),
        ("safe", {"00190010", "00191023"}),
        ("keep", {"00190010", "00190011", "00191023", "001910fe", "00191123", "00431010"}),
    ],
)
def test_policies(policy, expected):
    """Catches a safe element without its creator, a creator without elements, or the other block of a safe number."""
    for data in objects(GE):
        assert private(read(run(data, "", RULES_ALONE.replace(private_elements=policy)))) == expected


def test_a_block_is_identified_by_its_creator_and_not_by_its_number():
    """Catches the safe list applied to (0019,xx23) whichever creator reserved the block."""
    moved = [
        Element(0x001900A0, "LO", "GEMS_ACQU_01"),
        Element(0x0019A023, "DS", "1.5"),
        Element(0x00191023, "DS", "2"),
    ]
    for data in objects(moved):
        assert private(read(run(data, ""))) == {"001900a0", "0019a023"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("remove", set()), ("safe", {"00190010", "00190011", "00191023", "00191123"})],
)
def test_elements_that_the_site_vouches_for(policy, expected):
    """Catches a site list that opens a whole block, that ignores the creator, or that overrides `remove`."""
    recipe = Recipe.parse('FORMAT dicom\n%safe-private\n(0019,"UNKNOWN VENDOR",23)  # slope\n')
    assert Recipe.parse(str(recipe)) == recipe
    for data in objects([*GE, Element(0x00191124, "LO", "Doe^Jane")]):
        assert private(read(run(data, recipe, RULES_ALONE.replace(private_elements=policy)))) == expected


def test_a_rule_comes_before_the_policy():
    for data in objects(GE):
        new = run(data, 'REPLACE (0019,"GEMS_ACQU_01",FE) x\nREMOVE (0019,"GEMS_ACQU_01",23)')
        assert private(read(new)) == {"00190010", "001910fe"}
        assert b"Doe^Jane" not in new.to_bytes()


def test_private_elements_in_items_have_the_creators_of_the_item():
    item = [Element(0x00190010, "LO", "GEMS_ACQU_01"), Element(0x00191024, "DS", "3")]
    other = [Element(0x00190010, "LO", "SOMEBODY"), Element(0x00191024, "LO", "Doe^Jane")]
    sequence = [Element(0x00081140, "SQ", [item, other])]
    for data in objects([*GE, *sequence]):
        first, second = read(run(data, "")).ReferencedImageSequence
        assert private(first) == {"00190010", "00191024"}
        assert private(second) == set()


def test_private_sequences_of_undefined_length_are_removed_with_their_items():
    nested = [
        Element(0x00290010, "LO", "SOMEBODY"),
        Element(0x00291001, "SQ", [[datasets.element("PatientName", "Doe")]]),
    ]
    for data in objects(nested):
        new = run(data, "")
        assert private(read(new)) == set()
        assert b"Doe" not in new.to_bytes()


def test_the_table_is_complete():
    assert len(safe_private_elements()) == 479
    assert (0x7053, "Philips PET Private Group", 0x09) in safe_private_elements()
