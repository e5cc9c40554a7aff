"""A view of a store in which the members of containers (zip, tar, gzip) are objects of their own.

The key of a member is that of its container, ``!/`` and its name: ``study.zip!/series/1.dcm``. A zip is read by ranges:
its directory, then one request per member. A tar is read by ranges too; a compressed one is inflated from the
beginning, and the last bytes are kept, because members are read in about the order of the listing. Memory is bounded.
"""

from __future__ import annotations

import re
import stat
import struct
import sys
import tarfile
import threading
import zipfile
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import MEMBER_SEPARATOR, DeleteResult, SourceObject, WrittenObject
from dicom_deid.objectstore.base import Buffer, MultipartUpload, ObjectStore
from dicom_deid.objectstore.ranged_file import ReadRange
from dicom_deid.reasons import Reason

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".dcm.gz")
MAX_DEPTH = 2
"""Containers in containers."""
_OPEN_CONTAINERS = 4
_PIECE = 2**20
_AHEAD = 4 * 2**20
"""Bytes of a container that are read at once while its members are read one after the other."""
_AHEAD_KEPT = 4
_WINDOW = 16 * 2**20
"""Inflated bytes that are kept behind the position of a stream."""
_STREAMS = 2
"""Streams of a compressed tar: large members are read side by side."""
_WHOLE_MEMBER = 8 * 2**20
"""Compressed members up to this size are read in one request."""
_MAX_RATIO = 200
_UNSUSPECTED = 256 * 2**20
"""A member up to this size may be compressed at any ratio: empty images are."""
_EXTENDED_HEADERS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_MAX_EXTENDED_HEADER = 2**20
_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_PAX_FIELDS = {
    b"path": "path",
    b"linkpath": "linkpath",
    b"size": "size",
    b"GNU.sparse.name": "path",
    b"GNU.sparse.size": "sparse",
    b"GNU.sparse.realsize": "sparse",
}
"""Fields of pax headers that say where the next member is, what it is called, and that it is sparse."""
_PAX_LENGTH = 20
_NO_DATA = frozenset({tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"D", b"V"})
"""Types of members of a tar that are no files: devices, directories of incremental archives, the label of a volume."""
_SPARSE_FLAG, _SPARSE_MAP_FLAG = 482, 504
"""Where the header of a sparse member, and each block of the map after it, say that more of the map follows."""
_MAGIC = slice(257, 265)
_MAX_ZERO_BLOCKS = 2**15
"""After 16 MiB of zeros a tar has ended: no tape has larger records."""
_HEADERS_AT_ONCE = 2**18
_DIRECTORY_MEMORY = 256 * 2**20
"""Memory for the members of all open containers, about 650,000."""
_MEMBER_MEMORY = 300
"""Bytes of memory of a member without its name."""
_ZIP_HEADER = 30
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP64_BYTES = _ZIP64_END.size + 20
"""The end record of a zip64, and its locator."""
_DIRECTORY_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_ENCRYPTED = 0x1
_UTF8 = 0x800
_ZIP64_FIELD = 1
_UNIX = 3
_MAX_16, _MAX_32 = 2**16 - 1, 2**32 - 1


class Member(NamedTuple):
    """A member of a container.

    Parameters
    ----------
    offset
        Where it begins: its local header in a zip, its data in a tar.
    packed
        Its bytes in the container, compressed.
    problem
        Why it cannot be read; None if it can.
    crc
        CRC-32 of its bytes, which a zip keeps.
    """

    name: str
    size: int
    offset: int
    packed: int
    is_stored: bool = True
    problem: Reason | None = None
    crc: int = 0


class _Container(Protocol):
    """An opened container."""

    members: _Members
    problem: Reason | None
    """Why there may be more members than were found; None if these are all."""

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""


