"""Headers that the objects of a series share: objects that deviate at each element are written as without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fuzz.repeats import ENGINES, Observer
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element

_PIXEL_DATA = 0x7FE00010
_ENCODINGS = (Encoding(), Encoding(datasets.IMPLICIT_LE))


def headers(kind: str, count: int = 6) -> list[list[Element]]:
    """Return the objects of a series without their pixels."""
    return [[e for e in one if e.tag != _PIXEL_DATA] for one in datasets.series(kind, 3, count)]


def both(name: str, objects: list[bytes]) -> tuple[Observer, Observer]:
    """Return an engine that has learned the header of a series, and one that handles each element by itself."""
    learned, plain = Observer(ENGINES[name]()), Observer(ENGINES[name]())
    learner, plain.deidentifier.segments = learned.deidentifier.segments, None
    for data in objects:
        assert learned.outcome(data) == plain.outcome(data)
    assert learner is not None
    assert learner.headers, "no header is shared"
    return learned, plain


def deviations(elements: list[Element]) -> Iterator[list[Element]]:
    """Yield the object without each of its elements, with another value of each, and with one more before each."""
    tags = {one.tag for one in elements}
    for index, one in enumerate(elements):
        before, after = elements[:index], elements[index + 1 :]
        yield [*before, *after]
        yield [*before, one._replace(value=[] if one.vr == "SQ" else b""), *after]
        if one.vr in ("LO", "SH", "PN", "LT", "ST", "CS"):
            yield [*before, one._replace(value="OTHER"), *after]
        if one.tag - 1 not in tags and (one.tag - 1) & 0xFFFF > 0x0010:
            yield [*before, Element(one.tag - 1, "LO", "MORE"), *elements[index:]]
            yield [*before, one._replace(vr="UN", value=b"unknown "), *after]


@pytest.mark.parametrize("encoding", _ENCODINGS, ids=str)
@pytest.mark.parametrize("kind", ["ct", "sr"])
@pytest.mark.parametrize("name", ["desktop", "desktop-safe", "basic", "offset", "content", "issuer", "steps"])
def test_an_object_that_deviates_at_one_element(name: str, kind: str, encoding: Encoding) -> None:
    """Catches state of the walk, or an added element, that is another where the header ends early."""
    series = headers(kind)
    with_header, without = both(name, [datasets.part10(one, encoding) for one in series])
    for elements in deviations(series[-1]):
        # All objects are of one patient, whose identifiers an engine remembers.
        data = datasets.part10(elements, encoding, complete=False)
        assert with_header.outcome(data) == without.outcome(data)


def test_words_in_items_are_found_in_each_object() -> None:
    """Catches what a rule for the items of a shared sequence says of an object, lost with the header."""
    added = element("AdmittingDiagnosesCodeSequence", [datasets.code("X1", "99LOCAL", "Zwurbel of the knee")])
    cleaned = (
        "StudyDescription",
        "SeriesDescription",
        "AdditionalPatientHistory",
        "ContrastBolusAgent",
        "ProtocolName",
    )
    left_out = {element(one, "").tag for one in (*cleaned, "ImageComments", "RequestedProcedureDescription")}
    series = [[*(e for e in one if e.tag not in left_out), added] for one in headers("ct")]
    with_header, _ = both("vocabulary", [datasets.part10(one) for one in series])
    assert "zwurbel" in with_header.deidentifier.analyse(datasets.part10(series[-1])).walk.unknown_words


@pytest.mark.parametrize("name", ["desktop", "basic"])
@pytest.mark.parametrize(
    "added",
    [
        [element("PatientIdentityRemoved", "YES")],
        [element("DeidentificationMethod", "by hand")],
        [element("PatientIdentityRemoved", "YES"), element("DeidentificationMethod", "by hand")],
        [Element(0x00120061, "LO", "MORE")],
        [element("LongitudinalTemporalInformationModified", "UNMODIFIED")],
    ],
    ids=str,
)
def test_an_object_that_has_what_the_engine_adds(name: str, added: list[Element]) -> None:
    """Catches an element that is added although the object has it, or before one that belongs in front of it."""
    series = headers("ct")
    tags = {one.tag for one in added}
    with_header, without = both(name, [datasets.part10(one) for one in series])
    data = datasets.part10([*(one for one in series[-1] if one.tag not in tags), *added])
    assert with_header.outcome(data) == without.outcome(data)


@pytest.mark.parametrize("name", ["desktop", "basic"])
def test_an_object_that_is_cut_off(name: str) -> None:
    """Catches an element that reaches beyond the end of the object, or of the beginning that is given."""
    series = [datasets.part10(one) for one in headers("ct")]
    with_header, without = both(name, series)
    whole = series[-1]
    for end in range(200, len(whole), 7):
        # Where an element begins whose own header is cut off depends on whether its handler is known.
        assert with_header.outcome(whole[:end])[0] == without.outcome(whole[:end])[0]
        assert with_header.outcome(whole, end)[1:] == without.outcome(whole, end)[1:]


@pytest.mark.parametrize("name", ["desktop", "basic"])
@pytest.mark.parametrize("last", [0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0xFFFF], ids=hex)
def test_objects_that_end_before_what_the_engine_adds(name: str, last: int) -> None:
    """Catches an element that is added at the end of the first objects, and lost once their header is shared."""
    both(name, [datasets.part10([e for e in one if e.tag >> 16 <= last], complete=False) for one in headers("ct")])


def test_series_in_turns_have_headers_of_their_own() -> None:
    """Catches a header that is lost to the series that was read in between."""
    in_turns = [datasets.part10(one) for pair in zip(headers("ct"), headers("mr"), strict=True) for one in pair]
    observer = Observer(ENGINES["desktop"]())
    for data in in_turns * 3:
        observer.outcome(data)
    assert all(observer.deidentifier.analyse(data).walk.shared is not None for data in in_turns)
