"""`dicom-deid preview`: show what a recipe would do to one object; nothing is written."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from dataclasses import replace

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
from dicom_deid.pipeline.preview import (
    ITEM_NUMBER,
    ObjectPreview,
    by_treatment,
    differences,
    names_text,
    preview_object,
)
from dicom_deid.pipeline.recipes import recipes_and_settings
from dicom_deid.recipe import Recipe

_HIDDEN = "(hidden)"


@click.command()
@click.argument("address", metavar="OBJECT")
@recipe_options
@click.option(
    "--against",
    multiple=True,
    metavar="NAME|PATH",
    help="Another recipe: show what the two treat differently.",
)
@click.option("--details", is_flag=True, help="List each element, not one line for elements that are treated alike.")
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
        _print_changes(console, one, show_originals, details=details)
    if one.reason is not None:
        sys.exit(EXIT_QUARANTINED)


def _deidentifier(recipes: tuple[str, ...], profile_options: tuple[str, ...]) -> Deidentifier:
    # A preview shows what the rules do, also for objects that a run would quarantine.
    seen = {"residuals": "report", "pixel_risk": "allow", "documents": "allow", "faces": "allow"}
    rules = recipes_and_settings(recipes, profile_options, seen)
    return Deidentifier(Recipe.resolve(*rules["recipes"]), Settings(**rules["settings"]))


def _print_changes(console: Console, preview: ObjectPreview, show_originals: bool, *, details: bool) -> None:
    if preview.reason is not None:
        _print_quarantine(console, preview)
        return
    changes = preview.changes if details else _without_item_numbers(preview.changes)
    console.print(changes_table(changes, show_originals=show_originals))
    console.print(f"{len(preview.changes)} elements change, {preview.unchanged} stay as they are.")
    for reason, count in preview.notes.items():
        console.print(f"{reason.value}: {count}. {reason.advice.meaning}")
    if not show_originals:
        console.print("Original values are hidden: --show-originals shows them.")


def _without_item_numbers(changes: Iterable[Change]) -> Iterable[Change]:
    """Yield one change for those that differ only in the numbers of items; it counts their values if these differ."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        groups.setdefault((ITEM_NUMBER.sub("[*]", change.path), change.kind), []).append(change)
    for (path, _), (first, *others) in groups.items():
        if not others:
            yield first
            continue
        before, after = (
            values[0] if len(set(values)) == 1 else f"{len(set(values))} values"
            for values in ([one.before for one in (first, *others)], [one.after for one in (first, *others)])
        )
        yield replace(first, path=path, name=f"{first.name}, {len(others) + 1} times", before=before, after=after)


def changes_table(changes: Iterable[Change], *, show_originals: bool) -> Table:
    """Return a table of changed elements, with original values or `(hidden)`."""
    table = Table(Column("Element", overflow="fold"), "Name", "", "Before", "After")
    for change in changes:
        before = (change.before or "") if show_originals or not change.before else _HIDDEN
        table.add_row(change.path, escape(change.name), change.kind.value, escape(before), escape(change.after or ""))
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
    found = differences(one, other)
    # A rule may be one long word.
    columns = [Column(" + ".join(each), overflow="fold") for each in (recipes, against)]
    if details:
        table = Table(Column("Element", overflow="fold"), "Name", *columns)
        for each in found:
            table.add_row(each.path, escape(each.name), escape(str(each.one)), escape(str(each.other)))
    else:
        table = Table("Elements", *columns, Column("Number", justify="right"))
        for treatments, names in by_treatment(found).items():
            row = (names_text(list(names)), *map(str, treatments), str(names.total()))
            table.add_row(*map(escape, row))
    console.print(table)
    console.print(f"{len(found)} elements are treated differently{'.' if details else '; --details lists them.'}")
