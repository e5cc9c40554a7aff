"""Pages of the decisions about held objects, and of the device rules of projects."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import PlainTextResponse

from dicom_deid.database import Database
from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import (
    Decision,
    ReleasedObject,
    approve_decision,
    list_decisions,
    list_released,
    pending_reviews,
    revoke_decision,
    set_four_eyes,
)
from dicom_deid.database.text_layouts import list_layouts
from dicom_deid.engine.settings import Settings
from dicom_deid.links import REVIEW_DAG
from dicom_deid.pipeline.decisions import exported_rules
from dicom_deid.web.access import can_review, can_withdraw, may_administer, may_review
from dicom_deid.web.database import open_connection, open_database
from dicom_deid.web.downloads import csv_download
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, page, redirect
from dicom_deid.web.trigger import trigger

router = APIRouter()

Connection = Annotated[DatabaseConnection, Depends(open_connection)]
Open = Annotated[Database, Depends(open_database)]
_POST = [Depends(may_review), Depends(verified_form)]


@router.get("/decisions")
def decisions(
    request: Request,
    connection: Connection,
    user: GetUserDep,
    project: str = "",
    rules: bool = False,
    number: PageNumber = 1,
) -> Response:
    """Show decisions, newest first."""
    offset = (number - 1) * PAGE_ROWS
    found = list_decisions(connection, project, rules_only=rules, limit=PAGE_ROWS + 1, offset=offset)
    return page(
        "decisions.html",
        request,
        decisions=found[:PAGE_ROWS],
        has_more=len(found) > PAGE_ROWS,
        number=number,
        project=project,
        rules=rules,
        projects=Queries(connection).project_names(),
        layouts=list_layouts(connection, project) if project else [],
        can_review=can_review(user),
        can_withdraw=can_withdraw(user),
        user=user.get_name(),
        pending=sum(each.objects for each in pending_reviews(connection, project)),
    )


@router.get("/decisions.csv")
def decisions_csv(connection: Connection, project: str = "", rules: bool = False) -> Response:
    """Download decisions, newest first."""
    found = list_decisions(connection, project, rules_only=rules, limit=None)
    return csv_download("decisions.csv", [[*Decision._fields, "state"], *([*each, each.state] for each in found)])


@router.get("/decisions/rules.dicom")
def rules(connection: Connection, project: str) -> Response:
    """Download the active device rules and the learned text layouts of a project as a recipe."""
    return PlainTextResponse(
        exported_rules(connection, project, Settings().layout_objects),
        headers={"Content-Disposition": 'attachment; filename="project-rules.dicom"'},
    )


@router.get("/decisions/{decision_id}/released.csv")
def released(connection: Connection, decision_id: int) -> Response:
    """Download the destination objects that were released by a decision."""
    rows = [list(each) for each in list_released(connection, decision_id)]
    return csv_download(f"released-{decision_id}.csv", [list(ReleasedObject._fields), *rows])


@router.post("/decisions/{decision_id}/approve", dependencies=_POST)
def approve(database: Open, user: GetUserDep, decision_id: int) -> Response:
    """Approve a decision as the second person."""
    approve_decision(database.connection, database.chain_key, decision_id, user.get_name())
    return redirect("/decisions")


@router.post("/decisions/{decision_id}/revoke", dependencies=_POST)
def revoke(database: Open, user: GetUserDep, decision_id: int) -> Response:
    """Revoke a decision."""
    revoke_decision(database.connection, database.chain_key, decision_id, user.get_name())
    return redirect("/decisions")


@router.post("/reviews", dependencies=_POST)
def apply(request: Request, connection: Connection, user: GetUserDep, project: Annotated[str, Form()] = "") -> Response:
    """Start DAG runs that process the decided objects."""
    pending = pending_reviews(connection, project)
    started = [trigger(REVIEW_DAG, {"run_id": each.run_id}, user.get_name()) for each in pending]
    return page("reviews.html", request, started=started, dag_id=REVIEW_DAG)


@router.post("/projects/{name}/four-eyes", dependencies=[Depends(may_administer), Depends(verified_form)])
def four_eyes(database: Open, user: GetUserDep, name: str, required: Annotated[bool, Form()]) -> Response:
    """Set whether decisions of a project need a second person."""
    set_four_eyes(database.connection, database.chain_key, name, required, user.get_name())
    return redirect("/projects")
