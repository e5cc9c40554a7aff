"""De-identify into a staging location, and copy the objects to the place of release after a person approved.

The task `approve` waits, without a worker, for an answer under *Browse, Required Actions*, where the counts are shown.
Nothing is released if the answer is no, if there is none within 14 days, or if it is that of the person who triggered
the run.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import DicomApprovalOperator, DicomDeidTaskGroup, DicomReleaseOperator, forms

with DAG(
    "dicom_deid_with_approval",
    description="De-identify, and release after approval",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,
    tags=["dicom", "de-identification"],
    params=forms.run_params(release=True, preview=False),
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
) as dag:
    deidentified = DicomDeidTaskGroup(**forms.run_arguments(dag))
    approve = DicomApprovalOperator(
        task_id="approve",
        subject="Release {{ ti.xcom_pull('dicom_deid.report')['deidentified'] }} de-identified objects?",
        body="""
{% set counts = ti.xcom_pull('dicom_deid.report') %}
- de-identified: **{{ counts['deidentified'] }}**, in `{{ params.destination }}`
- quarantined: **{{ counts['quarantined'] }}**
{%- for reason, count in counts['reasons'].items() %}, {{ count }} {{ reason }}{% endfor %}
{%- for warning in counts['warnings'] %}
- **{{ warning }}**
{%- endfor %}
- [the run]({{ counts['page'] }}), with its audit

After approval they are copied to `{{ params.release_to }}`.
""",
        response_timeout=timedelta(days=14),
    )
    release = DicomReleaseOperator(
        task_id="release",
        run=deidentified.run,
        release_to="{{ params.release_to }}",
        approval=approve.output,
    )
    deidentified >> approve >> release
