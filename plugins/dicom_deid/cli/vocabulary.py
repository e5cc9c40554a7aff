"""`dicom-deid vocabulary`: the words of an archive that its vocabulary does not know."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_deid.engine.vocabulary import Vocabulary
from dicom_deid.objectstore import open_source
from dicom_deid.pipeline.vocabulary_report import VocabularyReport, report_vocabulary
from dicom_deid.recipe import Recipe


@click.group()
def vocabulary() -> None:
    """Review the words that may stay in free text."""


@vocabulary.command()
@click.argument("source")
@click.option("--recipe", "recipes", multiple=True, help="A recipe with words of the site; may be given several times.")
@click.option(
    "--patients",
    type=click.IntRange(min=3),
    default=5,
    show_default=True,
    help="Print words of at least this many patients; words of fewer may be names.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Read at most this many objects.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=50, show_default=True, help="Print at most this many words."
)
@click.option(
    "--write",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the words to this recipe file, as a %vocabulary section to be reviewed.",
)
def report(
    source: str, recipes: tuple[str, ...], patients: int, limit: int | None, rows: int, target: Path | None
) -> None:
    """List the words of SOURCE that `--free-text vocabulary` would mask most often, never with a patient."""
    site = Recipe.resolve(*recipes).vocabulary if recipes else ()
    store = open_source(source)
    store.check()
    found = report_vocabulary(store, Vocabulary(site), patients=patients, limit=limit)
    click.echo(f"{found.objects} objects read, {found.unreadable} of them unreadable.")
    for one in found.words[:rows]:
        click.echo(f"{one.texts:8d} texts  {one.word}")
    click.echo(f"{len(found.words)} words of at least {patients} patients, {found.rare} words of fewer patients.")
    if target is not None:
        target.write_text(_recipe_of(found), encoding="utf-8")
        click.echo(f"Review {target}, take out names, and add it to the recipes of the run.")


def _recipe_of(found: VocabularyReport) -> str:
    words = "".join(f"{one.word}\n" for one in sorted(found.words, key=lambda one: one.word))
    return f"FORMAT dicom\n\n%vocabulary\n{words}"
