"""The engine of a run, from its configuration."""

from __future__ import annotations

from dicom_deid.engine import Deidentifier
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.destination import KeyTemplate
from dicom_deid.recipe import CompiledRecipe, Recipe


def make_deidentifier(configuration: RunConfiguration) -> Deidentifier:
    """Return the engine of a run.

    Raises
    ------
    ConfigurationError
        The recipe has problems (all are named, by file and line), a variable or function is undefined, or originals
        could come into destination keys.
    """
    recipe = Recipe.resolve(*configuration.recipes)
    settings = configuration.settings
    template = KeyTemplate.parse(configuration.destination_key_template)
    template.check(CompiledRecipe(recipe), follows_references=settings.follow_uid_references)
    return Deidentifier(
        recipe, settings, functions=configuration.load_functions(), variables=dict(configuration.variables)
    )
