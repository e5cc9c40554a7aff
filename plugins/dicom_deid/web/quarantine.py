"""Page of the held objects, in groups of one reason and device."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response

from dicom_deid.database import Database
from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import (
    SORT_COLUMNS,
    DecisionAction,
    HeldGroup,
    count_held,
    list_held_groups,
    pending_reviews,
    record_decision,
)
from dicom_deid.database.runs import list_runs
from dicom_deid.pipeline.decisions import make_decision
from dicom_deid.reasons import Reason
from dicom_deid.web.access import can_review, may_review
from dicom_deid.web.database import open_connection, open_database
from dicom_deid.web.downloads import csv_download
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, page, redirect

router = APIRouter()

Connection = Annotated[DatabaseConnection, Depends(open_connection)]
BULK_ACTIONS = {
    DecisionAction.RETRY: "Process again under the current recipe",
    DecisionAction.ALLOW: "Release as they are: nothing identifies a patient",
    DecisionAction.EXCLUDE: "Exclude: never release",
    DecisionAction.HOLD: "Leave held, with a note",
}
"""Actions on several groups, with what a reviewer reads."""


def filters(
    project: str = "",
    run_id: str = "",
    reason: str = "",
    modality: str = "",
    manufacturer: str = "",
    model: str = "",
    software: str = "",
    sop_class_uid: str = "",
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
        "sop_class_uid": sop_class_uid,
    }


Filters = Annotated[dict[str, str], Depends(filters)]
Sort = Annotated[str, Query(pattern=f"^({'|'.join(SORT_COLUMNS)})$")]


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
        sorts=SORT_COLUMNS,
        number=number,
        pages=max(1, -(-counts.groups // PAGE_ROWS)),
        projects=Queries(connection).project_names(),
        reasons=list(Reason),
        reason_of=Reason,
        can_review=can_review(user),
        actions=BULK_ACTIONS,
        pending=sum(each.objects for each in pending_reviews(connection, chosen["project"])),
        first=not counts.objects and not list_runs(connection, 1),
    )


@router.post("/quarantine/decide", dependencies=[Depends(may_review), Depends(verified_form)])
def decide(
    database: Annotated[Database, Depends(open_database)],
    user: GetUserDep,
    groups: Annotated[list[UUID], Form()],
    action: Annotated[DecisionAction, Form()],
    note: Annotated[str, Form()] = "",
) -> Response:
    """Record one decision about several groups and return to the quarantine."""
    chosen = [
        found for group_id in groups for found in list_held_groups(database.connection, {"group_id": str(group_id)})
    ]
    if not chosen:
        raise HTTPException(404, "No held object is in these groups any more.")
    new = make_decision(chosen[0], action, person=user.get_name(), note=note.strip(), other_groups=chosen[1:])
    record_decision(database.connection, database.chain_key, new)
    return redirect("/quarantine")


@router.get("/quarantine.csv")
def quarantine_csv(connection: Connection, chosen: Filters, sort: Sort = "objects") -> Response:
    """Download groups of held objects."""
    groups = list_held_groups(connection, chosen, sort=sort, limit=None)
    return csv_download("quarantine.csv", [list(HeldGroup._fields), *map(list, groups)])
