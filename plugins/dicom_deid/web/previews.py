"""The report of a preview, which a planning task left in Airflow's XCom."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from dicom_deid.links import PREVIEW_KEY


def preview_of(dag_id: str, dag_run_id: str, user: GetUserDep) -> dict[str, Any] | None:
    """Return the report of a DAG run that was a preview; None if there is none, or the user may not read XComs."""
    allowed = get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.XCOM, details=DagDetails(id=dag_id), user=user
    )
    if not allowed:
        return None
    wanted = select(XComModel).where(
        XComModel.dag_id == dag_id, XComModel.run_id == dag_run_id, XComModel.key == PREVIEW_KEY
    )
    with create_session() as session:
        found = session.scalars(wanted).first()
        report: dict[str, Any] | None = XComModel.deserialize_value(found) if found is not None else None
    return report
