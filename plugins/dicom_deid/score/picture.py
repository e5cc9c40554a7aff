"""Pictures with anatomy-like noise, and text burned into them."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from dicom_deid.score.expectations import Box

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def noise(
    rng: random.Random, rows: int, columns: int, *, bits: int = 8, samples: int = 1, light: bool = False
) -> Pixels:
    """Return a smooth bright shape on a dark, noisy ground, in the lower half of the range; or its negative."""
    generator = np.random.default_rng(rng.randrange(2**32))
    top = 2**bits
    y, x = np.mgrid[0:rows, 0:columns]
    centre_y, centre_x = rows * rng.uniform(0.45, 0.6), columns * rng.uniform(0.4, 0.6)
    distance = ((y - centre_y) / (rows * 0.35)) ** 2 + ((x - centre_x) / (columns * 0.3)) ** 2
    shape = np.clip(1 - distance, 0, 1) * top * 0.4 + generator.integers(0, top // 16, (rows, columns))
    pixels = (top - 1 - shape if light else shape).astype(np.uint8 if bits <= 8 else np.uint16)
    return pixels if samples == 1 else np.repeat(pixels[..., None], samples, axis=2)


def burn(pixels: Pixels, text: str, left: int, top: int, *, size: int, value: int) -> tuple[Box, NDArray[np.bool_]]:
    """Write a text into the pixels, in place.

    Parameters
    ----------
    pixels
        Rows by columns, or rows by columns by samples.
    left, top
        Where the text begins.
    size
        Height of the letters in pixels.
    value
        What the pixels of the letters hold.

    Returns
    -------
    tuple
        The rectangle of the text, and which pixels of the picture belong to letters.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows, columns = pixels.shape[:2]
    canvas = Image.new("L", (columns, rows), 0)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size)
    draw.text((left, top), text, fill=255, font=font)
    letters = np.asarray(canvas) > 127
    pixels[letters] = value
    box = draw.textbbox((left, top), text, font=font)
    right, bottom = min(columns, int(box[2]) + 1), min(rows, int(box[3]) + 1)
    return Box(int(box[0]), int(box[1]), right, bottom, text, is_dark=value == 0), letters
