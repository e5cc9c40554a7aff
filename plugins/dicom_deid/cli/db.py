"""`dicom-deid db`: the schema and its roles."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from dicom_deid.cli.options import database_access, database_options
from dicom_deid.database import schema as versions
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.roles import ROLES, create_roles, role_names, role_statements


@click.group()
def db() -> None:
    """Create and upgrade the database schema and its roles."""


@db.command()
@database_options
def upgrade(database: str | None, data_directory: Path | None, schema: str) -> None:
    """Bring the schema to this version's. Safe to run at any time, and by several at once."""
    with database_access(database, data_directory) as access:
        connection = DatabaseConnection(access.url, schema)
        before = versions.current(connection)
        versions.upgrade(connection)
        connection.close()
    stood = "did not exist" if before is None else f"stood at {before}"
    click.echo(f"Schema {schema} {stood}; it stands at {versions.HEAD}.")


@db.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def downgrade(revision: str, yes: bool, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Take the schema back to REVISION; `base` drops every table, the mapping and the audit included."""
    if not yes:
        click.confirm(f"Take schema {schema} back to {revision}? Data that only newer tables hold are lost", abort=True)
    with database_access(database, data_directory) as access:
        connection = DatabaseConnection(access.url, schema)
        versions.downgrade(connection, revision)
        connection.close()
    click.echo(f"Schema {schema} stands at {revision}.")


@db.command()
@database_options
def current(database: str | None, data_directory: Path | None, schema: str) -> None:
    """Print the revision of the schema, and the one that this version needs."""
    with database_access(database, data_directory) as access:
        connection = DatabaseConnection(access.url, schema)
        stands = versions.current(connection)
        connection.close()
    click.echo(f"Schema {schema}: {stands or 'not made'} (this version needs {versions.HEAD})")


@db.command()
@click.option("--print", "print_only", is_flag=True, help="Print the SQL for a database administrator; change nothing.")
@click.option(
    "--member",
    "members",
    multiple=True,
    type=(click.Choice(ROLES), str),
    metavar="ROLE LOGIN",
    help="Make a login a member of a role, for example --member writer airflow.",
)
@database_options
def roles(
    print_only: bool,
    members: tuple[tuple[str, str], ...],
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Make the roles owner, writer, reader and reidentifier, each with no more than it needs."""
    if print_only:
        name = urlsplit(database or "").path.lstrip("/") or "DATABASE"
        for statement in role_statements(schema, name):
            click.echo(f"{statement};")
        return
    with database_access(database, data_directory) as access:
        connection = DatabaseConnection(access.url, schema)
        versions.upgrade(connection)
        for role, login in members or [(None, None)]:
            create_roles(connection, {role: login} if role and login else None)
        connection.close()
    for role, name in role_names(schema).items():
        click.echo(f"{role:13} {name}")
