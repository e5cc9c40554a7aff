"""The target of all fuzzers: returns an object or a reason; anything else is a fault."""

from __future__ import annotations

import io
import time
import warnings

from pydicom import dcmread

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

OPEN = Settings(residuals="off", pixel_risk="allow", documents="allow", max_inflated_bytes=2**24)

ENGINES = (
    Deidentifier(Recipe.named("desktop"), OPEN.replace(residuals="redact-token")),
    Deidentifier(
        Recipe.parse("FORMAT dicom\n%header\nKEEP StudyDate\nREMOVE contains:Name\n"),
        Settings.parity().replace(max_inflated_bytes=2**24),
    ),
    Deidentifier(Recipe.named("ps3.15-basic"), OPEN),
)

SECONDS = 2.0
"""No input of a few kilobytes may take longer, whatever it claims to be."""


def resolve(identifiers):
    return {one: f"2.25.{number}" if one.kind == "UID" else str(number) for number, one in enumerate(identifiers, 1)}


def run(data: bytes) -> list[bytes | Reason]:
    """De-identify with each engine; return the outcomes.

    Raises
    ------
    AssertionError
        When all engines together took too long, or when an output is not one that the engine itself can read again.
    Exception
        Whatever else than a quarantine the engine raised: a fault.
    """
    began = time.process_time()
    outcomes = [_run(engine, data) for engine in ENGINES]
    assert time.process_time() - began < SECONDS
    return outcomes


def _run(engine: Deidentifier, data: bytes) -> bytes | Reason:
    try:
        outcome: bytes | Reason = engine.deidentify(data, resolve).to_bytes()
    except Quarantine as quarantine:
        outcome = Reason(quarantine.reason)
    if isinstance(outcome, bytes):
        # The engine must be able to read what it writes.
        engine.deidentify(outcome, resolve)
    return outcome


def pydicom_reads(data: bytes) -> bool:
    """Return whether pydicom reads all elements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for _ in dcmread(io.BytesIO(data)).iterall():
                pass
        except Exception:
            return False
    return True
