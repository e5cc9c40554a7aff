"""Reviewers see pictures, masked text and content trees of held objects."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.datasets import Encoding, code, content_item, element, part10, sr_elements
from tests.support.held import Device, held_image
from tests.support.images import planted_image
from tests.support.runs import RunEnvironment

from dicom_deid.dicom.walk import MAX_DEPTH
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore, open_object_store
from dicom_deid.pipeline.pictures import (
    PictureNotPossible,
    Projection,
    Window,
    document_picture,
    frame_picture,
    projection_picture,
)
from dicom_deid.pipeline.review import NotReviewable, content_tree, read_unreadable, residual_texts
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

OFF = Settings(residuals="off", pixel_risk="allow", documents="allow")
ECHO = Device("ACME", "Echo 1")


@pytest.fixture
def place(s3, s3_bucket) -> RunEnvironment:
    return RunEnvironment(s3, s3_bucket, "")


def stored(place: RunEnvironment, data: bytes, key: str = "a.dcm") -> tuple[ObjectStore, SourceObject]:
    place.put({key: data})
    store = open_object_store(f"s3://{place.bucket}/in", place.connection)
    found = store.find(key)
    assert found is not None
    return store, found


def decoded(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)))


def frames_of(values: list[int]) -> bytes:
    """Return an 8-bit image of one grey value per frame."""
    pixels = np.array(values, np.uint8).repeat(32 * 48).tobytes()
    return part10(
        [
            element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.6.1"),
            element("SOPInstanceUID", "1.2.3"),
            element("SamplesPerPixel", 1),
            element("PhotometricInterpretation", "MONOCHROME2"),
            element("NumberOfFrames", len(values)),
            element("Rows", 32),
            element("Columns", 48),
            element("BitsAllocated", 8),
            element("BitsStored", 8),
            element("HighBit", 7),
            element("PixelRepresentation", 0),
            element("WindowCenter", 128),
            element("WindowWidth", 255),
            element("PixelData", pixels, "OB"),
        ]
    )


def test_a_frame(place):
    store, found = stored(place, frames_of([10, 20, 30]))
    picture = frame_picture(store, found, 1)
    assert (picture.frames, picture.total) == (1, 3)
    assert decoded(picture.png).shape == (32, 48)
    assert set(decoded(picture.png).flat) <= {19, 20, 21}
    with pytest.raises(PictureNotPossible, match="3 frames"):
        frame_picture(store, found, 3)


def test_a_window(place):
    store, found = stored(place, frames_of([10, 20, 30]))
    assert decoded(frame_picture(store, found, 2, Window(20, 10)).png).min() == 255
    assert decoded(frame_picture(store, found, 0, Window(20, 10)).png).max() == 0


@pytest.mark.parametrize(("projection", "value"), [("maximum", 90), ("minimum", 10), ("mean", 40)])
def test_a_projection_over_all_frames_of_several_objects(place, projection, value):
    store, first = stored(place, frames_of([10, 90]), "a")
    _, second = stored(place, frames_of([20]), "b")
    _, broken = stored(place, b"no DICOM", "c")
    picture = projection_picture(store, [first, broken, second], Projection(projection))
    assert abs(int(decoded(picture.png)[0, 0]) - value) <= 1
    assert (picture.frames, picture.total, picture.objects) == (3, 3, 2)


@pytest.mark.parametrize(
    ("photometric", "bits", "signed"),
    [
        ("MONOCHROME2", 8, False),
        ("MONOCHROME1", 8, False),
        ("MONOCHROME2", 12, False),
        ("MONOCHROME2", 16, True),
        ("RGB", 8, False),
        ("PALETTE COLOR", 8, False),
    ],
)
def test_images_of_every_kind_are_shown(place, photometric, bits, signed):
    """The planted text differs from what is around it."""
    planted = planted_image(1, rows=120, columns=160, photometric=photometric, bits=bits, signed=signed)
    dataset = planted.dataset
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    store, found = stored(place, file.getvalue())
    shown = decoded(frame_picture(store, found).png)
    assert shown.shape[:2] == (dataset.Rows, dataset.Columns)
    left, top, right, bottom = planted.boxes[0]
    assert shown[top:bottom, left:right].std() > 10


@pytest.mark.parametrize(
    "data", [b"", b"no DICOM", frames_of([1])[:400], frames_of([1])[:-9], part10(sr_elements(1))], ids=range(5)
)
def test_what_cannot_be_shown_is_said_without_a_value(place, data):
    store, found = stored(place, data or b"\0")
    with pytest.raises(PictureNotPossible) as caught:
        frame_picture(store, found)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_frame_that_would_fill_the_memory_is_refused(place):
    data = frames_of([1])
    rows = element("Rows", 32)
    place_of = data.index(b"\x28\x00\x10\x00US\x02\x00")
    huge = data[: place_of + 8] + (65535).to_bytes(2, "little") + data[place_of + 10 :]
    huge = huge.replace(b"\x28\x00\x11\x00US\x02\x00\x30\x00", b"\x28\x00\x11\x00US\x02\x00\xff\xff")
    assert rows.value == 32
    store, found = stored(place, huge)
    with pytest.raises(PictureNotPossible, match="too large"):
        frame_picture(store, found)


def test_the_first_picture_of_a_large_object_is_quick_and_small(place):
    """200 MB of frames: 2 s and 300 MB in a process of its own, also for a projection."""
    count = 200
    head = frames_of([0] * count)
    start = head.index(b"\xe0\x7f\x10\x00OB")
    head = head[:start].replace(b"\x28\x00\x10\x00US\x02\x00\x20\x00", b"\x28\x00\x10\x00US\x02\x00\x00\x04")
    head = head.replace(b"\x28\x00\x11\x00US\x02\x00\x30\x00", b"\x28\x00\x11\x00US\x02\x00\x00\x04")
    size = count * 2**20
    stored(place, head + b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little") + bytes(size))
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from dicom_deid.objectstore import S3Connection, open_object_store
        from dicom_deid.pipeline.pictures import Projection, frame_picture, projection_picture
        url, endpoint, region, access, secret = sys.argv[1:]
        connection = S3Connection(endpoint_url=endpoint, region=region, access_key=access, secret_key=secret)
        store = open_object_store(url, connection)
        stored = store.find("a.dcm")
        began = time.monotonic()
        frame_picture(store, stored, 100)
        print(time.monotonic() - began)
        projection_picture(store, [stored], Projection.MAXIMUM)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(int(status["VmHWM"].split()[0]) / 1024)
    """)
    arguments = [f"s3://{place.bucket}/in", place.s3.endpoint_url, place.s3.region, place.s3.access_key]
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments, place.s3.secret_key],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    seconds, megabytes = map(float, ran.stdout.split())
    assert seconds < 2, seconds
    assert megabytes < 300, megabytes


