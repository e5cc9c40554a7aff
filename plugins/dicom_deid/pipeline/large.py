"""Objects that are never in memory as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from dicom_deid.database import BatchItem
from dicom_deid.objects import SourceObject, SourceRange
from dicom_deid.objectstore import ObjectStore, write_parts
from dicom_deid.objectstore.base import Buffer
from dicom_deid.objectstore.part_planner import Segment
from dicom_deid.pipeline.fetch import FetchedObject

STREAMED_PARTS = 4
"""Parts in memory for each large object that is streamed; two objects with default settings."""

STREAMED_OBJECT_MEMORY = 52 * 2**20
"""Memory of a large object that is streamed: its header, its parts, and what reading a part takes beside it."""

COPIED_OBJECT_MEMORY = 24 * 2**20
"""Memory of a large object that the store copies: its header, and the part that makes the new header long enough."""

_NO_TIME = datetime.fromtimestamp(0, UTC)


class SourceDigest:
    """SHA-256 of a source object, whose pixel data is observed while it is streamed if it was not fetched.

    Parameters
    ----------
    fetched
        The object as far as it was fetched.
    parts
        The parts of the new object; of an object that was not fetched whole one is a range of the source.
    """

    def __init__(self, fetched: FetchedObject, parts: Sequence[Segment]) -> None:
        self._known = fetched.sha256
        if self._known is None:
            span = next(part for part in parts if isinstance(part, SourceRange))
            self._missing = span.end - span.start
            self._digest = hashlib.sha256(fetched.data)
            self._tail = fetched.tail

    def update(self, buffer: Buffer) -> None:
        """Add the next bytes of the range."""
        if self._known is None:
            self._digest.update(buffer)
            self._missing -= len(buffer)

    def hexdigest(self) -> str | None:
        """Return the digest, None unless every byte was observed exactly once."""
        if self._known is None and not self._missing:
            self._digest.update(self._tail)
            self._known = self._digest.hexdigest()
        return self._known


def copy_unchanged(source: ObjectStore, item: BatchItem, destination: ObjectStore, key: str) -> None:
    """Copy an object unchanged, in bounded memory.

    Raises
    ------
    Quarantine
        The source changed since it was listed, or the key holds a different object.
    ObjectStoreError
        It could not be copied.
    """
    write_parts(source, source_object(item), destination, key, [SourceRange(0, item.size)], metadata={})


def source_object(item: BatchItem) -> SourceObject:
    """Return the source object of a batch item; reads are conditional on its ETag, and its time plays no part."""
    return SourceObject(item.key, item.size, item.etag, _NO_TIME, item.version_id)
