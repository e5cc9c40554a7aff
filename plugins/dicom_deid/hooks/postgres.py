"""The libpq URL of a `postgres` connection."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.hooks.connections import get_connection

LIBPQ_OPTIONS = (
    "application_name",
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "options",
    "passfile",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
)
"""libpq options that are read from the connection's extra; other keys there belong to other users of it."""


def database_url(postgres_conn_id: str) -> str:
    """Return the libpq URL of a `postgres` connection, TLS settings included.

    Parameters
    ----------
    postgres_conn_id
        Id of the connection. With ``"iam": true`` in its extra, an AWS IAM token is used as the password.

    Raises
    ------
    ConfigurationError
        There is no such connection, it has another type, or it names no database.
    """
    connection = get_connection(postgres_conn_id, "postgres", "postgresql")
    if not connection.schema:
        raise ConfigurationError(f"The connection {postgres_conn_id!r} names no database: fill in its field Database.")
    extra = connection.extra_dejson
    login, password, port = connection.login, connection.password, connection.port
    if extra.get("iam"):
        login, password, port = _iam_token(postgres_conn_id)
    user = quote(login or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    host = f"[{connection.host}]" if ":" in (connection.host or "") else quote(connection.host or "", safe=",")
    options = {name: extra[name] for name in LIBPQ_OPTIONS if extra.get(name) not in (None, "")}
    query = urlencode({"application_name": "dicom-deid", **options}, quote_via=quote)
    netloc = f"{user}{'@' if user else ''}{host}{f':{port}' if port else ''}"
    return f"postgresql://{netloc}/{quote(connection.schema, safe='')}?{query}"


def _iam_token(postgres_conn_id: str) -> tuple[Any, Any, Any]:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    hook = PostgresHook(postgres_conn_id=postgres_conn_id)
    return hook.get_iam_token(hook.connection)
