"""Compressed pixels: decoded, blanked, and encoded again so that two independent readers see the same."""

from __future__ import annotations

import io
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import jpeglib
import numpy as np
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames, parse_basic_offsets
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID
from tests.support.compressed import (
    BASELINE,
    EXPLICIT,
    HTJ2K,
    J2K,
    J2K_LOSSY,
    JPEG_LOSSLESS,
    JPEG_LS,
    LOSSLESS,
    RLE,
    compressed,
    jpeg_dataset,
    twelve_bits,
)
from tests.support.engine import run
from tests.support.images import header_of, image_dataset, planted_image
from tests.support.programs import program

from dicom_deid.engine.pixels import CleanedPixels, Region, clean_pixels, codec
from dicom_deid.engine.pixels.clean import NATIVE
from dicom_deid.engine.pixels.codestream import read_codestream
from dicom_deid.engine.pixels.jpeg import blank_jpeg
from dicom_deid.engine.pixels.layout import layout_of
from dicom_deid.engine.pixels.regions import bands
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe
from dicom_deid.recipe.filters import Rectangle

TOOLS = {BASELINE: "dcmdjpeg", RLE: "dcmdrle", JPEG_LS: "dcmdjpls"}
TOLERANCE = 4
"""Two decoders of lossy JPEG may round and interpolate differently."""
READ_BY_GDCM = (RLE, JPEG_LS, J2K, *JPEG_LOSSLESS)
CORNER = [Region(True, Rectangle(0, 0, 10, 4)), Region(False, Rectangle(2, 1, 5, 3))]


