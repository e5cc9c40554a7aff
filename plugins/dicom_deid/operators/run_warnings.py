"""Show the warnings of a run as a failed task in a successful DAG run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from dicom_deid.airflow_compat import AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context


class DicomWarningsOperator(BaseOperator):
    """Fail if the report of a run has warnings; meant as a teardown task, whose failure does not fail the DAG run.

    Warnings are: no object was listed, and too many objects were quarantined where the report does not fail for it.

    Parameters
    ----------
    report_task_id
        Task id of the `DicomReportOperator`.
    """

    ui_color = "#fdf3e1"

    def __init__(self, *, report_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report_task_id = report_task_id

    def execute(self, context: Context) -> None:
        """Fail with the warnings of the report.

        Raises
        ------
        AirflowFailException
            The report has warnings.
        AirflowSkipException
            There is no report: nothing was planned.
        """
        counts = context["ti"].xcom_pull(task_ids=self.report_task_id, key="counts")
        if not counts:
            raise AirflowSkipException("No report, so no warnings.")
        if counts["warnings"]:
            raise AirflowFailException(" ".join(counts["warnings"]))
