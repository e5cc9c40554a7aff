"""`dicom-deid recipe`: check, list and score recipes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from dicom_deid.cli.options import database_access, database_options
from dicom_deid.cli.score import score
from dicom_deid.database import Database
from dicom_deid.dicom.vr import vr_of
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline.decisions import exported_rules
from dicom_deid.recipe.check import RecipeReport, RuleReport, check
from dicom_deid.recipe.errors import RecipeError
from dicom_deid.recipe.filters import Filter
from dicom_deid.recipe.profile_attributes import ProfileAttribute
from dicom_deid.recipe.recipe import Recipe

EXIT_ERRORS = 2
_SHOWN = 6


@click.group()
def recipe() -> None:
    """Check recipes and list those that ship."""


recipe.add_command(score)


@recipe.command("list")
def list_recipes() -> None:
    """Print the names of the recipes that ship with this package."""
    for name in Recipe.shipped():
        click.echo(name)


@recipe.command("check")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@click.option("--all", "everything", is_flag=True, help="Print every element and attribute, however many.")
def check_recipe(recipes: tuple[str, ...], everything: bool) -> None:
    """Report what a recipe does. RECIPE is a shipped name or a path; several are combined in order.

    Prints which elements each rule selects, which rules never apply, and which direct identifiers of PS3.15
    Table E.1-1 are left alone. Exits 0 when the recipe can be used, 2 when it has errors.
    """
    try:
        checked = Recipe.resolve(*recipes)
    except RecipeError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(EXIT_ERRORS)
    limit = None if everything else _SHOWN
    report = check(checked)
    click.echo(f"Recipe {checked.name}: {len(checked.rules)} rules, {len(checked.filters)} filters")
    click.echo(f"Digest {checked.digest}")
    _print_rules(report, limit)
    _print_filters(checked.filters, limit)
    _print_remarks(report)
    _print_untouched(report, limit)


@recipe.command("export-rules")
@click.argument("project")
@click.option(
    "--layout-objects",
    type=click.IntRange(min=0),
    default=Settings().layout_objects,
    show_default=True,
    help="As for `deidentify`: after how many objects in a row a layout is learned.",
)
@database_options
def export_rules(
    project: str, layout_objects: int, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Print the active rules of PROJECT as a recipe: device rules of reviewers, and learned text layouts."""
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as opened,
    ):
        click.echo(exported_rules(opened.connection, project, layout_objects), nl=False)


def _print_rules(report: RecipeReport, limit: int | None) -> None:
    click.echo("\nElements selected by each rule")
    for one in report.rules:
        click.echo(f"  {_place(one)}  {one.rule}")
        if one.reaches is None:
            click.echo("      elements that contain a value of the list")
        elif one.reaches != (str(one.rule.field),):
            click.echo(f"      {_count(len(one.reaches), 'element')}: {_some(one.reaches, limit)}")
        if one.by_type:
            click.echo(f"      by attribute type, number of SOP classes at the root: {one.by_type}")


def _print_filters(filters: Sequence[Filter], limit: int | None) -> None:
    kinds = {
        "hold the object": [one for one in filters if one.holds],
        "blank regions and clear a risk": [
            one for one in filters if one.coordinates and (one.clears or one.is_whitelist)
        ],
        "blank regions and clear nothing": [
            one for one in filters if one.coordinates and not one.clears and not one.is_whitelist
        ],
        "call the pixels clean": [one for one in filters if one.is_whitelist and not one.coordinates],
    }
    click.echo(f"\nWhat the filters do with pixels: {_count(len(filters), 'label') if filters else 'nothing'}")
    for kind, labels in kinds.items():
        if labels:
            click.echo(f"  {len(labels)} {kind}: {_some(tuple(one.label for one in labels), limit)}")


def _print_remarks(report: RecipeReport) -> None:
    shadowed = [f"  {_place(one)}  {one.rule}: {one.shadowed}" for one in report.rules if one.shadowed]
    warnings = [f"  {text}" for text in report.warnings]
    warnings += [f"  {_place(one)}  {one.rule}: {text}" for one in report.rules for text in one.warnings]
    for title, lines in (("Rules that never apply", shadowed), ("Warnings", warnings)):
        click.echo(f"\n{title}: {len(lines) or 'none'}")
        for line in lines:
            click.echo(line)


def _print_untouched(report: RecipeReport, limit: int | None) -> None:
    direct = report.direct_identifiers_untouched
    click.echo(f"\nDirect identifiers of PS3.15 Table E.1-1 that the recipe leaves unchanged: {len(direct) or 'none'}")
    shown = direct if limit is None else direct[: 10 * limit]
    for attribute in shown:
        click.echo(f"  {_attribute(attribute)}")
    if len(direct) > len(shown):
        click.echo(f"  ... and {len(direct) - len(shown)} more, see --all")
    others = [attribute for attribute in report.untouched if not attribute.is_direct_identifier]
    click.echo(f"Other attributes of the table that the recipe leaves unchanged: {len(others) or 'none'}")
    if limit is None:
        for attribute in others:
            click.echo(f"  {_attribute(attribute)}")


def _place(report: RuleReport) -> str:
    return f"{report.rule.source}:{report.rule.line}"


def _attribute(attribute: ProfileAttribute) -> str:
    note = "; elements in the sequence have rules of their own" if vr_of(attribute.example_tag) == "SQ" else ""
    return f"{attribute.tag} {attribute.name} (basic profile: {attribute.basic_profile}{note})"


def _some(names: tuple[str, ...], limit: int | None) -> str:
    shown = names if limit is None else names[:limit]
    rest = f", ... and {len(names) - len(shown)} more, see --all" if len(names) > len(shown) else ""
    return ", ".join(shown) + rest if names else "none"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
