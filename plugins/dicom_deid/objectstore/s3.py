"""Objects in a bucket of an S3-compatible store."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import obstore

from dicom_deid.exceptions import ConfigurationError, ObjectStoreError, Quarantine
from dicom_deid.objects import ArchiveState, DeleteResult, SourceObject, WrittenObject
from dicom_deid.objectstore.base import CONTENT_TYPE, Buffer, ObjectStore, holds_same_bytes
from dicom_deid.objectstore.connection import S3Connection, checksum_arguments
from dicom_deid.objectstore.errors import (
    AlreadyInProgress,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    TransientError,
)
from dicom_deid.objectstore.retry import RetryPolicy
from dicom_deid.objectstore.s3_bucket import S3Bucket, unquoted
from dicom_deid.objectstore.s3_upload import S3Upload
from dicom_deid.objectstore.throttle import Throttle
from dicom_deid.reasons import Reason

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MD5_ETAG = re.compile("[0-9a-f]{32}")
_CHECKSUMS: dict[str, Callable[[Buffer], bytes]] = {
    "ChecksumSHA256": lambda data: hashlib.sha256(data).digest(),
    "ChecksumSHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "ChecksumCRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
}
"""Checksums that S3 keeps of an object if the program that wrote it asked for one."""
_ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects must be restored before they can be read."""
_LOOKED_AT_ONCE = 16
_OTHER_ETAGS = 3
"""After this many intact objects whose ETag is no MD5, and none whose ETag is, ETags are not compared."""
_CONFIRM = RetryPolicy(max_attempts=3)
"""An object is gone after this many answers that say so."""


