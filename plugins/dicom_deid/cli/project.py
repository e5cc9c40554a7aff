"""`dicom-deid project`: the end of a project."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_deid.cli.options import access_options, database_access, database_options
from dicom_deid.database import AccessReason, Database, WithdrawalRequest
from dicom_deid.pipeline import Connections
from dicom_deid.pipeline.withdrawal import continue_withdrawal


@click.group()
def project() -> None:
    """Delete a project."""


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
