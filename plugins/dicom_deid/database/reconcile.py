"""Comparison of a destination with the intents and the audit: objects without a row, rows without an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import copy_line
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.source_index import count_objects
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject

_CHUNK = 10_000
MAX_LISTED = 10_000
"""So many differences are listed and looked at; if there are more, they are not what a run did meanwhile."""


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
    """One difference.

    Parameters
    ----------
    difference, key
        What differs, and where.
    run_id
        The run that wrote, or was about to write, the object.
    etag
        Of the object in the listing; None if it is not there.
    """

    difference: Difference
    key: str
    run_id: str | None
    etag: str | None = None


Confirm = Callable[[Sequence[Found]], Sequence[Found]]
"""Returns the differences that are still there, and the run of an unknown object if its metadata names it."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result.

    Parameters
    ----------
    objects
        Objects in the listing.
    found
        The first differences by key, at most `MAX_LISTED`.
    counts
        Number of differences of each kind.
    repaired
        Whether lost objects will be written by the next run, and orphans and left-over objects are to be deleted.
    """

    objects: int
    found: tuple[Found, ...]
    counts: Mapping[str, int]
    repaired: bool


_DROP = """
DROP TABLE IF EXISTS pg_temp.present, pg_temp.expected, pg_temp.writing, pg_temp.intended, pg_temp.difference,
    pg_temp.confirmed
"""

_STAGE = f"{_DROP}; CREATE TEMP TABLE present (key text NOT NULL, etag text NOT NULL)"

# What a worker with a live lease is writing at this moment is no difference.
_COMPARE = """
ANALYZE pg_temp.present;
CREATE TEMP TABLE expected AS
SELECT d.scope_id, d.key_hash, d.object_id, d.destination_key AS key, d.destination_etag AS etag, d.run_id
FROM processed_object d JOIN work_scope s USING (scope_id)
WHERE s.destination = %(destination)s AND d.destination_key IS NOT NULL;
ANALYZE pg_temp.expected;
CREATE TEMP TABLE writing AS
SELECT w.destination_key AS key FROM write_intent w JOIN batch b USING (batch_id)
WHERE b.state = 'leased' AND b.expires_at > clock_timestamp();
CREATE TEMP TABLE intended AS
SELECT DISTINCT ON (w.destination_key) w.destination_key AS key, w.run_id, w.scope_id, d.object_id
FROM write_intent w JOIN work_scope s USING (scope_id)
JOIN processed_object d ON d.scope_id = w.scope_id AND d.key_hash = w.key_hash
WHERE s.destination = %(destination)s ORDER BY w.destination_key;
CREATE TEMP TABLE difference AS
SELECT 'lost' AS difference, e.key, e.run_id, e.scope_id, e.object_id, e.etag
FROM pg_temp.expected e LEFT JOIN pg_temp.present p USING (key) WHERE p.key IS NULL
UNION ALL
SELECT 'changed', e.key, e.run_id, e.scope_id, e.object_id, p.etag
FROM pg_temp.expected e JOIN pg_temp.present p USING (key) WHERE p.etag <> e.etag
  AND NOT EXISTS (SELECT FROM pg_temp.writing w WHERE w.key = p.key)
UNION ALL
SELECT CASE WHEN i.run_id IS NOT NULL THEN 'orphan' WHEN a.run_id IS NOT NULL THEN 'left-over' ELSE 'unknown' END,
    p.key, coalesce(i.run_id, a.run_id), coalesce(i.scope_id, a.scope_id), coalesce(i.object_id, a.object_id), p.etag
FROM pg_temp.present p
LEFT JOIN pg_temp.intended i USING (key)
LEFT JOIN LATERAL (
    SELECT a.run_id, r.scope_id, a.object_id FROM audit a JOIN run r USING (run_id)
    WHERE a.destination_key = p.key AND a.destination = %(destination)s LIMIT 1) a ON true
WHERE NOT EXISTS (SELECT FROM pg_temp.expected e WHERE e.key = p.key)
  AND NOT EXISTS (SELECT FROM pg_temp.writing w WHERE w.key = p.key);
