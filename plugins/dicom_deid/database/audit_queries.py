"""All reading of the audit: pages, release, downloads, trace. Source keys are read only by `source_keys`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.mapping import keyed_hash_of
from dicom_deid.database.projects import Project, decrypt_source_key, source_key_hash, split_source
from dicom_deid.database.pseudonyms import normalised
from dicom_deid.database.runs import Run, Totals, find_run, list_runs, report_run
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.objects import SourceObject
from dicom_deid.reasons import Outcome, Reason


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One audit row: one attempt at one object.

    Parameters
    ----------
    object_id
        The random id that the audit uses instead of the source key.
    replaced_key, replaced_etag
        The object that this one superseded.
    actions, notes
        Counts as JSON.
    """

    recorded_at: datetime
    run_id: str
    link_id: int
    number: int
    batch_id: int
    item: int
    attempt: int
    project: str
    source: str
    object_id: str
    source_version_id: str | None
    source_etag: str
    source_size: int
    destination: str
    destination_key: str | None
    destination_etag: str | None
    destination_size: int | None
    replaced_key: str | None
    replaced_etag: str | None
    sha256_in: str | None
    sha256_out: str | None
    outcome: str
    reason: str | None
    detail: str
    recipe_digest: str
    settings_digest: str
    package_version: str
    sop_class_uid: str | None
    transfer_syntax_uid: str | None
    modality: str | None
    actions: str
    notes: str
    milliseconds: int

    @property
    def written(self) -> SourceObject:
        """The object at the destination."""
        return SourceObject(
            self.destination_key or "", self.destination_size or 0, self.destination_etag or "", self.recorded_at
        )

    def source_object(self, key: str) -> SourceObject:
        """Return the source object of a whole key, its key relative to the source."""
        relative = key.removeprefix(split_source(self.source)[1])
        return SourceObject(relative, self.source_size, self.source_etag, self.recorded_at, self.source_version_id)


_AS_TEXT = {
    **{name: f"{name}::text" for name in ("run_id", "object_id")},
    **{name: f"encode({name}, 'hex')" for name in ("sha256_in", "sha256_out", "recipe_digest", "settings_digest")},
}

RECORD_COLUMNS = ", ".join(_AS_TEXT.get(name, name) for name in AuditRecord.__dataclass_fields__)
"""The columns of an audit row in the order of the fields of :class:`AuditRecord`."""


class StoredRecipe(NamedTuple):
    """A recipe that a run has used."""

    digest: str
    name: str
    stored_at: datetime


class WithdrawalState(NamedTuple):
    """A withdrawal and its state."""

    withdrawal_id: str
    begun_at: datetime
    state: str
    project: str
    person: str
    reason: str
    objects: int


class DeletedSource(NamedTuple):
    """An object at the destination whose source object is gone, and when a plan first missed it."""

    object_id: str
    destination_key: str
    missing_since: datetime


class BatchState(NamedTuple):
    """Number of batches of a run in one state."""

    state: str
    batches: int
    objects: int


