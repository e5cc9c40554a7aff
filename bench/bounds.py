"""Inputs that once took minutes or gigabytes, and what they take now, each measured in a process of its own."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from tests.support import datasets
from tests.support.datasets import Element, Encoding, ct_elements, element, part10
from tests.support.engine import pseudonyms
from tests.support.runs import CALM, RunEnvironment

from dicom_deid.engine import Deidentifier
from dicom_deid.engine.pixels import Region, clean_pixels
from dicom_deid.exceptions import Quarantine
from dicom_deid.recipe import Recipe
from dicom_deid.recipe.filters import Rectangle

MEGABYTE = 1_000_000
SEARCHED = CALM.replace(residuals="quarantine")


@dataclass(frozen=True)
class Bound:
    """One kind of input.

    Parameters
    ----------
    before
        What it took when it was found; from the report, not measured here.
    bound
        In words.
    seconds, megabytes
        Of processor time, and of resident memory above that of the idle process.
    prepare
        Returns the call that is measured, which returns the outcome.
    """

    before: str
    bound: str
    seconds: float
    megabytes: float
    prepare: Callable[[RunEnvironment], Callable[[], str]]


@dataclass(frozen=True)
class Measured:
    """What one kind of input took."""

    seconds: float
    megabytes: float
    outcome: str


def measure(name: str, environment: RunEnvironment) -> Measured:
    """Measure one kind of input in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, name, environment).result()


def _measure(name: str, environment: RunEnvironment) -> Measured:
    call = ROWS[name].prepare(environment)
    before = _reset_peak()
    began = time.process_time()
    outcome = call()
    return Measured(time.process_time() - began, _peak() - before, outcome)


def _reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / MEGABYTE


