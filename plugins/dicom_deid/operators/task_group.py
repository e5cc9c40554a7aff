"""A run as one task group: plan, batches, report and warnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import TaskGroup

from dicom_deid.operators.base import DicomDeidOperator
from dicom_deid.operators.deidentify import DicomDeidentifyOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.report import DicomReportOperator
from dicom_deid.operators.run_warnings import DicomWarningsOperator

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

_CONNECTION_IDS = (
    "source_conn_id",
    "destination_conn_id",
    "quarantine_conn_id",
    "database_conn_id",
    "deid_conn_id",
)


class DicomDeidTaskGroup(TaskGroup):
    """De-identify the objects of a source: the tasks `plan`, `deidentify` (mapped), `report` and `warnings`.

    Parameters
    ----------
    group_id
        Prefix of the task ids.
    max_active_batches
        Batches that run at the same time in one DAG run.
    max_quarantine_ratio, on_excess, partition
        See `DicomReportOperator`.
    outlets, on_success_callback
        Outlets and callback of the report task. Events of asset outlets carry the counts.
    pool
        Airflow pool of the batches, to bound them over all DAG runs.
    planner
        Operator class of the task `plan`.
    **plan
        Parameters of the planner, such as those of `DicomPlanOperator` (`source`, `destination`, ...); the connection
        ids among them are used by all tasks.

    Attributes
    ----------
    run
        The planned run, to pass to other operators such as `DicomReleaseOperator`.

    Examples
    --------
    >>> with DAG("nightly", schedule="@daily"):                                          # doctest: +SKIP
    ...     DicomDeidTaskGroup(source="s3://incoming", destination="s3://deidentified")
    """

    def __init__(
        self,
        group_id: str = "dicom_deid",
        *,
        max_active_batches: int = 8,
        max_quarantine_ratio: Any = 0.1,
        on_excess: Literal["fail", "warn"] = "warn",
        partition: str | None = None,
        outlets: Sequence[Asset] = (),
        on_success_callback: Callable[[Context], None] | None = None,
        pool: str | None = None,
        planner: type[DicomDeidOperator] = DicomPlanOperator,
        **plan: Any,
    ) -> None:
        super().__init__(group_id=group_id, tooltip="De-identify DICOM objects")
        connections = {name: plan[name] for name in _CONNECTION_IDS if name in plan}
        with self:
            self.plan = planner(task_id="plan", **plan)
            batches: Any = self.plan.output
            self.run: Any = batches["run"]
            self.deidentify = DicomDeidentifyOperator.partial(
                task_id="deidentify",
                run=self.run,
                map_index_template="{{ batch_label }}",
                max_active_tis_per_dagrun=max_active_batches,
                **({"pool": pool} if pool else {}),
                **connections,
            ).expand(batch=batches)
            self.report = DicomReportOperator(
                task_id="report",
                run=self.run,
                max_quarantine_ratio=max_quarantine_ratio,
                on_excess=on_excess,
                partition=partition,
                outlets=list(outlets),
                on_success_callback=on_success_callback,
                **connections,
            )
            # A failed teardown task is shown in red and leaves the state of the DAG run as it is.
            warnings = DicomWarningsOperator(task_id="warnings", report_task_id=self.report.task_id).as_teardown()
            self.deidentify >> self.report >> warnings
