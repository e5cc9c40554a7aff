"""Objects as files below a directory."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dicom_deid.exceptions import ConfigurationError, ObjectStoreError, Quarantine
from dicom_deid.objects import DeleteResult, SourceObject, WrittenObject
from dicom_deid.objectstore.base import Buffer, ObjectStore, holds_same_bytes
from dicom_deid.objectstore.errors import PreconditionFailed, RefusedError
from dicom_deid.objectstore.throttle import Throttle
from dicom_deid.reasons import Reason

_UNFINISHED = ".dicom-deid-unfinished-"


class LocalStore:
    """Files below a directory; a file gets its name only when all its bytes are on the disk.

    Metadata is not kept: files have none. Hidden files that begin with ``.dicom-deid-unfinished-`` were left by a
    killed process; they are not listed and may be deleted.

    Parameters
    ----------
    directory
        The directory; the first write creates it.
    throttle
        A speed limit.
    """

    def __init__(self, directory: Path, throttle: Throttle | None = None) -> None:
        self.directory = directory.absolute()
        self._throttle = throttle or Throttle()

    @property
    def url(self) -> str:
        """The directory."""
        return str(self.directory)

    def check(self, *, writable: bool = False) -> None:
        """See `ObjectStore.check`; a directory to write into is created."""
        if writable:
            probe = self.directory / f"{_UNFINISHED}{uuid.uuid4().hex}"
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise ConfigurationError(
                    f"the directory {self.directory} cannot be written ({error.strerror}): check who owns it"
                ) from None
        elif not self.directory.is_dir():
            raise ConfigurationError(f"the directory {self.directory} does not exist: check the path")
        elif not os.access(self.directory, os.R_OK | os.X_OK):
            raise ConfigurationError(f"the directory {self.directory} cannot be read: check who owns it")

    def list(self, start_after: str | None = None) -> Iterator[SourceObject]:
        """See `ObjectStore.list`; symbolic links to directories are not followed."""
        yield from self._list_directory(self.directory, "", start_after)

    def find(self, key: str) -> SourceObject | None:
        """See `ObjectStore.find`."""
        try:
            return _source_object(key, self._path(key).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def metadata(self, key: str) -> Mapping[str, str]:
        """Return nothing: files have no metadata."""
        del key
        return {}

    def read(
        self,
        key: str,
        *,
        etag: str | None = None,
        size: int | None = None,
        start: int | None = None,
        end: int | None = None,
        version_id: str | None = None,
    ) -> bytes:
        """See `ObjectStore.read`; files have no versions."""
        del version_id
        self._throttle.request()
        try:
            with self._path(key).open("rb") as file:
                before = os.fstat(file.fileno())
                first = start or 0
                wanted = (before.st_size if end is None else end) - first
                file.seek(first)
                data = file.read(wanted)
                after = os.fstat(file.fileno())
        except (FileNotFoundError, NotADirectoryError):
            raise Quarantine(Reason.OBJECT_VANISHED) from None
        except OSError as error:
            raise ObjectStoreError(f"a file cannot be read ({error.strerror})") from None
        unchanged = etag in (None, _etag(before)) and size in (None, before.st_size) and _etag(after) == _etag(before)
        if not unchanged or len(data) != wanted:
            raise Quarantine(Reason.OBJECT_CHANGED)
        self._throttle.count_bytes(len(data))
        return data

    def write(
        self, key: str, parts: Sequence[Buffer], *, metadata: Mapping[str, str], replaces: str | None = None
    ) -> WrittenObject:
        """See `ObjectStore.write`."""
        upload = self.open_multipart(key, metadata=metadata, replaces=replaces)
        try:
            offset = 0
            for number, part in enumerate(parts, 1):
                upload.put_part(number, offset, part)
                offset += len(part)
            return upload.complete()
        except PreconditionFailed:
            existing = self.find(key)
            if existing is not None and holds_same_bytes(self, existing, parts):
                return WrittenObject(key, existing.size, existing.etag, existed=True)
            raise Quarantine(Reason.DESTINATION_CONFLICT) from None
        finally:
            upload.abort()

    def delete(self, key: str, *, etag: str | None = None) -> DeleteResult:
        """See `ObjectStore.delete`; folders that become empty are kept."""
        existing = self.find(key)
        if existing is None:
            return ""
        if etag not in (None, existing.etag):
            raise Quarantine(Reason.DESTINATION_CONFLICT)
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise ObjectStoreError(f"a file cannot be deleted ({error.strerror})") from None
        return "deleted"

    def open_multipart(
        self, key: str, *, metadata: Mapping[str, str], copies: bool = False, replaces: str | None = None
    ) -> LocalUpload:
        """See `ObjectStore.open_multipart`."""
        del metadata
        self._throttle.request()
        return LocalUpload(key, self._path(key), self._throttle, replaces)

    def restore(self, key: str, *, days: int) -> None:
        """See `ObjectStore.restore`; files are not archived."""
        del key, days

    def can_copy_from(self, other: ObjectStore) -> bool:
        """Return False: files are copied through this process."""
        del other
        return False

    def same_place(self, other: ObjectStore) -> bool:
        """See `ObjectStore.same_place`."""
        if not isinstance(other, LocalStore):
            return False
        one, two = self.directory.resolve(), other.directory.resolve()
        return one == two or one in two.parents or two in one.parents

    def _path(self, key: str) -> Path:
        path = self.directory / key
        if not key or "\0" in key or Path(key).is_absolute() or ".." in Path(key).parts:
            raise ObjectStoreError("a directory cannot hold a key that is empty, absolute, or has a null byte or dots")
        return path

    def _list_directory(self, directory: Path, prefix: str, start_after: str | None) -> Iterator[SourceObject]:
        try:
            with os.scandir(directory) as entries:
                found = sorted((_sort_key(entry), entry) for entry in entries if not entry.name.startswith(_UNFINISHED))
        except OSError as error:
            raise ObjectStoreError(f"a directory below {self.directory} cannot be listed ({error.strerror})") from None
        for _, entry in found:
            key = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if start_after is None or start_after < key + "/" or start_after.startswith(key + "/"):
                    yield from self._list_directory(Path(entry.path), key + "/", start_after)
            elif entry.is_file() and (start_after is None or os.fsencode(key) > os.fsencode(start_after)):
                # The file was deleted during the listing.
                with contextlib.suppress(FileNotFoundError):
                    yield _source_object(key, entry.stat())


class LocalUpload:
    """A file that is written under another name and renamed when it is complete."""

    def __init__(self, key: str, path: Path, throttle: Throttle, replaces: str | None = None) -> None:
        self._key = key
        self._path = path
        self._replaces = replaces
        self._throttle = throttle
        self._unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise ObjectStoreError(f"a file cannot be created ({error.strerror})") from None

    def put_part(self, number: int, offset: int, data: Buffer) -> None:
        """See `MultipartUpload.put_part`."""
        del number
        self._throttle.request()
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise ObjectStoreError(f"a file cannot be written ({error.strerror})") from None
        self._throttle.count_bytes(len(data))

    def copy_part(
        self, number: int, offset: int, source: ObjectStore, source_object: SourceObject, start: int, end: int
    ) -> None:
        """Refuse: see `LocalStore.can_copy_from`."""
        raise RefusedError("files are not copied by range")

    def complete(self) -> WrittenObject:
        """See `MultipartUpload.complete`."""
        try:
            os.fsync(self._file)
            if self._replaces is not None and self._path.exists() and _etag(self._path.stat()) == self._replaces:
                self._unfinished.rename(self._path)
            else:
                # Unlike a rename, a link never replaces an existing file.
                os.link(self._unfinished, self._path)
            status = os.fstat(self._file)
        except FileExistsError:
            raise PreconditionFailed("the key is taken") from None
        except OSError as error:
            raise ObjectStoreError(f"a file cannot be given its name ({error.strerror})") from None
        return WrittenObject(self._key, status.st_size, _etag(status))

    def abort(self) -> None:
        """See `MultipartUpload.abort`; after `complete` it removes the other name."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._unfinished.unlink(missing_ok=True)


def _sort_key(entry: os.DirEntry[str]) -> bytes:
    # Bytes of a name that are not UTF-8 are surrogate escapes in the key.
    name = os.fsencode(entry.name)
    # A store sorts whole keys: "a.dcm" comes before "a/b", because "." comes before "/".
    return name + b"/" if entry.is_dir(follow_symlinks=False) else name


def _source_object(key: str, status: os.stat_result) -> SourceObject:
    return SourceObject(key, status.st_size, _etag(status), datetime.fromtimestamp(status.st_mtime, UTC))


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"
