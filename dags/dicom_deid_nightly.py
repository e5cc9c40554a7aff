"""De-identify every night what is new or changed in the archive.

What is new is what the audit does not know, whatever the clock says: a night that was missed is made up for by the next
one, and an object that arrives late is not lost.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset, AsyncCallback, DeadlineAlert, DeadlineReference

from dicom_deid.notifications.notifiers import DeadlineNotifier, QuarantineNotifier
from dicom_deid.operators.deidentify import DicomDeidentifyOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.report import DicomReportOperator

SOURCE = "s3://incoming"
DESTINATION = "s3://deidentified"

with DAG(
    "dicom_deid_nightly",
    description="De-identify what is new or changed since the last run",
    doc_md=__doc__,
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["dicom", "de-identification"],
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
    # By seven the day's work begins.
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=6),
        callback=AsyncCallback(DeadlineNotifier, kwargs={"dag_id": "dicom_deid_nightly"}),
    ),
) as dag:
    plan = DicomPlanOperator(task_id="plan", source=SOURCE, destination=DESTINATION, reason="nightly")
    deidentify = DicomDeidentifyOperator.partial(
        task_id="deidentify",
        run=plan.output["run"],
        map_index_template="{{ batch_label }}",
        max_active_tis_per_dagrun=8,
    ).expand(batch=plan.output)
    report = DicomReportOperator(
        task_id="report",
        run=plan.output["run"],
        max_quarantine_ratio=0.05,
        on_excess="warn",
        # Downstream DAGs schedule on this asset; its events carry the counts.
        outlets=[Asset("dicom_deid_deidentified", uri=DESTINATION)],
        on_success_callback=QuarantineNotifier(),
    )
    deidentify >> report
