"""Retry transient failures with exponential back-off and jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dicom_deid.objectstore.errors import TransientError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter: wait at most ``base * 2 ** n`` seconds before attempt n + 1.

    Parameters
    ----------
    max_attempts
        Attempts in all, at least 1.
    base_seconds, max_seconds
        The first and the longest bound of a wait.
    """

    max_attempts: int = 6
    base_seconds: float = 0.2
    max_seconds: float = 20.0

    def call(
        self, attempt: Callable[[], Result], retry_on: type[Exception] | tuple[type[Exception], ...] = TransientError
    ) -> Result:
        """Return what `attempt` returns, repeating it while it raises an exception of `retry_on`.

        Raises
        ------
        TransientError
            Or another of `retry_on`: that of the last attempt.
        """
        for number in range(self.max_attempts - 1):
            try:
                return attempt()
            except retry_on:
                bound = min(self.max_seconds, self.base_seconds * 2**number)
                time.sleep(random.uniform(0, bound))  # noqa: S311 - jitter is no secret
        return attempt()
