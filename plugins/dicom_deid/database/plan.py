"""The plan: the listed objects that are still to be done, cut into batches."""

from __future__ import annotations

import hmac
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from queue import Queue
from threading import Thread
from typing import Literal, NamedTuple

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import NULL, copy_field
from dicom_deid.database.keys import NONCE_BYTES
from dicom_deid.database.locks import LOCK_OBJECTS
from dicom_deid.database.projects import Project, decrypt_source_key, split_source
from dicom_deid.database.runs import IS_DONE, Run, done_parameters
from dicom_deid.database.source_index import SourceIndex, add_processed
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import MEMBER_SEPARATOR, SourceObject

CHUNK = 10_000
"""Number of listed objects that are sent to PostgreSQL at a time."""

BATCH_OBJECTS = 20_000
BATCH_BYTES = 4 * 2**30
"""A batch of either size takes at least 20 s of a process: Airflow's cost per task, about 1 s, is under 5 % of it."""

_QUEUED_CHUNKS = 2
_LARGE_BYTES = 64 * 2**20
_LARGE_BATCH = 3
"""Large objects, also those of a fourth of `batch_bytes`, have batches of their own, of so many times the bytes: the
store may copy them, which is as much faster."""
_NOT_PLANNED = frozenset({"done", "kept", "withdrawn", "archived"})

