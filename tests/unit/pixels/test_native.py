"""Uncompressed pixels: inside the regions black, outside the very same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from tests.support.images import header_of, image_dataset

from dicom_deid.engine.pixels import Region, clean_pixels
from dicom_deid.engine.pixels.layout import layout_of
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def painted(regions: list[Region], rows: int, columns: int) -> np.ndarray:
    """The mask (True is blank), painted pixel by pixel: another way to the same answer."""
    mask = np.zeros((rows, columns), bool)
    for region in regions:
        left, top, right, bottom = region.rectangle or (0, 0, columns, rows)
        for y in range(max(top, 0), min(bottom, rows)):
            for x in range(max(left, 0), min(right, columns)):
                mask[y, x] = region.blank
    return mask


numbers = st.integers(0, 14)
rectangles = st.tuples(numbers, numbers, numbers, numbers).map(lambda corners: Rectangle(*corners))
regions_lists = st.lists(st.builds(Region, st.booleans(), st.none() | rectangles), max_size=5)
monochrome = st.sampled_from(["MONOCHROME1", "MONOCHROME2"])
interpretations = st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR"])


@st.composite
def images(draw: st.DrawFn) -> Dataset:
    rows, columns, frames = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    photometric = draw(interpretations)
    allocated = draw(st.sampled_from([8, 16, 32] if photometric.startswith("MONO") else [8, 16]))
    samples = 1 if photometric.startswith(("MONO", "PALETTE")) else 3
    size = rows * columns * frames * samples * allocated // 8
    return image_dataset(
        draw(st.binary(min_size=size, max_size=size)),
        rows=rows,
        columns=columns,
        frames=frames,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=draw(st.integers(allocated // 2, allocated)),
        signed=photometric.startswith("MONO") and draw(st.booleans()),
        planar=draw(st.sampled_from([0, 1])),
    )


def cells(dataset: Dataset, data: bytes, *, big_endian: bool, swapped: bool) -> np.ndarray:
    """Samples as frames x rows x columns x samples, read by strides alone."""
    itemsize = dataset.BitsAllocated // 8
    if swapped:
        data = np.frombuffer(data, "<u2").byteswap().tobytes()
    shape: tuple[int, ...] = (
        int(dataset.get("NumberOfFrames", 1)),
        dataset.Rows,
        dataset.Columns,
        dataset.SamplesPerPixel,
    )
    kind = "i" if dataset.PixelRepresentation else "u"
    array = np.frombuffer(data, f"{'>' if big_endian else '<'}{kind}{itemsize}", count=int(np.prod(shape)))
    if dataset.get("PlanarConfiguration") == 1:
        return array.reshape(shape[0], shape[3], shape[1], shape[2]).transpose(0, 2, 3, 1)
    return array.reshape(shape)


@settings(max_examples=300, deadline=None)
@given(images(), regions_lists, st.sampled_from([IMPLICIT, EXPLICIT, BIG]), st.sampled_from(["OB", "OW"]))
def test_inside_is_black_and_outside_is_untouched(
    dataset: Dataset, regions: list[Region], syntax: str, vr: str
) -> None:
    """Catches a wrong stride, frame, plane, byte order or edge: in any of them a sample outside changes."""
    header = header_of(dataset)
    before = dataset.PixelData
    cleaned = clean_pixels(header, before, syntax, regions, vr=vr)
    mask = painted(regions, dataset.Rows, dataset.Columns)
    if cleaned is None:
        assert not mask.any()
        return
    assert mask.any()
    assert (cleaned.transfer_syntax_uid, cleaned.encapsulated, cleaned.vr) == (syntax, False, vr)
    assert len(cleaned.data) == len(before)
    order = {"big_endian": syntax == BIG, "swapped": syntax == BIG and vr == "OW" and dataset.BitsAllocated == 8}
    old = cells(dataset, before, **order)
    new = cells(dataset, bytes(cleaned.data), **order)
    assert np.array_equal(old[:, ~mask], new[:, ~mask])
    black = np.array(layout_of(header).black)
    assert (new[:, mask] == black).all()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 4),
    st.data(),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_single_bits(rows: int, columns: int, frames: int, data: st.DataObject, photometric: str) -> None:
    """Catches a wrong bit order, and frames taken to begin at a byte."""
    size = (rows * columns * frames + 7) // 8
    before = data.draw(st.binary(min_size=size, max_size=size))
    regions = data.draw(regions_lists)
    dataset = image_dataset(
        before, rows=rows, columns=columns, frames=frames, bits_allocated=1, photometric=photometric
    )
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, regions)
    mask = painted(regions, rows, columns)
    if cleaned is None:
        assert not mask.any()
        return

    def bits(value: bytes) -> np.ndarray:
        unpacked = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")
        return unpacked[: rows * columns * frames].reshape(frames, rows, columns)

    old, new = bits(dataset.PixelData), bits(bytes(cleaned.data))
    assert np.array_equal(old[:, ~mask], new[:, ~mask])
    assert (new[:, mask] == (1 if photometric == "MONOCHROME1" else 0)).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 2), st.data())
def test_shared_colour(rows: int, pairs: int, frames: int, data: st.DataObject) -> None:
    """YBR_FULL_422: the brightness outside stays, no colour of a blanked pixel is left."""
    columns = pairs * 2
    before = data.draw(st.binary(min_size=rows * columns * 2 * frames, max_size=rows * columns * 2 * frames))
    regions = data.draw(regions_lists)
    dataset = image_dataset(before, rows=rows, columns=columns, frames=frames, photometric="YBR_FULL_422")
    cleaned = clean_pixels(header_of(dataset), before, EXPLICIT, regions)
    mask = painted(regions, rows, columns)
    if cleaned is None:
        assert not mask.any()
        return
    old = np.frombuffer(before, np.uint8).reshape(frames, rows, pairs, 4)
    new = np.frombuffer(bytes(cleaned.data), np.uint8).reshape(frames, rows, pairs, 4)
    touched = mask.reshape(rows, pairs, 2)
    assert (new[..., :2][:, touched] == 0).all()
    assert np.array_equal(old[..., :2][:, ~touched], new[..., :2][:, ~touched])
    either = touched.any(axis=-1)
    assert (new[..., 2:][:, either] == 128).all()
    assert np.array_equal(old[..., 2:][:, ~either], new[..., 2:][:, ~either])


def test_what_a_reader_would_show_beyond_the_frames_is_blanked_too() -> None:
    """NumberOfFrames is missing but the data hold two frames and a half: pydicom shows the second one."""
    dataset = image_dataset(bytes([200]) * 100, rows=4, columns=10)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, [Region(True, Rectangle(0, 0, 10, 1))])
    assert cleaned is not None
    frame = bytes(10) + bytes([200]) * 30
    assert bytes(cleaned.data) == frame * 2 + bytes(20)


def test_old_overlay_bits_in_unused_bits_are_blanked() -> None:
    """A 12-bit image with an overlay in bit 12 (retired), which may show text."""
    dataset = image_dataset(np.full(16, 0x1ABC, "<u2").tobytes(), rows=4, columns=4, bits_allocated=16, bits_stored=12)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, [Region(True)])
    assert cleaned is not None
    assert not any(cleaned.data)


def test_full_colour_declared_as_422_is_cleaned() -> None:
    """Some ultrasound devices write YBR_FULL_422 over three whole samples a pixel."""
    dataset = image_dataset(bytes([99]) * 4 * 4 * 3, rows=4, columns=4, photometric="YBR_FULL_422")
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, [Region(True, Rectangle(0, 0, 4, 2))])
    assert cleaned is not None
    assert bytes(cleaned.data) == bytes(24) + bytes([99]) * 24


def test_header_says_that_the_image_is_derived_and_clean() -> None:
    dataset = image_dataset(bytes(16), rows=4, columns=4, image_type=("ORIGINAL", "PRIMARY", "AXIAL"))
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, [Region(True)])
    assert cleaned is not None
    assert cleaned.elements[0x00080008] == ["DERIVED", "PRIMARY", "AXIAL"]
    assert cleaned.elements[0x00280301] == "NO"
    assert cleaned.elements[0x00880200] is None, "a thumbnail shows what was blanked"
    assert 0x00282110 not in cleaned.elements
    assert cleaned.notes == {Reason.PIXELS_CLEANED: 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": None},
        {"Rows": 0},
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "CMYK"},
        {"BitsAllocated": 12},
        {"HighBit": 15},
        {"BitsStored": 9},
        {"NumberOfFrames": 2},
        {"PhotometricInterpretation": ""},
    ],
)
def test_contradictions_are_quarantined(changes: dict[str, object]) -> None:
    """A header that does not fit the data does not say where the text is."""
    dataset = image_dataset(bytes(16), rows=4, columns=4)
    header = header_of(dataset)
    for keyword, value in changes.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    with pytest.raises(Quarantine) as caught:
        clean_pixels(header, dataset.PixelData, EXPLICIT, [Region(True)])
    assert caught.value.reason is Reason.PIXEL_DATA_UNREADABLE


def test_palette_black_is_the_darkest_colour() -> None:
    """The darkest index need not be 0."""
    dataset = image_dataset(bytes(16), rows=4, columns=4, photometric="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = np.full(256, 65535, "<u2")
        table[37] = 12
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table.tobytes())
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, [Region(True)])
    assert cleaned is not None
    assert bytes(cleaned.data) == bytes([37]) * 16
