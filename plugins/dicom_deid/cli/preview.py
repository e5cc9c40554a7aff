"""`dicom-deid preview`: show what a recipe would do to one object; nothing is written."""

from __future__ import annotations

import gc
import re
import sys
from collections import Counter
from collections.abc import Iterable

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from dicom_deid.cli import EXIT_QUARANTINED
from dicom_deid.cli.rule_options import recipe_options
from dicom_deid.engine import Deidentifier
from dicom_deid.engine.profiles import BASIC
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import open_object_store
from dicom_deid.pipeline.batch import rare_garbage_collection
from dicom_deid.pipeline.changes import Change
from dicom_deid.pipeline.preview import ObjectPreview, differences, preview_object
from dicom_deid.pipeline.recipes import recipes_and_settings
from dicom_deid.recipe import Recipe

_HIDDEN = "(hidden)"
_ITEM_NUMBER = re.compile(r"\[\d+\]")


@click.command()
@click.argument("address", metavar="OBJECT")
@recipe_options
@click.option(
    "--against",
    multiple=True,
    metavar="NAME|PATH",
    help="Another recipe: show what the two treat differently.",
)
@click.option("--details", is_flag=True, help="With --against: list each element instead of one line for all items.")
@click.option("--show-originals", is_flag=True, help="Show original values, which are PHI, on this terminal.")
def preview(
    address: str,
    recipes: tuple[str, ...],
    profile_options: tuple[str, ...],
    against: tuple[str, ...],
    details: bool,
    show_originals: bool,
) -> None:
    """Show which elements of OBJECT (s3://bucket/key or a file) a recipe changes, and how; write nothing.

    Pseudonyms are examples: no mapping is read or changed.
    """
    rules = [(recipes, profile_options)]
    if against:
        rules.append((against, profile_options if BASIC in against else ()))
    deidentifiers = [_deidentifier(*each) for each in rules]
    folder, _, key = address.rpartition("/")
    if not key:
        raise ConfigurationError("Give an object: s3://bucket/key, or the path of a file.")
    store = open_object_store(folder or ("/" if address.startswith("/") else "."))
    found = store.find(key)
    if found is None:
        raise ConfigurationError(f"There is no such object in {store.url}: check the address.")
    # Imported modules are never garbage.
    gc.freeze()
    with rare_garbage_collection():
        one, *others = preview_object(deidentifiers, store, key, size=found.size, etag=found.etag)
    console = Console()
    if others:
        _print_differences(console, recipes, against, one, others[0], details=details)
    else:
        _print_changes(console, one, show_originals)
    if one.reason is not None:
        sys.exit(EXIT_QUARANTINED)


def _deidentifier(recipes: tuple[str, ...], profile_options: tuple[str, ...]) -> Deidentifier:
    # A preview shows what the rules do, also for objects that a run would quarantine.
    seen = {"residuals": "report", "pixel_risk": "allow", "documents": "allow", "faces": "allow"}
    rules = recipes_and_settings(recipes, profile_options, seen)
    return Deidentifier(Recipe.resolve(*rules["recipes"]), Settings(**rules["settings"]))


def _print_changes(console: Console, preview: ObjectPreview, show_originals: bool) -> None:
    if preview.reason is not None:
        _print_quarantine(console, preview)
        return
    console.print(changes_table(preview.changes, show_originals=show_originals))
    console.print(f"{len(preview.changes)} elements change, {preview.unchanged} stay as they are.")
    for reason, count in preview.notes.items():
        console.print(f"{reason.value}: {count}. {reason.advice.meaning}")
    if not show_originals:
        console.print("Original values are hidden: --show-originals shows them.")


def changes_table(changes: Iterable[Change], *, show_originals: bool) -> Table:
    """Return a table of changed elements, with original values or `(hidden)`."""
    table = Table(Column("Element", overflow="fold"), "Name", "", "Before", "After")
    for change in changes:
        before = (change.before or "") if show_originals or not change.before else _HIDDEN
        table.add_row(change.path, change.name, change.kind.value, escape(before), escape(change.after or ""))
    return table


def _print_quarantine(console: Console, preview: ObjectPreview) -> None:
    if preview.reason is not None:
        advice = preview.reason.advice
        console.print(f"Quarantined: {preview.reason.value} {preview.where}".rstrip())
        console.print(f"{advice.meaning} {advice.what_to_do}")


def _print_differences(
    console: Console,
    recipes: tuple[str, ...],
    against: tuple[str, ...],
    one: ObjectPreview,
    other: ObjectPreview,
    *,
    details: bool,
) -> None:
    for preview in (one, other):
        _print_quarantine(console, preview)
    table = Table(Column("Element", overflow="fold"), "Name", " + ".join(recipes), " + ".join(against), "Elements")
    found = differences(one, other)
    shown = found if details else [each._replace(path=_ITEM_NUMBER.sub("[*]", each.path)) for each in found]
    for difference, count in Counter(shown).items():
        kinds = (kind.value if kind else "stays" for kind in (difference.one, difference.other))
        table.add_row(escape(difference.path), escape(difference.name), *kinds, str(count))
    console.print(table)
    console.print(f"{len(found)} elements are treated differently.")
