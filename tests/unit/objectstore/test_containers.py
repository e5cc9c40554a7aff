"""Members of containers as objects: listed, read by ranges, and refused with reasons of their own."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import threading
import time
import tracemalloc
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from backports import zstd

from dicom_deid.exceptions import Quarantine
from dicom_deid.objectstore import LocalStore
from dicom_deid.objectstore.containers import ContainerStore, _Stream
from dicom_deid.reasons import Reason

FILES = {f"series {number % 3}/{number:03}.dcm": random.Random(number).randbytes(1000 + number) for number in range(50)}
LARGE = bytes(range(256)) * 2**16
FILES["large.dcm"] = LARGE


def zipped(files=FILES, method=zipfile.ZIP_DEFLATED, comment=b""):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.comment = comment
    return target.getvalue()


def tarred(files=FILES, mode="w"):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


CONTAINERS = {
    "a.zip": zipped(),
    "stored.ZIP": zipped(method=zipfile.ZIP_STORED, comment=b"a comment"),
    "a.tar": tarred(),
    "a.tar.gz": tarred(mode="w:gz"),
    "a.tgz": tarred(mode="w:gz"),
    "a.tar.zst": zstd.compress(tarred()),
}


@pytest.fixture
def store(tmp_path):
    return ContainerStore(LocalStore(tmp_path))


def put(store, key, data):
    path = store.base.directory / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def reason_of(store, key, **given):
    with pytest.raises(Quarantine) as caught:
        store.read(key, **given)
    return caught.value.reason


@pytest.mark.parametrize("name", CONTAINERS)
def test_members_are_listed_and_read(store, name):
    put(store, f"in/{name}", CONTAINERS[name])
    put(store, "loose.dcm", b"loose")
    listed = {each.key: each for each in store.list()}
    assert set(listed) == {f"in/{name}!/{member}" for member in FILES} | {"loose.dcm"}
    for member, data in FILES.items():
        each = listed[f"in/{name}!/{member}"]
        assert each.size == len(data)
        assert store.read(each.key, etag=each.etag, size=each.size) == data
        assert store.read(each.key, etag=each.etag, start=3, end=900) == data[3:900]
        assert store.find(each.key) == each
    large = f"in/{name}!/large.dcm"
    # Forward, backward, beyond the bytes that are kept, and from many threads.
    starts = [0, len(LARGE) - 100, 5 * 2**20, 100, len(LARGE) // 2]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: store.read(large, start=start, end=start + 77), starts))
    assert found == [LARGE[start : start + 77] for start in starts]
    assert store.read("loose.dcm") == b"loose"


def test_an_object_that_is_compressed_by_itself(store):
    put(store, "a.dcm.gz", gzip.compress(b"first ") + gzip.compress(LARGE))
    put(store, "b.dcm.gz", gzip.compress(LARGE))
    (first, second) = store.list()
    assert (second.key, second.size) == ("b.dcm.gz!/b.dcm", len(LARGE))
    assert store.read(second.key, etag=second.etag, size=second.size) == LARGE
    # The size of the first is that of its last part only.
    assert first.size == len(LARGE)


def test_a_listing_continues_inside_a_container(store):
    put(store, "a.zip", CONTAINERS["a.zip"])
    put(store, "b.dcm", b"b")
    keys = [each.key for each in store.list()]
    for position in (0, 17, len(FILES) - 1, len(FILES)):
        assert [each.key for each in store.list(keys[position])] == keys[position + 1 :]


@pytest.mark.parametrize("name", ["a.zip", "stored.zip", "a.tar"])
def test_members_are_read_ahead_in_order_and_alone_at_random(store, monkeypatch, name):
    """Catches a request per member of a container that is read from its beginning to its end."""
    files = {f"{number:03}": random.Random(number).randbytes(100_000) for number in range(200)}
    method = zipfile.ZIP_STORED if name.startswith("stored") else zipfile.ZIP_DEFLATED
    put(store, name, tarred(files) if name.endswith(".tar") else zipped(files, method))
    listed = list(store.list())
    reads = []
    read = LocalStore.read

    def counted(self, key, *, start=None, end=None, **given):
        reads.append(end - start)
        return read(self, key, start=start, end=end, **given)

    monkeypatch.setattr(LocalStore, "read", counted)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda one: bytes(store.read(one.key, etag=one.etag, size=one.size)), listed)
        assert list(found) == list(files.values())
    assert len(reads) < 20
    other = ContainerStore(store.base)
    assert list(other.list()) == listed
    reads.clear()
    for number in (180, 20, 120, 66):
        assert other.read(listed[number].key, etag=listed[number].etag) == files[f"{number:03}"]
    assert sum(reads) <= 4 * 101_000


def test_a_damaged_member_of_a_zip_is_found(store):
    """Catches pixels that changed in the container, which nothing else shows."""
    data = zipped({"a.dcm": b"x" * 1000, "b.dcm": b"y" * 1000}, zipfile.ZIP_STORED).replace(b"xxxx", b"xxXx", 1)
    put(store, "a.zip", data)
    assert reason_of(store, "a.zip!/a.dcm") is Reason.CONTAINER_DAMAGED
    assert store.read("a.zip!/b.dcm") == b"y" * 1000


def test_a_damaged_member_that_is_inflated_in_pieces_is_found_at_its_end(store):
    data = bytearray(zipped({"a.dcm": LARGE}))
    data[data.index(b"PK\1\2") + 16] ^= 1
    put(store, "a.zip", bytes(data))
    put(store, "a.dcm.gz", gzip.compress(LARGE)[:-8] + bytes(8 - 4) + struct.pack("<I", len(LARGE)))
    for key in ("a.zip!/a.dcm", "a.dcm.gz!/a.dcm"):
        assert store.read(key, start=0, end=1000) == LARGE[:1000]
        for start in (len(LARGE) - 1000, len(LARGE) - 1000, 0):
            assert reason_of(store, key, start=start, end=len(LARGE)) is Reason.CONTAINER_DAMAGED


def test_containers_in_containers_to_depth_two(store):
    inner = zipped({"x.dcm": b"x", "deep.zip": zipped({"y.dcm": b"y"})})
    put(store, "a.tar.gz", tarred({"inner.zip": inner, "z.dcm": b"z"}, mode="w:gz"))
    listed = {each.key: each for each in store.list()}
    assert set(listed) == {"a.tar.gz!/inner.zip!/x.dcm", "a.tar.gz!/inner.zip!/deep.zip", "a.tar.gz!/z.dcm"}
    assert store.read("a.tar.gz!/inner.zip!/x.dcm") == b"x"
    assert reason_of(store, "a.tar.gz!/inner.zip!/deep.zip") is Reason.CONTAINER_NESTED


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("keep", [0, 3, 0.5])
def test_a_container_that_was_cut_is_damaged(store, name, keep):
    data = CONTAINERS[name]
    put(store, name, data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    listed = list(store.list())
    if [each.key for each in listed] == [name]:
        assert reason_of(store, name, etag=listed[0].etag, size=listed[0].size) is Reason.CONTAINER_DAMAGED
    else:
        # A tar has no directory: the members before the cut are there, and the tar itself says that some are missing.
        assert name == listed[-1].key == "a.tar"
        assert reason_of(store, name) is Reason.CONTAINER_DAMAGED
        assert all(bytes(store.read(each.key)) == FILES[each.key[len("a.tar!/") :]] for each in listed[:-1])


def ends_of_tars():
    """Return tars of two members, by how their end is written, and whether something may be missing."""
    files = {"a.dcm": b"a" * 700, "b.dcm": b"b" * 512}
    whole = tarred(files)
    members = whole[: 2 * 512 + 1024 + 512]
    zeros = bytes(512)
    return {
        "as Python, GNU tar and libarchive end it": (whole, False),
        "two blocks without a record": (members + zeros * 2, False),
        "one block": (members + zeros, False),
        "one tar behind the other": (tarred({"a.dcm": files["a.dcm"]}) + tarred({"b.dcm": files["b.dcm"]}), False),
        "a record of 1 MiB": (members + bytes(2**20), False),
        "cut at the border of a member": (members, True),
        "the same without padding": (members[:-512] + b"b" * 512, True),
        "bytes that are no member after the end": (whole + b"garbage" * 100, True),
    }


@pytest.mark.parametrize("how", ends_of_tars())
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_a_tar_without_its_end_is_seen_and_its_members_are_there(store, how, compress):
    """Catches a tar that was cut between two members and loses the others without a sign; and false alarms."""
    data, is_incomplete = ends_of_tars()[how]
    suffix = {bytes: "tar", gzip.compress: "tar.gz", zstd.compress: "tar.zst"}[compress]
    put(store, f"a.{suffix}", compress(data))
    members = [f"a.{suffix}!/a.dcm", f"a.{suffix}!/b.dcm"]
    assert [each.key for each in store.list()] == members + [f"a.{suffix}"] * is_incomplete
    assert [bytes(store.read(key)) for key in members] == [b"a" * 700, b"b" * 512]
    if is_incomplete:
        assert reason_of(store, f"a.{suffix}") is Reason.CONTAINER_INCOMPLETE


def test_a_header_that_was_damaged_hides_the_members_after_it_not_that_they_are_missing(store):
    data = bytearray(tarred({"a.dcm": b"a", "b.dcm": b"b", "c.dcm": b"c"}))
    data[1024 + 5] ^= 1
    put(store, "a.tar", bytes(data))
    assert [each.key for each in store.list()] == ["a.tar!/a.dcm", "a.tar"]
    assert reason_of(store, "a.tar") is Reason.CONTAINER_DAMAGED


def peak_of_listing(store):
    tracemalloc.start()
    keys = [each.key for each in store.list()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return keys, peak


def zip_of_many(members, extra=0):
    """Return a zip with a directory only: so many members without data, with extra fields and comments."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 7, extra, extra, 0, 0, 0, 0)
    blank = bytes(2 * extra)
    directory = b"".join(b"%s%07d%s" % (entry, number, blank) for number in range(members))
    counts = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, min(members, 65535), min(members, 65535), len(directory), 0, 0)
    return directory + counts