def corner_mask(rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((rows, columns), bool)
    mask[0:4, 0:10] = True
    mask[1:3, 2:5] = False
    return mask


def rewritten(dataset: Dataset, cleaned: CleanedPixels) -> Dataset:
    """Return the data set as the engine would write it."""
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
    if syntax in HTJ2K or (syntax in JPEG_LOSSLESS and signed):
        # The codestream states that all bits are used.
        stored = allocated
        least = -(1 << (stored - 1)) if signed else 0
        assert dataset.BitsStored == stored
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


@pytest.mark.parametrize("syntax", [*READ_BY_GDCM, EXPLICIT])
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
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        array = dataset.pixel_array
    else:
        # pydicom takes whichever decoder it finds first, and those of lossy JPEG round differently.
        plugin = "pyjpegls" if "JPEG-LS" in syntax.name else "pylibjpeg"
        array = pixel_array(dataset, decoding_plugin=plugin)
    return array.reshape(int(dataset.get("NumberOfFrames", 1) or 1), dataset.Rows, dataset.Columns, -1)


@pytest.mark.parametrize("path", compressed_files(), ids=lambda path: path.name)
def test_real_files(path: Path) -> None:
    """Files of many encoders: what a viewer shows outside the regions is what it showed before."""
    dataset = dcmread(path)
    try:
        before = seen(dataset).astype(np.int64)
    except Exception:
        if dataset.BitsStored == 12:
            return  # see test_twelve_bits_of_jpeg_extended
        with pytest.raises(Quarantine):
            clean_pixels(header_of(dataset), dataset.PixelData, str(dataset.file_meta.TransferSyntaxUID), CORNER)
        return
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid in (EXPLICIT, syntax)
    mask = corner_mask(dataset.Rows, dataset.Columns)
    if syntax in codec.LOSSY:
        assert cleaned.elements[0x00282110] == "01"
        if cleaned.encapsulated:
            # If nothing was in the corner, its edge costs a few bytes.
            check_coefficients(dataset, cleaned, mask, more_bytes=10)
            return
        assert cleaned.transfer_syntax_uid == EXPLICIT
    after = seen(rewritten(dataset, cleaned)).astype(np.int64)
    # GDCM decodes 12 bits, pylibjpeg what `before` shows.
    assert np.abs(before[:, ~mask] - after[:, ~mask]).max() <= (dataset.BitsStored == 12 and syntax in codec.LOSSY)
    inside = after[:, mask]
    assert (inside == inside[0, 0]).all()
    assert inside[0, 0].max() <= before.max()


@pytest.mark.parametrize("broken", ["empty", "no frames", "half", "noise", "a frame less"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_what_cannot_be_decoded_is_quarantined(syntax: str, broken: str) -> None:
    """A part of a picture must not pass as clean, and no error of a codec may be raised."""
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
    before = seen(dataset)[0]
    cleaned = clean_pixels(
        header_of(dataset),
        dataset.PixelData,
        syntax,
        [Region(True, Rectangle(0, 0, 1, 1))],
        recompress=False,
    )
    assert cleaned is not None
    assert cleaned.elements[0x00280004] == "YBR_FULL"
    stored = np.frombuffer(bytes(cleaned.data), np.uint8, count=before.size).reshape(before.shape)
    assert tuple(stored[0, 0]) == (0, 128, 128)
    shown = convert_color_space(stored, "YBR_FULL", "RGB")
    assert np.array_equal(shown.reshape(-1, 3)[1:], before.reshape(-1, 3)[1:])


def test_an_encoder_that_changes_samples_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoded frames are decoded again; if they differ, the frames are written uncompressed."""
    dataset = compressed(planted_image(11, rows=64, columns=80).dataset, RLE)
    other = planted_image(12, rows=64, columns=80).dataset
    frame = get_encoder(RLE).encode(other)
    monkeypatch.setattr("pydicom.pixels.encoders.base.Encoder.encode", lambda *_, **__: frame)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, RLE, CORNER)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid == EXPLICIT


@pytest.mark.parametrize("columns", [40, 41])
@pytest.mark.parametrize("subsampling", [0, 1, 2, -1])
@pytest.mark.parametrize("frames", [1, 3])
def test_three_readers_agree_about_jpeg(columns: int, subsampling: int, frames: int, tmp_path: Path) -> None:
    """Odd columns with 4:2:2 are refused by no reader; what was written is what all of them show."""
    dataset = jpeg_dataset(33, columns, subsampling, frames)
    before = seen(dataset).astype(int)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, BASELINE, CORNER)
    assert cleaned is not None
    dataset = rewritten(dataset, cleaned)
    check_readers(dataset, tmp_path)
    after = seen(dataset).astype(int)
    assert np.array_equal(before[:, 24:, 24:], after[:, 24:, 24:])


def check_readers(dataset: Dataset, folder: Path) -> None:
    """Compare what pydicom, dcmtk and GDCM read of a written object, and the object's own description of itself."""
    path = folder / "cleaned.dcm"
    dataset.save_as(path, enforce_file_format=True)
    check_file(path, folder)


def check_file(path: Path, folder: Path) -> None:
    """Compare what the readers of a file show."""
    again = dcmread(path)
    assert len(again.PixelData) % 2 == 0
    mine = seen(again)
    if again["PixelData"].is_undefined_length:
        check_offsets(again)
    native = folder / "gdcm.dcm"
    subprocess.run([program("gdcmconv"), "--raw", str(path), str(native)], check=True, capture_output=True)
    theirs = seen(dcmread(native))
    assert np.abs(theirs.astype(int) - mine.astype(int)).max() <= TOLERANCE
    tool = TOOLS.get(str(again.file_meta.TransferSyntaxUID))
    if tool is not None:
        plain = folder / "dcmtk.dcm"
        options = ["+cn"] if tool == "dcmdjpeg" else []
        subprocess.run([program(tool), *options, str(path), str(plain)], check=True, capture_output=True)
        other = dcmread(plain)
        interpretations = {one.PhotometricInterpretation.removesuffix("_422") for one in (other, again)}
        assert len(interpretations) == 1
        assert np.abs(seen(other).astype(int) - mine.astype(int)).max() <= TOLERANCE


BLANK_CORNER = """FORMAT dicom
%filter graylist
LABEL all
  contains Modality CT
  coordinates 0,0,10,4
  keepcoordinates 2,1,5,3
"""


@pytest.mark.parametrize("columns", [40, 41])
@pytest.mark.parametrize(
    ("syntax", "photometric"),
    [
        (EXPLICIT, "RGB"),
        (RLE, "YBR_FULL"),
        (JPEG_LS, "MONOCHROME2"),
        (J2K, "RGB"),
        (J2K, "YBR_RCT"),
        (JPEG_LOSSLESS[1], "RGB"),
        (BASELINE, "YBR_FULL_422"),
    ],
)
def test_three_readers_agree_about_the_file_of_the_engine(
    syntax: str, photometric: str, columns: int, tmp_path: Path
) -> None:
    """Header, offset table and delimiters are those of the file as it is stored."""
    if syntax == BASELINE:
        dataset = jpeg_dataset(33, columns, 1, 3)
    else:
        stored = {"YBR_RCT": "RGB"}.get(photometric, photometric)
        dataset = planted_image(4, photometric=stored, rows=33, columns=columns, frames=3, lines=0).dataset
        dataset.PhotometricInterpretation = photometric
        if syntax != EXPLICIT:
            compressed(dataset, syntax)
    dataset.Modality = "CT"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    before = seen(dcmread(io.BytesIO(file.getvalue()))).astype(int)
    output = run(file.getvalue(), Recipe.parse(BLANK_CORNER)).to_bytes()
    path = tmp_path / "output.dcm"
    path.write_bytes(output)
    dumped = subprocess.run([program("dcmdump"), "-q", "+E", str(path)], check=True, capture_output=True)
    assert not dumped.stderr
    check_file(path, tmp_path)
    again = dcmread(path)
    assert again.file_meta.TransferSyntaxUID == syntax
    assert again.PhotometricInterpretation == {"YBR_RCT": "RGB"}.get(photometric, photometric)
    assert np.array_equal(seen(again).astype(int)[:, 16:, 16:], before[:, 16:, 16:])


def check_offsets(dataset: Dataset) -> None:
    """The basic offset table is empty or points to the first fragment of each frame (PS3.5 section A.4)."""
    value = dataset.PixelData
    offsets = parse_basic_offsets(value)
    frames = int(dataset.get("NumberOfFrames", 1))
    position = 8 + 4 * len(offsets)
    starts = []
    for _ in range(frames):
        starts.append(position - 8 - 4 * len(offsets))
        assert value[position : position + 4] == b"\xfe\xff\x00\xe0"
        length = int.from_bytes(value[position + 4 : position + 8], "little")
        assert length % 2 == 0
        position += 8 + length
    assert offsets in ([], starts)


@pytest.mark.parametrize("syntax", [J2K, JPEG_LS])
@pytest.mark.parametrize("recompress", [True, False])
def test_frames_with_more_bits_than_the_header_says(syntax: str, recompress: bool, tmp_path: Path) -> None:
    """Written with the header's BitsStored, bright pixels would wrap."""
    values = np.linspace(0, 65535, 40 * 40).astype("<u2")
    dataset = compressed(image_dataset(values.tobytes(), rows=40, columns=40, bits_allocated=16), syntax)
    dataset.BitsStored, dataset.HighBit = 12, 11
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER, recompress=recompress)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid == (syntax if recompress else EXPLICIT)
    dataset = rewritten(dataset, cleaned)
    assert (dataset.BitsStored, dataset.HighBit) == (16, 15)
    mask = corner_mask(40, 40)
    assert np.array_equal(dataset.pixel_array[~mask], values.reshape(40, 40)[~mask])
    check_readers(dataset, tmp_path)


@pytest.mark.parametrize("syntax", READ_BY_GDCM)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "RGB"])
@pytest.mark.parametrize(("rows", "columns", "frames"), [(33, 41, 1), (33, 41, 3), (32, 40, 2)])
def test_three_readers_agree(
    syntax: str, photometric: str, rows: int, columns: int, frames: int, tmp_path: Path
) -> None:
    image = planted_image(4, photometric=photometric, rows=rows, columns=columns, frames=frames, lines=0)
    dataset = compressed(image.dataset, syntax)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    check_readers(rewritten(dataset, cleaned), tmp_path)


