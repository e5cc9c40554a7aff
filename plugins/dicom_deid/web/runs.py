"""Pages of the runs: list, one run, and its live counts."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from dicom_deid.database import Run, Totals
from dicom_deid.database.audit_queries import Queries
from dicom_deid.web.access import can_locate, may_locate
from dicom_deid.web.database import queries
from dicom_deid.web.downloads import audit_csv_of, quarantine_csv_of
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import duration, moment, page

router = APIRouter()
Ask = Annotated[Queries, Depends(queries)]

_MEGABYTE = 1e6


@router.get("/")
def overview(request: Request, ask: Ask) -> Response:
    """Show the newest runs as charts and a table."""
    runs = ask.runs()
    totals = ask.totals(runs)
    shown = [(run, totals[run.run_id]) for run in runs]
    bars = [_bar(*each) for each in reversed(shown)]
    return page("overview.html", request, runs=shown, sums=Totals.sum(list(totals.values())), chart=bars)


@router.get("/runs/{run_id}")
def run(request: Request, run_id: UUID, ask: Ask, user: GetUserDep) -> Response:
    """Show one run: totals, and its reasons with advice."""
    found = _found(ask, run_id)
    return page(
        "run.html",
        request,
        run=found,
        totals=ask.totals([found])[found.run_id],
        batches=ask.batches(run_id),
        written=ask.written(found),
        can_locate=can_locate(user),
    )


@router.get("/runs/{run_id}/live")
def live(run_id: UUID, ask: Ask) -> dict[str, object]:
    """Return the current counts of a run."""
    found = _found(ask, run_id)
    totals = ask.totals([found])[found.run_id]
    rate = totals.objects_per_second
    running = found.state == "running"
    return {
        "state": found.state,
        "planned": found.planned,
        "done": totals.objects,
        "deidentified": totals.deidentified,
        "quarantined": totals.quarantined,
        "failed": totals.failed,
        "rate": round(rate, 1),
        "left": duration((found.planned - totals.objects) / rate) if rate and running else "",
    }


@router.get("/runs/{run_id}/audit.csv")
def audit_csv(run_id: UUID, ask: Ask) -> Response:
    """Download the audit rows of a run; source keys as keyed digests."""
    _found(ask, run_id)
    return audit_csv_of(run_id)


@router.post("/runs/{run_id}/quarantine.csv", dependencies=[Depends(may_locate), Depends(verified_form)])
def quarantine_csv(run_id: UUID, ask: Ask, user: GetUserDep) -> Response:
    """Download the quarantined and failed objects of a run with their source keys."""
    _found(ask, run_id)
    return quarantine_csv_of(run_id, user.get_name())


def _found(ask: Queries, run_id: UUID) -> Run:
    found = ask.run(run_id)
    if found is None:
        raise HTTPException(404, "There is no such run.")
    return found


def _bar(run: Run, totals: Totals) -> dict[str, object]:
    """Return the values of a run in the charts."""
    return {
        "label": moment(run.started_at)[5:16],
        "deidentified": totals.deidentified,
        "quarantined": totals.quarantined,
        "failed": totals.failed,
        "megabytes": round(totals.bytes_in / _MEGABYTE, 3),
        "rate": round(totals.objects_per_second, 1),
    }
