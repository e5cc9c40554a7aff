"""Upgrade and downgrade of the schema, with the Alembic revisions that ship inside the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from dicom_deid.database.errors import translate_errors

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from dicom_deid.database.connection import DatabaseConnection

HEAD = "0001"
"""The revision that this version of the package works with."""


def current(connection: DatabaseConnection) -> str | None:
    """Return the revision of the schema, None when it does not exist."""
    table = f"{connection.schema}.alembic_version"
    if connection.query("reading the schema's version", "SELECT to_regclass(%s)", (table,))[0][0] is None:
        return None
    rows = connection.query("reading the schema's version", f"SELECT version_num FROM {table}")  # noqa: S608
    return str(rows[0][0]) if rows else None


def upgrade(connection: DatabaseConnection, revision: str = HEAD) -> None:
    """Upgrade the schema to `revision`. Nothing happens when it has it; two at once wait for each other.

    Raises
    ------
    DatabaseError
        PostgreSQL refused; nothing was changed.
    """
    if current(connection) == revision:
        return
    _run(connection, "upgrade", revision)


def downgrade(connection: DatabaseConnection, revision: str) -> None:
    """Downgrade the schema to `revision`; `base` drops every table with its data."""
    _run(connection, "downgrade", revision)


def _run(connection: DatabaseConnection, direction: str, revision: str) -> None:
    # Alembic and SQLAlchemy cost 0.3 s to import, and are needed once in a schema's life.
    from alembic import command
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    schema = connection.schema
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(connection.url), poolclass=NullPool
    )

    def migrate() -> None:
        try:
            with engine.begin() as connection:
                _prepare(connection, schema)
                getattr(command, direction)(_configuration(connection, schema), revision)
        except DBAPIError as error:
            raise psycopg2.DatabaseError if error.orig is None else error.orig from None

    translate_errors(f"migrating the schema ({direction} to {revision})", migrate)


def _prepare(connection: Connection, schema: str) -> None:
    """Lock the schema until the end of the transaction, and create it if it does not exist."""
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{schema} migration",))
    made = connection.exec_driver_sql(
        "SELECT pg_get_userbyid(nspowner), pg_get_userbyid(nspowner) <> current_user FROM pg_namespace "
        "WHERE nspname = %s",
        (schema,),
    ).first()
    if made is None:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    elif made[1]:
        # Tables belong to the schema's owner, whichever of its members runs the revision.
        connection.exec_driver_sql(f"SET LOCAL ROLE {made[0]}")
    connection.exec_driver_sql(f"SET LOCAL search_path TO {schema}, pg_temp")


def _configuration(connection: Connection, schema: str) -> Config:
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.attributes.update(connection=connection, schema=schema)
    return configuration
