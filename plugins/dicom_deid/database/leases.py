"""Batch leases: exclusive ownership of a batch by one worker.

A lease is valid while its time has not run out *and* the database session that took it is connected: PostgreSQL drops a
session's advisory locks when its connection ends, so the batch of a killed worker is free at once, and the batch of a
worker whose machine vanished when the time is up. A token keeps a worker that comes back too late from recording.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from dicom_deid import __version__
from dicom_deid.database.audit import AuditGroup, AuditRow, BatchItem, Intent, ObjectIdentity, append_rows
from dicom_deid.database.connection import UNFLUSHED, DatabaseConnection
from dicom_deid.database.deletions import COLUMNS as DELETION_COLUMNS
from dicom_deid.database.deletions import Deletion, read_deletions
from dicom_deid.database.errors import LeaseLost
from dicom_deid.database.locks import SHARE_OBJECTS, SHARE_WITHDRAWALS
from dicom_deid.database.mapping import issuer_term, keyed_hash_of
from dicom_deid.database.projects import Project, decrypt_source_key, split_source
from dicom_deid.database.pseudonyms import normalised
from dicom_deid.database.quarantine import decisions_of_batch, settle_held
from dicom_deid.database.runs import IS_HELD, SETTLE_DONE, Run, done_parameters
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.objects import WrittenObject
from dicom_deid.reasons import Outcome, Reason

_NEVER_DONE = frozenset(
    {Outcome.FAILED, Outcome.ARCHIVED, Reason.OBJECT_VANISHED, Reason.OBJECT_CHANGED, Reason.OBJECT_DAMAGED}
)
"""Outcomes and reasons of objects that the next run plans again."""

_TWO_KEYS = "hashtext(current_schema() || ' batch'), (%(batch)s %% 2147483647)::integer"

_LOOK = f"""
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' scope ' || %(scope)s, 0));
SELECT b.state, b.expires_at > clock_timestamp() AND {IS_HELD} FROM batch b WHERE b.batch_id = %(batch)s FOR UPDATE
"""  # noqa: S608 - constants

# An object that was being processed when its worker died is counted; every object gets its id before the first is read.
_TAKE = f"""
{SHARE_OBJECTS}
UPDATE batch_item i SET deaths = i.deaths + 1 FROM batch b
WHERE b.batch_id = %(batch)s AND b.state = 'leased' AND i.batch_id = b.batch_id AND i.item = ANY (b.in_flight)
  AND (i.outcome IS NULL OR i.outcome = 'failed');
UPDATE batch SET state = 'leased', token = %(token)s, worker = %(worker)s, attempt = attempt + 1, in_flight = '{{}}',
    started_at = coalesce(started_at, clock_timestamp()),
    expires_at = clock_timestamp() + make_interval(secs => %(seconds)s), finished_at = NULL WHERE batch_id = %(batch)s;
UPDATE batch_item SET outcome = NULL WHERE batch_id = %(batch)s AND outcome = 'left';
{SETTLE_DONE}
WITH other AS (
    SELECT i.key_hash, i.etag, i.version_id FROM batch b JOIN batch_item i USING (batch_id)
    WHERE b.scope_id = %(scope)s AND b.state = 'leased' AND b.run_id <> %(run)s AND b.expires_at > clock_timestamp()
      AND (i.outcome IS NULL OR i.outcome = 'failed') AND {IS_HELD}
)
UPDATE batch_item i SET outcome = 'left' FROM other o
WHERE i.batch_id = %(batch)s AND (i.outcome IS NULL OR i.outcome = 'failed') AND o.key_hash = i.key_hash;
INSERT INTO processed_object (scope_id, key_hash, encrypted_key)
SELECT %(scope)s, key_hash, encrypted_key FROM batch_item WHERE batch_id = %(batch)s AND outcome IS NULL
ORDER BY key_hash ON CONFLICT (scope_id, key_hash) DO NOTHING;
SELECT attempt, pg_try_advisory_lock({_TWO_KEYS}) FROM batch WHERE batch_id = %(batch)s
"""  # noqa: S608 - constants

_ITEMS = """
SELECT i.item, i.size, i.etag, i.version_id, i.key_hash::text, i.encrypted_key, d.object_id::text,
    i.outcome IS NOT NULL AND i.outcome <> 'failed', d.destination_key, d.destination_size, d.destination_etag,
    d.withdrawal_id IS NOT NULL, d.lacks_terms, i.deaths, i.is_archived
