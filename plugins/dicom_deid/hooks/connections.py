"""Read Airflow connections, with messages that name the connection."""

from __future__ import annotations

from airflow.sdk import BaseHook, Connection

from dicom_deid.airflow_compat import AirflowNotFoundException
from dicom_deid.exceptions import ConfigurationError


def get_connection(conn_id: str, *conn_types: str) -> Connection:
    """Return an Airflow connection.

    Parameters
    ----------
    conn_id
        Id of the connection.
    conn_types
        Accepted connection types.

    Raises
    ------
    ConfigurationError
        There is no connection with this id, or it has another type.
    """
    try:
        connection: Connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no connection {conn_id!r}: add one of type {conn_types[0]} with this id, in the UI under Admin, "
            "Connections, or with `airflow connections add`."
        ) from None
    if connection.conn_type not in conn_types:
        raise ConfigurationError(
            f"The connection {conn_id!r} is of type {connection.conn_type}; it must be of type {conn_types[0]}."
        )
    return connection