class Queries:
    """Questions about runs and the audit, over one connection.

    Parameters
    ----------
    connection
        A connection whose role may read the audit and the plan.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        self._connection = connection

    def runs(
        self, project: str | None = None, limit: int = 50, *, state: str | None = None, offset: int = 0
    ) -> list[Run]:
        """Return the newest runs, newest first."""
        return list_runs(self._connection, limit, project, state=state, offset=offset)

    def project_names(self) -> list[str]:
        """Return the names of all projects."""
        rows = self._connection.query("reading projects", "SELECT name FROM project ORDER BY name")
        return [name for (name,) in rows]

    def find_airflow_run(self, dag_id: str, dag_run_id: str) -> Run | None:
        """Return the newest run of an Airflow DAG run, or None."""
        rows = self._connection.query(
            "reading the run",
            "SELECT run_id::text FROM run WHERE starts_with(external_id, %s) ORDER BY run_number DESC LIMIT 1",
            (f"{dag_id}/{dag_run_id}/",),
        )
        return find_run(self._connection, rows[0][0]) if rows else None

    def object_states(self, project: str | None = None) -> dict[str, int]:
        """Return how many source objects are in each state now; an object of many runs is counted once."""
        rows = self._connection.query(
            "counting objects",
            # Counted before the join, from the index alone.
            "SELECT d.outcome, sum(d.objects)::bigint FROM "
            "(SELECT scope_id, outcome, count(*) AS objects FROM processed_object GROUP BY 1, 2) d "
            "JOIN work_scope s USING (scope_id) JOIN project p USING (project_id) WHERE d.outcome IS NOT NULL "
            "AND (%(project)s IS NULL OR p.name = %(project)s) GROUP BY 1",
            {"project": project},
        )
        return dict(rows)

    def recipes(self, limit: int, *, offset: int = 0) -> list[StoredRecipe]:
        """Return the recipes that runs have used, newest first, without their text."""
        rows = self._connection.query(
            "reading the recipes",
            "SELECT digest, name, stored_at FROM recipe ORDER BY stored_at DESC, digest LIMIT %s OFFSET %s",
            (limit, offset),
        )
        return [StoredRecipe(*row) for row in rows]

    def run(self, run_id: UUID) -> Run | None:
        """Return one run, or None."""
        try:
            return find_run(self._connection, str(run_id))
        except ConfigurationError:
            return None

    def totals(self, runs: Sequence[Run]) -> dict[str, Totals]:
        """Return the totals of runs by their ids.

        A finished run is read from the event that ended it; a running one is added up from its audit rows.
        """
        rows = self._connection.query(
            "reading finished runs",
            "SELECT DISTINCT ON (run_id) run_id::text, body FROM audit_event "
            "WHERE kind = 'run-finished' AND run_id = ANY(%s::uuid[]) ORDER BY run_id, event_id DESC",
            ([run.run_id for run in runs],),
        )
        recorded = {run_id: json.loads(body) for run_id, body in rows}
        return {run.run_id: self._totals(run, recorded.get(run.run_id)) for run in runs}

    def _totals(self, run: Run, recorded: Mapping[str, Any] | None) -> Totals:
        if recorded is None or run.finished_at is None:
            return report_run(self._connection, run.run_id)
        seconds = (run.finished_at - run.started_at).total_seconds()
        names = ("outcomes", "reasons", "bytes_in", "bytes_out", "working_seconds")
        return Totals(seconds=seconds, **{name: recorded[name] for name in names})

    def differences(self, run_id: UUID) -> Mapping[str, int]:
        """Return how many objects of each kind differ between destination and audit, as the run's report found."""
        rows = self._connection.query(
            "reading the report of a run",
            "SELECT body FROM audit_event WHERE kind = 'audit-reconciled' AND run_id = %s "
            "ORDER BY event_id DESC LIMIT 1",
            (str(run_id),),
        )
        return dict(json.loads(rows[0][0])["differences"]) if rows else {}

    def deleted_sources(self, run: Run) -> list[DeletedSource]:
        """Return the objects at the destination of a run whose source object is gone, by key."""
        rows = self._connection.query(
            "looking for deleted source objects",
            "SELECT object_id::text, destination_key, source_deleted_at FROM processed_object WHERE scope_id = %s "
            "AND source_deleted_at IS NOT NULL AND destination_key IS NOT NULL ORDER BY 2",
            (run.scope_id,),
        )
        return [DeletedSource(*row) for row in rows]

    def batches(self, run_id: UUID) -> list[BatchState]:
        """Return the states of a run's batches."""
        rows = self._connection.query(
            "reading batches",
            "SELECT state, count(*), sum(objects)::bigint FROM batch WHERE run_id = %s GROUP BY state ORDER BY state",
            (str(run_id),),
        )
        return [BatchState(*row) for row in rows]

    def cohort(self, run_id: str) -> dict[str, tuple[int, int]]:
        """Return lines and objects of a run's cohort list, by status; empty if it had no list."""
        rows = self._connection.query(
            "reading a cohort",
            "SELECT status, count(*), sum(objects)::bigint FROM cohort_line WHERE run_id = %s GROUP BY 1 ORDER BY 1",
            (run_id,),
        )
        return {status: (lines, objects) for status, lines, objects in rows}

    def quarantined(
        self, runs: Sequence[Run], reason: Reason | None = None, limit: int | None = 200
    ) -> list[AuditRecord]:
        """Return objects of some runs whose last attempt was quarantined or failed, newest first."""
        if not runs:
            return []
        return self._records(
            "FROM last_attempts(%(runs)s::uuid[], %(since)s) "
            "WHERE outcome IN ('quarantined', 'failed') AND (%(reason)s IS NULL OR reason = %(reason)s) "
            "ORDER BY recorded_at DESC, item LIMIT %(limit)s",
            runs=[run.run_id for run in runs],
            since=min(run.recorded_since for run in runs),
            reason=reason,
            limit=limit,
        )

    def written(self, run: Run, limit: int | None = 5) -> list[AuditRecord]:
        """Return the objects that a run has de-identified, newest first; `None` for all of them."""
        return self._records(
            "FROM last_attempts(ARRAY[%(run)s]::uuid[], %(since)s) WHERE outcome = %(outcome)s "
            "ORDER BY link_id DESC, number DESC LIMIT %(limit)s",
            run=run.run_id,
            since=run.recorded_since,
            outcome=Outcome.DEIDENTIFIED.value,
            limit=limit,
        )

    def record(self, run_id: UUID, link_id: int, number: int) -> AuditRecord | None:
        """Return one audit row, or None."""
        found = self._records(
            "FROM audit WHERE run_id = %(run)s AND link_id = %(link)s AND number = %(number)s",
            run=str(run_id),
            link=link_id,
            number=number,
        )
        return found[0] if found else None

    def history(self, *, object_id: UUID | None = None, destination_key: str | None = None) -> list[AuditRecord]:
        """Return the attempts at an object, newest first, by its id or by a destination key that it had."""
        if object_id is not None:
            where = "object_id = %(id)s"
        else:
            where = "object_id IN (SELECT object_id FROM audit WHERE destination_key = %(key)s)"
        return self._records(
            f"FROM audit WHERE {where} ORDER BY recorded_at DESC, link_id DESC, number DESC LIMIT 100",
            id=None if object_id is None else str(object_id),
            key=destination_key,
        )

    def under_pseudonym(self, pseudonym: str) -> list[AuditRecord]:
        """Return the objects whose destination key has a part that is the pseudonym of a patient or study."""
        escaped = re.sub(r"([\\%_])", r"\\\1", pseudonym)
        return self._records(
            "FROM audit WHERE destination_key LIKE %(first)s OR destination_key LIKE %(inner)s "
            "ORDER BY recorded_at DESC, link_id DESC, number DESC LIMIT 100",
            first=f"{escaped}/%",
            inner=f"%/{escaped}/%",
        )

    def audit_rows(self, run_id: UUID) -> Iterator[AuditRecord]:
        """Stream the audit rows of a run, oldest first."""
        sql = f"SELECT {RECORD_COLUMNS} FROM audit WHERE run_id = %s ORDER BY recorded_at, link_id, number"  # noqa: S608
        return (AuditRecord(*row) for row in self._connection.rows("reading the audit", sql, (str(run_id),)))

    def withdrawals(self, project: str | None, limit: int, *, offset: int = 0) -> list[WithdrawalState]:
        """Return the withdrawals, newest first, of one project or of all that were not deleted."""
        rows = self._connection.query(
            "reading the withdrawals",
            "SELECT w.withdrawal_id::text, w.begun_at, w.state, p.name, e.body FROM withdrawal w "
            "JOIN project p USING (project_id) "
            "JOIN audit_event e ON e.run_id = w.withdrawal_id AND e.kind = 'withdrawal-begun' "
            "WHERE p.deleted_at IS NULL AND (%(project)s IS NULL OR p.name = %(project)s) "
            "ORDER BY w.begun_at DESC, w.withdrawal_id LIMIT %(limit)s OFFSET %(offset)s",
            {"project": project, "limit": limit, "offset": offset},
        )
        found = []
        for withdrawal_id, begun_at, state, project, text in rows:
            body = json.loads(text)
            how = {name: body[name] for name in ("person", "reason", "objects")}
            found.append(WithdrawalState(withdrawal_id, begun_at, state, project, **how))
        return found

    def erased(self, object_ids: Sequence[str]) -> set[str]:
        """Return the objects whose patient or project was erased: nothing leads to their source any more."""
        rows = self._connection.query(
            "reading the objects",
            "SELECT object_id::text FROM unnest(%s::uuid[]) w (object_id) "
            "WHERE NOT EXISTS (SELECT FROM processed_object d WHERE d.object_id = w.object_id)",
            (list(object_ids),),
        )
        return {object_id for (object_id,) in rows}

    def crosswalk_sizes(self) -> dict[str, dict[str, int]]:
        """Return how many pseudonyms each project has, by kind; no key is needed."""
        rows = self._connection.query(
            "counting pseudonyms",
            "SELECT p.name, m.kind, count(*) FROM mapping m JOIN project p USING (project_id) "
            "GROUP BY 1, 2 ORDER BY 1, 2",
        )
        sizes: dict[str, dict[str, int]] = {}
        for name, kind, count in rows:
            sizes.setdefault(name, {})[kind] = count
        return sizes

    def trace(self, projects: Sequence[Project], key: str) -> list[AuditRecord]:
        """Return every attempt at the objects of a key, the oldest first.

        Parameters
        ----------
        projects
            The projects that may hold the object.
        key
            A source key or a destination key, with or without its address before it (`s3://bucket/prefix/key`).
        """
        addresses = self._connection.query("tracing an object", "SELECT source_store, destination FROM work_scope")
        whole = _without(key, [store for store, _ in addresses]) + [prefix + key for prefix in self._source_prefixes()]
        hashes = [source_key_hash(project, each) for project in projects for each in dict.fromkeys(whole)]
        return self._records(
            "FROM audit WHERE object_id IN (SELECT object_id FROM processed_object "
            "WHERE key_hash = ANY (%(hashes)s::uuid[]) UNION ALL "
            "SELECT object_id FROM audit WHERE destination_key = ANY (%(keys)s)) "
            "ORDER BY recorded_at, link_id, number",
            hashes=hashes,
            keys=_without(key, [destination for _, destination in addresses]),
        )

    def of_identifier(self, projects: Sequence[Project], original: str) -> list[AuditRecord]:
        """Return the newest attempts at the objects of a patient, accession number, study, series or SOP instance.

        Parameters
        ----------
        projects
            The projects that may hold the objects; their keys hash the identifier.
        original
            The identifier as it is in the source. PHI.
        """
        value = normalised(original)
        hashes = {
            kind.name: [keyed_hash_of(project, kind, value) for project in projects]
            for kind in (IdentifierKind.UID, IdentifierKind.PATIENT_ID, IdentifierKind.ACCESSION_NUMBER)
        }
        return self._records(
            "FROM audit WHERE object_id IN (SELECT object_id FROM processed_object WHERE series_number IN ("
            "SELECT series_number FROM source_series WHERE project_id = ANY (%(projects)s) "
            "AND (study_hash = ANY (%(UID)s) OR series_hash = ANY (%(UID)s) OR patient_hash = ANY (%(PATIENT_ID)s) "
            "OR accession_hash = ANY (%(ACCESSION_NUMBER)s))) UNION SELECT object_id FROM processed_object "
            "WHERE instance_hash = ANY (%(instances)s::uuid[])) "
            "ORDER BY recorded_at DESC, link_id DESC, number DESC LIMIT 100",
            **hashes,
            projects=[project.project_id for project in projects],
            instances=[each[:16].hex() for each in hashes[IdentifierKind.UID.name]],
        )

    def is_written_for_another(self, destination: str, key: str, object_id: str) -> bool:
        """Return whether a destination key was written, or is being written, for another source object."""
        rows = self._connection.query(
            "looking at a conflict",
            "SELECT EXISTS (SELECT FROM audit WHERE destination_key = %(key)s AND destination = %(destination)s "
            "AND object_id <> %(object)s) OR EXISTS (SELECT FROM write_intent i JOIN processed_object o "
            "USING (scope_id, key_hash) JOIN work_scope s USING (scope_id) WHERE i.destination_key = %(key)s "
            "AND s.destination = %(destination)s AND o.object_id <> %(object)s)",
            {"key": key, "destination": destination, "object": object_id},
        )
        return bool(rows[0][0])

    def _source_prefixes(self) -> list[str]:
        """Return the prefixes of all runs' sources, to find an object by a key relative to one."""
        rows = self._connection.query("tracing", "SELECT DISTINCT request::jsonb ->> 'source' FROM run")
        return list({split_source(source)[1] for (source,) in rows})

    def _records(self, rest: str, **parameters: object) -> list[AuditRecord]:
        sql = f"SELECT {RECORD_COLUMNS} {rest}"
        return [AuditRecord(*row) for row in self._connection.query("reading the audit", sql, parameters)]


