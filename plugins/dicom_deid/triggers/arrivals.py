"""Watch for new objects: by listing the store, or by the messages that it sends to a queue."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from math import ceil
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from dicom_deid.exceptions import DicomDeidError

_STEP_SECONDS = 5
"""Events of messages are this far apart at least."""
_RETRY_SECONDS = 10.0
_STEPS_OF_START = 4
"""A triggerer that dies before the time to settle has passed reports what it can."""


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


class SettledMessagesTrigger(BaseEventTrigger):
    """Fire when objects that a message queue announced have settled; the trigger of an `AssetWatcher`.

    The messages are received by another trigger. They hold keys of objects, which may name patients, so they are
    dropped: an event of this trigger says only that there is something to list. It also fires after a start, several
    times until what had arrived by then has settled, and every `sweep_seconds`, for messages that were lost; the plan
    then finds what is done.

    Parameters
    ----------
    messages
        The trigger that receives messages, such as `MessageQueueTrigger` of the provider `common.messaging`.
    settle_seconds
        Seconds after a message until its object has settled, as in `DicomPlanOperator`.
    sweep_seconds
        Longest time without an event.

    Examples
    --------
    >>> queue = MessageQueueTrigger(scheme="sqs", sqs_queue="https://...", waiter_delay=2)         # doctest: +SKIP
    >>> watcher = AssetWatcher("arrivals", trigger=SettledMessagesTrigger(messages=queue))         # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        messages: BaseEventTrigger | str,
        settle_seconds: float = 60.0,
        sweep_seconds: float = 3600.0,
    ) -> None:
        super().__init__()
        # A text is the serialised form; Airflow does not accept nested arguments of a trigger.
        self.messages = _trigger(*json.loads(messages)) if isinstance(messages, str) else messages
        self.settle_seconds = settle_seconds
        self.sweep_seconds = sweep_seconds
        # Instants at which an event is due, in ascending order.
        self._due: list[int] = []

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        arguments = {
            "messages": json.dumps(self.messages.serialize(), sort_keys=True),
            "settle_seconds": self.settle_seconds,
            "sweep_seconds": self.sweep_seconds,
        }
        return "dicom_deid.triggers.SettledMessagesTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Receive messages, and yield an event when the oldest one that was not reported has settled."""
        # An earlier process may have received messages of objects that settle at any time from now on.
        for step in range(_STEPS_OF_START + 1):
            self._announce(self.settle_seconds * step / _STEPS_OF_START)
        receiving = asyncio.create_task(self._receive())
        swept = time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if now >= (self._due[0] if self._due else swept + self.sweep_seconds):
                    self._due = [due for due in self._due if due > now]
                    swept = now
                    yield TriggerEvent({"settled_until": datetime.now(UTC).isoformat()})
                await asyncio.sleep(1)
        finally:
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                await receiving

    async def _receive(self) -> None:
        """Receive messages until cancelled; a queue that cannot be read is tried again."""
        while True:
            try:
                async for _ in self.messages.run():
                    self._announce(self.settle_seconds)
                # Some triggers end after their first event.
                await asyncio.sleep(0.1)
            except Exception as error:
                # Each provider has errors of its own, whose text may quote a message.
                self.log.error("The queue cannot be read (%s). It is tried again.", type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)

    def _announce(self, seconds: float) -> None:
        """Note that an event is due in so many seconds."""
        due = _STEP_SECONDS * ceil((time.monotonic() + seconds) / _STEP_SECONDS)
        if not self._due or due > self._due[-1]:
            self._due.append(due)


def _trigger(path: str, arguments: dict[str, Any]) -> BaseEventTrigger:
    module, _, name = path.rpartition(".")
    trigger: BaseEventTrigger = getattr(import_module(module), name)(**arguments)
    return trigger
