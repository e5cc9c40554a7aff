"""De-identify into a staging place, and release after somebody has approved.

The task `approve` waits, without a worker, until a person answers under *Browse, Required Actions*. The report is at
hand there. Rejected, or never answered, nothing is released.
"""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

from dicom_deid.operators import forms
from dicom_deid.operators.deidentify import DicomDeidentifyOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.release import DicomReleaseOperator
from dicom_deid.operators.report import DicomReportOperator

with DAG(
    "dicom_deid_with_approval",
    description="De-identify, and release after approval",
    doc_md=__doc__,
    schedule=None,
    tags=["dicom", "de-identification"],
    params={
        **forms.source_params("s3://incoming"),
        **forms.destination_params("s3://staging"),
        **forms.release_params("s3://deidentified"),
        **forms.rule_params(),
        **forms.amount_params(),
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
    )
    deidentify = DicomDeidentifyOperator.partial(
        task_id="deidentify",
        run=plan.output["run"],
        map_index_template="{{ batch_label }}",
        max_active_tis_per_dagrun=8,
    ).expand(batch=plan.output)
    report = DicomReportOperator(task_id="report", run=plan.output["run"])
    approve = ApprovalOperator(
        task_id="approve",
        subject="Release {{ ti.xcom_pull('report')['deidentified'] }} de-identified objects?",
        body="""
{% set counts = ti.xcom_pull('report') %}
- de-identified: **{{ counts['deidentified'] }}**, at `{{ params.destination }}`
- quarantined: **{{ counts['quarantined'] }}**
{%- for reason, count in counts['reasons'].items() %}, {{ count }} {{ reason }}{% endfor %}
- [the run](/dicom-deid/runs/{{ counts['run_id'] }}), with its audit

Approved, they are copied to `{{ params.release_to }}`.
""",
        response_timeout=timedelta(days=14),
    )
    release = DicomReleaseOperator(task_id="release", run=plan.output["run"], release_to=dag.param("release_to"))
    deidentify >> report >> approve >> release