def deflated(seed: int, size: int) -> bytes:
    """Return a deflated object of frames of zeros, about a thousandth of their size."""
    plain = [each for each in ct_elements(seed, rows=1000, columns=1000) if each.tag != 0x7FE00010]
    frames = element("NumberOfFrames", str(size // (2 * MEGABYTE)))
    whole = part10([*plain, frames], Encoding(datasets.DEFLATED_LE))
    start = whole.index(b"SCANNER VB42") + 12 + 16
    squeeze = zlib.compressobj(9, wbits=-15)
    body = [squeeze.compress(zlib.decompress(whole[start:], wbits=-15))]
    body.append(squeeze.compress(struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", size)))
    body += [squeeze.compress(bytes(MEGABYTE)) for _ in range(size // MEGABYTE)]
    data = whole[:start] + b"".join([*body, squeeze.flush()])
    return data + bytes(len(data) % 2)


def _run_deflated(count: int, size: int) -> Callable[[RunEnvironment], Callable[[], str]]:
    def prepare(environment: RunEnvironment) -> Callable[[], str]:
        prefix = f"deflated-{count}-{size}"
        environment.put({f"{number}.dcm": deflated(number, size) for number in range(count)}, prefix)
        configuration = environment.configuration(
            source=f"s3://{environment.bucket}/{prefix}",
            destination=f"s3://{environment.bucket}/{prefix}-out",
            in_flight_bytes=128 * 2**20,
            settings=SEARCHED,
        )
        # A first run compiles the recipes, and opens the connections.
        environment.run(configuration.replace(limit=1, source=f"s3://{environment.bucket}/in"))
        return lambda: _outcomes([row.reason or row.outcome for row in environment.run(configuration).rows])

    return prepare


def _engine(objects: Callable[[], Sequence[bytes]]) -> Callable[[RunEnvironment], Callable[[], str]]:
    def prepare(_environment: RunEnvironment) -> Callable[[], str]:
        deidentifier = Deidentifier(Recipe.named("desktop"), SEARCHED)
        deidentifier.deidentify(part10(ct_elements(1, rows=2, columns=2)), pseudonyms)
        given = objects()

        def outcome(data: bytes) -> str:
            try:
                deidentifier.deidentify(data, pseudonyms).to_bytes()
            except Quarantine as problem:
                return problem.reason.value
            return "deidentified"

        return lambda: _outcomes([outcome(data) for data in given])

    return prepare


def _outcomes(found: Sequence[str]) -> str:
    return ", ".join(f"{found.count(each)} {each}" for each in sorted(set(found)))


def _object(*extra: Element, encoding: Encoding | None = None) -> bytes:
    common = [
        element("SOPClassUID", datasets.CT_IMAGE),
        element("SOPInstanceUID", "1.2.3.4.77"),
        element("PatientName", "Okonkwo^Adaeze"),
        element("PatientID", "MRN7788123"),
    ]
    return part10(sorted([*common, *extra]), encoding or Encoding())


def _days(count: int, first: int = 0) -> list[str]:
    return [f"{date(1900, 1, 1) + timedelta(days=first + number):%Y%m%d}" for number in range(count)]


def _with_dates(days: Sequence[str]) -> bytes:
    return _object(element("ReferencedStudySequence", [[element("StudyDate", day)] for day in days]))


def _full_of_hits() -> bytes:
    text = element("ImageComments", "okonkwo " * (10 * MEGABYTE // 8))
    return _object(text, encoding=Encoding(datasets.IMPLICIT_LE))


def _many_tags() -> bytes:
    tags = (tag for tag in range(0x41000000, 0x41130000) if not tag & 0x10000 and tag & 0xFFFF)
    return _object() + b"".join(struct.pack("<HH2sHH", tag >> 16, tag & 0xFFFF, b"US", 2, 0) for tag in tags)


def _decode_claim(syntax: str) -> Callable[[RunEnvironment], Callable[[], str]]:
    def prepare(_environment: RunEnvironment) -> Callable[[], str]:
        file = io.BytesIO()
        Image.new("L", (64, 64)).save(file, "JPEG" if syntax == datasets.JPEG_BASELINE else "JPEG2000")
        frame = file.getvalue()
        if syntax != datasets.JPEG_BASELINE:
            frame = frame[frame.index(b"\xff\x4f\xff\x51") :]
        side = (64).to_bytes(2 if syntax == datasets.JPEG_BASELINE else 4, "big") * 2
        claim = frame.replace(side, (65500).to_bytes(len(side) // 2, "big") * 2, 1)
        header = Dataset()
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
        header.Rows = header.Columns = 65500

        def call() -> str:
            try:
                clean_pixels(header, encapsulate([claim]), syntax, [Region(True, Rectangle(0, 0, 10, 4))])
            except Quarantine as problem:
                return f"{len(claim)} bytes: {problem.reason.value}"
            return f"{len(claim)} bytes: cleaned"

        return call

    return prepare


ROWS = {
    "6 deflated objects of 200 KB at once, --memory 128": Bound(
        "1.5 GB", "one at a time (200 MB)", 60, 260, _run_deflated(6, 200 * MEGABYTE)
    ),
    "1 deflated object of 250 KB, legitimate": Bound(
        "2.9 times its size", "its size (250 MB)", 20, 310, _run_deflated(1, 250 * MEGABYTE)
    ),
    "1 deflated object of 1.5 MB": Bound("3.0 GB", "256 MiB", 20, 260, _run_deflated(1, 1500 * MEGABYTE)),
    "30,000 nested dates in 720 KB": Bound(
        "94 s, 2.0 GB", "2 s, 100 MB", 2, 100, _engine(lambda: [_with_dates(_days(30_000))])
    ),
    "30 objects with 1,000 dates each": Bound(
        "2.4 GB",
        "patterns of 100 MB",
        10,
        150,
        _engine(lambda: [_with_dates(_days(1000, 1000 * number)) for number in range(30)]),
    ),
    "10 MB of text full of hits": Bound("24 s, 1.8 GB", "1,000 hits", 2, 100, _engine(lambda: [_full_of_hits()])),
    "JPEG that claims 65,500 x 65,500": Bound("over 9 GB", "not decoded", 2, 64, _decode_claim(datasets.JPEG_BASELINE)),
    "JPEG 2000 that claims 65,500 x 65,500": Bound(
        "over 9 GB", "not decoded", 2, 64, _decode_claim("1.2.840.10008.1.2.4.90")
    ),
    "600,000 distinct tags": Bound("over 120 s", "5 s", 5, 300, _engine(lambda: [_many_tags()])),
}
