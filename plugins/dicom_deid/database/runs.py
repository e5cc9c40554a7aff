"""Runs: how they begin and end, and their totals."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from dicom_deid import __version__
from dicom_deid.database.ambiguous import count_ambiguous
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import EVENTS, links_of, record_event
from dicom_deid.database.locks import LOCK_CHAIN, SHARE_OBJECTS
from dicom_deid.database.projects import split_source
from dicom_deid.database.source_index import count_unfinished
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.reasons import Outcome, Reason

RunState = Literal["running", "succeeded", "failed", "cancelled", "abandoned"]

ABANDONED_HOURS = 24
"""A run that has no worker and has recorded nothing for so many hours is closed when the next run is planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The request of a run. Everything here is recorded in the audit: no secrets, no PHI.

    Parameters
    ----------
    project
        Name of the mapping's project.
    source, destination
        Addresses, as `s3://bucket/prefix` or `file:///...`.
    recipe_name, recipe_digest, settings_digest
        The rules; digests are SHA-256 as 64 hexadecimal digits.
    triggered_by, reason
        Who asked, and why.
    parameters, airflow_context
        Whatever else describes the run; JSON.
    external_id
        The caller's own id (for example Airflow's dag and run). A run begun again under the same id is the same run.
    work_digest
        Digest of recipe and settings without learned text layouts: an object that was done under the same is not done
        again. Empty where there are none.
    """

    project: str
    source: str
    destination: str
    recipe_name: str
    recipe_digest: str
    settings_digest: str
    triggered_by: str = ""
    reason: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    airflow_context: Mapping[str, object] = field(default_factory=dict)
    external_id: str | None = None
    work_digest: str = ""

    def to_json(self) -> str:
        """Return the request as JSON, its members in a fixed order."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunRequest:
        """Read the result of :meth:`to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as recorded in the database."""

    run_id: str
    request: RunRequest
    scope_id: int
    rules_id: int
    project_id: int
    state: RunState
    listed: int
    already_done: int
    planned: int
    planned_bytes: int
    archived: int
    archived_bytes: int
    started_at: datetime
    finished_at: datetime | None
    patients_of_several_issuers: int
    studies_of_several_patients: int

    @property
    def recorded_since(self) -> datetime:
        """An instant before which the audit has no row of the run, so that partitions of earlier months are skipped."""
        return self.started_at.replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def warnings(self) -> list[str]:
        """What the identifiers of its patients say of the source, as counts."""
        found = []
        if self.patients_of_several_issuers:
            found.append(
                f"{self.patients_of_several_issuers} PatientIDs have several issuers (IssuerOfPatientID) and are one "
                "patient each here. If these are different people, use a project with the patient key `id-and-issuer`."
            )
        if self.studies_of_several_patients:
            found.append(
                f"{self.studies_of_several_patients} studies have objects of several patients, which have different "
                "pseudonyms."
            )
        look_up = f" `dicom-deid crosswalk ambiguous --project {self.request.project}` lists their pseudonyms."
        return [f"{warning}{look_up}" for warning in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Totals of one run or of several; of an object that took several attempts the last one counts.

    Parameters
    ----------
    outcomes
        Objects by outcome.
    reasons
        Quarantined and failed objects by reason code.
    bytes_in, bytes_out
        Sizes of the source objects processed, and of the objects written.
    seconds
        From the beginning to the end (or now).
    working_seconds
        From the first batch that was taken to the last that was finished (or now); 0 if unknown.
    """

    outcomes: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    working_seconds: float = 0.0

    @property
    def objects(self) -> int:
        """Objects that have an outcome."""
        return sum(self.outcomes.values())

    @property
    def deidentified(self) -> int:
        """Objects that were written to the destination."""
        return self.outcomes.get(Outcome.DEIDENTIFIED, 0)

    @property
    def quarantined(self) -> int:
        """Objects that cannot be de-identified with certainty."""
        return self.outcomes.get(Outcome.QUARANTINED, 0)

    @property
    def failed(self) -> int:
        """Objects that the object store or the database failed for good."""
        return self.outcomes.get(Outcome.FAILED, 0)

    @property
    def objects_per_second(self) -> float:
        """Objects by seconds of the work, without planning and waiting for the first worker."""
        seconds = self.working_seconds or self.seconds
        return self.objects / seconds if seconds else 0.0

    @property
    def quarantine_ratio(self) -> float:
        """Quarantined objects among all that have an outcome and are not excluded, 0 to 1."""
        objects = self.objects - self.outcomes.get(Outcome.EXCLUDED, 0)
        return self.quarantined / objects if objects else 0.0

    @property
    def reason_counts(self) -> list[tuple[Reason, int]]:
        """Reasons with their numbers of objects, the most frequent first."""
        return sorted(
            ((Reason(code), count) for code, count in self.reasons.items()), key=lambda each: (-each[1], each[0])
        )

    @staticmethod
    def sum(totals: Sequence[Totals]) -> Totals:
        """Add up the totals of several runs."""
        outcomes: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for each in totals:
            outcomes.update(each.outcomes)
            reasons.update(each.reasons)
        return Totals(
            outcomes=outcomes,
            reasons=reasons,
            bytes_in=sum(each.bytes_in for each in totals),
            bytes_out=sum(each.bytes_out for each in totals),
            seconds=sum(each.seconds for each in totals),
            working_seconds=sum(each.working_seconds for each in totals),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport(Totals):
    """Totals of one run, with what is still to be done.

    Parameters
    ----------
    open
        Planned objects without an outcome.
    left_to_other_runs
        Planned objects that another run is processing.
    done_by_other_runs
        Planned objects that another run has done meanwhile, under the same rules.
    lacking_terms
        Objects from this source at this destination that were written before a name or an identifier of their patient
        was known; the next run processes them again.
    deleted_sources
        Objects at this destination whose source object was gone when a whole listing was last planned.
    attempts
        Audit rows.
    object_seconds
        Time spent on objects, summed over all workers.
    audit_head
        Counter and newest hash of the audit's events. Kept elsewhere, it later proves that no event was deleted.
    archived, archived_bytes
        Objects in archive tiers, by the listing or found when they were read, and their sizes summed.
    """

    run: Run
    open: int = 0
    left_to_other_runs: int = 0
    done_by_other_runs: int = 0
    lacking_terms: int = 0
    deleted_sources: int = 0
    attempts: int = 0
    object_seconds: float = 0.0
    audit_head: str = ""
    archived: int = 0
    archived_bytes: int = 0


_RUN = (
    "SELECT r.run_id::text, r.request, r.scope_id, r.rules_id, s.project_id, r.state, r.listed, r.already_done, "
    "r.planned, r.planned_bytes, r.archived, r.archived_bytes, r.started_at, r.finished_at, "
    "r.patients_of_several_issuers, r.studies_of_several_patients FROM run r JOIN work_scope s USING (scope_id) "
)


def _run(row: tuple[Any, ...]) -> Run:
    values: dict[str, Any] = dict(zip(Run.__dataclass_fields__, row, strict=True))
    return Run(**values | {"request": RunRequest.from_json(values["request"])})


def find_run(connection: DatabaseConnection, run_id: str) -> Run:
    """Return one run.

    Raises
    ------
    ConfigurationError
        There is none of that id.
    """
    try:
        rows = connection.query("reading the run", _RUN + "WHERE r.run_id = %s", (str(uuid.UUID(run_id)),))
    except ValueError:
        rows = []
    if not rows:
        raise ConfigurationError("There is no run of that id in this database and schema.")
    return _run(rows[0])


def find_request(connection: DatabaseConnection, external_id: str) -> RunRequest | None:
    """Return the request of the run of an external id, or None if there is no such run."""
    rows = connection.query("reading the run", "SELECT request FROM run WHERE external_id = %s", (external_id,))
    return RunRequest.from_json(rows[0][0]) if rows else None


def list_runs(
    connection: DatabaseConnection,
    limit: int = 100,
    project: str | None = None,
    *,
    state: str | None = None,
    offset: int = 0,
) -> list[Run]:
    """Return the newest runs, newest first, of one project or of all, in one state or in any."""
    rows = connection.query(
        "reading the runs",
        _RUN + "JOIN project p USING (project_id) WHERE (%(project)s IS NULL OR p.name = %(project)s) "
        "AND (%(state)s IS NULL OR r.state = %(state)s) ORDER BY r.run_number DESC LIMIT %(limit)s OFFSET %(offset)s",
        {"project": project, "state": state, "limit": limit, "offset": offset},
    )
    return [_run(row) for row in rows]


def start_run(connection: DatabaseConnection, chain_key: bytes, project_id: int, request: RunRequest) -> str:
    """Begin a run, or continue the one that has the same external id, and return its id.

    Raises
    ------
    ConfigurationError
        The run of that external id was asked to do something else.
    """
    doing = "beginning the run"
    with connection.transaction(doing):
        scope_id, rules_id = _scope(connection, project_id, request)
        if request.external_id is not None:
            lock = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' run ' || %s, 0))"
            connection.query(doing, lock, (request.external_id,))
            rows = connection.query(
                doing,
                "SELECT run_id::text, scope_id, rules_id, request FROM run WHERE external_id = %s",
                (request.external_id,),
            )
            if rows:
                same = (
                    rows[0][1:3] == (scope_id, rules_id) and RunRequest.from_json(rows[0][3]).source == request.source
                )
                return _continue(connection, rows[0][0], same=same)
        run_id = str(uuid.uuid4())
        connection.query(
            doing,
            "INSERT INTO run (run_id, scope_id, rules_id, external_id, request) VALUES (%s, %s, %s, %s, %s)",
            (run_id, scope_id, rules_id, request.external_id, request.to_json()),
        )
        record_event(connection, chain_key, "run-begun", asdict(request), run_id=run_id, project=request.project)
    return run_id


def _continue(connection: DatabaseConnection, run_id: str, *, same: bool) -> str:
    if not same:
        raise ConfigurationError(
            "The run of this external id has another source, destination, recipe or settings; begin a new run."
        )
    connection.query(
        "continuing the run", "UPDATE run SET state = 'running', finished_at = NULL WHERE run_id = %s", (run_id,)
    )
    return run_id


def _scope(connection: DatabaseConnection, project_id: int, request: RunRequest) -> tuple[int, int]:
    values = {
        "project": project_id,
        "store": split_source(request.source)[0],
        "destination": request.destination,
        "recipe": request.recipe_digest,
        "settings": request.settings_digest,
        "work": request.work_digest or f"{request.recipe_digest} {request.settings_digest}",
    }
    rows = connection.query(
        "beginning the run",
        "INSERT INTO work_scope (project_id, source_store, destination) "
        "VALUES (%(project)s, %(store)s, %(destination)s) ON CONFLICT DO NOTHING; "
        "INSERT INTO rules (recipe_digest, settings_digest, work_digest) "
        "VALUES (%(recipe)s, %(settings)s, %(work)s) ON CONFLICT DO NOTHING; "
        "SELECT scope_id, rules_id FROM work_scope, rules WHERE project_id = %(project)s AND source_store = %(store)s "
        "AND destination = %(destination)s AND recipe_digest = %(recipe)s AND settings_digest = %(settings)s",
        values,
    )
    return int(rows[0][0]), int(rows[0][1])


IS_DONE = """(d.outcome IS NOT NULL AND d.etag = i.etag AND d.version_id IS NOT DISTINCT FROM i.version_id
    AND CASE WHEN d.selection IS NOT NULL THEN d.selection = %(selection)s ELSE d.rules_id = ANY (%(same_work)s) END
    AND NOT d.lacks_terms AND NOT (d.outcome = 'quarantined' AND
        (%(retry)s OR d.reason = 'internal-error' AND d.package_version <> %(package)s)))"""
"""SQL condition: the processed object `d` is this version of the item `i`, and needs no work under the same rules.

Objects that criteria excluded depend on the criteria alone.
"""

SETTLE_DONE = f"""
SELECT FROM batch WHERE run_id = %(run)s AND (%(batch)s IS NULL OR batch_id = %(batch)s) ORDER BY batch_id FOR UPDATE;
{SHARE_OBJECTS}
UPDATE batch_item i SET outcome = 'done' FROM batch b, processed_object d
WHERE b.run_id = %(run)s AND (%(batch)s IS NULL OR b.batch_id = %(batch)s) AND i.batch_id = b.batch_id
  AND (i.outcome IS NULL OR i.outcome IN ('failed', 'left'))
  AND d.scope_id = b.scope_id AND d.key_hash = i.key_hash AND {IS_DONE};
"""  # noqa: S608 - constants
"""Mark items that another run has done meanwhile."""


def done_parameters(connection: DatabaseConnection, run: Run) -> dict[str, object]:
    """Return the parameters of :data:`IS_DONE` for a run that is planned."""
    rows = connection.query(
        "reading the run",
        "SELECT retry_quarantined, selection, ARRAY(SELECT o.rules_id FROM rules r JOIN rules o USING (work_digest) "
        "WHERE r.rules_id = run.rules_id) FROM run WHERE run_id = %s",
        (run.run_id,),
    )
    retry, selection, same_work = rows[0]
    return {
        "rules": run.rules_id,
        "same_work": same_work,
        "retry": retry,
        "selection": selection,
        "package": __version__,
    }


def finish_run(connection: DatabaseConnection, chain_key: bytes, run_id: str, state: RunState) -> None:
    """End a run: its totals and the end of its chain go into the audit."""
    doing = "finishing the run"
    run = find_run(connection, run_id)
    parameters = {"run": run_id, "batch": None, "project": run.project_id, **done_parameters(connection, run)}
    connection.query(doing, SETTLE_DONE, parameters)
    count_unfinished(connection, run_id)
    ambiguous = count_ambiguous(connection, run_id, run.project_id)
    report = report_run(connection, run_id)
    with connection.transaction(doing):
        connection.query(doing, LOCK_CHAIN, {"chain": links_of(run.request.project)})
        body = {
            "state": state,
            **chain_end(connection, run_id),
            "attempts": report.attempts,
            "outcomes": dict(report.outcomes),
            "reasons": dict(report.reasons),
            "bytes_in": report.bytes_in,
            "bytes_out": report.bytes_out,
            "archived": report.archived,
            "archived_bytes": report.archived_bytes,
            "working_seconds": report.working_seconds,
            "listed": run.listed,
            "already_done": run.already_done,
            "planned": run.planned,
            **ambiguous,
        }
        record_event(connection, chain_key, "run-finished", body, run_id=run_id, project=run.request.project)
        connection.query(
            doing,
            "UPDATE run SET state = %(state)s, finished_at = clock_timestamp(), "
            "patients_of_several_issuers = %(patients_of_several_issuers)s, "
            "studies_of_several_patients = %(studies_of_several_patients)s WHERE run_id = %(run)s",
            {"run": run_id, "state": state, **ambiguous},
        )


def chain_end(connection: DatabaseConnection, run_id: str) -> dict[str, object]:
    """Return the number of links of a run and the newest hash, for the event that ends it."""
    rows = connection.query(
        "finishing the run",
        "SELECT position, hash FROM audit_link WHERE run_id = %s ORDER BY position DESC LIMIT 1",
        (run_id,),
    )
    return {"links": int(rows[0][0]), "last_link": bytes(rows[0][1]).hex()} if rows else {"links": 0, "last_link": ""}


def record_approval(
    connection: DatabaseConnection, chain_key: bytes, run: Run, release_to: str, person: str, reason: str
) -> None:
    """Record that a person approved the release of a run to a place.

    Raises
    ------
    ConfigurationError
        The person requested the run: another one has to approve it.
    """
    if run.request.triggered_by and run.request.triggered_by == person:
        raise ConfigurationError("The person who requested a run cannot approve its release: ask a second person.")
    body = {"person": person, "reason": reason, "release_to": release_to}
    record_event(connection, chain_key, "release-approved", body, run_id=run.run_id, project=run.request.project)


def record_release(
    connection: DatabaseConnection, chain_key: bytes, run: Run, release_to: str, objects: int, person: str
) -> None:
    """Record that the objects of a run are copied to a place: before the first copy with 0 objects, then their number.

    The copies themselves are in `released_copy`: see :mod:`dicom_deid.database.released`.
    """
    kind = "release-finished" if objects else "release-begun"
    body = {"person": person, "release_to": release_to, "objects": objects}
    record_event(connection, chain_key, kind, body, run_id=run.run_id, project=run.request.project)


IS_HELD = """
EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid::bigint = hashtext(current_schema() || ' batch')::bigint & 4294967295
        AND l.objid::bigint = b.batch_id %% 2147483647)
