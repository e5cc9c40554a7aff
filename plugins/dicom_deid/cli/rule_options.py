"""Options that choose the rules of a run: recipes, PS3.15 options and policies."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import click

from dicom_deid.cli.options import Command
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline.configuration import DEFAULT_RECIPES

POLICIES = {
    "private_elements": "How to treat private elements.",
    "residuals": "What to do if an original value is found elsewhere in the object.",
    "free_text": "How to treat descriptions and comments without a rule; `vocabulary` masks words that no list knows.",
    "pixel_risk": "What to do with objects that often show identifiers in their pixels.",
    "check_masks": "Where to search for text that masks leave visible: under decisions, all masks, or none.",
    "layout_objects": "With --pixel-risk ocr: objects in a row after which the places of text of a device are learned.",
    "overlays": "How to treat overlay planes.",
    "documents": "What to do with documents and structured content that no rule cleans.",
    "faces": "What to do with CT and MR images that can show a face.",
}
"""Fields of `Settings` that are options, with the help of each."""


def recipe_options(command: Command) -> Command:
    """Add the options that choose recipes and PS3.15 options."""
    command = click.option(
        "--option",
        "profile_options",
        multiple=True,
        metavar="NAME",
        help="An option of PS3.15, with --recipe ps3.15-basic, for example clean-descriptors.",
    )(command)
    return click.option(
        "--recipe",
        "recipes",
        multiple=True,
        default=DEFAULT_RECIPES,
        show_default=True,
        metavar="NAME|PATH",
        help="A recipe that ships, or a file; several are combined in order.",
    )(command)


def policy_options(command: Command) -> Command:
    """Add an option for each of the `POLICIES`; its words and default are those of the field of `Settings`."""
    types = get_type_hints(Settings)
    for name, text in reversed(POLICIES.items()):
        kind: click.ParamType[Any] = (
            click.IntRange(min=0) if types[name] is int else click.Choice(get_args(types[name]))
        )
        command = click.option(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=getattr(Settings(), name),
            show_default=True,
            help=text,
        )(command)
    return command
