"""One connection to PostgreSQL, shared by threads; its errors never quote a value."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, TRANSACTION_STATUS_IDLE

from dicom_deid.database.copy_format import array_literal
from dicom_deid.database.errors import connection_error, translate_errors
from dicom_deid.exceptions import ConfigurationError

DEFAULT_SCHEMA = "dicom_deid"

Result = TypeVar("Result")
Parameters = Sequence[object] | Mapping[str, object]

UNFLUSHED = "SET LOCAL synchronous_commit = off;\n"
"""Begins a statement whose commit does not wait for the disk.

It is for what only matters together with a later commit that does wait, of whatever connection: PostgreSQL writes its
log in order, so that a crash never loses the earlier and keeps the later one.
"""

_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_DEADLOCK_ATTEMPTS = 5
_COPY_CHUNK = 1 << 16


def checked_schema(name: str) -> str:
    """Return a schema name that needs no quoting.

    Raises
    ------
    ConfigurationError
        It is not lower-case letters, digits and underscores, at most 40.
    """
    if not _SCHEMA_NAME.fullmatch(name) or name.startswith("pg_"):
        raise ConfigurationError(
            "The schema name must be lower-case letters, digits and underscores, at most 40, and not begin with pg_."
        )
    return name


def libpq_url(url: str) -> str:
    """Return a connection string that libpq reads; ``postgresql+psycopg2://`` and ``postgres://`` are known too.

    Everything after ``?`` (sslmode, sslrootcert, connect_timeout, ...) is passed to libpq.
    """
    return re.sub(r"^postgres(ql)?(\+psycopg2?)?://", "postgresql://", url)


class DatabaseConnection:
    """One psycopg2 connection in autocommit mode.

    Parameters
    ----------
    url
        A libpq connection string. It may hold a password: it is never shown.
    schema
        The schema that holds the tables.

    Attributes
    ----------
    round_trips
        Number of statements sent since the connection was opened.
    """

    def __init__(self, url: str, schema: str = DEFAULT_SCHEMA) -> None:
        self.url = libpq_url(url)
        self.schema = checked_schema(schema)
        self.round_trips = 0
        self._lock = threading.RLock()
        self._depth = 0
        self._connection: psycopg2.extensions.connection | None = None

    def __repr__(self) -> str:
        return f"DatabaseConnection(schema={self.schema!r})"

    def connect(self) -> psycopg2.extensions.connection:
        """Return the open connection, opening it when there is none or it was lost.

        Raises
        ------
        ConnectionLost, ConfigurationError
            PostgreSQL cannot be reached, or refuses the login.
        """
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = translate_errors("connecting", self._open, connection_error)
                self.round_trips += 1
            return self._connection

    def _open(self) -> psycopg2.extensions.connection:
        connection = psycopg2.connect(self.url, application_name="dicom-deid")
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET search_path TO {self.schema}, pg_temp; SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO, YMD'; "
                "SET client_encoding TO 'UTF8'"
            )
        return connection

    def close(self) -> None:
        """Close the connection; leases held through it are free at once."""
        with self._lock:
            if self._connection is not None:
                with suppress(psycopg2.Error):
                    self._connection.close()
                self._connection = None

    def _do(self, doing: str, action: Callable[[Any], Result]) -> Result:
        """Call `action` with a cursor; when it fails, no transaction stays open on the connection."""
        with self._lock:
            connection = self.connect()
            self.round_trips += 1

            def act() -> Result:
                with connection.cursor() as cursor:
                    return action(cursor)

            done = False
            try:
                result = translate_errors(doing, act)
                done = True
                return result
            finally:
                if not done:
                    self._abandon(connection)

    def _abandon(self, connection: psycopg2.extensions.connection) -> None:
        """Roll back the open transaction."""
        if connection.closed:
            return
        try:
            if connection.get_transaction_status() != TRANSACTION_STATUS_IDLE:
                with connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
        except psycopg2.Error:
            connection.close()

    def query(self, doing: str, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Send one statement (or several, in one round trip) and return the rows of the last.

        A statement that PostgreSQL cancels to break a deadlock is tried again if no transaction is open. A list becomes
        one array literal: psycopg2 would write an expression for each of its elements, which PostgreSQL has to parse.
        """
        if isinstance(parameters, Mapping):
            parameters = {
                name: array_literal(value) if isinstance(value, list) else value for name, value in parameters.items()
            }

        def act(cursor: Any) -> list[tuple[Any, ...]]:
            inside = cursor.connection.get_transaction_status() != TRANSACTION_STATUS_IDLE
            for attempt in range(1, _DEADLOCK_ATTEMPTS + 1):
                try:
                    cursor.execute(sql, parameters or None)
                    break
                except psycopg2.errors.DeadlockDetected:
                    if inside or attempt == _DEADLOCK_ATTEMPTS:
                        raise
            return list(cursor.fetchall()) if cursor.description else []

        return self._do(doing, act)

    def copy_in(self, doing: str, table_and_columns: str, text: str | bytes) -> None:
        """Send rows in COPY text format (see :mod:`dicom_deid.database.copy_format`) in one round trip."""
        data = io.BytesIO(text.encode() if isinstance(text, str) else text)
        statement = f"COPY {table_and_columns} FROM STDIN"
        self._do(doing, lambda cursor: cursor.copy_expert(statement, data, _COPY_CHUNK))

    def copy_out(self, doing: str, query: str, parameters: Parameters, target: io.RawIOBase) -> None:
        """Write the rows of a query to `target` in COPY text format, as they come."""

        def act(cursor: Any) -> None:
            statement = cursor.mogrify(query, parameters or None).decode()
            cursor.copy_expert(f"COPY ({statement}) TO STDOUT", target, _COPY_CHUNK)

        self._do(doing, act)

    def rows(self, doing: str, sql: str, parameters: Parameters = (), *, page: int = 5000) -> Iterator[tuple[Any, ...]]:
        """Stream the rows of a query through a server-side cursor, a page at a time, in flat memory."""
        with self.transaction(doing):
            self.query(doing, f"DECLARE stream NO SCROLL CURSOR FOR {sql}", parameters)
            while rows := self.query(doing, f"FETCH {page} FROM stream"):
                yield from rows
            self.query(doing, "CLOSE stream")

    @contextmanager
    def transaction(self, doing: str) -> Iterator[None]:
        """Run the block's statements in one transaction; rolled back when the block raises.

        A block inside another is part of the outer one.
        """
        with self._lock:
            if self._depth == 0:
                self.query(doing, "BEGIN")
            self._depth += 1
            try:
                yield
            except BaseException:
                if self._connection is not None:
                    self._abandon(self._connection)
                raise
            finally:
                self._depth -= 1
            if self._depth == 0:
                self.query(doing, "COMMIT")
