"""Watch an object store for new objects, for stores that send no events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from dicom_deid.exceptions import DicomDeidError


class NewObjectsTrigger(BaseEventTrigger):
    """Fire when new objects have arrived and settled; the trigger of an `AssetWatcher`.

    It lists the source at each poll, so watch the prefix of arrivals and not a whole archive. An event has no key of an
    object. After a restart it fires once more for objects that it has reported; the plan then finds them done.

    Parameters
    ----------
    source
        ``s3://bucket/prefix`` or an absolute path.
    settle_seconds
        Report an object when nothing was added to its folder for so long, so that studies are complete.
    poll_seconds
        Seconds between two listings.
    source_conn_id
        Id of the `aws` connection of the source; None for directories and the AWS environment variables.

    Examples
    --------
    >>> watcher = AssetWatcher("arrivals", trigger=NewObjectsTrigger(source="s3://incoming"))      # doctest: +SKIP
    >>> arrivals = Asset("arrivals", watchers=[watcher])                                           # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        source: str,
        settle_seconds: float = 60.0,
        poll_seconds: float = 10.0,
        source_conn_id: str | None = "dicom_deid_source",
    ) -> None:
        super().__init__()
        self.source = source
        self.settle_seconds = settle_seconds
        self.poll_seconds = poll_seconds
        self.source_conn_id = source_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        arguments = {
            "source": self.source,
            "settle_seconds": self.settle_seconds,
            "poll_seconds": self.poll_seconds,
            "source_conn_id": self.source_conn_id,
        }
        return "dicom_deid.triggers.NewObjectsTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """List the source again and again, and yield an event when objects have settled since the last one."""
        reported: datetime | None = None
        while True:
            try:
                newest = await sync_to_async(self._newest_settled)()
            except DicomDeidError as error:
                # A watcher that ends would not be started again.
                self.log.error("The source cannot be listed: %s. The next poll tries again.", error)
                newest = reported
            if newest is not None and (reported is None or newest > reported):
                reported = newest
                yield TriggerEvent({"source": self.source, "settled_until": newest.isoformat()})
            await asyncio.sleep(self.poll_seconds)

    def _newest_settled(self) -> datetime | None:
        from dicom_deid.hooks.aws import s3_connection
        from dicom_deid.objectstore import open_object_store
        from dicom_deid.pipeline.arrivals import settled_objects

        source = open_object_store(self.source, s3_connection(self.source_conn_id))
        before = datetime.now(UTC) - timedelta(seconds=self.settle_seconds)
        return max((found.last_modified for found in settled_objects(source.list(), before)), default=None)
