"""Find text in pixels with a neural network that runs locally (extra `ocr`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine.pixels.barcodes import barcode_regions
from dicom_deid.engine.pixels.clip import LARGEST_CLIP, Findings, clip_text
from dicom_deid.engine.pixels.detector import DetectedLine, LineDetector, scale_of
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

# A finding that is not read can only continue a line.
_UNREAD = 0.01
_BATCH = 16
_LETTERS_THAT_COUNT = 3
# Letters of names are not higher than this.
_LARGE = 128


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
        self._detector = LineDetector()
        self._recogniser: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Rec.rec_batch_num": _BATCH,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    @staticmethod
    @cache
    def shared() -> TextFinder:
        """Return the finder of this process."""
        return TextFinder()

    def find(self, pictures: Sequence[Picture], scale: float) -> list[tuple[FoundText, ...]]:
        """Find text in each of some pictures.

        The recogniser reads what was detected in all of them in batches.

        Parameters
        ----------
        pictures, scale
            As for `LineDetector.detect`.
        """
        with self._lock:
            detected = [
                (index, line)
                for index, picture in enumerate(pictures)
                for line in self._detector.detect(picture, scale)
            ]
            doubtful = [(line, reading) for _, line in detected for reading in line.readings]
            lines, readings = zip(*doubtful, strict=True) if doubtful else ((), ())
            read = self._recogniser.recognize_txt(list(readings)) if readings else None
        confidences = map(_confidence, lines, read.txts, read.scores) if read else iter(())
        found: list[list[FoundText]] = [[] for _ in pictures]
        for index, line in detected:
            confidence = max(islice(confidences, len(line.readings)), default=_UNREAD)
            found[index].append(FoundText(line.rectangle, 1.0 if line.is_certain else confidence))
        return [_with_ends(some) for some in found]


def _confidence(line: DetectedLine, text: str, score: float) -> float:
    """Return the recogniser's score, reduced for one or two letters because anatomy reads as 0, o or 8.

    Two letters that are slanted or as large as an organ count as one.
    """
    letters = len(text.replace(" ", ""))
    left, top, right, bottom = line.rectangle
    if line.is_slanted or min(right - left, bottom - top) > _LARGE:
        letters = max(letters - 1, 0)
    return float(score) * min(1.0, letters / _LETTERS_THAT_COUNT)


def _with_ends(found: Sequence[FoundText]) -> tuple[FoundText, ...]:
    """Return findings with the confidence of a line beside them, and the gaps between both.

    A line may be detected in pieces, and letters between them overlooked. Findings without any text are left out.
    """
    sure = [one.rectangle for one in found if one.confidence >= SURE]
    whole: list[FoundText] = []
    for rectangle, confidence in found:
        gaps = [gap for line in sure if (gap := _gap(rectangle, line)) is not None]
        whole.append(FoundText(rectangle, max(confidence, SURE) if gaps else confidence))
        whole += [FoundText(gap, SURE) for gap in gaps if gap.left < gap.right and gap.top < gap.bottom]
    return tuple(one for one in whole if one.confidence)


def _gap(piece: Rectangle, line: Rectangle) -> Rectangle | None:
    """Return what is between a piece and a line that it continues: empty if they overlap.

    A piece continues a line that is as high if it is not further from its end than that.
    """
    along, across = (0, 1) if line.right - line.left >= line.bottom - line.top else (1, 0)
    start, stop = min(piece[along + 2], line[along + 2]), max(piece[along], line[along])
    thickness = line[across + 2] - line[across]
    middle = (piece[across] + piece[across + 2]) / 2
    if (
        stop - start > thickness
        or not line[across] <= middle < line[across + 2]
        or piece[across + 2] - piece[across] > 1.5 * thickness
    ):
        return None
    return line._replace(left=start, right=stop) if along == 0 else line._replace(top=start, bottom=stop)


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
        scale = scale_of(clip[0][0])
        search = partial(_searched, finder=finder or TextFinder.shared(), scale=scale, where=where)
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


def _searched(shown: Sequence[Picture], *, finder: TextFinder, scale: float, where: str) -> list[Findings]:
    """Return where text and bar codes are in each picture.

    Raises
    ------
    Quarantine
        `pixel-risk` if a bar code can still be read after it was blanked.
    """
    findings = []
    for picture, found in zip(shown, finder.find(shown, scale), strict=True):
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
