"""`dicom-deid preview`: what a recipe would do to one object; nothing is written."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Column, Table

from dicom_deid.cli import EXIT_QUARANTINED
from dicom_deid.engine import Deidentifier
from dicom_deid.engine.profiles import BASIC
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import open_object_store
from dicom_deid.pipeline.preview import ObjectPreview, differences, preview_object
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.pipeline.recipes import recipes_and_settings
from dicom_deid.recipe import Recipe

_HIDDEN = "(hidden)"


@click.command()
@click.argument("address", metavar="OBJECT")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("desktop",),
    show_default=True,
    metavar="NAME|PATH",
    help="A recipe that ships, or a file; several are combined in order.",
)
@click.option(
    "--option",
    "profile_options",
    multiple=True,
    metavar="NAME",
    help="An option of PS3.15, with --recipe ps3.15-basic, for example clean-descriptors.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="NAME|PATH",
    help="Another recipe: show what the two treat differently.",
)
@click.option("--show-originals", is_flag=True, help="Show original values, which are PHI, on this terminal.")
def preview(
    address: str,
    recipes: tuple[str, ...],
    profile_options: tuple[str, ...],
    against: tuple[str, ...],
    show_originals: bool,
) -> None:
    """Show which elements of OBJECT (s3://bucket/key or a file) a recipe changes, and how; write nothing.

    Pseudonyms are examples: no mapping is asked or changed.
    """
    placeholders = PreviewPseudonyms()
    one = _preview(address, recipes, profile_options, placeholders)
    console = Console()
    if against:
        _print_differences(
            console,
            recipes,
            against,
            one,
            _preview(address, against, profile_options if BASIC in against else (), placeholders),
        )
    else:
        _print_changes(console, one, show_originals)
    if one.reason is not None:
        sys.exit(EXIT_QUARANTINED)


def _preview(
    address: str, recipes: tuple[str, ...], profile_options: tuple[str, ...], placeholders: PreviewPseudonyms
) -> ObjectPreview:
    # Which objects a run holds back is for the run to say; here its rules are to be seen.
    seen = {"residuals": "report", "pixel_risk": "allow", "documents": "allow"}
    rules = recipes_and_settings(recipes, profile_options, seen)
    deidentifier = Deidentifier(Recipe.resolve(*rules["recipes"]), Settings(**rules["settings"]))
    place, _, key = address.rpartition("/")
    if not key:
        raise ConfigurationError("Give an object: s3://bucket/key, or the path of a file.")
    storage = open_object_store(place or ("/" if address.startswith("/") else "."))
    found = storage.find(key)
    if found is None:
        raise ConfigurationError(f"There is no such object in {storage.url}: check the address.")
    return preview_object(deidentifier, storage, key, size=found.size, etag=found.etag, placeholders=placeholders)


def _print_changes(console: Console, preview: ObjectPreview, show_originals: bool) -> None:
    if preview.reason is not None:
        _print_quarantine(console, preview)
        return
    table = Table(Column("Element", overflow="fold"), "Name", "", "Before", "After")
    for change in preview.changes:
        before = (change.before or "") if show_originals or not change.before else _HIDDEN
        table.add_row(change.path, change.name, change.kind.value, before, change.after or "")
    console.print(table)
    console.print(f"{len(preview.changes)} elements change, {preview.unchanged} stay as they are.")
    for reason, count in preview.notes.items():
        console.print(f"{reason.value}: {count}. {reason.advice.meaning}")
    if not show_originals:
        console.print("Original values are hidden: --show-originals shows them.")


def _print_quarantine(console: Console, preview: ObjectPreview) -> None:
    if preview.reason is not None:
        advice = preview.reason.advice
        console.print(f"Quarantined: {preview.reason.value} {preview.where}".rstrip())
        console.print(f"{advice.meaning} {advice.what_to_do}")


def _print_differences(
    console: Console, recipes: tuple[str, ...], against: tuple[str, ...], one: ObjectPreview, other: ObjectPreview
) -> None:
    for preview in (one, other):
        _print_quarantine(console, preview)
    table = Table(Column("Element", overflow="fold"), "Name", " + ".join(recipes), " + ".join(against))
    found = differences(one, other)
    for difference in found:
        kinds = (kind.value if kind else "stays" for kind in (difference.one, difference.other))
        table.add_row(difference.path, difference.name, *kinds)
    console.print(table)
    console.print(f"{len(found)} elements are treated differently.")
