"""CSV downloads: the audit of a run, and its quarantined objects."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Response
from fastapi.responses import StreamingResponse

from dicom_deid.database import AccessReason, AuditRecord, Database
from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.export import EXPORTED, exported_row, spreadsheet_safe
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.reasons import Reason
from dicom_deid.web.database import connect, deid_conn_id

_LINES_AT_ONCE = 500


def audit_csv_of(run_id: UUID) -> Response:
    """Return the audit rows of a run, without source keys."""
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
        records = database.queries.quarantined([run], limit=None)
        keys = database.source_keys(records, AccessReason(person=user, reason=f"quarantine list of run {run_id}"))
    header = ["recorded_at", "reason", "what_to_do", "where", "source", "source_key", "size", "etag", "sop_class_uid"]
    return _download(f"quarantine-{run_id}.csv", _lines([header, *_quarantined(records, keys)]))


def _quarantined(records: list[AuditRecord], keys: Mapping[str, str]) -> Iterator[list[Any]]:
    for record in records:
        source = record.source_object(keys.get(record.object_id, ""))
        reason = Reason(record.reason or "")
        yield [
            record.recorded_at.isoformat(),
            reason.value,
            reason.advice.what_to_do,
            record.detail,
            record.source,
            source.key,
            source.size,
            source.etag,
            record.sop_class_uid,
        ]


def _audit(connection: DatabaseConnection, run_id: UUID) -> Iterator[str]:
    with closing(connection):
        rows = (exported_row(record) for record in Queries(connection).audit_rows(run_id))
        yield from _lines([list(EXPORTED)])
        yield from _lines([row[0].isoformat(), *row[1:]] for row in rows)


def _lines(rows: Iterable[list[Any]]) -> Iterator[str]:
    """Yield CSV text, many rows at a time; cells that a spreadsheet would run as a formula are escaped."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for number, row in enumerate(rows, start=1):
        writer.writerow(map(spreadsheet_safe, row))
        if number % _LINES_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def csv_download(name: str, rows: Iterable[list[Any]]) -> Response:
    """Return rows as a CSV file, times in ISO 8601."""
    return _download(name, _lines([_plain(cell) for cell in row] for row in rows))


def _plain(cell: Any) -> Any:
    return cell.isoformat() if isinstance(cell, datetime) else cell


def _download(name: str, text: Iterator[str]) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(text, media_type="text/csv; charset=utf-8", headers=headers)
