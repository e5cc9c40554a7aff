"""The profile's recipes are what the generator makes, combine as options should, and carry the right codes."""

import pytest
from tools.ps3_15.__main__ import made

from dicom_deid.engine.profiles import (
    Option,
    method_codes,
    method_edition,
    parse_options,
    profile_settings,
    recipe_names,
)
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe import Recipe


def test_files_are_as_made() -> None:
    # Would catch a recipe or the conformance page that was edited by hand, or a generator whose output was not kept.
    assert [path.name for path, text in made().items() if path.read_text(encoding="utf-8") != text] == []


def test_every_option_ships() -> None:
    assert {option.recipe_name for option in Option} < set(Recipe.shipped())


@pytest.mark.parametrize("option", Option)
def test_option_takes_the_place_of_rules(option: Option) -> None:
    # Would catch an option whose rules are added to the profile's for the same field: REPLACE would win over nothing.
    recipe = Recipe.resolve(*recipe_names([option]))
    fields = [rule.field.text.lower() for rule in recipe.rules]
    assert len(fields) == len(set(fields))


def test_options_are_applied_in_their_order() -> None:
    # A date of the device is shifted even if the device's identity is retained, in whatever order they are named.
    options = parse_options(["retain-longitudinal-modified-dates", "retain-device-identity"])
    rules = {rule.field.text: str(rule) for rule in Recipe.resolve(*recipe_names(options)).rules}
    assert rules["DateOfLastCalibration"] == "JITTER DateOfLastCalibration var:patient_offset"
    assert "DeviceSerialNumber" not in rules


def test_codes_of_a_combined_recipe() -> None:
    recipe = Recipe.resolve(*recipe_names(parse_options(["retain-uids"])))
    assert [code.value for code in method_codes(recipe.name)] == ["113100", "113110"]
    assert method_codes("desktop") == ()


def test_edition_of_a_combined_recipe() -> None:
    assert method_edition("ps3.15-basic+ps3.15-retain-uids+mine") == ("PS3.15 2026d",)
    assert method_edition("desktop") == ()


@pytest.mark.parametrize(
    "names",
    [
        ["retain-uid"],
        ["clean-recognizable-visual-features"],
        ["retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"],
    ],
)
def test_options_that_cannot_be_combined_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        parse_options(names)


def test_settings_follow_the_options() -> None:
    assert profile_settings().private_elements == "remove"
    assert profile_settings().unknown_elements == "remove"
    assert profile_settings([Option.RETAIN_SAFE_PRIVATE]).private_elements == "safe"
    assert not profile_settings([Option.RETAIN_UIDS]).follow_uid_references
    assert profile_settings([Option.CLEAN_DESCRIPTORS]).residuals == "redact-token"