class S3Store(S3Bucket):
    """Objects in a bucket, below a prefix; implements `ObjectStore`."""

    def __init__(
        self, bucket: str, prefix: str, connection: S3Connection | None = None, throttle: Throttle | None = None
    ) -> None:
        super().__init__(bucket, prefix, connection, throttle)
        self._compares_etags = self.connection.compare_etags
        self._etags_are_md5 = False
        # Objects whose bytes are right, and whose ETag is not their MD5.
        self._other_etags = 0
        # Other stores use the names of the classes for tiers that can be read, and do not list what was restored.
        self._lists_restores = ".amazonaws.com" in self.endpoint[0]

    def check(self, *, writable: bool = False) -> None:
        """See `ObjectStore.check`; writing is tried with a multipart upload that is aborted at once."""
        try:
            self.call("listing the bucket", lambda: self._page(None, limit=1))
            if writable:
                upload = self.open_multipart(".dicom-deid-check", metadata={})
                upload.abort()
        except (ConfigurationError, ObjectStoreError, Quarantine) as error:
            name = f" (connection {self.connection.name!r})" if self.connection.name else ""
            raise ConfigurationError(
                f"{self.url}{name} cannot be used: {error}; check the endpoint, the bucket's name and the credentials"
            ) from None

    def list(self, start_after: str | None = None) -> Iterator[SourceObject]:
        """See `ObjectStore.list`; folder markers are left out."""
        arguments = {} if start_after is None else {"StartAfter": self.full_key(start_after)}
        while True:
            page = self.call("listing the bucket", partial(self._page, arguments))
            found = [self._listed(entry) for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
            yield from found if self._lists_restores else self._confirm_archived(found)
            if not page.get("IsTruncated"):
                return
            arguments = {"ContinuationToken": page["NextContinuationToken"]}

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
        """See `ObjectStore.read`."""
        if start is not None and start == end:
            return b""
        get = self._get_with_obstore if _is_plain(self.full_key(key)) else self._get_with_boto3
        ranged = bool(start) or end is not None
        damaged: set[str] = set()

        def attempt() -> Buffer:
            data, found, whole = get(self.full_key(key), etag, start, end, version_id)
            last = end if end is not None else whole if size is None else size
            if not found:
                raise TransientError("reading an object: the answer has no ETag")
            if etag not in (None, found) or (ranged and last > whole):
                raise Quarantine(Reason.OBJECT_CHANGED)
            if len(data) != last - (start or 0):
                raise TransientError(f"reading an object: got {len(data)} of {last - (start or 0)} bytes")
            if not ranged and self._compares_etags:
                self._compare_with_etag(key, version_id, data, found, damaged)
            self._throttle.count_bytes(len(data))
            return data

        try:
            # A store that has lost sight of an object for a moment is asked again.
            return _CONFIRM.call(
                lambda: self.call("reading an object", attempt), retry_on=(NotFound, RangeNotSatisfiable)
            )
        except NotFound:
            raise Quarantine(Reason.OBJECT_VANISHED) from None
        except (PreconditionFailed, RangeNotSatisfiable):
            raise Quarantine(Reason.OBJECT_CHANGED) from None

    def _compare_with_etag(self, key: str, version_id: str | None, data: Buffer, etag: str, damaged: set[str]) -> None:
        """Compare a body with its ETag where that is an MD5; damaged bytes are read again.

        The ETag of a multipart upload has another form. Where the body differs, the store is asked for its checksum of
        the object and for its encryption: with a key of KMS or of the customer, ETags of the same form are no MD5. If
        it tells nothing, and no object of the store has had an MD5 for its ETag, ETags are not compared any more.

        Parameters
        ----------
        damaged
            MD5 of earlier bodies of the object that differed.
        """
        if not _MD5_ETAG.fullmatch(etag):
            return
        digest = _md5([data])
        if digest == etag:
            self._etags_are_md5 = True
            return
        is_intact = self._is_intact(key, version_id, data)
        if is_intact:
            self._other_etags += 1
            self._compares_etags = self._etags_are_md5 or self._other_etags < _OTHER_ETAGS
            return
        if digest not in damaged:
            damaged.add(digest)
            raise TransientError("reading an object: the bytes differ from the ETag")
        if is_intact is False or self._etags_are_md5:
            raise Quarantine(Reason.OBJECT_DAMAGED)
        self._compares_etags = False

    def _is_intact(self, key: str, version_id: str | None, data: Buffer) -> bool | None:
        """Compare a body with the checksum that the store keeps of it.

        Returns
        -------
        bool or None
            True also if its encryption leaves nothing to compare; None if the store says nothing.
        """
        version = {} if version_id is None else {"VersionId": version_id}
        head = self.head(key, ChecksumMode="ENABLED", **version) or {}
        for name, checksum in _CHECKSUMS.items():
            # That of a multipart upload is of its parts.
            kept = head.get(name, "-")
            if "-" not in kept:
                return bool(kept == base64.b64encode(checksum(data)).decode())
        is_encrypted = "kms" in head.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in head
        return True if is_encrypted else None

    def write(
        self, key: str, parts: Sequence[Buffer], *, metadata: Mapping[str, str], replaces: str | None = None
    ) -> WrittenObject:
        """See `ObjectStore.write`."""
        size = sum(len(part) for part in parts)
        put = self._put_with_obstore if _is_plain(self.full_key(key)) else self._put_with_boto3

        def attempt() -> str:
            self._throttle.count_bytes(size)
            etag = put(self.full_key(key), parts, metadata, replaces)
            if self.connection.checksum == "md5" and etag != _md5(parts):
                self._verify_written(key, parts)
            return etag

        try:
            self.check_condition(key, replaces)
            written = WrittenObject(key, size, self.call("writing an object", attempt))
            self.delete_replaced_version(key, replaces)
            return written
        except PreconditionFailed as refused:
            existing = self.find(key)
            if existing is None and replaces is not None:
                # The object that was to be replaced has been deleted.
                return self.write(key, parts, metadata=metadata)
            if existing is None:
                raise ObjectStoreError(f"{refused}, but no object is at the destination key") from None
            if holds_same_bytes(self, existing, parts):
                self.delete_replaced_version(key, replaces)
                return WrittenObject(key, size, existing.etag, existed=True)
            raise Quarantine(Reason.DESTINATION_CONFLICT) from None

    def delete(self, key: str, *, etag: str | None = None) -> DeleteResult:
        """See `ObjectStore.delete`."""
        existing = self.find(key)
        if existing is not None and etag not in (None, existing.etag):
            raise Quarantine(Reason.DESTINATION_CONFLICT)
        # First the older versions: each would become the object that readers see.
        is_kept = self.connection.delete_versions and self.delete_old_versions(key)
        if existing is None:
            # A process may have been killed after it had deleted the object.
            return "version-kept" if is_kept or self.has_versions(key) else ""
        condition: dict[str, str] = {}
        if etag is not None and self.connection.conditional_writes:
            condition["IfMatch"] = f'"{etag}"'
        version = existing.version_id if self.connection.delete_versions else None
        arguments = {"Bucket": self.bucket, "Key": self.full_key(key), **self.connection.read_arguments, **condition}
        try:
            if version is not None and not is_kept and self.delete_version(key, version, **condition):
                return "deleted"
            # Versions that object lock keeps are hidden by a delete marker, or the newest becomes the object again.
            answer = self.call("deleting an object", lambda: self.client.delete_object(**arguments))
        except PreconditionFailed:
            raise Quarantine(Reason.DESTINATION_CONFLICT) from None
        if version is not None:
            self.delete_version(key, version)
        return "version-kept" if version is not None or answer.get("DeleteMarker") else "deleted"

    def open_multipart(
        self, key: str, *, metadata: Mapping[str, str], copies: bool = False, replaces: str | None = None
    ) -> S3Upload:
        """See `ObjectStore.open_multipart`."""
        return S3Upload(self, key, metadata, "md5" if copies else self.connection.checksum, replaces)

    def can_copy_from(self, other: ObjectStore) -> bool:
        """See `ObjectStore.can_copy_from`: both must have the same endpoint and region, and no key of SSE-C."""
        if not isinstance(other, S3Store) or self.endpoint != other.endpoint:
            return False
        return not (self.connection.sse_customer_secret or other.connection.sse_customer_secret)

    def same_place(self, other: ObjectStore) -> bool:
        """See `ObjectStore.same_place`."""
        if not isinstance(other, S3Store) or (self.endpoint, self.bucket) != (other.endpoint, other.bucket):
            return False
        return self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)

    def _verify_written(self, key: str, parts: Sequence[Buffer]) -> None:
        """Read back an object whose ETag is not its MD5 (because of encryption, or of damaged bytes)."""
        existing = self.find(key)
        if existing is None or not holds_same_bytes(self, existing, parts):
            self.client.delete_object(Bucket=self.bucket, Key=self.full_key(key), **self.connection.read_arguments)
            raise TransientError("writing an object: the store held other bytes than were sent; they were removed")

    def _page(self, arguments: Mapping[str, Any] | None, *, limit: int = 1000) -> Any:
        return self.client.list_objects_v2(
            Bucket=self.bucket,
            Prefix=self.prefix,
            MaxKeys=limit,
            **({"OptionalObjectAttributes": ["RestoreStatus"]} if self._lists_restores else {}),
            **self.connection.read_arguments,
            **(arguments or {}),
        )

    def _listed(self, entry: Mapping[str, Any]) -> SourceObject:
        key = entry["Key"].removeprefix(self.prefix)
        state: ArchiveState = ""
        if entry.get("StorageClass") in _ARCHIVE_CLASSES:
            restore = entry.get("RestoreStatus")
            state = "archived" if restore is None else "restoring" if restore["IsRestoreInProgress"] else ""
        return SourceObject(key, entry["Size"], unquoted(entry["ETag"]), entry["LastModified"], None, state)

    def _confirm_archived(self, found: Sequence[SourceObject]) -> Iterable[SourceObject]:
        """Return listed objects with the state that requests for each archived one show."""
        if not any(listed.archive_state for listed in found):
            return found
        with ThreadPoolExecutor(_LOOKED_AT_ONCE) as pool:
            return list(pool.map(self._confirm, found))

    def _confirm(self, listed: SourceObject) -> SourceObject:
        if not listed.archive_state:
            return listed
        restore = (self.head(listed.key) or {}).get("Restore", "")
        if 'ongoing-request="true"' in restore:
            return listed._replace(archive_state="restoring")
        try:
            self.read(listed.key, etag=listed.etag, start=0, end=min(1, listed.size))
        except Quarantine as problem:
            if problem.reason is Reason.ARCHIVED:
                return listed
        return listed._replace(archive_state="")

    def restore(self, key: str, *, days: int) -> None:
        """See `ObjectStore.restore`."""
        head = self.head(key) or {}
        if 'ongoing-request="true"' in head.get("Restore", ""):
            return
        arguments = {"Bucket": self.bucket, "Key": self.full_key(key), **self.connection.read_arguments}
        # Objects of Intelligent-Tiering are moved out of its archive tiers; a number of days is refused.
        is_tiered = head.get("StorageClass") == "INTELLIGENT_TIERING"
        request = {} if is_tiered else {"Days": days, "GlacierJobParameters": {"Tier": "Standard"}}
        with suppress(AlreadyInProgress):
            self.call("restoring an object", lambda: self.client.restore_object(**arguments, RestoreRequest=request))

    def _get_with_obstore(
        self, key: str, etag: str | None, start: int | None, end: int | None, version_id: str | None
    ) -> tuple[Buffer, str, int]:
        options: dict[str, Any] = {}
        if etag is not None:
            options["if_match"] = f'"{etag}"'
        if version_id is not None:
            options["version"] = version_id
        if end is not None:
            options["range"] = (start or 0, end)
        elif start:
            options["range"] = {"offset": start}
        answer = obstore.get(self._obstore, key, options=options)  # type: ignore[arg-type]
        # Not copied: a copy costs as much as the analysis of the object.
        return memoryview(answer.bytes()), unquoted(answer.meta["e_tag"] or ""), answer.meta["size"]

    def _get_with_boto3(
        self, key: str, etag: str | None, start: int | None, end: int | None, version_id: str | None
    ) -> tuple[Buffer, str, int]:
        """Read an object whose key obstore cannot express."""
        arguments = {"Bucket": self.bucket, "Key": key, **self.connection.read_arguments}
        if etag is not None:
            arguments["IfMatch"] = f'"{etag}"'
        if version_id is not None:
            arguments["VersionId"] = version_id
        if start or end is not None:
            arguments["Range"] = f"bytes={start or 0}-{'' if end is None else end - 1}"
        answer = self.client.get_object(**arguments)
        data: bytes = answer["Body"].read()
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else answer["ContentLength"]
        return data, unquoted(answer["ETag"]), size

    def _put_with_obstore(
        self, key: str, parts: Sequence[Buffer], metadata: Mapping[str, str], replaces: str | None = None
    ) -> str:
        attributes = {"Content-Type": CONTENT_TYPE, **metadata}
        if self.connection.storage_class:
            attributes["Storage-Class"] = self.connection.storage_class
        answer = obstore.put(
            self._obstore,
            key,
            parts,
            mode=self._put_mode(replaces),
            use_multipart=False,
            attributes=attributes,
        )
        return unquoted(answer["e_tag"] or "")

    def _put_mode(self, replaces: str | None) -> Any:
        if not self.connection.conditional_writes:
            return "overwrite"
        return "create" if replaces is None else {"e_tag": f'"{replaces}"'}

    def _put_with_boto3(
        self, key: str, parts: Sequence[Buffer], metadata: Mapping[str, str], replaces: str | None = None
    ) -> str:
        arguments = {"ContentType": CONTENT_TYPE, "Metadata": dict(metadata), **self.connection.write_arguments}
        arguments |= self.condition_arguments(replaces)
        body = b"".join(parts)
        arguments |= checksum_arguments(body, self.connection.checksum)
        answer = self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **arguments)
        return unquoted(answer["ETag"])


def _is_plain(key: str) -> bool:
    """Return whether obstore can express a key: without empty or dotted segments and control characters."""
    return not _CONTROL.search(key) and not any(segment in ("", ".", "..") for segment in key.split("/"))


def _md5(parts: Sequence[Buffer]) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    for part in parts:
        md5.update(part)
    return md5.hexdigest()