def test_the_directory_of_a_zip_is_read_in_bounded_memory(store, monkeypatch):
    """Catches a zip that is a few hundred megabytes of extra fields and comments, all in memory."""
    put(store, "a.zip", zip_of_many(1000, extra=65535))
    keys, peak = peak_of_listing(store)
    assert len(keys) == 1000
    assert peak < 16 * 2**20
    monkeypatch.setattr("dicom_deid.objectstore.containers._DIRECTORY_MEMORY", 4 * 2**20)
    put(store, "a.zip", zip_of_many(100_000))
    keys, peak = peak_of_listing(store)
    assert keys == ["a.zip"]
    assert peak < 8 * 2**20
    assert reason_of(ContainerStore(store.base), "a.zip") is Reason.CONTAINER_TOO_LARGE


def test_the_headers_of_a_tar_are_read_in_bounded_memory(store, monkeypatch):
    """Catches headers before a member that take all memory, or more of the stack than there is."""
    file = tarfile.TarInfo("a.dcm").tobuf()
    field = tarfile.TarInfo.create_pax_global_header
    fields = [field({f"KEY.{number}.{key}": "x" * 1000 for key in range(900)}) for number in range(100)]
    long_names = _tar_header(tarfile.GNUTYPE_LONGNAME, 5) + b"b.dcm".ljust(512, b"\0")
    sparse = bytearray(_tar_header(tarfile.GNUTYPE_SPARSE, 512))
    sparse[482] = 1
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    sparse_map = (b"%011o\0" % 512 * 42).ljust(504, b"\0")
    whole_map = (sparse_map + b"\1" + bytes(7)) * 20_000 + sparse_map + bytes(8)
    put(store, "a.tar", b"".join(fields) + file + long_names * 5000 + file + bytes(1024))
    put(store, "b.tar", bytes(sparse) + whole_map + bytes(512) + file + bytes(1024))
    keys, peak = peak_of_listing(store)
    assert keys == ["a.tar!/a.dcm", "a.tar!/b.dcm", "b.tar!/a.dcm", "b.tar!/a.dcm (2)"]
    assert peak < 8 * 2**20
    assert reason_of(store, "b.tar!/a.dcm") is Reason.CONTAINER_UNSUPPORTED
    monkeypatch.setattr("dicom_deid.objectstore.containers._DIRECTORY_MEMORY", 2**20)
    put(store, "a.tar", file * 10_000 + bytes(1024))
    assert reason_of(ContainerStore(store.base), "a.tar") is Reason.CONTAINER_TOO_LARGE