class ContainerStore:
    """A store whose containers are read member by member; implements `ObjectStore`.

    Parameters
    ----------
    base
        The store. Everything but listing, finding and reading is left to it.
    """

    def __init__(self, base: ObjectStore) -> None:
        self.base = base
        self._opened: OrderedDict[tuple[str, str], _Container] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def url(self) -> str:
        """See `ObjectStore.url`."""
        return self.base.url

    def check(self, *, writable: bool = False) -> None:
        """See `ObjectStore.check`."""
        self.base.check(writable=writable)

    def list(self, start_after: str | None = None) -> Iterator[SourceObject]:
        """See `ObjectStore.list`; a container that cannot be opened is listed itself, and reading it says why."""
        if start_after is not None and MEMBER_SEPARATOR in start_after:
            container = start_after.partition(MEMBER_SEPARATOR)[0]
            found = self.base.find(container)
            rest = self._with_members(found) if found is not None else iter(())
            passed = False
            for each in rest:
                if passed:
                    yield each
                passed = passed or each.key == start_after
            start_after = container
        for listed in self.base.list(start_after):
            if is_container(listed.key):
                yield from self._with_members(listed)
            else:
                yield listed

    def find(self, key: str) -> SourceObject | None:
        """See `ObjectStore.find`."""
        container, separator, name = key.rpartition(MEMBER_SEPARATOR)
        outer = self.find(container) if separator and is_container(container) else None
        if outer is None:
            return self.base.find(key)
        member = self._open(outer).members.get(name)
        return None if member is None else _listed(outer, member)

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
        """See `ObjectStore.read`; a container that cannot be opened says why."""
        itself = self._find_open(key, etag)
        if itself is not None and itself.problem is not None:
            raise Quarantine(itself.problem)
        container, separator, name = key.rpartition(MEMBER_SEPARATOR)
        opened = self._find_open(container, etag) if separator else None
        if opened is None:
            return self.base.read(key, etag=etag, size=size, start=start, end=end, version_id=version_id)
        return self._read_member(opened, name, start or 0, end)

    def _read_member(self, opened: _Container, name: str, start: int, end: int | None) -> bytes:
        member = opened.members.get(name)
        if member is None:
            raise Quarantine(Reason.OBJECT_VANISHED)
        if member.problem is not None:
            raise Quarantine(member.problem)
        stop = member.size if end is None else min(end, member.size)
        return opened.read(member, start, stop) if stop > start else b""

    def write(
        self, key: str, parts: Sequence[Buffer], *, metadata: Mapping[str, str], replaces: str | None = None
    ) -> WrittenObject:
        """See `ObjectStore.write`."""
        return self.base.write(key, parts, metadata=metadata, replaces=replaces)

    def delete(self, key: str, *, etag: str | None = None) -> DeleteResult:
        """See `ObjectStore.delete`."""
        return self.base.delete(key, etag=etag)

    def open_multipart(
        self, key: str, *, metadata: Mapping[str, str], copies: bool = False, replaces: str | None = None
    ) -> MultipartUpload:
        """See `ObjectStore.open_multipart`."""
        return self.base.open_multipart(key, metadata=metadata, copies=copies, replaces=replaces)

    def metadata(self, key: str) -> Mapping[str, str]:
        """See `ObjectStore.metadata`; a member has that of its container."""
        return self.base.metadata(key.partition(MEMBER_SEPARATOR)[0])

    def restore(self, key: str, *, days: int) -> None:
        """See `ObjectStore.restore`."""
        self.base.restore(key.partition(MEMBER_SEPARATOR)[0], days=days)

    def can_copy_from(self, other: ObjectStore) -> bool:
        """See `ObjectStore.can_copy_from`."""
        return self.base.can_copy_from(other)

    def same_place(self, other: ObjectStore) -> bool:
        """See `ObjectStore.same_place`."""
        return self.base.same_place(other)

    def _with_members(self, listed: SourceObject) -> Iterator[SourceObject]:
        if listed.archive_state or not is_container(listed.key):
            yield listed
            return
        try:
            opened = self._open(listed)
        except Quarantine as problem:
            if problem.reason in (Reason.OBJECT_VANISHED, Reason.OBJECT_CHANGED):
                return
            yield listed
            return
        for member in opened.members.values():
            inner = _listed(listed, member)
            if member.problem is None and inner.key.count(MEMBER_SEPARATOR) < MAX_DEPTH:
                yield from self._with_members(inner)
            else:
                yield inner
        if opened.problem is not None:
            yield listed

    def _find_open(self, container: str, etag: str | None) -> _Container | None:
        """Return the container of a member, opened; None if the key is that of a loose object."""
        if not is_container(container):
            return None
        with self._lock:
            for (key, known), opened in self._opened.items():
                if key == container and etag in (None, known):
                    return opened
            found = self.find(container)
            if found is not None and etag not in (None, found.etag):
                raise Quarantine(Reason.OBJECT_CHANGED)
            return None if found is None else self._open(found)

    def _open(self, listed: SourceObject) -> _Container:
        """Open a container, or return it if it is open."""
        place = (listed.key, listed.etag)
        with self._lock:
            if place not in self._opened:
                self._opened[place] = _open_container(listed.key, partial(self._read_range, listed), listed.size)
                while len(self._opened) > 1 and (len(self._opened) > _OPEN_CONTAINERS or self._is_full()):
                    self._opened.popitem(last=False)
            self._opened.move_to_end(place)
            return self._opened[place]

    def _is_full(self) -> bool:
        return sum(opened.members.memory for opened in self._opened.values()) > _DIRECTORY_MEMORY

    def _read_range(self, listed: SourceObject, start: int, end: int) -> Buffer:
        container, separator, name = listed.key.rpartition(MEMBER_SEPARATOR)
        opened = self._find_open(container, listed.etag) if separator else None
        if opened is not None:
            return self._read_member(opened, name, start, end)
        return self.base.read(listed.key, etag=listed.etag, start=start, end=end, version_id=listed.version_id)


