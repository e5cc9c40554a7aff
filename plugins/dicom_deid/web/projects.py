"""Page of the projects: size of each crosswalk."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from dicom_deid.database.audit_queries import Queries
from dicom_deid.web.database import queries
from dicom_deid.web.rendering import page

router = APIRouter()


@router.get("/projects")
def projects(request: Request, ask: Annotated[Queries, Depends(queries)]) -> Response:
    """Show the number of pseudonyms by project and kind."""
    return page("projects.html", request, sizes=ask.crosswalk_sizes())
