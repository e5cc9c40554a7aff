"""History of one object, by its id or by its destination key."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Request, Response

from dicom_deid.database.audit_queries import Queries
from dicom_deid.reasons import Reason
from dicom_deid.web.access import can_locate
from dicom_deid.web.database import queries
from dicom_deid.web.rendering import page

router = APIRouter()


@router.get("/objects")
def history(request: Request, ask: Annotated[Queries, Depends(queries)], user: GetUserDep, key: str = "") -> Response:
    """Show every attempt at an object."""
    key = key.strip()
    try:
        entries = ask.history(object_id=UUID(key)) if key else []
    except ValueError:
        entries = ask.history(destination_key=key)
    shown = [(entry, _counts(entry.actions), _notes(entry.notes)) for entry in entries]
    return page("object.html", request, key=key, entries=shown, reason_of=Reason, can_locate=can_locate(user))


def _counts(text: str) -> list[tuple[str, int]]:
    return sorted(json.loads(text).items()) if text else []


def _notes(text: str) -> list[tuple[Reason, int]]:
    return [(Reason(code), count) for code, count in _counts(text)]