def holder_of(store: ObjectStore, key: str = "") -> ObjectStore:
    """Return the store that holds an object, and can copy ranges of it; the view itself for a member."""
    return store.base if isinstance(store, ContainerStore) and MEMBER_SEPARATOR not in key else store


def is_container(key: str) -> bool:
    """Return whether a key is that of a container, by its suffix."""
    return key.lower().endswith(SUFFIXES)


def note_unread(listing: Iterable[SourceObject], unread: list[str]) -> Iterator[SourceObject]:
    """Yield the listing, and add the prefix of the members of each container that could not be opened."""
    for listed in listing:
        if is_container(listed.key):
            unread.append(listed.key + MEMBER_SEPARATOR)
        yield listed


def _listed(outer: SourceObject, member: Member) -> SourceObject:
    return outer._replace(key=f"{outer.key}{MEMBER_SEPARATOR}{member.name}", size=member.size)


def _open_container(key: str, read: ReadRange, size: int) -> _Container:
    name = key.lower()
    if key.count(MEMBER_SEPARATOR) >= MAX_DEPTH:
        raise Quarantine(Reason.CONTAINER_NESTED)
    try:
        if name.endswith(".zip"):
            return _Zip(read, size)
        if name.endswith(".tar"):
            return _Tar(read, size)
        if name.endswith(".dcm.gz"):
            return _Gzip(key.rpartition("/")[2].removesuffix(key[-3:]), read, size)
        inflate = _inflated_zstd if name.endswith(".zst") else _inflated_gzip
        return _CompressedTar(lambda: inflate(_pieces(read, 0, size)), size)
    except (zipfile.BadZipFile, tarfile.TarError, struct.error, ValueError):
        # Messages of these may hold names of members.
        raise Quarantine(Reason.CONTAINER_DAMAGED) from None


class _Members(dict[str, Member]):
    """Members by name."""

    def __init__(self) -> None:
        super().__init__()
        self._repeated: Counter[str] = Counter()
        self.memory = 0

    def count(self, name: str) -> None:
        """Count the memory of a member before it is added.

        Raises
        ------
        Quarantine
            `CONTAINER_TOO_LARGE` if there is none left.
        """
        self.memory += _MEMBER_MEMORY + sys.getsizeof(name)
        if self.memory > _DIRECTORY_MEMORY:
            raise Quarantine(Reason.CONTAINER_TOO_LARGE)

    def add(self, member: Member) -> None:
        """Add a member; one of a name that an earlier one has, or that no key can be made of, gets another."""
        plain = name = member.name.replace(MEMBER_SEPARATOR, "!_")
        while name in self:
            self._repeated[plain] += 1
            name = f"{plain} ({self._repeated[plain] + 1})"
        self[name] = member._replace(name=name)

    def last(self, name: str) -> Member | None:
        """Return the last member that was added under a name."""
        plain = name.replace(MEMBER_SEPARATOR, "!_")
        repeated = self._repeated.get(plain)
        return self.get(f"{plain} ({repeated + 1})" if repeated else plain)


