"""Runs: begun, finished, and told as totals."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import record_event
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject

RunState = Literal["running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a run is asked to do. Everything here is recorded in the audit: no secrets, no PHI.

    Parameters
    ----------
    project
        Name of the mapping's project.
    source, destination
        Addresses, as `s3://bucket/prefix` or `file:///...`. Together with project and digests they say what counts as
        the same work.
    recipe_name, recipe_digest, settings_digest
        The rules; digests are SHA-256 as 64 hexadecimal digits.
    triggered_by, reason
        Who asked, and why.
    parameters, airflow
        Whatever else describes the run; JSON.
    external_id
        The caller's own id (for example Airflow's dag and run). A run begun again under the same id is the same run.
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
    airflow: Mapping[str, object] = field(default_factory=dict)
    external_id: str | None = None

    def to_json(self) -> str:
        """Return the request as JSON, its members in a fixed order."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunRequest:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it stands."""

    run_id: str
    request: RunRequest
    scope_id: int
    project_id: int
    state: RunState
    listed: int
    already_done: int
    planned: int
    planned_bytes: int
    started_at: datetime
    finished_at: datetime | None

    @property
    def recorded_since(self) -> datetime:
        """An instant before which the audit has no row of the run, for partitions of months before to be left out.

        Clocks of workers and server differ a little: it is the beginning of the day.
        """
        return self.started_at.replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Totals of a run; of an object that took several attempts the last counts.

    Parameters
    ----------
    outcomes
        Objects by outcome.
    reasons
        Quarantined and failed objects by reason code.
    open
        Planned objects of which nothing is recorded yet.
    left_to_other_runs
        Planned objects that another run had in hand at the same time.
    bytes_in, bytes_out
        Sizes of the source objects dealt with, and of the objects written.
    attempts
        Audit rows.
    object_seconds
        Time spent on objects, summed over all workers.
    seconds
        From the run's beginning to its end (or now).
    """

    run: Run
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    open: int
    left_to_other_runs: int
    bytes_in: int
    bytes_out: int
    attempts: int
    object_seconds: float
    seconds: float

    @property
    def objects(self) -> int:
        """Objects of which the outcome is recorded."""
        return sum(self.outcomes.values())

    @property
    def quarantine_ratio(self) -> float:
        """Quarantined objects among all that have an outcome and are not excluded, 0 to 1."""
        objects = self.objects - self.outcomes.get("excluded", 0)
        return self.outcomes.get("quarantined", 0) / objects if objects else 0.0


_LOCK_CHAIN = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' chain ' || %s, 0))"

_RUN = (
    "SELECT r.run_id::text, r.request, r.scope_id, s.project_id, r.state, r.listed, r.already_done, r.planned, "
    "r.planned_bytes, r.started_at, r.finished_at FROM run r JOIN work_scope s USING (scope_id) "
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


def list_runs(connection: DatabaseConnection, limit: int = 100, project: str | None = None) -> list[Run]:
    """Return the newest runs, newest first, of one project or of all."""
    rows = connection.query(
        "reading the runs",
        _RUN + "JOIN project p USING (project_id) WHERE %(project)s IS NULL OR p.name = %(project)s "
        "ORDER BY r.run_number DESC LIMIT %(limit)s",
        {"project": project, "limit": limit},
    )
    return [_run(row) for row in rows]


def start_run(connection: DatabaseConnection, chain_key: bytes, project_id: int, request: RunRequest) -> str:
    """Begin a run, or go on with the one that has the same external id, and return its id.

    Raises
    ------
    ConfigurationError
        The run of that external id was asked to do something else.
    """
    doing = "beginning the run"
    with connection.transaction(doing):
        scope_id = _scope(connection, project_id, request)
        if request.external_id is not None:
            lock = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' run ' || %s, 0))"
            connection.query(doing, lock, (request.external_id,))
            rows = connection.query(
                doing, "SELECT run_id::text, scope_id FROM run WHERE external_id = %s", (request.external_id,)
            )
            if rows:
                return _go_on(connection, rows[0][0], rows[0][1], scope_id)
        run_id = str(uuid.uuid4())
        connection.query(
            doing,
            "INSERT INTO run (run_id, scope_id, external_id, request) VALUES (%s, %s, %s, %s)",
            (run_id, scope_id, request.external_id, request.to_json()),
        )
        record_event(connection, chain_key, "run-begun", asdict(request), run_id=run_id, project=request.project)
    return run_id


def _go_on(connection: DatabaseConnection, run_id: str, its_scope: int, scope_id: int) -> str:
    if its_scope != scope_id:
        raise ConfigurationError(
            "The run of this external id has another source, destination, recipe or settings; begin a new run."
        )
    connection.query(
        "going on with the run", "UPDATE run SET state = 'running', finished_at = NULL WHERE run_id = %s", (run_id,)
    )
    return run_id


def _scope(connection: DatabaseConnection, project_id: int, request: RunRequest) -> int:
    values = (project_id, request.source, request.destination, request.recipe_digest, request.settings_digest)
    rows = connection.query(
        "beginning the run",
        "INSERT INTO work_scope (project_id, source, destination, recipe_digest, settings_digest) "
        "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING; "
        "SELECT scope_id FROM work_scope WHERE project_id = %s AND source = %s AND destination = %s "
        "AND recipe_digest = %s AND settings_digest = %s",
        values + values,
    )
    return int(rows[0][0])


def finish_run(connection: DatabaseConnection, chain_key: bytes, run_id: str, state: RunState) -> None:
    """End a run: its totals and the end of its chain go into the audit."""
    doing = "finishing the run"
    report = report_run(connection, run_id)
    with connection.transaction(doing):
        connection.query(doing, _LOCK_CHAIN, (run_id,))
        rows = connection.query(
            doing, "SELECT position, hash FROM audit_link WHERE run_id = %s ORDER BY position DESC LIMIT 1", (run_id,)
        )
        position, last = (int(rows[0][0]), bytes(rows[0][1]).hex()) if rows else (0, "")
        body = {
            "state": state,
            "links": position,
            "last_link": last,
            "attempts": report.attempts,
            "outcomes": dict(report.outcomes),
            "reasons": dict(report.reasons),
            "bytes_in": report.bytes_in,
            "bytes_out": report.bytes_out,
            "listed": report.run.listed,
            "already_done": report.run.already_done,
            "planned": report.run.planned,
        }
        record_event(connection, chain_key, "run-finished", body, run_id=run_id, project=report.run.request.project)
        connection.query(
            doing, "UPDATE run SET state = %s, finished_at = clock_timestamp() WHERE run_id = %s", (state, run_id)
        )


_TOTALS = """
WITH last AS (
    SELECT DISTINCT ON (batch_id, item) outcome, reason, source_size, destination_size
    FROM audit WHERE run_id = %(run)s AND recorded_at >= %(since)s
    ORDER BY batch_id, item, attempt DESC, link_id DESC, number DESC
)
SELECT outcome, CASE WHEN outcome IN ('quarantined', 'failed') THEN reason END, count(*), sum(source_size)::bigint,
       coalesce(sum(destination_size), 0)::bigint FROM last GROUP BY 1, 2