FROM batch_item i JOIN processed_object d ON d.scope_id = %(scope)s AND d.key_hash = i.key_hash
WHERE i.batch_id = %(batch)s
  AND (i.outcome IS NULL OR i.outcome = 'failed' OR %(recorded)s AND i.outcome NOT IN ('left', 'done'))
ORDER BY i.item
"""

_ADD_SERIES = """
INSERT INTO source_series (project_id, series_hash, study_hash, accession_hash, patient_hash, issuer_hash)
SELECT %(project)s, series, study, accession, patient, issuer
FROM unnest(%(series)s::bytea[], %(studies)s::bytea[], %(accessions)s::bytea[], %(patients)s::bytea[],
            %(issuers)s::bytea[]) w (series, study, accession, patient, issuer)
ORDER BY series, study, accession, patient, issuer ON CONFLICT DO NOTHING;
"""

# Objects give the place of their series: each series is looked up once.
_SERIES = """
found AS (
    SELECT w.*, s.series_number FROM unnest(%(series)s::bytea[], %(studies)s::bytea[], %(accessions)s::bytea[],
        %(patients)s::bytea[], %(issuers)s::bytea[])
        WITH ORDINALITY w (series, study, accession, patient, issuer, place)
    LEFT JOIN source_series s ON s.project_id = %(project)s AND s.series_hash = w.series AND s.study_hash = w.study
        AND s.accession_hash = w.accession AND s.patient_hash = w.patient AND s.issuer_hash = w.issuer
), numbers AS MATERIALIZED (
    SELECT array_agg(series_number ORDER BY place) AS at_place, array_agg(
        CASE WHEN series || study || accession || patient <> '' THEN series_number END ORDER BY place) AS identified
    FROM found
)
"""

_IS_WITHDRAWN = """
SELECT w.item, x.withdrawal_id FROM found f CROSS JOIN LATERAL (VALUES
    ('PatientID', f.patient), ('AccessionNumber', f.accession), ('UID', f.study), ('UID', f.series)
) each (kind, keyed_hash)
JOIN withdrawn x ON x.project_id = %(project)s AND x.kind = each.kind AND x.keyed_hash = each.keyed_hash
JOIN wanted w USING (place)
UNION
SELECT w.item, x.withdrawal_id FROM wanted w
JOIN withdrawn x ON x.project_id = %(project)s AND x.kind = 'UID' AND x.keyed_hash = w.instance
"""

_RENEW = f"""{UNFLUSHED}
UPDATE batch SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s),
    in_flight = coalesce(%(in_flight)s::integer[], in_flight)