def test_what_is_no_file_in_a_tar_is_no_object_and_a_hard_link_is_one(store):
    """Catches labels, devices and directories that people have to look at; and a second name that loses its object."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in (
            ("volume label", b"V", ""),
            ("series", tarfile.DIRTYPE, ""),
            ("series dump", b"D", ""),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("series/a.dcm", tarfile.REGTYPE, ""),
            ("series/second name.dcm", tarfile.LNKTYPE, "series/a.dcm"),
            ("series/dangling.dcm", tarfile.LNKTYPE, "elsewhere.dcm"),
            ("series/link.dcm", tarfile.SYMTYPE, "a.dcm"),
            ("ü" * 120 + ".dcm", tarfile.REGTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"abc"))
    put(store, "a.tar", target.getvalue())
    keys = [each.key.removeprefix("a.tar!/") for each in store.list()]
    assert keys == [
        "series/a.dcm",
        "series/second name.dcm",
        "series/dangling.dcm",
        "series/link.dcm",
        "ü" * 120 + ".dcm",
    ]
    assert store.read("a.tar!/series/second name.dcm") == store.read(f"a.tar!/{keys[-1]}") == b"abc"
    for name in ("series/dangling.dcm", "series/link.dcm"):
        assert reason_of(store, f"a.tar!/{name}") is Reason.CONTAINER_UNSUPPORTED


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 93, 95, 98])
def test_a_member_in_another_compression_is_named_and_the_others_are_read(store, method):
    """9 is deflate64, which Windows makes of large files; 93 zstd, 95 xz, 98 PPMd."""
    data = bytearray(zipped({"a.dcm": b"x" * 100, "b.dcm": b"y"}))
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, method)
    put(store, "a.zip", bytes(data))
    assert reason_of(store, "a.zip!/a.dcm") is Reason.CONTAINER_UNSUPPORTED
    assert store.read("a.zip!/b.dcm") == b"y"


def test_a_link_in_a_zip_and_a_volume_of_several_are_unsupported(store):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        link = zipfile.ZipInfo("link.dcm")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.dcm", b"a")
    put(store, "a.zip", target.getvalue())
    assert reason_of(store, "a.zip!/link.dcm") is Reason.CONTAINER_UNSUPPORTED
    assert store.read("a.zip!/a.dcm") == b"a"
    last = bytearray(target.getvalue())
    struct.pack_into("<H", last, last.index(b"PK\x05\x06") + 4, 1)
    put(store, "b.zip", bytes(last))
    assert reason_of(store, "b.zip") is Reason.CONTAINER_UNSUPPORTED


def test_a_zip_that_was_written_to_a_stream(store):
    """Sizes are behind the members, in data descriptors."""

    class Stream(io.RawIOBase):
        data = b""

        def writable(self):
            return True

        def write(self, piece):
            self.data += bytes(piece)
            return len(piece)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    put(store, "a.zip", stream.data)
    assert {each.key.removeprefix("a.zip!/"): bytes(store.read(each.key)) for each in store.list()} == FILES


def test_archives_without_members_hold_no_objects(store):
    put(store, "a.zip", zipped({}))
    put(store, "a.tar", tarred({}))
    put(store, "a.tgz", tarred({}, mode="w:gz"))
    assert list(store.list()) == []


@pytest.mark.parametrize("name", ["../x.dcm", "/etc/x.dcm", "a/../../x.dcm", "..\\x.dcm", "c:\\x.dcm", "a!/x.dcm"])
def test_names_that_lead_out_are_refused(store, name):
    for container in (zipped({name: b"x", "good.dcm": b"y"}), tarred({name: b"x", "good.dcm": b"y"})):
        key = "a.zip" if container.startswith(b"PK") else "a.tar"
        put(store, key, container)
        problems = [each.key for each in store.list() if each.key.startswith(key) and not each.key.endswith("good.dcm")]
        (member,) = problems
        assert reason_of(store, member) is Reason.CONTAINER_PATH
        assert store.read(f"{key}!/good.dcm") == b"y"


def test_encrypted_and_foreign_members_are_refused(store):
    data = bytearray(zipped({"a.dcm": b"secret"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    put(store, "encrypted.zip", bytes(data))
    put(store, "bzip2.zip", zipped({"a.dcm": b"x" * 100}, zipfile.ZIP_BZIP2))
    assert reason_of(store, "encrypted.zip!/a.dcm") is Reason.CONTAINER_ENCRYPTED
    assert reason_of(store, "bzip2.zip!/a.dcm") is Reason.CONTAINER_UNSUPPORTED


def test_bombs_are_refused(store):
    zeros = bytes(300 * 2**20)
    put(store, "a.zip", zipped({"a.dcm": zeros, "b.dcm": b"b"}))
    assert reason_of(store, "a.zip!/a.dcm") is Reason.CONTAINER_BOMB
    assert store.read("a.zip!/b.dcm") == b"b"
    put(store, "b.tar.gz", tarred({"a.dcm": zeros}, mode="w:gz"))
    (listed,) = [each for each in store.list() if each.key.startswith("b.")]
    assert reason_of(store, listed.key, etag=listed.etag, size=listed.size) is Reason.CONTAINER_BOMB
    # A member that says that it is smaller than it is.
    data = bytearray(zipped({"a.dcm": bytes(10**6)}))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 1000)
    put(store, "c.zip", bytes(data))
    assert reason_of(store, "c.zip!/a.dcm") is Reason.CONTAINER_BOMB
    # Two members that share their bytes.
    first, second = zipped({"a.dcm": b"x" * 99}, zipfile.ZIP_STORED), io.BytesIO()
    with zipfile.ZipFile(second, "w") as archive:
        archive.writestr("a.dcm", b"x" * 99)
        archive.filelist.append(archive.filelist[0])
    put(store, "d.zip", second.getvalue())
    assert first
    assert reason_of(store, "d.zip!/a.dcm (2)") is Reason.CONTAINER_BOMB


def test_zip64(store):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("a.dcm", "w", force_zip64=True) as member:
        member.write(b"large")
    put(store, "a.zip", target.getvalue())
    assert store.read("a.zip!/a.dcm") == b"large"


def test_a_hard_link_is_to_the_last_file_of_its_name(store):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for data in (b"first", b"second", b"third"):
            info = tarfile.TarInfo("a.dcm")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("b.dcm")
        link.type, link.linkname = tarfile.LNKTYPE, "a.dcm"
        archive.addfile(link)
    put(store, "a.tar", target.getvalue())
    assert store.read("a.tar!/b.dcm") == b"third"


def test_times_in_an_incremental_archive_are_no_part_of_names(store):
    """Catches keys that change when the files were read, and hard links to names that there are not."""
    headers = []
    for name, kind in (("a.dcm", tarfile.REGTYPE), ("b.dcm", tarfile.LNKTYPE)):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "a.dcm" * (name == "b.dcm"), 5 * (name == "a.dcm")
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[345:369] = b"15112304563\0" * 2
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        headers.append(bytes(header))
    put(store, "a.tar", headers[0] + b"first".ljust(512, b"\0") + headers[1] + bytes(1024))
    assert {each.key: bytes(store.read(each.key)) for each in store.list()} == {
        "a.tar!/a.dcm": b"first",
        "a.tar!/b.dcm": b"first",
    }


@pytest.mark.parametrize("before", [b"", b"MZ" + bytes(3000)], ids=["alone", "behind"])
@pytest.mark.parametrize("comment", [b"", b"signature PK\5\6 of an end" + bytes(30)], ids=["plain", "comment"])
def test_the_directory_of_a_zip64_is_found(store, monkeypatch, before, comment):
    """Catches a reader that depends on where zipfile, in each of its versions, says that the end record is."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = zipped({"a.dcm": b"first", "b.dcm": b"second"}, comment=comment)
    assert b"PK\6\6" in data
    put(store, "a.zip", before + data)
    assert [bytes(store.read(each.key)) for each in store.list()] == [b"first", b"second"]