"""

_EFFORT = """
SELECT count(*), coalesce(sum(milliseconds), 0)::bigint FROM audit WHERE run_id = %(run)s AND recorded_at >= %(since)s
"""

_REMAINING = """
SELECT count(*) FILTER (WHERE i.outcome IS NULL), count(*) FILTER (WHERE i.outcome = 'left')
FROM batch b JOIN batch_item i USING (batch_id) WHERE b.run_id = %(run)s
"""


_WRITTEN = """
SELECT destination_key, destination_size, destination_etag, recorded_at FROM (
    SELECT DISTINCT ON (batch_id, item) outcome, destination_key, destination_size, destination_etag, recorded_at
    FROM audit WHERE run_id = %(run)s AND recorded_at >= %(since)s
    ORDER BY batch_id, item, attempt DESC, link_id DESC
) last WHERE outcome = 'deidentified'
"""


def written_objects(connection: DatabaseConnection, run_id: str) -> list[SourceObject]:
    """Return the objects that a run wrote, as the audit records them."""
    parameters = {"run": run_id, "since": find_run(connection, run_id).recorded_since}
    return [SourceObject(*row) for row in connection.query("reading what was written", _WRITTEN, parameters)]


def report_run(connection: DatabaseConnection, run_id: str) -> RunReport:
    """Return the totals of a run, from the audit."""
    run = find_run(connection, run_id)
    parameters = {"run": run.run_id, "since": run.recorded_since}
    totals = connection.query("adding up the run", _TOTALS, parameters)
    attempts, milliseconds = connection.query("adding up the run", _EFFORT, parameters)[0]
    remaining, left = connection.query("adding up the run", _REMAINING, parameters)[0]
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
        bytes_in=sum(row[3] for row in totals),
        bytes_out=sum(row[4] for row in totals),
        attempts=attempts,
        object_seconds=milliseconds / 1000,
        seconds=((run.finished_at or datetime.now(UTC)) - run.started_at).total_seconds(),
    )
