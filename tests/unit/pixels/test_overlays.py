"""Overlay planes: what is blanked in the pixels is blanked in them, and every other bit stays."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from tests.support.engine import pseudonyms
from tests.support.images import image_dataset
from tests.unit.pixels.test_native import painted, regions_lists

from dicom_deid.engine import Deidentifier, DeidentifyResult, Settings
from dicom_deid.engine.pixels import FoundText, Region, TextFinder, overlay_of
from dicom_deid.engine.pixels.overlays import blanked_overlay
from dicom_deid.engine.profiles import recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe
from dicom_deid.recipe.filters import Rectangle

ROWS, COLUMNS = 20, 30
BLANK = "FORMAT dicom\n%filter graylist\nLABEL all\n contains Modality CT\n coordinates {}\n"
OPEN = Settings(residuals="off", pixel_risk="allow", documents="allow")


def with_overlay(
    bits: np.ndarray, *, origin: tuple[int, int] = (1, 1), group: int = 0x6000, dataset: Dataset | None = None
) -> Dataset:
    """An image with a plane of frames x rows x columns bits."""
    if dataset is None:
        dataset = image_dataset(bytes([7]) * ROWS * COLUMNS, rows=ROWS, columns=COLUMNS, modality="CT")
    packed = np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").tobytes()
    dataset.add_new((group, 0x0010), "US", bits.shape[1])
    dataset.add_new((group, 0x0011), "US", bits.shape[2])
    if len(bits) > 1:
        dataset.add_new((group, 0x0015), "IS", len(bits))
        dataset.add_new((group, 0x0051), "US", 1)
    dataset.add_new((group, 0x0040), "CS", "G")
    dataset.add_new((group, 0x0050), "SS", list(origin))
    dataset.add_new((group, 0x0100), "US", 1)
    dataset.add_new((group, 0x0102), "US", 0)
    dataset.add_new((group, 0x3000), "OW", packed + bytes(len(packed) % 2))
    return dataset


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    target = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(
        target,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    return target.getvalue()


def cleaned(data: bytes, recipe: str, options: Settings = OPEN) -> DeidentifyResult:
    return Deidentifier(Recipe.parse(recipe), options).deidentify(data, pseudonyms)


planes = st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=300, deadline=None)
@given(planes, st.tuples(st.integers(-15, 15), st.integers(-15, 15)), regions_lists, st.data())
def test_overlay_bits_on_blanked_pixels_are_cleared_and_all_others_kept(
    shape: tuple[int, int, int], origin: tuple[int, int], regions: list[Region], data: st.DataObject
) -> None:
    """Against a mask painted pixel by pixel: catches a row taken to begin at a byte, a wrong bit order, an origin that
    is off by one or has the wrong sign, a frame that is left out; pydicom is the reader."""
    size = int(np.prod(shape))
    bits = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(shape)
    dataset = with_overlay(bits, origin=origin)
    overlay = overlay_of(dataset, 0x60003000, dataset[0x60003000].value)
    new = blanked_overlay(overlay, regions)
    # The mask is painted over a canvas that holds the image and the plane wherever it lies.
    top, left = origin[0] - 1, origin[1] - 1
    moved = [Region(r.blank, r.rectangle and Rectangle(*(edge + 40 for edge in r.rectangle))) for r in regions]
    mask = painted(moved, 90, 90)[40 + top : 40 + top + shape[1], 40 + left : 40 + left + shape[2]]
    expected = bits & ~mask
    if new is None:
        assert (expected == bits).all()
        return
    assert len(new) == len(dataset[0x60003000].value)
    dataset[0x60003000].value = new
    assert (dataset.overlay_array(0x6000).reshape(shape) == expected).all()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_a_filter_reaches_the_overlay_and_nothing_else_of_it(syntax: str, vr: str) -> None:
    """Through the engine, in each encoding: catches words that big endian swaps."""
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, (2, 9, 13)).astype(bool)
    dataset = with_overlay(bits, origin=(3, -2))
    dataset[0x60003000].VR = vr
    with_overlay(np.zeros((1, 4, 4), bool), group=0x6002, dataset=dataset)
    swapped = syntax == ExplicitVRBigEndian and vr == "OW"
    if swapped:
        # pydicom writes the bytes of OW as they are.
        value = dataset[0x60003000].value
        dataset[0x60003000].value = np.frombuffer(value, "<u2").byteswap().tobytes()
    before = encoded(dataset, syntax)
    result = cleaned(before, BLANK.format("1,0,5,6"))
    after = dcmread(io.BytesIO(result.to_bytes()))
    written = after[0x60003000]
    value = written.value
    if swapped:
        value = np.frombuffer(value, "<u2").byteswap().tobytes()
    seen = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")[: bits.size].reshape(bits.shape)
    expected = bits.copy()
    expected[:, : 6 - 2, 1 + 3 : 5 + 3] = False
    assert (seen == expected).all()
    assert vr == written.VR or syntax == ImplicitVRLittleEndian
    assert after[0x60023000].value == dataset[0x60023000].value
    assert after[0x60000050].value == [3, -2]
    assert result.actions["overlay-blanked"] == 1


def test_an_overlay_beside_the_image_is_blanked_where_the_pixels_stay() -> None:
    """A rectangle that reaches beyond the image blanks what a plane shows there; the pixels are then not touched."""
    dataset = with_overlay(np.ones((1, 4, 8), bool), origin=(1, COLUMNS + 1))
    data = encoded(dataset)
    result = cleaned(data, BLANK.format(f"{COLUMNS},0,{COLUMNS + 4},9"))
    after = dcmread(io.BytesIO(result.to_bytes()))
    assert not after.overlay_array(0x6000).any()
    assert after.PixelData == dataset.PixelData
    assert "IconImageSequence" not in after


def test_what_is_blanked_up_to_an_edge_is_blanked_beyond_it() -> None:
    """A banner over the whole width of the image: a plane that begins left of it must not keep the first letters."""
    dataset = with_overlay(np.ones((1, ROWS + 8, COLUMNS + 8), bool), origin=(-3, -3))
    recipe = BLANK.format(f"0,0,{COLUMNS},5") + "  keepcoordinates 10,2,12,4\n"
    after = dcmread(io.BytesIO(cleaned(encoded(dataset), recipe).to_bytes())).overlay_array(0x6000)
    kept = np.zeros((9, COLUMNS + 8), int)
    kept[6:8, 14:16] = 1
    assert (after[:9] == kept).all()
    assert after[9:].all()


def test_compressed_pixels_and_their_overlay() -> None:
    dataset = with_overlay(np.ones((1, ROWS, COLUMNS), bool))
    dataset.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    after = dcmread(io.BytesIO(cleaned(encoded(dataset, RLELossless), BLANK.format("0,0,30,10")).to_bytes()))
    assert (after.overlay_array(0x6000).sum(axis=1) == [0] * 10 + [COLUMNS] * 10).all()
    assert (after.pixel_array.sum(axis=1) == [0] * 10 + [7 * COLUMNS] * 10).all()


def test_frames_beyond_the_announced_and_what_is_left_over_are_not_kept() -> None:
    """Some readers show frames beyond NumberOfFrames."""
    dataset = with_overlay(np.ones((1, 3, 7), bool))
    dataset[0x60003000].value = b"\xff" * 8
    overlay = overlay_of(dataset, 0x60003000, b"\xff" * 8)
    new = blanked_overlay(overlay, [Region(True, Rectangle(0, 0, 7, 2))])
    assert new is not None
    bits = np.unpackbits(np.frombuffer(new, np.uint8), bitorder="little")
    assert (bits[:63].reshape(3, 3, 7).sum(axis=2) == [0, 0, 7]).all()
    assert not bits[63]


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0x0010, 40), (0x0010, 0), (0x0011, 400), (0x0015, 2), (0x0050, [1]), (0x0050, None), (0x0100, 16), (0x0102, 3)],
)
def test_a_plane_that_contradicts_itself_is_quarantined_unless_it_is_removed(tag: int, value: object) -> None:
    """The place of its text is unknown."""
    dataset = with_overlay(np.ones((1, 9, 13), bool))
    if value is None:
        del dataset[0x60000000 | tag]
    else:
        dataset.add_new(0x60000000 | tag, {0x0015: "IS", 0x0050: "SS"}.get(tag, "US"), value)
    data = encoded(dataset)
    with pytest.raises(Quarantine) as caught:
        cleaned(data, BLANK.format("0,0,5,6"))
    assert caught.value.reason is Reason.PIXEL_DATA_UNREADABLE
    assert caught.value.where == "(6000,3000)"
    for recipe, options in (
        (BLANK.format("0,0,5,6"), OPEN.replace(overlays="remove")),
        (BLANK.format("0,0,5,6") + "%header\nREMOVE (6000,3000)\n", OPEN),
    ):
        assert 0x60003000 not in dcmread(io.BytesIO(cleaned(data, recipe, options).to_bytes()))
    assert dcmread(io.BytesIO(cleaned(data, "FORMAT dicom\n%header\n").to_bytes()))[0x60003000]


def embedded(position: int = 12, origin: tuple[int, int] = (1, 1)) -> Dataset:
    """A 12-bit image whose bit 12 is an overlay plane."""
    values = np.full((ROWS, COLUMNS), 0x1ABC, "<u2")
    dataset = image_dataset(
        values.tobytes(), rows=ROWS, columns=COLUMNS, modality="CT", bits_allocated=16, bits_stored=12
    )
    dataset.add_new(0x60000010, "US", ROWS)
    dataset.add_new(0x60000011, "US", COLUMNS)
    dataset.add_new(0x60000050, "SS", list(origin))
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", position)
    return dataset


def test_a_plane_inside_the_samples_is_blanked_with_them() -> None:
    after = dcmread(io.BytesIO(cleaned(encoded(embedded()), BLANK.format("0,0,30,10")).to_bytes()))
    values = np.frombuffer(after.PixelData, "<u2").reshape(ROWS, COLUMNS)
    assert not values[:10].any()
    assert (values[10:] == 0x1ABC).all()


def test_a_plane_inside_the_samples_that_is_shown_elsewhere_is_quarantined() -> None:
    """Its text would be shown beside the pixels that were blanked."""
    with pytest.raises(Quarantine) as caught:
        cleaned(encoded(embedded(origin=(4, 1))), BLANK.format("0,0,30,10"))
    assert caught.value.reason is Reason.PIXEL_DATA_UNREADABLE


attributes = st.sampled_from([0x0010, 0x0011, 0x0015, 0x0050, 0x0100, 0x0102])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(attributes, st.none() | st.binary(max_size=9)), st.booleans())
def test_hostile_attributes_are_quarantined_or_pass_and_nothing_else(
    hostile: dict[int, bytes | None], has_data: bool
) -> None:
    """Values of any length in place of the attributes: a fault of the program would stop a batch."""
    dataset = with_overlay(np.ones((1, 9, 13), bool))
    data = encoded(dataset)
    for tag, value in hostile.items():
        head = struct.pack("<HH", 0x6000, tag) + dataset[0x60000000 | tag].VR.encode() if tag != 0x0015 else b""
        at = data.find(head) if head else -1
        if at < 0:
            continue
        end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        new = b"" if value is None else head + struct.pack("<H", len(value)) + value
        data = data[:at] + new + data[end:]
    if not has_data:
        at = data.index(struct.pack("<HH", 0x6000, 0x3000))
        data = data[:at] + data[at + 12 + int.from_bytes(data[at + 8 : at + 12], "little") :]
    with suppress(Quarantine):
        cleaned(data, BLANK.format("0,0,5,6"))


OCR = OPEN.replace(pixel_risk="ocr")
RISKY = "FORMAT dicom\n%filter blacklist\nLABEL all\n contains Modality CT\n"


def letters(text: str, rows: int, columns: int, size: int = 18) -> np.ndarray:
    canvas = Image.new("1", (columns, rows))
    ImageDraw.Draw(canvas).text((12, rows // 2), text, fill=1, font=ImageFont.load_default(size))
    return np.asarray(canvas).astype(bool)


def test_text_in_an_overlay_is_found_and_blanked_there_alone() -> None:
    """Catches a search that looks at the pixels only, and boxes of a plane taken for boxes of the image."""
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    text = letters("MILLER, JOHN 1957", 120, 260)
    pixels = np.full((240, 320), 90, np.uint8)
    dataset = image_dataset(pixels.tobytes(), rows=240, columns=320, modality="CT")
    with_overlay(np.stack([np.zeros_like(text), text]), origin=(31, 41), dataset=dataset)
    mark = np.zeros((1, 240, 320), bool)
    mark[0, 200:220, 300:310] = True
    with_overlay(mark, group=0x6002, dataset=dataset)
    after = dcmread(io.BytesIO(cleaned(encoded(dataset), RISKY, OCR).to_bytes()))
    assert not after.overlay_array(0x6000).any()
    assert (after.overlay_array(0x6002) == mark[0]).all()
    assert after.PixelData == dataset.PixelData


def test_text_in_a_plane_inside_the_samples_is_found() -> None:
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    text = letters("MILLER, JOHN 1957", 240, 320)
    values = (np.full((240, 320), 500) | (text.astype("<u2") << 12)).astype("<u2")
    dataset = image_dataset(values.tobytes(), rows=240, columns=320, modality="CT", bits_allocated=16, bits_stored=12)
    dataset.add_new(0x60000102, "US", 12)
    after = dcmread(io.BytesIO(cleaned(encoded(dataset), RISKY, OCR).to_bytes()))
    values = np.frombuffer(after.PixelData, "<u2").reshape(240, 320)
    assert not (values >> 12).any()
    assert (values == 500).mean() > 0.8


class Uncertain(TextFinder):
    """Finds what may be text in any picture that is not black."""

    def __init__(self) -> None:
        pass

    def find(self, pictures: Sequence[np.ndarray], scale: float) -> list[tuple[FoundText, ...]]:
        found = (FoundText(Rectangle(1, 1, 9, 5), 0.5),)
        return [found if picture.max() == 255 else () for picture in pictures]


def test_what_may_be_text_in_an_overlay_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextFinder, "shared", staticmethod(Uncertain))
    dataset = with_overlay(np.ones((1, 9, 13), bool))
    with pytest.raises(Quarantine) as caught:
        cleaned(encoded(dataset), RISKY, OCR)
    assert caught.value.reason is Reason.PIXEL_RISK
    assert caught.value.where == "(6000,3000) may show text"


def cells(dataset: Dataset, big_endian: bool = False) -> np.ndarray:
    return np.frombuffer(dataset.PixelData, ">u2" if big_endian else "<u2")


SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
TAKES_OUT = {
    "the setting": ("", OPEN.replace(overlays="remove")),
    "the data": ("REMOVE startswith:60[0-9a-f]{2}3000\n", OPEN),
    "the group": ("REMOVE startswith:60\n", OPEN),
    "where it stands": ("BLANK (6000,0102)\n", OPEN),
    "the profile": (None, OPEN),
}


@pytest.mark.parametrize("how", TAKES_OUT)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_plane_inside_the_samples_goes_with_its_description(syntax: str, how: str) -> None:
    """A name drawn there would leave with the pixels, whose samples stay what they were."""
    lines, chosen = TAKES_OUT[how]
    recipe = (
        Recipe.resolve(*recipe_names())
        if lines is None
        else Recipe.parse(f"FORMAT dicom\n%header\n{lines}", "test.dicom")
    )
    dataset = embedded()
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = cells(dataset).astype(">u2").tobytes()
    data = encoded(dataset, syntax)
    after = dcmread(io.BytesIO(Deidentifier(recipe, chosen).deidentify(data, pseudonyms).to_bytes()))
    assert (cells(after, syntax == ExplicitVRBigEndian) == 0x0ABC).all()
    kept = dcmread(io.BytesIO(cleaned(data, "FORMAT dicom\n%header\nREMOVE (6000,1500)\n").to_bytes()))
    assert kept.PixelData == dataset.PixelData


def test_a_plane_in_pixels_of_an_implicit_vr_among_explicit_ones_is_taken_out() -> None:
    """Catches the VR of PixelData read where there is none, which ends as a fault of the program."""
    data = encoded(embedded())
    at = data.rindex(b"\xe0\x7f\x10\x00OW\0\0")
    mixed = data[: at + 4] + data[at + 8 :]
    after = cleaned(mixed, "FORMAT dicom\n%header\n", OPEN.replace(overlays="remove")).to_bytes()
    assert after.endswith(np.full(ROWS * COLUMNS, 0x0ABC, "<u2").tobytes())


def test_planes_in_the_lowest_bits_are_found() -> None:
    """OverlayBitPosition 0 may be one of the samples' own bits, or an unused one."""
    dataset = embedded(position=0)
    dataset.HighBit = 15
    data = encoded(dataset)
    dataset.PixelData = (cells(dataset) | 1).astype("<u2").tobytes()
    options = OPEN.replace(overlays="remove")
    after = dcmread(io.BytesIO(cleaned(encoded(dataset), "FORMAT dicom\n%header\n", options).to_bytes()))
    assert (cells(after) == 0x1ABC).all()
    untouched = Deidentifier(Recipe.parse("FORMAT dicom\n%header\n", "t"), options).analyse(data)
    assert untouched.handler_table.pixels is None


def test_a_plane_inside_the_samples_that_cannot_be_blanked_is_quarantined() -> None:
    """Compressed pixels, a position among the bits of the samples, or none at all."""
    recipe, options = "FORMAT dicom\n%header\n", OPEN.replace(overlays="remove")
    compressed = embedded()
    compressed.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    signed = embedded()
    signed[0x60000102].VR, signed[0x60000102].value = "SS", -1
    for dataset, syntax in ((compressed, RLELossless), (embedded(5), None), (signed, None)):
        with pytest.raises(Quarantine) as caught:
            cleaned(encoded(dataset, syntax or ExplicitVRLittleEndian), recipe, options)
        assert caught.value.reason is Reason.PIXEL_DATA_UNREADABLE


def test_an_image_with_a_plane_of_its_own_is_not_read_for_others() -> None:
    """Planes in OverlayData are common: their images, whatever their layout, pass as they are."""
    dataset = with_overlay(np.ones((1, 9, 13), bool))
    del dataset.BitsStored, dataset.PhotometricInterpretation
    after = cleaned(encoded(dataset), "FORMAT dicom\n%header\n", OPEN.replace(overlays="remove"))
    assert dcmread(io.BytesIO(after.to_bytes())).PixelData == dataset.PixelData
