"""Pages of the runs: list, one run, and its live counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from dicom_deid.database import Run, Totals
from dicom_deid.database.audit_queries import DeletedSource, Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.source_index import read_answers
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.reasons import Reason
from dicom_deid.web.access import can_locate, may_locate
from dicom_deid.web.database import open_connection, queries
from dicom_deid.web.downloads import audit_csv_of, csv_download, quarantine_csv_of
from dicom_deid.web.forms import verified_form
from dicom_deid.web.previews import preview_of
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, duration, moment, page

router = APIRouter()
Ask = Annotated[Queries, Depends(queries)]

_MEGABYTE = 1e6
_SHOWN_APART = frozenset({"recipes", "settings", "project_rules"})


@router.get("/")
def overview(
    request: Request,
    ask: Ask,
    project: str = "",
    state: str = "",
    number: PageNumber = 1,
) -> Response:
    """Show runs as charts and a table, newest first, and how many objects are in each state now."""
    runs = ask.runs(project or None, PAGE_ROWS + 1, state=state or None, offset=(number - 1) * PAGE_ROWS)
    has_more, runs = len(runs) > PAGE_ROWS, runs[:PAGE_ROWS]
    totals = ask.totals(runs)
    shown = [(run, totals[run.run_id]) for run in runs]
    return page(
        "overview.html",
        request,
        runs=shown,
        states=ask.object_states(project or None),
        chart=[_bar(*each) for each in reversed(shown)],
        projects=ask.project_names(),
        project=project,
        state=state,
        number=number,
        has_more=has_more,
        filtered=bool(project or state or number > 1),
    )


@router.get("/dags/{dag_id}/runs/{dag_run_id}")
def of_dag_run(request: Request, ask: Ask, user: GetUserDep, dag_id: str, dag_run_id: str) -> Response:
    """Show the run of an Airflow DAG run, or its preview: the tab of the DAG run in Airflow's UI."""
    # Before the first run there are previews, and no tables.
    report = preview_of(dag_id, dag_run_id, user)
    if report is not None:
        reasons = [(Reason(code), count) for code, count in report["quarantined"].items()]
        return page("preview.html", request, report=report, reasons=reasons)
    found = ask.find_airflow_run(dag_id, dag_run_id)
    return _run_page(request, ask, user, found) if found else page("no_airflow_run.html", request)


@router.get("/runs/{run_id}")
def run(request: Request, run_id: UUID, ask: Ask, user: GetUserDep) -> Response:
    """Show one run: totals, and its reasons with advice."""
    return _run_page(request, ask, user, _found(ask, run_id))


def _run_page(request: Request, ask: Queries, user: GetUserDep, found: Run) -> Response:
    return page(
        "run.html",
        request,
        run=found,
        totals=ask.totals([found])[found.run_id],
        batches=ask.batches(UUID(found.run_id)),
        written=ask.written(found),
        differences=ask.differences(UUID(found.run_id)),
        deleted_sources=len(ask.deleted_sources(found)),
        cohort=ask.cohort(found.run_id),
        settings=settings_in_words(found.request.parameters),
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


@router.get("/runs/{run_id}/cohort.csv")
def cohort_csv(run_id: UUID, connection: Annotated[DatabaseConnection, Depends(open_connection)]) -> Response:
    """Download the answer to each line of the run's cohort list: line numbers and counts, no identifier."""
    rows = [[each.number, each.status, each.objects] for each in read_answers(connection, str(run_id))]
    return csv_download(f"cohort-{run_id}.csv", [["line", "status", "objects"], *rows])


@router.get("/runs/{run_id}/deleted-sources.csv")
def deleted_sources_csv(run_id: UUID, ask: Ask) -> Response:
    """Download the objects at the run's destination whose source object is gone."""
    found = ask.deleted_sources(_found(ask, run_id))
    return csv_download(f"deleted-sources-{run_id}.csv", [list(DeletedSource._fields), *map(list, found)])


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


def settings_in_words(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a run that differ from the defaults, by name.

    Examples
    --------
    >>> settings_in_words({"limit": 5, "settings": {"residuals": "report"}, "transfers": 16})
    [('residuals', 'report'), ('limit', '5')]
    """
    known = {each.name: each for each in fields(RunConfiguration)}
    engine = asdict(Settings())
    given = parameters.get("settings") or {}
    found = [(name, value) for name, value in given.items() if name in engine and value != engine[name]]
    for name, value in parameters.items():
        default = known[name].default if name in known else None
        if name not in _SHOWN_APART and value not in (None, "", [], {}, default):
            found.append((name, value))
    return [(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)) for name, value in found]


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