def _problem_of_name(name: str) -> Reason | None:
    """Return a reason for names that lead out of the container, or that no key can be made of."""
    segments = name.replace("\\", "/").split("/")
    is_path = name.startswith(("/", "\\")) or ".." in segments or ":" in segments[0]
    return Reason.CONTAINER_PATH if is_path or MEMBER_SEPARATOR in name or "\0" in name or not segments[-1] else None


def _is_bomb(size: int, packed: int) -> bool:
    return size > _UNSUSPECTED and size > _MAX_RATIO * packed


class _ReadAhead:
    """Ranges of a container: small ones that follow each other are cut from larger ones, which are read once.

    One request for eight members costs a store far less than eight. Members that are read at random are read alone.
    """

    def __init__(self, read: ReadRange, size: int) -> None:
        self._read = read
        self._size = size
        self._lock = threading.Lock()
        self._pieces: OrderedDict[int, Future[Buffer]] = OrderedDict()
        # The piece that was read from last.
        self._last = -2

    def __call__(self, start: int, end: int) -> Buffer:
        first, last = start // _AHEAD, (end - 1) // _AHEAD
        with self._lock:
            follows = 0 <= first - self._last <= 1 or first in self._pieces
            self._last = max(last, self._last) if follows else last
        if not follows or last - first > 1:
            return self._read(start, end)
        pieces = [self._piece(number) for number in range(first, last + 1)]
        found = [memoryview(piece)[max(0, start - at) : end - at] for piece, at in pieces]
        return found[0] if len(found) == 1 else b"".join(found)

    def _piece(self, number: int) -> tuple[Buffer, int]:
        """Return a piece, read by this thread or by another, and where it begins."""
        begin = number * _AHEAD
        with self._lock:
            future = self._pieces.get(number)
            is_ours = future is None
            if future is None:
                future = self._pieces[number] = Future()
                while len(self._pieces) > _AHEAD_KEPT:
                    self._pieces.popitem(last=False)
            self._pieces.move_to_end(number)
        if is_ours:
            try:
                future.set_result(self._read(begin, min(begin + _AHEAD, self._size)))
            except BaseException as error:
                with self._lock:
                    self._pieces.pop(number, None)
                future.set_exception(error)
                raise
        return future.result(), begin


class _Zip:
    """A zip, read by ranges."""

    problem: Reason | None = None

    def __init__(self, read: ReadRange, size: int) -> None:
        self._read = _ReadAhead(read, size)
        self._size = size
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._lock = threading.Lock()
        self.members = _Members()
        found = []
        for entry in _read_directory(read, size):
            self.members.count(entry.name)
            found.append(entry)
        end = 0
        for entry in sorted(found, key=lambda each: each.offset):
            # Members that share bytes make a bomb of a small file.
            is_shared = entry.offset < end
            end = max(end, entry.offset + _ZIP_HEADER + entry.packed)
            self.members.add(entry._replace(problem=Reason.CONTAINER_BOMB) if is_shared else entry)

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""
        if not member.is_stored and member.size > _WHOLE_MEMBER:
            return self._stream(member).read_checked(start, end, member.size)
        if member.is_stored and (start, end) != (0, member.size):
            begin = self._data_start(member)
            return bytes(self._read(begin + start, begin + end))
        # The local header has a name and extra fields of its own length: usually they fit into what is read with it.
        guess = member.offset + _ZIP_HEADER + len(member.name.encode(errors="surrogateescape")) + 64 + member.packed
        data = self._read(member.offset, min(guess, self._size))
        begin = self._header_length(member, data)
        packed = data[begin : begin + member.packed]
        if len(packed) < member.packed:
            packed = self._read(member.offset + begin, member.offset + begin + member.packed)
        if not member.is_stored:
            return b"".join(_inflated(iter([packed]), member))[start:end]
        if len(packed) != member.size or zlib.crc32(packed) != member.crc:
            raise Quarantine(Reason.CONTAINER_DAMAGED)
        return bytes(packed)

    def _stream(self, member: Member) -> _Stream:
        with self._lock:
            if member.name not in self._streams:
                begin = self._data_start(member)
                pieces = partial(_pieces, self._read, begin, begin + member.packed)
                self._streams[member.name] = _Stream(lambda: _inflated(pieces(), member))
                while len(self._streams) > _OPEN_CONTAINERS:
                    self._streams.popitem(last=False)
            return self._streams[member.name]

    def _data_start(self, member: Member) -> int:
        header = self._read(member.offset, member.offset + _ZIP_HEADER)
        return member.offset + self._header_length(member, header)

    def _header_length(self, member: Member, header: Buffer) -> int:
        """Return the length of a local file header (APPNOTE.TXT section 4.3.7)."""
        length = _ZIP_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if bytes(header[:4]) != b"PK\3\4" or member.offset + length + member.packed > self._size:
            raise Quarantine(Reason.CONTAINER_DAMAGED)
        return length


