"""`dicom-deid release`: copy the approved objects of a run to where others read them, and withdraw released objects."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from dicom_deid.cli.options import access_options, database_access, database_options
from dicom_deid.database import AccessReason, Database, Withdrawal, WithdrawalRequest
from dicom_deid.pipeline import Connections
from dicom_deid.pipeline.release import release_run
from dicom_deid.pipeline.withdrawal import continue_withdrawal, read_withdrawal_list


@click.group()
def release() -> None:
    """Copy approved objects to where others read them; withdraw released objects."""


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
        released = release_run(
            connections, run_id=run_id, release_to=target, person=getpass.getuser(), transfers=transfers
        )
    click.echo(f"Released {released.objects} objects to {target}.")


@release.command()
@click.option("--project", required=True, help="The project.")
@click.option("--patient", "patients", multiple=True, help="A PatientID. Values may be originals or pseudonyms.")
@click.option("--accession", "accession_numbers", multiple=True, help="An AccessionNumber.")
@click.option("--study", "studies", multiple=True, help="A Study Instance UID.")
@click.option("--series", multiple=True, help="A Series Instance UID.")
@click.option("--object", "objects", multiple=True, help="A SOP Instance UID.")
@click.option(
    "--from",
    "file",
    type=click.File("rb"),
    help="CSV file of kind (patient, accession, study, series, object) and value; - for standard input.",
)
@click.option("--decision", type=int, help="What this quarantine decision released, and later its rule.")
@click.option("--deleted-sources", is_flag=True, help="Objects whose source object is gone, as the last run found.")
@click.option("--undo", metavar="ID", help="Lift this withdrawal instead: the next run writes its objects again.")
@click.option("--resume", metavar="ID", help="Continue this withdrawal, which was stopped.")
@click.option("--dry-run", is_flag=True, help="Count what would be deleted; change nothing.")
@access_options
@database_options
def withdraw(
    project: str,
    file: BinaryIO | None,
    decision: int | None,
    deleted_sources: bool,
    undo: str | None,
    resume: str | None,
    dry_run: bool,
    person: str,
    reason: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
    **values: tuple[str, ...],
) -> None:
    """Delete released objects from the destination, places of release and quarantine, and never write them again."""
    access_reason = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access:
        connections = Connections(database=access.url, keys=access.keys, schema=schema)
        with Database.connect(access.url, schema=schema, keys=access.keys) as db:
            found = db.project(project, create=False)
            if undo:
                count = db.undo_withdrawal(found, undo, access_reason)
                click.echo(f"The withdrawal of {count} objects was undone; the next run writes them again.")
                return
            if not resume:
                request = WithdrawalRequest(decision=decision, deleted_sources=deleted_sources, **_values(values, file))
                begun = db.withdraw(found, request, access_reason, dry_run=dry_run)
                _print_withdrawal(begun)
                resume = begun.withdrawal_id
        if resume:
            count = continue_withdrawal(connections, project, resume)
            click.echo(f"Withdrawal {resume}: {count} copies were deleted.")


def _values(values: Mapping[str, tuple[str, ...]], file: BinaryIO | None) -> dict[str, Any]:
    """Return the values of the options and of the file, by field of the request."""
    listed = read_withdrawal_list(file.read(), "the file") if file else {}
    return {name: [*given, *listed.get(name, ())] for name, given in values.items()}


def _print_withdrawal(begun: Withdrawal) -> None:
    word = "would be" if begun.withdrawal_id is None else "are"
    click.echo(f"{begun.objects} objects {word} withdrawn.")
    for place, count in begun.deletions.items():
        click.echo(f"  {place}: {count} copies")
    if begun.unknown:
        click.echo(f"{begun.unknown} values are known to no object of the project; check them.", err=True)
