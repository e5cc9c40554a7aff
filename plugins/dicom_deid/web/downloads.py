"""CSV downloads: the audit of a run, and its quarantined objects."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

from fastapi import Response
from fastapi.responses import StreamingResponse

from dicom_deid.database import Database
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.export import EXPORTED
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.projects import Project, open_key
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.web.database import connect, deid_conn_id

_LINES_AT_ONCE = 500
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_QUARANTINE = """
SELECT DISTINCT ON (batch_id, item) recorded_at, reason, detail, outcome, source, key_hash::text, encrypted_key,
       source_size, source_etag, sop_class_uid, modality
FROM audit WHERE run_id = %s AND recorded_at >= %s ORDER BY batch_id, item, attempt DESC, link_id DESC
"""


def audit_csv_of(run_id: UUID) -> Response:
    """Return the audit rows of a run; source keys only as keyed digests."""
    return _download(f"audit-{run_id}.csv", _audit(connect(), run_id))


def quarantine_csv_of(run_id: UUID, user: str) -> Response:
    """Return the quarantined and failed objects of a run with their source keys.

    The access is recorded in the audit first.

    Raises
    ------
    ConfigurationError
        The keys of the connection do not decrypt them.
    """
    with closing(connect()) as connection, Database(connection, DicomDeidHook(deid_conn_id()).get_conn()) as database:
        run = database.run(str(run_id))
        project = database.project(run.request.project)
        body = {"user": user, "what": "quarantine list"}
        record_event(
            connection, database.chain_key, "source-keys-shown", body, run_id=run.run_id, project=run.request.project
        )
        rows = connection.query("reading quarantined objects", _QUARANTINE, (run.run_id, run.recorded_since))
    header = ["recorded_at", "reason", "what_to_do", "where", "source", "source_key", "size", "etag", "sop_class_uid"]
    return _download(f"quarantine-{run_id}.csv", _lines([header, *_quarantined(rows, project)]))


def _quarantined(rows: list[tuple[Any, ...]], project: Project) -> Iterator[list[Any]]:
    from dicom_deid.reasons import Reason

    for moment, reason, detail, outcome, source, key_hash, sealed, size, etag, sop_class, _modality in rows:
        if outcome in ("quarantined", "failed"):
            key = open_key(project, key_hash, sealed)
            advice = Reason(reason).advice.what_to_do
            yield [moment.isoformat(), reason, advice, detail, source, key, size, etag, sop_class]


def _audit(database: DatabaseConnection, run_id: UUID) -> Iterator[str]:
    columns = ", ".join(EXPORTED.values())
    with closing(database):
        rows = database.rows(
            "exporting the audit",
            f"SELECT {columns} FROM audit WHERE run_id = %s ORDER BY recorded_at, link_id, number",  # noqa: S608
            (str(run_id),),
        )
        yield from _lines([list(EXPORTED)])
        yield from _lines([row[0].isoformat(), *row[1:]] for row in rows)


def _lines(rows: Iterable[list[Any]]) -> Iterator[str]:
    """Yield CSV text, many rows at a time; cells that a spreadsheet would run as a formula are escaped."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for number, row in enumerate(rows, start=1):
        writer.writerow([_escaped(cell) for cell in row])
        if number % _LINES_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _escaped(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _download(name: str, text: Iterator[str]) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(text, media_type="text/csv; charset=utf-8", headers=headers)
