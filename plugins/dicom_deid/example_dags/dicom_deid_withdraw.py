"""Withdraw released objects: delete all copies, and never write them again, until the withdrawal is undone.

Enter patients, studies or objects on the page *De-identification, Withdrawals*, which starts this DAG, or name a list
of them here. **No field takes an identifier**, because Airflow stores and shows what is entered. Permission to trigger
this DAG is permission to withdraw.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dicom_deid.operators import DicomWithdrawOperator, forms

with DAG(
    "dicom_deid_withdraw",
    description="Delete withdrawn objects, and never write them again",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,
    tags=["dicom", "de-identification"],
    params=forms.withdraw_params(),
    default_args={"retries": 5, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
) as dag:
    DicomWithdrawOperator(task_id="withdraw", **forms.withdraw_arguments(dag))
