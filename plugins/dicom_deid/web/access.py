"""Who may see a page. The framework asks nobody by itself, so that every route names one of these.

Two levels. *Reading* is counts, reasons, digests of keys, destination keys and recipes: who may read DAG runs.
*Locating* is where an original lies, which may name a patient: who may read Airflow's connections, and so could read
the source.
"""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import HTTPException, status


def may_read(user: GetUserDep) -> None:
    """Let pass who may see Airflow's pages and read DAG runs.

    Raises
    ------
    HTTPException
        401 for nobody (raised by `GetUserDep`), 403 without the access.
    """
    manager = get_auth_manager()
    if not (
        manager.is_authorized_view(access_view=AccessView.WEBSITE, user=user)
        and manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, user=user)
    ):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Reading DAG runs is needed to see this page.")


def can_locate(user: GetUserDep) -> bool:
    """Tell whether the user may learn where originals lie."""
    return get_auth_manager().is_authorized_connection(method="GET", user=user)


def may_locate(user: GetUserDep) -> None:
    """Let pass who may read Airflow's connections.

    Raises
    ------
    HTTPException
        401 for nobody, 403 without the access.
    """
    if not can_locate(user):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Reading connections is needed: this says where originals lie.")
