"""Find text in pixels by a neural network that runs on this machine (extra `ocr`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.dicom.dictionary import tag_text
from dicom_deid.engine.pixels.images import pictures
from dicom_deid.engine.pixels.layout import PIXEL_DATA
from dicom_deid.engine.pixels.overlays import Overlay, overlay_pictures
from dicom_deid.engine.pixels.regions import Region
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

    from dicom_deid.engine.pixels.images import Picture

SURE = 0.6
"""Text of this confidence is blanked."""
UNSURE = 0.4
"""Between this and `SURE` there may be text: the object is quarantined. Below, it is taken for anatomy and noise."""

_TILE = 736
_OVERLAP = 160
_LETTERS_THAT_COUNT = 3


class FoundText(NamedTuple):
    """A place where text stands, and how sure that is (0 to 1); never the text itself."""

    rectangle: Rectangle
    confidence: float


class TextFinder:
    """A text detector and recogniser: PP-OCRv6 by way of rapidocr and onnxruntime, the models inside the wheel.

    It loads once, needs no network, and may be used by several threads, one at a time. Use `TextFinder.shared`.

    Raises
    ------
    ConfigurationError
        The extra is not installed.
    """

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise ConfigurationError(
                "The policy `ocr` needs the extra: pip install 'airflow-provider-dicom-deid[ocr]'"
            ) from None
        self._lock = Lock()
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                # Every box is wanted, with its confidence.
                "Global.text_score": 0.0,
                "Global.use_cls": False,
                "Global.max_side_len": 1280,
                "Det.box_thresh": 0.3,
            }
        )

    @staticmethod
    @cache
    def shared() -> TextFinder:
        """Return the one finder of this process."""
        return TextFinder()

    def find(self, picture: NDArray[np.uint8]) -> tuple[FoundText, ...]:
        """Find text in a picture.

        A picture larger than a tile is looked at as a whole, for large letters, and tile by tile at its full size, for
        small ones.

        Parameters
        ----------
        picture
            Rows x columns (grey) or rows x columns x 3 (RGB).
        """
        rows, columns = picture.shape[:2]
        found = self._look(picture, 0, 0)
        if max(rows, columns) > _TILE + _OVERLAP:
            for top, left in product(_starts(rows), _starts(columns)):
                found += self._look(picture[top : top + _TILE, left : left + _TILE], left, top)
        return tuple(found)

    def _look(self, picture: NDArray[np.uint8], left: int, top: int) -> list[FoundText]:
        """Return what is found in one tile that begins at a column and a row."""
        import numpy as np

        coloured = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture[..., ::-1]
        with self._lock:
            result = self._engine(np.ascontiguousarray(coloured))
        if result.boxes is None or result.txts is None or result.scores is None:
            return []
        return [
            FoundText(_around(corners, left, top), _confidence(text, score))
            for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True)
        ]


def _starts(size: int) -> list[int]:
    """Return where tiles begin along a side: evenly, each overlapping the next."""
    if size <= _TILE:
        return [0]
    count = 1 + -(-(size - _TILE) // (_TILE - _OVERLAP))
    return [index * (size - _TILE) // (count - 1) for index in range(count)]


def _around(corners: Any, left: int, top: int) -> Rectangle:
    """Return the rectangle around four corners, and a margin: half a letter at the ends, soft edges elsewhere."""
    across, down = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    width, height = max(across) - min(across), max(down) - min(down)
    ends, edges = 2 + round(0.5 * min(width, height)), 2 + round(0.15 * min(width, height))
    beside, above = (ends, edges) if width >= height else (edges, ends)
    return Rectangle(
        left + int(min(across)) - beside,
        top + int(min(down)) - above,
        left + int(max(across)) + 1 + beside,
        top + int(max(down)) + 1 + above,
    )


def _confidence(text: str, score: float) -> float:
    """Return the recogniser's score, less for one or two letters: round anatomy reads as 0 or o."""
    letters = len(text.replace(" ", ""))
    return float(score) * min(1.0, letters / _LETTERS_THAT_COUNT)


def text_regions(
    header: Dataset,
    pixel_data: bytes | memoryview,
    transfer_syntax_uid: str,
    *,
    vr: str = "OW",
    finder: TextFinder | None = None,
) -> tuple[Region, ...]:
    """Look for text in every frame and return what to blank, in all frames, to hide it.

    Parameters
    ----------
    header
        The object's original root elements: group 0028, the extended offset table if there is one.
    pixel_data, transfer_syntax_uid, vr
        As for `clean_pixels`, before anything is blanked.
    finder
        The finder of this process unless another is given.

    Raises
    ------
    Quarantine
        `pixel-risk` when something may be text or not; `burned-in-annotation` when the header says that there is
        text and none was found; `video` or `pixel-data-unreadable` when the pixels cannot be looked at.
    ConfigurationError
        The extra `ocr` is not installed.
    """
    regions = _found(pictures(header, pixel_data, transfer_syntax_uid, vr), finder, PIXEL_DATA)
    if not regions and str(header.get("BurnedInAnnotation") or "").strip().upper() not in ("", "NO", "N"):
        raise Quarantine(Reason.BURNED_IN_ANNOTATION, "(0028,0301)")
    return tuple(Region(True, rectangle) for rectangle in regions)


def overlay_text_regions(overlays: Iterable[Overlay], *, finder: TextFinder | None = None) -> tuple[Region, ...]:
    """Look for text in every frame of overlay planes, each by itself, and return what to blank, in all planes.

    Parameters
    ----------
    overlays
        The planes.
    finder
        The finder of this process unless another is given.

    Returns
    -------
    tuple of Region
        In pixels of the image.

    Raises
    ------
    Quarantine
        `pixel-risk` when something may be text or not.
    ConfigurationError
        The extra `ocr` is not installed.
    """
    regions: list[Region] = []
    for overlay in overlays:
        shown = ([picture] for picture in overlay_pictures(overlay))
        rectangles = _found(shown, finder, tag_text(overlay.tag))
        regions += [Region(True, overlay.on_image(rectangle)) for rectangle in rectangles]
    return tuple(regions)


def _found(frames: Iterable[list[Picture]], finder: TextFinder | None, where: str) -> dict[Rectangle, None]:
    """Return where text stands in any of the frames; one that shows what the one before did is not looked at again."""
    rectangles: dict[Rectangle, None] = {}
    previous: bytes | None = None
    for shown in frames:
        same = shown[0].tobytes()
        if same == previous:
            continue
        previous = same
        finder = finder or TextFinder.shared()
        for picture in shown:
            found = finder.find(picture)
            if any(UNSURE <= text.confidence < SURE and not _covered(text, found) for text in found):
                raise Quarantine(Reason.PIXEL_RISK, where)
            rectangles |= dict.fromkeys(text.rectangle for text in found if text.confidence >= SURE)
    return rectangles


def _covered(unsure: FoundText, found: tuple[FoundText, ...]) -> bool:
    """Tell whether text that is sure covers the middle of one that is not, as where two tiles overlap."""
    middle_x = (unsure.rectangle.left + unsure.rectangle.right) // 2
    middle_y = (unsure.rectangle.top + unsure.rectangle.bottom) // 2
    return any(
        text.confidence >= SURE
        and text.rectangle.left <= middle_x < text.rectangle.right
        and text.rectangle.top <= middle_y < text.rectangle.bottom
        for text in found
    )
