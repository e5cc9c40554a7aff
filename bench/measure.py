"""Timing on one core, and tables that a person reads."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds of processor time for one call: the median and the least of several samples."""

    median: float
    least: float

    @property
    def milliseconds(self) -> str:
        """The median in milliseconds, as text."""
        return f"{self.median * 1e3:.3f}"


def use_one_core() -> None:
    """Pin this process, and all it starts, to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def machine() -> str:
    """Return the processor and the Python that the figures belong to."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, Python {platform.python_version()}, one core"


def race(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int = 7, sample_seconds: float = 0.03
) -> dict[str, Timing]:
    """Time every contender in turns, so that a slow moment of the machine hits all of them.

    The time is that of the processor: what else runs on the machine is not counted.

    Parameters
    ----------
    contenders
        Name and call. One call is made first, not timed.
    rounds
        Samples a contender.
    sample_seconds
        A sample repeats the call until about this much time has passed; one call may take longer.

    Returns
    -------
    dict
        Timing of one call, by name.
    """
    repeats = {}
    for name, call in contenders.items():
        call()
        began = time.process_time()
        call()
        repeats[name] = max(1, min(500, int(sample_seconds / (time.process_time() - began + 1e-9))))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            began = time.process_time()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.process_time() - began) / repeats[name])
    return {name: Timing(statistics.median(times), min(times)) for name, times in samples.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table whose columns line up."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
