"""De-identify every night what is new or changed in the archive.

Set the Airflow Variables `dicom_deid_nightly_source` and `dicom_deid_nightly_destination` (`s3://bucket/prefix`) before
you unpause the DAG. New is what the audit does not hold yet: the next run makes up for a night that was missed, and an
object that arrives late is not lost.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset

from dicom_deid.airflow_compat import AsyncCallback, DeadlineAlert, DeadlineReference
from dicom_deid.notifications import DeadlineNotifier, QuarantineNotifier
from dicom_deid.operators import DicomDeidTaskGroup

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
    # Six hours after one o'clock the working day begins.
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=6),
        callback=AsyncCallback(DeadlineNotifier, kwargs={"dag_id": "dicom_deid_nightly"}),
    ),
) as dag:
    DicomDeidTaskGroup(
        source="{{ var.value.get('dicom_deid_nightly_source', '') }}",
        destination="{{ var.value.get('dicom_deid_nightly_destination', '') }}",
        reason="nightly",
        max_quarantine_ratio=0.05,
        # Downstream DAGs schedule on this asset; its events carry the counts.
        outlets=[Asset("dicom_deid_deidentified")],
        on_success_callback=QuarantineNotifier(),
    )
