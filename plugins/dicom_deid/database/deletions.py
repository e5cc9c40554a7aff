"""Objects that must be deleted because they were superseded or withdrawn; a row remains until that is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.projects import Project, decrypt_source_key, split_source
from dicom_deid.database.runs import IS_HELD

Place = Literal["destination", "release", "quarantine"]

COLUMNS = (
    "deletion_id, withdrawal_id::text, object_id::text, place, url, key, etag, reason, key_hash::text, encrypted_key, "
    "run_id::text"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """One object to delete.

    Parameters
    ----------
    place, url
        Where: the destination, a place of release or the quarantine, and its address.
    key
        Its key there; None for a copy in quarantine, whose key is made of the source key: see :meth:`source_key`.
    etag
        The ETag that it must have; None deletes whatever is there.
    """

    deletion_id: int
    withdrawal_id: str | None
    object_id: str
    place: Place
    url: str
    key: str | None
    etag: str | None
    reason: str | None = None
    key_hash: str | None = None
    encrypted_key: bytes | None = field(default=None, repr=False)
    run_id: str | None = None

    def source_key(self, project: Project, source: str) -> str:
        """Return the key of the source object, relative to a source; it may name a patient."""
        if self.key_hash is None or self.encrypted_key is None:
            raise TypeError("only a copy in quarantine is found by its source key")
        return decrypt_source_key(project, self.key_hash, self.encrypted_key).removeprefix(split_source(source)[1])


def read_deletions(rows: Sequence[tuple[Any, ...]]) -> list[Deletion]:
    """Return deletions from rows of :data:`COLUMNS`."""
    return [Deletion(**dict(zip(Deletion.__dataclass_fields__, row, strict=True))) for row in rows]


# Intents of workers that died, for withdrawn objects: there may be a copy without an audit row.
_TAKE_OVER = f"""
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' objects ' || project_id, 0))
FROM withdrawal WHERE withdrawal_id = %(withdrawal)s;
WITH dead AS (
    DELETE FROM write_intent i WHERE i.withdrawal_id = %(withdrawal)s AND NOT EXISTS (
        SELECT FROM batch b WHERE b.batch_id = i.batch_id AND b.state = 'leased'
            AND b.expires_at > clock_timestamp() AND {IS_HELD})
    RETURNING *
), marked AS (
    UPDATE processed_object d SET withdrawal_id = i.withdrawal_id,
        series_number = coalesce(d.series_number, i.series_number),
        instance_hash = coalesce(d.instance_hash, i.instance_hash)
    FROM dead i WHERE d.scope_id = i.scope_id AND d.key_hash = i.key_hash
)
INSERT INTO deletion (withdrawal_id, scope_id, object_id, place, url, key, reason, key_hash, encrypted_key, etag,
    run_id)
SELECT i.withdrawal_id, i.scope_id, d.object_id, 'destination', s.destination, i.destination_key, NULL, NULL, NULL,
    NULL, i.run_id
FROM dead i JOIN processed_object d USING (scope_id, key_hash) JOIN work_scope s USING (scope_id) WHERE i.reason IS NULL
UNION ALL
SELECT i.withdrawal_id, i.scope_id, d.object_id, 'quarantine', r.request::jsonb #>> '{{parameters,quarantine}}', NULL,
    i.reason, d.key_hash, d.encrypted_key, b.etag, i.run_id
FROM dead i JOIN processed_object d USING (scope_id, key_hash) JOIN run r ON r.run_id = i.run_id
LEFT JOIN batch_item b ON b.batch_id = i.batch_id AND b.item = i.item WHERE i.reason IS NOT NULL
"""  # noqa: S608 - constants


def pending_deletions(
    connection: DatabaseConnection, *, withdrawal_id: str | None = None, limit: int = 1000
) -> list[Deletion]:
    """Return the oldest deletions that are not done, of one withdrawal or, without one, of superseded objects."""
    if withdrawal_id is not None:
        connection.query("reading what must be deleted", _TAKE_OVER, {"withdrawal": withdrawal_id})
    return read_deletions(
        connection.query(
            "reading what must be deleted",
            f"SELECT {COLUMNS} FROM deletion WHERE withdrawal_id IS NOT DISTINCT FROM %s "  # noqa: S608 - constants
            "ORDER BY deletion_id LIMIT %s",
            (withdrawal_id, limit),
        )
    )


def settle_deletions(
    connection: DatabaseConnection, chain_key: bytes, done: Sequence[Deletion], versions_kept: Sequence[Deletion] = ()
) -> None:
    """Remove the rows of superseded objects that were deleted; an event says how many of them the bucket keeps."""
    doing = "recording deletions"
    with connection.transaction(doing):
        connection.query(
            doing, "DELETE FROM deletion WHERE deletion_id = ANY (%s)", ([each.deletion_id for each in done],)
        )
        for (run_id, url), objects in Counter((each.run_id, each.url) for each in versions_kept).items():
            body = {"destination": url, "objects": objects}
            record_event(connection, chain_key, "superseded-versions-kept", body, run_id=run_id)
