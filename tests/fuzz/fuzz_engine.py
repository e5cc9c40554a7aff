"""Coverage-guided fuzzing of the engine: ``python -m tests.fuzz.fuzz_engine tests/fuzz/corpus -max_total_time=300``.

Needs the extra `fuzz`. What it finds goes, made small, into ``tests/fuzz/corpus``, which the tests replay.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dicom_deid"]):
    from tests.fuzz.target import run


def one_input(data: bytes) -> None:
    """Run one input; an exception is a find."""
    run(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
