"""How large the crosswalk of each project is."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from dicom_deid.web.database import queries
from dicom_deid.web.queries import Queries
from dicom_deid.web.rendering import page

router = APIRouter()


@router.get("/projects")
def projects(request: Request, ask: Annotated[Queries, Depends(queries)]) -> Response:
    """Show the number of pseudonyms by project and kind."""
    grouped = groupby(ask.crosswalk_sizes(), lambda size: size.project)
    sizes = [(name, [size for size in group if size.kind]) for name, group in grouped]
    return page("projects.html", request, sizes=sizes)
