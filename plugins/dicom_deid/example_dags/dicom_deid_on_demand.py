"""De-identify the objects of a source when a person asks for it: *Trigger* in the UI, or the REST API."""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import DicomDeidTaskGroup, forms

with DAG(
    "dicom_deid_on_demand",
    description="De-identify the objects of a source",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,
    tags=["dicom", "de-identification"],
    params=forms.run_params(),
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
) as dag:
    DicomDeidTaskGroup(**forms.run_arguments(dag))
