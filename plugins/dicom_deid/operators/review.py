"""Operator that plans the objects which reviewers have decided about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.links import RunPageLink
from dicom_deid.operators.base import DicomDeidOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class DicomReviewPlanOperator(DicomDeidOperator):
    """Plan the decided objects of the quarantine and return one reference per batch, as `DicomPlanOperator` does.

    They are processed with the configuration of the run that held them, and with the rules of the decisions.

    Parameters
    ----------
    run_id
        The de-identification run that held the objects. Decided objects that other runs held on the way from the same
        source to the same destination are included.
    """

    template_fields: Sequence[str] = ("run_id",)
    ui_color = "#e8f1fb"

    def __init__(self, *, run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id

    def run_task(self, context: Context) -> list[dict[str, Any]]:
        """Plan the review.

        Raises
        ------
        ConfigurationError
            There is no such run, or its recipe is not found any more.
        ObjectStoreError, DatabaseError
            The object store or the database is unavailable; a retry plans again.
        """
        from dicom_deid.operators.plan import airflow_run
        from dicom_deid.pipeline.planning import plan_review

        planned = plan_review(
            self.connections, self.run_id, reason="Review of quarantined objects", **airflow_run(context)
        )
        self.log.info("Planned %d decided objects.", planned.summary.planned)
        run = {"run_id": planned.run_id, "configuration": json.loads(planned.configuration.to_json())}
        context["ti"].xcom_push(key="run", value=run)
        RunPageLink.persist(context, self, planned.run_id)
        return [{"batch_id": batch.batch_id, "label": batch.label} for batch in planned.summary.batches]
