"""`dicom-deid plan`: remove the plans of finished runs."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_deid.cli.options import database_access, database_options
from dicom_deid.database import Database


@click.group()
def plan() -> None:
    """Remove finished plans."""


@plan.command()
@click.option(
    "--days",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Keep plans that ended since.",
)
@database_options
def prune(days: int, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Remove the plan rows of runs that ended long ago. The audit and the list of processed objects are kept."""
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        count = db.prune(days)
    click.echo(f"{count} plan rows removed.")
