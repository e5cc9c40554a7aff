"""Find text in pixels with a neural network that runs locally (extra `ocr`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine.pixels.barcodes import barcode_regions
from dicom_deid.engine.pixels.clip import LARGEST_CLIP, Findings, clip_text
from dicom_deid.engine.pixels.images import overlay_pictures, pictures, without_regions
from dicom_deid.engine.pixels.layout import PIXEL_DATA
from dicom_deid.engine.pixels.overlays import Overlay
from dicom_deid.engine.pixels.regions import Region
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    from pydicom import Dataset

    from dicom_deid.engine.pixels.images import Picture

SURE = 0.6
"""Text of at least this confidence is blanked."""
_CLEAR = 0.65
"""A line that the detector is this certain of is not read."""
UNSURE = 0.4
"""From this to `SURE` the object is quarantined; below, the finding is treated as anatomy or noise."""

_WHOLE = 1280
"""A picture up to this size is searched at once, at its full resolution."""
_TILE = 960
_OVERLAP = 160
# A smaller picture is enlarged, so that its letters are of the size that the detector knows.
_LEAST_SIDE = 512
# Larger than twice the thickness of the strokes of small letters, so that a median over it shows the ground alone.
_STROKES = 15
# Ground is textured where this share of its pixels differs this much from what is around them.
_TEXTURED = 0.1
_TEXTURE = 20
_AROUND = 31
_BATCH = 16
_LETTERS_THAT_COUNT = 3
# What is larger, or not so many times as long as it is high, is read in any case.
_LARGEST_LETTERS = 64
_LINE = 2


SHOWS_TEXT = f"{PIXEL_DATA} shows text outside the regions of the filters"
CANNOT_BE_SEARCHED = f"{PIXEL_DATA} cannot be searched for text"
SEARCHED = re.compile(r"shows text|may show text|shows a bar code|cannot be searched|no text was found")
"""Matches the details of objects that a search for text holds."""


class FoundText(NamedTuple):
    """Position and confidence (0 to 1) of text; never the text itself."""

    rectangle: Rectangle
    confidence: float


def require_ocr(what: str = "pixel_risk=ocr") -> None:
    """Check that the extra `ocr` is installed, without loading the models.

    Parameters
    ----------
    what
        What needs it, as the message says.

    Raises
    ------
    ConfigurationError
        It is not.
    """
    missing = [name for name in ("rapidocr", "onnxruntime", "numpy") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"{what} needs the extra ocr, and {', '.join(missing)} is not installed on this machine: "
            "pip install 'airflow-provider-dicom-deid[ocr]' wherever runs are planned and batches are processed"
        )


class TextFinder:
    """Text detector and recogniser: PP-OCRv6 with rapidocr and onnxruntime, models inside the wheel.

    The models load once and need no network. Threads take turns. Use `TextFinder.shared`.

    Raises
    ------
    ConfigurationError
        If the extra `ocr` is not installed.
    """

    def __init__(self) -> None:
        require_ocr()
        from rapidocr import RapidOCR

        self._lock = Lock()
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                # Return every box with its confidence.
                "Global.text_score": 0.0,
                "Global.use_cls": False,
                "Global.max_side_len": _WHOLE,
                "Det.box_thresh": 0.3,
                "Det.limit_side_len": _LEAST_SIDE,
                "Rec.rec_batch_num": _BATCH,
                # Batches run side by side in processes. A second thread on the other half of a core makes it slower.
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    @staticmethod
    @cache
    def shared() -> TextFinder:
        """Return the finder of this process."""
        return TextFinder()

    def find(self, pictures: Sequence[Picture]) -> list[tuple[FoundText, ...]]:
        """Find text in each of some pictures.

        A large picture is searched as a whole, for large letters, and in tiles at full resolution, for small letters.
        The recogniser reads what was detected in all of them in batches.

        Parameters
        ----------
        pictures
            Rows x columns (grey) or rows x columns x 3 (RGB).
        """
        with self._lock:
            detected = [(index, box) for index, picture in enumerate(pictures) for box in self._detected(picture)]
            doubtful = [box.crop for _, box in detected if not box.is_clear]
            read = self._engine.recognize_txt(doubtful) if doubtful else None
        confidences = map(_confidence, read.txts, read.scores) if read else iter(())
        found: list[list[FoundText]] = [[] for _ in pictures]
        for index, box in detected:
            found[index].append(FoundText(box.rectangle, 1.0 if box.is_clear else next(confidences)))
        return [_with_ends(some) for some in found]

    def _detected(self, picture: Picture) -> Iterator[_Detected]:
        """Yield the lines of text in a picture, in its pixels."""
        import numpy as np
        from rapidocr.utils.process_img import get_rotate_crop_image

        for view in _views(picture):
            for left, top, tile in _tiles(view):
                coloured = np.ascontiguousarray(np.stack([tile] * 3, axis=-1) if tile.ndim == 2 else tile[..., ::-1])
                lines = self._engine(coloured, use_det=True, use_cls=False, use_rec=False)
                for corners, score in zip(lines.boxes, lines.scores, strict=True) if lines.boxes is not None else ():
                    crop = get_rotate_crop_image(coloured, np.array(corners, np.float32))
                    rectangle = _around(corners + np.array([left, top]))
                    yield _Detected(rectangle, crop, score >= _CLEAR and _is_line(crop))


class _Detected(NamedTuple):
    """A line that the detector found: its pixels, straightened, and whether it need not be read."""

    rectangle: Rectangle
    crop: Any
    is_clear: bool


def _is_line(crop: Any) -> bool:
    """Return whether pixels have the shape of a line of letters; other shapes may be marks and anatomy."""
    short, long = sorted(crop.shape[:2])
    return bool(short <= _LARGEST_LETTERS and long >= _LINE * short)


def _views(picture: Picture) -> Iterator[Picture]:
    """Yield a picture and, if it is grey and its ground textured, the picture without its ground.

    A median keeps the edges of the ground and loses the strokes of letters, so that what differs from it is letters.
    """
    import cv2
    import numpy as np

    yield picture
    if picture.ndim == 2:
        ground = cv2.medianBlur(picture, _STROKES)
        texture = cv2.absdiff(ground, cv2.blur(ground, (_AROUND, _AROUND)))
        if np.count_nonzero(texture > _TEXTURE) > _TEXTURED * texture.size:
            yield np.clip(128 + picture.astype(np.int16) - ground, 0, 255).astype(np.uint8)


def _tiles(picture: Picture) -> Iterator[tuple[int, int, Picture]]:
    """Yield the first column, the first row and the pixels of each part of a picture that is searched."""
    yield 0, 0, picture
    rows, columns = picture.shape[:2]
    if max(rows, columns) > _WHOLE:
        for top, left in product(_starts(rows), _starts(columns)):
            yield left, top, picture[top : top + _TILE, left : left + _TILE]


def _starts(size: int) -> list[int]:
    """Return the start of each tile along a side, evenly spaced and overlapping."""
    if size <= _TILE:
        return [0]
    count = 1 + -(-(size - _TILE) // (_TILE - _OVERLAP))
    return [index * (size - _TILE) // (count - 1) for index in range(count)]


def _around(corners: Any) -> Rectangle:
    """Return the rectangle around four corners plus a margin, which is larger at the ends of a line."""
    across, down = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    width, height = max(across) - min(across), max(down) - min(down)
    ends, edges = 2 + round(0.3 * min(width, height)), 2 + round(0.1 * min(width, height))
    beside, above = (ends, edges) if width >= height else (edges, ends)
    return Rectangle(
        int(min(across)) - beside,
        int(min(down)) - above,
        int(max(across)) + 1 + beside,
        int(max(down)) + 1 + above,
    )


def _confidence(text: str, score: float) -> float:
    """Return the recogniser's score, reduced for one or two letters because round anatomy reads as 0 or o."""
    letters = len(text.replace(" ", ""))
    return float(score) * min(1.0, letters / _LETTERS_THAT_COUNT)


