"""Withdrawal of released objects, erasure of a patient, and deletion of a project.

A withdrawal is begun in one transaction: from then on no worker writes an object that has a withdrawn identifier, and
all copies that must be deleted are listed in `deletion`. Then they are deleted, each with an audit row. When a process
is killed, the withdrawal is continued by its id.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from dicom_deid.database import pseudonyms
from dicom_deid.database.audit import AuditGroup, AuditRow, BatchItem, append_rows
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.deletions import Deletion
from dicom_deid.database.hash_chain import links_of, record_event
from dicom_deid.database.locks import LOCK_CHAIN, LOCK_OBJECTS, LOCK_WITHDRAWALS
from dicom_deid.database.mapping import keyed_hash_of
from dicom_deid.database.projects import Project
from dicom_deid.database.runs import chain_end
from dicom_deid.database.source_index import count_objects
from dicom_deid.exceptions import ConfigurationError, DicomDeidError
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.reasons import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRequest:
    """Objects to withdraw. Values are originals or pseudonyms; PHI.

    Parameters
    ----------
    patients, accession_numbers, studies, series, objects
        PatientIDs, AccessionNumbers, and Study, Series and SOP Instance UIDs.
    decision
        Released objects that a decision of a reviewer released, or later its rule.
    deleted_sources
        Released objects whose source object is gone, as the last whole listing found.
    whole_project
        Everything of the project.
    """

    patients: Sequence[str] = field(default=(), repr=False)
    accession_numbers: Sequence[str] = field(default=(), repr=False)
    studies: Sequence[str] = field(default=(), repr=False)
    series: Sequence[str] = field(default=(), repr=False)
    objects: Sequence[str] = field(default=(), repr=False)
    decision: int | None = None
    deleted_sources: bool = False
    whole_project: bool = False

    def __post_init__(self) -> None:
        named = (self.patients, self.accession_numbers, self.studies, self.series, self.objects)
        if not (any(named) or self.decision is not None or self.deleted_sources or self.whole_project):
            raise ConfigurationError(
                "Say what to withdraw: patients, accession numbers, studies, series, objects, what a decision released "
                "or deleted sources."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A withdrawal that was begun, or planned by a dry run.

    Parameters
    ----------
    withdrawal_id
        Its id; None for a dry run.
    objects
        Source objects that are withdrawn.
    deletions
        Copies to delete, by place: `destination`, `release`, `quarantine`.
    unknown
        Values that no object of the project has. They are remembered all the same.
    """

    withdrawal_id: str | None
    objects: int
    deletions: Mapping[str, int]
    unknown: int


_KNOWN = """
SELECT w.place, w.keyed_hash, m.pseudonym IS NOT NULL OR EXISTS (
        SELECT FROM source_series s WHERE s.project_id = %(project)s AND (
            %(column)s = 'patient' AND s.patient_hash = w.keyed_hash
            OR %(column)s = 'accession' AND s.accession_hash = w.keyed_hash
            OR %(column)s = 'study' AND s.study_hash = w.keyed_hash
            OR %(column)s = 'series' AND s.series_hash = w.keyed_hash))
    OR %(column)s = 'instance' AND EXISTS (
        SELECT FROM processed_object d WHERE d.instance_hash = encode(substr(w.keyed_hash, 1, 16), 'hex')::uuid)
FROM unnest(%(hashes)s::bytea[]) WITH ORDINALITY w (keyed_hash, place)
LEFT JOIN mapping m ON m.project_id = %(project)s AND m.kind = %(kind)s AND m.keyed_hash = w.keyed_hash
"""

_BY_PSEUDONYM = """
SELECT pseudonym, keyed_hash FROM mapping
WHERE project_id = %(project)s AND kind = %(kind)s AND pseudonym = ANY (%(values)s) AND is_unique
UNION ALL
SELECT pseudonym, keyed_hash FROM mapping
WHERE project_id = %(project)s AND kind = %(kind)s AND pseudonym = ANY (%(values)s) AND NOT is_unique
"""

