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
from dicom_deid.engine.handlers.basic import ObjectWalk
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


def headers(kind: str, *, without: Collection[int] = (), added: Collection[Element] = ()) -> list[list[Element]]:
    """Return the objects of a series without pixel data, without some elements and with others."""
    left_out = {0x7FE00010, *without, *(one.tag for one in added)}
    return [[*(e for e in one if e.tag not in left_out), *added] for one in datasets.series(kind, 3, 7)]


_CREATOR = Element(0x00190010, "LO", "GEMS_ACQU_01")
_ANOTHER_CREATOR = Element(0x00190010, "LO", "SIEMENS CT VA0  COAD")
_PRIVATE = [Element(0x00191000 | n, "DS", f"{n}.5") for n in (0x02, 0x23, 0x24, 0x27, 0xB0)]
_AFTER_EXPOSURE = [e.tag for e in datasets.ct_elements(1, rows=2, columns=2) if 0x00181152 < e.tag < 0x00190000]
_GREEK = element("PatientName", "\xc4\xe1")


@pytest.mark.parametrize(
    ("name", "usual", "deviating"),
    [
        pytest.param(
            "content",
            headers("sr"),
            headers("sr", added=[element("ReferencedContentItemIdentifier", [1, 1])]),
            id="an item that another may refer to by position is not removed",
        ),
        pytest.param(
            "desktop-safe",
            headers("ct", without=[0x001910B1], added=[_CREATOR, *_PRIVATE]),
            headers("ct", without=[0x001910B1], added=[_ANOTHER_CREATOR, *_PRIVATE]),
            id="private elements of another creator",
        ),
        pytest.param(
            "desktop-safe",
            headers("ct", without=[_CREATOR.tag, *_AFTER_EXPOSURE], added=_PRIVATE),
            headers("ct", without=_AFTER_EXPOSURE, added=[_CREATOR, *_PRIVATE]),
            id="private elements that have a creator at last",
        ),
        pytest.param(
            "content",
            headers("sr", added=[element("SpecificCharacterSet", "ISO_IR 100"), _GREEK]),
            headers("sr", added=[element("SpecificCharacterSet", "ISO_IR 126"), _GREEK]),
            id="another character set",
        ),
    ],
)
def test_an_object_that_deviates(name: str, usual: list[list[Element]], deviating: list[list[Element]]) -> None:
    """Catches a segment that is used although what precedes it, or another part of the object, gives it a meaning."""
    objects = [datasets.part10(one) for one in (*usual, *deviating, *usual)]
    assert compared(name, objects) > 300


def test_a_group_length_before_elements_of_several_groups() -> None:
    """Catches a group length that counts what the rules change in the groups behind its own."""
    usual = headers("ct")
    length = sum(len(datasets.encode([e], Encoding())) for e in usual[0] if e.tag >> 16 == 0x0008)
    deviating = headers("ct", added=[Element(0x00080000, "UL", length)])
    assert compared("desktop", [datasets.part10(one) for one in (*usual, *deviating)]) > 300


def test_all_that_a_walk_records_is_repeated_or_refused() -> None:
    """Catches something that handlers record of an object and that segments do not know of."""
    repeated = {"captured", "counts", "followed", "has_content", "identifiers", "keyed_by_study", "noted"}
    repeated |= {"opaque", "pending", "rules"}
    refused = {"added", "content_references", "group_lengths", "overlays", "pixel_data", "planes_removed", "signatures"}
    # Only handlers that are never part of a segment, or the engine outside of the walk, use these.
    elsewhere = {"codecs", "data_set", "encapsulated", "filters", "layout", "read_data_set", "unknown_words"}
    elsewhere |= {"repeated", "search_deferred", "segments", "value_lists"}
    assert set(ObjectWalk.__slots__) == repeated | refused | elsewhere


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
