"""Write an object that consists of new bytes and of ranges of its source, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, pairwise
from threading import Semaphore
from typing import Literal

from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.objects import SourceObject, SourceRange, WrittenObject
from dicom_deid.objectstore.base import Buffer, MultipartUpload, ObjectStore
from dicom_deid.objectstore.containers import holder_of
from dicom_deid.objectstore.errors import PreconditionFailed, RefusedError
from dicom_deid.objectstore.part_planner import Segment, UploadPart, cut_to_copy, cut_to_stream, length
from dicom_deid.reasons import Reason

PART_BYTES = 8 * 2**20
SINGLE_PUT_BYTES = 32 * 2**20
"""Up to this size one request is faster than several."""

PARTS_IN_MEMORY = 6
"""Parts of a streamed object that are read, hashed or written at the same time."""
_READ_AT_ONCE = 2
_WRITTEN_AT_ONCE = 3
_COPIED_AT_ONCE = 8
"""Parts of one object that the store is asked to copy at the same time: that takes no memory, and AWS copies faster."""


class WriteMethod(StrEnum):
    """Result of writing an object."""

    PUT = "put"
    MULTIPART = "multipart"
    SERVER_SIDE_COPY = "server-side-copy"
    ALREADY_PRESENT = "found"
    """The key held the same bytes already."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The object that `write_parts` wrote, or found at the key.

    Parameters
    ----------
    key, size, etag
        The object at the destination.
    method
        How it was written.
    through_worker
        Bytes that were read from the source or sent to the destination through this process, each counted once.
    sha256
        Of the whole object, as 64 hexadecimal digits; None when not all its bytes went through this process.
    sent_sha256
        Of the bytes that this process sent, in order; of the whole object where `sha256` is known.
    """

    key: str
    size: int
    etag: str
    method: WriteMethod
    through_worker: int
    sha256: str | None
    sent_sha256: str


def write_parts(
    source: ObjectStore,
    source_object: SourceObject,
    destination: ObjectStore,
    key: str,
    parts: Sequence[Segment],
    *,
    metadata: Mapping[str, str],
    server_side_copy: bool = True,
    verify: Literal["known", "full"] = "known",
    replaces: str | None = None,
    observe: Callable[[Buffer], object] | None = None,
    part_bytes: int = PART_BYTES,
    parts_in_memory: Semaphore | None = None,
) -> WriteResult:
    """Write an object in one request, in parts, or by letting the store copy unchanged ranges.

    The object becomes visible when it is complete, and a failed upload is removed. Memory is bounded by the parts in
    memory and, while two of them are read, the same size once more, in addition to `parts`.

    Parameters
    ----------
    source, source_object
        Object of the ranges in `parts`; it must still be the object that was listed.
    destination, key
        Store and key of the new object; an existing object is not replaced, unless it has the ETag `replaces`.
    parts
        The object's bytes in order: new ones, and ranges of the source.
    metadata
        Written with the object; no PHI.
    server_side_copy
        Let the store copy the ranges, if both are at one endpoint and it does not refuse.
    verify
        `full`: read an object back that the store copied, to compute its SHA-256.
    replaces
        ETag of the object at the key that is replaced; None for a new object.
    observe
        Called with the bytes read from the source, in order, if this process sends all ranges (not if the store copies
        them).
    part_bytes
        Size of a part; at least 5 MiB.
    parts_in_memory
        Held once for each part that is in memory while this process sends all bytes: a bound for all objects of the
        caller. None for a bound of `PARTS_IN_MEMORY` for this object.

    Raises
    ------
    Quarantine
        `OBJECT_VANISHED` or `OBJECT_CHANGED` of the source; `DESTINATION_CONFLICT` if the key holds a different
        object.
    ObjectStoreError
        It could not be written.
    """
    source = holder_of(source, source_object.key)
    writer = _Writer(
        source,
        source_object,
        destination,
        key,
        metadata,
        observe,
        replaces,
        parts_in_memory or Semaphore(PARTS_IN_MEMORY),
    )
    total = sum(length(part) for part in parts)
    ranged = any(isinstance(part, SourceRange) for part in parts)
    if total <= SINGLE_PUT_BYTES:
        return writer.put(parts)
    to_stream = cut_to_stream(parts, part_bytes)
    existing = destination.find(key)
    if existing is not None and existing.etag != replaces:
        return writer.compare(existing, to_stream)
    try:
        if server_side_copy and ranged and destination.can_copy_from(source):
            try:
                return writer.copy(cut_to_copy(parts), read_back=verify == "full", part_bytes=part_bytes)
            except (RefusedError, ConfigurationError):
                # The store does not copy, or the destination's credentials may not read the source.
                pass
        return writer.stream(to_stream)
    except PreconditionFailed:
        existing = destination.find(key)
        if existing is None:
            raise
        return writer.compare(existing, to_stream)


class _Writer:
    def __init__(
        self,
        source: ObjectStore,
        source_object: SourceObject,
        destination: ObjectStore,
        key: str,
        metadata: Mapping[str, str],
        observe: Callable[[Buffer], object] | None,
        replaces: str | None,
        parts_in_memory: Semaphore,
    ) -> None:
        self._source = source
        self._source_object = source_object
        self._destination = destination
        self._key = key
        self._metadata = metadata
        self._observe = observe
        self._replaces = replaces
        self._parts_in_memory = parts_in_memory

    def put(self, parts: Sequence[Segment]) -> WriteResult:
        """Read the ranges and write everything in one request."""
        buffers = self._load(parts)
        digest = hashlib.sha256()
        self._account(parts, buffers, digest)
        written = self._destination.write(self._key, buffers, metadata=self._metadata, replaces=self._replaces)
        method = WriteMethod.ALREADY_PRESENT if written.existed else WriteMethod.PUT
        return WriteResult(*written[:3], method, written.size, digest.hexdigest(), digest.hexdigest())

    def stream(self, upload_parts: Sequence[UploadPart]) -> WriteResult:
        """Send every part."""
        digest = hashlib.sha256()
        size = 0
        with (
            self._upload() as upload,
            _pool(_WRITTEN_AT_ONCE) as pool,
            closing(self._read_ahead(upload_parts)) as parts,
        ):
            sending: deque[Future[None]] = deque()
            for part, data in parts:
                self._account(part.segments, _cut(data, part.segments), digest)
                size += part.size
                sending.append(pool.submit(upload.put_part, part.number, part.offset, data))
                sending[-1].add_done_callback(lambda _: self._parts_in_memory.release())
                # The next part may wait until the memory of this one is free.
                del data
                while sending and sending[0].done():
                    sending.popleft().result()
            _wait_for(sending)
            written = upload.complete()
        return WriteResult(*written[:3], WriteMethod.MULTIPART, size, digest.hexdigest(), digest.hexdigest())

    def copy(self, upload_parts: Sequence[UploadPart], *, read_back: bool, part_bytes: int) -> WriteResult:
        """Let the store copy the ranges, and send the rest."""
        sent = hashlib.sha256()
        through_worker = 0
        with self._upload(copies=True) as upload, _pool(_COPIED_AT_ONCE) as pool:
            copying = [
                pool.submit(upload.copy_part, part.number, part.offset, self._source, self._source_object, *part.copied)
                for part in upload_parts
                if part.copied is not None
            ]
            for part in upload_parts:
                if part.copied is None:
                    data = self._read(part)
                    sent.update(data)
                    through_worker += len(data)
                    upload.put_part(part.number, part.offset, data)
            _wait_for(copying)
            written = upload.complete()
        sha256 = None
        if read_back:
            sha256 = self._hash_back(written, part_bytes)
            through_worker += written.size
        return WriteResult(*written[:3], WriteMethod.SERVER_SIDE_COPY, through_worker, sha256, sent.hexdigest())

    def compare(self, existing: SourceObject, upload_parts: Sequence[UploadPart]) -> WriteResult:
        """Compare the existing object with the new one; raise `DESTINATION_CONFLICT` if they differ."""
        size = sum(part.size for part in upload_parts)
        if existing.size != size:
            raise Quarantine(Reason.DESTINATION_CONFLICT)
        digest = hashlib.sha256()
        with closing(self._read_ahead(upload_parts)) as parts:
            for part, data in parts:
                try:
                    self._account(part.segments, _cut(data, part.segments), digest)
                    end = part.offset + part.size
                    if self._destination.read(self._key, etag=existing.etag, start=part.offset, end=end) != data:
                        raise Quarantine(Reason.DESTINATION_CONFLICT)
                finally:
                    self._parts_in_memory.release()
        return WriteResult(
            self._key, size, existing.etag, WriteMethod.ALREADY_PRESENT, size, digest.hexdigest(), digest.hexdigest()
        )

    @contextmanager
    def _upload(self, *, copies: bool = False) -> Iterator[MultipartUpload]:
        upload = self._destination.open_multipart(
            self._key, metadata=self._metadata, copies=copies, replaces=self._replaces
        )
        try:
            yield upload
        finally:
            upload.abort()

    def _read_ahead(self, upload_parts: Sequence[UploadPart]) -> Generator[tuple[UploadPart, bytes]]:
        """Yield parts in order; the caller releases `parts_in_memory` when it no longer needs a part."""
        with _pool(_READ_AT_ONCE) as pool:
            waiting = deque(upload_parts)
            ahead: deque[tuple[UploadPart, Future[bytes]]] = deque()
            try:
                while waiting or ahead:
                    # Wait for memory only if no part is held that others may wait for.
                    while waiting and len(ahead) <= _READ_AT_ONCE and self._parts_in_memory.acquire(not ahead):
                        part = waiting.popleft()
                        ahead.append((part, pool.submit(self._read, part)))
                    # An error leaves this part in `ahead`.
                    ahead[0][1].result()
                    part, read = ahead.popleft()
                    yield part, read.result()
                    del read
            finally:
                for _ in ahead:
                    self._parts_in_memory.release()

    def _read(self, part: UploadPart) -> bytes:
        return _joined(self._load(part.segments))

    def _load(self, segments: Iterable[Segment]) -> list[Buffer]:
        return [self._range(segment) if isinstance(segment, SourceRange) else segment for segment in segments]

    def _range(self, wanted: SourceRange) -> Buffer:
        of = self._source_object
        return self._source.read(of.key, etag=of.etag, start=wanted.start, end=wanted.end, version_id=of.version_id)

    def _account(self, segments: Iterable[Segment], buffers: Iterable[Buffer], digest: hashlib._Hash) -> None:
        for segment, buffer in zip(segments, buffers, strict=True):
            digest.update(buffer)
            if self._observe is not None and isinstance(segment, SourceRange):
                self._observe(buffer)

    def _hash_back(self, written: WrittenObject, part_bytes: int) -> str:
        digest = hashlib.sha256()
        for start in range(0, written.size, part_bytes):
            end = min(start + part_bytes, written.size)
            digest.update(self._destination.read(self._key, etag=written.etag, start=start, end=end))
        return digest.hexdigest()


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, "dicom-deid-parts")
    try:
        yield pool
    finally:
        # Parts in transfer are waited for before the upload is aborted.
        pool.shutdown(cancel_futures=True)


def _wait_for(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()


def _cut(data: bytes, segments: Sequence[Segment]) -> list[Buffer]:
    edges = accumulate(map(length, segments), initial=0)
    return [memoryview(data)[start:end] for start, end in pairwise(edges)]


def _joined(buffers: Sequence[Buffer]) -> bytes:
    if len(buffers) == 1 and isinstance(buffers[0], bytes):
        return buffers[0]
    return b"".join(buffers)
