"""Measure recall, precision and time of the text search beside peers: ``python -m bench.bench_ocr``.

Prints Markdown tables: recall by size, contrast and modality, precision, and seconds an image. The images are drawn
from ``--seed``; identifiers are random, so nothing can be tuned to them. Peers: Tesseract, called as
presidio-image-redactor calls it (all text that it reads, before Presidio drops what is in no header element) and in
its mode for sparse text; and the filters that the deid package ships. A planted text counts as found when at least
nine tenths of its box are blanked; a blanked box counts as right when it touches a planted text.
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
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from tests.support.images import (
    MODALITIES,
    Box,
    PlantedImage,
    background,
    header_of,
    image_dataset,
    plant_text,
    planted_image,
)

from dicom_deid.engine.pixels.text import SURE, UNSURE, FoundText, TextFinder, text_regions
from dicom_deid.exceptions import Quarantine

SIZES = (8, 12, 20)
CONTRASTS = (0.3, 0.8)

Finder = Callable[[PlantedImage], "tuple[list[Box], bool]"]
"""Returns the boxes to blank, and whether the object would be quarantined as uncertain."""


def images(seed: int) -> Iterator[tuple[dict[str, object], PlantedImage]]:
    """Yield every combination once, and an image without text of each modality."""
    for modality in MODALITIES:
        for size in SIZES:
            for contrast in CONTRASTS:
                seed += 1
                facts = {"modality": modality, "size": size, "contrast": contrast}
                yield facts, planted_image(seed, modality=modality, size=size, contrast=contrast)
        seed += 1
        yield {"modality": modality, "size": 0, "contrast": 0}, planted_image(seed, modality=modality, lines=0)


def ours(image: PlantedImage) -> tuple[list[Box], bool]:
    """Search text as the policy `ocr` does."""
    found: list[FoundText] = list(TextFinder.shared().find([image.dataset.pixel_array])[0])
    boxes = [tuple(text.rectangle) for text in found if text.confidence >= SURE]
    return boxes, any(UNSURE <= text.confidence < SURE for text in found)


def varied(seed: int) -> tuple[Dataset, list[Box], int]:
    """Draw an image of any size, interpretation, ground, colour and direction, with four texts and their boxes."""
    rng = random.Random(seed)
    rows, columns = rng.choice(((512, 512), (480, 640), (600, 800), (768, 1024)))
    size, contrast = rng.randint(10, 24), rng.uniform(0.45, 0.95)
    if rng.random() < 0.2:
        y, x = np.mgrid[0:rows, 0:columns]
        ground = ((x + y) % rng.randint(12, 60)) / 100.0 + rng.choice((0.0, 0.35))
    else:
        ground = background(rng, rng.choice(MODALITIES), rows, columns)
    picture, boxes, _ = plant_text(rng, ground, size=size, contrast=contrast, lines=4)
    if rng.random() < 0.25:
        picture = np.rot90(picture)
        boxes = tuple((top, columns - right, bottom, columns - left) for left, top, right, bottom in boxes)
        rows, columns = columns, rows
    photometric = rng.choice(("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL"))
    bits = rng.choice((8, 8, 12)) if photometric.startswith("MONO") else 8
    stored = np.round(picture * ((1 << bits) - 1)).astype("<u2" if bits > 8 else np.uint8)
    if photometric == "MONOCHROME1":
        stored = (1 << bits) - 1 - stored
    elif photometric == "RGB":
        tint = rng.choice(((1, 1, 1), (1, 1, 0.3), (0.4, 1, 0.4), (1, 0.6, 0.2)))
        stored = np.stack([(stored * part).astype(np.uint8) for part in tint], axis=-1)
    elif photometric == "YBR_FULL":
        stored = np.stack([stored, np.full_like(stored, 128), np.full_like(stored, 128)], axis=-1)
    allocated = 16 if bits > 8 else 8
    dataset = image_dataset(
        np.ascontiguousarray(stored).tobytes(),
        rows=rows,
        columns=columns,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=bits,
    )
    return dataset, list(boxes), size


def print_varied(seed: int, count: int) -> None:
    """Print recall of images, precision of the blanked area and time, over varied images."""
    hidden = held = missed_boxes = boxes_in_all = 0
    blanked = justified = 0
    walls, processor = [], []
    for number in range(count):
        dataset, boxes, size = varied(seed + number)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            regions = text_regions(header_of(dataset), dataset.PixelData, "1.2.840.10008.1.2.1")
        except Quarantine:
            held += 1
            continue
        finally:
            walls.append(time.perf_counter() - wall)
            processor.append(time.process_time() - cpu)
        shape = (dataset.Rows, dataset.Columns)
        mask = mask_of([tuple(region.rectangle) for region in regions if region.rectangle], shape)
        misses = sum(share_hidden(box, mask) < 0.9 for box in boxes)
        reach = size // 2 + 6
        near = mask_of([(x0 - reach, y0 - reach, x1 + reach, y1 + reach) for x0, y0, x1, y1 in boxes], shape)
        hidden += not misses
        missed_boxes += misses
        boxes_in_all += len(boxes)
        blanked += int(mask.sum())
        justified += int((mask & near).sum())
    shown = count - held
    cells = {
        "images with all text hidden": f"{100 * hidden / shown:.1f} % of {shown}",
        "texts missed": f"{missed_boxes} of {boxes_in_all}",
        "blanked area justified": f"{100 * justified / blanked:.1f} %",
        "held as uncertain": str(held),
        "s an image": f"{np.median(walls):.2f}",
        "processor s": f"{np.median(processor):.2f}",
    }
    print(f"{count} varied images from seed {seed}: 512 x 512 to 1024 x 768, letters of 10 to 24 px\n")
    print("| " + " | ".join(cells) + " |")
    print("|---" * len(cells) + "|")
    print("| " + " | ".join(cells.values()) + " |")


def tesseract(*options: str) -> Finder:
    """Return a finder that runs Tesseract with options."""

    def find(image: PlantedImage) -> tuple[list[Box], bool]:
        png = io.BytesIO()
        Image.fromarray(image.dataset.pixel_array).save(png, "PNG")
        command = ["tesseract", "-", "-", *options, "tsv"]
        environment = os.environ | {"OMP_THREAD_LIMIT": "1"}  # its threads wait for each other on few cores
        run = subprocess.run(command, input=png.getvalue(), capture_output=True, check=True, env=environment)
        output = run.stdout.decode()
        boxes = []
        for row in csv.DictReader(io.StringIO(output), delimiter="\t", quoting=csv.QUOTE_NONE):
            if (row.get("text") or "").strip() and float(row["conf"]) >= 0:
                left, top, width, height = (int(row[key]) for key in ("left", "top", "width", "height"))
                # The same margin in proportion as ours has, and room for the blanks between words.
                margin = 2 + height // 2
                boxes.append((left - margin, top - 2, left + width + margin, top + height + 2))
        return boxes, False

    return find


def deid_filters(recipe: str) -> Finder:
    """Return a finder that applies a recipe that deid ships."""
    from deid.dicom.pixels.clean import DicomCleaner
    from deid.logger import bot

    bot.level = 0

    def find(image: PlantedImage) -> tuple[list[Box], bool]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.dcm"
            image.dataset.save_as(path, enforce_file_format=True)
            cleaner = DicomCleaner(deid=recipe, output_folder=folder)
            flagged = cleaner.detect(str(path))["flagged"]
            before, after = image.dataset.pixel_array, np.asarray(cleaner.clean())
        if not after.any() and before.any():
            return [(0, 0, before.shape[1], before.shape[0])], False
        changed = np.argwhere(before != after)
        if not len(changed):
            return [], bool(flagged)
        (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
        return [(int(left), int(top), int(right), int(bottom))], False

    return find


def share_hidden(box: Box, mask: NDArray[np.bool_]) -> float:
    """Return how much of a box is blanked."""
    left, top, right, bottom = box
    return float(mask[top:bottom, left:right].mean())


def mask_of(boxes: list[Box], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Paint boxes."""
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
    return mask


