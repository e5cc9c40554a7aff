"""Comparison of a destination with the intents and the audit: objects without a row, rows without an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import copy_line
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.hash_chain import record_event
from dicom_deid.objects import SourceObject

_CHUNK = 10_000


class Difference(StrEnum):
    """A difference between a destination and the audit."""

    LOST = "lost"
    """The audit has the object, the destination does not."""
    CHANGED = "changed"
    """Another object is at the destination than the audit has."""
    ORPHAN = "orphan"
    """A worker that died wrote the object; no audit row has it."""
    LEFT_OVER = "left-over"
    """The object was superseded or withdrawn, and is still there."""
    UNKNOWN = "unknown"
    """Neither an intent nor the audit knows the object: something else wrote it."""


class Found(NamedTuple):
    """One difference."""

    difference: Difference
    key: str
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result.

    Parameters
    ----------
    objects
        Objects in the listing.
    found
        All differences, by key.
    repaired
        Whether lost objects will be written by the next run, and orphans and left-over objects are to be deleted.
    """

    objects: int
    found: tuple[Found, ...]
    repaired: bool

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of differences of each kind."""
        return Counter(each.difference.value for each in self.found)


_STAGE = """
DROP TABLE IF EXISTS pg_temp.present, pg_temp.expected, pg_temp.difference;
CREATE TEMP TABLE present (key text PRIMARY KEY, etag text NOT NULL)
"""

# What a worker with a live lease is writing at this moment is no difference.
_COMPARE = """
ANALYZE pg_temp.present;
CREATE TEMP TABLE expected AS
SELECT d.scope_id, d.key_hash, d.object_id, d.destination_key AS key, d.destination_etag AS etag, d.run_id
FROM processed_object d JOIN work_scope s USING (scope_id)
WHERE s.destination = %(destination)s AND d.destination_key IS NOT NULL;
CREATE INDEX ON pg_temp.expected (key);
ANALYZE pg_temp.expected;
CREATE TEMP TABLE difference AS
SELECT 'lost' AS difference, e.key, e.run_id, e.scope_id, e.object_id, e.etag
FROM pg_temp.expected e LEFT JOIN pg_temp.present p USING (key) WHERE p.key IS NULL
UNION ALL
SELECT 'changed', e.key, e.run_id, e.scope_id, e.object_id, p.etag
FROM pg_temp.expected e JOIN pg_temp.present p USING (key) WHERE p.etag <> e.etag
UNION ALL
SELECT CASE WHEN i.run_id IS NOT NULL THEN 'orphan' WHEN a.run_id IS NOT NULL THEN 'left-over' ELSE 'unknown' END,
    p.key, coalesce(i.run_id, a.run_id), coalesce(i.scope_id, a.scope_id), coalesce(i.object_id, a.object_id), p.etag
FROM pg_temp.present p
LEFT JOIN LATERAL (
    SELECT w.run_id, w.scope_id, d.object_id FROM write_intent w JOIN work_scope s USING (scope_id)
    JOIN processed_object d ON d.scope_id = w.scope_id AND d.key_hash = w.key_hash
    WHERE w.destination_key = p.key AND s.destination = %(destination)s LIMIT 1) i ON true
LEFT JOIN LATERAL (
    SELECT a.run_id, r.scope_id, a.object_id FROM audit a JOIN run r USING (run_id)
    WHERE a.destination_key = p.key AND a.destination = %(destination)s LIMIT 1) a ON true
WHERE NOT EXISTS (SELECT FROM pg_temp.expected e WHERE e.key = p.key)
  AND NOT EXISTS (
    SELECT FROM write_intent w JOIN batch b USING (batch_id)
    WHERE w.destination_key = p.key AND b.state = 'leased' AND b.expires_at > clock_timestamp());
SELECT difference, key, run_id::text FROM pg_temp.difference ORDER BY key, difference
"""

_REPAIR = """
UPDATE processed_object d SET outcome = NULL, destination_key = NULL, destination_etag = NULL, destination_size = NULL
FROM pg_temp.difference x WHERE x.difference = 'lost' AND d.object_id = x.object_id;
INSERT INTO deletion (run_id, scope_id, object_id, place, url, key, etag)
SELECT x.run_id, x.scope_id, x.object_id, 'destination', %(destination)s, x.key, x.etag FROM pg_temp.difference x
WHERE x.difference IN ('orphan', 'left-over') AND NOT EXISTS (
    SELECT FROM deletion o WHERE o.key = x.key AND o.url = %(destination)s AND o.place = 'destination');
DELETE FROM write_intent w USING work_scope s, batch b
WHERE s.scope_id = w.scope_id AND s.destination = %(destination)s AND b.batch_id = w.batch_id
  AND NOT (b.state = 'leased' AND b.expires_at > clock_timestamp())
"""


def reconcile(
    connection: DatabaseConnection,
    chain_key: bytes,
    destination: str,
    listing: Iterable[SourceObject],
    access: AccessReason,
    *,
    repair: bool = False,
) -> Reconciliation:
    """Compare a destination with the intents and the audit.

    Parameters
    ----------
    destination, listing
        The address, as in the runs, and all objects there.
    repair
        Forget lost objects, so that the next run writes them again, and list orphans and left-over objects to be
        deleted. Objects that something else wrote are never touched.
    """
    doing = "comparing the destination with the audit"
    connection.query(doing, _STAGE)
    objects = iter(listing)
    count = 0
    while chunk := list(islice(objects, _CHUNK)):
        count += len(chunk)
        connection.copy_in(doing, "pg_temp.present", "".join(copy_line(each.key, each.etag) for each in chunk))
    with connection.transaction(doing):
        rows = connection.query(doing, _COMPARE, {"destination": destination})
        result = Reconciliation(count, tuple(Found(Difference(row[0]), row[1], row[2]) for row in rows), repair)
        if repair:
            connection.query(doing, _REPAIR, {"destination": destination})
        body = {
            "person": access.person,
            "reason": access.reason,
            "destination": destination,
            "objects": count,
            "differences": dict(result.counts),
            "repaired": repair,
        }
        record_event(connection, chain_key, "audit-reconciled", body)
        connection.query(doing, "DROP TABLE pg_temp.present, pg_temp.expected, pg_temp.difference")
    return result