"""
"""Condition on batch `b` that is true while the session of the worker that has leased it is connected."""

_ABANDONED = """
SELECT r.run_id::text FROM run r WHERE r.state = 'running' AND (%(scope)s IS NULL OR r.scope_id = %(scope)s)
AND r.run_id IS DISTINCT FROM %(but)s AND r.started_at < clock_timestamp() - make_interval(hours => %(hours)s)
AND NOT EXISTS (SELECT FROM batch b WHERE b.run_id = r.run_id AND b.expires_at > clock_timestamp())
AND NOT EXISTS (SELECT FROM audit_link l WHERE l.run_id = r.run_id
                AND l.recorded_at > clock_timestamp() - make_interval(hours => %(hours)s))
ORDER BY r.run_number
"""


def close_abandoned(
    connection: DatabaseConnection,
    chain_key: bytes,
    *,
    scope_id: int | None = None,
    but: str | None = None,
    hours: int = ABANDONED_HOURS,
) -> list[str]:
    """End runs that nothing works on, as `abandoned`, and return their ids.

    Parameters
    ----------
    scope_id
        Only runs over the same source and destination.
    but
        The id of a run that is left alone.
    hours
        For how long a run must have recorded nothing.
    """
    parameters = {"scope": scope_id, "but": but, "hours": hours}
    found = [run_id for (run_id,) in connection.query("looking for abandoned runs", _ABANDONED, parameters)]
    for run_id in found:
        finish_run(connection, chain_key, run_id, "abandoned")
    return found


_TOTALS = """
SELECT outcome, CASE WHEN outcome IN ('quarantined', 'failed') THEN reason END, count(*), sum(source_size)::bigint,
       coalesce(sum(destination_size), 0)::bigint FROM last_attempts(ARRAY[%(run)s]::uuid[], %(since)s) GROUP BY 1, 2
