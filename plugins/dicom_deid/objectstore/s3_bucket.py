"""Requests to one bucket: keys below a prefix, the speed limit, retries and exceptions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore.connection import S3Connection
from dicom_deid.objectstore.errors import CLIENT_ERRORS, NotFound, PreconditionFailed, RefusedError, translate
from dicom_deid.objectstore.throttle import Throttle

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)


class S3Bucket:
    """A bucket, or the keys below a prefix of one.

    Parameters
    ----------
    bucket, prefix
        Names; the prefix is a folder, with or without a slash at its end.
    connection
        The connection; the AWS environment variables if None.
    throttle
        A speed limit; that of the connection if None.
    """

    def __init__(
        self, bucket: str, prefix: str, connection: S3Connection | None = None, throttle: Throttle | None = None
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.connection = connection or S3Connection.from_environment()
        self.client, self._obstore = self.connection.clients(bucket)
        self._warned_of_lock = False
        self._throttle = throttle or Throttle(
            requests_per_second=self.connection.requests_per_second, bytes_per_second=self.connection.bytes_per_second
        )

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> tuple[str, str]:
        """URL and region of the endpoint."""
        return self.client.meta.endpoint_url, self.client.meta.region_name

    def full_key(self, key: str) -> str:
        """Return the key in the bucket of a key below the prefix."""
        return self.prefix + key

    def find(self, key: str) -> SourceObject | None:
        """See `ObjectStore.find`."""
        head = self.head(key)
        if head is None:
            return None
        return SourceObject(
            key, head["ContentLength"], unquoted(head["ETag"]), head["LastModified"], head.get("VersionId")
        )

    def metadata(self, key: str) -> Mapping[str, str]:
        """See `ObjectStore.metadata`."""
        head = self.head(key)
        return {} if head is None else head["Metadata"]

    def head(self, key: str, **arguments: str) -> dict[str, Any] | None:
        """Return what boto3 says of an object, or None if there is none."""
        arguments |= {"Bucket": self.bucket, "Key": self.full_key(key), **self.connection.read_arguments}
        try:
            return self.call("looking at an object", lambda: self.client.head_object(**arguments))  # type: ignore[no-any-return]
        except NotFound:
            return None

    def condition_arguments(self, replaces: str | None) -> dict[str, str]:
        """Return the arguments of a boto3 call that writes only if the key is free, or holds what is replaced."""
        if not self.connection.conditional_writes:
            return {}
        return {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": f'"{replaces}"'}

    def check_condition(self, key: str, replaces: str | None) -> None:
        """Look up the key before a write to a store without conditional writes.

        Raises
        ------
        PreconditionFailed
            The key is taken, or does not hold what is replaced.
        """
        if self.connection.conditional_writes:
            return
        existing = self.find(key)
        if (existing and existing.etag) != replaces:
            raise PreconditionFailed("the key is taken, or holds another object")

    def delete_replaced_version(self, key: str, replaces: str | None) -> None:
        """Delete what a write has replaced, where versions are not kept; the first that is locked is a warning."""
        if replaces is None or not self.connection.delete_versions or not self.delete_old_versions(key):
            return
        if not self._warned_of_lock:
            self._warned_of_lock = True
            _LOG.warning("Object lock keeps versions of objects that are replaced in %s", self.url)

    def has_versions(self, key: str) -> bool:
        """Return whether the bucket keeps versions of a deleted object; False where that may not be looked up."""
        arguments = {"Bucket": self.bucket, **self.connection.read_arguments, "Prefix": self.full_key(key)}
        request = partial(self.client.list_object_versions, **arguments)
        try:
            page = self.call("listing the versions of an object", request)
        except (ConfigurationError, RefusedError):
            return False
        return any(each["Key"] == self.full_key(key) for each in page.get("Versions", ()))

    def delete_old_versions(self, key: str) -> bool:
        """Delete all versions of a key but the newest, and return whether object lock keeps any."""
        arguments = {"Bucket": self.bucket, **self.connection.read_arguments}
        position: dict[str, str] = {}
        kept = False
        while True:
            request = partial(self.client.list_object_versions, Prefix=self.full_key(key), **position, **arguments)
            page = self.call("listing the versions of an object", request)
            for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                if each["Key"] == self.full_key(key) and not each["IsLatest"]:
                    kept = not self.delete_version(key, each["VersionId"]) or kept
            if not page.get("IsTruncated") or page["NextKeyMarker"] != self.full_key(key):
                return kept
            position = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def delete_version(self, key: str, version_id: str, **condition: str) -> bool:
        """Delete one version, and return False if object lock keeps it."""
        arguments = {"Bucket": self.bucket, "Key": self.full_key(key), **self.connection.read_arguments, **condition}
        try:
            self.call("deleting a version", lambda: self.client.delete_object(VersionId=version_id, **arguments))
        except ConfigurationError:
            # The answer is the same where the connection may not delete versions.
            head = self.head(key, VersionId=version_id) or {}
            if not (head.get("ObjectLockMode") or head.get("ObjectLockLegalHoldStatus") == "ON"):
                raise
            return False
        return True

    def call(self, doing: str, request: Callable[[], Result]) -> Result:
        """Make a request at the allowed speed, retry it while that may help, and raise our exceptions."""

        def attempt() -> Result:
            self._throttle.request()
            try:
                return request()
            except CLIENT_ERRORS as error:
                raise translate(error, doing) from None

        return self.connection.retry.call(attempt)

    def count_bytes(self, count: int) -> None:
        """Count transferred bytes against the speed limit."""
        self._throttle.count_bytes(count)


def unquoted(etag: str) -> str:
    """Return an ETag without quotes."""
    return etag.strip('"')