def _with_ends(found: Sequence[FoundText]) -> tuple[FoundText, ...]:
    """Return findings with the confidence of a line beside them: the ends of lines are detected as pieces of their own.

    Findings without any text are left out.
    """
    sure = [one.rectangle for one in found if one.confidence >= SURE]
    ends = [
        FoundText(one.rectangle, SURE)
        if one.confidence < SURE and any(_continues(one.rectangle, line) for line in sure)
        else one
        for one in found
    ]
    return tuple(one for one in ends if one.confidence)


def _continues(piece: Rectangle, line: Rectangle) -> bool:
    """Return whether a piece is at an end of a line: it touches it, is as high, and no longer."""
    along, across = ((0, 2), (1, 3)) if line.right - line.left >= line.bottom - line.top else ((1, 3), (0, 2))
    thickness = line[across[1]] - line[across[0]]
    middle = (piece[across[0]] + piece[across[1]]) / 2
    return (
        line[across[0]] <= middle < line[across[1]]
        and piece[along[0]] <= line[along[1]] + thickness
        and line[along[0]] <= piece[along[1]] + thickness
        and piece[across[1]] - piece[across[0]] <= 1.5 * thickness
    )


def text_regions(
    header: Dataset,
    pixel_data: bytes | memoryview,
    transfer_syntax_uid: str,
    *,
    vr: str = "OW",
    blanked: Sequence[Region] = (),
    finder: TextFinder | None = None,
) -> tuple[Region, ...]:
    """Find text and bar codes in every frame and return the regions to blank in all frames.

    Parameters
    ----------
    header
        The object's original root elements: group 0028, the extended offset table if there is one.
    pixel_data, transfer_syntax_uid, vr
        As for `clean_pixels`, before any region is blanked.
    blanked
        Regions that are blanked in any case and not searched, unless the header announces text.
    finder
        Defaults to the finder of this process.

    Raises
    ------
    Quarantine
        `pixel-risk` if a finding is uncertain or a bar code can still be read; `burned-in-annotation` if the header
        announces text and none was found; `video` or `pixel-data-unreadable` if the pixels cannot be decoded.
    ConfigurationError
        If the extra `ocr` is not installed.
    """
    is_announced = str(header.get("BurnedInAnnotation") or "").strip().upper() not in ("", "NO", "N")
    shown = pictures(header, pixel_data, transfer_syntax_uid, vr)
    if blanked and not is_announced:
        shown = (without_regions(layers, blanked) for layers in shown)
    regions = _found(shown, finder, PIXEL_DATA)
    if not regions and is_announced:
        raise Quarantine(Reason.BURNED_IN_ANNOTATION, "(0028,0301) BurnedInAnnotation is not NO and no text was found")
    return tuple(Region(True, rectangle) for rectangle in regions)