SELECT difference, count(*) FROM pg_temp.difference GROUP BY difference
"""

_LIST = """
SELECT difference, key, run_id::text, CASE WHEN difference <> 'lost' THEN etag END FROM pg_temp.difference
ORDER BY key, difference LIMIT %(limit)s
"""

# An unknown object that names a run of this database in its metadata is an orphan.
_CONFIRM = """
CREATE TEMP TABLE confirmed AS
SELECT * FROM unnest(%(differences)s::text[], %(keys)s::text[], %(runs)s::uuid[]) c (difference, key, run_id);
DELETE FROM pg_temp.difference x
WHERE NOT EXISTS (SELECT FROM pg_temp.confirmed c WHERE c.difference = x.difference AND c.key = x.key);
UPDATE pg_temp.difference x SET difference = 'orphan', run_id = r.run_id, scope_id = r.scope_id
FROM pg_temp.confirmed c JOIN run r USING (run_id)
WHERE x.difference = 'unknown' AND c.difference = 'unknown' AND c.key = x.key;
SELECT x.difference, x.key, coalesce(x.run_id, c.run_id)::text, CASE WHEN x.difference <> 'lost' THEN x.etag END
FROM pg_temp.difference x JOIN pg_temp.confirmed c USING (key) ORDER BY x.key, x.difference
"""

_REPAIR = """
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' objects ' || project_id, 0)) FROM (
    SELECT DISTINCT project_id FROM work_scope WHERE destination = %(destination)s ORDER BY project_id) p;
UPDATE processed_object d SET outcome = NULL, destination_key = NULL, destination_etag = NULL, destination_size = NULL
FROM pg_temp.difference x WHERE x.difference = 'lost' AND d.object_id = x.object_id;
INSERT INTO deletion (run_id, scope_id, object_id, place, url, key, etag)
SELECT x.run_id, x.scope_id, coalesce(x.object_id, gen_random_uuid()), 'destination', %(destination)s, x.key, x.etag
FROM pg_temp.difference x
WHERE x.difference IN ('orphan', 'left-over') AND NOT EXISTS (
    SELECT FROM deletion o WHERE o.key = x.key AND o.url = %(destination)s AND o.place = 'destination');
DELETE FROM write_intent w USING work_scope s, batch b
WHERE s.scope_id = w.scope_id AND s.destination = %(destination)s AND b.batch_id = w.batch_id
  AND NOT (b.state = 'leased' AND b.expires_at > clock_timestamp());
SELECT object_id::text FROM pg_temp.difference WHERE difference = 'lost'
"""


def reconcile(
    connection: DatabaseConnection,
    chain_key: bytes,
    destination: str,
    listing: Iterable[SourceObject],
    access: AccessReason,
    *,
    confirm: Confirm,
    repair: bool = False,
    run_id: str | None = None,
) -> Reconciliation:
    """Compare a destination with the intents and the audit.

    Parameters
    ----------
    destination, listing
        The address, as in the runs, and all objects there.
    confirm
        Looks at the objects that differ, unless they are too many: a worker may have written them since the listing.
    repair
        Forget lost objects, so that the next run writes them again, and list orphans and left-over objects to be
        deleted. Objects that something else wrote are never touched.
    run_id
        The run whose report the comparison is part of.

    Raises
    ------
    ConfigurationError
        No run has this destination.
    """
    doing = "comparing the destination with the audit"
    if not connection.query(doing, "SELECT 1 FROM work_scope WHERE destination = %s LIMIT 1", (destination,)):
        raise ConfigurationError(f"No run has the destination {destination}: give it as in the runs.")
    connection.query(doing, _STAGE)
    objects = iter(listing)
    count = 0
    while chunk := list(islice(objects, _CHUNK)):
        count += len(chunk)
        connection.copy_in(doing, "pg_temp.present", "".join(copy_line(each.key, each.etag) for each in chunk))
    counts: Mapping[str, int] = dict(connection.query(doing, _COMPARE, {"destination": destination}))
    found = _found(connection.query(doing, _LIST, {"limit": MAX_LISTED}))
    if found and sum(counts.values()) == len(found):
        seen = confirm(found)
        parameters = {
            "differences": [each.difference.value for each in seen],
            "keys": [each.key for each in seen],
            "runs": [each.run_id for each in seen],
        }
        found = _found(connection.query(doing, _CONFIRM, parameters))
        counts = Counter(each.difference.value for each in found)
    result = Reconciliation(count, found, counts, repair)
    with connection.transaction(doing):
        lost = connection.query(doing, _REPAIR, {"destination": destination}) if repair else []
        body = {
            "person": access.person,
            "reason": access.reason,
            "destination": destination,
            "objects": count,
            "differences": dict(counts),
            "repaired": repair,
        }
        record_event(connection, chain_key, "audit-reconciled", body, run_id=run_id)
        connection.query(doing, _DROP)
    count_objects(connection, [object_id for (object_id,) in lost])
    return result


def _found(rows: Iterable[tuple[str, str, str | None, str | None]]) -> tuple[Found, ...]:
    return tuple(Found(Difference(row[0]), *row[1:]) for row in rows)
