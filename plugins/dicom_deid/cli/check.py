"""`dicom-deid check`: check everything that a run needs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dicom_deid.cli import EXIT_FAILED
from dicom_deid.cli.options import database_access, database_options
from dicom_deid.cli.rule_options import recipe_options
from dicom_deid.pipeline import Connections, RunConfiguration
from dicom_deid.pipeline.check import check_run
from dicom_deid.pipeline.recipes import recipes_and_settings


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("--project", required=True, help="The project of the run.")
@click.option("--quarantine", metavar="URL", help="Where copies of quarantined originals are written.")
@recipe_options
@database_options
def check(
    source: str,
    destination: str,
    project: str,
    quarantine: str | None,
    recipes: tuple[str, ...],
    profile_options: tuple[str, ...],
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Check recipe, extras, keys, database and object stores of a run from SOURCE to DESTINATION.

    Prints one line per check: OK, or what to do. Small objects are written to DESTINATION and deleted.
    """
    configuration = RunConfiguration.from_mapping(
        {
            "source": source,
            "destination": destination,
            "project": project,
            "quarantine": quarantine,
            **recipes_and_settings(recipes, profile_options, None),
        }
    )
    failed = False
    with database_access(database, data_directory) as access:
        for result in check_run(
            configuration, lambda: Connections(database=access.url, keys=access.keys, schema=schema)
        ):
            click.echo(str(result))
            failed = failed or bool(result.problem)
    if failed:
        sys.exit(EXIT_FAILED)
