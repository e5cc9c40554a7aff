"""Page of the held objects, in groups of one reason and device."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import (
    SORT_COLUMNS,
    HeldGroup,
    count_held,
    list_held_groups,
    pending_reviews,
)
from dicom_deid.database.runs import list_runs
from dicom_deid.reasons import Reason
from dicom_deid.web.access import can_review
from dicom_deid.web.database import open_connection
from dicom_deid.web.downloads import csv_download
from dicom_deid.web.rendering import page

router = APIRouter()

Connection = Annotated[DatabaseConnection, Depends(open_connection)]
PAGE_ROWS = 50


def filters(
    project: str = "",
    run_id: str = "",
    reason: str = "",
    modality: str = "",
    manufacturer: str = "",
    model: str = "",
    software: str = "",
) -> dict[str, str]:
    """Return the filters of the quarantine page.

    Raises
    ------
    HTTPException
        422 for a run id that is not a UUID, or an unknown reason.
    """
    try:
        run_id = str(UUID(run_id)) if run_id else ""
        reason = Reason(reason).value if reason else ""
    except ValueError:
        raise HTTPException(422, "A run id is a UUID, and a reason is a reason code.") from None
    return {
        "project": project,
        "run_id": run_id,
        "reason": reason,
        "modality": modality,
        "manufacturer": manufacturer,
        "model": model,
        "software": software,
    }


Filters = Annotated[dict[str, str], Depends(filters)]
Sort = Annotated[str, Query(pattern=f"^({'|'.join(SORT_COLUMNS)})$")]
PageNumber = Annotated[int, Query(ge=1, le=10**6, alias="page")]


@router.get("/quarantine")
def quarantine(
    request: Request,
    connection: Connection,
    user: GetUserDep,
    chosen: Filters,
    sort: Sort = "objects",
    number: PageNumber = 1,
) -> Response:
    """Show groups of held objects."""
    counts = count_held(connection, chosen)
    return page(
        "quarantine.html",
        request,
        groups=list_held_groups(connection, chosen, sort=sort, limit=PAGE_ROWS, offset=(number - 1) * PAGE_ROWS),
        counts=counts,
        chosen=chosen,
        sort=sort,
        number=number,
        pages=max(1, -(-counts.groups // PAGE_ROWS)),
        projects=Queries(connection).project_names(),
        reasons=list(Reason),
        reason_of=Reason,
        can_review=can_review(user),
        pending=sum(each.objects for each in pending_reviews(connection, chosen["project"])),
        first=not counts.objects and not list_runs(connection, 1),
    )


@router.get("/quarantine.csv")
def quarantine_csv(connection: Connection, chosen: Filters, sort: Sort = "objects") -> Response:
    """Download groups of held objects."""
    groups = list_held_groups(connection, chosen, sort=sort, limit=None)
    return csv_download("quarantine.csv", [list(HeldGroup._fields), *map(list, groups)])
