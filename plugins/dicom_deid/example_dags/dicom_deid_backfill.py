"""De-identify an archive month by month, with Airflow's backfill.

    airflow backfill create --dag-id dicom_deid_backfill --from-date 2016-01-01 --to-date 2025-12-31
        --max-active-runs 4 --run-backwards
        --dag-run-conf '{"source": "s3://archive", "destination": "s3://deidentified", "partition": "last-modified"}'

A partition is what was last modified in the month, or the objects below the month's prefix. Objects that are done are
skipped, so that a backfill can be stopped, repeated and overlapped. Runs that the schedule starts are skipped; a run
that is triggered without a date processes all objects of the source.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset

from dicom_deid.airflow_compat import CronDataIntervalTimetable
from dicom_deid.operators import DicomDeidTaskGroup, forms

MONTH = "dag_run.data_interval_start"
BY_TIME = f"params.partition == 'last-modified' and {MONTH}"
BY_PREFIX = f"params.partition == 'prefix' and {MONTH}"

with DAG(
    "dicom_deid_backfill",
    description="De-identify an archive by partitions",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 0 1 * *", timezone="UTC"),
    start_date=datetime(2000, 1, 1),
    catchup=False,
    is_paused_upon_creation=True,
    max_active_runs=4,
    tags=["dicom", "de-identification"],
    params={**forms.run_params(required=False, preview=False), **forms.partition_params()},
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
) as dag:
    DicomDeidTaskGroup(
        **forms.run_arguments(dag)
        | {"prefix": f"{{{{ {MONTH}.strftime(params.prefix_format) if {BY_PREFIX} else params.prefix or '' }}}}"},
        newer_than=f"{{{{ {MONTH}.isoformat() if {BY_TIME} else '' }}}}",
        older_than=f"{{{{ dag_run.data_interval_end.isoformat() if {BY_TIME} else '' }}}}",
        skip_scheduled=True,
        max_active_batches=4,
        # A DAG with PartitionedAssetTimetable gets one run per month (Airflow 3.3 and later).
        outlets=[Asset("dicom_deid_months")],
        partition=f"{{{{ {MONTH}.strftime('%Y-%m') if {MONTH} else '' }}}}",
    )
