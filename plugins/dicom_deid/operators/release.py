"""After approval: from the staging place to where others read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from dicom_deid.links import RunPageLink
from dicom_deid.operators.base import DicomDeidOperator, planned_run
from dicom_deid.operators.deidentify import BatchStopped
from dicom_deid.operators.lineage import run_lineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context


class DicomReleaseOperator(DicomDeidOperator):
    """Copies what a run wrote to the place of release, byte for byte, under the same keys.

    What is copied is what the audit says was written: an object that was changed since, or that only lies there, is
    not released. What stands at the place of release already is left alone, so that a retry goes on. The staging place
    is not emptied: let a life-cycle rule of the bucket do it.

    Parameters
    ----------
    run
        ``plan.output["run"]`` of `DicomPlanOperator`, whose destination is the staging place.
    release_to
        ``s3://bucket/prefix`` or a directory.
    transfers
        Copies under way at once.
    """

    template_fields: Sequence[str] = ("run", "release_to")
    ui_color = "#e6f4ea"

    def __init__(self, *, run: Mapping[str, Any], release_to: str, transfers: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.release_to = release_to
        self.transfers = transfers
        self._stop: Event | None = None

    def run_task(self, context: Context) -> int:
        """Copy, and return the number of objects.

        Raises
        ------
        Quarantine
            An object at the staging place is not the one that was written, or another stands at the place of release.
        ObjectStoreError, DatabaseError
            Storage or database failed; a retry goes on.
        """
        from dicom_deid.pipeline.release import release_run

        stop = self._stop = Event()
        run_id, _ = planned_run(self.run)
        RunPageLink.persist(context, self, run_id)
        released = release_run(
            self.connections,
            run_id=run_id,
            release_to=self.release_to,
            transfers=self.transfers,
            should_stop=stop.is_set,
        )
        if released.stopped:
            raise BatchStopped(f"Stopped after {released.objects} objects; a retry copies the rest.")
        self.log.info("Released %d objects.", released.objects)
        return released.objects

    def on_kill(self) -> None:
        """Stop between two objects."""
        if self._stop is not None:
            self._stop.set()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the staging place and the place of release."""
        _, configuration = planned_run(self.run)
        return run_lineage(configuration.destination, self.release_to)
