"""Find text in pixels with a neural network that runs locally (extra `ocr`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine.pixels.images import overlay_pictures, pictures
from dicom_deid.engine.pixels.layout import PIXEL_DATA
from dicom_deid.engine.pixels.overlays import Overlay
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
"""Text of at least this confidence is blanked."""
UNSURE = 0.4
"""From this to `SURE` the object is quarantined; below, the finding is treated as anatomy or noise."""

_TILE = 736
_OVERLAP = 160
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
                "Global.max_side_len": 1280,
                "Det.box_thresh": 0.3,
            }
        )

    @staticmethod
    @cache
    def shared() -> TextFinder:
        """Return the finder of this process."""
        return TextFinder()

    def find(self, picture: NDArray[np.uint8]) -> tuple[FoundText, ...]:
        """Find text in a picture.

        A picture larger than a tile is searched as a whole, for large letters, and in tiles at full resolution, for
        small letters.

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
        """Return the text in one tile whose first pixel is at a column and a row."""
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
    """Return the start of each tile along a side, evenly spaced and overlapping."""
    if size <= _TILE:
        return [0]
    count = 1 + -(-(size - _TILE) // (_TILE - _OVERLAP))
    return [index * (size - _TILE) // (count - 1) for index in range(count)]


def _around(corners: Any, left: int, top: int) -> Rectangle:
    """Return the rectangle around four corners plus a margin: half a letter at the ends, soft edges elsewhere."""
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
    """Return the recogniser's score, reduced for one or two letters because round anatomy reads as 0 or o."""
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
    """Find text in every frame and return the regions to blank in all frames.

    Parameters
    ----------
    header
        The object's original root elements: group 0028, the extended offset table if there is one.
    pixel_data, transfer_syntax_uid, vr
        As for `clean_pixels`, before any region is blanked.
    finder
        Defaults to the finder of this process.

    Raises
    ------
    Quarantine
        `pixel-risk` if a finding is uncertain; `burned-in-annotation` if the header announces text and none was found;
        `video` or `pixel-data-unreadable` if the pixels cannot be decoded.
    ConfigurationError
        If the extra `ocr` is not installed.
    """
    regions = _found(pictures(header, pixel_data, transfer_syntax_uid, vr), finder, PIXEL_DATA)
    if not regions and str(header.get("BurnedInAnnotation") or "").strip().upper() not in ("", "NO", "N"):
        raise Quarantine(Reason.BURNED_IN_ANNOTATION, "(0028,0301)")
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
    """Return where text is in any frame; a frame equal to the previous one is skipped."""
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
    """Return whether certain text covers the middle of an uncertain finding, as where two tiles overlap."""
    middle_x = (unsure.rectangle.left + unsure.rectangle.right) // 2
    middle_y = (unsure.rectangle.top + unsure.rectangle.bottom) // 2
    return any(
        text.confidence >= SURE
        and text.rectangle.left <= middle_x < text.rectangle.right
        and text.rectangle.top <= middle_y < text.rectangle.bottom
        for text in found
    )