@pytest.mark.parametrize("syntax", [J2K_LOSSY, "1.2.840.10008.1.2.4.203"])
def test_lossy_jpeg_2000_becomes_uncompressed_and_keeps_its_history(syntax: str) -> None:
    """A second lossy compression would lose more; that the first one lost something stays in the header."""
    dataset = planted_image(6, rows=64, columns=80, bits=12).dataset
    if syntax == J2K_LOSSY:
        dataset.compress(UID(syntax), encoding_plugin="pylibjpeg", generate_instance_uid=False, j2k_cr=[4])
    else:
        frame = imagecodecs.htj2k_encode(dataset.pixel_array, level=20, reversible=False)
        dataset.add_new(0x7FE00010, "OB", encapsulate([bytes(frame)]))
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_15444_1"
    before = dataset.pixel_array.copy()
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    assert cleaned.notes[Reason.PIXELS_DECOMPRESSED] == 1
    dataset = rewritten(dataset, cleaned)
    assert dataset.file_meta.TransferSyntaxUID == EXPLICIT
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionMethod) == ("01", "ISO_15444_1")
    mask = corner_mask(64, 80)
    assert np.array_equal(dataset.pixel_array[~mask], before[~mask])


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_twelve_bits_of_jpeg_extended(name: str, tmp_path: Path) -> None:
    """The scan header states no coefficient but the first, which libjpeg refuses; GDCM and dcmtk read all."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    dataset = dcmread(path)
    before = decoded_by_dcmtk(Path(path), tmp_path)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, str(dataset.file_meta.TransferSyntaxUID), CORNER)
    assert cleaned is not None
    assert cleaned.encapsulated
    assert cleaned.elements[0x00282110] == "01"
    check_coefficients(dataset, cleaned, corner_mask(dataset.Rows, dataset.Columns), more_bytes=10)
    output = tmp_path / "output.dcm"
    rewritten(dataset, cleaned).save_as(output, enforce_file_format=True)
    after = decoded_by_dcmtk(output, tmp_path)
    assert np.array_equal(after[8:], before[8:])
    assert not after[:4, :2].any()


def decoded_by_dcmtk(path: Path, folder: Path) -> np.ndarray:
    plain = folder / "plain.dcm"
    subprocess.run([program("dcmdjpeg"), path, str(plain)], check=True, capture_output=True)
    return dcmread(plain).pixel_array


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "RGB"])
@pytest.mark.parametrize("frames", [1, 3])
def test_twelve_bits_stay_jpeg(photometric: str, frames: int, tmp_path: Path) -> None:
    dataset = twelve_bits(70, 90, frames, photometric=photometric)
    before = seen_by_gdcm(dataset, tmp_path)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, "1.2.840.10008.1.2.4.51", CORNER)
    assert cleaned is not None
    assert cleaned.encapsulated
    check_coefficients(dataset, cleaned, corner_mask(70, 90))
    after = seen_by_gdcm(rewritten(dataset, cleaned), tmp_path)
    assert np.array_equal(after[:, 8:], before[:, 8:])
    assert np.array_equal(after[:, :, 16:], before[:, :, 16:])
    black = 4095 if photometric == "MONOCHROME1" else 0
    assert np.abs(after[:, :8, :8].astype(int) - black).max() <= 8


def test_twelve_bits_of_an_image_that_states_ten() -> None:
    dataset = twelve_bits(70, 90, photometric="MONOCHROME1")
    dataset.BitsStored, dataset.HighBit = 10, 9
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, syntax, CORNER)
    assert cleaned is not None
    assert cleaned.encapsulated
    (frame,), _ = codec.decode(bytes(cleaned.data or b""), header_of(dataset), layout_of(header_of(dataset)), syntax)
    assert np.abs(np.frombuffer(frame, "<u2").reshape(70, 90)[:8, :8].astype(int) - 1023).max() <= 8


def seen_by_gdcm(dataset: Dataset, folder: Path) -> np.ndarray:
    dataset.save_as(folder / "in.dcm", enforce_file_format=True)
    subprocess.run([program("gdcmconv"), "--raw", str(folder / "in.dcm"), str(folder / "raw.dcm")], check=True)
    array = dcmread(folder / "raw.dcm").pixel_array
    return array.reshape(int(dataset.get("NumberOfFrames", 1)), dataset.Rows, dataset.Columns, -1)


@pytest.mark.parametrize("syntax", [J2K, JPEG_LS, BASELINE])
def test_a_frame_that_states_another_size_is_not_decoded(syntax: str) -> None:
    """A few hundred bytes that state 65,500 x 65,500 pixels would take gigabytes."""
    if syntax == BASELINE:
        dataset = jpeg_dataset(64, 64, -1)
    else:
        dataset = compressed(image_dataset(bytes(4096), rows=64, columns=64), syntax)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    side = (64).to_bytes(4 if syntax == J2K else 2, "big") * 2
    assert side in frame
    huge = frame.replace(side, (65500).to_bytes(len(side) // 2, "big") * 2)
    for header, value in ((header_of(dataset), encapsulate([huge])), (huge_header(dataset), encapsulate([huge]))):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(Quarantine) as caught:
            clean_pixels(header, value, syntax, CORNER)
        assert caught.value.reason is Reason.PIXEL_DATA_UNREADABLE
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def huge_header(dataset: Dataset) -> Dataset:
    header = header_of(dataset)
    header.Rows = header.Columns = 65500
    return header


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\xff\x4f\xff\x51\0", b"\xff\xd8\xff\xe0\0\0" * 9]
)
def test_a_frame_without_a_header_has_no_size(frame: bytes) -> None:
    assert read_codestream(frame) is None


def coefficients(frame: bytes) -> list[np.ndarray]:
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        Path(file.name).write_bytes(readable(frame))
        image = jpeglib.read_dct(file.name)
        return [one for one in (image.Y, image.Cb, image.Cr) if one is not None]


def check_coefficients(dataset: Dataset, cleaned: CleanedPixels, mask: np.ndarray, more_bytes: int = 0) -> None:
    """Outside the coding units that the mask touches, no coefficient changes; inside, all blocks are one value."""
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    old = list(generate_frames(dataset.PixelData, number_of_frames=frames))
    new = list(generate_frames(bytes(cleaned.data or b""), number_of_frames=frames))
    assert len(old) == len(new)
    assert sum(map(len, new)) <= sum(map(len, old)) + more_bytes
    for before, after in zip(map(coefficients, old), map(coefficients, new), strict=True):
        tall = -(-before[0].shape[0] // before[-1].shape[0])
        wide = -(-before[0].shape[1] // before[-1].shape[1])
        units = np.zeros((-(-dataset.Rows // (8 * tall)), -(-dataset.Columns // (8 * wide))), bool)
        for row, column in np.argwhere(mask):
            units[row // (8 * tall), column // (8 * wide)] = True
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            scale = (tall, wide) if index == 0 else (1, 1)
            chosen = units.repeat(scale[0], axis=0).repeat(scale[1], axis=1)[: one.shape[0], : one.shape[1]]
            assert np.array_equal(one[~chosen], other[~chosen])
            assert not other[chosen].reshape(-1, 64)[:, 1:].any()
            assert len(np.unique(other[chosen][:, 0, 0])) <= 1


def readable(frame: bytes) -> bytes:
    """Return a frame with what jpeglib's own classes need: a precision of 8 bits, and a scan of the whole spectrum."""
    at = frame.find(b"\xff\xc1\0")
    frame = frame if at < 0 else frame[: at + 4] + b"\x08" + frame[at + 5 :]
    return frame.replace(b"\xff\xda\0\x08\x01\x01\0\0\0\0", b"\xff\xda\0\x08\x01\x01\0\0\x3f\0")


