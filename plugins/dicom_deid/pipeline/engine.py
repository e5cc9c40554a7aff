"""Make the engine of a run from its configuration."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from threading import Lock

from dicom_deid.database.archive_words import ArchiveWords
from dicom_deid.database.quarantine import ItemDecision
from dicom_deid.engine import Deidentifier
from dicom_deid.engine.pixels import PROJECT_RULES, FilterMatch, require_ocr
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.destination import KeyTemplate
from dicom_deid.recipe import Recipe

_LOG = logging.getLogger(__name__)

FORMAT_LINE = "FORMAT dicom\n"
"""First line of a recipe file; rules of decisions are stored without it."""

_MAX_COMPILED = 64
_compiled: OrderedDict[tuple[str, str, str, str], Deidentifier] = OrderedDict()
_compiled_lock = Lock()


def amend(configuration: RunConfiguration, decision: ItemDecision) -> RunConfiguration:
    """Return the configuration for an object that a reviewer has decided about."""
    return configuration.replace(
        project_rules=f"{configuration.project_rules}{decision.rules}",
        settings=configuration.settings.replace(**json.loads(decision.settings)),
    )


def make_deidentifier(configuration: RunConfiguration, archive_words: ArchiveWords | None = None) -> Deidentifier:
    """Return the engine of a run; compiled once per process for the same recipes, settings and words.

    Parameters
    ----------
    configuration
        The run.
    archive_words
        The words that the archive vouches for.

    Raises
    ------
    ConfigurationError
        The recipe has problems (all are named, by file and line), a variable or function is undefined, original
        values could become part of destination keys, or the extra `ocr` is needed and not installed.
    """
    recipe = Recipe.resolve(*configuration.recipes)
    if configuration.project_rules:
        recipe = Recipe.combine(recipe, Recipe.parse(f"{FORMAT_LINE}{configuration.project_rules}", PROJECT_RULES))
    _require_ocr(recipe, configuration.settings)
    key = (recipe.name, recipe.digest, configuration.digest, archive_words.key if archive_words else "")
    with _compiled_lock:
        if key not in _compiled:
            _compiled[key] = _compile(recipe, configuration, archive_words)
            if len(_compiled) > _MAX_COMPILED:
                _compiled.popitem(last=False)
        return _compiled[key]


def _require_ocr(recipe: Recipe, settings: Settings) -> None:
    """Check that the extra `ocr` is installed where the settings, or decisions of reviewers, need it."""
    if settings.pixel_risk == "ocr":
        require_ocr()
    elif settings.check_masks == "all":
        require_ocr("check_masks=all")
    elif settings.check_masks == "decisions" and FilterMatch(recipe.filters).is_reviewed:
        require_ocr(
            "The search for text that decisions of reviewers leave visible (check_masks=decisions; check_masks=none "
            "releases it without a search)"
        )


def _compile(recipe: Recipe, configuration: RunConfiguration, archive_words: ArchiveWords | None) -> Deidentifier:
    for warning in recipe.warnings:
        _LOG.warning("%s", warning)
    deidentifier = Deidentifier(
        recipe,
        configuration.settings,
        functions=configuration.load_functions(),
        variables=dict(configuration.variables),
        archive_words=archive_words or (),
        patient_key=configuration.patient_key or "id",
    )
    template = KeyTemplate.parse(configuration.destination_key_template)
    template.check(deidentifier.compiled, follows_references=configuration.settings.follow_uid_references)
    return deidentifier
