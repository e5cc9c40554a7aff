"""`dicom-deid release`: copy the approved objects of a run to where others read them."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_deid.cli.options import database_access, database_options
from dicom_deid.pipeline import Connections
from dicom_deid.pipeline.release import release_run


@click.group()
def release() -> None:
    """Release the objects of a run after approval."""


@release.command()
@click.argument("run_id", metavar="RUN")
@click.argument("target")
@click.option("--transfers", type=click.IntRange(1), default=16, show_default=True, help="Copies at a time.")
@database_options
def copy(
    run_id: str, target: str, transfers: int, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Copy the objects that RUN wrote to TARGET (s3://bucket/prefix or a directory), under the same keys.

    Only objects that the audit records as written are copied. The same command resumes an interrupted copy.
    """
    with database_access(database, data_directory) as access:
        connections = Connections(database=access.url, keys=access.keys, schema=schema)
        released = release_run(connections, run_id=run_id, release_to=target, transfers=transfers)
    click.echo(f"Released {released.objects} objects to {target}.")
