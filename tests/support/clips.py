"""Generated cines with a line of text that stays, moves, or is in some frames only."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tests.support.images import Box, background

ROWS, COLUMNS, FRAMES = 240, 320, 60
_TEXT = "HANSEN, Maria 1961"


class ClipText(NamedTuple):
    """Where the text is in a frame, if anywhere, how bright it is, and on which ground."""

    place: Callable[[int], tuple[int, int] | None]
    ink: int
    modality: str


CLIPS = {
    "still": ClipText(lambda _: (20, 8), 255, "US"),
    "still and dark": ClipText(lambda _: (20, 40), 20, "SC"),
    "one frame": ClipText(lambda index: (20, 8) if index == 37 else None, 255, "US"),
    "three frames": ClipText(lambda index: (20, 40) if 10 <= index < 13 else None, 20, "SC"),
    "moving": ClipText(lambda index: (4 + 2 * index, 8), 255, "US"),
    "moving and dark": ClipText(lambda index: (20, 20 + 3 * index), 20, "SC"),
    "later": ClipText(lambda index: (4 + 4 * (index - 30), 8) if index >= 30 else None, 255, "US"),
    "none": ClipText(lambda _: None, 255, "US"),
}


def clip(kind: ClipText, *, rows: int = ROWS, columns: int = COLUMNS) -> tuple[NDArray[np.uint8], list[Box | None]]:
    """Return the frames of a cine, and the box of its text in each."""
    font = ImageFont.load_default(14)
    frames, boxes = [], []
    for index in range(FRAMES):
        shade = background(random.Random(index), kind.modality, rows, columns)
        picture = Image.fromarray((shade * 255).astype(np.uint8))
        at = kind.place(index)
        box = None
        if at is not None:
            ImageDraw.Draw(picture).text(at, _TEXT, fill=kind.ink, font=font)
            left, top, right, bottom = font.getbbox(_TEXT)
            box = (int(at[0] + left), int(at[1] + top), int(at[0] + right), int(at[1] + bottom))
        frames.append(np.asarray(picture))
        boxes.append(box)
    return np.stack(frames), boxes
