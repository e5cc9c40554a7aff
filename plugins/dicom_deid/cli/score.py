"""`dicom-deid recipe score`: score a recipe on a synthetic corpus with an answer key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.profiles import BASIC, Option, parse_options, profile_settings
from dicom_deid.engine.settings import ResidualPolicy
from dicom_deid.recipe import Recipe

EXIT_BELOW_THRESHOLD = 1


@click.command("score")
@click.argument("recipes", nargs=-1, metavar="RECIPE...")
@click.option(
    "--option",
    "options",
    multiple=True,
    type=click.Choice([option.value for option in Option]),
    help="An option of ps3.15-basic.",
)
@click.option(
    "--site",
    is_flag=True,
    help="Add the rules of a site for this corpus: private elements that it vouches for, and ages over 89.",
)
@click.option(
    "--residuals",
    type=click.Choice(get_args(ResidualPolicy)),
    default="redact-token",
    show_default=True,
    help="Policy of the residual search; with `quarantine` few objects of this corpus are delivered.",
)
@click.option("--patients", type=click.IntRange(1, 1000), default=4, show_default=True, help="Patients in the corpus.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the corpus.")
@click.option("--threshold", type=click.FloatRange(0, 100), help="Exit 1 if a header category scores less (percent).")
@click.option("--write", "target", type=click.Path(path_type=Path), help="Write the corpus to this folder, and stop.")
@click.option(
    "--read",
    "outcome",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Score the output of another program on the written corpus: files of the same names.",
)
def score(
    recipes: tuple[str, ...],
    options: tuple[str, ...],
    site: bool,
    residuals: ResidualPolicy,
    patients: int,
    seed: int,
    threshold: float | None,
    target: Path | None,
    outcome: Path | None,
) -> None:
    """Print a table: for each category the percentage of statements of the answer key that hold.

    RECIPE is a shipped name or a path; several are combined in order. The corpus holds objects of all modalities
    with synthetic identifiers, drawn at random, in standard, nested, private and free-text elements, in pixels, dates
    and UIDs.
    """
    from dicom_deid.score.corpus import generate
    from dicom_deid.score.report import failures, markdown
    from dicom_deid.score.run import read, run, write
    from dicom_deid.score.scorer import score as score_outcomes

    cases = generate(seed, patients=patients)
    if target is not None:
        write(cases, target)
        click.echo(f"{len(cases)} objects in {target}")
        return
    if outcome is not None:
        name, outcomes = outcome.name, read(cases, outcome)
    elif recipes:
        deidentifier = _engine(recipes, options, site, residuals)
        name = "+".join(recipes) + (f", {len(options)} options" if options else "")
        outcomes, reasons = run(cases, deidentifier)
        for reason, count in sorted(reasons.items()):
            click.echo(f"quarantined: {count} {reason}")
    else:
        raise click.UsageError("name a RECIPE, or give --read or --write")
    result = score_outcomes(cases, outcomes)
    click.echo(markdown({name: result}))
    click.echo(failures(result), nl=False)
    if threshold is not None and result.worst() < threshold:
        click.echo(f"A header category scores below {threshold:g} %.", err=True)
        sys.exit(EXIT_BELOW_THRESHOLD)


def _engine(recipes: tuple[str, ...], options: tuple[str, ...], site: bool, residuals: ResidualPolicy) -> Deidentifier:
    """Return the engine; for the basic profile, with the settings that the profile and its options require."""
    chosen = parse_options(options)
    if chosen and BASIC not in recipes:
        raise click.UsageError(f"--option refines {BASIC}: name it as a RECIPE")
    from dicom_deid.score.run import SITE_RECIPE

    recipe = Recipe.resolve(*recipes, *(option.recipe_name for option in chosen), *([SITE_RECIPE] if site else []))
    settings = Settings(residuals=residuals)
    return Deidentifier(recipe, profile_settings(chosen, settings) if BASIC in recipes else settings)
