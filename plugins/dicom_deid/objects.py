"""Objects of an object store: listed, written, and byte ranges of them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class SourceObject(NamedTuple):
    """A listed object.

    `etag` is the one of the store, without quotes. For a local file it is made from size and modification time.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    version_id: str | None = None


class WrittenObject(NamedTuple):
    """A written object, or one that already existed with the same bytes (`existed`)."""

    key: str
    size: int
    etag: str
    existed: bool = False


class SourceRange(NamedTuple):
    """Byte range of a source object that is copied unchanged; `end` is exclusive."""

    start: int
    end: int