# One table of the series and one of the objects that are chosen; the indexes on each kind of hash are used.
_CHOOSE = """
DROP TABLE IF EXISTS pg_temp.chosen_series, pg_temp.chosen_object;
CREATE TEMP TABLE chosen_series ON COMMIT DROP AS
SELECT series_number FROM source_series
    WHERE project_id = %(project)s AND patient_hash = ANY (%(patient)s::bytea[]) AND patient_hash <> ''
UNION SELECT series_number FROM source_series
    WHERE project_id = %(project)s AND accession_hash = ANY (%(accession)s::bytea[]) AND accession_hash <> ''
UNION SELECT series_number FROM source_series
    WHERE project_id = %(project)s AND study_hash = ANY (%(study)s::bytea[]) AND study_hash <> ''
UNION SELECT series_number FROM source_series
    WHERE project_id = %(project)s AND series_hash = ANY (%(series)s::bytea[]) AND series_hash <> '';
ANALYZE pg_temp.chosen_series;
UPDATE write_intent SET withdrawal_id = %(withdrawal)s
WHERE series_number IN (SELECT series_number FROM pg_temp.chosen_series)
   OR instance_hash = ANY (%(instances)s::uuid[])
   OR %(whole)s AND scope_id IN (SELECT scope_id FROM work_scope WHERE project_id = %(project)s);
CREATE TEMP TABLE chosen_object ON COMMIT DROP AS
SELECT d.scope_id, d.key_hash, d.object_id FROM processed_object d JOIN pg_temp.chosen_series USING (series_number)
UNION SELECT d.scope_id, d.key_hash, d.object_id FROM processed_object d JOIN work_scope USING (scope_id)
    WHERE project_id = %(project)s AND instance_hash = ANY (%(instances)s::uuid[])
UNION SELECT d.scope_id, d.key_hash, d.object_id FROM processed_object d JOIN work_scope USING (scope_id)
    WHERE project_id = %(project)s AND (%(whole)s OR %(deleted)s AND d.source_deleted_at IS NOT NULL
                                        AND d.destination_key IS NOT NULL)
UNION SELECT d.scope_id, d.key_hash, d.object_id
    FROM decided_object c JOIN processed_object d USING (scope_id, key_hash) JOIN work_scope USING (scope_id)
    JOIN audit a ON (a.run_id, a.link_id, a.number) = (c.run_id, c.link_id, c.number)
    WHERE project_id = %(project)s AND c.decision_id = %(decision)s AND c.outcome = 'deidentified'
      AND (d.destination_key, d.destination_etag) = (a.destination_key, a.destination_etag);
ANALYZE pg_temp.chosen_object;
DELETE FROM pg_temp.chosen_object c USING processed_object d
WHERE d.scope_id = c.scope_id AND d.key_hash = c.key_hash AND d.withdrawal_id IS NOT NULL;
SELECT count(*) FROM pg_temp.chosen_object
"""

_REMEMBER = """
INSERT INTO withdrawal (withdrawal_id, project_id) VALUES (%(withdrawal)s, %(project)s);
INSERT INTO withdrawn (project_id, kind, keyed_hash, withdrawal_id)
SELECT DISTINCT %(project)s, w.kind, w.keyed_hash, %(withdrawal)s::uuid
FROM unnest(%(kinds)s::text[], %(hashes)s::bytea[]) w (kind, keyed_hash) ON CONFLICT DO NOTHING;
UPDATE processed_object d SET withdrawal_id = %(withdrawal)s FROM pg_temp.chosen_object c
WHERE d.scope_id = c.scope_id AND d.key_hash = c.key_hash;
SELECT count(*) FROM withdrawn WHERE withdrawal_id = %(withdrawal)s
"""

_LIST_DELETIONS = """
INSERT INTO deletion (withdrawal_id, scope_id, object_id, place, url, key, etag, run_id)
SELECT %(withdrawal)s::uuid, d.scope_id, d.object_id, 'destination', s.destination, d.destination_key,
    d.destination_etag, d.run_id
FROM pg_temp.chosen_object c JOIN processed_object d USING (scope_id, key_hash) JOIN work_scope s USING (scope_id)
WHERE d.destination_key IS NOT NULL;
INSERT INTO deletion (withdrawal_id, scope_id, object_id, place, url, key, etag)
SELECT %(withdrawal)s::uuid, c.scope_id, c.object_id, 'release', r.url, r.key, r.etag
FROM pg_temp.chosen_object c JOIN released_copy r USING (object_id);
INSERT INTO deletion (withdrawal_id, scope_id, object_id, place, url, reason, key_hash, encrypted_key, etag, run_id)
SELECT DISTINCT ON (c.object_id, r.request::jsonb #>> '{parameters,quarantine}', a.reason, a.source_etag)
    %(withdrawal)s::uuid, c.scope_id, c.object_id, 'quarantine', r.request::jsonb #>> '{parameters,quarantine}',
    a.reason, d.key_hash, d.encrypted_key, a.source_etag, r.run_id
FROM pg_temp.chosen_object c JOIN processed_object d USING (scope_id, key_hash)
JOIN audit a ON a.object_id = c.object_id AND a.outcome = 'quarantined' JOIN run r ON r.run_id = a.run_id
WHERE r.request::jsonb #>> '{parameters,quarantine}' IS NOT NULL;
SELECT place, count(*) FROM deletion WHERE withdrawal_id = %(withdrawal)s GROUP BY place ORDER BY place
"""

