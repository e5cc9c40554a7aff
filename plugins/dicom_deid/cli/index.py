"""`dicom-deid index`: index a source, so that cohort lists can be planned without reading it."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_deid.cli.options import database_access, database_options
from dicom_deid.database import Database
from dicom_deid.database.source_index import count_archive
from dicom_deid.objectstore import open_source
from dicom_deid.pipeline.indexing import index_source


@click.command()
@click.argument("source")
@click.option("--project", required=True, help="Project that the index belongs to; its keys hash the identifiers.")
@click.option("--transfers", type=click.IntRange(1), default=16, show_default=True, help="Headers read at a time.")
@database_options
def index(
    source: str, project: str, transfers: int, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Read the headers of the new and changed objects of SOURCE into the index of a project.

    Identifiers are stored as keyed hashes. A second call reads only what is new; objects that were deleted from the
    source are removed from the index.
    """
    store = open_source(source)
    store.check()
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        db.upgrade()
        summary = index_source(db, store, project, transfers=transfers)
        counts = count_archive(db.connection, project)
    click.echo(
        f"{summary.listed} objects listed, {summary.read} headers read, {summary.unreadable} unreadable, "
        f"{summary.removed} removed from the index."
    )
    for each in counts[:20]:
        kind = " ".join(filter(None, (each.modality, each.year, each.manufacturer, each.model))) or "unknown"
        click.echo(
            f"{each.objects:10d}  {kind}: {each.deidentified} de-identified, {each.quarantined} quarantined, "
            f"{each.excluded} excluded"
        )