@pytest.mark.parametrize(("restart", "optimize"), [(0, False), (3, False), (0, True)])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("subsampling", [0, 1, 2, -1])
@pytest.mark.parametrize(("rows", "columns"), [(33, 41), (64, 80), (100, 17)])
def test_jpeg_stays_jpeg(rows: int, columns: int, subsampling: int, frames: int, restart: int, optimize: bool) -> None:
    """Of 4:4:4, 4:2:2, 4:2:0 and grey, with restart intervals and several frames, and never larger."""
    dataset = jpeg_dataset(rows, columns, subsampling, frames, restart=restart, optimize=optimize)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, BASELINE, CORNER)
    assert cleaned is not None
    assert (cleaned.transfer_syntax_uid, cleaned.encapsulated, cleaned.vr) == (BASELINE, True, "OB")
    assert cleaned.elements[0x00282110] == "01"
    assert 0x00280004 not in cleaned.elements
    mask = corner_mask(rows, columns)
    check_coefficients(dataset, cleaned, mask)
    after = seen(rewritten(dataset, cleaned))[0]
    # The last pixels of a region may take colour from beyond its edge, as readers interpolate it.
    assert after[:3, :8].max() <= 6


@pytest.mark.parametrize("markers", ["as written", "none", "Adobe"])
def test_rgb_stays_rgb(markers: str, tmp_path: Path) -> None:
    """Named by the components or by the segment of Adobe, which stays; or by nothing but the header."""
    dataset = jpeg_dataset(33, 41, 0, 2, rgb=True)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=2))
    assert all(b"Adobe" in frame for frame in frames)
    if markers == "none":
        frames = [frame[:2] + frame[frame.index(b"Adobe") + 12 :] for frame in frames]
    elif markers == "Adobe":
        frames = [with_components(frame, b"\1\2\3") for frame in frames]
    dataset.PixelData = encapsulate(frames)
    before = seen(dataset).astype(int)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, BASELINE, CORNER)
    assert cleaned is not None
    assert cleaned.encapsulated
    assert (b"Adobe" in bytes(cleaned.data or b"")) == (markers != "none")
    check_coefficients(dataset, cleaned, corner_mask(33, 41))
    dataset = rewritten(dataset, cleaned)
    after = seen(dataset).astype(int)
    assert np.array_equal(before[:, 24:, 24:], after[:, 24:, 24:])
    assert after[:, :3, :8].max() <= 6
    check_readers(dataset, tmp_path)


