"""An object read as far as the engine needs it: whole when it is small, up to its pixel data when it is large."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dicom_deid.engine import AnalysisResult, Deidentifier, NeedMoreDataError, SearchTerms
from dicom_deid.exceptions import Quarantine
from dicom_deid.objectstore import ObjectStore
from dicom_deid.objectstore.base import Buffer
from dicom_deid.pipeline.fragments import end_of_fragments
from dicom_deid.reasons import Reason

FIRST_BYTES = 2**20
"""What is read first of a large object: the elements before pixel data are seldom longer."""

GLANCE_BYTES = 64 * 2**10
"""What is read first of an object of which only the originals are wanted."""

MAX_HEADER_BYTES = 256 * 2**20
"""Elements before, or after, pixel data that are longer are not read into memory."""

LARGE_OBJECT_BYTES = 64 * 2**20

_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\x00")
"""The tag (7FE0,0010) in little endian."""


Looked = TypeVar("Looked")


@dataclass(slots=True)
class FetchedObject:
    """An object that the engine has looked through.

    Parameters
    ----------
    data
        The bytes that were read from its beginning: all of them, unless it is large.
    size
        Of the whole object, in bytes.
    examination
        What the engine found.
    tail
        What follows the pixel data of a large object.
    sha256
        Of the whole object, where all its bytes were read.
    """

    data: Buffer
    size: int
    analysis: AnalysisResult
    tail: bytes = b""
    sha256: str | None = None


def fetch_object(
    deidentifier: Deidentifier,
    storage: ObjectStore,
    key: str,
    *,
    size: int,
    etag: str | None = None,
    version_id: str | None = None,
    large_object_bytes: int = LARGE_OBJECT_BYTES,
) -> FetchedObject:
    """Read and examine an object.

    Raises
    ------
    Quarantine
        What the engine finds wrong; `HEADER_TOO_LARGE` when a large object has more than `MAX_HEADER_BYTES` before
        its pixel data; `OBJECT_VANISHED` or `OBJECT_CHANGED` when it is not what was listed.
    ObjectStoreError
        It could not be read.
    """
    if size < large_object_bytes:
        data = storage.read(key, etag=etag, size=size, version_id=version_id)
        return FetchedObject(data, len(data), _examine(deidentifier, data), sha256=hashlib.sha256(data).hexdigest())
    return _read_large(deidentifier, storage, key, size, etag, version_id)


def _examine(deidentifier: Deidentifier, data: Buffer) -> AnalysisResult:
    """Examine an object in memory, without a copy of native pixel data that ends it."""
    begin = _begin_of_last_pixel_data(data)
    if begin is not None:
        try:
            analysis = deidentifier.analyse(bytes(data[:begin]), size=len(data))
        except (NeedMoreDataError, Quarantine):
            # What is wrong with an object is said of it as a whole.
            pass
        else:
            if analysis.pixel_data == (begin, len(data)):
                return analysis
    return deidentifier.analyse(bytes(data))


def _begin_of_last_pixel_data(data: Buffer) -> int | None:
    """Return where the value of PixelData begins if all that follows is that value, native and little endian."""
    found = _PIXEL_DATA.search(data)
    if found is None:
        return None
    # Implicit VR: the length follows the tag; explicit VR OB, OW or UN: four bytes later (PS3.5 section 7.1).
    for at in (found.end(), found.end() + 4):
        begin = at + 4
        if begin + int.from_bytes(data[at:begin], "little") == len(data):
            return begin
    return None


def _read_large(
    deidentifier: Deidentifier, storage: ObjectStore, key: str, size: int, etag: str | None, version_id: str | None
) -> FetchedObject:
    read = _reader(storage, key, etag, version_id)

    def analyse(data: bytes) -> AnalysisResult:
        analysis = deidentifier.analyse(data, size=size)
        # What was read may end just between two elements: what follows was not looked at then.
        if analysis.pixel_data is None and len(data) < size:
            raise NeedMoreDataError(2 * len(data))
        return analysis

    data, analysis = _look(read, size, FIRST_BYTES, analyse)
    if len(data) == size:
        return FetchedObject(data, size, analysis, sha256=hashlib.sha256(data).hexdigest())
    return FetchedObject(data, size, analysis, _examine_tail(deidentifier, analysis, read, size))


def _reader(storage: ObjectStore, key: str, etag: str | None, version_id: str | None) -> Callable[[int, int], bytes]:
    return lambda start, end: bytes(storage.read(key, etag=etag, version_id=version_id, start=start, end=end))


def _look(
    read: Callable[[int, int], bytes], size: int, first: int, analyse: Callable[[bytes], Looked]
) -> tuple[bytes, Looked]:
    """Read as much of an object's beginning as it takes to examine it; return it with what the examination gave."""
    data = read(0, min(first, size))
    while True:
        try:
            return data, analyse(data)
        except NeedMoreDataError as need:
            wanted = min(max(need.at_least, 2 * len(data)), size)
        if wanted > MAX_HEADER_BYTES or len(data) == size:
            raise Quarantine(Reason.HEADER_TOO_LARGE, "before (7fe0,0010)")
        data += read(len(data), wanted)


def read_patient_terms(
    deidentifier: Deidentifier, storage: ObjectStore, key: str, *, size: int, etag: str, version_id: str | None
) -> tuple[str, SearchTerms]:
    """Read the beginning of an object, and return whose it is and the originals of the patient that rules take out.

    Raises
    ------
    Quarantine, ObjectStoreError
        As for `fetch_object`.
    """
    read = _reader(storage, key, etag, version_id)
    return _look(read, size, GLANCE_BYTES, lambda data: deidentifier.patient_terms(data, size=size))[1]


def _examine_tail(
    deidentifier: Deidentifier, analysis: AnalysisResult, read: Callable[[int, int], bytes], size: int
) -> bytes:
    """Read and examine what follows the pixel data; return its bytes."""
    if analysis.pixel_data is None:
        return b""
    start, end = analysis.pixel_data
    if end is None:
        end = end_of_fragments(read, start, size)
    if end > size:
        raise Quarantine(Reason.TRUNCATED, "(7fe0,0010)", size)
    if size - end > MAX_HEADER_BYTES:
        raise Quarantine(Reason.HEADER_TOO_LARGE, "after (7fe0,0010)")
    if end == size:
        return b""
    tail = read(end, size)
    deidentifier.analyse_tail(analysis, tail)
    return tail
