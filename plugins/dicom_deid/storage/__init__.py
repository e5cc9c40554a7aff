"""Object stores: list, read, write, large objects. Knows no Airflow."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject, SourceRange, WrittenObject
from dicom_deid.storage.base import MultipartUpload, ObjectStorage
from dicom_deid.storage.connection import S3Connection
from dicom_deid.storage.local import LocalStorage
from dicom_deid.storage.parts import Method, WrittenParts, write_parts
from dicom_deid.storage.retry import RetryPolicy
from dicom_deid.storage.s3 import S3Storage
from dicom_deid.storage.throttle import Throttle

__all__ = [
    "LocalStorage",
    "Method",
    "MultipartUpload",
    "ObjectStorage",
    "RetryPolicy",
    "S3Connection",
    "S3Storage",
    "SourceObject",
    "SourceRange",
    "Throttle",
    "WrittenObject",
    "WrittenParts",
    "open_storage",
    "write_parts",
]


def open_storage(url: str, connection: S3Connection | None = None, throttle: Throttle | None = None) -> ObjectStorage:
    """Open an object store; nothing is asked of it yet (see `ObjectStorage.check`).

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, a directory, or its ``file://`` URL.
    connection
        For ``s3://``; None for what the AWS environment variables say.
    throttle
        A speed limit, to be shared with other storages.

    Raises
    ------
    ConfigurationError
        When the URL is none of these, or the connection cannot be set up.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError("an S3 URL must be s3://bucket/prefix, and nothing more")
        return S3Storage(parts.netloc, parts.path, connection, throttle)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)), throttle)
    if "://" in url or not url:
        raise ConfigurationError(f"a storage must be s3://bucket/prefix or a directory, not {parts.scheme or 'empty'}")
    return LocalStorage(Path(url), throttle)
