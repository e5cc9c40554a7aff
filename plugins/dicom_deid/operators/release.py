"""Release the objects of a run: copy them from the staging location to where others read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from dicom_deid.links import RunPageLink
from dicom_deid.operators.arguments import location
from dicom_deid.operators.base import DicomDeidOperator, planned_run
from dicom_deid.operators.deidentify import BatchStopped
from dicom_deid.operators.lineage import run_lineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, XComArg


class DicomReleaseOperator(DicomDeidOperator):
    """Copy what a run wrote to another location, byte for byte, under the same keys.

    Only objects that the audit records as written, with the same ETag, are copied. Objects that exist at the target are
    skipped, so that a retry resumes. The staging location is not emptied; use a lifecycle rule of the bucket for that.

    Parameters
    ----------
    run
        ``plan.output["run"]`` of `DicomPlanOperator`, whose destination is the staging location.
    release_to
        ``s3://bucket/prefix`` or an absolute path.
    approval
        Answer of `DicomApprovalOperator`, recorded in the audit with the person who gave it.
    transfers
        Number of copies at the same time.
    """

    template_fields: Sequence[str] = ("run", "release_to", "approval")
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        run: Mapping[str, Any],
        release_to: str,
        approval: Mapping[str, Any] | XComArg | None = None,
        transfers: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.release_to = release_to
        self.approval: Any = approval
        self.transfers = transfers
        self._stop: Event | None = None

    def run_task(self, context: Context) -> int:
        """Copy the objects and return their number.

        Raises
        ------
        Quarantine
            An object is not the one that was written, or the target holds a different object under its key.
        ConfigurationError
            The person who requested the run approved it.
        ObjectStoreError, DatabaseError
            The object store or the database failed; a retry resumes.
        """
        from dicom_deid.pipeline.release import release_run

        stop = self._stop = Event()
        run_id, _ = planned_run(self.run)
        RunPageLink.persist(context, self, run_id)
        release_to = location("release_to", self.release_to)
        person = self._record_approval(run_id, release_to) if self.approval else _requester(context)
        released = release_run(
            self.connections,
            run_id=run_id,
            release_to=release_to,
            person=person,
            transfers=self.transfers,
            should_stop=stop.is_set,
        )
        if released.stopped:
            raise BatchStopped(f"Stopped after {released.objects} objects; a retry copies the rest.")
        self.log.info("Released %d objects.", released.objects)
        return released.objects

    def _record_approval(self, run_id: str, release_to: str) -> str:
        """Record who approved the release, and return the name."""
        from dicom_deid.database import AccessReason

        person = str((self.approval.get("responded_by_user") or {}).get("name") or "")
        with self.connections.open_database() as database:
            database.record_approval(run_id, release_to, AccessReason(person=person, reason="approved in Airflow"))
        return person

    def on_kill(self) -> None:
        """Stop between two copies."""
        if self._stop is not None:
            self._stop.set()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the staging location and the target."""
        _, configuration = planned_run(self.run)
        return run_lineage(configuration.destination, self.release_to)


def _requester(context: Context) -> str:
    return getattr(context["dag_run"], "triggering_user_name", None) or context["ti"].run_id
