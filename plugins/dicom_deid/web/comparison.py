"""Page that compares one object before and after, element by element, without original values."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from dicom_deid.database import Database
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.projects import open_key
from dicom_deid.hooks.aws import s3_connection
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore, open_object_store
from dicom_deid.pipeline.comparison import Comparison, NotCompared, compare_objects
from dicom_deid.reasons import Outcome
from dicom_deid.web.access import may_locate
from dicom_deid.web.database import SECTION, connect, deid_conn_id
from dicom_deid.web.rendering import page

router = APIRouter()

_MOST_ROWS = 2000


class _Written(NamedTuple):
    """Audit row of an object that was de-identified."""

    recorded_at: datetime
    project: str
    source: str
    key_hash: str
    encrypted_key: bytes
    source_version_id: str | None
    source_etag: str
    source_size: int
    destination: str
    destination_key: str
    destination_etag: str
    destination_size: int

    def original(self, key: str) -> SourceObject:
        """Return the source object with its decrypted key."""
        return SourceObject(key, self.source_size, self.source_etag, self.recorded_at, self.source_version_id)

    @property
    def new(self) -> SourceObject:
        """The object at the destination."""
        return SourceObject(self.destination_key, self.destination_size, self.destination_etag, self.recorded_at)


_WRITTEN = f"""
SELECT {", ".join(name if name != "key_hash" else "key_hash::text" for name in _Written._fields)}
FROM audit WHERE run_id = %s AND link_id = %s AND number = %s AND outcome = %s
"""  # noqa: S608 - our own words


@router.get("/runs/{run_id}/objects/{link_id}/{number}", dependencies=[Depends(may_locate)])
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


def _opened(run_id: UUID, link_id: int, number: int, user: str) -> tuple[_Written, str]:
    """Return the audit row of the object and its source key; the access is recorded first.

    Raises
    ------
    ConfigurationError
        The keys of the connection do not decrypt it, or the login of the pages may not record.
    HTTPException
        404 if no object was de-identified there.
    """
    with closing(connect()) as connection, Database(connection, DicomDeidHook(deid_conn_id()).get_conn()) as database:
        place = (str(run_id), link_id, number, Outcome.DEIDENTIFIED.value)
        rows = connection.query("reading what was written", _WRITTEN, place)
        if not rows:
            raise HTTPException(404, "No object was de-identified there.")
        written = _Written(*rows[0])
        project = database.project(written.project, create=False)
        body = {"user": user, "what": "comparison", "link_id": link_id, "number": number, "key_hash": written.key_hash}
        record_event(
            connection, database.chain_key, "source-object-opened", body, run_id=str(run_id), project=written.project
        )
    return written, open_key(project, written.key_hash, written.encrypted_key)


def _compared(written: _Written, key: str) -> Comparison:
    source = _storage(written.source, "pages_source_conn_id", "dicom_deid_source")
    destination = _storage(written.destination, "pages_destination_conn_id", "dicom_deid_destination")
    return compare_objects(source, written.original(key), destination, written.new)


def _storage(url: str, option: str, usual: str) -> ObjectStore:
    """Open an object store with the configured connection, or with the AWS environment variables if none is set."""
    return open_object_store(url, s3_connection(conf.get(SECTION, option, fallback=usual) or None))
