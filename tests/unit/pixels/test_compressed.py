"""Compressed pixels: decoded, blanked, and encoded again so that two independent readers see the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID
from tests.support.images import header_of, image_dataset, planted_image
from tests.support.programs import program

from dicom_deid.engine.pixels import CleanedPixels, Region, clean_pixels, codec
from dicom_deid.engine.pixels.clean import NATIVE
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

EXPLICIT = "1.2.840.10008.1.2.1"
RLE, JPEG_LS, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
LOSSLESS = (RLE, JPEG_LS, J2K)
CORNER = [Region(True, Rectangle(0, 0, 10, 4)), Region(False, Rectangle(2, 1, 5, 3))]


def corner_mask(rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((rows, columns), bool)
    mask[0:4, 0:10] = True
    mask[1:3, 2:5] = False
    return mask


def compressed(dataset: Dataset, syntax: str) -> Dataset:
    dataset.compress(UID(syntax), generate_instance_uid=False)
    return dataset


def rewritten(dataset: Dataset, cleaned: CleanedPixels) -> Dataset:
    """The data set as the engine would write it."""
    for tag, value in cleaned.elements.items():
        if value is not None:
            keyword_owner = Dataset()
            keyword_owner.add_new(tag, vr_of(tag), value)
            dataset[tag] = keyword_owner[tag]
        elif tag in dataset:
            del dataset[tag]
    dataset.add_new(0x7FE00010, cleaned.vr, bytes(cleaned.data))
    dataset["PixelData"].is_undefined_length = cleaned.encapsulated
    dataset.file_meta.TransferSyntaxUID = UID(cleaned.transfer_syntax_uid)
    return dataset


def vr_of(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(tag)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(LOSSLESS),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR"]),
    st.sampled_from([(8, 8), (16, 12), (16, 16)]),
    st.booleans(),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_lossless_comes_back_the_same(
    syntax: str, photometric: str, bits: tuple[int, int], signed: bool, frames: int, recompress: bool, seed: int
) -> None:
    """Outside the regions every sample survives, inside all are black, in every frame and both ways of writing."""
    allocated, stored = bits if photometric.startswith("MONO") else (8, 8)
    signed = signed and photometric.startswith("MONO")
    rng = np.random.default_rng(seed)
    samples = 1 if photometric.startswith(("MONO", "PALETTE")) else 3
    least = -(1 << (stored - 1)) if signed else 0
    values = rng.integers(least, least + (1 << stored), (frames, 9, 14, samples))
    dtype = f"<{'i' if signed else 'u'}{allocated // 8}"
    dataset = image_dataset(
        values.astype(dtype).tobytes(),
        rows=9,
        columns=14,
        frames=frames,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=signed,
    )
    if photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", np.arange(256, dtype="<u2").tobytes())
    try:
        compressed(dataset, syntax)
    except (ValueError, RuntimeError):
        return  # the syntax has no place for it (PS3.5 section 8.2), or the encoder none for noise
    before = dataset.pixel_array.reshape(frames, 9, 14, -1).copy()
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER, recompress=recompress)
    assert cleaned is not None
    if not recompress:
        assert cleaned.transfer_syntax_uid == EXPLICIT
    after = rewritten(dataset, cleaned).pixel_array.reshape(before.shape)
    mask = corner_mask(9, 14)
    assert np.array_equal(before[:, ~mask], after[:, ~mask])
    most = least + (1 << stored) - 1
    black = {"MONOCHROME1": most, "MONOCHROME2": least}.get(photometric, 0)
    assert (after[:, mask] == black).all()
    assert dataset.PhotometricInterpretation == photometric


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_encoded_again_in_the_syntax_it_came_in(syntax: str, photometric: str) -> None:
    """The archive's size does not grow tenfold for a black box."""
    dataset = compressed(planted_image(3, photometric=photometric, rows=64, columns=80, frames=2).dataset, syntax)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    assert (cleaned.transfer_syntax_uid, cleaned.encapsulated, cleaned.vr) == (syntax, True, "OB")
    assert len(list(generate_frames(bytes(cleaned.data), number_of_frames=2))) == 2
    assert 0x00282110 not in cleaned.elements, "nothing was lost"


@pytest.mark.parametrize("syntax", [*LOSSLESS, EXPLICIT])
@pytest.mark.parametrize("bits", [8, 12])
def test_gdcm_reads_the_same(syntax: str, bits: int, tmp_path: Path) -> None:
    """A reader that shares no code with the codecs sees what pydicom sees."""
    dataset = planted_image(5, rows=64, columns=80, bits=bits, frames=2, modality="US").dataset
    if syntax != EXPLICIT:
        compressed(dataset, syntax)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    dataset = rewritten(dataset, cleaned)
    path = tmp_path / "cleaned.dcm"
    dataset.save_as(path, enforce_file_format=True)
    subprocess.run([program("gdcminfo"), str(path)], check=True, capture_output=True)
    native = tmp_path / "native.dcm"
    subprocess.run([program("gdcmconv"), "--raw", str(path), str(native)], check=True, capture_output=True)
    assert np.array_equal(dcmread(native).pixel_array, dataset.pixel_array)
    raw = tmp_path / "raw.bin"
    subprocess.run([program("gdcmraw"), "-i", str(native), "-o", str(raw)], check=True, capture_output=True)
    assert raw.read_bytes().startswith(dataset.pixel_array.tobytes())


def compressed_files() -> list[Path]:
    """The compressed images that are in pydicom's wheel."""
    found = []
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        try:
            dataset = dcmread(path, specific_tags=["Rows", "PixelData"])
        except InvalidDicomError:
            continue
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax and syntax.is_compressed and syntax not in NATIVE and "PixelData" in dataset:
            found.append(path)
    return found