def with_components(frame: bytes, names: bytes) -> bytes:
    """Return a frame whose components have other names than R, G and B."""
    numbers = bytes.maketrans(b"RGB", names)
    for marker in (b"\xff\xc0", b"\xff\xda"):
        at = frame.index(marker) + 4
        end = at - 2 + int.from_bytes(frame[at - 2 : at], "big")
        frame = frame[:at] + frame[at:end].translate(numbers) + frame[end:]
    return frame


def test_progressive_frames_are_decoded() -> None:
    dataset = jpeg_dataset(32, 32, 2, progressive=True)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, BASELINE, CORNER)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid == EXPLICIT


@pytest.mark.parametrize("seed", range(4))
def test_damaged_jpeg_leaves_no_file_and_ends_no_process(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame is PHI: it must not stay in a folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rng = random.Random(seed)
    dataset = jpeg_dataset(64, 80, 2)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    layout = layout_of(header_of(dataset))
    results = []
    for _ in range(60):
        damaged = bytearray(frame)
        for _ in range(rng.choice([1, 3, 20])):
            damaged[rng.randrange(2, 620 if rng.random() < 0.7 else len(frame))] = rng.randrange(256)
        results.append(blank_jpeg([bytes(damaged)], layout, bands(CORNER, 64, 80)))
    assert None in results
    assert any(results)
    assert not list(tmp_path.iterdir())


def test_white_is_what_blanks_inverted_jpeg() -> None:
    dataset = jpeg_dataset(32, 32, -1)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, BASELINE, CORNER)
    assert cleaned is not None
    assert seen(rewritten(dataset, cleaned))[0, :3, :8].min() >= 250


def test_comments_in_jpeg_frames_are_removed() -> None:
    dataset = jpeg_dataset(32, 32, 2)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    comment = b"HANSEN^Maria"
    frame = frame[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + frame[2:]
    cleaned = clean_pixels(header_of(dataset), encapsulate([frame]), BASELINE, CORNER)
    assert cleaned is not None
    assert comment not in bytes(cleaned.data or b"")


def test_without_the_library_jpeg_is_decoded_and_the_audit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jpeglib", None)
    dataset = jpeg_dataset(32, 32, 2)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, BASELINE, CORNER)
    assert cleaned is not None
    assert cleaned.transfer_syntax_uid == EXPLICIT
    assert cleaned.notes[Reason.PIXELS_DECOMPRESSED] == 1