def overlay_text_regions(overlays: Iterable[Overlay], *, finder: TextFinder | None = None) -> tuple[Region, ...]:
    """Find text in every frame of each overlay plane and return the regions to blank in all planes.

    Parameters
    ----------
    overlays
        The planes.
    finder
        Defaults to the finder of this process.

    Returns
    -------
    tuple of Region
        In pixels of the image.

    Raises
    ------
    Quarantine
        `pixel-risk` if a finding is uncertain.
    ConfigurationError
        If the extra `ocr` is not installed.
    """
    regions: list[Region] = []
    for overlay in overlays:
        shown = ([picture] for picture in overlay_pictures(overlay))
        rectangles = _found(shown, finder, tag_text(overlay.tag))
        regions += [Region(True, overlay.on_image(rectangle)) for rectangle in rectangles]
    return tuple(regions)


def _found(frames: Iterable[list[Picture]], finder: TextFinder | None, where: str) -> dict[Rectangle, None]:
    """Return where text and bar codes are in any frame."""
    rectangles: dict[Rectangle, None] = {}
    for clip in _clips(frames):
        search = partial(_searched, finder=finder or TextFinder.shared(), where=where)
        for layer in clip:
            sure, unsure = clip_text(layer, search)
            if unsure:
                raise Quarantine(Reason.PIXEL_RISK, f"{where} may show text")
            rectangles |= dict.fromkeys(sure)
    return rectangles


def _clips(frames: Iterable[list[Picture]]) -> Iterator[list[list[Picture]]]:
    """Yield groups of frames of one size, as layers: all first pictures, all second pictures."""
    layers: list[list[Picture]] = []
    for shown in frames:
        if layers and (len(layers[0]) >= LARGEST_CLIP or layers[0][0].shape != shown[0].shape):
            yield layers
            layers = []
        for index, picture in enumerate(shown):
            if index == len(layers):
                layers.append([])
            layers[index].append(picture)
    if layers:
        yield layers


def _searched(shown: Sequence[Picture], *, finder: TextFinder, where: str) -> list[Findings]:
    """Return where text and bar codes are in each picture.

    Raises
    ------
    Quarantine
        `pixel-risk` if a bar code can still be read after it was blanked.
    """
    findings = []
    for picture, found in zip(shown, finder.find(shown), strict=True):
        codes, are_blank = barcode_regions(picture)
        if not are_blank:
            raise Quarantine(Reason.PIXEL_RISK, f"{where} shows a bar code that cannot be blanked")
        sure = [*(text.rectangle for text in found if text.confidence >= SURE), *codes]
        unsure = [text for text in found if UNSURE <= text.confidence < SURE]
        findings.append(Findings(sure, [text.rectangle for text in unsure if not _covered(text.rectangle, sure)]))
    return findings


def _covered(unsure: Rectangle, sure: Sequence[Rectangle]) -> bool:
    """Return whether what is certain covers the middle of an uncertain finding, as where two tiles overlap."""
    middle_x, middle_y = (unsure.left + unsure.right) // 2, (unsure.top + unsure.bottom) // 2
    return any(
        rectangle.left <= middle_x < rectangle.right and rectangle.top <= middle_y < rectangle.bottom
        for rectangle in sure
    )
