"""A view of a store in which the members of containers (zip, tar, gzip) are objects of their own.

The key of a member is that of its container, ``!/`` and its name: ``study.zip!/series/1.dcm``. A zip is read by ranges:
its directory, then one request per member. A tar is read by ranges too; a compressed one is inflated from the
beginning, and the last bytes are kept, because members are read in about the order of the listing. Memory is bounded.
"""

from __future__ import annotations

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
from typing import Any, BinaryIO, NamedTuple, Protocol, Self, cast

from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import DeleteResult, SourceObject, WrittenObject
from dicom_deid.objectstore.base import Buffer, MultipartUpload, ObjectStore
from dicom_deid.objectstore.ranged_file import ReadRange, ranged_file
from dicom_deid.reasons import Reason

SEPARATOR = "!/"
"""Between the key of a container and the name of its member."""

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".dcm.gz")
MAX_DEPTH = 2
"""Containers in containers."""
_OPEN_CONTAINERS = 4
_PIECE = 2**20
_AHEAD = 4 * 2**20
"""Bytes of a container that are read at once while its members are read one after the other."""
_AHEAD_KEPT = 4
_WINDOW = 32 * 2**20
"""Inflated bytes that are kept behind the position of a stream."""
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
_ZIP_HEADER = 30
_ENCRYPTED = 0x1


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
        if start_after is not None and SEPARATOR in start_after:
            container = start_after.partition(SEPARATOR)[0]
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
        container, separator, name = key.rpartition(SEPARATOR)
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
        if is_container(key):
            self._find_open(key, etag)
        container, separator, name = key.rpartition(SEPARATOR)
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
        return self.base.metadata(key.partition(SEPARATOR)[0])

    def restore(self, key: str, *, days: int) -> None:
        """See `ObjectStore.restore`."""
        self.base.restore(key.partition(SEPARATOR)[0], days=days)

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
            if member.problem is None and inner.key.count(SEPARATOR) < MAX_DEPTH:
                yield from self._with_members(inner)
            else:
                yield inner

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
                while len(self._opened) > _OPEN_CONTAINERS:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(place)
            return self._opened[place]

    def _read_range(self, listed: SourceObject, start: int, end: int) -> Buffer:
        container, separator, name = listed.key.rpartition(SEPARATOR)
        opened = self._find_open(container, listed.etag) if separator else None
        if opened is not None:
            return self._read_member(opened, name, start, end)
        return self.base.read(listed.key, etag=listed.etag, start=start, end=end, version_id=listed.version_id)


def holder_of(store: ObjectStore, key: str = "") -> ObjectStore:
    """Return the store that holds an object, and can copy ranges of it; the view itself for a member."""
    return store.base if isinstance(store, ContainerStore) and SEPARATOR not in key else store


def is_container(key: str) -> bool:
    """Return whether a key is that of a container, by its suffix."""
    return key.lower().endswith(SUFFIXES)


def note_unread(listing: Iterable[SourceObject], unread: list[str]) -> Iterator[SourceObject]:
    """Yield the listing, and add the prefix of the members of each container that could not be opened."""
    for listed in listing:
        if is_container(listed.key):
            unread.append(listed.key + SEPARATOR)
        yield listed


def _listed(outer: SourceObject, member: Member) -> SourceObject:
    return outer._replace(key=f"{outer.key}{SEPARATOR}{member.name}", size=member.size)


def _open_container(key: str, read: ReadRange, size: int) -> _Container:
    name = key.lower()
    if key.count(SEPARATOR) >= MAX_DEPTH:
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
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError):
        # Messages of these may hold names of members.
        raise Quarantine(Reason.CONTAINER_DAMAGED) from None


class _Members(dict[str, Member]):
    """Members by name."""

    def __init__(self) -> None:
        super().__init__()
        self._repeated: Counter[str] = Counter()

    def add(self, member: Member) -> None:
        """Add a member; one of a name that an earlier one has, or that no key can be made of, gets another."""
        plain = name = member.name.replace(SEPARATOR, "!_")
        while name in self:
            self._repeated[plain] += 1
            name = f"{plain} ({self._repeated[plain] + 1})"
        self[name] = member._replace(name=name)


