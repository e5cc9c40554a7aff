"""An object in a store, as a listing shows it, and parts of one."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class SourceObject(NamedTuple):
    """One listed object.

    `etag` is the store's own, without quotes; a local file has one made of its size and modification time, so that a
    file that changes has another.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    version_id: str | None = None


class WrittenObject(NamedTuple):
    """One object that was written (or found to stand there already, with the same bytes)."""

    key: str
    size: int
    etag: str
    existed: bool = False


class SourceRange(NamedTuple):
    """Bytes of a source object, from `start` up to and without `end`, that stand unchanged in the new object."""

    start: int
    end: int
