"""Objects that are never in memory as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import NamedTuple

from dicom_deid.database import BatchItem
from dicom_deid.engine import DeidentifyResult
from dicom_deid.objects import SourceObject, SourceRange, WrittenObject
from dicom_deid.objectstore import ObjectStore, WriteMethod, write_parts
from dicom_deid.objectstore.base import Buffer
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import ObjectStores
from dicom_deid.pipeline.fetch import FetchedObject

STREAMED_OBJECT_MEMORY = 96 * 2**20
"""What a large object takes in memory that goes through here: its header, and the parts under way."""

COPIED_OBJECT_MEMORY = 24 * 2**20
"""What one takes that the store copies: its header, and the part that makes the new header long enough for S3."""


class Written(NamedTuple):
    """What stands at the destination.

    Parameters
    ----------
    object
        Its key, size and ETag.
    sha256_in, sha256_out
        Of all bytes of the source object and of the written one; None where not all went through this process.
    detail
        Which bytes are vouched for, when not all are.
    """

    object: WrittenObject
    sha256_in: str | None
    sha256_out: str | None
    detail: str = ""


class _SourceDigest:
    """SHA-256 of a source object of which the beginning, a range and the end come by one after the other."""

    def __init__(self, fetched: FetchedObject, span: SourceRange) -> None:
        self._digest = hashlib.sha256(fetched.data)
        self._missing = span.end - span.start
        self._tail = fetched.tail

    def observe(self, buffer: Buffer) -> None:
        self._digest.update(buffer)
        self._missing -= len(buffer)

    def hexdigest(self) -> str | None:
        """Return the digest, None unless every byte came by exactly once."""
        if self._missing:
            return None
        self._digest.update(self._tail)
        return self._digest.hexdigest()


def write_large(
    object_stores: ObjectStores,
    item: BatchItem,
    fetched: FetchedObject,
    result: DeidentifyResult,
    key: str,
    metadata: Mapping[str, str],
    configuration: RunConfiguration,
    streaming: AbstractContextManager[object],
) -> Written:
    """Write an object most of whose bytes are a range of its source: streamed, or copied by the store.

    `streaming` is held by the one that is streamed.

    Raises
    ------
    Quarantine
        The source changed under us, or a different object stands at the key.
    ObjectStoreError
        It could not be written.
    """
    span = next(part for part in result.parts if isinstance(part, SourceRange))
    digest = _SourceDigest(fetched, span)
    done = write_parts(
        object_stores.source,
        _source_object(item),
        object_stores.destination,
        key,
        result.parts,
        metadata=metadata,
        server_side_copy=configuration.server_side_copy,
        verify=configuration.verify,
        observe=digest.observe,
        streaming=streaming,
    )
    copied = done.method is WriteMethod.SERVER_SIDE_COPY
    detail = f"server-side copy; SHA-256 of the bytes that were sent: {done.sent_sha256}" if copied else ""
    return Written(done.written, None if copied else digest.hexdigest(), done.sha256, detail)


def copy_whole(source: ObjectStore, item: BatchItem, destination: ObjectStore, key: str) -> None:
    """Copy an object as it is, whatever its size.

    Raises
    ------
    Quarantine
        The source changed under us, or a different object stands at the key.
    ObjectStoreError
        It could not be copied.
    """
    write_parts(source, _source_object(item), destination, key, [SourceRange(0, item.size)], metadata={})


def _source_object(item: BatchItem) -> SourceObject:
    # When the object was modified plays no part in reading it: its ETag does.
    return SourceObject(item.key, item.size, item.etag, datetime.fromtimestamp(0, UTC), item.version_id)
