"""The device catalogue blanks, holds and passes what its table of facts says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from tests.support.images import header_of, image_dataset
from tools.devices.recipe import RECIPE, Row, answer, is_vouched, recipe, rows

from dicom_deid.engine.pixels import ObjectFacts, PixelFilters, clean_pixels, decide_pixels, pixel_risk
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

EXPLICIT = "1.2.840.10008.1.2.1"
FACTS = dict(enumerate(rows(), start=2))
CATALOGUE = PixelFilters(Recipe.named("devices").filters)
TAGS = {"OverlayDescription (60xx,0022)": 0x60000022, "OverlayType (60xx,0040)": 0x60000040}

Constraint = tuple[bool, str, list[str]]
"""Whether it must hold, the test, and its alternatives."""


def test_the_recipe_is_made_from_the_facts() -> None:
    assert RECIPE.read_text() == recipe()


def constraints(row: Row) -> dict[str, list[Constraint]]:
    """What a row asks of each element, read from the facts and not from the recipe."""
    found: dict[str, list[Constraint]] = defaultdict(list)
    for keyword, column, test in (
        ("Modality", "modality", "equals"),
        ("Manufacturer", "manufacturer", "contains"),
        ("ManufacturerModelName", "model", "contains"),
        ("Rows", "rows", "equals"),
        ("Columns", "columns", "equals"),
    ):
        if row[column]:
            found[keyword].append((True, test, row[column].split("|")))
    for words in filter(None, row["image_type"].split(";")):
        found["ImageType"].append((True, "contains", words.split("|")))
    if row["software_versions"]:
        found["SoftwareVersions"].append((True, "software", row["software_versions"].split("|")))
    for text in filter(None, row["criteria"].split(";")):
        keyword, _, test = re.match(r"(.+?)( not)? (contains|equals|startswith|matches|present|absent)", text).groups()
        words = text.partition(f"{test} ")[2].split("|")
        found[keyword].append((f"{keyword} not " not in text, test, words))
    return found


def holds(value: str | None, constraint: Constraint) -> bool:
    wanted, test, words = constraint
    if test in ("present", "absent"):
        return (value is not None) is (test == "present")
    if value is None:
        return not wanted or "(absent)" in words or "=" in words
    return wanted is any(_is(value.lower(), test, word.lower()) for word in words)


def _is(value: str, test: str, word: str) -> bool:
    if test == "software":
        if word.startswith("="):
            return value == word[1:]
        test, word = ("startswith", word[:-1]) if word.endswith("*") else ("contains", word)
    match test:
        case "contains":
            return word in value
        case "equals":
            return value == word
        case "startswith":
            return value.startswith(word)
        case _:
            return re.fullmatch(word, value) is not None


def candidates(some: list[Constraint]) -> Iterator[str | None]:
    """Values that may satisfy constraints: nothing, each word, and one word of each joined."""
    yield None
    words = [
        ["1001" if test == "matches" else word.strip("*").removeprefix("=") for word in alternatives]
        for wanted, test, alternatives in some
        if wanted and test not in ("present", "absent")
    ]
    for choice in product(*words):
        yield from (*choice, "\\".join(choice), "".join(choice), f"{choice[0]}.9" if choice else "x")
    yield "x"


def object_of(row: Row) -> Dataset:
    """Return an image that meets the criteria of a row."""
    values: dict[str, str | None] = {}
    for keyword, some in constraints(row).items():
        value = next((one for one in candidates(some) if all(holds(one, each) for each in some)), "?")
        assert value != "?", f"no {keyword} meets {some}"
        values[keyword] = value
    corners = [list(map(int, region.split(","))) for region in row["regions"].split(";") if "," in region]
    height = int(values.pop("Rows", None) or max((bottom for *_, bottom in corners), default=40) + 3)
    width = int(values.pop("Columns", None) or min(max((right for _, _, right, _ in corners), default=40) + 3, 900))
    dataset = image_dataset(bytes([200]) * (height * width), rows=height, columns=width)
    del dataset.Modality, dataset.ImageType
    if values.get("SOPClassUID") is None:
        classes = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6.1")
        asked = constraints(row)["SOPClassUID"]
        values["SOPClassUID"] = next(uid for uid in classes if all(holds(uid, one) for one in asked))
    for keyword, value in values.items():
        set_value(dataset, keyword, value, height, width)
    return dataset


def set_value(dataset: Dataset, keyword: str, value: str | None, height: int, width: int) -> None:
    if keyword == "SequenceOfUltrasoundRegions":
        item = Dataset()
        item.RegionLocationMinX0 = item.RegionLocationMinY0 = 0
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = width, height
        dataset.SequenceOfUltrasoundRegions = [item]
    elif value is not None:
        tag = TAGS.get(keyword) or (int(keyword, 16) if keyword.startswith("0x") else None)
        if tag is None:
            parts = value.split("\\")
            setattr(dataset, keyword, parts if len(parts) > 1 else value)
        else:
            dataset.add_new(tag, "LO" if tag > 0x60000000 or tag >> 16 & 1 else dictionary_VR(tag), value)


def numbers(dataset: Dataset) -> tuple[set[int], Reason | None]:
    """Return the rows whose labels match an object, and why it is held, if it is."""
    match = CATALOGUE.match(dataset)
    matching = {int(label.label.split()[0]) for label in match.filters if label.label[0].isdigit()}
    facts = ObjectFacts.of(lambda keyword: "\\".join(_parts(dataset, keyword)), EXPLICIT)
    try:
        decide_pixels(facts, match, Settings())
    except Quarantine as held:
        return matching, held.reason
    return matching, None


def _parts(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword) or ""
    return [value] if isinstance(value, str) else list(map(str, value))


def some(kind: str) -> list[int]:
    return [number for number, row in FACTS.items() if answer(row) == kind]


@pytest.mark.parametrize("number", some("graylist"))
def test_a_row_is_blanked_to_the_pixel(number: int) -> None:
    """Blanked is what the row says, with what other rows say that the object meets as well, and nothing else."""
    dataset = object_of(FACTS[number])
    matching, _ = numbers(dataset)
    assert number in matching
    expected = np.zeros((dataset.Rows, dataset.Columns), bool)
    for one in matching:
        for region in FACTS[one]["regions"].split(";"):
            if "," in region and answer(FACTS[one]) == "graylist":
                left, top, right, bottom = map(int, region.split(","))
                expected[top:bottom, left:right] = True
    regions = CATALOGUE.match(dataset).regions
    # The bytes are those of a grey image, whatever the row asks.
    dataset.PhotometricInterpretation = "MONOCHROME2"
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, regions)
    data = dataset.PixelData if cleaned is None else bytes(cleaned.data or b"")
    after = np.frombuffer(data, np.uint8, count=expected.size).reshape(expected.shape)
    assert np.array_equal(after == 0, expected)


@pytest.mark.parametrize("number", some("hold") + [number for number, row in FACTS.items() if row["contradicted"]])
def test_a_held_or_contradicted_row_is_held(number: int) -> None:
    assert numbers(object_of(FACTS[number]))[1] is not None


@pytest.mark.parametrize("number", [number for number in some("graylist") if not is_vouched(FACTS[number])])
def test_a_row_that_only_adds_pixels_clears_nothing(number: int) -> None:
    """Unless a row of a deciding list is met too."""
    dataset = object_of(FACTS[number])
    matching, _ = numbers(dataset)
    assert not CATALOGUE.match(dataset).clears or any(is_vouched(FACTS[one]) for one in matching)


@pytest.mark.parametrize("number", some("whitelist"))
def test_a_clean_row_passes(number: int) -> None:
    """Unless the lists contradict each other or the object itself says that it has text."""
    dataset = object_of(FACTS[number])
    matching, held = numbers(dataset)
    assert number in matching
    others = [FACTS[one] for one in matching if one != number]
    blanked = any(row["contradicted"] or row["kind"] != "clean" for row in [*others, FACTS[number]])
    assert held is None or blanked or FACTS[number]["contradicted"]


def test_ultrasound_is_blanked_outside_its_regions() -> None:
    """The region of a device that no row vouches for stays at risk, whatever is blanked outside."""
    dataset = image_dataset(bytes([9]) * 400, rows=20, columns=20)
    dataset.Modality = "US"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 4, 5
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 15, 12
    dataset.SequenceOfUltrasoundRegions = [item]
    match = CATALOGUE.match(dataset)
    cleaned = clean_pixels(header_of(dataset), dataset.PixelData, EXPLICIT, match.regions)
    assert cleaned is not None
    kept = np.frombuffer(bytes(cleaned.data or b""), np.uint8).reshape(20, 20) != 0
    assert kept[5:12, 4:15].all()
    assert kept.sum() == 7 * 11
    assert not match.clears


def test_a_series_is_matched_without_reading_its_header_again() -> None:
    """The candidates of an object are those of the object before with the same values."""
    filters = PixelFilters(Recipe.named("devices").filters)
    dataset = object_of(FACTS[some("graylist")[0]])
    assert filters.candidates("key", lambda: dataset) == filters.candidates("key", lambda: pytest.fail("read again"))
    assert filters.match(dataset, filters.candidates("key", lambda: dataset)) == filters.match(dataset)


def test_ct_is_not_at_risk_for_the_catalogue() -> None:
    facts = ObjectFacts("1.2.840.10008.5.1.4.1.1.2", EXPLICIT, True, "CT", r"ORIGINAL\PRIMARY\AXIAL")
    assert pixel_risk(facts) is None
