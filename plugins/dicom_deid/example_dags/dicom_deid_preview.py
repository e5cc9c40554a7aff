"""Report what a recipe would do to a sample of the archive, or where two recipes differ, before a run.

Nothing is written and no pseudonym is stored. The report is in the tab *De-identification* of the DAG run and in the
log of the task: rules and tags with counts, never a value.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import DicomPreviewOperator, forms

with DAG(
    "dicom_deid_preview",
    description="Report what a recipe would do to a sample",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,
    tags=["dicom", "de-identification"],
    params={
        **forms.source_params(),
        **forms.cohort_param(optional=True),
        **forms.rule_params(),
        "compare_with": forms.recipe_param("Compare with", "A second recipe, to see the difference.", optional=True),
        **forms.sample_param(),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
) as dag:
    DicomPreviewOperator(
        task_id="preview",
        **forms.run_arguments(dag),
        compare_with="{{ params.compare_with or '' }}",
        sample="{{ params.sample }}",
    )
