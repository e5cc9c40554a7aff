"""Leases: a batch in the hands of one worker, until it is finished, given back, or the worker is dead.

A lease is live while its time has not run out *and* the database session that took it stands: PostgreSQL drops a
session's advisory locks when its connection ends, so the batch of a killed worker is free at once, and that of a worker
whose machine vanished when the time is up. A token fences off a worker that comes back too late: it can record nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from dicom_deid.database.audit import AUDIT_COLUMNS, AuditPlace, AuditRow, BatchItem, audit_text, now, rows_hash
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.errors import LeaseLost
from dicom_deid.database.hash_chain import link_hash
from dicom_deid.database.projects import Project, open_key
from dicom_deid.database.quarantine import decisions_of_batch, settle_held
from dicom_deid.database.runs import Run
from dicom_deid.exceptions import ConfigurationError

_TWO_KEYS = "hashtext(current_schema() || ' batch'), (%(batch)s %% 2147483647)::integer"

_HELD = """
EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid::bigint = hashtext(current_schema() || ' batch')::bigint & 4294967295
        AND l.objid::bigint = b.batch_id % 2147483647)
"""

_LOOK = (
    "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' scope ' || %(scope)s, 0)); "
    "SELECT b.state, b.expires_at > clock_timestamp() AND " + _HELD.replace("%", "%%") + " "
    "FROM batch b WHERE b.batch_id = %(batch)s FOR UPDATE"
)

_TAKE = (
    """
UPDATE batch SET state = 'leased', token = %(token)s, worker = %(worker)s, attempt = attempt + 1,
    expires_at = clock_timestamp() + make_interval(secs => %(seconds)s), finished_at = NULL WHERE batch_id = %(batch)s;
UPDATE batch_item SET outcome = NULL WHERE batch_id = %(batch)s AND outcome = 'left';
WITH other AS (
    SELECT i.key_hash, i.etag, i.version_id FROM batch b JOIN batch_item i USING (batch_id)
    WHERE b.scope_id = %(scope)s AND b.state = 'leased' AND b.run_id <> %(run)s AND b.expires_at > clock_timestamp()
      AND (i.outcome IS NULL OR i.outcome = 'failed') AND """  # noqa: S608
    + _HELD.replace("%", "%%")
    + """
)
UPDATE batch_item i SET outcome = 'left' FROM other o
WHERE i.batch_id = %(batch)s AND (i.outcome IS NULL OR i.outcome = 'failed')
  AND o.key_hash = i.key_hash AND o.etag = i.etag AND o.version_id IS NOT DISTINCT FROM i.version_id;
SELECT attempt, pg_try_advisory_lock("""
    + _TWO_KEYS
    + ") FROM batch WHERE batch_id = %(batch)s"
)

_ITEMS = """
SELECT i.item, i.size, i.etag, i.version_id, i.key_hash::text, i.encrypted_key,
    i.outcome IN ('deidentified', 'quarantined')
FROM batch_item i LEFT JOIN processed_object d
  ON d.scope_id = %(scope)s AND d.key_hash = i.key_hash AND d.etag = i.etag
 AND d.version_id IS NOT DISTINCT FROM i.version_id AND (d.outcome <> 'quarantined' OR NOT %(retry)s)
WHERE i.batch_id = %(batch)s AND ((i.outcome IS NULL OR i.outcome = 'failed') AND d.key_hash IS NULL
    OR i.outcome IN ('deidentified', 'quarantined') AND %(recorded)s)
ORDER BY i.item
"""

_SETTLE = """
INSERT INTO audit_link (link_id, run_id, position, batch_id, attempt, recorded_at, rows, rows_hash, previous, hash)
OVERRIDING SYSTEM VALUE VALUES (%(link)s, %(run)s, %(position)s, %(batch)s, %(attempt)s, %(recorded_at)s, %(rows)s,
                                %(rows_hash)s, %(previous)s, %(hash)s);
UPDATE batch_item i SET outcome = w.outcome FROM unnest(%(items)s::integer[], %(outcomes)s::text[]) w (item, outcome)
WHERE i.batch_id = %(batch)s AND i.item = w.item;
INSERT INTO processed_object (scope_id, key_hash, etag, version_id, outcome)
SELECT %(scope)s, i.key_hash, i.etag, i.version_id, i.outcome FROM batch_item i
WHERE i.batch_id = %(batch)s AND i.item = ANY (%(items)s::integer[]) AND i.outcome <> 'failed' ORDER BY i.key_hash
ON CONFLICT (scope_id, key_hash)
    DO UPDATE SET etag = excluded.etag, version_id = excluded.version_id, outcome = excluded.outcome;
UPDATE batch SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s) WHERE batch_id = %(batch)s;
"""

_CHAIN_HEAD = """
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' chain ' || %(run)s, 0));
SELECT coalesce(l.position, 0), coalesce(l.hash, e.hash), b.token = %(token)s
FROM batch b
LEFT JOIN LATERAL (
    SELECT position, hash FROM audit_link WHERE run_id = %(run)s ORDER BY position DESC LIMIT 1) l ON true
LEFT JOIN LATERAL (
    SELECT hash FROM audit_event WHERE run_id = %(run)s AND kind = 'run-begun' ORDER BY event_id LIMIT 1) e ON true
WHERE b.batch_id = %(batch)s FOR UPDATE OF b
"""


_END = (
    """
UPDATE batch SET state = %(state)s, token = NULL, expires_at = NULL,
    finished_at = CASE WHEN %(state)s = 'finished' THEN clock_timestamp() END
