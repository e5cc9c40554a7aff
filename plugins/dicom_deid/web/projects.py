"""Page of the projects: size of each crosswalk."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Request, Response

from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import four_eyes_of_projects
from dicom_deid.web.access import can_administer
from dicom_deid.web.database import open_connection
from dicom_deid.web.rendering import page

router = APIRouter()


@router.get("/projects")
def projects(
    request: Request, connection: Annotated[DatabaseConnection, Depends(open_connection)], user: GetUserDep
) -> Response:
    """Show for each project how many pseudonyms it has, and whether decisions need a second person."""
    return page(
        "projects.html",
        request,
        projects=four_eyes_of_projects(connection),
        sizes=Queries(connection).crosswalk_sizes(),
        can_administer=can_administer(user),
    )
