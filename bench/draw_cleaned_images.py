"""Draw images before and after cleaning, for the documentation: ``python -m bench.draw_cleaned_images FOLDER``.

The images are generated and the identifiers are random: an ultrasound clip whose device names its region, with text
that moves; a scanned document with a bar code; and a JPEG, with what changed in it.
"""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

import numpy as np
import zxingcpp
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from tests.support.images import background, header_of, image_dataset, planted_image, random_identifier

from dicom_deid.engine.pixels import PixelFilters, Region, clean_pixels, text_regions
from dicom_deid.recipe import Recipe

EXPLICIT, BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
ROWS, COLUMNS = 300, 400
Picture = NDArray[np.uint8]


def clip(seed: int) -> Dataset:
    """Return a cine with a banner above the region that its header names, and a name that moves through the region."""
    rng = random.Random(seed)
    banner, moving = random_identifier(rng), random_identifier(rng)
    frames = []
    for index in range(24):
        shade = background(random.Random(seed + index), "US", ROWS - 30, COLUMNS)
        picture = Image.fromarray(np.pad((shade * 255).astype(np.uint8), ((30, 0), (0, 0))))
        draw = ImageDraw.Draw(picture)
        draw.text((8, 6), banner, fill=255, font=ImageFont.load_default(16))
        draw.text((10 + 3 * index, 40), moving, fill=255, font=ImageFont.load_default(14))
        frames.append(np.asarray(picture))
    dataset = image_dataset(np.stack(frames).tobytes(), rows=ROWS, columns=COLUMNS, frames=len(frames))
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 30
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = COLUMNS, ROWS
    dataset.SequenceOfUltrasoundRegions = [region]
    return dataset


def document(seed: int) -> Dataset:
    """Return a scanned form with identifiers and a bar code."""
    rng = random.Random(seed)
    page = Image.new("L", (COLUMNS, ROWS), 240)
    draw = ImageDraw.Draw(page)
    for line in range(6):
        draw.text((30, 30 + 26 * line), random_identifier(rng), fill=30, font=ImageFont.load_default(16))
    code = zxingcpp.create_barcode(str(rng.randint(10**7, 10**8)), zxingcpp.BarcodeFormat.Code128)
    page.paste(Image.fromarray(np.asarray(code.to_image(scale=2))), (40, 210))
    return image_dataset(np.asarray(page).tobytes(), rows=ROWS, columns=COLUMNS, modality="SC")


def jpeg(seed: int) -> Dataset:
    """Return a photograph-like image with a banner in JPEG baseline with subsampled colour."""
    dataset = planted_image(seed, modality="US", rows=ROWS, columns=COLUMNS, size=14, lines=3).dataset
    grey = dataset.pixel_array
    file = io.BytesIO()
    Image.fromarray(np.stack([grey, grey, grey // 2], axis=-1)).save(file, "JPEG", quality=88, subsampling=2)
    dataset = image_dataset(bytes(3 * ROWS * COLUMNS), rows=ROWS, columns=COLUMNS, photometric="RGB")
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.add_new(0x7FE00010, "OB", encapsulate([file.getvalue()]))
    return dataset


def cleaned(dataset: Dataset, syntax: str, regions: tuple[Region, ...]) -> bytes:
    """Return the pixel data with text and regions blanked."""
    found = text_regions(header_of(dataset), dataset.PixelData, syntax, blanked=regions)
    result = clean_pixels(header_of(dataset), dataset.PixelData, syntax, (*regions, *found))
    if result is None or result.data is None:
        raise SystemExit("nothing was blanked")
    return bytes(result.data)


def beside(*pictures: Picture) -> Picture:
    """Return pictures beside each other."""
    gap = np.full((pictures[0].shape[0], 8, *pictures[0].shape[2:]), 255, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, gap)][:-1])


def save(picture: Picture, path: Path) -> None:
    """Write a picture as a small PNG."""
    Image.fromarray(picture).quantize(64).save(path, optimize=True)


def main() -> None:
    """Write the pictures to the folder that is given."""
    folder = Path(sys.argv[1])
    cine = clip(4)
    outside = PixelFilters(Recipe.named("devices").filters).match(cine).regions
    before = cine.pixel_array
    after = np.frombuffer(cleaned(cine, EXPLICIT, outside), np.uint8).reshape(before.shape)
    rows = [beside(before[index], after[index]) for index in (0, 20)]
    save(np.vstack([rows[0], np.full((8, rows[0].shape[1]), 255, np.uint8), rows[1]]), folder / "clip-before-after.png")

    page = document(7)
    after = np.frombuffer(cleaned(page, EXPLICIT, ()), np.uint8).reshape(ROWS, COLUMNS)
    save(beside(page.pixel_array, after), folder / "document-before-after.png")

    image = jpeg(11)
    (old,) = generate_frames(image.PixelData, number_of_frames=1)
    (new,) = generate_frames(cleaned(image, BASELINE, ()), number_of_frames=1)
    first, second = (np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in (old, new))
    changed = np.where((first != second).any(axis=-1), 0, 225).astype(np.uint8)
    save(beside(first, second, np.stack([changed] * 3, axis=-1)), folder / "jpeg-before-after.png")


if __name__ == "__main__":
    main()
