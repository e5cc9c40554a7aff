"""Text in pixels is found, blanked, and never guessed about."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from pydicom.uid import RLELossless
from tests.support.clips import CLIPS, COLUMNS, FRAMES, ROWS, clip
from tests.support.images import PlantedImage, header_of, image_dataset, plant_text, planted_image

from dicom_deid.engine.pixels import SEARCHED, FoundText, Region, TextFinder, clean_pixels, text_regions
from dicom_deid.engine.pixels.barcodes import barcode_regions
from dicom_deid.engine.pixels.detector import DetectedLine, LineDetector, readings_of, varied_parts
from dicom_deid.engine.pixels.images import pictures
from dicom_deid.engine.pixels.text import SURE, UNSURE, _confidence, _with_ends
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")

EXPLICIT = "1.2.840.10008.1.2.1"


BRIGHT = np.random.default_rng(3).integers(0, 255, (256, 256), np.uint8)


class Doubtful(LineDetector):
    """Finds given lines, and is not certain of them."""

    def __init__(self, *lines: np.ndarray) -> None:
        self.lines = lines

    def _lines(self, part: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        yield from ((corners, 0.4) for corners in self.lines)


def hidden(image: PlantedImage, syntax: str = EXPLICIT) -> list[float]:
    """Share of each planted box that is blanked in every frame."""
    header, data = header_of(image.dataset), image.dataset.PixelData
    regions = text_regions(header, data, syntax)
    cleaned = clean_pixels(header, data, syntax, regions, recompress=False)
    assert cleaned is not None
    frames = int(image.dataset.get("NumberOfFrames", 1))
    shape = (frames, image.dataset.Rows, image.dataset.Columns, image.dataset.SamplesPerPixel)
    dtype = np.dtype(f"<u{image.dataset.BitsAllocated // 8}")
    if image.dataset.PixelRepresentation:
        dtype = np.dtype("<i2")
    after = np.frombuffer(bytes(cleaned.data), dtype, count=int(np.prod(shape))).reshape(shape)
    black = np.zeros(after.shape[1:3], bool)
    for region in regions:
        left, top, right, bottom = region.rectangle or Rectangle(0, 0, 0, 0)
        black[max(top, 0) : bottom, max(left, 0) : right] = True
    assert (np.ptp(after[:, black].reshape(-1, shape[3]), axis=0) == 0).all()
    return [float(black[top:bottom, left:right].mean()) for left, top, right, bottom in image.boxes]


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (1, {"modality": "US", "size": 14}),
        (2, {"modality": "CT", "size": 14, "rows": 512, "columns": 512, "bits": 12, "signed": True}),
        (3, {"modality": "CR", "size": 20, "photometric": "MONOCHROME1", "bits": 12}),
        (4, {"modality": "US", "size": 16, "photometric": "RGB"}),
        (5, {"modality": "US", "size": 16, "photometric": "YBR_FULL"}),
        (6, {"modality": "SC", "size": 16, "photometric": "PALETTE COLOR"}),
        (7, {"modality": "MR", "size": 12, "rows": 256, "columns": 256, "lines": 2, "bits": 16}),
    ],
)
def test_planted_text_is_hidden(seed: int, options: dict[str, object]) -> None:
    """In each interpretation: a wrong rendering (inverted, swapped, clipped) finds nothing."""
    image = planted_image(seed, **options)
    assert min(hidden(image)) > 0.9


@pytest.mark.parametrize("turns", [1, 3])
def test_a_line_that_runs_up_or_down_is_read(turns: int) -> None:
    """The recogniser reads from left to right alone: a line turned the wrong way would be taken for noise."""
    image = planted_image(8, rows=256, columns=256, size=18, lines=1)
    ((left, top, right, bottom),) = image.boxes
    line = np.rot90(image.dataset.pixel_array[top - 3 : bottom + 3, left - 3 : right + 3], turns)
    corners = np.array([(0, 0), (line.shape[1], 0), line.shape[::-1], (0, line.shape[0])])
    readings = readings_of(np.ascontiguousarray(line), corners)
    read = TextFinder.shared()._recogniser.recognize_txt(readings)
    assert image.texts[0].replace(" ", "") in {text.replace(" ", "") for text in read.txts}


@pytest.mark.parametrize(("turned", "gap"), [(False, Rectangle(50, 8, 62, 28)), (True, Rectangle(8, 50, 28, 62))])
def test_the_gap_between_pieces_of_a_line_is_blanked(turned: bool, gap: Rectangle) -> None:
    """The detector may overlook a letter inside a line; what it finds further away or lower is no part of the line."""
    places = [
        Rectangle(0, 8, 50, 28),
        Rectangle(62, 10, 80, 26),
        Rectangle(120, 10, 140, 26),
        Rectangle(62, 30, 80, 46),
    ]
    if turned:
        places = [Rectangle(top, left, bottom, right) for left, top, right, bottom in places]
    found = _with_ends([FoundText(place, 0.1 if index else 1) for index, place in enumerate(places)])
    assert {one.rectangle for one in found if one.confidence >= SURE} == {places[0], places[1], gap}


def test_two_letters_as_large_as_an_organ_are_none() -> None:
    """A round head reads as 89 or OO for certain."""
    small, large = (DetectedLine(Rectangle(0, 0, *size), False, False, []) for size in ((40, 30), (500, 400)))
    assert _confidence(small, "89", 0.95) >= SURE
    assert _confidence(large, "89", 0.95) < UNSURE
    assert _confidence(large, "HANSEN", 0.95) >= SURE


def test_two_slanted_letters_are_none() -> None:
    """A vessel reads as X2; letters are written across, or up or down."""
    corners = np.array([(0, 0), (40, 0), (40, 20), (0, 20)])
    for angle, is_slanted in ((0, False), (10, False), (35, True), (-54, True), (90, False), (100, False)):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        (line,) = Doubtful((corners @ [[cos, sin], [-sin, cos]]).round().astype(np.int32) + 100).detect(BRIGHT, 1)
        assert line.is_slanted == is_slanted, angle
    slanted = DetectedLine(Rectangle(0, 0, 40, 30), True, False, [])
    assert _confidence(slanted, "X2", 0.95) < UNSURE
    assert _confidence(slanted, "HANSEN", 0.95) >= SURE


def test_a_mosaic_of_slices_is_no_text_and_text_on_it_is_found() -> None:
    """Rows of heads read as lines of zeros."""
    import cv2

    tiles, side = 6, 96
    across, down = np.meshgrid(*[np.arange(side) / side - 0.5] * 2)
    heads = []
    for place in range(tiles**2):
        radius = np.hypot(across, down / 1.2) / (0.35 + 0.1 * np.sin(np.pi * (place + 0.5) / tiles**2))
        heads.append(np.where(radius < 1, 0.45 + 0.25 * np.sin(9 * radius), 0))
    mosaic = np.vstack([np.hstack(heads[row * tiles : (row + 1) * tiles]) for row in range(tiles)])
    picture = np.round(mosaic * 255).astype(np.uint8)
    written = cv2.putText(picture.copy(), "HANSEN 4711", (190, 297), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 2)
    alone, with_text, cut = TextFinder.shared().find([picture, written, np.ascontiguousarray(picture[:, 30:])], 1)
    assert not [one for one in alone if one.confidence >= UNSURE]
    assert [one for one in cut if one.confidence >= UNSURE]  # a part of a mosaic is not known to be one
    covered = np.zeros(written.shape, bool)
    for left, top, right, bottom in (one.rectangle for one in with_text if one.confidence >= SURE):
        covered[max(top, 0) : bottom, max(left, 0) : right] = True
    assert covered[written != picture].all()


def test_what_nobody_can_read_is_not_read() -> None:
    """From noise the recogniser reads numbers. What is not read is nothing of its own, and may continue a line."""
    image = planted_image(8, rows=256, columns=256, size=18, lines=1)
    ((left, top, right, bottom),) = image.boxes
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    small = np.array([(left, top), (left + 15, top), (left + 15, top + 8), (left, top + 8)])
    line, piece = Doubtful(corners, small).detect(image.dataset.pixel_array, 1)
    assert line.readings
    assert not piece.readings
    assert not piece.is_certain


@pytest.mark.parametrize("contrast", [10, 200])
def test_what_is_flat_is_not_searched(contrast: int) -> None:
    """Neither a ground without letters, nor its noise; each line of letters, also faint, is in one part, whole."""
    image = planted_image(9, modality="SC", rows=700, columns=900, size=16, lines=2)
    is_letter = image.dataset.pixel_array != image.dataset.pixel_array[0, 0]
    noise = np.random.default_rng(1).integers(0, 4, is_letter.shape, np.uint8)
    picture = np.where(is_letter, contrast, 0).astype(np.uint8) + noise
    assert varied_parts(noise) == []
    parts = varied_parts(picture)
    assert sum(width * height for _, _, width, height in parts) < 0.5 * picture.size
    for left, top, right, bottom in image.boxes:
        assert any(x <= left and y <= top and right <= x + w and bottom <= y + h for x, y, w, h in parts)


def test_letters_that_differ_in_colour_alone() -> None:
    """Their brightness is that of the ground."""
    letters = planted_image(10, modality="SC", rows=300, columns=400, size=18, lines=2)
    where = letters.dataset.pixel_array != letters.dataset.pixel_array[0, 0]
    red, green = np.array([200, 0, 0], np.uint8), np.array([0, 102, 0], np.uint8)
    stored = np.where(where[..., np.newaxis], red, green)
    dataset = image_dataset(stored.tobytes(), rows=300, columns=400, photometric="RGB")
    assert min(hidden(PlantedImage(dataset, letters.boxes, letters.texts))) > 0.9


def test_small_text_in_a_large_image() -> None:
    """Shrunk to the network's size, 14-pixel letters in 2,000 pixels would vanish: tiles keep them."""
    image = planted_image(20, modality="CR", rows=1100, columns=1400, size=14, lines=3, bits=12)
    assert min(hidden(image)) > 0.9


