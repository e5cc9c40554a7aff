"""The store: one object through which everything else reaches PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from dicom_deid.database import runs, schema
from dicom_deid.database.connection import DEFAULT_SCHEMA, DatabaseConnection
from dicom_deid.database.crosswalk import AccessReason, Crosswalk
from dicom_deid.database.crosswalk_import import Importer
from dicom_deid.database.export import export_audit
from dicom_deid.database.hash_chain import chain_key, record_event
from dicom_deid.database.keys import KeyRing
from dicom_deid.database.leases import Lease
from dicom_deid.database.mapping import Mapping
from dicom_deid.database.plan import PlanLimits, Planner, PlanSummary, prune
from dicom_deid.database.projects import Project, ProjectOptions, open_project
from dicom_deid.database.rotation import rotate
from dicom_deid.database.runs import Run, RunReport, RunRequest, RunState
from dicom_deid.database.trace import AuditRecord, trace
from dicom_deid.database.verify import Verification, verify
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject


class Database:
    """Projects, mapping, plan and audit in one schema of one PostgreSQL database.

    A store owns one connection, which threads of one process may share; processes have their own. The connection is
    made when it is first needed, and again after it was lost.

    Parameters
    ----------
    database
        The connection.
    keys
        The key ring; everything but the schema, the list of runs and their reports needs it.
    """

    def __init__(self, connection: DatabaseConnection, keys: KeyRing | None = None) -> None:
        self.connection = connection
        self._keys = keys
        self._projects: dict[str, Project] = {}

    @classmethod
    def connect(cls, url: str, *, schema: str = DEFAULT_SCHEMA, keys: KeyRing | None = None) -> Database:
        """Connect.

        Parameters
        ----------
        url
            A libpq connection string, `postgresql://user:password@host:port/database?sslmode=verify-full`; all of
            libpq's settings are honoured.
        schema
            The schema that holds (or will hold) the tables.
        keys
            The key ring.

        Raises
        ------
        ConnectionLost, ConfigurationError
            PostgreSQL cannot be reached, or refuses the login.
        """
        store = cls(DatabaseConnection(url, schema), keys)
        store.connection.connect()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Batches that were leased through it are free at once."""
        self.connection.close()

    @property
    def keys(self) -> KeyRing:
        """The key ring.

        Raises
        ------
        ConfigurationError
            The store was opened without one.
        """
        if self._keys is None:
            raise ConfigurationError(
                "The crosswalk's keys are needed: set DICOM_DEID_KEYS, or the keys of the Airflow connection."
            )
        return self._keys

    @cached_property
    def chain_key(self) -> bytes:
        """The secret of the audit's hash chains."""
        return chain_key(self.connection, self.keys)

    def upgrade(self) -> None:
        """Bring the schema to this version's; at once when it is there, safe for several at a time."""
        schema.upgrade(self.connection)

    def project(self, name: str, options: ProjectOptions | None = None, *, create: bool = True) -> Project:
        """Return the project of that name, made with `options` (or the defaults) on first use.

        With `create=False` a project that does not stand is an error.

        Raises
        ------
        ConfigurationError
            It stands with other options than those given, or the key ring does not open its secret.
        """
        if name not in self._projects or options is not None:
            self._projects[name] = open_project(self.connection, self.keys, name, options, create=create)
        return self._projects[name]

    def mapping(self, project: Project) -> Mapping:
        """Return the mapping of a project, with a cache of its own."""
        return Mapping(self.connection, self.keys, project)

    def start_run(self, request: RunRequest) -> str:
        """Begin a run (or go on with the one of the same `external_id`) and return its id.

        The run's project must stand already: see :meth:`project`.
        """
        project = self._existing(request.project)
        return runs.start_run(self.connection, self.chain_key, project.project_id, request)

    def finish_run(self, run_id: str, state: RunState) -> None:
        """End a run; its totals go into the audit."""
        runs.finish_run(self.connection, self.chain_key, run_id, state)

    def run(self, run_id: str) -> Run:
        """Return a run as it stands."""
        return runs.find_run(self.connection, run_id)

    def runs(self, limit: int = 100, project: str | None = None) -> list[Run]:
        """Return the newest runs, newest first."""
        return runs.list_runs(self.connection, limit, project)

    def report(self, run_id: str) -> RunReport:
        """Return the totals of a run, at any time."""
        return runs.report_run(self.connection, run_id)

    def written_objects(self, run_id: str) -> list[SourceObject]:
        """Return the objects that a run wrote, as the audit records them."""
        return runs.written_objects(self.connection, run_id)

    def plan(
        self,
        run_id: str,
        listing: Iterable[SourceObject],
        *,
        max_batches: int = 1000,
        batch_objects: int = 500,
        batch_bytes: int = 256 * 2**20,
        limit: int | None = None,
        newer_than: datetime | None = None,
        older_than: datetime | None = None,
        retry_quarantined: bool = False,
    ) -> PlanSummary:
        """Cut what the listing holds and is not done yet into batches; see :class:`PlanLimits` for the parameters.

        Project, source, destination and digests are those of the run's request. Planning a run again replaces the
        batches that no worker has begun.
        """
        limits = PlanLimits(
            max_batches=max_batches,
            batch_objects=batch_objects,
            batch_bytes=batch_bytes,
            limit=limit,
            newer_than=newer_than,
            older_than=older_than,
            retry_quarantined=retry_quarantined,
        )
        run = self.run(run_id)
        return Planner(self.connection, self._existing(run.request.project), run, limits).plan(listing)

    def lease(self, batch_id: int, worker: str, seconds: int = 300) -> Lease | None:
        """Take a batch, None when it is finished or another live worker has it.

        Parameters
        ----------
        batch_id
            Which.
        worker
            Who takes it, for people to read (host and process, or the task instance).
        seconds
            How long the lease lasts unless renewed. That of a worker whose connection ended is free at once.
        """
        rows = self.connection.query(
            "leasing a batch", "SELECT run_id::text FROM batch WHERE batch_id = %s", (batch_id,)
        )
        if not rows:
            raise ConfigurationError(f"There is no batch {batch_id}; its run was pruned or planned again.")
        run = self.run(rows[0][0])
        lease = Lease(self.connection, self.chain_key, self._existing(run.request.project), run, batch_id, seconds)
        return lease if lease.take(worker) else None

    def is_finished(self, batch_id: int) -> bool:
        """Whether a batch was ended for good; False while it waits or a worker has it."""
        rows = self.connection.query("reading the batch", "SELECT state FROM batch WHERE batch_id = %s", (batch_id,))
        return bool(rows) and rows[0][0] == "finished"

    def prune(self, days: int = 30) -> int:
        """Remove the plan rows of runs that ended at least so many days ago; never the audit. Returns how many."""
        return prune(self.connection, days)

    def crosswalk(self, project: Project) -> Crosswalk:
        """Return the crosswalk of a project, for those who may re-identify."""
        return Crosswalk(self.connection, self.keys, project, self.chain_key)

    def import_crosswalk(self, project: Project, file: TextIO, asked: AccessReason) -> int:
        """Import rows of kind, original and pseudonym from CSV, all or none, and return how many are new."""
        return Importer(self.connection, self.keys, project, self.chain_key).import_csv(file, asked)

    def rotate(self, asked: AccessReason) -> Iterator[int]:
        """Seal everything under the active key, giving the number of rows done after each step; see the module."""
        return rotate(self.connection, self.keys, self.chain_key, asked)

    def verify(self, *, run_id: str | None = None, expected_head: str | None = None) -> Verification:
        """Verify the audit's chains; see :func:`dicom_deid.database.verify.verify`."""
        if run_id is not None:
            self.run(run_id)
        return verify(self.connection, self.chain_key, run_id=run_id, expected_head=expected_head)

    def trace(self, key: str, *, reveal: AccessReason | None = None) -> list[AuditRecord]:
        """Return every attempt at an object by its source or destination key, the oldest first.

        Source keys may name patients: they are shown only to someone who says who and why, which the audit keeps.
        """
        revealing = None if reveal is None else partial(self._record_reveal, reveal)
        return trace(self.connection, self.projects(), key, reveal=revealing)

    def _record_reveal(self, asked: AccessReason, project: Project) -> None:
        body = {"person": asked.person, "reason": asked.reason, "direction": "to-source-key"}
        record_event(self.connection, self.chain_key, "lookup", body, project=project.name)

    def export_audit(self, path: Path, *, run_id: str | None = None, outcome: str | None = None) -> int:
        """Write the audit to a Parquet or CSV file and return how many rows."""
        if run_id is not None:
            self.run(run_id)
        return export_audit(self.connection, path, run_id=run_id, outcome=outcome)

    def projects(self) -> list[Project]:
        """Return all projects, by name."""
        rows = self.connection.query("reading the projects", "SELECT name FROM project ORDER BY name")
        return [self._existing(name) for (name,) in rows]

    def crosswalk_sizes(self) -> dict[str, dict[str, int]]:
        """Return how many pseudonyms each project has, by kind; no key is needed."""
        rows = self.connection.query(
            "counting pseudonyms",
            "SELECT p.name, m.kind, count(*) FROM mapping m JOIN project p USING (project_id) "
            "GROUP BY 1, 2 ORDER BY 1, 2",
        )
        sizes: dict[str, dict[str, int]] = {}
        for name, kind, count in rows:
            sizes.setdefault(name, {})[kind] = count
        return sizes

    def _existing(self, name: str) -> Project:
        return self.project(name, create=False)