def test_pages_of_a_document(place):
    pdf = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>endobj\ntrailer<</Root 1 0 R>>\n"
    )

    def document(data: bytes) -> bytes:
        return part10(
            [
                element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.104.1"),
                element("SOPInstanceUID", "1.2.3"),
                element("EncapsulatedDocument", data),
            ]
        )

    store, found = stored(place, document(pdf))
    picture = document_picture(store, found)
    assert decoded(picture.png).shape == (150, 300, 3)
    with pytest.raises(PictureNotPossible, match="1 pages"):
        document_picture(store, found, 1)
    for data in (b"<ClinicalDocument/>", b"%PDF-1.4 nothing more"):
        store, found = stored(place, document(data))
        with pytest.raises(PictureNotPossible):
            document_picture(store, found)


def test_residuals_are_masked(place):
    """The value is masked wherever it is repeated, the element that it comes from is named."""
    data = held_image(ECHO, name="Quixote^Ana", comment="seen with Quixote, normal")
    store, found = stored(place, data)
    (residual,) = residual_texts(Deidentifier(Recipe.named("desktop"), OFF), store, found)
    assert residual.masked == "seen with ███████, normal"
    assert residual.text == "seen with Quixote, normal"
    assert residual.sources == ("Patient's Name",)
    assert residual.path == "(0020,4000)"
    assert "Quixote" not in repr(residual)


def test_a_content_tree_is_what_the_rules_would_leave(place):
    store, found = stored(place, part10(sr_elements(3)))
    lines = content_tree(Deidentifier(Recipe.named("desktop"), OFF), store, found)
    assert lines[0].value_type == "CONTAINER"
    assert {line.value_type for line in lines} >= {"TEXT"}
    assert max(line.level for line in lines) >= 1


def test_no_content_is_left_out_in_silence(place):
    """Catches a reviewer who releases a report whose deepest or last items were not shown."""
    rules = Deidentifier(Recipe.parse("FORMAT dicom\n%header\nREMOVE PatientName\n"), OFF)
    finding = code("121071", "DCM", "Finding")
    deep = content_item("TEXT", finding, [element("TextValue", "innermost")])
    for _ in range(MAX_DEPTH - 2):
        deep = content_item("CONTAINER", finding, [], [deep])
    for items, last in (([deep], "innermost"), ([deep] * 40, "only the first 2,000 are shown")):
        tree = element("ContentSequence", items)
        elements = [tree if one.tag == tree.tag else one for one in sr_elements(3)]
        store, found = stored(place, part10(elements, Encoding(sequences="undefined", items="undefined")))
        shown = content_tree(rules, store, found)[-1]
        assert last in f"{shown.concept} {shown.text}"


def test_unreadable_objects(place):
    """The byte, the element that is encoded there, how far pydicom reads, and the section of the standard."""
    whole = held_image(ECHO)
    position = whole.index(b"\x10\x00\x20\x00LO")
    lying = whole[: position + 6] + b"\xff\xfe" + whole[position + 8 :]
    store, found = stored(place, lying)
    read = read_unreadable(store, found, Reason.TRUNCATED, f"(0010,0020) at byte {position}")
    assert read.offset == position
    assert (
        read.element == f"(0010,0020) LO, length {0xFEFF} bytes; {len(lying) - position} of {len(lying)} bytes are left"
    )
    assert read.last == f"(0010,0020) LO, its value at byte {position + 8}"
    assert read.elements == 9
    assert "PS3.5 section 7.1" in read.standard


def test_what_is_no_dicom_has_no_elements(place):
    store, found = stored(place, b"no DICOM at all")
    read = read_unreadable(store, found, Reason.NOT_DICOM)
    assert (read.offset, read.element) == (None, "")
    assert "DICM" in read.standard
    with pytest.raises(NotReviewable):
        content_tree(Deidentifier(Recipe.named("desktop"), OFF), store, found)


def test_an_object_that_changed_is_not_shown(place):
    store, found = stored(place, frames_of([1]))
    place.put({"a.dcm": frames_of([2])})
    with pytest.raises(PictureNotPossible, match="changed"):
        frame_picture(store, found._replace(last_modified=datetime.fromtimestamp(time.time(), UTC)))
