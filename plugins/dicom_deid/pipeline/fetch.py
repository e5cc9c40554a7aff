"""Read an object as far as the engine needs it: whole if it is small, up to its pixel data if it is large."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dicom_deid.dicom.deflate import inflated_size
from dicom_deid.dicom.part10 import read_header
from dicom_deid.dicom.root_elements import RootElements, read_root_elements
from dicom_deid.engine import AnalysisResult, Deidentifier, NeedMoreDataError, SearchTerms
from dicom_deid.engine.free_text import read_free_texts
from dicom_deid.engine.pixels.filters import element_text
from dicom_deid.exceptions import Quarantine
from dicom_deid.objectstore import ObjectStore
from dicom_deid.objectstore.base import Buffer
from dicom_deid.pipeline.fragments import end_of_fragments
from dicom_deid.reasons import Reason
from dicom_deid.recipe.selection import Selection

FIRST_BYTES = 2**20
"""Length of the first read of a large object: the elements before the pixel data are rarely longer."""

HEADER_SCAN_BYTES = 64 * 2**10
"""Length of the first read of an object when only its header is needed."""

_ROOT_BYTES = 16 * 2**10
"""Length of the first read when a few elements are needed: those of a CT or MR are rarely behind it."""

MAX_HEADER_BYTES = 256 * 2**20
"""Bound of the elements before, and of those after, the pixel data that are read into memory."""

LARGE_OBJECT_BYTES = 64 * 2**20
"""Objects of at least this size are not read into memory as a whole."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 8 * 2**10
_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\x00")
"""The tag (7FE0,0010) in little endian."""


Analysed = TypeVar("Analysed")


@dataclass(slots=True)
class FetchedObject:
    """An object that was read and analysed.

    Parameters
    ----------
    data
        The bytes that were read from its beginning: all of them, unless it is large.
    size
        Size of the whole object in bytes.
    analysis
        The engine's analysis.
    tail
        The bytes after the pixel data of a large object.
    sha256
        SHA-256 of the whole object, None unless all its bytes were read.
    """

    data: Buffer
    size: int
    analysis: AnalysisResult
    tail: bytes = b""
    sha256: str | None = None


class MoreMemoryNeeded(Exception):
    """A deflated object is larger in memory than the caller has room for.

    Parameters
    ----------
    size
        Bytes of the inflated data set; of a large object, which was not read yet, their bound and its own bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


def fetch_object(
    deidentifier: Deidentifier,
    store: ObjectStore,
    key: str,
    *,
    size: int,
    etag: str | None = None,
    version_id: str | None = None,
    large_object_bytes: int = LARGE_OBJECT_BYTES,
    max_inflated_bytes: int | None = None,
    defer_search: bool = False,
) -> FetchedObject:
    """Read and analyse an object.

    Parameters
    ----------
    deidentifier
        The engine.
    store, key, size, etag, version_id
        The object, as it was listed.
    large_object_bytes
        An object of at least this size is read up to its pixel data only.
    max_inflated_bytes
        Bytes that the caller has room for if the data set is deflated; None for no limit but that of the engine.
    defer_search
        See `Deidentifier.analyse`.

    Raises
    ------
    MoreMemoryNeeded
        The data set inflates to more than `max_inflated_bytes`.
    Quarantine
        By the engine; `HEADER_TOO_LARGE` when a large object has more than `MAX_HEADER_BYTES` before its pixel data;
        `OBJECT_VANISHED` or `OBJECT_CHANGED` when it is not the object that was listed.
    ObjectStoreError
        It could not be read.
    """
    if size < large_object_bytes:
        data = store.read(key, etag=etag, size=size, version_id=version_id)
        _require_memory(deidentifier, data, size, max_inflated_bytes)
        analysis = _analyse(deidentifier, data, defer_search=defer_search)
        return FetchedObject(data, len(data), analysis, sha256=hashlib.sha256(data).hexdigest())
    return _read_large(deidentifier, store, key, size, etag, version_id, max_inflated_bytes)


def _require_memory(deidentifier: Deidentifier, data: Buffer, size: int, room: int | None) -> None:
    """Raise an exception if a deflated object, or its beginning, needs more memory than there is room for."""
    beginning = bytes(data[:_META_BYTES])
    if room is None or _DEFLATED not in beginning:
        return
    limit = deidentifier.settings.max_inflated_bytes
    if len(data) == size:
        needed, _ = inflated_size(data, read_header(beginning).data_set_start, limit)
    else:
        needed = size + limit if size >= LARGE_OBJECT_BYTES else 0
    if needed > room:
        raise MoreMemoryNeeded(needed)


def _analyse(deidentifier: Deidentifier, data: Buffer, *, defer_search: bool) -> AnalysisResult:
    """Analyse an object in memory, without copying native pixel data at its end."""
    begin = _begin_of_last_pixel_data(data)
    if begin is not None:
        try:
            analysis = deidentifier.analyse(bytes(data[:begin]), size=len(data))
        except (NeedMoreDataError, Quarantine):
            # Errors are reported by the full parse below.
            pass
        else:
            if analysis.pixel_data == (begin, len(data)):
                return analysis
    return deidentifier.analyse(bytes(data), defer_search=defer_search)


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
    deidentifier: Deidentifier,
    store: ObjectStore,
    key: str,
    size: int,
    etag: str | None,
    version_id: str | None,
    max_inflated_bytes: int | None,
) -> FetchedObject:
    read = _reader(store, key, etag, version_id)

    def analyse(data: bytes) -> AnalysisResult:
        _require_memory(deidentifier, data, size, max_inflated_bytes)
        analysis = deidentifier.analyse(data, size=size)
        # The bytes that were read may end exactly between two elements.
        if analysis.pixel_data is None and len(data) < size:
            raise NeedMoreDataError(2 * len(data))
        return analysis

    data, analysis = _read_until_analysed(read, size, FIRST_BYTES, analyse)
    if len(data) == size:
        return FetchedObject(data, size, analysis, sha256=hashlib.sha256(data).hexdigest())
    return FetchedObject(data, size, analysis, _analyse_tail(deidentifier, analysis, read, size))


def _reader(store: ObjectStore, key: str, etag: str | None, version_id: str | None) -> Callable[[int, int], bytes]:
    return lambda start, end: bytes(store.read(key, etag=etag, version_id=version_id, start=start, end=end))


def _read_until_analysed(
    read: Callable[[int, int], bytes],
    size: int,
    first: int,
    analyse: Callable[[bytes], Analysed],
    limit: int | None = None,
) -> tuple[bytes, Analysed]:
    """Read an object's beginning, more and more of it, until it can be analysed; return it with the analysis."""
    data = read(0, min(first, size))
    while True:
        try:
            return data, analyse(data)
        except NeedMoreDataError as need:
            wanted = min(max(need.at_least, 2 * len(data)), size)
        if wanted > (limit or MAX_HEADER_BYTES) or len(data) == size:
            raise Quarantine(Reason.HEADER_TOO_LARGE, "before (7fe0,0010)")
        data += read(len(data), wanted)


