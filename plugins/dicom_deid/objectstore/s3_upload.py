"""A multipart upload into an S3-compatible store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from dicom_deid.exceptions import DicomDeidError, ObjectStoreError, Quarantine
from dicom_deid.objects import SourceObject, WrittenObject
from dicom_deid.objectstore.base import CONTENT_TYPE, ObjectStore
from dicom_deid.objectstore.connection import Checksum, checksum_arguments
from dicom_deid.objectstore.errors import NotFound, PreconditionFailed, RefusedError, UploadGone
from dicom_deid.objectstore.s3_bucket import S3Bucket
from dicom_deid.reasons import Reason

_LOG = logging.getLogger(__name__)


class S3Upload:
    """An object that appears when all its parts are there; see `MultipartUpload`.

    Parameters
    ----------
    target, key, metadata
        Bucket, key and metadata of the new object.
    checksum
        Checksum of the parts that are put: `md5`, which the store does not keep, or SHA-256, which it keeps, and also
        computes for copied parts.
    replaces
        ETag of the object that is replaced; None for a new one.
    """

    def __init__(
        self,
        target: S3Bucket,
        key: str,
        metadata: Mapping[str, str],
        checksum: Checksum,
        replaces: str | None = None,
    ) -> None:
        self._target = target
        self._key = key
        self._checksum = checksum
        self._replaces = replaces
        self._lock = threading.Lock()
        self._parts: dict[int, dict[str, Any]] = {}
        self._size = 0
        self._open = True
        arguments = {"ContentType": CONTENT_TYPE, "Metadata": dict(metadata), **target.connection.write_arguments}
        if checksum != "md5":
            arguments["ChecksumAlgorithm"] = "SHA256"
        begun = self._call(
            "beginning a multipart upload",
            "create_multipart_upload",
            Bucket=target.bucket,
            Key=target.full_key(key),
            **arguments,
        )
        self._where = {
            "Bucket": target.bucket,
            "Key": target.full_key(key),
            "UploadId": begun["UploadId"],
            **target.connection.read_arguments,
        }

    def put_part(self, number: int, offset: int, data: bytes) -> None:
        """See `MultipartUpload.put_part`."""
        del offset
        checksum = checksum_arguments(data, self._checksum)
        self._target.count_bytes(len(data))
        answer = self._call("writing a part", "upload_part", PartNumber=number, Body=data, **checksum, **self._where)
        self._remember(number, answer, len(data))

    def copy_part(
        self, number: int, offset: int, source: ObjectStore, source_object: SourceObject, start: int, end: int
    ) -> None:
        """See `MultipartUpload.copy_part`; the source must still be the object that was listed."""
        del offset
        if not isinstance(source, S3Bucket) or source.endpoint != self._target.endpoint:
            raise RefusedError("copying a part: the source is not at this endpoint")
        origin = {"Bucket": source.bucket, "Key": source.full_key(source_object.key)}
        if source_object.version_id is not None:
            origin["VersionId"] = source_object.version_id
        try:
            answer = self._call(
                "copying a part",
                "upload_part_copy",
                PartNumber=number,
                CopySource=origin,
                CopySourceRange=f"bytes={start}-{end - 1}",
                CopySourceIfMatch=f'"{source_object.etag}"',
                **self._where,
            )
        except NotFound:
            raise Quarantine(Reason.OBJECT_VANISHED) from None
        except PreconditionFailed:
            raise Quarantine(Reason.OBJECT_CHANGED) from None
        self._remember(number, answer["CopyPartResult"], end - start)

    def complete(self) -> WrittenObject:
        """See `MultipartUpload.complete`."""
        self._target.check_condition(self._key, self._replaces)
        parts = [{"PartNumber": number, **part} for number, part in sorted(self._parts.items())]
        try:
            self._call(
                "completing a multipart upload",
                "complete_multipart_upload",
                MultipartUpload={"Parts": parts},
                **self._target.condition_arguments(self._replaces),
                **self._where,
            )
        except UploadGone:
            # The answer to a completion that succeeded was lost, and repeating it finds the upload gone.
            raise PreconditionFailed("the upload was completed or removed") from None
        self._open = False
        written = self._target.find(self._key)
        if written is None or written.size != self._size:
            raise ObjectStoreError("completing a multipart upload: the store shows another size than was sent")
        self._target.delete_replaced_version(self._key, self._replaces)
        return WrittenObject(self._key, written.size, written.etag)

    def abort(self) -> None:
        """See `MultipartUpload.abort`; nothing to do after `complete`."""
        if not self._open:
            return
        self._open = False
        try:
            self._call("aborting a multipart upload", "abort_multipart_upload", **self._where)
        except UploadGone:
            pass
        except DicomDeidError as error:
            _LOG.warning("An unfinished multipart upload remains until the store removes it: %s", error)

    def _remember(self, number: int, answer: Mapping[str, Any], size: int) -> None:
        with self._lock:
            self._parts[number] = {name: answer[name] for name in ("ETag", "ChecksumSHA256") if answer.get(name)}
            self._size += size

    def _call(self, doing: str, operation: str, **arguments: Any) -> Any:
        return self._target.call(doing, lambda: getattr(self._target.client, operation)(**arguments))
