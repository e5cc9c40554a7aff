"""Page that withdraws released objects and lists withdrawals.

Identifiers are entered here and not in the form of the DAG: they reach the database as keyed hashes only, and Airflow
gets the id of the withdrawal.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, Request, Response

from dicom_deid.database import AccessReason, Database, WithdrawalRequest
from dicom_deid.database.audit_queries import Queries
from dicom_deid.links import WITHDRAW_DAG
from dicom_deid.pipeline.withdrawal import KINDS
from dicom_deid.web.access import can_withdraw, may_withdraw
from dicom_deid.web.database import open_database, queries
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, page
from dicom_deid.web.trigger import trigger

router = APIRouter()

Open = Annotated[Database, Depends(open_database)]
Text = Annotated[str, Form()]
_POST = [Depends(may_withdraw), Depends(verified_form)]


@router.get("/withdrawals")
def withdrawals(
    request: Request,
    ask: Annotated[Queries, Depends(queries)],
    user: GetUserDep,
    project: str = "",
    number: PageNumber = 1,
) -> Response:
    """Show the withdrawals, newest first, and the form."""
    return _page(request, ask, user, project, number)


@router.post("/withdrawals", dependencies=_POST)
def withdraw(
    request: Request,
    database: Open,
    user: GetUserDep,
    project: Text = "",
    kind: Text = "",
    values: Text = "",
    decision: Annotated[int | None, Form()] = None,
    reason: Text = "",
    preview: Annotated[bool, Form()] = False,
) -> Response:
    """Begin a withdrawal, or count what it would delete; the DAG deletes the copies."""
    lines = [line.strip() for line in values.splitlines() if line.strip()]
    given: dict[str, Any] = {KINDS[kind]: lines} if kind in KINDS else {}
    wanted = WithdrawalRequest(decision=decision, **given)
    access = AccessReason(person=user.get_name(), reason=reason)
    begun = database.withdraw(database.project(project, create=False), wanted, access, dry_run=preview)
    run_id = "" if begun.withdrawal_id is None else _start(project, begun.withdrawal_id, reason, user.get_name())
    return _page(request, database.queries, user, begun=begun, run_id=run_id)


@router.post("/withdrawals/{withdrawal_id}/continue", dependencies=_POST)
def resume(request: Request, database: Open, user: GetUserDep, withdrawal_id: UUID, project: Text = "") -> Response:
    """Start the DAG for a withdrawal that was begun and has not ended."""
    run_id = _start(project, str(withdrawal_id), "continued", user.get_name())
    return _page(request, database.queries, user, run_id=run_id)


@router.post("/withdrawals/{withdrawal_id}/undo", dependencies=_POST)
def undo(
    request: Request, database: Open, user: GetUserDep, withdrawal_id: UUID, project: Text = "", reason: Text = ""
) -> Response:
    """Lift a withdrawal: the next run writes its objects again."""
    access = AccessReason(person=user.get_name(), reason=reason)
    count = database.undo_withdrawal(database.project(project, create=False), str(withdrawal_id), access)
    return _page(request, database.queries, user, undone=count)


def _start(project: str, withdrawal_id: str, reason: str, user: str) -> str:
    return trigger(WITHDRAW_DAG, {"project": project, "withdrawal_id": withdrawal_id, "reason": reason}, user)


def _page(
    request: Request, ask: Queries, user: GetUserDep, project: str = "", number: int = 1, **more: Any
) -> Response:
    found = ask.withdrawals(project or None, PAGE_ROWS + 1, offset=(number - 1) * PAGE_ROWS)
    return page(
        "withdrawals.html",
        request,
        withdrawals=found[:PAGE_ROWS],
        has_more=len(found) > PAGE_ROWS,
        number=number,
        project=project,
        projects=ask.project_names(),
        kinds=list(KINDS),
        can_withdraw=can_withdraw(user),
        dag_id=WITHDRAW_DAG,
        **{"begun": None, "run_id": "", "undone": None, **more},
    )
