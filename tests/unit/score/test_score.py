"""The profile reaches its goal on other seeds, and the scorer detects every kind of fault."""

import io
import random

import pytest
from pydicom import dcmread

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.recipe import Recipe
from dicom_deid.score.corpus import MODALITIES, generate
from dicom_deid.score.expectations import HEADER_CATEGORIES, Category
from dicom_deid.score.run import SITE_RECIPE, run
from dicom_deid.score.scorer import score

OPTIONS = (
    Option.RETAIN_SAFE_PRIVATE,
    Option.RETAIN_PATIENT_CHARACTERISTICS,
    Option.RETAIN_LONGITUDINAL_MODIFIED_DATES,
    Option.CLEAN_DESCRIPTORS,
    Option.CLEAN_STRUCTURED_CONTENT,
    Option.CLEAN_GRAPHICS,
)


@pytest.fixture(scope="module")
def profile() -> Deidentifier:
    return Deidentifier(Recipe.resolve(*recipe_names(OPTIONS), SITE_RECIPE), profile_settings(OPTIONS))


def test_profile_reaches_the_goal(profile: Deidentifier) -> None:
    # The best published result of the MIDI-B challenge is 99.93 %. The seed is drawn, so that nothing is tuned to it.
    seed = random.randrange(2**32)
    cases = generate(seed, patients=3)
    result = score(cases, run(cases, profile)[0])
    failed = {category: result.tallies[category].failures for category in HEADER_CATEGORIES}
    assert result.worst() == 100, f"seed {seed}: {failed}"


def test_untouched_corpus_fails() -> None:
    """The scorer would catch a program that does nothing."""
    cases = generate(5, patients=1)
    result = score(cases, {case.name: case.data for case in cases})
    for category in (
        Category.TEXT_REMOVED,
        Category.DATE_SHIFTED,
        Category.UID_CHANGED,
        Category.PIXELS_HIDDEN,
        Category.METHOD_STAMPED,
        Category.IDENTIFIERS_ELSEWHERE,
    ):
        assert result.tallies[category].percent == 0, category
    for category in (Category.TAG_RETAINED, Category.TEXT_RETAINED, Category.PIXELS_RETAINED, Category.DELIVERED):
        assert result.tallies[category].percent == 100, category


def test_quarantine_is_not_protection_for_free() -> None:
    """The scorer would catch a program that delivers nothing."""
    cases = generate(5, patients=1)
    result = score(cases, dict.fromkeys((case.name for case in cases), None))
    assert result.tallies[Category.DELIVERED].percent == 0
    assert result.quarantined == len(cases)


def test_desktop_recipe_leaves_much_behind() -> None:
    cases = generate(6, patients=1)
    engine = Deidentifier(Recipe.named("desktop"), Settings(residuals="off", pixel_risk="allow", documents="allow"))
    result = score(cases, run(cases, engine)[0])
    assert result.tallies[Category.TEXT_REMOVED].percent < 80
    assert result.tallies[Category.UID_CONSISTENT].percent == 100


def test_corpus_is_drawn_from_its_seed() -> None:
    first, again, other = generate(8, patients=1), generate(8, patients=1), generate(9, patients=1)
    assert [case.data for case in first] == [case.data for case in again]
    assert not {i for case in first for i in case.identifiers} & {i for case in other for i in case.identifiers}
    assert {case.modality for case in first} == set(MODALITIES)


def test_every_object_can_be_read_and_holds_what_the_key_says() -> None:
    """Would catch a key that asks for what the original does not have."""
    from dicom_deid.score.expectations import find, text_of

    for case in generate(10, patients=1):
        dataset = dcmread(io.BytesIO(case.data))
        for one in case.key:
            if one.path and one.value and one.category is not Category.TAG_RETAINED:
                assert one.value.lower() in text_of(find(dataset, one.path)).lower(), (case.name, one.category)
