"""Page that compares one object before and after, element by element, without original values."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from dicom_deid.database import AccessReason, AuditRecord, Database
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.pipeline.comparison import Comparison, NotCompared, compare_objects
from dicom_deid.reasons import Outcome
from dicom_deid.web.access import may_locate
from dicom_deid.web.database import connect, deid_conn_id, open_configured_store, open_source
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import page

router = APIRouter()

_MOST_ROWS = 2000


@router.post("/runs/{run_id}/objects/{link_id}/{number}", dependencies=[Depends(may_locate), Depends(verified_form)])
def comparison(request: Request, run_id: UUID, link_id: int, number: int, user: GetUserDep) -> Response:
    """Show how the elements of source and destination object differ now."""
    written, key = _opened(run_id, link_id, number, user.get_name())
    try:
        compared, problem = _compared(written, key), ""
    except NotCompared as error:
        compared, problem = Comparison((), 0), str(error)
    return page(
        "comparison.html",
        request,
        status=409 if problem else 200,
        written=written,
        changes=compared.changes[:_MOST_ROWS],
        left_out=max(len(compared.changes) - _MOST_ROWS, 0),
        counts=Counter(change.kind.value for change in compared.changes),
        unchanged=compared.unchanged,
        problem=problem,
    )


def _opened(run_id: UUID, link_id: int, number: int, user: str) -> tuple[AuditRecord, str]:
    """Return the audit row of the object and its source key; the access is recorded first.

    Raises
    ------
    ConfigurationError
        The keys of the connection do not decrypt it, or the login of the pages may not record.
    HTTPException
        404 where nothing was de-identified, or where the patient was erased since.
    """
    with closing(connect()) as connection, Database(connection, DicomDeidHook(deid_conn_id()).get_conn()) as database:
        written = database.queries.record(run_id, link_id, number)
        if written is None or written.outcome != Outcome.DEIDENTIFIED:
            raise HTTPException(404, "No object was de-identified there.")
        reason = f"comparison of object {written.object_id}"
        keys = database.source_keys([written], AccessReason(person=user, reason=reason))
    if written.object_id not in keys:
        raise HTTPException(404, "The patient was erased; the source key is no longer known.")
    return written, keys[written.object_id]


def _compared(written: AuditRecord, key: str) -> Comparison:
    source = open_source(written.source)
    destination = open_configured_store(written.destination, "pages_destination_conn_id", "dicom_deid_destination")
    return compare_objects(source, written.source_object(key), destination, written.written)
