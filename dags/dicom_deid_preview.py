"""See what a recipe would do to a sample of the archive, or where two recipes differ, before anyone commits to a run.

Nothing is written and no pseudonym is stored. The report is in the log of the task and in its XCom: rules and tags with
counts, never a value.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import forms
from dicom_deid.operators.preview import DicomPreviewOperator

with DAG(
    "dicom_deid_preview",
    description="Report what a recipe would do to a sample",
    doc_md=__doc__,
    schedule=None,
    tags=["dicom", "de-identification"],
    params={
        **forms.source_params("s3://incoming"),
        **forms.rule_params(),
        "compare_with": forms.recipe_param("Compare with", "A second recipe, to see the difference.", optional=True),
        **forms.sample_param(),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
) as dag:
    DicomPreviewOperator(
        task_id="preview",
        source=dag.param("source"),
        prefix=dag.param("prefix"),
        recipes=dag.param("recipe"),
        profile_options=dag.param("profile_options"),
        settings={"private_elements": dag.param("private_elements"), "pixel_risk": dag.param("pixel_risk")},
        compare_with=dag.param("compare_with"),
        sample=dag.param("sample"),
    )
