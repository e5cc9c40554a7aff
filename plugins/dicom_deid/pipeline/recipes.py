"""From what a task or form names to recipes and settings: the profile of PS3.15 brings settings of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dicom_deid.engine.profiles import BASIC, parse_options, profile_settings, recipe_names
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError


def recipes_and_settings(
    recipes: Sequence[str], profile_options: Sequence[str] | None, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the fields `recipes` and `settings` of a run configuration.

    Parameters
    ----------
    recipes
        Names or paths.
    profile_options
        Options of the basic profile, which must be among the recipes then.
    settings
        Fields of `Settings` that differ from their defaults. Where the profile decides, it wins.

    Raises
    ------
    ConfigurationError
        An unknown option or setting, or options without the profile.
    """
    if BASIC not in recipes:
        if profile_options:
            raise ConfigurationError(f"Options of PS3.15 go with the recipe {BASIC}: choose it, or no options.")
        return {"recipes": tuple(recipes), "settings": dict(settings or {})}
    options = parse_options(profile_options or ())
    others = tuple(name for name in recipes if name != BASIC)
    try:
        given = Settings(**(settings or {}))
    except TypeError:
        raise ConfigurationError("A setting is named that does not exist.") from None
    return {
        "recipes": (*recipe_names(options), *others),
        "settings": asdict(profile_settings(options, given)),
    }