def source_keys(
    connection: DatabaseConnection,
    projects: Sequence[Project],
    records: Sequence[AuditRecord],
    record_access: Callable[[Project], None],
) -> dict[str, str]:
    """Return the whole source keys of audit rows by object id. They may name patients.

    Parameters
    ----------
    records
        The rows. Objects whose patient was erased have no key any more.
    record_access
        Called once per project before its keys are decrypted, so that the access is in the audit.
    """
    by_name = {project.name: project for project in projects}
    for name in sorted({record.project for record in records} & by_name.keys()):
        record_access(by_name[name])
    rows = connection.query(
        "reading source keys",
        "SELECT d.object_id::text, d.key_hash::text, d.encrypted_key, p.name FROM processed_object d "
        "JOIN work_scope s USING (scope_id) JOIN project p USING (project_id) WHERE d.object_id = ANY (%s::uuid[])",
        (list({record.object_id for record in records}),),
    )
    return {
        object_id: decrypt_source_key(by_name[name], key_hash, encrypted)
        for object_id, key_hash, encrypted, name in rows
        if name in by_name
    }


def _without(key: str, addresses: Sequence[str]) -> list[str]:
    """Return the key as given, and without each address that it begins with."""
    found = [key[len(address) :].lstrip("/") for address in addresses if key.startswith(address)]
    if key.startswith("s3://"):
        found.append(key.removeprefix("s3://").partition("/")[2])
    return list(dict.fromkeys([key, *found]))
