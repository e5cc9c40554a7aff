"""What can go wrong in the store, said without a value of any row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg2

from dicom_deid.exceptions import ConfigurationError, DatabaseError, DicomDeidError

Result = TypeVar("Result")


class ConnectionLost(DatabaseError):
    """The connection to PostgreSQL broke; what was not committed is gone, a retry resumes."""


class TableMissing(ConfigurationError):
    """The schema was never made, or is older than this version of the package."""


class LeaseLost(DatabaseError):
    """Another worker holds the batch now; whatever this one still has in hand must not be recorded."""


_ADVICE = {
    "28": (ConfigurationError, "PostgreSQL refused the user or password; check the connection's login"),
    "3D": (ConfigurationError, "the database does not exist; check the connection's database name"),
    "3F": (TableMissing, "the schema does not exist; run `dicom-deid db upgrade`"),
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


def described(error: psycopg2.Error, doing: str) -> DicomDeidError:
    """Make the exception that a person may see from one of psycopg2's, whose text can quote values.

    Parameters
    ----------
    error
        What psycopg2 raised. Nothing of its text is used but the SQLSTATE code.
    doing
        What the store was about, for example ``"resolving pseudonyms"``.
    """
    code = error.pgcode or ""
    for length in (5, 2):
        if code[:length] in _ADVICE:
            kind, advice = _ADVICE[code[:length]]
            return kind(f"While {doing}: {advice} (SQLSTATE {code}).")
    if not code and isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return ConnectionLost(f"While {doing}: the connection to PostgreSQL was lost; a retry resumes.")
    return DatabaseError(f"While {doing}: PostgreSQL reported {type(error).__name__} (SQLSTATE {code or 'unknown'}).")


def unreachable(error: psycopg2.Error, doing: str) -> DicomDeidError:
    """Make the exception that a person may see where no connection came about: libpq gives no SQLSTATE then."""
    if error.pgcode:
        return described(error, doing)
    if isinstance(error, psycopg2.ProgrammingError):
        return ConfigurationError(
            f"While {doing}: the URL of the database cannot be read; it is postgresql://login:password@host:port/name."
        )
    return ConnectionLost(
        f"While {doing}: PostgreSQL cannot be reached, or refuses the login; check that it runs, and the connection's "
        "host, port, login, password and database."
    )


def without_values(
    doing: str,
    action: Callable[[], Result],
    describe: Callable[[psycopg2.Error, str], DicomDeidError] = described,
) -> Result:
    """Call `action` and turn psycopg2's errors into ours; the original, which may quote a row, is not even the context.

    Parameters
    ----------
    doing
        What the store is about, for the message.
    action
        What may raise one.
    describe
        What makes ours of one.

    Raises
    ------
    DatabaseError, ConfigurationError
        What psycopg2 said, without its text.
    """
    try:
        return action()
    except psycopg2.Error as error:
        failure = describe(error, doing)
    raise failure
