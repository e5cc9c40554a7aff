"""PostgreSQL: the mapping, the audit and the plan of work.

The order in which a run uses it::

    with Database.connect(url, keys=KeyRing.from_environment()) as database:
        database.upgrade()
        project = database.project("study-a", {"org_root": "2.25"})  # options are fixed on creation
        run_id = database.start_run(RunRequest(project="study-a", source=..., destination=..., recipe_name=...,
                                               recipe_digest=..., settings_digest=...))
        summary = database.plan(run_id, store.list(), max_batches=1000)  # -> PlanSummary
        mapping = database.mapping(project)
        for reference in summary.batches:  # BatchReference(batch_id, label, ...)
            lease = database.lease(reference.batch_id, worker="host:pid")  # None: finished, or another worker has it
            for item in lease.items():  # BatchItem(item_id, key, size, previous, ...)
                pseudonyms = mapping.resolve(identifiers)  # committed on return
                ...
            lease.intend([Intent(item=item, destination_key=..., identity=...)])  # before anything is written
            ...
            lease.record([AuditRow(item=item, outcome=Outcome.DEIDENTIFIED, ...)])  # one transaction
            lease.finish()
        database.finish_run(run_id, "succeeded")
        report = database.report(run_id)  # -> RunReport

`lease.items()` leaves out what is recorded already, so a retry continues where a dead worker stopped. An item recorded
as `failed` is returned by the next lease. `record` may be called as often as convenient. A database object may be
shared by the threads of a process; each process opens its own.
"""

from dicom_deid.database.audit import AuditRow, BatchItem, Intent, ObjectIdentity
from dicom_deid.database.audit_queries import AuditRecord
from dicom_deid.database.connection import DEFAULT_SCHEMA
from dicom_deid.database.crosswalk import AccessReason, Crosswalk, CrosswalkRow
from dicom_deid.database.database import Database
from dicom_deid.database.deletions import Deletion
from dicom_deid.database.errors import ConnectionLost, LeaseLost
from dicom_deid.database.keys import KeyRing
from dicom_deid.database.leases import Lease
from dicom_deid.database.mapping import Mapping
from dicom_deid.database.plan import BatchReference, PlanSummary
from dicom_deid.database.projects import Project, ProjectOptions
from dicom_deid.database.reconcile import Difference, Reconciliation
from dicom_deid.database.runs import Run, RunReport, RunRequest, RunState, Totals
from dicom_deid.database.verify import Verification
from dicom_deid.database.withdrawals import Withdrawal, WithdrawalRequest

__all__ = [
    "DEFAULT_SCHEMA",
    "AccessReason",
    "AuditRecord",
    "AuditRow",
    "BatchItem",
    "BatchReference",
    "ConnectionLost",
    "Crosswalk",
    "CrosswalkRow",
    "Database",
    "Deletion",
    "Difference",
    "Intent",
    "KeyRing",
    "Lease",
    "LeaseLost",
    "Mapping",
    "ObjectIdentity",
    "PlanSummary",
    "Project",
    "ProjectOptions",
    "Reconciliation",
    "Run",
    "RunReport",
    "RunRequest",
    "RunState",
    "Totals",
    "Verification",
    "Withdrawal",
    "WithdrawalRequest",
]
