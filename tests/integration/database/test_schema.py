"""Migrations: up and down, from empty and with data, by several at once, in any schema."""

from __future__ import annotations

import threading

import pytest

from dicom_deid.database import Database, schema
from dicom_deid.database.connection import DatabaseConnection, libpq_url
from dicom_deid.exceptions import ConfigurationError, DatabaseError
from dicom_deid.identifiers import Identifier, IdentifierKind


def tables(database: DatabaseConnection) -> set[str]:
    rows = database.query(
        "test", "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (database.schema,)
    )
    return {name for (name,) in rows}


def test_head_is_the_newest_revision():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "dicom_deid.database:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_up_and_down_from_empty_and_with_data(postgres_url, keys):
    with Database.connect(postgres_url, keys=keys) as database:
        assert schema.current(database.connection) is None
        database.upgrade()
        assert schema.current(database.connection) == schema.HEAD
        original = Identifier(IdentifierKind.PATIENT_ID, "A")
        before = database.mapping(database.project("p")).resolve([original])
        database.upgrade()
        assert database.mapping(database.project("p")).resolve([original]) == before
        schema.downgrade(database.connection, "base")
        assert tables(database.connection) == {"alembic_version"}
        database.upgrade()


def test_several_upgrade_at_once(postgres_url):
    failures = []

    def upgrade() -> None:
        try:
            with Database.connect(postgres_url) as database:
                database.upgrade()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_several_schemas_in_one_database_are_independent(postgres_url, keys):
    connection = DatabaseConnection(postgres_url)
    connection.query("test", "CREATE TABLE public.project (airflow_has text); CREATE TABLE public.audit (its text)")
    for name in ("one", "two"):
        with Database.connect(postgres_url, schema=name, keys=keys) as database:
            database.upgrade()
            database.project(name)
            assert [project.name for project in database.projects()] == [name]
    assert connection.query("test", "SELECT * FROM public.project") == []
    connection.close()


@pytest.mark.parametrize("name", ["", "Dicom", "a-b", "x; DROP TABLE y", "pg_own", "1a", "a" * 41])
def test_a_schema_name_that_needs_quoting_is_refused(name):
    with pytest.raises(ConfigurationError, match="schema name"):
        DatabaseConnection("postgresql://nowhere/", name)


def test_a_missing_schema_is_reported_with_the_command(postgres_url, keys):
    with (
        Database.connect(postgres_url, keys=keys) as database,
        pytest.raises(ConfigurationError, match="dicom-deid db upgrade"),
    ):
        database.project("p")


def test_an_unreachable_server_and_a_wrong_login_have_different_messages(postgres_url):
    with pytest.raises(DatabaseError) as away:
        Database.connect("postgresql://user:sesame@127.0.0.1:9/db")
    with pytest.raises(DatabaseError) as refused:
        Database.connect(postgres_url.replace("://", "://nobody:sesame@").replace("@dicom_deid:", "@", 1))
    for failure in (away, refused):
        assert "sesame" not in str(failure.value)


def test_settings_of_the_connection_reach_libpq(postgres_url):
    # TLS is asked of a server that has none: it must be refused, not silently left out.
    joint = "&" if "?" in postgres_url else "?"
    with pytest.raises(DatabaseError):
        Database.connect(f"{postgres_url}{joint}sslmode=require")
    assert libpq_url("postgresql+psycopg2://h/d?sslmode=verify-full") == "postgresql://h/d?sslmode=verify-full"


def test_what_refers_to_rows_that_are_deleted_is_found_by_an_index(postgres_url, keys):
    """Catches a deletion that reads a whole table for each deleted row, as a foreign key without an index does."""
    with Database.connect(postgres_url, keys=keys) as database:
        database.upgrade()
        referenced = database.connection.query(
            "test",
            "SELECT DISTINCT confrelid::regclass::text FROM pg_constraint c "
            "WHERE contype = 'f' AND connamespace = current_schema()::regnamespace "
            "AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])",
        )
    # Their rows are never deleted.
    assert {name for (name,) in referenced} == {"project", "rules", "withdrawal"}
