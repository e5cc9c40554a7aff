"""De-identify one batch as one mapped task."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from dicom_deid.airflow_compat import Stats
from dicom_deid.exceptions import DicomDeidError
from dicom_deid.links import RunPageLink
from dicom_deid.operators.base import DicomDeidOperator, WorkLeft, planned_run
from dicom_deid.operators.lineage import run_lineage
from dicom_deid.reasons import Outcome

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.pipeline.batch import BatchResult
    from dicom_deid.pipeline.progress import Progress


class BatchStopped(DicomDeidError):
    """The task was killed; objects in flight are finished and recorded, and a retry processes the rest."""


class DicomDeidentifyOperator(DicomDeidOperator):
    """De-identify the objects of one batch.

    A task that is killed at any point and run again gives the same result: the same pseudonyms, keys and bytes.

    Parameters
    ----------
    run
        ``plan.output["run"]`` of `DicomPlanOperator`.
    batch
        One of the references that `DicomPlanOperator` returns; map over them. With
        ``map_index_template="{{ batch_label }}"`` the UI shows the batch's label.
    """

    template_fields: Sequence[str] = ("run", "batch")
    ui_color = "#e6f4ea"

    def __init__(self, *, run: Mapping[str, Any], batch: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.batch = batch
        self._stop: Event | None = None
        self._result: BatchResult | None = None

    def run_task(self, context: Context) -> dict[str, Any]:
        """De-identify the batch and return its counts.

        Raises
        ------
        ConfigurationError
            A retry cannot help.
        ObjectStoreError, DatabaseError
            The object store or the database failed; a retry resumes.
        BatchStopped
            The task was killed; a retry resumes.
        WorkLeft
            Objects failed for another reason than the object store.
        """
        from dicom_deid.pipeline.batch import run_batch

        stop = self._stop = Event()
        run_id, configuration = planned_run(self.run)
        context["batch_label"] = self.batch["label"]  # type: ignore[typeddict-unknown-key]
        RunPageLink.persist(context, self, run_id)
        result = run_batch(
            configuration,
            self.connections,
            run_id=run_id,
            batch_id=self.batch["batch_id"],
            worker=f"{socket.gethostname()}:{os.getpid()}",
            progress=self._log_progress,
            should_stop=stop.is_set,
        )
        self._result = result
        self._send_metrics(result)
        if result.stopped:
            raise BatchStopped(f"Stopped after {result.objects} objects; a retry processes the rest.")
        failed = result.outcomes.get(Outcome.FAILED, 0)
        if failed:
            reasons = ", ".join(sorted(str(reason) for reason in result.reasons))
            raise WorkLeft(f"{failed} objects failed ({reasons}); the others are done.")
        if not result.taken:
            self.log.info("The batch was finished before: nothing to do.")
        return {
            "objects": result.objects,
            "outcomes": {str(outcome): count for outcome, count in result.outcomes.items()},
            "reasons": {str(reason): count for reason, count in result.reasons.items()},
            "bytes_in": result.bytes_in,
            "bytes_out": result.bytes_out,
            "seconds": round(result.seconds, 3),
        }

    def on_kill(self) -> None:
        """Stop between two objects: objects in flight are finished and recorded, and the lease is released."""
        if self._stop is not None:
            self._stop.set()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return source and destination with the number of objects and bytes written."""
        _, configuration = planned_run(self.run)
        result = self._result
        return run_lineage(
            configuration.source,
            configuration.destination,
            objects=result.outcomes.get(Outcome.DEIDENTIFIED, 0) if result else None,
            size=result.bytes_out if result else None,
        )

    def _log_progress(self, progress: Progress) -> None:
        self.log.info("%s", progress)

    @staticmethod
    def _send_metrics(result: BatchResult) -> None:
        for outcome, count in result.outcomes.items():
            Stats.incr("dicom_deid.objects", count, tags={"outcome": str(outcome)})
        for reason, count in result.reasons.items():
            Stats.incr("dicom_deid.reasons", count, tags={"reason": str(reason)})
        Stats.incr("dicom_deid.bytes", result.bytes_in, tags={"direction": "in"})
        Stats.incr("dicom_deid.bytes", result.bytes_out, tags={"direction": "out"})
        stages = {"reading": result.reading, "rewriting": result.rewriting, "writing": result.writing}
        for stage, seconds in stages.items():
            Stats.timing("dicom_deid.stage", seconds * 1000, tags={"stage": stage})
