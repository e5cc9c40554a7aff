"""Counts of passed and failed expectations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Passed and failed expectations of one category; failures by path or modality, never with a value."""

    passed: int = 0
    failed: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def percent(self) -> float:
        """Percentage passed, 0 to 100; 100 if there are none."""
        return 100 * self.passed / (self.passed + self.failed) if self.passed + self.failed else 100.0

    def count(self, passed: bool, where: str) -> None:
        """Count one expectation."""
        if passed:
            self.passed += 1
        else:
            self.failed += 1
            self.failures[where] += 1