def test_text_of_a_later_frame_of_a_compressed_image() -> None:
    """Each frame is looked at, and what is found is blanked in all."""
    image = planted_image(21, rows=240, columns=320, size=14, lines=2)
    plain = planted_image(22, rows=240, columns=320, size=14, lines=0)
    dataset = image_dataset(plain.dataset.PixelData + image.dataset.PixelData, rows=240, columns=320, frames=2)
    dataset.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    assert min(hidden(PlantedImage(dataset, image.boxes, image.texts), RLELossless)) > 0.9


def test_letters_at_the_top_of_the_range() -> None:
    """Anatomy in a hundredth of a 16-bit range: the second picture shows it, the first the letters."""
    values = np.random.default_rng(1).normal(300, 50, (64, 64)).astype("<u2")
    values[-1, -1] = 65535
    dataset = image_dataset(values.tobytes(), rows=64, columns=64, bits_allocated=16)
    (shown,) = pictures(header_of(dataset), dataset.PixelData, EXPLICIT)
    assert len(shown) == 2
    assert np.ptp(shown[0].ravel()[:-1]) < 5
    assert np.ptp(shown[1]) == 255


class Uncertain(TextFinder):
    """Finds one box, of a given confidence."""

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence

    def find(self, pictures: Sequence[object], scale: float) -> list[tuple[FoundText, ...]]:
        return [(FoundText(Rectangle(1, 1, 9, 5), self.confidence),) for _ in pictures]


