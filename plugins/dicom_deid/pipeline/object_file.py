"""A stored object as a file that is read in ranges."""

from __future__ import annotations

from typing import BinaryIO

from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore
from dicom_deid.objectstore.base import Buffer
from dicom_deid.objectstore.ranged_file import ranged_file
from dicom_deid.reasons import Reason

MAX_HEADER_BYTES = 16 * 2**20
"""Limit of what the API server reads of a header: it shares its memory with all other pages."""


def open_object(storage: ObjectStore, stored: SourceObject, max_bytes: int = MAX_HEADER_BYTES) -> BinaryIO:
    """Return an object as a file that reads ranges of it when they are needed.

    Parameters
    ----------
    storage, stored
        The object, as it was listed.
    max_bytes
        Reading more than this in total raises `Quarantine` with `HEADER_TOO_LARGE`.
    """
    left = max_bytes

    def read(start: int, end: int) -> Buffer:
        nonlocal left
        if left <= 0:
            raise Quarantine(Reason.HEADER_TOO_LARGE)
        end = min(end, start + left)
        left -= end - start
        return storage.read(
            stored.key, etag=stored.etag, version_id=stored.version_id, size=stored.size, start=start, end=end
        )

    return ranged_file(read, stored.size)
