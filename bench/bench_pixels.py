"""Measure the cost of blanking, beside deid on the same object: ``python -m bench.bench_pixels``.

Prints processor time for a 640 x 480 RGB ultrasound in each transfer syntax that is written again as it came, of 1 and
20 frames. deid's time is that of `DicomCleaner.detect`, `clean` and `save_dicom`, which include reading and writing the
file, for they cannot be had apart.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID
from tests.support.images import header_of, planted_image

from dicom_deid.engine.pixels import PixelFilters, clean_pixels
from dicom_deid.recipe import Recipe

SYNTAXES = {
    "explicit VR little endian": "1.2.840.10008.1.2.1",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG-LS lossless": "1.2.840.10008.1.2.4.80",
    "JPEG 2000 lossless": "1.2.840.10008.1.2.4.90",
}
RECIPE = """FORMAT dicom
%filter graylist
LABEL banner
  contains Modality US
  coordinates 0,0,640,60
"""


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median processor time of a piece of work."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1000 * statistics.median(times)


def ours(dataset: Dataset, syntax: str) -> Callable[[], object]:
    """Return our work on one object: match the filters, blank, encode."""
    header, data = header_of(dataset), dataset.PixelData
    filters = PixelFilters(Recipe.parse(RECIPE).filters)
    return lambda: clean_pixels(header, data, syntax, filters.match(header).regions)


def deids(dataset: Dataset, folder: Path) -> Callable[[], object]:
    """Return deid's work on one object."""
    from deid.dicom.pixels.clean import DicomCleaner
    from deid.logger import bot

    bot.level = 0
    recipe, source = folder / "deid.banner", folder / "image.dcm"
    recipe.write_text(RECIPE)
    dataset.save_as(source, enforce_file_format=True)

    def work() -> None:
        cleaner = DicomCleaner(deid=str(recipe), output_folder=str(folder))
        cleaner.detect(str(source))
        cleaner.clean()
        cleaner.save_dicom(preserve_compression=True)

    return work


def main() -> None:
    """Print one line a case."""
    print("| transfer syntax | frames | this, ms | deid, ms |\n|---|---|---|---|")
    for name, syntax in SYNTAXES.items():
        for frames in (1, 20):
            dataset = planted_image(1, frames=frames, photometric="RGB").dataset
            if syntax != SYNTAXES["explicit VR little endian"]:
                plugin = "pyjpegls" if "JPEG-LS" in name else "pylibjpeg"
                dataset.compress(UID(syntax), encoding_plugin=plugin, generate_instance_uid=False)
            rounds = 7 if frames == 1 else 1
            with tempfile.TemporaryDirectory() as folder:
                peer = milliseconds(deids(dataset, Path(folder)), rounds)
            print(f"| {name} | {frames} | {milliseconds(ours(dataset, syntax), rounds):.1f} | {peer:.0f} |")


if __name__ == "__main__":
    main()
