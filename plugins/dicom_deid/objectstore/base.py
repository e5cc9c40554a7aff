"""What every object store can do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from dicom_deid.objects import SourceObject, WrittenObject

Buffer = bytes | memoryview

CONTENT_TYPE = "application/dicom"
_COMPARED_AT_ONCE = 8 * 2**20


class MultipartUpload(Protocol):
    """An object that is written in parts and appears as a whole, or not at all. Parts may come from many threads."""

    def put_part(self, number: int, offset: int, data: bytes) -> None:
        """Write part `number` (from 1), whose first byte stands at `offset` of the object."""

    def copy_part(
        self, number: int, offset: int, source: ObjectStore, source_object: SourceObject, start: int, end: int
    ) -> None:
        """Have the store write part `number` from bytes `start` to `end` of an object that it holds.

        Raises
        ------
        RefusedError
            When the store does not do that; the part can be put instead.
        """

    def complete(self) -> WrittenObject:
        """Make the object visible.

        Raises
        ------
        PreconditionFailed
            When an object stands at the key by now, perhaps the one that this call made before its answer was lost.
        """

    def abort(self) -> None:
        """Forget all parts. Does not raise: a store that cannot be reached sweeps the parts away later."""


class ObjectStore(Protocol):
    """Objects by key below one URL. Keys are relative to the URL. Safe for many threads.

    A step that fails raises `Quarantine` when it is about the one object (`OBJECT_VANISHED`, `OBJECT_CHANGED`,
    `DESTINATION_CONFLICT`), `ConfigurationError` when no object would fare better, and `ObjectStoreError` otherwise,
    after as many attempts as are allowed.
    """

    @property
    def url(self) -> str:
        """The URL or directory, without secrets."""

    def check(self, *, writable: bool = False) -> None:
        """Make sure that objects can be listed, or written; nothing is left behind.

        Raises
        ------
        ConfigurationError
            Saying what to check.
        """

    def list(self, start_after: str | None = None) -> Iterator[SourceObject]:
        """Yield objects page by page, after the key `start_after` in the store's own order.

        That is the order of keys as UTF-8 on AWS and in directories; some stores list folder by folder.
        """

    def find(self, key: str) -> SourceObject | None:
        """Return the object as a listing would show it, or None when there is none."""

    def read(
        self,
        key: str,
        *,
        etag: str | None = None,
        size: int | None = None,
        start: int | None = None,
        end: int | None = None,
        version_id: str | None = None,
    ) -> Buffer:
        """Return an object's bytes, or those from `start` up to and without `end`, all of them.

        Parameters
        ----------
        etag, size
            As they were listed: a different object is `OBJECT_CHANGED`, and bytes that are too few are asked for
            again.
        """

    def write(self, key: str, parts: Sequence[Buffer], *, metadata: Mapping[str, str]) -> WrittenObject:
        """Write an object whole, where none stands.

        The same bytes at the key are left as they are, and found to have `existed`; a different object is
        `DESTINATION_CONFLICT`, and left as it is too.
        """

    def open_multipart(self, key: str, *, metadata: Mapping[str, str], copies: bool = False) -> MultipartUpload:
        """Begin an object that is too large to write whole; it does not replace one that stands.

        Parameters
        ----------
        copies
            The store is to copy parts. It is asked for no checksum of them, for which it would read every byte once
            more; parts that are put are checked all the same.
        """

    def can_copy_from(self, other: ObjectStore) -> bool:
        """Tell whether this store may be able to copy objects of the other without moving them through here."""

    def same_place(self, other: ObjectStore) -> bool:
        """Tell whether an object can have a key in both."""


def holds_same_bytes(storage: ObjectStore, standing: SourceObject, parts: Sequence[Buffer]) -> bool:
    """Tell whether a standing object has exactly the bytes of `parts`, reading it back where its ETag does not say."""
    if standing.size != sum(len(part) for part in parts):
        return False
    md5 = hashlib.md5(usedforsecurity=False)
    for part in parts:
        md5.update(part)
    if standing.etag == md5.hexdigest():
        return True
    position = 0
    for part in parts:
        for begin in range(0, len(part), _COMPARED_AT_ONCE):
            expected = part[begin : begin + _COMPARED_AT_ONCE]
            end = position + len(expected)
            if storage.read(standing.key, etag=standing.etag, start=position, end=end) != expected:
                return False
            position = end
    return True