def _read_directory(read: ReadRange, size: int) -> Iterator[Member]:
    """Yield the members of a zip, of which the directory is read in pieces (APPNOTE.TXT section 4.3.12).

    Python's zipfile reads it whole, and keeps names, extra fields and comments of 64 KiB of each member.
    """
    begin, length, offset = _find_directory(read, size)
    if offset > begin:
        raise Quarantine(Reason.CONTAINER_DAMAGED)
    file = _StreamFile(_pieces(read, begin, begin + length))
    while file.position < length:
        entry = _DIRECTORY_ENTRY.unpack(file.read(_DIRECTORY_ENTRY.size))
        if entry[0] != b"PK\1\2":
            raise Quarantine(Reason.CONTAINER_DAMAGED)
        name, extra = file.read(entry[12]), file.read(entry[13])
        file.skip(entry[14])
        if not name.endswith(b"/"):
            yield _zip_member(entry, name, extra, begin - offset, size)


def _find_directory(read: ReadRange, size: int) -> tuple[int, int, int]:
    """Return where the directory of a zip is, its length, and where the zip says that it is, from its end record.

    Sections 4.3.14 to 4.3.16. A comment may contain the signature: the comment of the end record ends with the file.
    """
    tail = bytes(read(max(0, size - _ZIP_END.size - _MAX_16 - _ZIP64_BYTES), size)) if size else b""
    ends = [found.start() for found in re.finditer(b"PK\5\6(?=.{18})", tail, re.DOTALL)]
    whole = [end for end in ends if end + _ZIP_END.size + _ZIP_END.unpack_from(tail, end)[7] == len(tail)]
    if not ends:
        raise Quarantine(Reason.CONTAINER_DAMAGED)
    end = (whole or ends)[-1]
    _, disk, first_disk, _, _, length, offset, _ = _ZIP_END.unpack_from(tail, end)
    large = tail[max(0, end - _ZIP64_BYTES) : end]
    if large[_ZIP64_END.size :].startswith(b"PK\6\7") and large.startswith(b"PK\6\6"):
        *_, disk, first_disk, _, _, length, offset = _ZIP64_END.unpack_from(large)
        end -= _ZIP64_BYTES
    if disk or first_disk:
        raise Quarantine(Reason.CONTAINER_UNSUPPORTED)
    return size - len(tail) + end - length, length, offset


def _zip_member(entry: tuple[Any, ...], encoded: bytes, extra: bytes, before: int, size: int) -> Member:
    """Return a member; `before` is the number of bytes before the zip, and `size` that of the file."""
    system, flags, method, crc, disk, attributes = entry[2], entry[5], entry[6], entry[9], entry[15], entry[17]
    name = encoded.decode("utf-8", "surrogateescape") if flags & _UTF8 else encoded.decode("cp437")
    # A number that does not fit is in the extra fields (section 4.5.3).
    large = _zip64_numbers(extra)
    unpacked, packed, offset = (
        next(large, each) if each == _MAX_32 else each for each in (entry[11], entry[10], entry[18])
    )
    offset += before
    problem, is_stored = _problem_of_name(name), method == zipfile.ZIP_STORED
    if flags & _ENCRYPTED:
        problem = Reason.CONTAINER_ENCRYPTED
    elif (
        method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        or disk not in (0, _MAX_16)
        or (system == _UNIX and stat.S_ISLNK(attributes >> 16))
    ):
        problem = Reason.CONTAINER_UNSUPPORTED
    elif _is_bomb(unpacked, packed):
        problem = Reason.CONTAINER_BOMB
    elif offset < 0 or offset + _ZIP_HEADER + packed > size or (is_stored and packed != unpacked):
        problem = Reason.CONTAINER_DAMAGED
    return Member(name, unpacked, offset, packed, is_stored, problem, crc)