_DONE = """
WITH gone AS (
    DELETE FROM deletion WHERE deletion_id = ANY (%s) RETURNING deletion_id, scope_id, object_id, place, url, key
), state AS (
    UPDATE processed_object d SET outcome = 'withdrawn', destination_key = NULL, destination_etag = NULL,
        destination_size = NULL
    FROM gone WHERE gone.place = 'destination' AND d.object_id = gone.object_id AND d.withdrawal_id IS NOT NULL
), copies AS (
    DELETE FROM released_copy r USING gone WHERE gone.place = 'release' AND r.url = gone.url AND r.key = gone.key
), held AS (
    DELETE FROM held_object h USING gone WHERE h.object_id = gone.object_id
)
SELECT deletion_id FROM gone
"""


class _Hashes:
    """The keyed hashes of the values of a request, by column of `source_series`."""

    def __init__(self, connection: DatabaseConnection, project: Project, request: WithdrawalRequest) -> None:
        self._connection = connection
        self._project = project
        self.unknown = 0
        self.pseudonyms: list[str] = []
        self.of = {
            "patient": self._resolve("patient", IdentifierKind.PATIENT_ID, request.patients),
            "accession": self._resolve("accession", IdentifierKind.ACCESSION_NUMBER, request.accession_numbers),
            "study": self._resolve("study", IdentifierKind.UID, request.studies),
            "series": self._resolve("series", IdentifierKind.UID, request.series),
            "instance": self._resolve("instance", IdentifierKind.UID, request.objects),
        }

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the statements that choose and remember."""
        kinds = {"patient": IdentifierKind.PATIENT_ID, "accession": IdentifierKind.ACCESSION_NUMBER}
        pairs = [
            (kinds.get(name, IdentifierKind.UID).value, each) for name, hashes in self.of.items() for each in hashes
        ]
        return {
            **self.of,
            "instances": [each[:16].hex() for each in self.of["instance"]],
            "kinds": [kind for kind, _ in pairs],
            "hashes": [each for _, each in pairs],
        }

    def _resolve(self, column: str, kind: IdentifierKind, values: Sequence[str]) -> list[bytes]:
        plain = list(dict.fromkeys(filter(None, map(pseudonyms.normalised, values))))
        if not plain:
            return []
        doing = "looking for what is withdrawn"
        hashes = [keyed_hash_of(self._project, kind, each) for each in plain]
        parameters = {"project": self._project.project_id, "kind": kind.value, "values": plain}
        found: dict[str, list[bytes]] = {}
        for pseudonym, keyed_hash in self._connection.query(doing, _BY_PSEUDONYM, parameters):
            found.setdefault(pseudonym, []).append(bytes(keyed_hash))
        rows = self._connection.query(doing, _KNOWN, {**parameters, "column": column, "hashes": hashes})
        known = {plain[place - 1] for place, _, is_known in rows if is_known}
        chosen = []
        for value, own in zip(plain, hashes, strict=True):
            of_pseudonym = found.get(value, [])
            if len(of_pseudonym) > 1 or (of_pseudonym and value in known):
                raise ConfigurationError(
                    f"A {kind.value} that was given means several patients or objects (as original and pseudonym, or "
                    "as the pseudonym of many): give the original, or a narrower kind of identifier."
                )
            self.unknown += not of_pseudonym and value not in known
            self.pseudonyms += [value] if of_pseudonym else []
            chosen.append(of_pseudonym[0] if of_pseudonym else own)
        return chosen


def begin_withdrawal(
    connection: DatabaseConnection,
    chain_key: bytes,
    project: Project,
    request: WithdrawalRequest,
    access: AccessReason,
    *,
    withdrawal_id: str | None = None,
    dry_run: bool = False,
) -> Withdrawal:
    """Withdraw objects: refuse to write them from now on, and list all copies that must be deleted.

    Parameters
    ----------
    withdrawal_id
        UUID of the withdrawal, for a caller that continues it after a failure; None for a new one.
    dry_run
        Count only; nothing changes and nothing is recorded.

    Raises
    ------
    ConfigurationError
        A value is ambiguous, or the project has no such decision.
    """
    doing = "withdrawing"
    withdrawal_id = withdrawal_id or str(uuid.uuid4())
    if request.decision is not None:
        _check_decision(connection, project, request.decision)
    hashes = _Hashes(connection, project, request)
    parameters = {
        **hashes.parameters(),
        "project": project.project_id,
        "withdrawal": withdrawal_id,
        "whole": request.whole_project,
        "deleted": request.deleted_sources,
        "decision": request.decision,
    }
    try:
        with connection.transaction(doing):
            connection.query(doing, "SET LOCAL work_mem = '64MB'")
            objects = connection.query(doing, LOCK_WITHDRAWALS + LOCK_OBJECTS + _CHOOSE, parameters)[0][0]
            identifiers = connection.query(doing, _REMEMBER, parameters)[0][0]
            deletions = dict(connection.query(doing, _LIST_DELETIONS, parameters))
            if dry_run:
                raise _DryRun
            body = {
                "person": access.person,
                "reason": access.reason,
                "identifiers": identifiers,
                "pseudonyms": hashes.pseudonyms,
                "decision": request.decision,
                "deleted_sources": request.deleted_sources,
                "whole_project": request.whole_project,
                "objects": objects,
                "deletions": deletions,
            }
            record_event(connection, chain_key, "withdrawal-begun", body, run_id=withdrawal_id, project=project.name)
    except _DryRun:
        return Withdrawal(withdrawal_id=None, objects=objects, deletions=deletions, unknown=hashes.unknown)
    return Withdrawal(withdrawal_id=withdrawal_id, objects=objects, deletions=deletions, unknown=hashes.unknown)


def _check_decision(connection: DatabaseConnection, project: Project, decision: int) -> None:
    found = connection.query(
        "reading the decision",
        "SELECT 1 FROM decision WHERE decision_id = %s AND project_id = %s",
        (decision, project.project_id),
    )
    if not found:
        raise ConfigurationError(
            f"There is no decision {decision} in project {project.name!r}: the page Decisions and "
            "`dicom-deid quarantine decisions` list them."
        )


class _DryRun(Exception):
    """Rolls the transaction of a dry run back."""


def record_withdrawn(
    connection: DatabaseConnection,
    chain_key: bytes,
    project: Project,
    done: Sequence[Deletion],
    versions_kept: Sequence[Deletion] = (),
) -> None:
    """Record copies that were deleted for a withdrawal: one audit row each, in one transaction.

    Parameters
    ----------
    versions_kept
        Copies that the bucket keeps a version of; the audit says so.
    """
    if not done:
        return
    doing = "recording what was withdrawn"
    kept = {each.deletion_id for each in versions_kept}
    with connection.transaction(doing):
        parameters = {"chain": links_of(project.name), "project": project.project_id}
        connection.query(doing, LOCK_CHAIN + LOCK_OBJECTS, parameters)
        rows = connection.query(doing, _DONE, ([each.deletion_id for each in done],))
        remaining = {deletion_id for (deletion_id,) in rows}
        groups: dict[tuple[str, str], list[Deletion]] = {}
        for each in done:
            if each.deletion_id in remaining:
                groups.setdefault((str(each.withdrawal_id), each.url), []).append(each)
        for (withdrawal_id, url), members in groups.items():
            group = AuditGroup(
                run_id=withdrawal_id, batch_id=0, attempt=1, project=project.name, source="", destination=url
            )
            append_rows(connection, chain_key, group, [_withdrawn_row(each, kept) for each in members])
    count_objects(connection, [each.object_id for each in done])


def _withdrawn_row(deletion: Deletion, kept: Set[int]) -> AuditRow:
    item = BatchItem(item_id=0, key="", size=0, etag="", version_id=None, key_hash="", object_id=deletion.object_id)
    return AuditRow(
        item=item,
        outcome=Outcome.WITHDRAWN,
        detail=f"{deletion.place}; a version is kept" if deletion.deletion_id in kept else deletion.place,
        destination_key=deletion.key,
        destination_etag=deletion.etag,
    )


def open_withdrawals(connection: DatabaseConnection, project: Project | None = None) -> list[str]:
    """Return the ids of withdrawals that are not finished, oldest first."""
    rows = connection.query(
        "reading the withdrawals",
        "SELECT withdrawal_id::text FROM withdrawal WHERE state = 'running' "
        "AND (%(project)s IS NULL OR project_id = %(project)s) ORDER BY begun_at",
        {"project": None if project is None else project.project_id},
    )
    return [withdrawal_id for (withdrawal_id,) in rows]


class StillBeingWritten(DicomDeidError):
    """Objects were being written when they were withdrawn; continuing later deletes them.

    Parameters
    ----------
    withdrawal_id
        The withdrawal.
    objects
        Their number.
    """

    def __init__(self, withdrawal_id: str, objects: int) -> None:
        self.withdrawal_id = withdrawal_id
        super().__init__(
            f"{objects} objects were being written when they were withdrawn. Continue withdrawal {withdrawal_id} when "
            "their batches have ended; a retry does that."
        )


def finish_withdrawal(connection: DatabaseConnection, chain_key: bytes, project: Project, withdrawal_id: str) -> None:
    """End a withdrawal after every copy is deleted; nothing happens when it has ended.

    Raises
    ------
    ConfigurationError
        There is none of that id in the project, or copies of it are not deleted yet.
    StillBeingWritten
        A worker has objects of it in flight.
    """
    doing = "finishing the withdrawal"
    with connection.transaction(doing):
        if _state_of(connection, project, withdrawal_id) != "running":
            return
        left = connection.query(doing, "SELECT count(*) FROM deletion WHERE withdrawal_id = %s", (withdrawal_id,))
        if left[0][0]:
            raise ConfigurationError(
                f"{left[0][0]} copies of withdrawal {withdrawal_id} are not deleted yet: continue it."
            )
        writing = connection.query(
            doing, "SELECT count(*) FROM write_intent WHERE withdrawal_id = %s", (withdrawal_id,)
        )
        if writing[0][0]:
            raise StillBeingWritten(withdrawal_id, writing[0][0])
        body = {"state": "finished", **chain_end(connection, withdrawal_id)}
        record_event(connection, chain_key, "withdrawal-finished", body, run_id=withdrawal_id, project=project.name)
        connection.query(
            doing,
            "UPDATE withdrawal SET state = 'finished', finished_at = clock_timestamp() WHERE withdrawal_id = %s",
            (withdrawal_id,),
        )


def undo_withdrawal(
    connection: DatabaseConnection, chain_key: bytes, project: Project, withdrawal_id: str, access: AccessReason
) -> int:
    """Lift a withdrawal, so that the next run writes its objects again, and return how many objects that are.

    Raises
    ------
    ConfigurationError
        It is not finished, or was undone or erased.
    """
    doing = "undoing the withdrawal"
    with connection.transaction(doing):
        connection.query(doing, LOCK_OBJECTS, {"project": project.project_id})
        state = _state_of(connection, project, withdrawal_id)
        if state != "finished":
            raise ConfigurationError(f"Withdrawal {withdrawal_id} cannot be undone: it is {state}.")
        connection.query(doing, "DELETE FROM withdrawn WHERE withdrawal_id = %s", (withdrawal_id,))
        rows = connection.query(
            doing,
            "UPDATE processed_object SET withdrawal_id = NULL, outcome = NULL WHERE withdrawal_id = %s "
            "RETURNING object_id::text",
            (withdrawal_id,),
        )
        connection.query(doing, "UPDATE withdrawal SET state = 'undone' WHERE withdrawal_id = %s", (withdrawal_id,))
        body = {"person": access.person, "reason": access.reason, "objects": len(rows)}
        record_event(connection, chain_key, "withdrawal-undone", body, run_id=withdrawal_id, project=project.name)
    count_objects(connection, [object_id for (object_id,) in rows])
    return len(rows)


def _state_of(connection: DatabaseConnection, project: Project, withdrawal_id: str) -> str:
    try:
        wanted = str(uuid.UUID(withdrawal_id))
    except ValueError:
        wanted = str(uuid.UUID(int=0))
    rows = connection.query(
        "reading the withdrawal",
        "SELECT state FROM withdrawal WHERE withdrawal_id = %s AND project_id = %s FOR UPDATE",
        (wanted, project.project_id),
    )
    if not rows:
        raise ConfigurationError(f"There is no such withdrawal in project {project.name!r}.")
    return str(rows[0][0])
