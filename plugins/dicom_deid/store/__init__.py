"""PostgreSQL: the mapping, the audit and the plan of work.

What the layers above use, in the order in which a run uses it::

    with Store.connect(url, keys=KeyRing.from_environment()) as store:
        store.upgrade()
        project = store.project("study-a", ProjectOptions(org_root="2.25"))     # options: fixed when it is made
        run_id = store.start_run(RunRequest(project="study-a", source=..., destination=..., recipe_name=...,
                                            recipe_digest=..., settings_digest=...))
        summary = store.plan(run_id, storage.list(), max_batches=1000)          # -> PlanSummary
        mapping = store.mapping(project)
        for reference in summary.batches:                                       # BatchReference(batch_id, label, ...)
            lease = store.lease(reference.batch_id, worker="host:pid")          # None: done, or in other hands
            for item in lease.items():                                          # BatchItem(item_id, key, size, ...)
                pseudonyms = mapping.resolve(originals)                         # committed on return
                ...
            lease.record([AuditRow(item=item, outcome=Outcome.DEIDENTIFIED, ...)])   # one transaction
            lease.finish()
        store.finish_run(run_id, "succeeded")
        report = store.report(run_id)                                           # RunReport

`lease.items()` never holds what is recorded already, so a retry goes on where the dead worker stopped. An item that
is recorded as `failed` comes again on the next lease. `record` may be called as often as convenient. One store may be
shared by the threads of a process; each process opens its own.
"""

from dicom_deid.store.access import Accountability, Crosswalk, Pair
from dicom_deid.store.audit import AuditRow, BatchItem
from dicom_deid.store.database import DEFAULT_SCHEMA
from dicom_deid.store.errors import ConnectionLost, LeaseLost
from dicom_deid.store.keys import KeyRing
from dicom_deid.store.lease import Lease
from dicom_deid.store.mapping import Mapping
from dicom_deid.store.plan import BatchReference, PlanSummary
from dicom_deid.store.projects import Project, ProjectOptions
from dicom_deid.store.runs import Run, RunReport, RunRequest, RunState
from dicom_deid.store.store import Store
from dicom_deid.store.trace import Traced
from dicom_deid.store.verify import Verification

__all__ = [
    "DEFAULT_SCHEMA",
    "Accountability",
    "AuditRow",
    "BatchItem",
    "BatchReference",
    "ConnectionLost",
    "Crosswalk",
    "KeyRing",
    "Lease",
    "LeaseLost",
    "Mapping",
    "Pair",
    "PlanSummary",
    "Project",
    "ProjectOptions",
    "Run",
    "RunReport",
    "RunRequest",
    "RunState",
    "Store",
    "Traced",
    "Verification",
]
