"""Authorisation dependencies. FastAPI enforces none by default, so every route declares one.

Four levels. *Reading* (counts, reasons, keyed digests, destination keys, recipes) needs read access to DAG runs.
*Locating* (source keys, which may name a patient) needs read access to Airflow's connections, with which a user could
read the source anyway. *Reviewing* (pixels and text of held objects, decisions) needs permission to trigger the DAG
`dicom_deid_review`. *Withdrawing* needs permission to trigger the DAG `dicom_deid_withdraw`.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import HTTPException, Request, status

from dicom_deid.links import REVIEW_DAG, WITHDRAW_DAG
from dicom_deid.web.forms import form_token


def may_read(request: Request, user: GetUserDep) -> None:
    """Require access to Airflow's pages and to DAG runs.

    Raises
    ------
    HTTPException
        401 without a login (raised by `GetUserDep`), 403 without the access.
    """
    manager = get_auth_manager()
    if not (
        manager.is_authorized_view(access_view=AccessView.WEBSITE, user=user)
        and manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, user=user)
    ):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You need read access to DAG runs to see this page.")
    request.state.form_token = form_token(user.get_id())


def can_locate(user: GetUserDep) -> bool:
    """Return whether the user may see source keys."""
    return get_auth_manager().is_authorized_connection(method="GET", user=user)


def may_locate(user: GetUserDep) -> None:
    """Require read access to Airflow's connections.

    Raises
    ------
    HTTPException
        401 without a login, 403 without the access.
    """
    if not can_locate(user):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You need read access to connections to see source keys.")


def can_withdraw(user: GetUserDep) -> bool:
    """Return whether the user may withdraw released objects."""
    return can_trigger(user, WITHDRAW_DAG)


def can_trigger(user: GetUserDep, dag_id: str) -> bool:
    """Return whether the user may start runs of a DAG."""
    return get_auth_manager().is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=dag_id), user=user
    )


def may_trigger(dag_id: str) -> Callable[[GetUserDep], None]:
    """Return the dependency that requires permission to trigger a DAG.

    The dependency raises HTTPException: 401 without a login, 403 without the permission.
    """

    def require(user: GetUserDep) -> None:
        if not can_trigger(user, dag_id):
            raise HTTPException(status.HTTP_403_FORBIDDEN, f"You need permission to trigger the DAG {dag_id}.")

    return require


def can_review(user: GetUserDep) -> bool:
    """Return whether the user may see held objects and decide about them."""
    return can_trigger(user, REVIEW_DAG)


may_review = may_trigger(REVIEW_DAG)
"""Dependency that requires permission to review held objects."""

may_withdraw = may_trigger(WITHDRAW_DAG)
"""Dependency that requires permission to withdraw released objects."""


def can_administer(user: GetUserDep) -> bool:
    """Return whether the user may change settings of projects."""
    return get_auth_manager().is_authorized_connection(method="PUT", user=user)


def may_administer(user: GetUserDep) -> None:
    """Require permission to change Airflow's connections.

    Raises
    ------
    HTTPException
        401 without a login, 403 without the access.
    """
    if not can_administer(user):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You need permission to change connections for this.")
