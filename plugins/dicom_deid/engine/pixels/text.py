"""Find text in pixels with a neural network that runs locally (extra `ocr`)."""

from __future__ import annotations

import os
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
UNSURE = 0.4
"""From this to `SURE` the object is quarantined; below, the finding is treated as anatomy or noise."""

_WHOLE = 1280
"""A picture up to this size is searched at once, at its full resolution."""
_TILE = 960
_OVERLAP = 160
# A smaller picture is enlarged, so that its letters are of the size that the detector knows.
_LEAST_SIDE = 512
_THREADS = 2
_BATCH = 16
_LETTERS_THAT_COUNT = 3


class FoundText(NamedTuple):
    """Position and confidence (0 to 1) of text; never the text itself."""

    rectangle: Rectangle
    confidence: float


def require_ocr() -> None:
    """Check that the extra `ocr` is installed, without loading the models.

    Raises
    ------
    ConfigurationError
        It is not.
    """
    missing = [name for name in ("rapidocr", "onnxruntime", "numpy") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"pixel_risk=ocr needs the extra ocr, and {', '.join(missing)} is not installed on this machine: "
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
                # Batches run side by side in processes: more threads would only wait for each other.
                "EngineConfig.onnxruntime.intra_op_num_threads": min(_THREADS, os.cpu_count() or 1),
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
            detected = [
                (index, corners, crop)
                for index, picture in enumerate(pictures)
                for left, top, tile in _tiles(picture)
                for corners, crop in self._detected(tile, left, top)
            ]
            if not detected:
                return [() for _ in pictures]
            read = self._engine.recognize_txt([crop for _, _, crop in detected])
        found: list[list[FoundText]] = [[] for _ in pictures]
        for (index, corners, _), text, score in zip(detected, read.txts, read.scores, strict=True):
            if text.strip():
                found[index].append(FoundText(_around(corners), _confidence(text, score)))
        return [tuple(some) for some in found]

    def _detected(self, tile: Picture, left: int, top: int) -> list[tuple[Any, Any]]:
        """Return the corners of text in a tile, in pixels of the picture, and the text straightened."""
        import numpy as np
        from rapidocr.utils.process_img import get_rotate_crop_image

        coloured = np.ascontiguousarray(np.stack([tile] * 3, axis=-1) if tile.ndim == 2 else tile[..., ::-1])
        boxes = self._engine(coloured, use_det=True, use_cls=False, use_rec=False).boxes
        return [
            (box + np.array([left, top]), get_rotate_crop_image(coloured, np.array(box, np.float32)))
            for box in (boxes if boxes is not None else ())
        ]


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
    """Return the rectangle around four corners plus a margin: half a letter at the ends, soft edges elsewhere."""
    across, down = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    width, height = max(across) - min(across), max(down) - min(down)
    ends, edges = 2 + round(0.5 * min(width, height)), 2 + round(0.15 * min(width, height))
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
