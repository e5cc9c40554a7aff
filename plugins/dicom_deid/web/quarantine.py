"""Page of the quarantined objects, by reason."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from dicom_deid.database import Totals
from dicom_deid.database.audit_queries import Queries
from dicom_deid.reasons import Reason
from dicom_deid.web.database import queries
from dicom_deid.web.rendering import page

router = APIRouter()


@router.get("/quarantine")
def quarantine(
    request: Request,
    ask: Annotated[Queries, Depends(queries)],
    reason: str = "",
    project: str = "",
    run_id: str = "",
) -> Response:
    """Show quarantined and failed objects of the newest runs, or of one run."""
    chosen = _reason(reason)
    everything = ask.runs()
    runs = [run for run in everything if project in ("", run.request.project) and run_id in ("", run.run_id)]
    if run_id and not runs:
        found = ask.run(_uuid(run_id))
        runs = [found] if found else []
    totals = Totals.sum(list(ask.totals(runs).values()))
    return page(
        "quarantine.html",
        request,
        counts=totals.reason_counts,
        held=totals.quarantined + totals.failed,
        entries=ask.quarantined(runs, chosen),
        reason=chosen,
        project=project,
        run_id=run_id,
        projects=sorted({run.request.project for run in everything}),
        reasons=list(Reason),
        first=not everything,
    )


def _reason(text: str) -> Reason | None:
    try:
        return Reason(text) if text else None
    except ValueError:
        raise HTTPException(422, "Unknown reason code.") from None


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise HTTPException(422, "A run id is a UUID.") from None