@pytest.mark.parametrize("zeros", [257, 2**20 + 5, 2**20 + 258, 9 * 2**20 + 100])
def test_what_a_deflated_member_ends_with_is_read(store, zeros):
    """Catches bytes that are still in the inflater after it has taken the last byte of the member."""
    put(store, "a.zip", zipped({"a.dcm": bytes(zeros)}))
    assert store.read("a.zip!/a.dcm") == bytes(zeros)


def test_a_name_that_is_not_the_utf8_it_says_is_read(store):
    put(store, "a.zip", zipped({"é.dcm": b"x"}).replace("é".encode(), b"\xe9_"))
    assert [bytes(store.read(each.key)) for each in store.list()] == [b"x"]


def test_a_stored_member_of_two_sizes_is_damaged(store):
    """Catches members of a small zip that each read the whole zip, and no comparison of checksums."""
    data = bytearray(zipped({"a.dcm": b"x" * 10, "b.dcm": b"y" * 1000}, zipfile.ZIP_STORED))
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 900)
    put(store, "a.zip", bytes(data))
    assert reason_of(store, "a.zip!/a.dcm", start=0, end=100) is Reason.CONTAINER_DAMAGED


def test_zeros_after_a_gzip_are_no_part_of_it(store):
    """Catches zeros that are read in a piece of their own."""
    data = gzip.compress(tarred({"a.dcm": random.Random(1).randbytes(2**20 - 20_000)}))
    put(store, "a.tgz", data + bytes(2**20 + 512 - len(data)))
    assert [each.key for each in store.list()] == ["a.tgz!/a.dcm"]


