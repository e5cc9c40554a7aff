"""Copies of released objects: recorded before they are made, so that a withdrawal finds them whenever it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dicom_deid.database.audit_queries import AuditRecord
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.objects import SourceObject


@dataclass(slots=True)
class Copy:
    """One object to copy to a place of release.

    Parameters
    ----------
    object_id
        Id of the source object.
    written
        The object at the destination, whose key the copy gets.
    replaces
        ETag of the earlier copy under the same key that is superseded; None if there is none.
    superseded
        Earlier copies under other keys, key and ETag: to be deleted after the new one is made.
    etag
        ETag of the copy, set once it is made.
    """

    object_id: str
    written: SourceObject
    replaces: str | None = None
    superseded: tuple[tuple[str, str | None], ...] = ()
    etag: str | None = None


# The lock is that of withdrawals: one that begins later waits, and finds the copies.
_BEGIN = """
SELECT pg_advisory_xact_lock_shared(hashtextextended(current_schema() || ' withdrawal ' || project_id, 0))
FROM project WHERE name = %(project)s;
WITH wanted AS (
    SELECT w.object_id, w.key FROM unnest(%(objects)s::uuid[], %(keys)s::text[]) w (object_id, key)
    JOIN processed_object d USING (object_id) WHERE d.withdrawal_id IS NULL
), earlier AS (
    SELECT w.object_id, max(r.etag) FILTER (WHERE r.key = w.key) AS etag,
        array_agg(r.key) FILTER (WHERE r.key <> w.key) AS other_keys,
        array_agg(r.etag) FILTER (WHERE r.key <> w.key) AS other_etags
    FROM wanted w JOIN released_copy r ON r.object_id = w.object_id AND r.url = %(url)s GROUP BY w.object_id
), begun AS (
    INSERT INTO released_copy (url, key, object_id) SELECT %(url)s, key, object_id FROM wanted
    ORDER BY key ON CONFLICT DO NOTHING
)
SELECT object_id::text, etag, other_keys, other_etags FROM wanted LEFT JOIN earlier USING (object_id)
"""

_END = """
DELETE FROM released_copy r USING unnest(%(objects)s::uuid[], %(keys)s::text[]) w (object_id, key)
WHERE r.url = %(url)s AND r.object_id = w.object_id AND r.key <> w.key;
UPDATE released_copy r SET etag = w.etag FROM unnest(%(keys)s::text[], %(etags)s::text[]) w (key, etag)
WHERE r.url = %(url)s AND r.key = w.key
"""


@contextmanager
def releasing(
    connection: DatabaseConnection, project: str, url: str, records: Sequence[AuditRecord]
) -> Iterator[list[Copy]]:
    """Record copies that are about to be made, yield them to be made, and record those whose ETag was set.

    Withdrawn objects are left out. A withdrawal that begins meanwhile waits until the copies are recorded.

    Parameters
    ----------
    project, url
        The project, and the place of release.
    records
        Objects that were de-identified.
    """
    doing = "recording the release"
    objects = [each.object_id for each in records]
    parameters = {"url": url, "project": project, "objects": objects, "keys": [each.written.key for each in records]}
    connection.query(doing, _BEGIN, parameters)
    with connection.transaction(doing):
        rows = connection.query(doing, _BEGIN, parameters)
        found = {object_id: rest for object_id, *rest in rows}
        copies = [_copy(each, *found[each.object_id]) for each in records if each.object_id in found]
        yield copies
        made = [each for each in copies if each.etag is not None]
        done = {
            "url": url,
            "objects": [each.object_id for each in made],
            "keys": [each.written.key for each in made],
            "etags": [each.etag for each in made],
        }
        connection.query(doing, _END, done)


def _copy(
    record: AuditRecord, etag: str | None, keys: Sequence[str] | None, etags: Sequence[str | None] | None
) -> Copy:
    return Copy(record.object_id, record.written, etag, tuple(zip(keys or (), etags or (), strict=True)))
