"""Write an object that is made of new bytes and of ranges of its source, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.objects import SourceObject, SourceRange, WrittenObject
from dicom_deid.objectstore.base import Buffer, MultipartUpload, ObjectStore
from dicom_deid.objectstore.errors import PreconditionFailed, RefusedError
from dicom_deid.objectstore.part_planner import Segment, UploadPart, cut_to_copy, cut_to_stream, length
from dicom_deid.reasons import Reason

PART_BYTES = 8 * 2**20
SINGLE_PUT_BYTES = 32 * 2**20
"""Up to here one request is faster than several."""

_READ_AHEAD = 2
_WRITTEN_AT_ONCE = 3


class WriteMethod(StrEnum):
    """How an object came to stand at its destination."""

    PUT = "put"
    MULTIPART = "multipart"
    SERVER_SIDE_COPY = "server-side-copy"
    ALREADY_PRESENT = "found"
    """The same bytes stood there already."""


@dataclass(frozen=True, slots=True)
class PartsResult:
    """What `write_parts` did.

    Parameters
    ----------
    written
        The object at the destination; its ETag is the store's checksum of the whole.
    method
        How it was written.
    through_worker
        Bytes that were read from the source or sent to the destination through this process, each counted once.
    sha256
        Of the whole object, as 64 hexadecimal digits; None when not all its bytes went through here.
    sent_sha256
        Of the bytes that this process sent, in order; of the whole object where `sha256` is known.
    """

    written: WrittenObject
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
    observe: Callable[[Buffer], object] | None = None,
    part_bytes: int = PART_BYTES,
    streaming: AbstractContextManager[object] | None = None,
) -> PartsResult:
    """Write an object whole, in parts, or with the store copying what is unchanged.

    Nothing becomes visible before all is there, and what is left of a failed upload is cleared away. In memory are at
    most about thirteen times `part_bytes`, beside `parts`.

    Parameters
    ----------
    source, source_object
        Where ranges in `parts` come from; it must still be the object that was listed.
    destination, key
        Where to; an object that stands there is not replaced.
    parts
        The object's bytes in order: new ones, and ranges of the source.
    metadata
        Written beside the object; no PHI.
    server_side_copy
        Let the store copy the ranges, where both are at one endpoint and it does not refuse.
    verify
        `full`: read an object back that the store copied, to know its SHA-256.
    observe
        Called with the bytes read from the source, in order, when all ranges come through here (not when the store
        copies them).
    part_bytes
        Size of a part; at least 5 MiB.
    streaming
        Held while all bytes go through here, which takes the memory: a lock, for who bounds it.

    Raises
    ------
    Quarantine
        `OBJECT_VANISHED` or `OBJECT_CHANGED` of the source; `DESTINATION_CONFLICT` when a different object stands at
        the key.
    ObjectStoreError
        It could not be written.
    """
    writer = _Writer(source, source_object, destination, key, metadata, observe)
    total = sum(length(part) for part in parts)
    ranged = any(isinstance(part, SourceRange) for part in parts)
    if total <= SINGLE_PUT_BYTES:
        return writer.put(parts)
    to_stream = cut_to_stream(parts, part_bytes)
    standing = destination.find(key)
    if standing is not None:
        return writer.compare(standing, to_stream)
    try:
        if server_side_copy and ranged and destination.can_copy_from(source):
            try:
                return writer.copy(cut_to_copy(parts), read_back=verify == "full", part_bytes=part_bytes)
            except (RefusedError, ConfigurationError):
                # The store does not copy, or the destination's credentials may not read the source.
                pass
        with streaming or nullcontext():
            return writer.stream(to_stream)
    except PreconditionFailed:
        standing = destination.find(key)
        if standing is None:
            raise
        return writer.compare(standing, to_stream)


class _Writer:
    def __init__(
        self,
        source: ObjectStore,
        source_object: SourceObject,
        destination: ObjectStore,
        key: str,
        metadata: Mapping[str, str],
        observe: Callable[[Buffer], object] | None,
    ) -> None:
        self._source = source
        self._source_object = source_object
        self._destination = destination
        self._key = key
        self._metadata = metadata
        self._observe = observe

    def put(self, parts: Sequence[Segment]) -> PartsResult:
        """Read what is missing and write all at once."""
        buffers = self._load(parts)
        digest = hashlib.sha256()
        self._account(parts, buffers, digest)
        written = self._destination.write(self._key, buffers, metadata=self._metadata)
        method = WriteMethod.ALREADY_PRESENT if written.existed else WriteMethod.PUT
        return PartsResult(written, method, written.size, digest.hexdigest(), digest.hexdigest())

    def stream(self, pieces: Sequence[UploadPart]) -> PartsResult:
        """Send every part through here."""
        digest = hashlib.sha256()
        size = 0
        with self._upload() as upload, _pool(_WRITTEN_AT_ONCE) as pool:
            sending: deque[Future[None]] = deque()
            for piece, buffers in self._read_ahead(pieces):
                self._account(piece.segments, buffers, digest)
                size += piece.size
                if len(sending) == _WRITTEN_AT_ONCE:
                    sending.popleft().result()
                sending.append(pool.submit(upload.put_part, piece.number, piece.offset, _joined(buffers)))
            _wait_for(sending)
            written = upload.complete()
        return PartsResult(written, WriteMethod.MULTIPART, size, digest.hexdigest(), digest.hexdigest())

    def copy(self, pieces: Sequence[UploadPart], *, read_back: bool, part_bytes: int) -> PartsResult:
        """Have the store copy what it can, and send the rest."""
        sent = hashlib.sha256()
        through_worker = 0
        with self._upload(copies=True) as upload, _pool(_WRITTEN_AT_ONCE) as pool:
            copying = [
                pool.submit(
                    upload.copy_part, piece.number, piece.offset, self._source, self._source_object, *piece.copied
                )
                for piece in pieces
                if piece.copied is not None
            ]
            for piece in pieces:
                if piece.copied is None:
                    data = _joined(self._load(piece.segments))
                    sent.update(data)
                    through_worker += len(data)
                    upload.put_part(piece.number, piece.offset, data)
            _wait_for(copying)
            written = upload.complete()
        sha256 = None
        if read_back:
            sha256 = self._hash_back(written, part_bytes)
            through_worker += written.size
        return PartsResult(written, WriteMethod.SERVER_SIDE_COPY, through_worker, sha256, sent.hexdigest())

    def compare(self, standing: SourceObject, pieces: Sequence[UploadPart]) -> PartsResult:
        """Find the same object at the key, or raise `DESTINATION_CONFLICT`."""
        size = sum(piece.size for piece in pieces)
        if standing.size != size:
            raise Quarantine(Reason.DESTINATION_CONFLICT)
        digest = hashlib.sha256()
        for piece, buffers in self._read_ahead(pieces):
            self._account(piece.segments, buffers, digest)
            end = piece.offset + piece.size
            if self._destination.read(self._key, etag=standing.etag, start=piece.offset, end=end) != _joined(buffers):
                raise Quarantine(Reason.DESTINATION_CONFLICT)
        written = WrittenObject(self._key, size, standing.etag, existed=True)
        return PartsResult(written, WriteMethod.ALREADY_PRESENT, size, digest.hexdigest(), digest.hexdigest())

    @contextmanager
    def _upload(self, *, copies: bool = False) -> Iterator[MultipartUpload]:
        upload = self._destination.open_multipart(self._key, metadata=self._metadata, copies=copies)
        try:
            yield upload
        finally:
            upload.abort()

    def _read_ahead(self, pieces: Sequence[UploadPart]) -> Iterator[tuple[UploadPart, list[Buffer]]]:
        with _pool(_READ_AHEAD) as pool:
            ahead: deque[tuple[UploadPart, Future[list[Buffer]]]] = deque()
            for piece in pieces:
                ahead.append((piece, pool.submit(self._load, piece.segments)))
                if len(ahead) > _READ_AHEAD:
                    first, read = ahead.popleft()
                    yield first, read.result()
            while ahead:
                first, read = ahead.popleft()
                yield first, read.result()

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
        # What has begun is waited for: an upload is not aborted under a part that is on its way.
        pool.shutdown(cancel_futures=True)


def _wait_for(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()


def _joined(buffers: Sequence[Buffer]) -> bytes:
    if len(buffers) == 1 and isinstance(buffers[0], bytes):
        return buffers[0]
    return b"".join(buffers)
