"""`dicom-deid project`: the beginning and the end of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from dicom_deid.cli.options import access_options, database_access, database_options
from dicom_deid.database import AccessReason, Database, ProjectOptions, WithdrawalRequest
from dicom_deid.database.projects import UidStrategy
from dicom_deid.identifiers import PatientKey
from dicom_deid.pipeline import Connections
from dicom_deid.pipeline.withdrawal import continue_withdrawal


@click.group()
def project() -> None:
    """Create and delete projects."""


@project.command()
@click.argument("name")
@click.option("--org-root", default=ProjectOptions().org_root, show_default=True, help="Root of new UIDs.")
@click.option("--single-patient-id", help="The PatientID of every patient.")
@click.option(
    "--uid-strategy",
    type=click.Choice(get_args(UidStrategy)),
    default=ProjectOptions().uid_strategy,
    show_default=True,
    help="Store each new UID, or derive it from the keys.",
)
@click.option(
    "--max-date-offset-days",
    type=int,
    default=ProjectOptions().max_date_offset_days,
    show_default=True,
    help="Maximum number of days by which the dates of a patient are shifted.",
)
@click.option(
    "--patient-key",
    type=click.Choice(get_args(PatientKey)),
    default=ProjectOptions().patient_key,
    show_default=True,
    help="Whether a PatientID identifies a patient alone, or with its IssuerOfPatientID.",
)
@click.option(
    "--index-attributes",
    default=ProjectOptions().index_attributes,
    show_default=True,
    help="Attributes that the index of a source stores as they are.",
)
@database_options
def create(name: str, database: str | None, data_directory: Path | None, schema: str, **options: Any) -> None:
    """Create the project NAME. Its options cannot be changed later.

    A run creates a project that does not exist with the default options.
    """
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        db.upgrade()
        if name in [each.name for each in db.projects()]:
            raise click.UsageError(f"there is a project {name} already")
        db.project(name, options)
    click.echo(f"Project {name} was created.")


@project.command()
@click.argument("name")
@click.option("--confirm", help="The name of the project again, instead of a question.")
@access_options
@database_options
def delete(
    name: str,
    confirm: str | None,
    person: str,
    reason: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Withdraw and erase everything of the project NAME: its released objects, copies, originals and keys.

    The audit keeps its rows. When it was stopped, start it again.
    """
    access_reason = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access:
        connections = Connections(database=access.url, keys=access.keys, schema=schema)
        with Database.connect(access.url, schema=schema, keys=access.keys) as db:
            found = db.project(name, create=False)
            everything = WithdrawalRequest(whole_project=True)
            planned = db.withdraw(found, everything, access_reason, dry_run=True)
            click.echo(f"{planned.objects} objects and {sum(planned.deletions.values())} copies will be deleted.")
            given = confirm if confirm is not None else click.prompt("Type the name of the project to delete it")
            if given != name:
                raise click.UsageError("that is not the name of the project; nothing was deleted")
            withdrawals = db.open_withdrawals(found)
            begun = db.withdraw(found, everything, access_reason)
        for withdrawal_id in [*withdrawals, begun.withdrawal_id]:
            continue_withdrawal(connections, name, str(withdrawal_id))
        with Database.connect(access.url, schema=schema, keys=access.keys) as db:
            count = db.delete_project(db.project(name, create=False), access_reason)
    click.echo(f"Project {name} was deleted, with {count} pseudonyms. Backups of the database still hold them.")