"""

_EFFORT = """
SELECT count(*), coalesce(sum(milliseconds), 0)::bigint FROM audit WHERE run_id = %(run)s AND recorded_at >= %(since)s
"""

_REMAINING = """
SELECT count(*) FILTER (WHERE i.outcome IS NULL), count(*) FILTER (WHERE i.outcome = 'left'),
       count(*) FILTER (WHERE i.outcome = 'done'),
       (SELECT extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float FROM run
        WHERE run_id = %(run)s),
       (SELECT counter || ':' || encode(hash, 'hex') FROM chain_head WHERE chain = %(events)s),
       (SELECT count(*) FROM processed_object WHERE scope_id = %(scope)s AND lacks_terms),
       (SELECT count(*) FROM processed_object WHERE scope_id = %(scope)s AND source_deleted_at IS NOT NULL
        AND destination_key IS NOT NULL)
FROM batch b JOIN batch_item i USING (batch_id) WHERE b.run_id = %(run)s
"""


def _working_seconds(connection: DatabaseConnection, run_id: str) -> float:
    rows = connection.query(
        "adding up the run",
        "SELECT extract(epoch FROM max(coalesce(finished_at, clock_timestamp())) - min(started_at))::float8 "
        "FROM batch WHERE run_id = %s AND started_at IS NOT NULL",
        (run_id,),
    )
    return float(rows[0][0] or 0)


def report_run(connection: DatabaseConnection, run_id: str) -> RunReport:
    """Return the totals of a run, from the audit."""
    run = find_run(connection, run_id)
    parameters = {"run": run.run_id, "since": run.recorded_since, "events": EVENTS, "scope": run.scope_id}
    totals = connection.query("adding up the run", _TOTALS, parameters)
    attempts, milliseconds = connection.query("adding up the run", _EFFORT, parameters)[0]
    rows = connection.query("adding up the run", _REMAINING, parameters)
    remaining, left, done, seconds, head, lacking, deleted = rows[0]
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for outcome, reason, count, _, _ in totals:
        outcomes[outcome] += count
        if reason is not None:
            reasons[reason] += count
    return RunReport(
        run=run,
        outcomes=dict(outcomes),
        reasons=dict(reasons),
        open=remaining,
        left_to_other_runs=left,
        done_by_other_runs=done,
        lacking_terms=lacking,
        deleted_sources=deleted,
        bytes_in=sum(row[3] for row in totals if row[0] != Outcome.ARCHIVED),
        bytes_out=sum(row[4] for row in totals),
        attempts=attempts,
        object_seconds=milliseconds / 1000,
        seconds=seconds,
        working_seconds=_working_seconds(connection, run.run_id),
        audit_head=head,
        archived=run.archived + outcomes[Outcome.ARCHIVED],
        archived_bytes=run.archived_bytes + sum(row[3] for row in totals if row[0] == Outcome.ARCHIVED),
    )
