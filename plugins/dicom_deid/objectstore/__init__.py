"""Object stores: list, read, write, large objects. No Airflow."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject, SourceRange, WrittenObject
from dicom_deid.objectstore.base import MultipartUpload, ObjectStore
from dicom_deid.objectstore.connection import S3Connection
from dicom_deid.objectstore.containers import ContainerStore
from dicom_deid.objectstore.local import LocalStore
from dicom_deid.objectstore.parts import WriteMethod, WriteResult, write_parts
from dicom_deid.objectstore.retry import RetryPolicy
from dicom_deid.objectstore.s3 import S3Store
from dicom_deid.objectstore.throttle import Throttle

__all__ = [
    "LocalStore",
    "MultipartUpload",
    "ObjectStore",
    "RetryPolicy",
    "S3Connection",
    "S3Store",
    "SourceObject",
    "SourceRange",
    "Throttle",
    "WriteMethod",
    "WriteResult",
    "WrittenObject",
    "open_object_store",
    "open_source",
    "write_parts",
]


def open_object_store(
    url: str, connection: S3Connection | None = None, throttle: Throttle | None = None
) -> ObjectStore:
    """Open an object store without sending a request (see `ObjectStore.check`).

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, a directory, or its ``file://`` URL.
    connection
        Connection for ``s3://``; None to use the AWS environment variables.
    throttle
        A speed limit, which may be shared with other stores.

    Raises
    ------
    ConfigurationError
        The URL is none of these, or the connection cannot be set up.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError("an S3 URL must be s3://bucket/prefix")
        return S3Store(parts.netloc, parts.path, connection, throttle)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)), throttle)
    if "://" in url or not url:
        raise ConfigurationError(f"give s3://bucket/prefix or a directory, not {parts.scheme or 'an empty URL'}")
    return LocalStore(Path(url), throttle)


def open_source(url: str, connection: S3Connection | None = None) -> ObjectStore:
    """Open the store of source objects: the members of zip, tar and gzip files in it are objects of their own.

    Raises
    ------
    ConfigurationError
        As for `open_object_store`.
    """
    return ContainerStore(open_object_store(url, connection))
