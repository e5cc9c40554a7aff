"""The database: one object through which everything else reaches PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingType
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from dicom_deid.database import erasure, runs, schema, withdrawals
from dicom_deid.database.ambiguous import AmbiguousPatient, list_ambiguous
from dicom_deid.database.audit_queries import AuditRecord, Queries, source_keys
from dicom_deid.database.connection import DEFAULT_SCHEMA, DatabaseConnection
from dicom_deid.database.crosswalk import AccessReason, Crosswalk
from dicom_deid.database.crosswalk_import import Importer
from dicom_deid.database.deletions import Deletion, pending_deletions, settle_deletions
from dicom_deid.database.export import export_audit
from dicom_deid.database.hash_chain import chain_key, record_event
from dicom_deid.database.keys import KeyRing, check_keys, register_active_key
from dicom_deid.database.leases import Lease
from dicom_deid.database.mapping import Mapping
from dicom_deid.database.plan import PlanLimits, Planner, PlanSummary, prune
from dicom_deid.database.projects import Project, open_project, project_names
from dicom_deid.database.reconcile import Reconciliation, reconcile
from dicom_deid.database.released import Copy, releasing
from dicom_deid.database.rotation import keys_in_use, rotate
from dicom_deid.database.runs import ABANDONED_HOURS, Run, RunReport, RunRequest, RunState
from dicom_deid.database.verify import Verification, verify
from dicom_deid.database.withdrawals import Withdrawal, WithdrawalRequest
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject


class Database:
    """Projects, mapping, plan and audit in one schema of one PostgreSQL database.

    It has one connection, which threads of one process may share; processes have their own. The connection is opened
    when it is first needed, and again after it was lost.

    Parameters
    ----------
    connection
        The connection.
    keys
        The key ring; everything but the schema, the list of runs and their reports needs it.
    """

    def __init__(self, connection: DatabaseConnection, keys: KeyRing | None = None) -> None:
        self.connection = connection
        self._keys = keys
        self._projects: dict[str, Project] = {}
        self._is_key_registered = False

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
        database = cls(DatabaseConnection(url, schema), keys)
        database.connection.connect()
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Batches that were leased through it are free at once."""
        self.connection.close()

    @cached_property
    def keys(self) -> KeyRing:
        """The key ring.

        Raises
        ------
        ConfigurationError
            The database was opened without one, or a key is not the one that was used under its id before.
        """
        if self._keys is None:
            raise ConfigurationError(
                "The crosswalk's keys are needed: set DICOM_DEID_KEYS, or the keys of the Airflow connection."
            )
        check_keys(self.connection, self._keys)
        return self._keys

    @cached_property
    def chain_key(self) -> bytes:
        """The secret of the audit's hash chains."""
        return chain_key(self.connection, self.keys)

    def upgrade(self) -> None:
        """Upgrade the schema to this version; nothing happens when it is, and several may do so at once."""
        schema.upgrade(self.connection)

    def project(self, name: str, options: MappingType[str, Any] | None = None, *, create: bool = True) -> Project:
        """Return the project of that name, created on first use.

        Parameters
        ----------
        name
            Its name.
        options
            Fields of :class:`ProjectOptions`: what the project must have, or is created with.
        create
            Create the project if it does not exist; otherwise it is an error.

        Raises
        ------
        ConfigurationError
            It was created with other options, or the key ring does not decrypt its secret.
        """
        if name not in self._projects or options:
            self._projects[name] = open_project(self.connection, self.keys, name, options or {}, create=create)
        return self._projects[name]

    def ambiguous_patients(self, project: Project) -> list[AmbiguousPatient]:
        """Return the patients of a project whose identifiers may mix up people."""
        return list_ambiguous(self.connection, project.project_id)

    def mapping(self, project: Project) -> Mapping:
        """Return the mapping of a project, with a cache of its own."""
        if not self._is_key_registered:
            register_active_key(self.connection, self.keys)
            self._is_key_registered = True
        return Mapping(self.connection, self.keys, project)

    def start_run(self, request: RunRequest) -> str:
        """Begin a run (or continue the one of the same `external_id`) and return its id.

        The run's project must exist: see :meth:`project`.
        """
        project = self._existing(request.project)
        return runs.start_run(self.connection, self.chain_key, project.project_id, request)

    def finish_run(self, run_id: str, state: RunState) -> None:
        """End a run; its totals go into the audit."""
        runs.finish_run(self.connection, self.chain_key, run_id, state)

    def run(self, run_id: str) -> Run:
        """Return a run."""
        return runs.find_run(self.connection, run_id)

    def runs(self, limit: int = 100, project: str | None = None) -> list[Run]:
        """Return the newest runs, newest first."""
        return runs.list_runs(self.connection, limit, project)

    def report(self, run_id: str) -> RunReport:
        """Return the totals of a run, at any time."""
        return runs.report_run(self.connection, run_id)

    def plan(self, run_id: str, listing: Iterable[SourceObject], **limits: Any) -> PlanSummary:
        """Cut the listed objects that are not done yet into batches; see :class:`PlanLimits` for the parameters.

        Project, source, destination and digests are those of the run's request. Planning a run again replaces the
        batches that no worker has begun. Runs over the same source that were abandoned are closed.
        """
        run = self.run(run_id)
        runs.close_abandoned(self.connection, self.chain_key, scope_id=run.scope_id, but=run_id)
        return Planner(self.connection, self._existing(run.request.project), run, PlanLimits(**limits)).plan(listing)

    def lease(self, batch_id: int, worker: str, seconds: int = 300) -> Lease | None:
        """Acquire a batch, None when it is finished or another live worker has it.

        Parameters
        ----------
        batch_id
            The batch.
        worker
            Name of the worker, for people to read (host and process, or the task instance).
        seconds
            How long the lease lasts unless renewed. The batch of a worker whose connection ended is free at once.
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
        """Return whether a batch is finished; False while it waits or a worker has it."""
        rows = self.connection.query("reading the batch", "SELECT state FROM batch WHERE batch_id = %s", (batch_id,))
        return bool(rows) and rows[0][0] == "finished"

    def pending_deletions(self, withdrawal_id: str | None = None, limit: int = 1000) -> list[Deletion]:
        """Return the oldest objects that must be deleted still, of a withdrawal or else of superseded objects."""
        return pending_deletions(self.connection, withdrawal_id=withdrawal_id, limit=limit)

    def settle_deletions(self, done: Sequence[Deletion], versions_kept: Sequence[Deletion] = ()) -> None:
        """Record that superseded objects were deleted, and of which a version is kept."""
        settle_deletions(self.connection, self.chain_key, done, versions_kept)

    def prune(self, days: int = 30) -> int:
        """Remove the plan rows of runs that ended at least `days` days ago, never the audit, and return how many."""
        return prune(self.connection, days)

    def crosswalk(self, project: Project) -> Crosswalk:
        """Return the crosswalk of a project, for those who may re-identify."""
        return Crosswalk(self.connection, self.keys, project, self.chain_key)

    def import_crosswalk(self, project: Project, file: TextIO, access: AccessReason) -> int:
        """Import rows of kind, original and pseudonym from CSV, all or none, and return how many are new."""
        return Importer(self.connection, self.keys, project, self.chain_key).import_csv(file, access)

    def rotate(self, access: AccessReason) -> Iterator[int]:
        """Encrypt everything under the active key, yielding the number of rows done after each step."""
        return rotate(self.connection, self.keys, self.chain_key, access)

    def keys_in_use(self) -> dict[str, int]:
        """Return how many values each key still encrypts, by key id."""
        return keys_in_use(self.connection)

    def close_abandoned(self, hours: int = ABANDONED_HOURS) -> list[str]:
        """End runs that nothing has worked on for so many hours, as `abandoned`, and return their ids."""
        return runs.close_abandoned(self.connection, self.chain_key, hours=hours)

    def verify(self, *, run_id: str | None = None, expected_head: str | None = None) -> Verification:
        """Verify the audit's chains and the mapping; see :func:`dicom_deid.database.verify.verify`."""
        if run_id is not None:
            self.run(run_id)
        projects = {project.name: project for project in self.projects()}
        return verify(self.connection, self.chain_key, projects, run_id=run_id, expected_head=expected_head)

    def trace(self, key: str) -> list[AuditRecord]:
        """Return every attempt at the objects of a source key or a destination key, the oldest first."""
        return self.queries.trace(self.projects(), key)

    def find_objects(self, original: str, access: AccessReason) -> list[AuditRecord]:
        """Return the newest attempts at the objects of an original identifier, after the search was recorded.

        See :meth:`Queries.of_identifier`. The search links an original with its pseudonym.
        """
        body = {"person": access.person, "reason": access.reason, "direction": "from-original"}
        record_event(self.connection, self.chain_key, "objects-searched", body)
        return self.queries.of_identifier(self.projects(), original)

    def source_keys(self, records: Sequence[AuditRecord], access: AccessReason) -> dict[str, str]:
        """Return the whole source keys of audit rows by object id, after the access was recorded in the audit.

        Source keys may name patients.
        """

        def record_access(project: Project) -> None:
            body = {"person": access.person, "reason": access.reason, "direction": "to-source-key"}
            record_event(self.connection, self.chain_key, "source-keys-read", body, project=project.name)

        return source_keys(self.connection, self.projects(), records, record_access)

    @property
    def queries(self) -> Queries:
        """The questions of pages and reports about runs and the audit."""
        return Queries(self.connection)

    def export_audit(self, path: Path, *, run_id: str | None = None, outcome: str | None = None) -> int:
        """Write the audit to a Parquet or CSV file and return how many rows."""
        if run_id is not None:
            self.run(run_id)
        return export_audit(self.connection, path, run_id=run_id, outcome=outcome)

    def withdraw(
        self,
        project: Project,
        request: WithdrawalRequest,
        access: AccessReason,
        *,
        withdrawal_id: str | None = None,
        dry_run: bool = False,
    ) -> Withdrawal:
        """Begin a withdrawal; :func:`dicom_deid.pipeline.withdrawal.continue_withdrawal` deletes the copies."""
        return withdrawals.begin_withdrawal(
            self.connection,
            self.chain_key,
            project,
            request,
            access,
            withdrawal_id=withdrawal_id,
            dry_run=dry_run,
        )

    def open_withdrawals(self, project: Project | None = None) -> list[str]:
        """Return the ids of withdrawals that are not finished, oldest first."""
        return withdrawals.open_withdrawals(self.connection, project)

    def is_withdrawal(self, project: Project, withdrawal_id: str) -> bool:
        """Return whether a project has the withdrawal of an id."""
        rows = self.connection.query(
            "reading the withdrawal",
            "SELECT 1 FROM withdrawal WHERE withdrawal_id = %s AND project_id = %s",
            (withdrawal_id, project.project_id),
        )
        return bool(rows)

    def record_withdrawn(
        self, project: Project, done: Sequence[Deletion], versions_kept: Sequence[Deletion] = ()
    ) -> None:
        """Record copies that were deleted for a withdrawal, one audit row each, and whether a version is kept."""
        withdrawals.record_withdrawn(self.connection, self.chain_key, project, done, versions_kept)

    def finish_withdrawal(self, project: Project, withdrawal_id: str) -> None:
        """End a withdrawal after every copy is deleted."""
        withdrawals.finish_withdrawal(self.connection, self.chain_key, project, withdrawal_id)

    def undo_withdrawal(self, project: Project, withdrawal_id: str, access: AccessReason) -> int:
        """Lift a withdrawal, so that the next run writes its objects again, and return how many."""
        return withdrawals.undo_withdrawal(self.connection, self.chain_key, project, withdrawal_id, access)

    def erase_patients(self, project: Project, patients: Sequence[str], access: AccessReason) -> int:
        """Erase patients whose objects are withdrawn, and return how many pseudonyms were deleted."""
        return erasure.erase_patients(self.connection, self.keys, self.chain_key, project, patients, access)

    def delete_project(self, project: Project, access: AccessReason) -> int:
        """Erase a project after everything is withdrawn, and return how many pseudonyms were deleted."""
        self._projects.pop(project.name, None)
        return erasure.delete_project(self.connection, self.chain_key, project, access)

    def reconcile(
        self, destination: str, listing: Iterable[SourceObject], access: AccessReason, **options: Any
    ) -> Reconciliation:
        """Compare a destination with the audit; see :func:`dicom_deid.database.reconcile.reconcile`."""
        return reconcile(self.connection, self.chain_key, destination, listing, access, **options)

    def record_approval(self, run_id: str, release_to: str, access: AccessReason) -> None:
        """Record in the audit that a person approved the release of a run to a place.

        Raises
        ------
        ConfigurationError
            The person requested the run.
        """
        runs.record_approval(
            self.connection, self.chain_key, self.run(run_id), release_to, access.person, access.reason
        )

    def record_release(self, run_id: str, release_to: str, objects: int, person: str) -> None:
        """Record that the objects of a run are copied to a place: first with 0 objects, then with their number."""
        runs.record_release(self.connection, self.chain_key, self.run(run_id), release_to, objects, person)

    def releasing(
        self, project: str, release_to: str, records: Sequence[AuditRecord]
    ) -> AbstractContextManager[list[Copy]]:
        """Record copies to a place of release while they are made: see `dicom_deid.database.released.releasing`."""
        return releasing(self.connection, project, release_to, records)

    def projects(self) -> list[Project]:
        """Return all projects that were not deleted, by name."""
        return [self._existing(name) for name in project_names(self.connection)]

    def store_recipe(self, digest: str, name: str, text: str) -> None:
        """Store the text of a recipe with its digest, once."""
        self.connection.query(
            "storing the recipe",
            "INSERT INTO recipe (digest, name, text) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (digest, name, text),
        )

    def recipe(self, digest: str) -> tuple[str, str] | None:
        """Return name and text of the recipe of a digest, None when no run has used it."""
        rows = self.connection.query("reading the recipe", "SELECT name, text FROM recipe WHERE digest = %s", (digest,))
        return (rows[0][0], rows[0][1]) if rows else None

    def _existing(self, name: str) -> Project:
        return self.project(name, create=False)