@pytest.mark.parametrize(("confidence", "blanked"), [(0.9, 1), (0.6, 1), (0.3, 0)])
def test_confidence_decides(confidence: float, blanked: int) -> None:
    dataset = image_dataset(bytes(200), rows=10, columns=20)
    assert len(text_regions(header_of(dataset), dataset.PixelData, EXPLICIT, finder=Uncertain(confidence))) == blanked


def test_what_may_be_text_is_quarantined() -> None:
    dataset = image_dataset(bytes(200), rows=10, columns=20)
    with pytest.raises(Quarantine) as caught:
        text_regions(header_of(dataset), dataset.PixelData, EXPLICIT, finder=Uncertain(0.5))
    assert caught.value.reason is Reason.PIXEL_RISK
    assert SEARCHED.search(caught.value.where)


def test_text_that_the_header_announces_must_be_found() -> None:
    """BurnedInAnnotation YES and no text found: the text was missed."""
    dataset = image_dataset(bytes(200), rows=10, columns=20)
    dataset.BurnedInAnnotation = "YES"
    with pytest.raises(Quarantine) as caught:
        text_regions(header_of(dataset), dataset.PixelData, EXPLICIT, finder=Uncertain(0.1))
    assert caught.value.reason is Reason.BURNED_IN_ANNOTATION
    assert SEARCHED.search(caught.value.where)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [("1.2.840.10008.1.2.4.103", Reason.VIDEO), ("1.2.840.10008.1.2.4.90", Reason.PIXEL_DATA_UNREADABLE)],
)
def test_what_cannot_be_looked_at_is_quarantined(syntax: str, reason: Reason) -> None:
    dataset = image_dataset(bytes(200), rows=10, columns=20)
    with pytest.raises(Quarantine) as caught:
        text_regions(header_of(dataset), dataset.PixelData, syntax, finder=Uncertain(0.9))
    assert caught.value.reason is reason


