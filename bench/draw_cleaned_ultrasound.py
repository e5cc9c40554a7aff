"""Draw an ultrasound before and after cleaning: ``python -m bench.draw_cleaned_ultrasound FILE.png``.

The image is generated and the identifiers are random. Top: a filter that keeps the ultrasound region and blanks the
rest. Bottom: the text search, on text that stands anywhere.
"""

from __future__ import annotations

import random
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from tests.support.images import header_of, image_dataset, planted_image, random_identifier

from dicom_deid.engine.pixels import PixelFilters, Region, clean_pixels, text_regions
from dicom_deid.recipe import Recipe

EXPLICIT = "1.2.840.10008.1.2.1"
RECIPE = """FORMAT dicom
%filter graylist
LABEL Ultrasound: keep what the device calls its region
  contains Modality US
  + present SequenceOfUltrasoundRegions
  coordinates all
  keepcoordinates from:SequenceOfUltrasoundRegions
"""


def with_banner(seed: int) -> Dataset:
    """Return an ultrasound image with a banner of identifiers above the region that its header names."""
    rng = random.Random(seed)
    plain = planted_image(seed, modality="US", rows=360, columns=480, lines=0).dataset
    picture = Image.fromarray(np.pad(plain.pixel_array, ((40, 0), (0, 0))))
    font = ImageFont.load_default(14)
    for x, y in ((8, 2), (8, 20), (250, 2), (250, 20)):
        ImageDraw.Draw(picture).text((x, y), random_identifier(rng), fill=255, font=font)
    dataset = image_dataset(np.asarray(picture).tobytes(), rows=400, columns=480)
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 40
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 480, 400
    dataset.SequenceOfUltrasoundRegions = [region]
    return dataset


def before_and_after(dataset: Dataset, regions: tuple[Region, ...]) -> NDArray[np.uint8]:
    """Return the image twice, side by side, the second time cleaned."""
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, regions)
    if cleaned is None:
        raise SystemExit("nothing was blanked")
    after = np.frombuffer(bytes(cleaned.data), np.uint8).reshape(dataset.Rows, dataset.Columns)
    gap = np.full((dataset.Rows, 8), 255, np.uint8)
    return np.hstack([dataset.pixel_array, gap, after])


def main() -> None:
    """Write the picture to the path that is given."""
    banner = with_banner(4)
    top = before_and_after(banner, PixelFilters(Recipe.parse(RECIPE).filters).match(banner).regions)
    anywhere = planted_image(8, modality="US", rows=400, columns=480, size=14, lines=5).dataset
    bottom = before_and_after(anywhere, text_regions(header_of(anywhere), anywhere.PixelData, EXPLICIT))
    gap = np.full((8, top.shape[1]), 255, np.uint8)
    Image.fromarray(np.vstack([top, gap, bottom])).quantize(32).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
