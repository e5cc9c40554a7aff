"""Planning, batches, preview and release: the functions that operators and the command line call.

::

    configuration = RunConfiguration(source="s3://archive/ct", destination="s3://research/ct", project="research-1")
    connections = Connections(database="postgresql://...", keys=KeyRing.from_environment())
    planned = plan_run(configuration, connections)
    for batch in planned.summary.batches:
        run_batch(configuration, connections, run_id=planned.run_id, batch_id=batch.batch_id, worker="me")
    report_run(connections, run_id=planned.run_id, state="succeeded")
"""

from dicom_deid.pipeline.batch import BatchHeld, BatchIncomplete, BatchResult, run_batch
from dicom_deid.pipeline.changes import Change, ChangeKind
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.planning import PlannedRun, plan_run, report_run
from dicom_deid.pipeline.preview import Difference, ObjectPreview, SampleSummary, preview_object
from dicom_deid.pipeline.progress import Progress

__all__ = [
    "BatchHeld",
    "BatchIncomplete",
    "BatchResult",
    "Change",
    "ChangeKind",
    "Connections",
    "Difference",
    "ObjectPreview",
    "PlannedRun",
    "Progress",
    "RunConfiguration",
    "SampleSummary",
    "plan_run",
    "preview_object",
    "report_run",
    "run_batch",
]
