"""The engine of a run, from its configuration."""

from __future__ import annotations

import json

from dicom_deid.database.quarantine import ItemDecision
from dicom_deid.engine import Deidentifier
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.destination import KeyTemplate
from dicom_deid.recipe import CompiledRecipe, Recipe

FORMAT_LINE = "FORMAT dicom\n"
"""First line of a recipe file; rules of decisions are stored without it."""

PROJECT_RULES = "project-rules"
"""Name of the recipe with the device rules of the project, in messages and digests."""


def amend(configuration: RunConfiguration, decision: ItemDecision) -> RunConfiguration:
    """Return the configuration for an object that a reviewer has decided about."""
    return configuration.replace(
        project_rules=f"{configuration.project_rules}{decision.rules}",
        settings=configuration.settings.replace(**json.loads(decision.settings)),
    )


def make_deidentifier(configuration: RunConfiguration) -> Deidentifier:
    """Return the engine of a run.

    Raises
    ------
    ConfigurationError
        The recipe has problems (all are named, by file and line), a variable or function is undefined, or originals
        could come into destination keys.
    """
    recipe = Recipe.resolve(*configuration.recipes)
    if configuration.project_rules:
        recipe = Recipe.combine(recipe, Recipe.parse(f"{FORMAT_LINE}{configuration.project_rules}", PROJECT_RULES))
    settings = configuration.settings
    template = KeyTemplate.parse(configuration.destination_key_template)
    template.check(CompiledRecipe(recipe), follows_references=settings.follow_uid_references)
    return Deidentifier(
        recipe, settings, functions=configuration.load_functions(), variables=dict(configuration.variables)
    )
