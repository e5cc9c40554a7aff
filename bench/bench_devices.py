"""Print what the device catalogue covers and holds: ``python -m bench.bench_devices [--headers FOLDER]``.

The first table counts the labels of `devices.dicom`. The second, with ``--headers``, counts headers with a known
decision: JSON files with ``entries``; each has ``tags`` (by keyword), ``expected_filtered``, ``expected_scrubbed``
and ``expected_scrub_regions`` (``x,y,width,height``), as in ``tests/unit/catalog_fixtures`` of the repository
susom/dicom-dre (Apache License 2.0). They are not part of this project.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from tools.devices.recipe import answer, is_vouched, rows

from dicom_deid.engine.pixels import FilterMatch, ObjectFacts, PixelFilters, decide_document, decide_pixels
from dicom_deid.engine.pixels.regions import bands
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.recipe import Recipe

EXPLICIT = "1.2.840.10008.1.2.1"


def coverage() -> Iterator[str]:
    """Yield the lines of the table of labels."""
    facts = rows()
    yield "| answer | rows | manufacturer and model | frame sizes |"
    yield "|---|---|---|---|"
    groups = {
        "blank regions, then pass": [row for row in facts if answer(row) == "graylist" and is_vouched(row)],
        "blank regions, clear nothing": [row for row in facts if answer(row) == "graylist" and not is_vouched(row)],
        "known clean": [row for row in facts if answer(row) == "whitelist"],
        "hold": [row for row in facts if answer(row) == "hold"],
        "hold: the sources contradict each other": [row for row in facts if row["contradicted"]],
        "left out": [row for row in facts if not answer(row)],
    }
    for name, some in groups.items():
        models = {(row["manufacturer"].lower(), row["model"].lower()) for row in some if row["model"]}
        sizes = {(row["rows"], row["columns"]) for row in some if row["rows"]}
        yield f"| {name} | {len(some)} | {len(models)} | {len(sizes)} |"


def header_of(tags: dict[str, str]) -> Dataset:
    """Return a data set with the tags of a fixture."""
    header = Dataset()
    for keyword, text in tags.items():
        if keyword.endswith("Sequence"):
            setattr(header, keyword, [Dataset()])
        elif keyword == "SequenceOfUltrasoundRegions":
            item = Dataset()
            item.RegionLocationMinX0 = item.RegionLocationMinY0 = 0
            item.RegionLocationMaxX1, item.RegionLocationMaxY1 = int(tags["Columns"]), int(tags["Rows"])
            setattr(header, keyword, [item])
        elif keyword in ("Rows", "Columns"):
            setattr(header, keyword, int(text))
        else:
            setattr(header, keyword, text.split("\\") if "\\" in text else text)
    return header


def is_held(header: Dataset, match: FilterMatch) -> str:
    """Return the detail of the quarantine under the default policies, or nothing."""

    def text(keyword: str) -> str:
        value = header.get(keyword) or ""
        return value if isinstance(value, str) else "\\".join(map(str, value))

    facts = ObjectFacts.of(text, EXPLICIT)
    try:
        decide_document(facts.sop_class_uid, Settings())
        decide_pixels(facts, match, Settings())
    except Quarantine as held:
        return held.where or held.reason
    return ""


def covers(match: FilterMatch, regions: list[str], header: Dataset) -> bool:
    """Return whether a match blanks all of the regions."""
    mask = np.zeros((header.Rows, header.Columns), bool)
    for band in bands(match.regions, header.Rows, header.Columns):
        for left, right in band.spans:
            mask[band.top : band.bottom, left:right] = True
    corners = [tuple(map(int, region.split(","))) for region in regions]
    return all(mask[y : y + height, x : x + width].all() for x, y, width, height in corners)


def headers(folder: Path) -> Iterator[str]:
    """Yield the lines of the table of headers."""
    catalogue = PixelFilters(Recipe.named("devices").filters)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    entries: list[dict[str, Any]] = [
        entry for path in sorted(folder.rglob("*.json")) for entry in json.loads(path.read_text())["entries"]
    ]
    passed: Counter[str] = Counter()
    for entry in entries:
        header = header_of(entry["tags"])
        kind = "drop" if entry["expected_filtered"] else "scrub" if entry["expected_scrubbed"] else "pass"
        match = catalogue.match(header)
        count = counts[kind]
        count["headers"] += 1
        count["at risk"] += bool(is_held(header, FilterMatch()))
        held = is_held(header, match)
        count["held"] += bool(held)
        count["blanked as expected"] += kind == "scrub" and covers(match, entry["expected_scrub_regions"], header)
        count["passed unmasked"] += not held and not match.cleans
        if kind == "pass" and held:
            passed[held] += 1
        if kind != "pass" and not held and not match.cleans:
            passed[f"PASSED {kind} {entry['tags']}"] += 1
    columns = ("headers", "at risk", "held", "blanked as expected", "passed unmasked")
    yield "| expected | headers | at risk without it | held with it | all regions blanked | passed as it is |"
    yield "|---" * (len(columns) + 1) + "|"
    for kind in ("drop", "scrub", "pass"):
        yield f"| {kind} | " + " | ".join(str(counts[kind][column]) for column in columns) + " |"
    yield ""
    yield from (f"{number} to pass held: {detail}" for detail, number in passed.most_common())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=Path, help="folder of header files with known decisions")
    folder = parser.parse_args().headers
    print("\n".join(coverage()))
    if folder is not None:
        print("\n" + "\n".join(headers(folder)))


if __name__ == "__main__":
    main()
