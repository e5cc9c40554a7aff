"""The interface of object stores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from dicom_deid.exceptions import ObjectStoreError, Quarantine
from dicom_deid.objects import DeleteResult, SourceObject, WrittenObject

Buffer = bytes | memoryview

CONTENT_TYPE = "application/dicom"
_COMPARED_AT_ONCE = 8 * 2**20


class MultipartUpload(Protocol):
    """An object that is written in parts and appears as a whole, or not at all. Parts may come from many threads."""

    def put_part(self, number: int, offset: int, data: bytes) -> None:
        """Write part `number` (from 1), whose first byte is at `offset` of the object."""

    def copy_part(
        self, number: int, offset: int, source: ObjectStore, source_object: SourceObject, start: int, end: int
    ) -> None:
        """Let the store write part `number` from bytes `start` to `end` of an object that it holds.

        Raises
        ------
        RefusedError
            The store does not support it; the part can be put instead.
        """

    def complete(self) -> WrittenObject:
        """Make the object visible.

        Raises
        ------
        PreconditionFailed
            The key is taken, perhaps by this call whose answer was lost.
        """

    def abort(self) -> None:
        """Discard all parts. Does not raise: a store that cannot be reached removes the parts later."""


class ObjectStore(Protocol):
    """Objects by key below one URL. Keys are relative to the URL. Safe for many threads.

    A call that fails raises `Quarantine` if the error concerns the one object (`OBJECT_VANISHED`, `OBJECT_CHANGED`,
    `DESTINATION_CONFLICT`), `ConfigurationError` if it would fail for every object, and `ObjectStoreError` otherwise,
    after the configured number of attempts.
    """

    @property
    def url(self) -> str:
        """The URL or directory, without credentials."""

    def check(self, *, writable: bool = False) -> None:
        """Check that objects can be listed, or written, without writing one.

        Raises
        ------
        ConfigurationError
            It says what to check.
        """

    def list(self, start_after: str | None = None) -> Iterator[SourceObject]:
        """Yield objects page by page, after the key `start_after` in the store's own order.

        That is the order of keys as UTF-8 on AWS and in directories; some stores list folder by folder.
        """

    def find(self, key: str) -> SourceObject | None:
        """Return the object as a listing shows it, or None if there is none."""

    def metadata(self, key: str) -> Mapping[str, str]:
        """Return the metadata that an object was written with; none if there is no object."""

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
            As listed: another ETag is `OBJECT_CHANGED`, and a short body is requested again.
        """

    def write(
        self, key: str, parts: Sequence[Buffer], *, metadata: Mapping[str, str], replaces: str | None = None
    ) -> WrittenObject:
        """Write a new object in one request, or replace the one with the ETag `replaces`.

        Any other object with the same bytes at the key is kept and returned with `existed`; a different one is kept
        too, and is `DESTINATION_CONFLICT`.
        """

    def delete(self, key: str, *, etag: str | None = None) -> DeleteResult:
        """Delete an object, and return whether there was one, and whether a version of it is left.

        Raises
        ------
        Quarantine
            `DESTINATION_CONFLICT` if the object has another ETag than `etag`; it is kept.
        """

    def open_multipart(
        self, key: str, *, metadata: Mapping[str, str], copies: bool = False, replaces: str | None = None
    ) -> MultipartUpload:
        """Begin an object that is too large for one request, as a new one or to replace that with the ETag `replaces`.

        Parameters
        ----------
        copies
            The store will copy parts. It is not asked for their checksums, for which it would read every byte once
            more; parts that are put are still checked.
        """

    def restore(self, key: str, *, days: int) -> None:
        """Request a readable copy of an archived object for a number of days; a repeated request does nothing."""

    def can_copy_from(self, other: ObjectStore) -> bool:
        """Return whether this store may be able to copy objects of the other one itself."""

    def same_place(self, other: ObjectStore) -> bool:
        """Return whether the two have objects in common."""


def holds_same_bytes(store: ObjectStore, existing: SourceObject, parts: Sequence[Buffer]) -> bool:
    """Return whether an object has exactly these bytes, reading it back unless its ETag is their MD5."""
    if existing.size != sum(len(part) for part in parts):
        return False
    md5 = hashlib.md5(usedforsecurity=False)
    for part in parts:
        md5.update(part)
    if existing.etag == md5.hexdigest():
        return True
    try:
        return _reads_same_bytes(store, existing, parts)
    except Quarantine:
        raise ObjectStoreError("comparing with the object at the destination key: it has just changed") from None


def _reads_same_bytes(store: ObjectStore, existing: SourceObject, parts: Sequence[Buffer]) -> bool:
    position = 0
    for part in parts:
        for begin in range(0, len(part), _COMPARED_AT_ONCE):
            expected = part[begin : begin + _COMPARED_AT_ONCE]
            end = position + len(expected)
            if store.read(existing.key, etag=existing.etag, start=position, end=end) != expected:
                return False
            position = end
    return True
