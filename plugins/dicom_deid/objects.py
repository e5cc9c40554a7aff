"""Objects of an object store: listed, written, and byte ranges of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

MEMBER_SEPARATOR = "!/"
"""Between the key of a container and the name of its member."""

ArchiveState = Literal["", "archived", "restoring"]
"""Empty for an object that can be read; `restoring` while the store restores an archived one."""


DeleteResult = Literal["", "deleted", "version-kept"]
"""Empty if there was no object; `version-kept` if the bucket keeps a version of it."""


class SourceObject(NamedTuple):
    """A listed object.

    `etag` is the one of the store, without quotes. For a local file it is made from size and modification time.
    `archive_state` is as the listing says; some archived objects are found only by reading them.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    version_id: str | None = None
    archive_state: ArchiveState = ""


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
