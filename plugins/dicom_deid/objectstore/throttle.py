"""A speed limit, so that a backfill does not starve the archive that it reads from."""

from __future__ import annotations

import threading
import time


class Throttle:
    """Limits requests and bytes a second, over all threads that share it.

    Every request and every byte books a stretch of time on a calendar; who comes next waits until the calendar is
    free. What is not used is not saved up.

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
        """Wait until one more request may be made, and until bytes that were moved are paid for."""
        if not (self._seconds_per_request or self._seconds_per_byte):
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._requests_free_at)
            self._requests_free_at = begin + self._seconds_per_request
            begin = max(begin, self._bytes_free_at)
        time.sleep(begin - now)

    def moved(self, count: int) -> None:
        """Book `count` bytes that were moved; later requests wait for them."""
        if not self._seconds_per_byte:
            return
        with self._lock:
            self._bytes_free_at = max(time.monotonic(), self._bytes_free_at) + count * self._seconds_per_byte