def test_threads_share_one_finder() -> None:
    """The engine underneath keeps state in a call; two threads must not mix their boxes."""
    finder = TextFinder.shared()
    assert finder is TextFinder.shared()
    images = [planted_image(seed, rows=240, columns=320, lines=1).dataset.pixel_array for seed in (30, 31)]
    alone = [finder.find([image], 2) for image in images]
    together: dict[int, list[tuple[FoundText, ...]]] = {}

    def look(index: int) -> None:
        together[index] = finder.find([images[index % 2]], 2)

    threads = [threading.Thread(target=look, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(together[index] == alone[index % 2] for index in range(3))


class Counting(TextFinder):
    """Counts the pixels that are searched."""

    def __init__(self) -> None:
        self.pixels = 0
        self.inner = TextFinder.shared()

    def find(self, pictures: Sequence[np.ndarray], scale: float) -> list[tuple[FoundText, ...]]:
        self.pixels += sum(picture.shape[0] * picture.shape[1] for picture in pictures)
        return self.inner.find(pictures, scale)


@pytest.mark.parametrize("kind", CLIPS)
def test_text_of_a_clip_is_found_at_the_cost_of_three_frames(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is, in each frame; a clip of 60 frames must not cost 60 searches."""
    read: list[int] = []
    recogniser = TextFinder.shared()._recogniser
    recognise = recogniser.recognize_txt
    monkeypatch.setattr(recogniser, "recognize_txt", lambda lines: (read.append(len(lines)), recognise(lines))[1])
    frames, boxes = clip(CLIPS[kind])
    dataset = image_dataset(frames.tobytes(), rows=ROWS, columns=COLUMNS, frames=FRAMES)
    finder = Counting()
    regions = text_regions(header_of(dataset), dataset.PixelData, EXPLICIT, finder=finder)
    mask = np.zeros((ROWS, COLUMNS), bool)
    for region in regions:
        assert region.rectangle is not None
        left, top, right, bottom = region.rectangle
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
    for box in filter(None, boxes):
        left, top, right, bottom = box
        assert mask[top:bottom, left:right].mean() > 0.9
    assert mask.any() == any(boxes)
    assert finder.pixels <= 3 * ROWS * COLUMNS
    assert sum(read) <= 12  # letters that move leave traces in the projections: to read these takes seconds


@pytest.mark.parametrize("name", ["QRCode", "DataMatrix", "Code128", "PDF417", "Code39"])
@pytest.mark.parametrize("turned", [0, 1])
def test_codes_are_blanked(name: str, turned: int) -> None:
    """A bar code of a patient's number is not text, and any telephone reads it."""
    import zxingcpp

    code = zxingcpp.create_barcode("P-1234567", getattr(zxingcpp.BarcodeFormat, name))
    drawn = np.rot90(np.asarray(code.to_image(scale=2)), turned)
    picture = np.full((400, 500), 230, np.uint8)
    picture[60 : 60 + drawn.shape[0], 80 : 80 + drawn.shape[1]] = drawn
    dataset = image_dataset(picture.tobytes(), rows=400, columns=500)
    assert zxingcpp.read_barcodes(picture)
    regions = text_regions(header_of(dataset), dataset.PixelData, EXPLICIT)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, regions)
    assert cleaned is not None
    after = np.frombuffer(bytes(cleaned.data or b""), np.uint8).reshape(picture.shape)
    assert not zxingcpp.read_barcodes(after)
    dark = drawn < 100
    left_over = after[60 : 60 + drawn.shape[0], 80 : 80 + drawn.shape[1]][dark]
    assert (left_over == 0).mean() > 0.97
    assert (after == 0).mean() < 0.6


@pytest.mark.parametrize("name", ["Code128", "Code39", "Code93", "Codabar", "EAN13", "UPCA", "ITF"])
@pytest.mark.parametrize("angle", [0, 1, 8, 90, 168])
def test_linear_codes_are_found_at_any_angle(name: str, angle: int) -> None:
    import cv2
    import zxingcpp

    text = {"Codabar": "A12345678B", "EAN13": "4006381333931", "UPCA": "725272730706"}.get(name, "12345678")
    drawn = np.asarray(zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, name)).to_image(scale=2))
    picture = np.full((500, 600), 230, np.uint8)
    top, left = (np.array(picture.shape) - drawn.shape) // 2
    picture[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    turn = cv2.getRotationMatrix2D((300, 250), angle, 1)
    turned = np.asarray(cv2.warpAffine(picture, turn, (600, 500), borderValue=230), np.uint8)
    assert zxingcpp.read_barcodes(turned)
    assert barcode_regions(turned)[0]


def test_stripes_that_read_as_a_code_are_none() -> None:
    """Digits are read from a few rows of a saw-tooth, and its other rows are not like them."""
    import zxingcpp

    rows, columns = np.mgrid[0:768, 0:1024]
    picture, _, _ = plant_text(random.Random(0), (rows + columns) % 26 / 100, size=23, contrast=0.53, lines=4)
    striped = np.round(picture * 255).astype(np.uint8)
    assert zxingcpp.read_barcodes(striped)
    assert barcode_regions(striped) == ((), True)


def test_a_code_that_stays_readable_holds_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_deid.engine.pixels.text.barcode_regions", lambda _: ((), False))
    dataset = image_dataset(bytes(200), rows=10, columns=20)
    with pytest.raises(Quarantine) as caught:
        text_regions(header_of(dataset), dataset.PixelData, EXPLICIT, finder=Uncertain(0.1))
    assert caught.value.reason is Reason.PIXEL_RISK
    assert "bar code" in caught.value.where
    assert SEARCHED.search(caught.value.where)


def test_what_is_blanked_in_any_case_is_not_searched() -> None:
    """Unless the header announces text: then some must be found."""
    image = planted_image(1, modality="US", size=14, lines=2)
    header, data = header_of(image.dataset), image.dataset.PixelData
    assert text_regions(header, data, EXPLICIT, blanked=[Region(True)]) == ()
    header.BurnedInAnnotation = "YES"
    assert text_regions(header, data, EXPLICIT, blanked=[Region(True)])