WHERE batch_id = %(batch)s AND token = %(token)s RETURNING 1
"""  # noqa: S608 - constants

_MINE = "SELECT 1 FROM batch WHERE batch_id = %(batch)s AND token = %(token)s FOR UPDATE"

# A withdrawal takes the lock exclusively: it sees every intent made before it, and every later one sees it. A key that
# is written again, because rules were changed back, must not be deleted because a killed worker has superseded it.
_INTEND = f"""
{SHARE_WITHDRAWALS}
{_MINE};
{SHARE_OBJECTS}
{_ADD_SERIES}
WITH mine AS (
    UPDATE batch SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE batch_id = %(batch)s AND token = %(token)s RETURNING batch_id
), {_SERIES}, wanted AS (
    SELECT w.*, n.at_place[w.place] AS series_number FROM numbers n, unnest(%(items)s::integer[],
        %(destination_keys)s::text[], %(reasons)s::text[], %(places)s::integer[], %(instances)s::bytea[],
        %(key_hashes)s::uuid[]) w (item, destination_key, reason, place, instance, key_hash)
), refused AS ({_IS_WITHDRAWN}), made AS (
    INSERT INTO write_intent (batch_id, item, run_id, scope_id, key_hash, destination_key, reason, series_number,
        instance_hash)
    SELECT %(batch)s, w.item, %(run)s, %(scope)s, w.key_hash, w.destination_key, w.reason, w.series_number,
           CASE WHEN w.instance <> '' THEN encode(substr(w.instance, 1, 16), 'hex')::uuid END
    FROM wanted w WHERE EXISTS (SELECT FROM mine) AND w.item NOT IN (SELECT item FROM refused) ORDER BY w.item
    ON CONFLICT (batch_id, item) DO UPDATE SET destination_key = excluded.destination_key, run_id = excluded.run_id,
        reason = excluded.reason, series_number = excluded.series_number, instance_hash = excluded.instance_hash,
        withdrawal_id = NULL
), kept AS (
    DELETE FROM deletion x USING wanted w
    WHERE x.withdrawal_id IS NULL AND x.place = 'destination' AND x.url = %(destination)s AND x.key = w.destination_key
), marked AS (
    UPDATE processed_object d SET withdrawal_id = r.withdrawal_id, series_number = w.series_number
    FROM refused r JOIN wanted w ON w.item = r.item
    WHERE d.scope_id = %(scope)s AND d.key_hash = w.key_hash AND EXISTS (SELECT FROM mine)
)
SELECT (SELECT count(*) FROM mine), (SELECT coalesce(array_agg(DISTINCT item), '{{}}') FROM refused)
"""  # noqa: S608 - constants

# The old object is deleted after the new one was written under another key, or was quarantined for what was not known
# when the old one was written; and both where the patient was withdrawn while the object was being written. What an
# earlier attempt may have written of a withdrawn object, which has no row, is deleted too; a copy in quarantine is
# deleted by the withdrawal.
# PostgreSQL's statistics do not know the batches that were planned after the last ANALYZE: it takes one for empty. The
# bounds of the items keep it from reading the whole batch each time. Every row of the right side of a FULL JOIN has one
# on the left here: it is a LEFT JOIN that cannot become a loop over all pairs.
_SETTLE = f"""
{SHARE_OBJECTS}
{_ADD_SERIES}
WITH {_SERIES}, wanted AS (
    UPDATE batch_item i SET outcome = w.outcome FROM unnest(%(items)s::integer[], %(destination_keys)s::text[],
            %(reasons)s::text[], %(places)s::integer[], %(instances)s::bytea[], %(outcomes)s::text[],
            %(destination_etags)s::text[], %(destination_sizes)s::bigint[], %(are_done)s::boolean[],
            %(selections)s::text[], %(terms)s::integer[])
        w (item, destination_key, reason, place, instance, outcome, destination_etag, destination_size, is_done,
           selection, terms)
    WHERE i.batch_id = %(batch)s AND i.item BETWEEN %(first)s AND %(last)s AND i.item = w.item
    RETURNING w.*, i.key_hash, i.etag, i.version_id
), settled AS (
    DELETE FROM write_intent i USING wanted w WHERE i.batch_id = %(batch)s AND i.item = w.item
    RETURNING i.item, i.series_number, i.instance_hash, i.withdrawal_id, i.destination_key, i.reason
), ended AS (
    SELECT w.*, x.destination_key AS intended_key, x.reason AS intended_reason, x.withdrawal_id,
        coalesce(x.series_number, CASE WHEN w.instance <> '' THEN n.at_place[w.place] ELSE n.identified[w.place] END)
            AS series_number,
        coalesce(x.instance_hash, CASE WHEN w.instance <> '' THEN encode(substr(w.instance, 1, 16), 'hex')::uuid END)
            AS instance_hash
    FROM (wanted w CROSS JOIN numbers n) FULL JOIN settled x ON x.item = w.item
), lasting AS (
    SELECT e.series_number, count(*) AS lasting_terms FROM (SELECT DISTINCT series_number FROM ended) s
    JOIN source_series e USING (series_number)
    JOIN patient_term t ON t.project_id = e.project_id AND t.patient_hash = e.patient_hash AND t.is_lasting GROUP BY 1
), state AS (
    SELECT * FROM ended FULL JOIN lasting USING (series_number)
), superseded AS (
    INSERT INTO deletion (run_id, scope_id, object_id, place, url, key, etag)
    SELECT %(run)s, d.scope_id, d.object_id, 'destination', %(destination)s, d.destination_key, d.destination_etag
    FROM processed_object d JOIN state s USING (key_hash)
    WHERE d.scope_id = %(scope)s AND (s.outcome = 'deidentified' AND d.destination_key <> s.destination_key
        OR s.outcome = 'quarantined' AND d.lacks_terms AND d.destination_key IS NOT NULL)
    RETURNING {DELETION_COLUMNS}
), taken_back AS (
    INSERT INTO deletion (withdrawal_id, run_id, scope_id, object_id, place, url, key, etag)
    SELECT s.withdrawal_id, %(run)s, d.scope_id, d.object_id, 'destination', %(destination)s,
        coalesce(s.destination_key, s.intended_key), s.destination_etag
    FROM processed_object d JOIN state s USING (key_hash)
    WHERE d.scope_id = %(scope)s AND s.withdrawal_id IS NOT NULL AND s.outcome <> 'quarantined' AND s.intended_key <> ''
    RETURNING {DELETION_COLUMNS}
), taken_from_quarantine AS (
    INSERT INTO deletion (withdrawal_id, run_id, scope_id, object_id, place, url, reason, key_hash, encrypted_key, etag)
    SELECT s.withdrawal_id, %(run)s, d.scope_id, d.object_id, 'quarantine', %(quarantine)s,
        coalesce(s.intended_reason, s.reason), d.key_hash, d.encrypted_key, s.etag
    FROM processed_object d JOIN state s USING (key_hash)
    WHERE d.scope_id = %(scope)s AND s.withdrawal_id IS NOT NULL AND %(quarantine)s IS NOT NULL
      AND (s.outcome = 'quarantined' OR s.intended_reason IS NOT NULL)
), updated AS (
    UPDATE processed_object d SET etag = s.etag, version_id = s.version_id, outcome = s.outcome, reason = s.reason,
        selection = nullif(s.selection, ''), rules_id = %(rules)s, package_version = %(package)s, run_id = %(run)s,
        destination_key = CASE WHEN s.outcome = 'deidentified' THEN s.destination_key
            WHEN NOT (s.outcome = 'quarantined' AND d.lacks_terms) THEN d.destination_key END,
        destination_etag = CASE WHEN s.outcome = 'deidentified' THEN s.destination_etag ELSE d.destination_etag END,
        destination_size = CASE WHEN s.outcome = 'deidentified' THEN s.destination_size ELSE d.destination_size END,
        series_number = coalesce(s.series_number, d.series_number),
        instance_hash = coalesce(s.instance_hash, d.instance_hash),
        withdrawal_id = coalesce(s.withdrawal_id, d.withdrawal_id),
        terms = s.terms,
        lacks_terms = s.outcome = 'deidentified' AND s.terms IS NOT NULL AND s.terms < coalesce(s.lasting_terms, 0)
    FROM state s WHERE d.scope_id = %(scope)s AND d.key_hash = s.key_hash AND s.is_done
), renewed AS (
    UPDATE batch SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s), in_flight = (
        SELECT coalesce(array_agg(item), '{{}}') FROM unnest(in_flight) item WHERE item <> ALL (%(items)s))
    WHERE batch_id = %(batch)s
)
SELECT * FROM superseded UNION ALL SELECT * FROM taken_back
"""  # noqa: S608 - constants

_END = f"""
{SETTLE_DONE}
UPDATE batch SET state = %(state)s, token = NULL, expires_at = NULL, in_flight = '{{}}',
    finished_at = CASE WHEN %(state)s = 'finished' THEN clock_timestamp() END
