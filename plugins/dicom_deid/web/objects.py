"""History of one object, by its id or by its destination key."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, Request, Response

from dicom_deid.database import AccessReason, AuditRecord, Database
from dicom_deid.database.audit_queries import Queries
from dicom_deid.reasons import Outcome, Reason
from dicom_deid.web.access import can_locate
from dicom_deid.web.database import open_database, queries
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import page

router = APIRouter()

_MOST_ENTRIES = 100


@router.get("/objects")
def history(request: Request, ask: Annotated[Queries, Depends(queries)], user: GetUserDep, key: str = "") -> Response:
    """Show every attempt at an object."""
    key = key.strip()
    try:
        entries = ask.history(object_id=UUID(key)) if key else []
    except ValueError:
        entries = ask.history(destination_key=key)
    return _shown(request, user, ask, entries, searched=bool(key))


@router.post("/objects", dependencies=[Depends(verified_form)])
def search(
    request: Request,
    database: Annotated[Database, Depends(open_database)],
    user: GetUserDep,
    key: Annotated[str, Form()] = "",
) -> Response:
    """Show every attempt at the objects of a source key, a destination key, an object id, or an identifier.

    An identifier is a pseudonym, or (for users who may see source keys) an original, whose search is recorded. It is
    sent in the body, because addresses are logged.
    """
    key = key.strip()
    try:
        entries = database.queries.history(object_id=UUID(key))
    except ValueError:
        entries = database.trace(key)[::-1] or database.queries.under_pseudonym(key) if key else []
    if key and not entries and can_locate(user):
        access = AccessReason(person=user.get_name(), reason="search on the page of objects")
        entries = database.find_objects(key, access)
    return _shown(request, user, database.queries, entries, searched=bool(key))


def _shown(request: Request, user: GetUserDep, ask: Queries, entries: list[AuditRecord], *, searched: bool) -> Response:
    shown = [
        (entry, _later(entry, entries), _counts(entry.actions), _notes(entry.notes))
        for entry in entries[:_MOST_ENTRIES]
    ]
    return page(
        "object.html",
        request,
        searched=searched,
        entries=shown,
        erased=ask.erased([entry.object_id for entry in entries]),
        reason_of=Reason,
        can_locate=can_locate(user),
    )


def _later(entry: AuditRecord, entries: list[AuditRecord]) -> AuditRecord | None:
    """Return the attempt that superseded or withdrew what an entry wrote at the destination; None if it is there."""
    if entry.outcome != Outcome.DEIDENTIFIED:
        return None
    ended = [
        each
        for each in entries
        if each.object_id == entry.object_id
        and each.destination == entry.destination
        and (each.recorded_at, each.link_id, each.number) > (entry.recorded_at, entry.link_id, entry.number)
        and each.outcome in (Outcome.DEIDENTIFIED, Outcome.WITHDRAWN)
    ]
    return min(ended, key=lambda each: (each.recorded_at, each.link_id, each.number), default=None)


def _counts(text: str) -> list[tuple[str, int]]:
    return sorted(json.loads(text).items()) if text else []


def _notes(text: str) -> list[tuple[Reason, int]]:
    return [(Reason(code), count) for code, count in _counts(text)]
