"""Identifiers in comments of compressed frames, and after their codestreams."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from tests.support.compressed import (
    BASELINE,
    HTJ2K,
    J2K,
    JPEG_LOSSLESS,
    JPEG_LS,
    LOSSLESS,
    RLE,
    compressed,
    jpeg_dataset,
)
from tests.support.engine import pseudonyms
from tests.support.images import planted_image

from dicom_deid.engine import Deidentifier, DeidentifyResult, Settings
from dicom_deid.engine.pixels.codestream import beside_picture, beside_pictures
from dicom_deid.engine.residuals.matcher import MAX_HITS
from dicom_deid.exceptions import Quarantine
from dicom_deid.pipeline import fetch
from dicom_deid.pipeline.fetch import fetch_object
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

RECIPE = Recipe.named("desktop")
NAME = b"Hansen^Maria"
COMMENT = b"scan of Maria Hansen, ward 7"

Plant = Callable[[bytes], bytes]


def jpeg_comment(frame: bytes, marker: int = 0xFE, text: bytes = COMMENT) -> bytes:
    """Insert a marker segment after SOI."""
    return frame[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(text) + 2) + text + frame[2:]


def comment_between_scans(frame: bytes) -> bytes:
    """Insert a comment where the entropy-coded data end."""
    return frame[:-2] + b"\xff\xfe" + struct.pack(">H", len(COMMENT) + 2) + COMMENT + frame[-2:]


def j2k_comment(frame: bytes, before: bytes = b"\xff\x90") -> bytes:
    """Insert a comment before the first tile-part, or before its data, whose length in SOT grows with it."""
    at, tile = frame.index(before), frame.index(b"\xff\x90")
    segment = b"\xff\x64" + struct.pack(">HH", len(COMMENT) + 4, 1) + COMMENT
    if before == b"\xff\x93":
        (length,) = struct.unpack_from(">I", frame, tile + 6)
        frame = frame[: tile + 6] + struct.pack(">I", length + len(segment)) + frame[tile + 10 :]
    return frame[:at] + segment + frame[at:]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def jp2_file(frame: bytes) -> bytes:
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"xml ", b"<p>" + COMMENT + b"</p>") + box(b"jp2c", frame)


def rle_offset(frame: bytes) -> bytes:
    """Write a name over offsets that are not used."""
    return frame[:40] + NAME + frame[40 + len(NAME) :]


def after(frame: bytes) -> bytes:
    return frame + COMMENT


PLANTS: dict[str, tuple[str, Plant]] = {
    "comment of JPEG": (BASELINE, jpeg_comment),
    "application segment of JPEG": (BASELINE, lambda frame: jpeg_comment(frame, 0xE1, b"Exif\0\0II*\0" + COMMENT)),
    "comment between scans": (BASELINE, comment_between_scans),
    "after JPEG": (BASELINE, after),
    "comment of JPEG lossless": (JPEG_LOSSLESS[1], jpeg_comment),
    "after JPEG lossless": (JPEG_LOSSLESS[1], after),
    "comment of JPEG-LS": (JPEG_LS, jpeg_comment),
    "after JPEG-LS": (JPEG_LS, after),
    "comment of JPEG 2000": (J2K, j2k_comment),
    "comment of a tile-part": (J2K, lambda frame: j2k_comment(frame, b"\xff\x93")),
    "after JPEG 2000": (J2K, after),
    "box of JP2": (J2K, jp2_file),
    "comment of HTJ2K": (HTJ2K[0], j2k_comment),
    "after HTJ2K": (HTJ2K[0], after),
    "after RLE": (RLE, after),
    "offsets of RLE": (RLE, rle_offset),
}


def an_image(syntax: str, frames: int = 2) -> Dataset:
    if syntax == BASELINE:
        dataset = jpeg_dataset(40, 48, 2, frames)
    else:
        dataset = compressed(planted_image(3, rows=40, columns=48, frames=frames, lines=0).dataset, syntax)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName, dataset.PatientID = "Hansen^Maria", "4711-0815"
    return dataset


def encoded(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def planted(where: str, **how: Any) -> Dataset:
    """Return an image with an identifier in its last frame."""
    syntax, plant = PLANTS[where]
    dataset = an_image(syntax)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=2))
    dataset.PixelData = encapsulate([frames[0], plant(frames[1])], **how)
    return dataset


def deidentified(data: bytes, policy: str = "quarantine") -> DeidentifyResult:
    settings = Settings(residuals=policy, pixel_risk="allow", faces="allow")
    return Deidentifier(RECIPE, settings).deidentify(data, pseudonyms)


def shown(data: bytes) -> np.ndarray:
    return dcmread(io.BytesIO(data)).pixel_array


@pytest.mark.parametrize("policy", ["quarantine", "redact-token", "remove-element"])
@pytest.mark.parametrize("where", PLANTS)
def test_an_identifier_beside_the_picture_is_masked(where: str, policy: str) -> None:
    """The picture stays as it is, and the object is not held: no reader needs the comment."""
    data = encoded(planted(where))
    result = deidentified(data, policy)
    output = result.to_bytes()
    assert b"Maria" not in output
    assert result.notes[Reason.RESIDUAL_REMOVED] == 1
    if "box" not in where:
        assert np.array_equal(shown(output), shown(data))
    else:
        assert len(dcmread(io.BytesIO(output)).PixelData) == len(dcmread(io.BytesIO(data)).PixelData)


def test_a_comment_of_each_of_many_frames_is_masked() -> None:
    """Catches a limit for an object full of identifiers that frames with the same comment reach."""
    dataset = an_image(BASELINE)
    frame = jpeg_comment(next(generate_frames(dataset.PixelData, number_of_frames=2)))
    dataset.NumberOfFrames = MAX_HITS + 1
    dataset.PixelData = encapsulate([frame] * (MAX_HITS + 1))
    output = deidentified(encoded(dataset))
    assert output.notes[Reason.RESIDUAL_REMOVED] == MAX_HITS + 1
    assert b"Hansen" not in output.to_bytes()


@pytest.mark.parametrize("where", PLANTS)
def test_a_policy_that_only_reports_counts_it(where: str) -> None:
    result = deidentified(encoded(planted(where)), "report")
    assert result.notes[Reason.RESIDUAL_REPORTED] == 1
    assert b"Maria" in result.to_bytes()


@pytest.mark.parametrize("where", ["after JPEG", "comment of JPEG-LS", "after JPEG 2000", "comment of a tile-part"])
def test_frames_in_several_fragments(where: str) -> None:
    """A codestream goes on in the next fragment."""
    data = encoded(planted(where, fragments_per_frame=3))
    output = deidentified(data).to_bytes()
    assert b"Hansen" not in output
    assert b"Maria" not in output
    assert np.array_equal(shown(output), shown(data))


def test_the_basic_offset_table() -> None:
    dataset = an_image(J2K)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=2))
    without = encapsulate(frames, has_bot=False)
    table = NAME + b"  "
    dataset.PixelData = without[:4] + struct.pack("<I", len(table)) + table + without[8:]
    assert NAME not in deidentified(encoded(dataset)).to_bytes()


@pytest.mark.parametrize("syntax", [BASELINE, *LOSSLESS])
def test_pixel_data_without_identifiers_stay_as_they_are(syntax: str) -> None:
    """Also with what an encoder writes of itself."""
    dataset = an_image(syntax)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=2))
    if frames[0][:2] == b"\xff\xd8":
        frames = [jpeg_comment(frame, text=b"LEAD Technologies Inc. V1.01") for frame in frames]
    dataset.PixelData = encapsulate(frames)
    result = deidentified(encoded(dataset))
    assert not result.notes.get(Reason.RESIDUAL_REMOVED)
    assert bytes(dataset.PixelData) in result.to_bytes()


@pytest.mark.parametrize("syntax", [BASELINE, JPEG_LS, J2K, *JPEG_LOSSLESS, HTJ2K[0]])
def test_the_picture_is_not_searched(syntax: str) -> None:
    """Of ordinary frames nothing but comments of encoders is searched, so that they cost next to nothing."""
    dataset = an_image(syntax)
    data = bytes(dataset.PixelData)
    pieces = beside_pictures(data, 0, len(data))
    assert sum(len(piece.data) for piece in pieces) < 200
    assert all(data[at : at + len(piece)] == piece for at, piece, _ in pieces)
    assert all(piece.is_apart for piece in pieces)


@pytest.mark.parametrize(
    ("comment", "is_found"),
    [
        (b"for Lund", True),
        (b"Lund\r\n", True),
        (b"ward 7\r\nLund\r\n", True),
        ("Gerät 3, Lund".encode(), True),
        (b"Exif\0\0II*\0\x08\0\x01\x3b\x02\0Artist Dr Lund\0\0", True),
        (b"<about>" + b"\x01" + b"text " * 300 + b"Lund</about>", True),
        (b"\1\2\0" + "of Lund".encode("utf-16-le") + b"\3\4", True),
        (b"\1\2 Lund \3\4", False),
    ],
)
def test_a_name_of_four_letters_is_found_in_text_only(comment: bytes, is_found: bool) -> None:
    """In binary data four letters are a coincidence."""
    dataset = an_image(BASELINE)
    dataset.PatientName = "Lund^Ida"
    frames = list(generate_frames(dataset.PixelData, number_of_frames=2))
    dataset.PixelData = encapsulate([jpeg_comment(frames[0], 0xE1, comment), frames[1]])
    assert (comment not in deidentified(encoded(dataset)).to_bytes()) is is_found


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd8\xff\xd8",
        b"\xff\xd8\xff\xda\0\0",
        b"\xff\xd8" + b"\xff\xd0" * 9,
        b"\xff\x4f\xff\x51\0\0",
        b"\xff\x4f\xff\x51" + b"\0\2\xff\x90\0\2\0\0\0\0",
        b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\1",
    ],
)
def test_damaged_frames_end(frame: bytes) -> None:
    for position, data, _ in beside_picture(memoryview(frame)):
        assert frame[position : position + len(data)] == data


class Source:
    """A store of one object."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, key: str, *, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self.data[start:end]


@pytest.mark.parametrize(
    "where", ["comment of JPEG", "after JPEG", "comment of JPEG-LS", "after JPEG 2000", "after RLE"]
)
def test_a_large_object_is_held(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pixel data are copied from store to store, and cannot be changed."""
    data = encoded(planted(where))
    monkeypatch.setattr(fetch, "FIRST_BYTES", data.index(b"\xe0\x7f\x10\0") + 20)
    deidentifier = Deidentifier(RECIPE, Settings(pixel_risk="allow"))
    with pytest.raises(Quarantine) as caught:
        fetch_object(deidentifier, Source(data), "k", size=len(data), large_object_bytes=1)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.RESIDUAL_FOUND
    assert caught.value.where == "PixelData, original value of PatientName"