class _TarInfo(tarfile.TarInfo):
    """A header of a tar, refused if reading what it announces would take all memory, or go backwards."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED_HEADERS and info.size > _MAX_EXTENDED_HEADER:
            raise tarfile.ReadError
        info._block(info.size)
        return info

    def _block(self, count: int) -> int:
        # tarfile adds it to its position.
        if count < 0:
            raise tarfile.ReadError
        return -(-count // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _problem_of_name(name: str) -> Reason | None:
    """Return a reason for names that lead out of the container, or that no key can be made of."""
    segments = name.replace("\\", "/").split("/")
    is_path = name.startswith(("/", "\\")) or ".." in segments or ":" in segments[0]
    return Reason.CONTAINER_PATH if is_path or SEPARATOR in name or "\0" in name or not segments[-1] else None


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

    def __init__(self, read: ReadRange, size: int) -> None:
        self._read = _ReadAhead(read, size)
        self._size = size
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._lock = threading.Lock()
        self.members = _Members()
        with zipfile.ZipFile(ranged_file(read, size)) as directory:
            files = [each for each in directory.infolist() if not each.is_dir()]
        infos = sorted(files, key=lambda each: each.header_offset)
        end = 0
        for info in infos:
            problem = self._problem(info)
            if info.header_offset < 0 or info.header_offset + _ZIP_HEADER + info.compress_size > size:
                problem = Reason.CONTAINER_DAMAGED
            # Members that share bytes make a bomb of a small file.
            if info.header_offset < end:
                problem = Reason.CONTAINER_BOMB
            end = max(end, info.header_offset + _ZIP_HEADER + info.compress_size)
            is_stored = info.compress_type == zipfile.ZIP_STORED
            place = (info.header_offset, info.compress_size)
            self.members.add(Member(info.filename, info.file_size, *place, is_stored, problem, info.CRC))

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""
        if not member.is_stored and member.size > _WHOLE_MEMBER:
            return self._stream(member).read(start, end)
        if member.is_stored and (start, end) != (0, member.size):
            begin = self._data_start(member)
            return bytes(self._read(begin + start, begin + end))
        # The local header has a name and extra fields of its own length: usually they fit into what is read with it.
        guess = member.offset + _ZIP_HEADER + len(member.name.encode()) + 64 + member.packed
        data = self._read(member.offset, min(guess, self._size))
        begin = self._header_length(member, data)
        packed = data[begin : begin + member.packed]
        if len(packed) < member.packed:
            packed = self._read(member.offset + begin, member.offset + begin + member.packed)
        whole = bytes(packed) if member.is_stored else b"".join(_inflated(iter([packed]), -zlib.MAX_WBITS, member.size))
        if len(whole) != member.size or zlib.crc32(whole) != member.crc:
            raise Quarantine(Reason.CONTAINER_DAMAGED)
        return whole[start:end]

    def _stream(self, member: Member) -> _Stream:
        with self._lock:
            if member.name not in self._streams:
                begin = self._data_start(member)
                pieces = partial(_pieces, self._read, begin, begin + member.packed)
                self._streams[member.name] = _Stream(lambda: _inflated(pieces(), -zlib.MAX_WBITS, member.size))
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

    @staticmethod
    def _problem(info: zipfile.ZipInfo) -> Reason | None:
        if info.flag_bits & _ENCRYPTED:
            return Reason.CONTAINER_ENCRYPTED
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return Reason.CONTAINER_UNSUPPORTED
        if _is_bomb(info.file_size, info.compress_size):
            return Reason.CONTAINER_BOMB
        return _problem_of_name(info.filename)


class _Tar:
    """A tar that is not compressed, read by ranges."""

    def __init__(self, read: ReadRange, size: int) -> None:
        self._read = _ReadAhead(read, size)
        with tarfile.open(fileobj=ranged_file(read, size), mode="r:", tarinfo=_TarInfo) as archive:
            self.members = _members_of_tar(archive)

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""
        return bytes(self._read(member.offset + start, member.offset + end))


class _CompressedTar:
    """A tar in a compressed stream."""

    def __init__(self, inflate: Callable[[], Iterator[bytes]], size: int) -> None:
        self._stream = _Stream(inflate)
        pieces = _bounded(inflate(), size)
        file = cast(BinaryIO, _StreamFile(pieces))
        with tarfile.open(fileobj=file, mode="r|", tarinfo=_TarInfo) as archive:
            self.members = _members_of_tar(archive)
        # The checksum of the stream is at its end.
        deque(pieces, maxlen=0)

    def read(self, member: Member, start: int, end: int) -> bytes:
        """Return a range of a member."""
        return self._stream.read(member.offset + start, member.offset + end)


class _Gzip:
    """One object that is compressed by itself; its size is that of the end of the file, verified when it is read."""

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
        data = self._stream.read(start, end)
        if end == member.size:
            self._stream.check_end(end)
        return data


def _members_of_tar(archive: tarfile.TarFile) -> _Members:
    members = _Members()
    while (info := archive.next()) is not None:
        # Headers are kept by the archive otherwise.
        cast(Any, archive).members.clear()
        if info.isdir():
            continue
        problem = _problem_of_name(info.name)
        if not info.isreg() or info.sparse is not None:
            problem = Reason.CONTAINER_UNSUPPORTED
        members.add(Member(info.name, info.size, info.offset_data, info.size, problem=problem))
    return members


def _pieces(read: ReadRange, start: int, end: int) -> Iterator[Buffer]:
    for position in range(start, end, _PIECE):
        yield read(position, min(position + _PIECE, end))


def _inflated(pieces: Iterator[Buffer], wbits: int, limit: int) -> Iterator[bytes]:
    """Inflate one deflate stream; more than `limit` bytes, an error or a missing end is a damaged container."""
    inflater, total = zlib.decompressobj(wbits), 0
    for piece in pieces:
        rest: Buffer = piece
        while len(rest) and not inflater.eof:
            data = _decompress(inflater, rest)
            rest = inflater.unconsumed_tail
            total += len(data)
            if total > limit:
                raise Quarantine(Reason.CONTAINER_BOMB)
            yield data
    if not inflater.eof:
        raise Quarantine(Reason.CONTAINER_DAMAGED)


def _inflated_gzip(pieces: Iterator[Buffer]) -> Iterator[bytes]:
    """Inflate a gzip file, which may have several parts."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for piece in pieces:
        rest: Buffer = piece
        while len(rest):
            if inflater.eof:
                inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield _decompress(inflater, rest)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if inflater.eof and not bytes(rest).strip(b"\0"):
                break
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
        self._lock = threading.Lock()
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

    def check_end(self, end: int) -> None:
        """Raise `Quarantine` if the stream goes on after what was read of it, or its checksum differs."""
        with self._lock:
            if self._end > end or any(self._pieces):
                self._restart()
                raise Quarantine(Reason.CONTAINER_DAMAGED)


class _StreamFile:
    """A stream as a file that is read forward."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
