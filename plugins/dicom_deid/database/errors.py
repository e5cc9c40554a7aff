"""Errors of the database; no message holds a value of a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg2

from dicom_deid.exceptions import ConfigurationError, DatabaseError, DicomDeidError

Result = TypeVar("Result")


class ConnectionLost(DatabaseError):
    """The connection to PostgreSQL was lost; uncommitted changes are rolled back, a retry resumes."""


class TableMissing(ConfigurationError):
    """The schema does not exist, or is older than this version of the package."""


class LeaseLost(DatabaseError):
    """Another worker has leased the batch; the results of this one must not be recorded."""


_ADVICE = {
    "28": (ConfigurationError, "PostgreSQL refused the user or password; check the connection's login"),
    "3D": (ConfigurationError, "the database does not exist; check the connection's database name"),
    "3F": (TableMissing, "the schema does not exist; run `dicom-deid db upgrade`"),
    "22P02": (ConfigurationError, "an id is not of the form of one; give it as it is printed and shown"),
    "42P01": (TableMissing, "a table is missing; run `dicom-deid db upgrade`"),
    "42703": (ConfigurationError, "a column is missing; run `dicom-deid db upgrade`"),
    "42883": (ConfigurationError, "a function is missing; run `dicom-deid db upgrade`"),
    "42501": (
        ConfigurationError,
        "the login may not do this; grant it the role it needs (see `dicom-deid db roles`)",
    ),
    "53": (DatabaseError, "PostgreSQL lacks resources (connections, memory or disk)"),
    "57": (ConnectionLost, "PostgreSQL ended the connection; a retry resumes"),
    "08": (ConnectionLost, "the connection to PostgreSQL was lost; a retry resumes"),
}


def database_error(error: psycopg2.Error, doing: str) -> DicomDeidError:
    """Return our exception for one of psycopg2, whose text can quote values.

    Parameters
    ----------
    error
        The exception. Only its SQLSTATE code is used, not its text.
    doing
        The operation, for example ``"looking up pseudonyms"``.
    """
    code = error.pgcode or ""
    for length in (5, 2):
        if code[:length] in _ADVICE:
            kind, advice = _ADVICE[code[:length]]
            return kind(f"While {doing}: {advice} (SQLSTATE {code}).")
    if not code and isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return ConnectionLost(f"While {doing}: the connection to PostgreSQL was lost; a retry resumes.")
    return DatabaseError(f"While {doing}: PostgreSQL reported {type(error).__name__} (SQLSTATE {code or 'unknown'}).")


def connection_error(error: psycopg2.Error, doing: str) -> DicomDeidError:
    """Return our exception for a connection that could not be opened: libpq gives no SQLSTATE then."""
    if error.pgcode:
        return database_error(error, doing)
    if isinstance(error, psycopg2.ProgrammingError):
        return ConfigurationError(
            f"While {doing}: the URL of the database cannot be read; it is postgresql://login:password@host:port/name."
        )
    return ConnectionLost(
        f"While {doing}: PostgreSQL cannot be reached, or refuses the login; check that it runs, and the connection's "
        "host, port, login, password and database."
    )


def translate_errors(
    doing: str,
    action: Callable[[], Result],
    describe: Callable[[psycopg2.Error, str], DicomDeidError] = database_error,
) -> Result:
    """Call `action` and replace errors of psycopg2 by ours; the original, which may quote a row, is not chained.

    Parameters
    ----------
    doing
        The operation, for the message.
    action
        Called without arguments.
    describe
        Returns our exception for one of psycopg2.

    Raises
    ------
    DatabaseError, ConfigurationError
        The error of psycopg2, without its text.
    """
    try:
        return action()
    except psycopg2.Error as error:
        failure = describe(error, doing)
    raise failure
