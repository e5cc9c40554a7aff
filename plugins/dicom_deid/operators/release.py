"""After approval: from the staging place to where others read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Any

from dicom_deid.links import RunPageLink
from dicom_deid.operators.base import DicomDeidOperator, planned_run
from dicom_deid.operators.deidentify import BatchStopped
from dicom_deid.operators.lineage import run_lineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.database import Database
    from dicom_deid.objects import SourceObject
    from dicom_deid.objectstore import ObjectStore

_WRITTEN = """
SELECT DISTINCT ON (batch_id, item) outcome, destination_key, destination_size, destination_etag FROM audit
WHERE run_id = %s AND recorded_at >= %s ORDER BY batch_id, item, attempt DESC, link_id DESC
"""


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
        from dicom_deid.objectstore import open_object_store

        stop = self._stop = Event()
        run_id, configuration = planned_run(self.run)
        RunPageLink.persist(context, self, run_id)
        staging = open_object_store(configuration.destination, self.connections.destination)
        released = open_object_store(self.release_to, self.connections.destination)
        released.check(writable=True)
        with self.connections.open_database() as database:
            objects = list(_written(database, run_id))
        with ThreadPoolExecutor(self.transfers) as pool:
            copied = sum(pool.map(lambda each: _copy(staging, each, released, run_id, stop), objects))
        if stop.is_set():
            raise BatchStopped(f"Stopped after {copied} objects; a retry copies the rest.")
        self.log.info("Released %d objects.", copied)
        return copied

    def on_kill(self) -> None:
        """Stop between two objects."""
        if self._stop is not None:
            self._stop.set()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the staging place and the place of release."""
        _, configuration = planned_run(self.run)
        return run_lineage(configuration.destination, self.release_to)


def _written(database: Database, run_id: str) -> Iterable[SourceObject]:
    from dicom_deid.objects import SourceObject
    from dicom_deid.reasons import Outcome

    since = database.run(run_id).recorded_since
    for outcome, key, size, etag in database.connection.query("reading what was written", _WRITTEN, (run_id, since)):
        if outcome == Outcome.DEIDENTIFIED:
            yield SourceObject(key, size, etag, datetime.now(UTC))


def _copy(staging: ObjectStore, each: SourceObject, released: ObjectStore, run_id: str, stop: Event) -> bool:
    from dicom_deid.objects import SourceRange
    from dicom_deid.objectstore import write_parts

    if stop.is_set():
        return False
    whole = [SourceRange(0, each.size)]
    write_parts(staging, each, released, each.key, whole, metadata={"run": run_id, "deidentified-by": "dicom-deid"})
    return True