class Score:
    """Counts for one finder."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, object], list[bool]] = defaultdict(list)
        self.right: list[bool] = []
        self.blanked: list[float] = []
        self.quarantined = self.clean_but_touched = self.images = 0
        self.seconds: list[float] = []

    def add(
        self, facts: dict[str, object], image: PlantedImage, boxes: list[Box], seconds: float, *, unsure: bool
    ) -> None:
        """Count one image."""
        self.images += 1
        self.seconds.append(seconds)
        self.quarantined += unsure
        mask = mask_of(boxes, image.dataset.pixel_array.shape)
        truth = mask_of(list(image.boxes), mask.shape)
        self.blanked.append(float(mask[~truth].mean()))
        self.clean_but_touched += not image.boxes and bool(boxes)
        self.right += [bool(share_hidden(_clipped(box, mask.shape), truth) > 0) for box in boxes]
        for box in image.boxes:
            hit = share_hidden(box, mask) >= 0.9
            for key, value in facts.items():
                self.found[key, value].append(hit)
            self.found["all", ""].append(hit)

    def recall(self, key: str, value: object) -> str:
        """Return a recall as text."""
        hits = self.found[key, value]
        return f"{100 * sum(hits) / len(hits):.0f}" if hits else "-"


def _clipped(box: Box, shape: tuple[int, ...]) -> Box:
    return max(box[0], 0), max(box[1], 0), min(box[2], shape[1]), min(box[3], shape[0])


def main() -> None:
    """Run every finder over the same images and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6, help="draws texts, places and noise")
    parser.add_argument("--images", type=int, default=0, help="only so many varied images, without peers")
    arguments = parser.parse_args()
    seed = arguments.seed
    if arguments.images:
        print_varied(seed, arguments.images)
        return
    finders: dict[str, Finder] = {"text search (extra ocr)": ours}
    if shutil.which("tesseract"):
        finders["Tesseract as Presidio calls it"] = tesseract()
        finders["Tesseract, sparse text (--psm 11)"] = tesseract("--psm", "11")
    finders["deid, recipe dicom"] = deid_filters("dicom")
    finders["deid, recipe dicom.ultrasound"] = deid_filters("dicom.ultrasound")

    started = time.perf_counter()
    TextFinder.shared().find([np.zeros((64, 64), np.uint8)])
    print(f"seed {seed}; 640 x 480, 4 texts an image; loading the text search {time.perf_counter() - started:.1f} s\n")
    scores: dict[str, Score] = {name: Score() for name in finders}
    for facts, image in images(seed):
        for name, find in finders.items():
            started = time.perf_counter()
            boxes, unsure = find(image)
            scores[name].add(facts, image, boxes, time.perf_counter() - started, unsure=unsure)
    print_tables(scores)


def print_tables(scores: dict[str, Score]) -> None:
    """Print the results as Markdown."""
    columns = [("size", size, f"{size} px") for size in SIZES]
    columns += [("contrast", contrast, f"contrast {contrast}") for contrast in CONTRASTS]
    columns += [("modality", modality, modality) for modality in MODALITIES]
    print("Recall, percent of planted texts:\n")
    print("| | all | " + " | ".join(title for _, _, title in columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for name, score in scores.items():
        cells = [score.recall("all", ""), *(score.recall(key, value) for key, value, _ in columns)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        "\n| | precision, % of boxes | blanked beside text, % of pixels | touched without text | unsure | s an image |"
    )
    print("|---|---|---|---|---|---|")
    for name, score in scores.items():
        precision = f"{100 * sum(score.right) / len(score.right):.0f}" if score.right else "-"
        print(
            f"| {name} | {precision} | {100 * np.mean(score.blanked):.1f} | {score.clean_but_touched} of "
            f"{len(MODALITIES)} | {score.quarantined} of {score.images} | {np.median(score.seconds):.2f} |"
        )


if __name__ == "__main__":
    main()
