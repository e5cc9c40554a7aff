"""Database connection of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from airflow.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from dicom_deid.database import Database
from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.schema import current
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.hooks.aws import s3_connection
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.hooks.postgres import database_url
from dicom_deid.objectstore import ObjectStore, open_object_store
from dicom_deid.objectstore.containers import ContainerStore

SECTION = "dicom_deid"


def deid_conn_id() -> str:
    """Return the id of the `dicom_deid` connection of the pages."""
    return str(conf.get(SECTION, "pages_deid_conn_id", fallback=DicomDeidHook.default_conn_name))


def database_conn_id() -> str:
    """Return the id of the `postgres` connection of the pages; the role `auditor` is enough for reading."""
    return str(conf.get(SECTION, "pages_database_conn_id", fallback="dicom_deid_database"))


def connect() -> DatabaseConnection:
    """Return a connection to the database; the caller closes it.

    Raises
    ------
    ConfigurationError
        An Airflow connection is missing.
    """
    try:
        schema = DicomDeidHook(deid_conn_id()).database_schema
        return DatabaseConnection(database_url(database_conn_id()), schema)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"The pages need the connections {deid_conn_id()} and {database_conn_id()}: create them in Admin, "
            "Connections."
        ) from None


def schema_exists() -> bool:
    """Return whether the schema exists, in any version."""
    with closing(connect()) as database:
        return current(database) is not None


def open_connection() -> Iterator[DatabaseConnection]:
    """Yield the database connection of a route, and close it afterwards.

    Raises
    ------
    ConfigurationError
        A connection is missing.
    """
    with closing(connect()) as connection:
        yield connection


def open_database() -> Iterator[Database]:
    """Yield the database of a route with its keys, and close the connection afterwards.

    Raises
    ------
    ConfigurationError
        A connection is missing, or its keys cannot be read.
    """
    with closing(connect()) as connection, Database(connection, DicomDeidHook(deid_conn_id()).get_conn()) as database:
        yield database


def open_source(url: str) -> ObjectStore:
    """Open the object store of source objects with the configured connection."""
    return ContainerStore(open_configured_store(url, "pages_source_conn_id", "dicom_deid_source"))


def open_configured_store(url: str, option: str, usual: str) -> ObjectStore:
    """Open an object store with the configured connection, or with the AWS environment variables if none is set."""
    return open_object_store(url, s3_connection(conf.get(SECTION, option, fallback=usual) or None))


def queries() -> Iterator[Queries]:
    """Yield the queries of a route and close their connection afterwards.

    Raises
    ------
    ConfigurationError
        A connection is missing.
    """
    with closing(connect()) as database:
        yield Queries(database)