def test_two_members_of_one_name_are_two_objects(store):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.dcm", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.dcm", b"second")
    put(store, "a.zip", target.getvalue())
    assert [bytes(store.read(each.key)) for each in store.list()] == [b"first", b"second"]


def test_many_members_of_one_name_take_no_longer_than_others(store):
    """Catches a small file that a plan never comes to the end of."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(20_000):
            archive.writestr("a.dcm", b"")
    put(store, "a.zip", target.getvalue())
    began = time.process_time()
    assert len({each.key for each in store.list()}) == 20_000
    # 60 s and more where each looks for a free name from the beginning.
    assert time.process_time() - began < 20


def _tar_header(kind: bytes, size: int) -> bytes:
    """Return a header of any size, negative ones too (base 256, as GNU tar writes large ones)."""
    info = tarfile.TarInfo("a.dcm")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True) if size < 0 else b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-512, -1024, 8 * 2**30 - 1])
def test_sizes_that_make_tarfile_loop_or_take_all_memory_are_refused(store, kind, size):
    path = store.base.directory / "a.tar"
    path.write_bytes(_tar_header(tarfile.REGTYPE, 0) + _tar_header(kind, size) + bytes(10240))
    if size > 0:
        with path.open("r+b") as file:
            file.truncate(8 * 2**30 + 2**20)
    is_plain = size > 0 and kind == tarfile.REGTYPE
    others = ["a.tar!/a.dcm (2)"] if is_plain else ["a.tar"]
    assert [each.key for each in store.list()] == ["a.tar!/a.dcm", *others]
    if not is_plain:
        assert reason_of(store, "a.tar") is Reason.CONTAINER_DAMAGED


def test_a_negative_size_in_an_extended_header_is_refused(store):
    info = tarfile.TarInfo("a.dcm")
    info.pax_headers = {"size": "-512"}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    put(store, "a.tar", target.getvalue())
    put(store, "b.tgz", gzip.compress(target.getvalue()))
    assert reason_of(store, "a.tar") is reason_of(store, "b.tgz") is Reason.CONTAINER_DAMAGED


@pytest.mark.parametrize("field", [20, 42])
def test_a_directory_of_a_zip_that_points_outside_the_file_is_damaged(store, field):
    data = bytearray(zipped({"a.dcm": b"x" * 1000}))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + field, 10**6)
    put(store, "a.zip", bytes(data))
    assert reason_of(store, "a.zip!/a.dcm") is Reason.CONTAINER_DAMAGED


def test_bytes_before_a_zip_and_parts_of_a_gzip_are_read(store):
    put(store, "a.zip", b"MZ" + bytes(3000) + zipped({"a.dcm": b"x"}))
    whole = tarred({"a.dcm": b"y" * 5000})
    put(store, "b.tgz", gzip.compress(whole[:3000]) + gzip.compress(whole[3000:]))
    put(store, "c.tar.zst", zstd.compress(whole[:3000]) + zstd.compress(whole[3000:]))
    assert store.read("a.zip!/a.dcm") == b"x"
    assert store.read("b.tgz!/a.dcm") == store.read("c.tar.zst!/a.dcm") == b"y" * 5000


@pytest.mark.parametrize("size", [5000, 2**20, 2 * 2**20 + 1])
def test_the_checksum_at_the_end_of_a_gzip_is_compared(store, size):
    data = random.Random(size).randbytes(size)
    for name, plain in (("a.dcm.gz", data), ("b.tgz", tarred({"b.dcm": data}))):
        damaged = bytearray(gzip.compress(plain, 1))
        damaged[-8] ^= 1
        put(store, name, bytes(damaged))
    assert reason_of(store, "a.dcm.gz!/a.dcm") is Reason.CONTAINER_DAMAGED
    assert reason_of(store, "b.tgz") is Reason.CONTAINER_DAMAGED
    # The end of the file names the size of the last part only: the object would be cut without a sign.
    put(store, "c.dcm.gz", gzip.compress(data[:100]) + gzip.compress(data))
    assert reason_of(store, "c.dcm.gz!/c.dcm") is Reason.CONTAINER_DAMAGED


def test_a_container_that_was_replaced_has_changed(store):
    put(store, "a.zip", zipped({"a.dcm": b"old"}))
    (listed,) = store.list()
    put(store, "a.zip", zipped({"a.dcm": b"other bytes"}))
    fresh = ContainerStore(store.base)
    assert reason_of(fresh, listed.key, etag=listed.etag) is Reason.OBJECT_CHANGED
    (store.base.directory / "a.zip").unlink()
    assert reason_of(ContainerStore(store.base), listed.key) is Reason.OBJECT_VANISHED


def test_large_members_of_a_compressed_tar_are_read_side_by_side(store, monkeypatch):
    """Catches a tar that is inflated from its beginning for each part of either."""
    large = random.Random(1).randbytes(2**14) * 2560
    put(store, "a.tgz", tarred({"a.dcm": large, "b.dcm": large}, mode="w:gz"))
    listed = list(store.list())
    inflated = 0

    def counted(inflater, data):
        nonlocal inflated
        found = inflater.decompress(data, 2**20)
        inflated += len(found)
        return found

    monkeypatch.setattr("dicom_deid.objectstore.containers._decompress", counted)

    def read(each):
        for start in range(0, len(large), 2**23):
            part = store.read(each.key, etag=each.etag, start=start, end=start + 2**23)
            assert part == large[start : start + 2**23]
            both.wait()

    both = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, listed))
    # 1.5 times the size of both; 2.6 times with one stream, and more for larger ones.
    assert inflated < 2 * (len(large) * 2 + 2**20)


def test_a_stream_keeps_a_bounded_part():
    begun = []

    def begin():
        begun.append(1)
        return (bytes([number % 256]) * 2**20 for number in range(100))

    stream = _Stream(begin)
    for number in range(100):
        assert stream.read(number * 2**20, number * 2**20 + 5) == bytes([number % 256]) * 5
        assert sum(map(len, stream._window)) <= 34 * 2**20
    assert stream.read(90 * 2**20, 90 * 2**20 + 1) == bytes([90])
    assert len(begun) == 1
    assert stream.read(0, 1) == b"\0"
    assert len(begun) == 2
