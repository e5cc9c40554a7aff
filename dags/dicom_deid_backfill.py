"""De-identify an archive a month at a time, with Airflow's backfill:

    airflow backfill create --dag-id dicom_deid_backfill --from-date 2016-01-01 --to-date 2025-12-31 \\
        --max-active-runs 4 --run-backwards --dag-run-conf '{"partition": "last-modified"}'

A partition is what was last modified in the month, or what lies below the month's prefix. What is done already is left
out, so that a backfill can be stopped, repeated and overlapped. A run without a date takes whatever no partition took.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from dicom_deid.operators import forms
from dicom_deid.operators.deidentify import DicomDeidentifyOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.report import DicomReportOperator

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
    params={
        **forms.source_params("s3://incoming", prefix=False),
        **forms.partition_params(),
        **forms.destination_params("s3://deidentified"),
        **forms.rule_params(),
        **forms.purpose_param(),
    },
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
) as dag:
    plan = DicomPlanOperator(
        task_id="plan",
        source=dag.param("source"),
        prefix=f"{{{{ {MONTH}.strftime(params.prefix_format) if {BY_PREFIX} else '' }}}}",
        newer_than=f"{{{{ {MONTH}.isoformat() if {BY_TIME} else '' }}}}",
        older_than=f"{{{{ dag_run.data_interval_end.isoformat() if {BY_TIME} else '' }}}}",
        destination=dag.param("destination"),
        quarantine=dag.param("quarantine"),
        project=dag.param("project"),
        recipes=dag.param("recipe"),
        profile_options=dag.param("profile_options"),
        settings={"private_elements": dag.param("private_elements"), "pixel_risk": dag.param("pixel_risk")},
        reason=dag.param("reason"),
    )
    deidentify = DicomDeidentifyOperator.partial(
        task_id="deidentify",
        run=plan.output["run"],
        map_index_template="{{ batch_label }}",
        max_active_tis_per_dagrun=4,
    ).expand(batch=plan.output)
    report = DicomReportOperator(task_id="report", run=plan.output["run"])
    deidentify >> report
