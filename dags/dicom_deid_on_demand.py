"""De-identify what somebody asks for, with a form: *Trigger* in the UI, or the REST API."""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import forms
from dicom_deid.operators.deidentify import DicomDeidentifyOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.report import DicomReportOperator

with DAG(
    "dicom_deid_on_demand",
    description="De-identify the objects below a prefix",
    doc_md=__doc__,
    schedule=None,
    tags=["dicom", "de-identification"],
    params={
        **forms.source_params("s3://incoming"),
        **forms.destination_params("s3://deidentified"),
        **forms.rule_params(),
        **forms.amount_params(),
        **forms.dry_run_param(),
        **forms.purpose_param(),
    },
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
) as dag:
    plan = DicomPlanOperator(
        task_id="plan",
        source=dag.param("source"),
        prefix=dag.param("prefix"),
        destination=dag.param("destination"),
        quarantine=dag.param("quarantine"),
        project=dag.param("project"),
        recipes=dag.param("recipe"),
        profile_options=dag.param("profile_options"),
        settings={"private_elements": dag.param("private_elements"), "pixel_risk": dag.param("pixel_risk")},
        limit=dag.param("limit"),
        reason=dag.param("reason"),
        only_preview=dag.param("dry_run"),
    )
    deidentify = DicomDeidentifyOperator.partial(
        task_id="deidentify",
        run=plan.output["run"],
        map_index_template="{{ batch_label }}",
        max_active_tis_per_dagrun=8,
    ).expand(batch=plan.output)
    report = DicomReportOperator(task_id="report", run=plan.output["run"])
    deidentify >> report
