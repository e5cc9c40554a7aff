"""Elements that objects repeat: with segments the engine does the same as without."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.recipe import Recipe

PLAIN = Settings(pixel_risk="allow", documents="allow", faces="allow", residuals="report")
OFFSET = Recipe.parse("FORMAT dicom\n%header\nJITTER endswith:Date var:patient_offset\nBLANK PatientName\n", "offset")
RECIPES = {
    "desktop": (Recipe.named("desktop"), PLAIN),
    "desktop-safe": (Recipe.named("desktop"), PLAIN.replace(private_elements="safe", residuals="redact-token")),
    "basic": (Recipe.named("ps3.15-basic"), profile_settings(settings=PLAIN)),
    "offset": (OFFSET, PLAIN.replace(residuals="quarantine", private_elements="keep")),
    "content": (
        Recipe.resolve(*recipe_names([Option.CLEAN_STRUCTURED_CONTENT])),
        profile_settings([Option.CLEAN_STRUCTURED_CONTENT], PLAIN),
    ),
}


def pseudonyms(identifiers: Collection[Identifier]) -> dict[Identifier, str]:
    forms = {IdentifierKind.UID: "2.25.{}", IdentifierKind.DATE_OFFSET: "-{}"}
    return {
        one: forms.get(one.kind, "P{}").format(sum(map(ord, one.value)) % 100 + len(one.value) + 1)
        for one in identifiers
    }


def outcome(deidentifier: Deidentifier, data: bytes) -> tuple[Any, ...]:
    """Return all that the engine says of an object, or why it is held."""
    try:
        analysis = deidentifier.analyse(data)
        result = deidentifier.rewrite(analysis, pseudonyms(analysis.identifiers))
    except Quarantine as held:
        return held.reason, held.where, held.offset
    removed = analysis.removed
    return (
        result.to_bytes(),
        dict(result.identifiers),
        result.rules,
        result.actions,
        result.notes,
        set(analysis.identifiers),
        analysis.patient,
        analysis.number("Rows"),
        None if removed is None else (removed.terms, removed.uids),
    )


def compared(name: str, objects: Iterable[bytes]) -> int:
    """Compare what an engine does with and without segments, and return the bytes of the segments that it made."""
    learning, plain = (Deidentifier(*RECIPES[name]) for _ in range(2))
    learner, plain.segments = learning.segments, None
    for data in objects:
        assert outcome(learning, data) == outcome(plain, data)
    return 0 if learner is None else learner.size


@pytest.mark.parametrize("kind", datasets.KINDS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_series_is_written_as_without_segments(name: str, kind: str) -> None:
    objects = [datasets.part10(one) for one in datasets.series(kind, 5, 12)]
    assert compared(name, objects) > 300, "nothing was repeated, so nothing was compared"


def encodings() -> Iterator[Encoding]:
    for one in datasets.all_encodings():
        yield one
        yield Encoding(one.transfer_syntax, one.sequences, one.items, group_lengths=True)


@pytest.mark.parametrize("encoding", [*encodings()], ids=str)
def test_every_encoding_is_written_as_without_segments(encoding: Encoding) -> None:
    headers = ([e for e in one if e.tag != 0x7FE00010] for one in datasets.series("ct", 3, 6))
    assert compared("desktop", (datasets.part10(one, encoding) for one in headers)) > 300


def mutated(draw: st.DrawFn, elements: list[Element]) -> list[Element]:
    """Return an object of the series with elements that are emptied, missing, changed, new or named in a text."""
    chosen = draw(st.sets(st.integers(0, len(elements) - 1), max_size=4))
    names = [e.value for e in elements if e.tag in (0x00100010, 0x00100020, 0x00080050, 0x00080018)]
    texts = ["", "x", "20240102", *names]
    changed = []
    for index, one in enumerate(elements):
        if index not in chosen:
            changed.append(one)
        elif draw(st.booleans()) and one.vr in ("LO", "SH", "PN", "DA", "UI", "CS", "ST", "LT", "TM"):
            changed.append(one._replace(value=draw(st.sampled_from(texts))))
    added = {
        "comment": element("ImageComments", draw(st.sampled_from(texts))),
        "creator": Element(0x00290012, "LO", "GEMS_PARM_01"),
        "safe": Element(0x00191024, "DS", "11.2"),
        "creator before": Element(0x00090009, "LO", "X"),
        "reference to an item": element("ReferencedContentItemIdentifier", [1, 1]),
        "private": Element(0x002910FF, "OB", b"20240102"),
        "set": element("SpecificCharacterSet", draw(st.sampled_from(["ISO_IR 192", "ISO_IR 100"]))),
    }
    extra = [added[one] for one in draw(st.sets(st.sampled_from(sorted(added)), max_size=3))]
    tags = {one.tag for one in extra}
    return [*(one for one in changed if one.tag not in tags), *extra]


@st.composite
def archives(draw: st.DrawFn) -> list[bytes]:
    """Draw objects of one or two series, in turns, some of which deviate."""
    kinds = draw(st.lists(st.sampled_from(["ct", "mr", "sr"]), min_size=1, max_size=2, unique=True))
    encoding = draw(st.sampled_from(list(encodings())))
    objects = []
    for of_kinds in zip(*(datasets.series(kind, draw(st.integers(0, 3)), 7) for kind in kinds), strict=True):
        for one in of_kinds:
            small = [e for e in one if e.tag != 0x7FE00010]
            elements = mutated(draw, small) if draw(st.integers(0, 2)) == 0 else small
            objects.append(datasets.part10(elements, encoding, complete=False))
    return objects


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=8, deadline=None)
@given(objects=archives())
def test_an_archive_is_written_as_without_segments(name: str, objects: list[bytes]) -> None:
    """Catches a result of one object that is used for another where the rules do something else."""
    compared(name, objects)
