"""Combine recipes, options of the PS3.15 profile and settings into fields of a run configuration."""

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
        Options of the basic profile, which must then be among the recipes.
    settings
        Fields of `Settings` that differ from their defaults. The profile overrides them.

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
        raise ConfigurationError("The settings name a field that does not exist.") from None
    return {
        "recipes": (*recipe_names(options), *others),
        "settings": asdict(profile_settings(options, given)),
    }
