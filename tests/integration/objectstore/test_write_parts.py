"""Large objects: the right bytes by every method, in bounded memory, and nothing of them when something fails."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import pytest
from tests.support.uploads import unfinished_uploads

from dicom_deid.exceptions import ObjectStoreError, Quarantine
from dicom_deid.objectstore import LocalStore, S3Store, SourceRange, WriteMethod, write_parts
from dicom_deid.objectstore.errors import RefusedError
from dicom_deid.reasons import Reason

MEBIBYTE = 2**20
HEADER, TAIL = b"new header " * 1000, b"new tail"


pytestmark = pytest.mark.usefixtures("several_parts")


@pytest.fixture(scope="module")
def original():
    return os.urandom(12 * MEBIBYTE + 17)


@pytest.fixture
def source(connection, shared_bucket, prefix, original):
    storage = S3Store(shared_bucket, f"{prefix}/in", connection)
    storage.client.put_object(Bucket=shared_bucket, Key=storage.full_key("o"), Body=original)
    return storage


@pytest.fixture
def destination(connection, shared_bucket, prefix):
    return S3Store(shared_bucket, f"{prefix}/out", connection)


@pytest.fixture
def parts(original):
    return [HEADER, SourceRange(1003, len(original) - 5), TAIL]


@pytest.fixture
def expected(original):
    return HEADER + original[1003:-5] + TAIL


def write(source, destination, parts, **options):
    (listed,) = source.list()
    return write_parts(source, listed, destination, "k", parts, metadata={"a": "b"}, part_bytes=5 * MEBIBYTE, **options)


def test_server_side_copy_moves_little(source, destination, parts, expected):
    # Would catch wrong ranges (HTTP's end is inclusive) and pixels that go through the worker after all.
    done = write(source, destination, parts)
    assert done.method is WriteMethod.SERVER_SIDE_COPY
    assert done.through_worker <= 6 * MEBIBYTE
    assert done.sha256 is None
    assert destination.read("k", etag=done.etag) == expected
    assert done.size == len(expected)


def test_a_store_that_copies_is_asked_for_no_checksum_of_the_whole(source, destination, parts):
    # Would catch a copy for which the store reads and hashes every byte: it took more than twice as long.
    write(source, destination, parts)
    head = destination.client.head_object(
        Bucket=destination.bucket, Key=destination.full_key("k"), ChecksumMode="ENABLED"
    )
    assert not [name for name in head if name.startswith("Checksum")]


def test_a_part_that_is_sent_beside_copied_ones_is_checked(source, destination, parts, monkeypatch):
    # Would catch a new header that is damaged on its way, and that nobody looks at again.
    from dicom_deid.objectstore import s3_upload

    wrong = s3_upload.checksum_arguments(b"other bytes", "md5")
    monkeypatch.setattr(s3_upload, "checksum_arguments", lambda data, checksum: wrong)
    with pytest.raises(ObjectStoreError):
        write(source, destination, parts)
    assert destination.find("k") is None
    assert unfinished_uploads(destination) == []


def test_read_back_knows_the_hash(source, destination, parts, expected):
    done = write(source, destination, parts, verify="full")
    assert done.method is WriteMethod.SERVER_SIDE_COPY
    assert done.sha256 == hashlib.sha256(expected).hexdigest()


def test_stream(source, destination, parts, expected, original):
    # Would catch parts in another order than their numbers, and a hash over parts as they arrive.
    observed = hashlib.sha256()
    done = write(source, destination, parts, server_side_copy=False, observe=observed.update)
    assert done.method is WriteMethod.MULTIPART
    assert done.sha256 == hashlib.sha256(expected).hexdigest()
    assert observed.digest() == hashlib.sha256(original[1003:-5]).digest()
    assert destination.read("k") == expected


def test_small_object_is_one_put(source, destination, original):
    done = write(source, destination, [b"h", SourceRange(10, 20)])
    assert done.method is WriteMethod.PUT
    assert done.sha256 == hashlib.sha256(b"h" + original[10:20]).hexdigest()
    assert destination.read("k") == b"h" + original[10:20]


@pytest.mark.parametrize("direction", ["to-files", "from-files"])
def test_between_files_and_a_bucket(source, destination, parts, expected, original, tmp_path, direction):
    files = LocalStore(tmp_path)
    if direction == "to-files":
        destination = files
    else:
        (tmp_path / "o").write_bytes(original)
        source = files
    done = write(source, destination, parts)
    assert done.method is WriteMethod.MULTIPART
    assert done.sha256 == hashlib.sha256(expected).hexdigest()
    assert destination.read("k") == expected


def test_again_finds_the_same_object_and_refuses_another(source, destination, parts):
    # Would catch a killed worker's second attempt failing on its own first, whichever method either used.
    first = write(source, destination, parts)
    for server_side_copy in (True, False):
        again = write(source, destination, parts, server_side_copy=server_side_copy)
        assert again.method is WriteMethod.ALREADY_PRESENT
        assert again.etag == first.etag
    for different in ([HEADER, *parts[1:-1], b"new tAil"], [*parts, b"more"]):
        with pytest.raises(Quarantine) as caught:
            write(source, destination, different)
        assert caught.value.reason is Reason.DESTINATION_CONFLICT
    assert unfinished_uploads(destination) == []


@pytest.mark.parametrize("server_side_copy", [True, False])
def test_source_that_changed_leaves_nothing(source, destination, parts, server_side_copy):
    # Would catch the new header on the pixels of another version of the object.
    (listed,) = source.list()
    source.client.put_object(Bucket=source.bucket, Key=source.full_key("o"), Body=os.urandom(listed.size))
    with pytest.raises(Quarantine) as caught:
        write_parts(source, listed, destination, "k", parts, metadata={}, server_side_copy=server_side_copy)
    assert caught.value.reason is Reason.OBJECT_CHANGED
    assert destination.find("k") is None
    assert unfinished_uploads(destination) == []


class Counted(Semaphore):
    """Remembers how many parts were in memory at most."""

    def __init__(self, parts):
        super().__init__(parts)
        self.free = self.least = parts

    def acquire(self, *arguments):
        acquired = super().acquire(*arguments)
        self.free -= acquired
        self.least = min(self.least, self.free)
        return acquired

    def release(self):
        self.free += 1
        super().release()


def test_refused_copy_falls_back_to_streaming(source, destination, parts, expected, monkeypatch):
    # Would catch a store that knows no UploadPartCopy failing large objects; the real server does know it.
    from dicom_deid.objectstore.s3_upload import S3Upload

    def refuse(*_arguments):
        raise RefusedError("not here")

    monkeypatch.setattr(S3Upload, "copy_part", refuse)
    in_memory = Counted(4)
    done = write(source, destination, parts, parts_in_memory=in_memory)
    assert done.method is WriteMethod.MULTIPART
    # All its bytes are in memory by turns: whoever bounds the memory must be asked.
    assert in_memory.least < in_memory.free == 4
    assert destination.read("k") == expected
    assert unfinished_uploads(destination) == []


def test_race_for_the_key_is_lost_without_harm(source, destination, parts, expected, monkeypatch):
    # Would catch a completion that replaces what another worker wrote in the meantime.
    from dicom_deid.objectstore.s3_upload import S3Upload

    complete = S3Upload.complete

    def late(self):
        monkeypatch.setattr(S3Upload, "complete", complete)
        destination.client.put_object(Bucket=destination.bucket, Key=destination.full_key("k"), Body=b"another's")
        return complete(self)

    monkeypatch.setattr(S3Upload, "complete", late)
    with pytest.raises(Quarantine) as caught:
        write(source, destination, parts)
    assert caught.value.reason is Reason.DESTINATION_CONFLICT
    assert destination.read("k") == b"another's"
    assert unfinished_uploads(destination) == []


@pytest.mark.parametrize("bound", [1, 2, 5])
def test_objects_that_share_a_bound_of_parts_are_all_written(source, destination, parts, expected, bound):
    # Would catch two objects that each hold what the other waits for, and a part that is not counted.
    (listed,) = source.list()
    in_memory = Counted(bound)
    options = {"server_side_copy": False, "part_bytes": 5 * MEBIBYTE, "parts_in_memory": in_memory}
    with ThreadPoolExecutor(3) as pool:
        keys = [f"k{number}" for number in range(6)]
        for written in [
            pool.submit(write_parts, source, listed, destination, key, parts, metadata={}, **options) for key in keys
        ]:
            assert written.result(timeout=60).sha256 == hashlib.sha256(expected).hexdigest()
        # The second attempts compare.
        for written in [
            pool.submit(write_parts, source, listed, destination, key, parts, metadata={}, **options) for key in keys
        ]:
            assert written.result(timeout=60).method is WriteMethod.ALREADY_PRESENT
    assert all(destination.read(key) == expected for key in keys)
    assert in_memory.least == 0
    assert in_memory.free == bound


@pytest.mark.parametrize("failing", ["read", "put_part", "complete"])
def test_an_object_that_fails_gives_its_parts_back(source, destination, parts, expected, monkeypatch, failing):
    # Would catch a worker that streams nothing any more after a few failed objects.
    from dicom_deid.objectstore.s3_upload import S3Upload

    def fail(*_arguments, **_options):
        raise ObjectStoreError("not now")

    in_memory = Counted(2)
    with monkeypatch.context() as patched:
        patched.setattr(source if failing == "read" else S3Upload, failing, fail)
        for _ in range(3):
            with pytest.raises(ObjectStoreError):
                write(source, destination, parts, server_side_copy=False, parts_in_memory=in_memory)
            assert in_memory.free == 2
    write(source, destination, parts, server_side_copy=False, parts_in_memory=in_memory)
    with pytest.raises(Quarantine):
        write(source, destination, [*parts[:-1], b"old tail"], parts_in_memory=in_memory)
    assert in_memory.free == 2
    assert destination.read("k") == expected


MEASURE = """
import os, resource, sys
from dicom_deid.objectstore import S3Connection, SourceRange, open_object_store, write_parts
source, destination = open_object_store(f"s3://{sys.argv[1]}/in"), open_object_store(f"s3://{sys.argv[1]}/out")
(listed,) = source.list()
source.read(listed.key, start=0, end=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = [b"header", SourceRange(100, listed.size)]
write_parts(source, listed, destination, "k", parts, metadata={}, server_side_copy=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_streaming_memory_does_not_grow_with_the_object(s3, s3_bucket, connection, tmp_path):
    # Would catch a pipe that holds the object: 200 MB go through, and at most 120 MiB are taken.
    client = s3.client()
    block = os.urandom(50 * MEBIBYTE)
    upload = S3Store(s3_bucket, "in", connection).open_multipart("o", metadata={})
    for number in range(4):
        upload.put_part(number + 1, number * len(block), block)
    upload.complete()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, s3_bucket],
        env={**os.environ, **s3.environment(), "PYTHONPATH": str(Path(__file__).parents[3] / "plugins")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 120
    assert client.head_object(Bucket=s3_bucket, Key="out/k")["ContentLength"] == 4 * len(block) - 100 + 6