def seen(dataset: Dataset) -> np.ndarray:
    """Frames x rows x columns x samples, in RGB where there is colour."""
    array = dataset.pixel_array
    return array.reshape(int(dataset.get("NumberOfFrames", 1) or 1), dataset.Rows, dataset.Columns, -1)


@pytest.mark.parametrize("path", compressed_files(), ids=lambda path: path.name)
def test_real_files(path: Path) -> None:
    """Files of many encoders: what a viewer shows outside the regions is what it showed before."""
    dataset = dcmread(path)
    try:
        before = seen(dataset).astype(np.int64)
    except Exception:
        with pytest.raises(Quarantine):
            clean_pixels(header_of(dataset), dataset.PixelData, str(dataset.file_meta.TransferSyntaxUID), CORNER)
        return
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid in (EXPLICIT, syntax)
    if syntax in codec.LOSSY:
        assert cleaned.transfer_syntax_uid == EXPLICIT
        assert cleaned.elements[0x00282110] == "01"
    after = seen(rewritten(dataset, cleaned)).astype(np.int64)
    mask = corner_mask(dataset.Rows, dataset.Columns)
    assert np.array_equal(before[:, ~mask], after[:, ~mask])
    inside = after[:, mask]
    assert (inside == inside[0, 0]).all()
    assert inside[0, 0].max() <= before.max()


@pytest.mark.parametrize("broken", ["empty", "no frames", "half", "noise", "a frame less"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_what_cannot_be_decoded_is_quarantined(syntax: str, broken: str) -> None:
    """Half a picture must not pass for a clean one, nor may a codec's own error come out."""
    dataset = compressed(planted_image(7, rows=64, columns=80, frames=2).dataset, syntax)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=2))
    value = {
        "empty": b"",
        "no frames": encapsulate([b"\0\0"] * 2),
        "half": encapsulate([frame[: len(frame) // 4 * 2] for frame in frames]),
        "noise": encapsulate([np.random.default_rng(1).bytes(500)] * 2),
        "a frame less": encapsulate(frames[:1]),
    }[broken]
    with pytest.raises(Quarantine) as caught:
        clean_pixels(header_of(dataset), value, syntax, CORNER)
    assert caught.value.reason is Reason.PIXEL_DATA_UNREADABLE


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        ("1.2.840.10008.1.2.4.102", Reason.VIDEO),
        ("1.2.840.10008.1.2.4.107", Reason.VIDEO),
        ("1.2.840.10008.1.2.4.94", Reason.PIXEL_DATA_UNREADABLE),
        ("1.2.840.10008.1.2.4.110", Reason.PIXEL_DATA_UNREADABLE),
        ("1.2.840.113619.5.2", Reason.PIXEL_DATA_UNREADABLE),
    ],
)
def test_syntaxes_that_are_not_decoded(syntax: str, reason: Reason) -> None:
    dataset = image_dataset(bytes(16), rows=4, columns=4)
    with pytest.raises(Quarantine) as caught:
        clean_pixels(header_of(dataset), dataset.PixelData, syntax, [Region(True)])
    assert caught.value.reason is reason


def test_frames_in_fragments_and_behind_an_extended_offset_table() -> None:
    """The old offsets do not fit the new frames: they are used, then removed."""
    dataset = compressed(planted_image(9, rows=64, columns=80, frames=3).dataset, RLE)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=3))
    plain = clean_pixels(header_of(dataset), dataset.PixelData, RLE, CORNER)
    value, offsets, lengths = encapsulate_extended(frames)
    header = header_of(dataset)
    header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = offsets, lengths
    extended = clean_pixels(header, value, RLE, CORNER)
    fragments = clean_pixels(
        header_of(dataset), encapsulate(frames, fragments_per_frame=2) + b"\xfe\xff\xdd\xe0\0\0\0\0", RLE, CORNER
    )
    assert plain is not None
    assert extended is not None
    assert fragments is not None
    assert plain.data == extended.data == fragments.data
    assert extended.elements[0x7FE00001] is None
    assert extended.elements[0x7FE00002] is None


def test_colour_of_lossy_jpeg_is_not_converted() -> None:
    """A lossy frame is decoded once: the stored YBR samples are the decoder's, no second rounding."""
    path = get_testdata_file("SC_rgb_small_odd_jpeg.dcm", download=False)
    assert path is not None
    dataset = dcmread(path)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    before = dataset.pixel_array
    cleaned = clean_pixels(
        header_of(dataset),
        dataset.PixelData,
        syntax,
        [Region(True, Rectangle(0, 0, 1, 1))],
    )
    assert cleaned is not None
    assert cleaned.elements[0x00280004] == "YBR_FULL"
    stored = np.frombuffer(bytes(cleaned.data), np.uint8, count=before.size).reshape(before.shape)
    assert tuple(stored[0, 0]) == (0, 128, 128)
    shown = convert_color_space(stored, "YBR_FULL", "RGB")
    assert np.array_equal(shown.reshape(-1, 3)[1:], before.reshape(-1, 3)[1:])


def test_an_encoder_that_changes_samples_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the encoder wrote is decoded again; if it differs, the frames are written uncompressed."""
    dataset = compressed(planted_image(11, rows=64, columns=80).dataset, RLE)
    other = planted_image(12, rows=64, columns=80).dataset
    frame = get_encoder(RLE).encode(other)
    monkeypatch.setattr("pydicom.pixels.encoders.base.Encoder.encode", lambda *_, **__: frame)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, RLE, CORNER)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid == EXPLICIT
