"""Detect lines of text in pictures: the detector of PP-OCRv6, from the wheel of rapidocr (extra `ocr`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_deid.engine.pixels.images import COLOURED
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dicom_deid.engine.pixels.images import Picture

_WHOLE = 1280
"""A picture up to this size is searched at once, at its full resolution."""
_TILE = 960
_OVERLAP = 160
# A smaller picture is enlarged, so that its letters are of the size that the detector knows.
_LEAST_SIDE = 512
_LARGEST_SCALE = 2
_MODEL = "PP-OCRv6_det_small.onnx"
# The detector takes whole cells. Nothing is searched where neither a cell nor one beside it varies by this much.
_CELL = 32
_FLAT = 6
# Larger than twice the thickness of the strokes of small letters, so that a median over it shows the ground alone.
_STROKES = 15
# Ground is textured where this share of its pixels differs this much from what is around them.
_TEXTURED = 0.1
_TEXTURE = 20
_AROUND = 31
_CERTAIN = 0.65
"""A line that the detector is this certain of is not read."""
# Larger findings, or ones not so many times as long as high, may be marks or anatomy, and are read in any case.
_LARGEST_LETTERS = 64
_LINE = 2
# A slanted line runs this much across for what it runs down, or the reverse.
_SLANT = 0.4
# A mosaic of slices is like itself one tile further, by so much more than half a tile further, in both directions.
_MOSAIC = 0.3
_TILES = range(3, 17)
_CELLS = 16
# However small the tiles, a heading across them may be this high.
_HIGHEST = 40
# Smaller findings, margin included, are not legible: the recogniser reads numbers from noise.
_LEAST_LETTERS = 9


class DetectedLine(NamedTuple):
    """A line of text, whether it is slanted, whether the detector is certain, and if not, pictures of it to be read."""

    rectangle: Rectangle
    is_slanted: bool
    is_certain: bool
    readings: list[Any]


class LineDetector:
    """The network that detects lines of text. It loads when an instance is made, and needs no network access."""

    def __init__(self) -> None:
        import rapidocr
        from onnxruntime import InferenceSession, SessionOptions
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        # Batches run side by side in processes. A second thread on the other half of a core makes it slower.
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = Path(rapidocr.__file__).parent / "models" / _MODEL
        self._session = InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._lines_of: Any = DBPostProcess(thresh=0.3, box_thresh=0.3, unclip_ratio=1.6, use_dilation=True)

    def detect(self, picture: Picture, scale: float) -> Iterator[DetectedLine]:
        """Yield the lines of text in a picture, in its pixels.

        A large picture is searched as a whole, for large letters, and in tiles at full resolution, for small letters.
        What is flat is not searched.

        Parameters
        ----------
        picture
            Rows x columns (grey) or rows x columns x 3 (RGB). Of the latter only the coloured parts are searched.
        scale
            How many times to enlarge it, as `scale_of` says for the whole image that it is from.
        """
        import numpy as np

        highest = _highest_letters(picture)
        for view in _views(picture):
            for left, top, factor, part in _parts(view, scale):
                for corners, score in self._lines(part):
                    short, long = _sides(corners)
                    if short > highest * factor:
                        continue
                    is_certain = score >= _CERTAIN and short <= _LARGEST_LETTERS * factor and long >= _LINE * short
                    readings = [] if is_certain or short < _LEAST_LETTERS else readings_of(part, corners)
                    rectangle = _around(corners / factor + np.array([left, top]))
                    yield DetectedLine(rectangle, _is_slanted(corners), is_certain, readings)

    def _lines(self, part: Picture) -> Iterator[tuple[NDArray[np.int32], float]]:
        """Yield the four corners of each line of text in a part of a picture, and how certain the detector is."""
        import cv2
        import numpy as np

        rows, columns = part.shape[:2]
        whole = cv2.copyMakeBorder(part, 0, -rows % _CELL, 0, -columns % _CELL, cv2.BORDER_REPLICATE)
        planes = whole[..., ::-1].transpose(2, 0, 1) if whole.ndim == 3 else np.stack([whole] * 3)
        values = np.multiply(planes, np.float32(2 / 255), order="C")
        values -= 1
        (certainty,) = self._session.run(None, {self._session.get_inputs()[0].name: values[np.newaxis]})
        lines, scores = self._lines_of(certainty[..., :rows, :columns], (rows, columns))
        yield from zip(lines, scores, strict=True)


def scale_of(picture: Picture) -> float:
    """Return how many times an image is enlarged for the detector."""
    scale: float = min(max(_LEAST_SIDE / min(picture.shape[:2]), 1), _LARGEST_SCALE)
    return scale


def _sides(corners: NDArray[np.int32]) -> list[float]:
    """Return the lengths of the shorter and of the longer sides between four corners."""
    import numpy as np

    return sorted(float(side) for side in np.linalg.norm(corners[1] - corners[[0, 2]], axis=1))


def _is_slanted(corners: NDArray[np.int32]) -> bool:
    """Return whether a line runs neither across nor up or down."""
    across, down = abs(corners[1] - corners[0])
    return bool(min(across, down) > _SLANT * max(across, down))


def _highest_letters(picture: Picture) -> float:
    """Return the height that letters do not exceed: a third of a tile in a mosaic, whose rows read as zeros."""
    import cv2
    import numpy as np

    rows, columns = picture.shape[:2]
    best, highest = _MOSAIC, math.inf
    for tiles in _TILES:
        if picture.ndim > 2 or rows % tiles or columns % tiles:
            continue
        small = cv2.resize(picture, (_CELLS * tiles, _CELLS * tiles), interpolation=cv2.INTER_AREA).astype(np.float32)
        small -= small.mean()
        products = [[np.mean(one[lag:] * one[:-lag]) for lag in (_CELLS, _CELLS // 2)] for one in (small, small.T)]
        likeness = min(min(tile, tile - half) for tile, half in products) / max(small.var(), 1)
        if likeness > best:
            best, highest = likeness, max(min(rows, columns) / tiles / 3, _HIGHEST)
    return highest


def readings_of(part: Picture, corners: NDArray[np.int32]) -> list[Any]:
    """Return a line, straightened: one that runs up or down in both directions.

    Parameters
    ----------
    part
        Rows x columns (grey) or rows x columns x 3 (RGB).
    corners
        The four corners of the line, 4 x 2 (column, row) in pixels.
    """
    import numpy as np
    from rapidocr.utils.process_img import get_rotate_crop_image

    line = get_rotate_crop_image(part, corners.astype(np.float32))
    line = np.stack([line] * 3, axis=-1) if line.ndim == 2 else line[..., ::-1]
    width, height = np.ptp(corners, axis=0)
    return [line, np.rot90(line, 2)] if height > width else [line]


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


def _parts(view: Picture, scale: float) -> Iterator[tuple[float, float, float, Picture]]:
    """Yield the first column, the first row, the scale and the scaled pixels of each part that is searched."""
    import cv2

    rows, columns = view.shape[:2]
    factor = min(scale, _WHOLE / max(rows, columns))
    whole: Any = view if factor == 1 else cv2.resize(view, None, fx=factor, fy=factor)
    tiles = [(0, 0, factor, whole)]
    if factor < 1:
        tiles += [
            (left, top, 1, view[top : top + _TILE, left : left + _TILE])
            for top, left in product(_starts(rows), _starts(columns))
        ]
    for left, top, factor, tile in tiles:
        for x, y, width, height in varied_parts(tile):
            yield left + x / factor, top + y / factor, factor, tile[y : y + height, x : x + width]


def varied_parts(tile: Picture) -> list[list[int]]:
    """Return the first column, first row, width and height of the parts of a picture that are not flat.

    Parts without colour of a picture in colours are left out: its brightness is searched as another picture.

    Parameters
    ----------
    tile
        Rows x columns (grey) or rows x columns x 3 (RGB).
    """
    import cv2
    import numpy as np

    rows, columns = tile.shape[:2]
    is_grey = tile.ndim == 2
    shown = cv2.blur(tile, (3, 3)) if is_grey else np.max(tile, axis=-1) - np.min(tile, axis=-1)
    shown = cv2.copyMakeBorder(shown, 0, -rows % _CELL, 0, -columns % _CELL, cv2.BORDER_REPLICATE)
    cells = shown.reshape(len(shown) // _CELL, _CELL, -1, _CELL)
    most, least = cells.max(axis=1).max(axis=2), cells.min(axis=1).min(axis=2)
    varied = most - least > _FLAT if is_grey else most > COLOURED
    parts = cv2.dilate(varied.astype(np.uint8), np.ones((3, 3), np.uint8))
    while True:
        _, _, boxes, _ = cv2.connectedComponentsWithStats(parts)
        before = parts.copy()
        for x, y, width, height, _ in boxes[1:]:
            parts[y : y + height, x : x + width] = 1
        if np.array_equal(parts, before):
            return [[_CELL * int(edge) for edge in box[:4]] for box in boxes[1:]]


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