WHERE batch_id = %(batch)s AND token = %(token)s RETURNING pg_advisory_unlock({_TWO_KEYS})
"""  # noqa: S608 - constants


class Lease:
    """A batch that this worker owns. Created by :meth:`dicom_deid.database.Database.lease`.

    Attributes
    ----------
    batch_id, attempt
        The batch, and how often it was leased.
    run
        The run that it belongs to.
    """

    def __init__(
        self, connection: DatabaseConnection, chain_key: bytes, project: Project, run: Run, batch_id: int, seconds: int
    ) -> None:
        self._connection = connection
        self._chain_key = chain_key
        self._project = project
        self._token = str(uuid.uuid4())
        self._done: dict[str, object] = {}
        self.run = run
        self.batch_id = batch_id
        self.seconds = seconds
        self.attempt = 0

    def _parameters(self, **more: object) -> dict[str, Any]:
        return {
            "batch": self.batch_id,
            "run": self.run.run_id,
            "scope": self.run.scope_id,
            "project": self._project.project_id,
            "destination": self.run.request.destination,
            "token": self._token,
            "seconds": self.seconds,
            **self._done,
            **more,
        }

    def take(self, worker: str) -> bool:
        """Acquire the batch if it is free; objects that another run is processing are left to it.

        Objects that another run has done meanwhile under the same rules count as done.
        """
        doing = "leasing a batch"
        with self._connection.transaction(doing):
            self._done = done_parameters(self._connection, self.run)
            rows = self._connection.query(doing, _LOOK, self._parameters())
            if not rows:
                raise ConfigurationError(f"There is no batch {self.batch_id}; its run was pruned or planned again.")
            state, live = rows[0]
            if state == "finished" or (state == "leased" and live):
                return False
            taken = self._connection.query(doing, _TAKE, self._parameters(worker=worker))
            self.attempt = int(taken[0][0])
        return True

    def items(self, *, recorded: bool = False) -> list[BatchItem]:
        """Return the objects of the batch that are still to be done, in the order of the listing.

        Parameters
        ----------
        recorded
            Also return the objects whose outcome an earlier attempt of the run recorded, marked as such.
        """
        rows = self._connection.query("reading the batch", _ITEMS, self._parameters(recorded=recorded))
        decisions = decisions_of_batch(self._connection, self.batch_id, self.run.scope_id)
        prefix = split_source(self.run.request.source)[1]
        return [
            BatchItem(
                item_id=item,
                key=decrypt_source_key(self._project, key_hash, encrypted).removeprefix(prefix),
                size=size,
                etag=etag,
                version_id=version_id,
                key_hash=key_hash,
                object_id=object_id,
                recorded=was_recorded,
                previous=None if key is None else WrittenObject(key, written or 0, written_etag or ""),
                withdrawn=withdrawn,
                lacks_terms=lacks_terms,
                deaths=deaths,
                decision=decisions.get(item),
                is_archived=is_archived,
            )
            for item, size, etag, version_id, key_hash, encrypted, object_id, was_recorded, key, written, written_etag,
            withdrawn, lacks_terms, deaths, is_archived in rows
        ]  # fmt: skip

    def renew(self, in_flight: Collection[int] | None = None) -> None:
        """Extend the lease by its seconds from now.

        Parameters
        ----------
        in_flight
            Items that are processed from now on: should the worker die, their `deaths` are counted. None leaves those
            of the last call, without those that were recorded since.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch.
        """
        rows = self._connection.query(
            "renewing the lease of a batch",
            _RENEW,
            self._parameters(in_flight=None if in_flight is None else list(in_flight)),
        )
        if not rows:
            raise self._lost()

    def intend(self, intents: Sequence[Intent]) -> set[int]:
        """Commit the destination keys that are about to be written, and return the items that must not be written.

        Call it before the first byte of a group is written. The intents remain until :meth:`record` has the outcomes:
        what a killed worker wrote without a row is found by its intents.

        Returns
        -------
        set of int
            Item ids of objects that were withdrawn; they have no intent.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch; nothing may be written.
        """
        if not intents:
            return set()
        parameters = self._identified(
            [each.item for each in intents],
            [each.identity for each in intents],
            [each.destination_key for each in intents],
            [each.reason for each in intents],
        )
        mine, refused = self._connection.query("recording what will be written", _INTEND, parameters)[0]
        if not mine:
            raise self._lost()
        return set(refused)

    def record(self, rows: Sequence[AuditRow]) -> list[Deletion]:
        """Append audit rows and mark their objects, in one transaction; the lease is renewed.

        Call it after the objects are written, as often as convenient: an object that is recorded is never done again.

        Returns
        -------
        list of Deletion
            Objects at the destination that must be deleted now: superseded by one under another key, or withdrawn
            while they were written. Call :func:`dicom_deid.database.Database.settle_deletions` afterwards.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch; nothing was recorded.
        DatabaseError
            Nothing was recorded, or the answer was lost; a worker that leases the batch again sees which.
        """
        if not rows:
            return []
        doing = "recording the audit of a batch"
        request = self.run.request
        group = AuditGroup(
            run_id=self.run.run_id,
            batch_id=self.batch_id,
            attempt=self.attempt,
            project=request.project,
            source=request.source,
            destination=request.destination,
            recipe_digest=request.recipe_digest,
            settings_digest=request.settings_digest,
        )
        parameters = self._identified(
            [row.item for row in rows],
            [row.identity for row in rows],
            [row.destination_key for row in rows],
            [row.reason for row in rows],
        ) | {
            "package": __version__,
            "first": min(row.item.item_id for row in rows),
            "last": max(row.item.item_id for row in rows),
            "quarantine": request.parameters.get("quarantine"),
            "outcomes": [row.outcome.value for row in rows],
            "destination_etags": [row.destination_etag for row in rows],
            "destination_sizes": [row.destination_size for row in rows],
            "selections": [row.selection for row in rows],
            "terms": [row.terms for row in rows],
            "are_done": [row.outcome not in _NEVER_DONE and row.reason not in _NEVER_DONE for row in rows],
        }
        with self._connection.transaction(doing):
            if not self._connection.query(doing, _MINE, parameters):
                raise self._lost()
            link, moment = append_rows(self._connection, self._chain_key, group, rows)
            deletions = read_deletions(self._connection.query(doing, _SETTLE, parameters))
            held = self._parameters(link=link, recorded_at=moment, source=request.source)
            settle_held(self._connection, self._project, rows, held)
        return deletions

    def _identified(
        self,
        items: Sequence[BatchItem],
        identities: Sequence[ObjectIdentity],
        destination_keys: Sequence[str | None],
        reasons: Sequence[Reason | None],
    ) -> dict[str, Any]:
        # Objects of a series share all identifiers but one.
        places: dict[ObjectIdentity, int] = {}
        of_series = [places.setdefault(each._replace(sop_instance_uid=""), len(places) + 1) for each in identities]
        return self._parameters(
            items=[item.item_id for item in items],
            key_hashes=[item.key_hash for item in items],
            destination_keys=list(destination_keys),
            reasons=[reason and reason.value for reason in reasons],
            places=of_series,
            instances=[self._hash(IdentifierKind.UID, each.sop_instance_uid) for each in identities],
            patients=[self._hash(IdentifierKind.PATIENT_ID, each.patient_id) for each in places],
            issuers=[
                self._hash(IdentifierKind.PATIENT_ID, of and issuer_term(of))
                for of in (each.issuer_of_patient_id for each in places)
            ],
            accessions=[self._hash(IdentifierKind.ACCESSION_NUMBER, each.accession_number) for each in places],
            studies=[self._hash(IdentifierKind.UID, each.study_instance_uid) for each in places],
            series=[self._hash(IdentifierKind.UID, each.series_instance_uid) for each in places],
        )

    def _hash(self, kind: IdentifierKind, original: str) -> bytes:
        value = normalised(original)
        return keyed_hash_of(self._project, kind, value) if value else b""

    def finish(self) -> None:
        """End the batch. Objects without an outcome stay open until another run plans them.

        Raises
        ------
        LeaseLost
            Another worker has taken the batch.
        """
        self._end("finished")

    def release(self) -> None:
        """Give the batch back, so that another attempt processes the rest."""
        self._end("planned")

    def _end(self, state: str) -> None:
        if not self._connection.query("ending a batch", _END, self._parameters(state=state)):
            raise self._lost()

    def _lost(self) -> LeaseLost:
        return LeaseLost(f"Batch {self.batch_id} was taken by another worker; this one's results are not recorded.")
