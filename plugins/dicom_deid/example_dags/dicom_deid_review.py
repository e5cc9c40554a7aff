"""Process the quarantined objects that reviewers have decided about.

*Apply decisions* on the quarantine page starts it. Permission to trigger this DAG is permission to see held objects
and to decide about them.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param

from dicom_deid.operators import DicomDeidTaskGroup, DicomReviewPlanOperator

with DAG(
    "dicom_deid_review",
    description="Process quarantined objects as reviewers have decided",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,
    tags=["dicom", "de-identification"],
    params={
        "run_id": Param(
            type="string",
            minLength=36,
            maxLength=36,
            title="Run",
            description_md="Id of the de-identification run that held the objects; the quarantine page fills it in.",
        )
    },
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
) as dag:
    DicomDeidTaskGroup(planner=DicomReviewPlanOperator, run_id=dag.param("run_id"))
