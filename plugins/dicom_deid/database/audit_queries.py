"""What the pages ask of the store: never an original value or a source key, only keyed digests of keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from dicom_deid.database import Database
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.runs import Run, find_run, list_runs, report_run
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.reasons import Outcome, Reason


@dataclass(frozen=True, slots=True)
class Totals:
    """What has become of the objects of one run, or of several, so far."""

    outcomes: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    seconds: float = 0.0

    @property
    def deidentified(self) -> int:
        """Objects that stand at the destination."""
        return self.outcomes.get(Outcome.DEIDENTIFIED, 0)

    @property
    def quarantined(self) -> int:
        """Objects that cannot be de-identified for certain."""
        return self.outcomes.get(Outcome.QUARANTINED, 0)

    @property
    def failed(self) -> int:
        """Objects that storage or database failed for good."""
        return self.outcomes.get(Outcome.FAILED, 0)

    @property
    def objects(self) -> int:
        """Objects that have an outcome."""
        return sum(self.outcomes.values())

    @property
    def objects_per_second(self) -> float:
        """Objects by seconds of the run, planning included."""
        return self.objects / self.seconds if self.seconds else 0.0

    @property
    def reason_counts(self) -> list[tuple[Reason, int]]:
        """Reasons with their numbers of objects, the most frequent first."""
        return sorted(
            ((Reason(code), count) for code, count in self.reasons.items()), key=lambda each: (-each[1], each[0])
        )


class AuditRecord(NamedTuple):
    """One attempt at one object."""

    recorded_at: datetime
    run_id: UUID
    project: str
    key_hash: UUID
    source_size: int
    destination: str
    destination_key: str | None
    destination_size: int | None
    outcome: str
    reason: str | None
    detail: str
    sop_class_uid: str | None
    transfer_syntax_uid: str | None
    modality: str | None
    actions: str
    notes: str
    milliseconds: int
    attempt: int
    sha256_in: str | None
    sha256_out: str | None
    recipe_digest: str
    link_id: int
    number: int


class BatchState(NamedTuple):
    """How many batches of a run are in one state."""

    state: str
    batches: int
    objects: int


_ENTRY = """
SELECT recorded_at, run_id::text, project, key_hash::text, source_size, destination, destination_key, destination_size,
       outcome, reason, detail, sop_class_uid, transfer_syntax_uid, modality, actions, notes, milliseconds, attempt,
       encode(sha256_in, 'hex'), encode(sha256_out, 'hex'), encode(recipe_digest, 'hex'), link_id, number
"""


class Queries:
    """The questions of the pages, over one connection.

    Parameters
    ----------
    database
        A connection whose role may read the audit and the plan.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        self._database = connection

    def runs(self, project: str | None = None, limit: int = 50) -> list[Run]:
        """Return the newest runs, newest first."""
        return list_runs(self._database, limit, project)

    def run(self, run_id: UUID) -> Run | None:
        """Return one run, or None."""
        try:
            return find_run(self._database, str(run_id))
        except ConfigurationError:
            return None

    def totals(self, runs: Sequence[Run]) -> dict[str, Totals]:
        """Return the totals of runs by their ids.

        What a finished run recorded at its end costs a row; a running one is added up from its audit rows.
        """
        rows = self._database.query(
            "reading finished runs",
            "SELECT DISTINCT ON (run_id) run_id::text, body FROM audit_event "
            "WHERE kind = 'run-finished' AND run_id = ANY(%s::uuid[]) ORDER BY run_id, event_id DESC",
            ([run.run_id for run in runs],),
        )
        recorded = {run_id: json.loads(body) for run_id, body in rows}
        return {run.run_id: self._totals(run, recorded.get(run.run_id)) for run in runs}

    def _totals(self, run: Run, recorded: Mapping[str, object] | None) -> Totals:
        if recorded is None or run.finished_at is None:
            report = report_run(self._database, run.run_id)
            return Totals(report.outcomes, report.reasons, report.bytes_in, report.seconds)
        seconds = (run.finished_at - run.started_at).total_seconds()
        return Totals(recorded["outcomes"], recorded["reasons"], recorded["bytes_in"], seconds)  # type: ignore[arg-type]

    def batches(self, run_id: UUID) -> list[BatchState]:
        """Return the states of a run's batches."""
        rows = self._database.query(
            "reading batches",
            "SELECT state, count(*), sum(objects)::bigint FROM batch WHERE run_id = %s GROUP BY state ORDER BY state",
            (str(run_id),),
        )
        return [BatchState(*row) for row in rows]

    def quarantined(self, runs: Sequence[Run], reason: Reason | None = None, limit: int = 200) -> list[AuditRecord]:
        """Return objects of some runs whose last attempt was quarantined or failed, newest first."""
        if not runs:
            return []
        rows = self._database.query(
            "reading quarantined objects",
            f"""WITH last AS (
                SELECT DISTINCT ON (run_id, batch_id, item) * FROM audit
                WHERE run_id = ANY(%(runs)s::uuid[]) AND recorded_at >= %(since)s
                ORDER BY run_id, batch_id, item, attempt DESC, recorded_at DESC
            )
            {_ENTRY} FROM last
            WHERE outcome IN ('quarantined', 'failed') AND (%(reason)s IS NULL OR reason = %(reason)s)
            ORDER BY recorded_at DESC, item LIMIT %(limit)s""",  # noqa: S608 - our own words
            {
                "runs": [run.run_id for run in runs],
                "since": min(run.recorded_since for run in runs),
                "reason": reason,
                "limit": limit,
            },
        )
        return [_entry(row) for row in rows]

    def written(self, run: Run, limit: int = 5) -> list[AuditRecord]:
        """Return the objects that a run has de-identified last."""
        rows = self._database.query(
            "reading objects of a run",
            f"{_ENTRY} FROM audit WHERE run_id = %s AND recorded_at >= %s AND outcome = 'deidentified' "
            "ORDER BY link_id DESC, number DESC LIMIT %s",
            (run.run_id, run.recorded_since, limit),
        )
        return [_entry(row) for row in rows]

    def history(self, *, key_hash: UUID | None = None, destination_key: str | None = None) -> list[AuditRecord]:
        """Return the attempts at an object, by the digest of its source key or by its destination key."""
        if key_hash is not None:
            where, value = "key_hash = %s", str(key_hash)
        else:
            where, value = "key_hash IN (SELECT key_hash FROM audit WHERE destination_key = %s)", str(destination_key)
        rows = self._database.query(
            "reading an object's history",
            f"{_ENTRY} FROM audit WHERE {where} ORDER BY recorded_at DESC LIMIT 100",
            (value,),
        )
        return [_entry(row) for row in rows]

    def crosswalk_sizes(self) -> dict[str, dict[str, int]]:
        """Return the number of pseudonyms by project and kind."""
        return Database(self._database).crosswalk_sizes()


def together(totals: Sequence[Totals]) -> Totals:
    """Add up the totals of several runs."""
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for each in totals:
        outcomes.update(each.outcomes)
        reasons.update(each.reasons)
    return Totals(outcomes, reasons, sum(each.bytes_in for each in totals), sum(each.seconds for each in totals))


def _entry(row: tuple[object, ...]) -> AuditRecord:
    values = list(row)
    values[1], values[3] = UUID(str(row[1])), UUID(str(row[3]))
    return AuditRecord(*values)  # type: ignore[arg-type]
