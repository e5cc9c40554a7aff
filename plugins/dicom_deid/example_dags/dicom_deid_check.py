"""Check the connections, buckets, rights, keys and recipe of a run before you start it.

The log of the task has one line per check: OK, or what is wrong and what to do. Small objects are written to the
destination and deleted again.
"""

from airflow.sdk import DAG

from dicom_deid.operators import DicomCheckOperator, forms

with DAG(
    "dicom_deid_check",
    description="Check connections, buckets, rights, keys and recipe",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,
    tags=["dicom", "de-identification"],
    params=forms.check_params(),
) as dag:
    DicomCheckOperator(task_id="check", **forms.run_arguments(dag))