OnChange = Literal["supersede", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Options of how work is chosen and cut into batches.

    Parameters
    ----------
    max_batches
        Largest number of batches (Airflow's `max_map_length`); batches grow when there would be more.
    batch_objects, batch_bytes
        Size of a full batch, whichever is reached first. The objects are cut into equal batches, each of which is full
        if there are enough objects.
    limit
        Largest number of objects to plan; the listing is read no further than needed.
    newer_than, older_than
        Only objects last modified at or after, and before, these times.
    retry_quarantined
        Plan objects again that were quarantined under the same rules.
    on_change
        `supersede`: objects that were written are replaced when source, recipe or settings have changed. `keep`: they
        stay as they are.
    selection
        Digest of the criteria that exclude objects; objects that other criteria excluded are planned again.
    is_whole_listing
        Whether the listing holds every object of the source; objects that it lacks are then reported as deleted.
    restores_archived
        Plan objects in archive tiers, so that the store is asked to restore them, unless it is restoring them already.
    unread_prefixes
        Prefixes of keys that the listing could not show, such as a damaged container; filled while it is read. Objects
        below them are not reported as deleted.
    """

    max_batches: int = 1000
    batch_objects: int = BATCH_OBJECTS
    batch_bytes: int = BATCH_BYTES
    limit: int | None = None
    newer_than: datetime | None = None
    older_than: datetime | None = None
    retry_quarantined: bool = False
    on_change: OnChange = "supersede"
    selection: str = ""
    is_whole_listing: bool = True
    restores_archived: bool = False
    unread_prefixes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("max_batches", "batch_objects", "batch_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1.")
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError("limit must be at least 1, or None.")
        if self.on_change not in ("supersede", "keep"):
            raise ConfigurationError("on_change is `supersede` or `keep`.")

    def admits(self, listed: SourceObject) -> bool:
        """Return whether the object's time of modification is in the wanted range."""
        if self.newer_than is not None and listed.last_modified < self.newer_than:
            return False
        return self.older_than is None or listed.last_modified < self.older_than

    @property
    def are_whole(self) -> bool:
        """True if every object of the source is looked at, so that missing ones are known to be deleted."""
        return self.is_whole_listing and self.limit is None and self.newer_than is None and self.older_than is None


class BatchReference(NamedTuple):
    """A batch, small enough to be passed from task to task; it holds no key."""

    batch_id: int
    label: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """The result of planning.

    Parameters
    ----------
    listed
        Objects in the listing.
    outside
        Listed objects outside the wanted times.
    already_done
        Listed objects that need no work under the same recipe and settings.
    kept
        Listed objects that have changed, or whose rules have, and that `on_change = keep` leaves as they are.
    withdrawn
        Listed objects that were withdrawn and are not written again.
    archived, archived_bytes
        Listed objects in archive tiers that are not planned, and their sizes summed.
    planned, bytes
        Objects in the batches, and their sizes summed.
    why
        Planned objects by why: `new`, `source` (another version was done), `recipe` or `settings` (done under others),
        `criteria` (excluded by others), `terms` (written before a name or an identifier of its patient was known),
        `retried` (quarantined before), `upgraded` (failed by a fault of an earlier version of the package).
    superseding
        Planned objects that replace an object at the destination, by why.
    deleted
        Objects at the destination whose source object is gone.
    batches
        The batches, large objects first.
    """

    listed: int
    outside: int
    already_done: int
    kept: int = 0
    withdrawn: int = 0
    archived: int = 0
    archived_bytes: int = 0
    planned: int
    bytes: int
    why: Mapping[str, int] = field(default_factory=dict)
    superseding: Mapping[str, int] = field(default_factory=dict)
    deleted: int = 0
    batches: tuple[BatchReference, ...] = ()


_STAGE = """
DROP TABLE IF EXISTS pg_temp.listing, pg_temp.chosen, pg_temp.listed, pg_temp.container;
CREATE TEMP TABLE listing (
    position integer, key_hash uuid, encrypted_key bytea, size bigint, etag text, version_id text,
    archive_state text, container_hash uuid)
    ON COMMIT DELETE ROWS;
CREATE TEMP TABLE chosen (LIKE listing, is_large boolean, weight_before bigint);
ALTER TABLE chosen DROP COLUMN container_hash;
CREATE TEMP TABLE listed (key_hash uuid);
CREATE TEMP TABLE container (key_hash uuid, etag text, is_done boolean);
SELECT clock_timestamp()
"""

# OFFSET 0 makes PostgreSQL look each object up by the index, rather than read the whole table once per chunk. The sums
# of weights are made here, while the listing is read, so that batches are cut after it without a sort.
_CHOOSE = f"""
WITH judged AS (
    SELECT i.*, i.size >= %(large)s AND i.archive_state = '' AS is_large,
        CASE WHEN i.archive_state = '' THEN greatest(i.size, %(least)s) ELSE %(least)s END AS weight,
        d.destination_key IS NOT NULL AS is_written, d.reason AS known_reason, CASE
        WHEN d.withdrawal_id IS NOT NULL THEN 'withdrawn'
        WHEN {IS_DONE} OR i.archive_state <> '' AND NOT %(retry)s AND EXISTS (
                SELECT FROM done_container c WHERE c.scope_id = %(scope)s AND c.key_hash = i.key_hash
                AND c.etag = i.etag AND c.rules_id = ANY (%(same_work)s) AND c.selection = %(selection)s)
            AND NOT EXISTS (SELECT FROM processed_object m WHERE m.scope_id = %(scope)s AND m.lacks_terms
                            AND m.etag = i.etag)
            AND NOT EXISTS (SELECT FROM processed_object m WHERE m.scope_id = %(scope)s AND m.outcome IS NULL
                            AND m.etag = i.etag) THEN 'done'
        WHEN d.outcome IS NOT NULL AND d.destination_key IS NOT NULL AND NOT %(supersede)s THEN 'kept'
        WHEN i.archive_state = 'restoring' OR i.archive_state = 'archived' AND NOT %(restores)s THEN 'archived'
        WHEN d.outcome IS NULL THEN 'new'
        WHEN d.etag <> i.etag OR d.version_id IS DISTINCT FROM i.version_id THEN 'source'
        WHEN d.selection IS NOT NULL THEN 'criteria'
        WHEN d.rules_id <> ALL (%(same_work)s) THEN
            CASE WHEN d.rules_id = ANY (%(same_recipe)s) THEN 'settings' ELSE 'recipe' END
        WHEN d.lacks_terms THEN 'terms'
        WHEN %(retry)s THEN 'retried'
        ELSE 'upgraded' END AS why
    FROM pg_temp.listing i LEFT JOIN LATERAL (
        SELECT * FROM processed_object p WHERE p.scope_id = %(scope)s AND p.key_hash = i.key_hash OFFSET 0) d ON true
), kept AS (
    INSERT INTO pg_temp.chosen SELECT position, key_hash, encrypted_key, size, etag, version_id, archive_state,
        is_large, CASE WHEN is_large THEN %(large_weight)s ELSE %(other_weight)s END - weight
        + sum(weight) OVER (PARTITION BY is_large ORDER BY position)
    FROM judged WHERE why <> ALL (%(not_planned)s) ORDER BY position LIMIT %(limit)s RETURNING position
), seen AS (
    INSERT INTO pg_temp.listed SELECT key_hash FROM judged WHERE %(whole)s
), containers AS (
    INSERT INTO pg_temp.container
    SELECT container_hash, etag, bool_and(
        why IN ('done', 'withdrawn') AND known_reason IS DISTINCT FROM 'internal-error')
    FROM judged WHERE %(whole)s AND container_hash IS NOT NULL GROUP BY container_hash, etag
)
SELECT why, is_written, is_large, count(*), sum(weight)::bigint, sum(size)::bigint
FROM judged LEFT JOIN kept USING (position) WHERE why = ANY (%(not_planned)s) OR kept.position IS NOT NULL
GROUP BY why, is_written, is_large
"""  # noqa: S608 - constants

_MISSING = """
SELECT d.key_hash::text, d.encrypted_key FROM processed_object d
WHERE d.scope_id = %(scope)s AND d.destination_key IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_temp.listed l WHERE l.key_hash = d.key_hash)
"""

_MARK_DELETED = """
UPDATE processed_object d SET source_deleted_at = NULL FROM pg_temp.listed l
WHERE d.scope_id = %(scope)s AND d.key_hash = l.key_hash AND d.source_deleted_at IS NOT NULL;
UPDATE processed_object SET source_deleted_at = clock_timestamp()
WHERE scope_id = %(scope)s AND key_hash = ANY (%(missing)s::uuid[]) AND source_deleted_at IS NULL
"""

_TAKE_BACK = """
WITH planned AS (
    SELECT batch_id FROM batch WHERE run_id = %(run)s AND state = 'planned' ORDER BY batch_id FOR UPDATE
), gone AS (DELETE FROM batch b USING planned p WHERE b.batch_id = p.batch_id RETURNING b.batch_id)
DELETE FROM batch_item i USING gone WHERE i.batch_id = gone.batch_id
"""

_PRUNE = """
WITH gone AS (
    DELETE FROM batch b USING run r WHERE r.run_id = b.run_id AND r.state <> 'running'
    AND r.finished_at <= clock_timestamp() - make_interval(days => %s) RETURNING b.batch_id
), items AS (
    DELETE FROM batch_item i USING gone WHERE i.batch_id = gone.batch_id RETURNING 1
), snapshots AS (
    DELETE FROM archive_word_snapshot s WHERE taken_at <= clock_timestamp() - make_interval(days => %s)
    AND NOT EXISTS (SELECT FROM run JOIN work_scope w USING (scope_id)
                    WHERE w.project_id = s.project_id AND run.state = 'running')
)
SELECT count(*) FROM items
"""

# Without statistics of the slots PostgreSQL would choose a merge join, and sort all objects for it.
_BATCHES = """
SET LOCAL enable_mergejoin = off;
WITH last AS (SELECT coalesce(max(number), 0) AS number FROM batch WHERE run_id = %(run)s), sliced AS NOT MATERIALIZED (
    SELECT *, weight_before / CASE WHEN is_large THEN %(large)s ELSE %(other)s END AS slot FROM pg_temp.chosen
), slots AS (
    SELECT is_large, slot, count(*) AS objects, sum(size) AS bytes FROM sliced GROUP BY is_large, slot
), cut AS (
    SELECT slots.*, row_number() OVER (ORDER BY is_large DESC, slot) + last.number AS number FROM slots, last
), made AS (
    INSERT INTO batch (run_id, scope_id, number, objects, bytes)
    SELECT %(run)s, %(scope)s, number, objects, bytes FROM cut ORDER BY number
    RETURNING batch_id, number, objects, bytes
), items AS (
    INSERT INTO batch_item (batch_id, item, key_hash, encrypted_key, size, etag, version_id, is_archived)
    SELECT batch_id, position, key_hash, encrypted_key, size, etag, version_id, archive_state <> ''
    FROM sliced JOIN cut USING (is_large, slot)
    JOIN made USING (number)
)
SELECT batch_id, number, objects, bytes FROM made ORDER BY number
"""

# The audit counts what batches that ended before the run was planned again have found in an archive tier.
_RECORD = """
WITH audited AS (
    SELECT count(*) AS objects, coalesce(sum(i.size), 0)::bigint AS bytes FROM batch b CROSS JOIN LATERAL (
        SELECT * FROM batch_item t WHERE t.batch_id = b.batch_id AND t.outcome = 'archived' OFFSET 0) i
    WHERE b.run_id = %(run)s AND b.state <> 'planned'
      AND NOT EXISTS (SELECT FROM pg_temp.chosen c WHERE c.key_hash = i.key_hash)
)
UPDATE run SET listed = %(listed)s, already_done = %(done)s, planned = %(planned)s, planned_bytes = %(bytes)s,
    archived = greatest(0, %(archived)s - objects), archived_bytes = greatest(0, %(archived_bytes)s - audited.bytes)
FROM audited WHERE run_id = %(run)s;
INSERT INTO done_container AS c (scope_id, key_hash, etag, rules_id, selection)
SELECT %(scope)s, key_hash, etag, %(rules)s, %(selection)s FROM pg_temp.container GROUP BY key_hash, etag
HAVING bool_and(is_done) ORDER BY key_hash
ON CONFLICT (scope_id, key_hash) DO UPDATE SET etag = excluded.etag, rules_id = excluded.rules_id,
    selection = excluded.selection
WHERE (c.etag, c.rules_id, c.selection) IS DISTINCT FROM (excluded.etag, excluded.rules_id, excluded.selection);
DROP TABLE pg_temp.listing, pg_temp.chosen, pg_temp.listed, pg_temp.container
"""


class Planner:
    """Plans one run: stages the listing while it is read, then cuts what is to be done into batches."""

    def __init__(self, connection: DatabaseConnection, project: Project, run: Run, limits: PlanLimits) -> None:
        self._connection = connection
        self._project = project
        self._run = run
        self._limits = limits
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._weights: Counter[bool] = Counter()
        self._archived_bytes = 0
        self._failure: BaseException | None = None

    def plan(self, listing: Iterable[SourceObject]) -> PlanSummary:
        """Read the listing to its end (or the limit) and return the batches, committed.

        The listing is read in this thread, while another sends what was read to PostgreSQL: listing waits for the
        object store most of the time. Memory holds a few chunks, whatever the listing's length.
        """
        ((began,),) = self._connection.query("planning", _STAGE)
        self._connection.query(
            "planning",
            "UPDATE run SET retry_quarantined = %s, selection = %s WHERE run_id = %s",
            (self._limits.retry_quarantined, self._limits.selection, self._run.run_id),
        )
        self._done = done_parameters(self._connection, self._run)
        self._same_recipe = self._find_same_recipe()
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
        # A listing without any object is taken for a wrong address, not for a source of which all was deleted.
        deleted = self._find_deleted(began) if self._limits.are_whole and listed else 0
        return self._cut(listed, outside, deleted)

    def _find_same_recipe(self) -> list[int]:
        """Return the rules that have this run's recipe, with whatever settings."""
        rows = self._connection.query(
            "planning",
            "SELECT o.rules_id FROM rules r JOIN rules o USING (recipe_digest) WHERE r.rules_id = %s",
            (self._run.rules_id,),
        )
        return [row[0] for row in rows]

    def _find_deleted(self, began: datetime) -> int:
        """Mark written objects whose source object was not listed, below the prefix of this run; return how many.

        What was not listed is removed from the index of the source, too.
        """
        doing = "looking for deleted source objects"
        prefix = split_source(self._run.request.source)[1]
        scope = {"scope": self._run.scope_id}
        add_processed(self._connection, began)
        rows = self._connection.rows(doing, _MISSING, scope)
        unread = tuple(prefix + each for each in self._limits.unread_prefixes)
        keys = ((key_hash, decrypt_source_key(self._project, key_hash, encrypted)) for key_hash, encrypted in rows)
        missing = [key_hash for key_hash, key in keys if key.startswith(prefix) and not key.startswith(unread)]
        parameters = {**scope, "project": self._project.project_id, "missing": missing}
        self._connection.query(doing, LOCK_OBJECTS + _MARK_DELETED, parameters)
        index = SourceIndex(self._connection, self._project, self._run.request.source)
        index.remove_vanished(self._limits.unread_prefixes, missing)
        index.count_changed()
        return len(missing)

    def _read(
        self, listing: Iterable[SourceObject], put: Callable[[tuple[int, list[SourceObject]]], None]
    ) -> tuple[int, int]:
        """Pass the listing on in chunks; return how many objects it has, and how many of these are not wanted."""
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
        return sum(count for (why, _), count in self._counts.items() if why not in _NOT_PLANNED)

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
        limits = self._limits
        text = "".join(self._lines(position, objects))
        parameters = {
            "scope": self._run.scope_id,
            "same_recipe": self._same_recipe,
            "supersede": limits.on_change == "supersede",
            "restores": limits.restores_archived,
            "not_planned": list(_NOT_PLANNED),
            "limit": None if limits.limit is None else limits.limit - self._chosen(),
            "whole": limits.are_whole,
            "large_weight": self._weights[True],
            "other_weight": self._weights[False],
            **self._sizes(),
            **self._done,
        }
        with self._connection.transaction(doing):
            self._connection.copy_in(doing, "pg_temp.listing", text)
            rows = self._connection.query(doing, _CHOOSE, parameters)
        for why, is_written, is_large, count, weight, size in rows:
            self._counts[why, is_written] += count
            if why == "archived":
                self._archived_bytes += size
            if why not in _NOT_PLANNED:
                self._weights[is_large] += weight

    def _lines(self, position: int, objects: list[SourceObject]) -> Iterator[str]:
        encrypt, hash_key = self._project.source_key_cipher.encrypt, self._project.source_hash_key
        prefix = split_source(self._run.request.source)[1].encode("utf-8", "surrogateescape")
        nonces = os.urandom(NONCE_BYTES * len(objects))
        for number, (key, size, etag, _, version_id, archive_state) in enumerate(objects):
            text = prefix + key.encode("utf-8", "surrogateescape")
            key_hash = hmac.digest(hash_key, text, "sha256")[:16]
            encrypted = encrypt(text, key_hash, nonces[number * NONCE_BYTES : (number + 1) * NONCE_BYTES])
            version = NULL if version_id is None else copy_field(version_id)
            container = NULL
            if MEMBER_SEPARATOR in key:
                outer = prefix + key.partition(MEMBER_SEPARATOR)[0].encode("utf-8", "surrogateescape")
                container = hmac.digest(hash_key, outer, "sha256")[:16].hex()
            row = f"{position + number}\t{key_hash.hex()}\t\\\\x{encrypted.hex()}\t{size}"
            yield f"{row}\t{copy_field(etag)}\t{version}\t{archive_state}\t{container}\n"

    def _cut(self, listed: int, outside: int, deleted: int) -> PlanSummary:
        doing = "cutting the plan into batches"
        run = {"run": self._run.run_id, "scope": self._run.scope_id}
        count = self._counts_by_why()
        with self._connection.transaction(doing):
            # Planning a run again deletes the batches that no worker has begun.
            self._connection.query(doing, _TAKE_BACK, run)
            rows = self._connection.query(doing, _BATCHES, {**run, **self._batch_weights()})
            planned = sum(row[2] for row in rows)
            total = sum(row[3] for row in rows)
            self._connection.query(
                doing,
                _RECORD,
                {
                    **run,
                    "listed": listed,
                    "done": count["done"],
                    "planned": planned,
                    "bytes": total,
                    "archived": count["archived"],
                    "archived_bytes": self._archived_bytes,
                    "rules": self._run.rules_id,
                    "selection": self._limits.selection,
                },
            )
        return PlanSummary(
            listed=listed,
            outside=outside,
            already_done=count["done"],
            kept=count["kept"],
            withdrawn=count["withdrawn"],
            archived=count["archived"],
            archived_bytes=self._archived_bytes,
            planned=planned,
            bytes=total,
            why={why: number for why, number in sorted(count.items()) if why not in _NOT_PLANNED},
            superseding={
                why: number
                for (why, is_written), number in sorted(self._counts.items())
                if is_written and why not in _NOT_PLANNED
            },
            deleted=deleted,
            batches=tuple(BatchReference(row[0], _label(*row[1:]), row[2], int(row[3])) for row in rows),
        )

    def _counts_by_why(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (why, _), number in self._counts.items():
            counts[why] += number
        return counts

    def _sizes(self) -> dict[str, int]:
        """Return the minimum weight of an object, and the size of a large one.

        The weight of an object is its size, at least `batch_bytes / batch_objects`. Two batches are too few to keep
        large objects apart.
        """
        limits = self._limits
        least = -(-limits.batch_bytes // limits.batch_objects)
        large = max(2, min(_LARGE_BYTES, limits.batch_bytes // 4))
        return {"least": least, "large": large if limits.max_batches > 2 else 2**62}

    def _batch_weights(self) -> dict[str, int]:
        """Return the weights of the batches of large and of other objects; each class may have one that is not full."""
        limits = self._limits
        batches = limits.max_batches - 2 if limits.max_batches > 2 else limits.max_batches
        least = max(limits.batch_bytes, -(-self._weights.total() // batches))
        large, other = self._weights[True], self._weights[False]
        return {
            "large": _equal_part(large, max(least, _LARGE_BATCH * limits.batch_bytes)),
            "other": _equal_part(other, least),
        }


def _equal_part(whole: int, least: int) -> int:
    """Return the size of the equal parts of a whole, none of which is smaller than `least` if the whole is not."""
    return max(1, -(-whole // max(1, whole // least)))


def prune(connection: DatabaseConnection, days: int) -> int:
    """Remove the batches of runs that ended at least `days` days ago, and return how many objects they listed.

    Which objects are done stays known, and the audit is not touched.
    """
    rows = connection.query("removing finished plans", _PRUNE, (days, days))
    return int(rows[0][0])


def _label(number: int, objects: int, size: int) -> str:
    return f"{number:04d}: {objects} object{'s' if objects != 1 else ''}, {size / 1e6:.1f} MB"