def read_patient_terms(
    deidentifier: Deidentifier,
    store: ObjectStore,
    key: str,
    *,
    size: int,
    etag: str,
    version_id: str | None,
    max_inflated_bytes: int | None = None,
) -> tuple[str, SearchTerms]:
    """Read the header of an object, and return its patient and the values that the rules remove.

    Raises
    ------
    MoreMemoryNeeded, Quarantine, ObjectStoreError
        As for `fetch_object`.
    """

    def terms_of(data: bytes) -> tuple[str, SearchTerms]:
        _require_memory(deidentifier, data, size, max_inflated_bytes)
        return deidentifier.patient_terms(data, size=size)

    return _read_until_analysed(_reader(store, key, etag, version_id), size, HEADER_SCAN_BYTES, terms_of)[1]


def fetch_free_texts(
    store: ObjectStore, key: str, *, size: int, etag: str, version_id: str | None
) -> tuple[str, list[str]]:
    """Read the header of an object, and return its patient and its free texts; see `read_free_texts`.

    Raises
    ------
    Quarantine, ObjectStoreError
        As for `fetch_object`.
    """
    read = _reader(store, key, etag, version_id)
    return _read_until_analysed(
        read, size, HEADER_SCAN_BYTES, lambda data: read_free_texts(data, partial=len(data) < size)
    )[1]


def fetch_root_elements(
    store: ObjectStore,
    key: str,
    tags: frozenset[int],
    *,
    size: int,
    etag: str | None,
    version_id: str | None,
    lenient: bool = False,
    limit: int | None = None,
) -> RootElements:
    """Read an object as far as the last of some elements of its root data set, and return those.

    Parameters
    ----------
    limit
        Bytes that are read at most; None for `MAX_HEADER_BYTES`.
    tags, lenient
        See `read_root_elements`.

    Raises
    ------
    Quarantine, ObjectStoreError
        As for `fetch_object`.
    """
    read = _reader(store, key, etag, version_id)
    analyse = partial(read_root_elements, tags=tags, size=size, lenient=lenient)
    return _read_until_analysed(read, size, _ROOT_BYTES, analyse, limit)[1]


def excluding_criterion(selection: Selection, header: RootElements) -> str:
    """Return the line of criteria that excludes an object; empty if none does."""
    dataset = header.dataset()
    return selection.excluded_by(lambda tag: element_text(dataset, tag))


def _analyse_tail(
    deidentifier: Deidentifier, analysis: AnalysisResult, read: Callable[[int, int], bytes], size: int
) -> bytes:
    """Read and analyse what follows the pixel data; return its bytes."""
    if analysis.pixel_data is None:
        return b""
    start, end = analysis.pixel_data
    if end is None:
        end, pieces = end_of_fragments(read, start, size)
        deidentifier.search_pixel_data(analysis, pieces)
    if end > size:
        raise Quarantine(Reason.TRUNCATED, "(7fe0,0010)", size)
    if size - end > MAX_HEADER_BYTES:
        raise Quarantine(Reason.HEADER_TOO_LARGE, "after (7fe0,0010)")
    if end == size and not analysis.walk.after_pixels:
        return b""
    tail = read(end, size) if end < size else b""
    deidentifier.analyse_tail(analysis, tail)
    return tail
