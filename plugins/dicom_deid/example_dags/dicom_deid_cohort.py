"""De-identify the objects that a cohort list names: patients, accession numbers, studies, series or keys.

The source is indexed first: only the headers of new and changed objects are read. The answer to each line is stored
with the run.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import DicomDeidTaskGroup, DicomIndexOperator, forms

with DAG(
    "dicom_deid_cohort",
    description="De-identify the objects of a cohort list",
    doc_md=__doc__,
    schedule=None,
    tags=["dicom", "de-identification"],
    params=forms.run_params(cohort=True),
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
) as dag:
    index = DicomIndexOperator(task_id="index", source="{{ params.source }}", project="{{ params.project or '' }}")
    index >> DicomDeidTaskGroup(**forms.run_arguments(dag)).plan
