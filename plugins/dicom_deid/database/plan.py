"""The plan: what a listing holds that is still to be done, cut into batches."""

from __future__ import annotations

import hmac
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from queue import Queue
from threading import Thread
from typing import NamedTuple

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import NULL
from dicom_deid.database.copy_format import field as copy_field
from dicom_deid.database.keys import NONCE_BYTES
from dicom_deid.database.projects import Project
from dicom_deid.database.runs import Run
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject

CHUNK = 10_000
"""Listed objects that are sent to PostgreSQL at a time."""

_QUEUED_CHUNKS = 2
_LARGE = 4
"""An object of more than a fourth of a batch's bytes is large: large ones have batches of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """How work is chosen and cut.

    Parameters
    ----------
    max_batches
        At most so many batches (Airflow's `max_map_length`); batches grow when it would be more.
    target_objects, target_bytes
        A batch is about so large, whichever is reached first.
    limit
        Plan at most so many objects; the listing is read no further than needed.
    newer_than, older_than
        Only objects last modified at or after, and before, these times.
    retry_quarantined
        Plan objects again that were quarantined under the same rules.
    """

    max_batches: int = 1000
    batch_objects: int = 500
    batch_bytes: int = 256 * 2**20
    limit: int | None = None
    newer_than: datetime | None = None
    older_than: datetime | None = None
    retry_quarantined: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batches", "batch_objects", "batch_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1.")
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError("limit must be at least 1, or None.")

    def admits(self, listed: SourceObject) -> bool:
        """Whether the object's time of modification is wanted."""
        if self.newer_than is not None and listed.last_modified < self.newer_than:
            return False
        return self.older_than is None or listed.last_modified < self.older_than


class BatchReference(NamedTuple):
    """A batch, small enough to be handed from task to task; no key in it."""

    batch_id: int
    label: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What planning found.

    Parameters
    ----------
    listed
        Objects that the listing held.
    outside
        Listed objects outside the wanted times.
    already_done
        Listed objects that are dealt with under the same recipe and settings.
    planned, bytes
        Objects in the batches, and their sizes summed.
    why
        Planned objects by why: `new`, `changed` (another version was done), `rules` (done under another recipe or
        other settings), `retried` (quarantined before).
    batches
        The batches, large objects first.
    """

    listed: int
    outside: int
    already_done: int
    planned: int
    bytes: int
    why: Mapping[str, int] = field(default_factory=dict)
    batches: tuple[BatchReference, ...] = ()


def object_hash(project: Project, key: str) -> str:
    """Return the digest under which a source key is found, as a UUID: 128 bits of HMAC-SHA-256."""
    return hmac.digest(project.object_key, key.encode("utf-8", "surrogateescape"), "sha256")[:16].hex()


_STAGE = """
DROP TABLE IF EXISTS pg_temp.listing, pg_temp.chosen, pg_temp.cut;
CREATE TEMP TABLE listing (
    position integer, key_hash uuid, encrypted_key bytea, size bigint, etag text, version_id text)
    ON COMMIT DELETE ROWS;
CREATE TEMP TABLE chosen (LIKE listing);
"""

_CHOOSE = """
WITH judged AS (
    SELECT l.*, CASE
        WHEN d.etag = l.etag AND d.version_id IS NOT DISTINCT FROM l.version_id THEN
            CASE WHEN d.outcome = 'quarantined' AND %(retry)s THEN 'retried' ELSE 'done' END
        WHEN d.key_hash IS NOT NULL THEN 'changed'
        WHEN EXISTS (SELECT FROM processed_object o
                     WHERE o.scope_id = ANY (%(siblings)s::integer[]) AND o.key_hash = l.key_hash)
            THEN 'rules'
        ELSE 'new' END AS why
    FROM pg_temp.listing l LEFT JOIN processed_object d ON d.scope_id = %(scope)s AND d.key_hash = l.key_hash
), kept AS (
    INSERT INTO pg_temp.chosen SELECT position, key_hash, encrypted_key, size, etag, version_id FROM judged
    WHERE why <> 'done' ORDER BY position LIMIT %(limit)s RETURNING position
)
SELECT why, count(*) FROM judged LEFT JOIN kept USING (position) WHERE why = 'done' OR kept.position IS NOT NULL
GROUP BY why
"""

_TAKE_BACK = """
WITH gone AS (DELETE FROM batch WHERE run_id = %(run)s AND state = 'planned' RETURNING batch_id)
DELETE FROM batch_item i USING gone WHERE i.batch_id = gone.batch_id
"""

_PRUNE = """
WITH gone AS (
    DELETE FROM batch b USING run r WHERE r.run_id = b.run_id AND r.state <> 'running'
    AND r.finished_at <= clock_timestamp() - make_interval(days => %s) RETURNING b.batch_id
), items AS (
    DELETE FROM batch_item i USING gone WHERE i.batch_id = gone.batch_id RETURNING 1
)
SELECT count(*) FROM items
"""

_CUT = """
CREATE TEMP TABLE cut AS
WITH weighed AS (
    SELECT *, size >= %(large)s AS large, greatest(size, %(least)s) AS weight FROM pg_temp.chosen
), slots AS (
    SELECT *, (sum(weight) OVER (PARTITION BY large ORDER BY position) - weight)::bigint / %(unit)s AS slot FROM weighed
)
SELECT dense_rank() OVER (ORDER BY large DESC, slot) AS number, position, key_hash, encrypted_key, size, etag,
       version_id
FROM slots;
"""

_BATCHES = """
WITH last AS (SELECT coalesce(max(number), 0) AS number FROM batch WHERE run_id = %(run)s), made AS (
    INSERT INTO batch (run_id, scope_id, number, objects, bytes)
    SELECT %(run)s, %(scope)s, last.number + cut.number, count(*), sum(cut.size) FROM pg_temp.cut, last
    GROUP BY last.number, cut.number ORDER BY cut.number
    RETURNING batch_id, number, objects, bytes
), items AS (
    INSERT INTO batch_item (batch_id, item, key_hash, encrypted_key, size, etag, version_id)
    SELECT made.batch_id, cut.position, cut.key_hash, cut.encrypted_key, cut.size, cut.etag, cut.version_id
    FROM pg_temp.cut, last, made WHERE made.number = last.number + cut.number ORDER BY cut.number, cut.position
)
SELECT batch_id, number, objects, bytes FROM made ORDER BY number
"""


class Planner:
    """Plans one run: stages the listing while it is read, then cuts what is left."""

    def __init__(self, connection: DatabaseConnection, project: Project, run: Run, limits: PlanLimits) -> None:
        self._database = connection
        self._project = project
        self._run = run
        self._limits = limits
        self._counts: Counter[str] = Counter()
        self._failure: BaseException | None = None

    def plan(self, listing: Iterable[SourceObject]) -> PlanSummary:
        """Read the listing to its end (or the limit) and return the batches, committed.

        The listing is read in this thread, while another sends what was read to PostgreSQL: listing waits for the
        object store most of the time. Memory holds a few chunks, whatever the listing's length.
        """
        doing = "planning"
        self._database.query(doing, _STAGE)
        self._siblings = self._find_siblings()
        chunks: Queue[tuple[int, list[SourceObject]] | None] = Queue(_QUEUED_CHUNKS)
        stager = Thread(target=self._stage, args=(chunks,), name="dicom-deid-plan")
        stager.start()
        try:
            listed, outside = self._read(listing, chunks.put)
        finally:
            chunks.put(None)
            stager.join()
        if self._failure is not None:
            raise self._failure
        return self._cut(listed, outside)

    def _find_siblings(self) -> list[int]:
        rows = self._database.query(
            "planning",
            "SELECT o.scope_id FROM work_scope s JOIN work_scope o USING (project_id, source, destination) "
            "WHERE s.scope_id = %s AND o.scope_id <> s.scope_id",
            (self._run.scope_id,),
        )
        return [row[0] for row in rows]

    def _read(
        self, listing: Iterable[SourceObject], put: Callable[[tuple[int, list[SourceObject]]], None]
    ) -> tuple[int, int]:
        """Hand the listing on in chunks; return how many objects it held, and how many of these are not wanted."""
        listed = outside = 0
        objects = iter(listing)
        windowed = self._limits.newer_than is not None or self._limits.older_than is not None
        while not self._failure and not self._enough() and (chunk := list(islice(objects, CHUNK))):
            wanted = [entry for entry in chunk if self._limits.admits(entry)] if windowed else chunk
            put((listed, wanted))
            listed += len(chunk)
            outside += len(chunk) - len(wanted)
        return listed, outside

    def _enough(self) -> bool:
        return self._limits.limit is not None and self._chosen() >= self._limits.limit

    def _chosen(self) -> int:
        return sum(self._counts.values()) - self._counts["done"]

    def _stage(self, chunks: Queue[tuple[int, list[SourceObject]] | None]) -> None:
        while (chunk := chunks.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._stage_chunk(*chunk)
            except BaseException as error:
                self._failure = error

    def _stage_chunk(self, position: int, objects: list[SourceObject]) -> None:
        doing = "planning"
        limit = None if self._limits.limit is None else self._limits.limit - self._chosen()
        text = "".join(self._lines(position, objects))
        with self._database.transaction(doing):
            self._database.copy_in(doing, "pg_temp.listing", text)
            rows = self._database.query(
                doing,
                _CHOOSE,
                {
                    "scope": self._run.scope_id,
                    "siblings": self._siblings,
                    "retry": self._limits.retry_quarantined,
                    "limit": limit,
                },
            )
        self._counts.update(dict(rows))

    def _lines(self, position: int, objects: list[SourceObject]) -> Iterator[str]:
        seal, object_key = self._project.object_sealer.seal, self._project.object_key
        nonces = os.urandom(NONCE_BYTES * len(objects))
        for place, (key, size, etag, _, version_id) in enumerate(objects):
            text = key.encode("utf-8", "surrogateescape")
            key_hash = hmac.digest(object_key, text, "sha256")[:16]
            sealed = seal(text, key_hash, nonces[place * NONCE_BYTES : (place + 1) * NONCE_BYTES])
            version = NULL if version_id is None else copy_field(version_id)
            yield (
                f"{position + place}\t{key_hash.hex()}\t\\\\x{sealed.hex()}\t{size}\t{copy_field(etag)}\t{version}\n"
            )

    def _cut(self, listed: int, outside: int) -> PlanSummary:
        doing = "cutting the plan into batches"
        run = {"run": self._run.run_id, "scope": self._run.scope_id}
        with self._database.transaction(doing):
            # Planned again, the run takes back what no worker has begun.
            self._database.query(doing, _TAKE_BACK, run)
            self._database.query(doing, "SET LOCAL work_mem = '64MB'; ANALYZE pg_temp.chosen")
            self._database.query(doing, _CUT, self._sizes())
            rows = self._database.query(doing, "ANALYZE pg_temp.cut;" + _BATCHES, run)
            planned = sum(row[2] for row in rows)
            total = sum(row[3] for row in rows)
            self._database.query(
                doing,
                "UPDATE run SET listed = %(listed)s, already_done = %(done)s, planned = %(planned)s, "
                "planned_bytes = %(bytes)s, retry_quarantined = %(retry)s WHERE run_id = %(run)s; "
                "DROP TABLE pg_temp.listing, pg_temp.chosen, pg_temp.cut",
                {
                    **run,
                    "listed": listed,
                    "done": self._counts["done"],
                    "planned": planned,
                    "bytes": total,
                    "retry": self._limits.retry_quarantined,
                },
            )
        return PlanSummary(
            listed=listed,
            outside=outside,
            already_done=self._counts["done"],
            planned=planned,
            bytes=total,
            why={why: count for why, count in sorted(self._counts.items()) if why != "done"},
            batches=tuple(BatchReference(row[0], _label(*row[1:]), row[2], int(row[3])) for row in rows),
        )

    def _sizes(self) -> dict[str, int]:
        """Return the weight that fills a batch, the least weight of an object, and the size of a large one.

        An object weighs its bytes, and at least as much as makes `batch_objects` fill a batch. Each of the two classes
        (large and other) can leave one batch unfilled, hence the two batches less.
        """
        limits = self._limits
        least = -(-limits.batch_bytes // limits.batch_objects)
        weights = self._database.query(
            "planning",
            "SELECT coalesce(sum(greatest(size, %s)), 0)::bigint FROM pg_temp.chosen",
            (least,),
        )
        total = int(weights[0][0])
        if limits.max_batches < 3:
            return {"least": least, "unit": max(limits.batch_bytes, total // limits.max_batches + 1), "large": 2**62}
        unit = max(limits.batch_bytes, total // (limits.max_batches - 2) + 1)
        return {"least": least, "unit": unit, "large": max(2, unit // _LARGE)}


def prune(connection: DatabaseConnection, days: int) -> int:
    """Remove the batches of runs that ended at least so many days ago, and return how many objects they listed.

    What was done stays known, and the audit is not touched.
    """
    rows = connection.query("removing finished plans", _PRUNE, (days,))
    return int(rows[0][0])


def _label(number: int, objects: int, size: int) -> str:
    return f"{number:04d}: {objects} object{'s' if objects != 1 else ''}, {size / 1e6:.1f} MB"
