"""Elements that objects repeat: with segments the engine does the same as without."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator

import pytest
from tests.fuzz.repeats import ENGINES, differences, draw_archive
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element

from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.residuals.matcher import MAX_HITS
from dicom_deid.reasons import Reason


def compared(name: str, objects: Iterable[bytes]) -> int:
    """Compare what an engine does with and without segments, and return the bytes of the segments that it made."""
    found, size = differences(name, [(one, None) for one in objects])
    assert found == []
    return size


@pytest.mark.parametrize("kind", datasets.KINDS)
@pytest.mark.parametrize("name", ENGINES)
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
    # As it is, and ending within the group.
    for wrong in (0, -60, 700):
        deviating = headers("ct", added=[Element(0x00080000, "UL", length + wrong)])
        assert compared("desktop", [datasets.part10(one) for one in (*usual, *deviating)]) > 300


def test_an_object_full_of_identifiers_before_others_of_its_patient() -> None:
    """Catches a search of segments that ended early, and that the next object of the patient takes for complete."""
    protocol = element("ProtocolName", "As for PID778899")
    usual = headers("ct", added=[protocol])
    patient = [protocol, element("PatientID", "PID778899")]
    flooded = headers("ct", added=[*patient, element("ImageComments", "PID778899 " * (MAX_HITS + 9), "UT")])[:1]
    assert compared("desktop", map(datasets.part10, [*usual, *flooded, *headers("ct", added=patient)])) > 300


@pytest.mark.parametrize(("term", "codec"), [("GB18030", "gb18030"), ("\\ISO 2022 IR 87", "iso2022_jp")])
def test_a_name_in_text_of_a_character_set_that_is_named_before_the_segment(term: str, codec: str) -> None:
    """Catches text that is read with the default character set, in which the bytes beside the name are letters."""
    comments = element("ImageComments", "患者Annika来院".encode(codec))
    named = [element("SpecificCharacterSet", term), element("PatientName", "Doe^Annika"), comments]
    objects = [datasets.part10(one) for one in headers("ct", added=named)]
    assert compared("desktop", objects) > 300
    found = ENGINES["desktop"]().analyse(objects[0]).walk.noted
    assert found[Reason.RESIDUAL_REPORTED] == 1


def test_a_station_that_is_named_like_the_device_of_an_item() -> None:
    """Catches the names of a device in an item that are taken for those of the object's device."""
    persons = ("OperatorsName", "ReferringPhysicianName", "PerformingPhysicianName", "RequestingPhysician")
    device = [
        *(element(keyword, "CT99") for keyword in ("Manufacturer", "StationName")),
        *(element(keyword, "Doe^Jane") for keyword in persons),
        element("ContributionDescription", "Sent by CT99"),
    ]
    objects = []
    for number, one in enumerate(headers("ct", added=[element("StationName", "CT99")])):
        items = [device, [element("ContributionDescription", f"Image {number}")]]
        objects.append(datasets.part10([*one, element("ContributingEquipmentSequence", items)]))
    assert compared("desktop", objects) > 300
    assert ENGINES["desktop"]().analyse(objects[0]).walk.noted == {Reason.RESIDUAL_REPORTED: 1}


def test_a_name_where_a_station_is_found_that_is_named_like_the_device() -> None:
    """Catches a name that is lost because the place found beside it does not count, by another part of the object."""
    station = [element(keyword, "Xredaiguv") for keyword in ("StationName", "ManufacturerModelName")]
    named = [element("PatientName", "Bredaiguv^Anna"), *station, element("ProtocolName", "Seen Xredaiguv")]
    assert compared("desktop", [datasets.part10(one) for one in headers("ct", added=named)]) > 300


def test_all_that_a_walk_records_is_repeated_or_refused() -> None:
    """Catches something that handlers record of an object and that segments do not know of."""
    repeated = {
        "captured",
        "counts",
        "followed",
        "has_content",
        "has_document",
        "identifiers",
        "keyed_by_study",
        "noted",
    }
    repeated |= {"opaque", "pending", "rules"}
    refused = {"added", "content_references", "group_lengths", "overlays", "pixel_data", "planes_removed", "signatures"}
    # Only handlers that are never part of a segment, or the engine outside of the walk, use these.
    elsewhere = {
        "after_pixels",
        "beside_pictures",
        "codecs",
        "data_set",
        "encapsulated",
        "filters",
        "layout",
        "read_data_set",
        "unknown_words",
    }
    elsewhere |= {"search_deferred", "segments", "shared", "value_lists"}
    assert set(ObjectWalk.__slots__) == repeated | refused | elsewhere


@pytest.mark.parametrize("name", ENGINES)
def test_an_archive_is_written_as_without_segments(name: str) -> None:
    """Catches a result of one object that is used for another where the rules do something else."""
    for seed in range(8):
        assert differences(name, draw_archive(random.Random(f"{name} {seed}")))[0] == []
