"""`dicom-deid init`: prepare the database, and print the Airflow connections."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from dicom_deid.cli.options import KEYS_VARIABLE, database_access, database_options
from dicom_deid.database import Database, KeyRing
from dicom_deid.database.roles import create_roles
from dicom_deid.sandbox.deployment import connection_documents


@click.command()
@click.option("--project", default="research", show_default=True, help="Project that is created.")
@click.option("--writer", metavar="LOGIN", help="Database login of the runs; it becomes a member of the role writer.")
@click.option("--roles/--no-roles", default=True, show_default=True, help="Create the roles, which takes CREATEROLE.")
@database_options
def init(
    project: str, writer: str | None, roles: bool, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Create the schema, its roles and a project, and print commands that add the Airflow connections.

    The key of the crosswalk comes from DICOM_DEID_KEYS; a new one is generated if it is not set. Endpoint and
    credentials of the object store come from the AWS environment variables. The output holds secrets.
    """
    new_key = bool(database) and not os.environ.get(KEYS_VARIABLE, "").strip()
    if new_key:
        os.environ[KEYS_VARIABLE] = KeyRing.generate().to_text()
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        db.upgrade()
        if roles:
            create_roles(db.connection, {"writer": writer} if writer else None)
        db.project(project)
        _print_connections(access.url, access.keys, project)
    click.echo(f"Schema {schema} and project {project} are ready.", err=True)
    if new_key:
        click.echo("A new key was generated; it is in dicom_deid_default. Keep a copy in a safe place.", err=True)


def _print_connections(url: str, keys: KeyRing, project: str) -> None:
    environment = os.environ
    storage = {
        "endpoint_url": environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or "",
        "login": environment.get("AWS_ACCESS_KEY_ID") or "ACCESS_KEY",
        "password": environment.get("AWS_SECRET_ACCESS_KEY") or "SECRET_KEY",
    }
    for name, document in connection_documents(storage, url, keys, project=project).items():
        click.echo(f"airflow connections add {name} --conn-json {shlex.quote(document)}")