def _zip64_numbers(extra: bytes) -> Iterator[int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == _ZIP64_FIELD:
            count = min(length, len(extra) - position - 4) // 8
            yield from struct.unpack_from(f"<{count}Q", extra, position + 4)
            return
        position += 4 + length


class _Tar:
    """A tar that is not compressed, read by ranges."""

    def __init__(self, read: ReadRange, size: int) -> None:
        self._read = _ReadAhead(read, size)
        reader = _TarReader(_RangeFile(read, size), size)
        self.members, self.problem = reader.members, reader.problem

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""
        return bytes(self._read(member.offset + start, member.offset + end))


class _CompressedTar:
    """A tar in a compressed stream."""

    def __init__(self, inflate: Callable[[], Iterator[bytes]], size: int) -> None:
        # The range that each keeps after the reads that it was chosen for, which may be waiting; the last used is last.
        self._streams = [(0, 0, _Stream(inflate)) for _ in range(_STREAMS)]
        self._lock = threading.Lock()
        pieces = _bounded(inflate(), size)
        reader = _TarReader(_StreamFile(pieces))
        self.members, self.problem = reader.members, reader.problem
        # The checksum of the stream is at its end.
        deque(pieces, maxlen=0)

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""
        start, end = member.offset + start, member.offset + end
        return self._choose(start, end).read(start, end)

    def _choose(self, start: int, end: int) -> _Stream:
        """Return the stream that is least far before a position; one that has passed it begins again."""
        with self._lock:
            before = [each for each in self._streams if each[0] <= start]
            chosen = max(before, key=lambda each: each[1]) if before else self._streams[0]
            self._streams.remove(chosen)
            kept_from, reached, stream = chosen if before else (0, 0, chosen[2])
            reached = max(reached, end)
            self._streams.append((min(start, max(kept_from, reached - _WINDOW + _PIECE)), reached, stream))
            return stream


class _Gzip:
    """One object that is compressed by itself; its size is that of the end of the file, verified when it is read."""

    problem: Reason | None = None

    def __init__(self, name: str, read: ReadRange, size: int) -> None:
        trailer = bytes(read(max(0, size - 4), size))
        if bytes(read(0, 2)) != b"\x1f\x8b":
            raise Quarantine(Reason.CONTAINER_DAMAGED)
        inflated = int.from_bytes(trailer, "little")
        problem = Reason.CONTAINER_BOMB if _is_bomb(inflated, size) else None
        self.members = _Members()
        self.members.add(Member(name, inflated, 0, size, problem=problem))
        self._stream = _Stream(lambda: _inflated_gzip(_pieces(read, 0, size)))

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of the object."""
        return self._stream.read_checked(start, end, member.size)


class _TarReader:
    """Reads the headers of a tar in bounded memory, and notes how it ends.

    Python's tarfile takes everything that is no header for the end.
    """

    def __init__(self, file: _StreamFile, size: int | None = None) -> None:
        self._file = file
        self._size = size
        self._global: dict[str, str] = {}
        self._fields: dict[str, str] = {}
        self.members = _Members()
        self.problem: Reason | None = Reason.CONTAINER_INCOMPLETE
        self._read_headers()
        if not self._file.position:
            raise Quarantine(Reason.CONTAINER_DAMAGED)

    def _read_headers(self) -> None:
        zero_blocks = 0
        while (block := self._file.read(tarfile.BLOCKSIZE)) and zero_blocks < _MAX_ZERO_BLOCKS:
            # Some programs write one block of zeros at the end, or put one tar behind the other.
            if not block.strip(b"\0"):
                zero_blocks += 1
                self.problem = None
                continue
            try:
                self._read_member(tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape"), block)
            except (tarfile.HeaderError, ValueError):
                if self._file.position <= tarfile.BLOCKSIZE:
                    raise
                self.problem = Reason.CONTAINER_INCOMPLETE if zero_blocks else Reason.CONTAINER_DAMAGED
                return
            zero_blocks, self.problem = 0, Reason.CONTAINER_INCOMPLETE

    def _read_member(self, info: tarfile.TarInfo, block: bytes) -> None:
        if info.type in _EXTENDED_HEADERS:
            self._read_extended_header(info)
            return
        is_sparse = info.type == tarfile.GNUTYPE_SPARSE
        map_goes_on = is_sparse and block[_SPARSE_FLAG] != 0
        while map_goes_on:
            map_goes_on = self._file.read(tarfile.BLOCKSIZE)[_SPARSE_MAP_FLAG:].strip(b"\0") != b""
        fields, self._fields = {**self._global, **self._fields}, {}
        size = int(fields.get("size", info.size))
        offset = self._file.position
        if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
            self._skip(size)
        name = fields.get("path", _plain_name(info, block))
        if info.isdir() or info.type in _NO_DATA:
            return
        self.members.count(name)
        target = self.members.last(fields.get("linkpath", info.linkname)) if info.islnk() else None
        if target is not None:
            self.members.add(target._replace(name=name))
            return
        is_file = info.isreg() and not is_sparse and "sparse" not in fields
        problem = _problem_of_name(name) if is_file else Reason.CONTAINER_UNSUPPORTED
        self.members.add(Member(name, size, offset, size, problem=problem))

    def _skip(self, size: int) -> None:
        padded = -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        end = self._file.position + size
        if size < 0 or (self._size is not None and end > self._size):
            raise ValueError
        self._file.skip(padded)
        if self._file.position < end:
            raise ValueError

    def _read_extended_header(self, info: tarfile.TarInfo) -> None:
        """Keep what a pax header, or a long name of GNU tar, says of the next member."""
        if not 0 <= info.size <= _MAX_EXTENDED_HEADER:
            raise ValueError
        data = self._file.read(-(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)[: info.size]
        if len(data) < info.size:
            raise ValueError
        if info.type in _LONG_NAMES:
            self._fields[_LONG_NAMES[info.type]] = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            return
        fields = self._global if info.type == tarfile.XGLTYPE else self._fields
        position = 0
        while position < len(data) and data[position]:
            space = data.index(b" ", position, position + _PAX_LENGTH)
            end = position + int(data[position:space])
            if not space < end <= len(data):
                raise ValueError
            keyword, _, value = data[space + 1 : end - 1].partition(b"=")
            if keyword in _PAX_FIELDS:
                fields[_PAX_FIELDS[keyword]] = value.decode("utf-8", "surrogateescape")
            position = end


def _plain_name(info: tarfile.TarInfo, block: bytes) -> str:
    """Return the name of a header; in incremental archives of GNU tar, times are where tarfile looks for a prefix."""
    if block[_MAGIC] != tarfile.GNU_MAGIC:
        return info.name
    return block[: tarfile.LENGTH_NAME].partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pieces(read: ReadRange, start: int, end: int, at_once: int = _PIECE) -> Iterator[Buffer]:
    for position in range(start, end, at_once):
        yield read(position, min(position + at_once, end))


def _inflated(pieces: Iterator[Buffer], member: Member) -> Iterator[bytes]:
    """Inflate a member of a zip; after its last byte, another size or checksum than it says is a damaged container."""
    inflater, total, crc = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    for piece in pieces:
        rest: Buffer = piece
        data = b""
        # Bytes may be left in the inflater when it has taken all that it was given.
        while not inflater.eof and (len(rest) or len(data) == _PIECE):
            data = _decompress(inflater, rest)
            rest = inflater.unconsumed_tail
            total += len(data)
            crc = zlib.crc32(data, crc)
            if total > member.size:
                raise Quarantine(Reason.CONTAINER_BOMB)
            yield data
    if not inflater.eof or (total, crc) != (member.size, member.crc):
        raise Quarantine(Reason.CONTAINER_DAMAGED)


def _inflated_gzip(pieces: Iterator[Buffer]) -> Iterator[bytes]:
    """Inflate a gzip file, which may have several parts."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for piece in pieces:
        rest: Buffer = piece
        while len(rest):
            if inflater.eof:
                # Zeros may fill up the last block of a tape.
                if not bytes(rest).strip(b"\0"):
                    break
                inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield _decompress(inflater, rest)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if not inflater.eof:
        raise Quarantine(Reason.CONTAINER_DAMAGED)


def _decompress(inflater: Any, data: Buffer) -> bytes:
    try:
        inflated: bytes = inflater.decompress(data, _PIECE)
    except zlib.error:
        raise Quarantine(Reason.CONTAINER_DAMAGED) from None
    return inflated


def _inflated_zstd(pieces: Iterator[Buffer]) -> Iterator[bytes]:
    """Inflate a zstd file, which may have several frames."""
    # Python has it from 3.14 on.
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    inflater = zstd.ZstdDecompressor()
    for piece in pieces:
        rest: Buffer = piece
        while len(rest) or not (inflater.needs_input or inflater.eof):
            if inflater.eof:
                inflater = zstd.ZstdDecompressor()
            try:
                yield inflater.decompress(rest, _PIECE)
            except zstd.ZstdError:
                raise Quarantine(Reason.CONTAINER_DAMAGED) from None
            rest = inflater.unused_data if inflater.eof else b""
    if not inflater.eof:
        raise Quarantine(Reason.CONTAINER_DAMAGED)


def _bounded(pieces: Iterator[bytes], packed: int) -> Iterator[bytes]:
    """Pass pieces on until there are too many for what they were inflated of."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if _is_bomb(total, packed):
            raise Quarantine(Reason.CONTAINER_BOMB)
        yield piece


class _Stream:
    """Ranges of a stream that can only be read forward: its last bytes are kept, and what is before them read again."""

    def __init__(self, begin: Callable[[], Iterator[bytes]]) -> None:
        self._begin = begin
        self._lock = threading.RLock()
        self._restart()

    def _restart(self) -> None:
        self._pieces = self._begin()
        self._window: deque[bytes] = deque()
        self._start = self._end = 0

    def read(self, start: int, end: int) -> bytes:
        """Return a range, all of it."""
        with self._lock:
            if start < self._start:
                self._restart()
            while self._end < end:
                piece = next(self._pieces, None)
                if piece is None:
                    self._restart()
                    raise Quarantine(Reason.CONTAINER_DAMAGED)
                self._window.append(piece)
                self._end += len(piece)
                while self._end - self._start - len(self._window[0]) > max(_WINDOW, self._end - start):
                    self._start += len(self._window.popleft())
            position, found = self._start, []
            for piece in self._window:
                found.append(piece[max(0, start - position) : max(0, end - position)])
                position += len(piece)
            return b"".join(found)

    def read_checked(self, start: int, end: int, size: int) -> bytes:
        """Return a range; after the last byte, raise `Quarantine` if the stream goes on, or its checksum differs."""
        with self._lock:
            data = self.read(start, end)
            if end < size:
                return data
            try:
                if self._end > end or any(self._pieces):
                    raise Quarantine(Reason.CONTAINER_DAMAGED)
            except Quarantine:
                # The next read of the end raises it again.
                self._restart()
                raise
            return data


class _StreamFile:
    """A stream as a file that is read forward."""

    def __init__(self, pieces: Iterator[Buffer]) -> None:
        self._pieces = pieces
        self._piece: Buffer = b""
        self._used = 0
        self.position = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        return b"".join(self._parts(size))

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        deque(self._parts(size), maxlen=0)

    def _parts(self, size: int) -> Iterator[Buffer]:
        while size > 0:
            if self._used == len(self._piece):
                piece = next(self._pieces, None)
                if piece is None:
                    return
                self._piece, self._used = piece, 0
            part = self._piece[self._used : self._used + size]
            self._used += len(part)
            self.position += len(part)
            size -= len(part)
            yield part


class _RangeFile(_StreamFile):
    """A file that is read forward by ranges; what is passed over is not read."""

    def __init__(self, read: ReadRange, size: int) -> None:
        super().__init__(iter(()))
        self._read = read
        self._size = size

    def skip(self, size: int) -> None:
        rest = len(self._piece) - self._used
        super().skip(min(size, rest))
        self.position = min(self._size, self.position + max(0, size - rest))

    def _parts(self, size: int) -> Iterator[Buffer]:
        if self._used == len(self._piece):
            self._pieces = _pieces(self._read, self.position, self._size, _HEADERS_AT_ONCE)
        return super()._parts(size)
