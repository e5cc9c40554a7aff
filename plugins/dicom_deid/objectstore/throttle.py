"""A speed limit, so that a backfill does not overload the archive that it reads from."""

from __future__ import annotations

import threading
import time


class Throttle:
    """Limits requests and bytes per second over all threads that share it.

    Each request and byte reserves a time slot; the next caller waits until the slot has passed. Unused time is not
    saved up.

    Parameters
    ----------
    requests_per_second, bytes_per_second
        None for no limit.
    """

    def __init__(self, *, requests_per_second: float | None = None, bytes_per_second: float | None = None) -> None:
        self._seconds_per_request = 1 / requests_per_second if requests_per_second else 0.0
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._lock = threading.Lock()
        self._requests_free_at = 0.0
        self._bytes_free_at = 0.0

    def request(self) -> None:
        """Wait until one more request may be made, and until the slots of transferred bytes have passed."""
        if not (self._seconds_per_request or self._seconds_per_byte):
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._requests_free_at)
            self._requests_free_at = begin + self._seconds_per_request
            begin = max(begin, self._bytes_free_at)
        time.sleep(begin - now)

    def count_bytes(self, count: int) -> None:
        """Reserve a time slot for `count` transferred bytes; later requests wait for it."""
        if not self._seconds_per_byte:
            return
        with self._lock:
            self._bytes_free_at = max(time.monotonic(), self._bytes_free_at) + count * self._seconds_per_byte