WHERE batch_id = %(batch)s AND token = %(token)s RETURNING pg_advisory_unlock("""
    + _TWO_KEYS
    + ")"
)


class Lease:
    """A batch in this worker's hands. Made by :meth:`dicom_deid.database.Database.lease`.

    Attributes
    ----------
    batch_id, attempt
        Which batch, and how often it was leased.
    run
        The run that it belongs to.
    """

    def __init__(
        self, connection: DatabaseConnection, chain_key: bytes, project: Project, run: Run, batch_id: int, seconds: int
    ) -> None:
        self._database = connection
        self._chain_key = chain_key
        self._project = project
        self._token = str(uuid.uuid4())
        self._retry = False
        self.run = run
        self.batch_id = batch_id
        self.seconds = seconds
        self.attempt = 0

    def _parameters(self, **more: object) -> dict[str, Any]:
        return {
            "batch": self.batch_id,
            "run": self.run.run_id,
            "scope": self.run.scope_id,
            "token": self._token,
            "seconds": self.seconds,
            **more,
        }

    def take(self, worker: str) -> bool:
        """Take the batch if it is free; objects that another run has in hand are left to it."""
        doing = "leasing a batch"
        with self._database.transaction(doing):
            rows = self._database.query(doing, _LOOK, self._parameters())
            if not rows:
                raise ConfigurationError(f"There is no batch {self.batch_id}; its run was pruned or planned again.")
            state, live = rows[0]
            if state == "finished" or (state == "leased" and live):
                return False
            taken = self._database.query(doing, _TAKE, self._parameters(worker=worker))
            self.attempt = int(taken[0][0])
        return True

    def items(self, *, recorded: bool = False) -> list[BatchItem]:
        """Return the objects of the batch that are still to be done, in the order of the listing.

        Parameters
        ----------
        recorded
            Return those too whose outcome an earlier attempt recorded; they say so.
        """
        retry = self._database.query(
            "reading the batch", "SELECT retry_quarantined FROM run WHERE run_id = %s", (self.run.run_id,)
        )
        rows = self._database.query("reading the batch", _ITEMS, self._parameters(retry=retry[0][0], recorded=recorded))
        decisions = decisions_of_batch(self._database, self.batch_id, self.run.scope_id)
        items = []
        for item, size, etag, version_id, key_hash, sealed, was_recorded in rows:
            items.append(
                BatchItem(
                    item_id=item,
                    key=open_key(self._project, key_hash, sealed),
                    size=size,
                    etag=etag,
                    version_id=version_id,
                    key_hash=key_hash,
                    encrypted_key=bytes(sealed),
                    recorded=bool(was_recorded),
                    decision=decisions.get(item),
                )
            )
        return items

    def renew(self) -> None:
        """Extend the lease by its seconds from now.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch.
        """
        doing = "renewing the lease of a batch"
        rows = self._database.query(
            doing,
            "UPDATE batch SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s) "
            "WHERE batch_id = %(batch)s AND token = %(token)s RETURNING 1",
            self._parameters(),
        )
        if not rows:
            raise self._lost()

    def record(self, rows: Sequence[AuditRow]) -> None:
        """Append audit rows and mark their objects, in one transaction; the lease is renewed.

        Call it after the objects are written, as often as convenient: what is recorded is never done again.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch; nothing was recorded.
        DatabaseError
            Nothing was recorded, or the answer was lost; a worker that leases the batch again sees which.
        """
        if not rows:
            return
        doing = "recording the audit of a batch"
        moment = now()
        with self._database.transaction(doing):
            link = self._database.query(
                doing,
                "SELECT ensure_audit_partition(%s), nextval(pg_get_serial_sequence('audit_link', 'link_id'))",
                (moment,),
            )[0][1]
            request = self.run.request
            text = audit_text(
                AuditPlace(
                    recorded_at=moment,
                    run_id=self.run.run_id,
                    link_id=link,
                    batch_id=self.batch_id,
                    attempt=self.attempt,
                    project=request.project,
                    source=request.source,
                    destination=request.destination,
                    recipe_digest=request.recipe_digest,
                    settings_digest=request.settings_digest,
                ),
                rows,
            )
            self._database.copy_in(doing, f"audit ({', '.join(AUDIT_COLUMNS)})", text)
            position, previous, mine = self._database.query(doing, _CHAIN_HEAD, self._parameters())[0]
            if not mine:
                raise self._lost()
            digest, position, previous = rows_hash(text), position + 1, bytes(previous)
            chained = link_hash(
                self._chain_key, previous, link, self.run.run_id, position, self.batch_id, self.attempt, moment,
                len(rows), digest,
            )  # fmt: skip
            self._database.query(
                doing,
                _SETTLE,
                self._parameters(
                    link=link,
                    position=position,
                    attempt=self.attempt,
                    recorded_at=moment,
                    rows=len(rows),
                    rows_hash=digest,
                    previous=previous,
                    hash=chained,
                    items=[row.item.item_id for row in rows],
                    outcomes=[row.outcome.value for row in rows],
                ),
            )
            settle_held(self._database, self._project, rows, self._parameters(link=link, recorded_at=moment))

    def finish(self) -> None:
        """End the batch. Objects without an outcome stay open until another run plans them.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch.
        """
        self._end("finished")

    def release(self) -> None:
        """Give the batch back, so that another attempt goes on with what is left."""
        self._end("planned")

    def _end(self, state: str) -> None:
        rows = self._database.query(
            "ending a batch",
            _END,
            self._parameters(state=state),
        )
        if not rows:
            raise self._lost()

    def _lost(self) -> LeaseLost:
        return LeaseLost(f"Batch {self.batch_id} was taken by another worker; this one's results are not recorded.")
