"""Report the progress of a batch at an interval."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicom_deid.database import BatchItem
from dicom_deid.reasons import Outcome


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a batch.

    Parameters
    ----------
    objects, total_objects
        Objects done, and objects of the batch.
    bytes_in, total_bytes
        Their sizes at the source.
    outcomes
        Objects by outcome.
    seconds
        Time since the batch began.
    """

    objects: int
    total_objects: int
    bytes_in: int
    total_bytes: int
    outcomes: dict[Outcome, int]
    seconds: float

    @property
    def objects_per_second(self) -> float:
        """Objects per second since the batch began."""
        return self.objects / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds for the rest at the rate of bytes so far, None before the first object."""
        if not self.bytes_in:
            return None
        return self.seconds * (self.total_bytes - self.bytes_in) / self.bytes_in

    def __str__(self) -> str:
        left = f", about {self.seconds_left:.0f} s left" if self.seconds_left is not None else ""
        quarantined = self.outcomes.get(Outcome.QUARANTINED, 0)
        failed = self.outcomes.get(Outcome.FAILED, 0)
        wrong = f", {quarantined} quarantined" * bool(quarantined) + f", {failed} failed" * bool(failed)
        return (
            f"{self.objects} of {self.total_objects} objects{wrong}, {self.bytes_in / 1e6:.1f} MB, "
            f"{self.objects_per_second:.0f} objects/s{left}"
        )


class ProgressReporter:
    """Calls a function with the progress, at most once per interval, and once at the end.

    Parameters
    ----------
    callback
        The function; None to report nothing.
    seconds
        The interval.
    items
        The objects of the batch.
    """

    def __init__(self, callback: Callable[[Progress], None] | None, seconds: float, items: Sequence[BatchItem]) -> None:
        self._callback = callback
        self._interval = seconds
        self._total_objects = len(items)
        self._total_bytes = sum(item.size for item in items)
        self._began = self._reported = time.monotonic()
        self._bytes = 0
        self._outcomes: Counter[Outcome] = Counter()

    def count(self, outcome: Outcome, size: int) -> None:
        """Count one object."""
        self._outcomes[outcome] += 1
        self._bytes += size

    def report(self, *, now: bool = False) -> None:
        """Call the function if the interval has passed."""
        moment = time.monotonic()
        if self._callback is None or (moment - self._reported < self._interval and not now):
            return
        self._reported = moment
        self._callback(
            Progress(
                self._outcomes.total(),
                self._total_objects,
                self._bytes,
                self._total_bytes,
                dict(self._outcomes),
                moment - self._began,
            )
        )
