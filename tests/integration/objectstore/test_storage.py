"""Properties of every kind of object store, on a real S3 server and on a real file system."""

import base64
import hashlib
import threading
from dataclasses import replace

import pytest
from tests.support.uploads import unfinished_uploads

from dicom_deid.exceptions import ConfigurationError, ObjectStoreError, Quarantine
from dicom_deid.objectstore import LocalStore, S3Store, open_object_store
from dicom_deid.reasons import Reason

METADATA = {"dicom-deid-run": "0b5c"}


def test_written_object_is_read_back_and_listed(storage):
    # Would catch parts joined in another order, and sizes or ETags that a listing shows differently.
    written = storage.write("a/b.dcm", [b"one", memoryview(b"-two-")[1:4], b""], metadata=METADATA)
    assert storage.read("a/b.dcm", etag=written.etag) == b"onetwo"
    (listed,) = storage.list()
    assert (listed.key, listed.size, listed.etag) == ("a/b.dcm", 6, written.etag)
    assert storage.find("a/b.dcm") == listed
    assert storage.find("a/c.dcm") is None


def test_empty_object(storage):
    # Would catch a zero-byte object that is taken for one that is missing.
    written = storage.write("empty", [], metadata={})
    assert storage.read("empty", etag=written.etag) == b""


@pytest.mark.parametrize(("start", "end", "expected"), [(None, 4, b"0123"), (3, None, b"3456789"), (2, 5, b"234")])
def test_ranges_exclude_their_end(storage, start, end, expected):
    # Would catch an inclusive end, HTTP's, leaking into the interface.
    storage.write("k", [b"0123456789"], metadata={})
    assert storage.read("k", start=start, end=end) == expected
    assert storage.read("k", start=4, end=4) == b""


def test_range_beyond_the_end_is_an_object_that_changed(storage):
    # Would catch a short answer taken for the whole: the caller asked within the size that was listed.
    storage.write("k", [b"0123"], metadata={})
    for start, end in ((2, 9), (7, 9)):
        with pytest.raises(Quarantine) as caught:
            storage.read("k", start=start, end=end)
        assert caught.value.reason is Reason.OBJECT_CHANGED


def test_vanished_object(storage):
    with pytest.raises(Quarantine) as caught:
        storage.read("nothing/here")
    assert caught.value.reason is Reason.OBJECT_VANISHED


def test_same_bytes_are_left_and_different_bytes_refused(storage):
    # Would catch an overwrite: a destination object, once written, never changes under its readers.
    first = storage.write("k", [b"same"], metadata=METADATA)
    assert not first.existed
    again = storage.write("k", [b"sa", b"me"], metadata=METADATA)
    assert again.existed
    assert again.etag == first.etag
    with pytest.raises(Quarantine) as caught:
        storage.write("k", [b"diff"], metadata=METADATA)
    assert caught.value.reason is Reason.DESTINATION_CONFLICT
    assert storage.read("k") == b"same"


def test_of_many_writers_exactly_one_wins(storage):
    # Would catch a check before the write in place of a conditional write.
    outcomes = []

    def write(number):
        try:
            outcomes.append((number, storage.write("k", [b"%d" % number], metadata={}).existed))
        except Quarantine as conflict:
            outcomes.append((number, conflict.reason))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    winners = [number for number, outcome in outcomes if outcome is False]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert storage.read("k") == b"%d" % winners[0]


def test_listing_resumes_after_any_key(storage):
    # Would catch a run resumed in the middle that misses objects, or takes some again.
    keys = ["a.dcm", "a/b", "a/d/c", "a0", "b/ü x%20+#?.dcm", "b/😀", "z"]
    for key in keys:
        storage.write(key, [key.encode()], metadata={})
    listed = [listed.key for listed in storage.list()]
    assert sorted(listed) == sorted(keys)
    if isinstance(storage, LocalStore):
        # As S3 defines it, so that a directory and a bucket are planned alike; SeaweedFS goes folder by folder.
        assert listed == sorted(keys, key=str.encode)
    for position, key in enumerate(listed):
        assert [later.key for later in storage.list(key)] == listed[position + 1 :]
        assert storage.read(key) == key.encode()


def test_multipart_is_invisible_until_complete_and_leaves_nothing_when_aborted(storage):
    upload = storage.open_multipart("big", metadata=METADATA)
    upload.put_part(2, 5 * 2**20, b"end")
    upload.put_part(1, 0, b"x" * 5 * 2**20)
    assert storage.find("big") is None
    assert list(storage.list()) == []
    written = upload.complete()
    upload.abort()
    assert storage.read("big", etag=written.etag) == b"x" * 5 * 2**20 + b"end"
    other = storage.open_multipart("other", metadata=METADATA)
    other.put_part(1, 0, b"y")
    other.abort()
    other.abort()
    assert [listed.key for listed in storage.list()] == ["big"]
    assert _left_over(storage) == []


def _left_over(storage):
    if isinstance(storage, LocalStore):
        return [path for path in storage.directory.rglob(".*") if path.is_file()]
    return unfinished_uploads(storage)


def test_check_leaves_nothing(storage):
    storage.check(writable=True)
    storage.check()
    assert list(storage.list()) == []
    assert _left_over(storage) == []


def test_objects_carry_content_type_and_metadata(bucket):
    bucket.write("k", [b"x"], metadata=METADATA)
    upload = bucket.open_multipart("m", metadata=METADATA)
    upload.put_part(1, 0, b"y")
    upload.complete()
    for key in ("k", "m"):
        head = bucket.client.head_object(Bucket=bucket.bucket, Key=bucket.full_key(key))
        assert head["ContentType"] == "application/dicom"
        assert head["Metadata"] == METADATA


def test_the_store_checks_and_keeps_the_checksum(bucket):
    # Would catch a checksum that is computed and not sent.
    bucket.write("k", [b"x", b"y"], metadata={})
    head = bucket.client.head_object(Bucket=bucket.bucket, Key=bucket.full_key("k"), ChecksumMode="ENABLED")
    assert base64.b64decode(head["ChecksumSHA256"]) == hashlib.sha256(b"xy").digest()


def test_listing_over_many_pages(bucket):
    # Would catch a page that is skipped or listed twice.
    keys = [f"{number:04}" for number in range(1003)]
    for key in keys:
        bucket.client.put_object(Bucket=bucket.bucket, Key=bucket.full_key(key), Body=b"")
    bucket.client.put_object(Bucket=bucket.bucket, Key=bucket.full_key("")[:-1] + "-of-another", Body=b"")
    bucket.client.put_object(Bucket=bucket.bucket, Key=bucket.full_key("folder/"), Body=b"")
    assert [listed.key for listed in bucket.list()] == keys


def test_object_that_changed_since_it_was_listed(bucket):
    # Would catch a read without If-Match: headers of one version, pixels of another.
    bucket.write("k", [b"before"], metadata={})
    (listed,) = bucket.list()
    bucket.client.put_object(Bucket=bucket.bucket, Key=bucket.full_key("k"), Body=b"after!")
    for start, end in ((None, None), (0, 2)):
        with pytest.raises(Quarantine) as caught:
            bucket.read("k", etag=listed.etag, start=start, end=end)
        assert caught.value.reason is Reason.OBJECT_CHANGED


def test_object_of_another_size_than_was_listed(storage):
    # Would catch a store's short answer taken for the whole object.
    etag = storage.write("k", [b"0123456789"], metadata={}).etag
    assert storage.read("k", etag=etag, size=10) == b"0123456789"
    with pytest.raises((Quarantine, ObjectStoreError)):
        storage.read("k", etag=etag, size=11)


def test_file_that_changed_since_it_was_listed(tmp_path):
    (tmp_path / "k").write_bytes(b"before")
    storage = LocalStore(tmp_path)
    (listed,) = storage.list()
    (tmp_path / "k").write_bytes(b"after, and longer")
    with pytest.raises(Quarantine) as caught:
        storage.read("k", etag=listed.etag)
    assert caught.value.reason is Reason.OBJECT_CHANGED


def test_version_is_read(s3, s3_bucket, connection):
    client, bucket = s3.client(), S3Store(s3_bucket, "p", connection)
    client.put_bucket_versioning(Bucket=bucket.bucket, VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(Bucket=bucket.bucket, Key=bucket.full_key("k"), Body=b"old")["VersionId"]
    client.put_object(Bucket=bucket.bucket, Key=bucket.full_key("k"), Body=b"new")
    assert bucket.read("k", version_id=old) == b"old"
    assert bucket.read("k") == b"new"


def test_missing_bucket_is_a_configuration_error(connection):
    storage = S3Store("no-such-bucket-here", "", connection)
    for act in (
        storage.check,
        lambda: storage.check(writable=True),
        lambda: storage.write("k", [b""], metadata={}),
        lambda: storage.read("k"),
        lambda: list(storage.list()),
    ):
        with pytest.raises(ConfigurationError, match="bucket does not exist"):
            act()


@pytest.mark.parametrize("wrong", [{"secret_key": "wrong"}, {"access_key": "nobody"}])
def test_wrong_credentials_are_a_configuration_error(shared_bucket, connection, wrong):
    storage = S3Store(shared_bucket, "", replace(connection, session=None, **wrong))
    for act in (storage.check, lambda: storage.read("k"), lambda: storage.write("k", [b""], metadata={})):
        with pytest.raises(ConfigurationError, match="credentials"):
            act()


def test_no_server_is_a_configuration_error_of_the_check(connection):
    storage = S3Store("bucket", "", replace(connection, endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(ConfigurationError, match="check the endpoint"):
        storage.check()


def test_environment_alone_is_enough(s3, shared_bucket, prefix, monkeypatch):
    # Would catch one of the two clients not finding the standard variables.
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    storage = open_object_store(f"s3://{shared_bucket}/{prefix}/")
    storage.check(writable=True)
    storage.write("k", [b"x"], metadata={})
    assert [(listed.key, storage.read(listed.key)) for listed in storage.list()] == [("k", b"x")]


def test_store_without_conditional_writes_or_checksums(connection, shared_bucket, prefix):
    # Would catch the settings for older stores changing what is written.
    storage = S3Store(shared_bucket, prefix, replace(connection, conditional_writes=False, checksum="md5"))
    storage.write("k", [b"x"], metadata=METADATA)
    assert storage.write("k", [b"x"], metadata=METADATA).existed
    with pytest.raises(Quarantine):
        storage.write("k", [b"y"], metadata=METADATA)
    upload = storage.open_multipart("m", metadata={})
    upload.put_part(1, 0, b"y")
    upload.complete()
    assert storage.read("m") == b"y"


def test_same_place(connection, shared_bucket, tmp_path):
    def s3(prefix, **changes):
        return S3Store(shared_bucket, prefix, replace(connection, **changes))

    assert s3("a").same_place(s3("a/b"))
    assert s3("").same_place(s3("a"))
    assert not s3("a").same_place(s3("ab"))
    assert not s3("a").same_place(S3Store("another", "a", connection))
    assert not s3("a").same_place(s3("a", endpoint_url="http://127.0.0.1:9"))
    assert not s3("a").same_place(LocalStore(tmp_path))
    assert LocalStore(tmp_path).same_place(LocalStore(tmp_path / "x" / ".."))
    assert LocalStore(tmp_path).same_place(LocalStore(tmp_path / "x"))
    assert not LocalStore(tmp_path / "a").same_place(LocalStore(tmp_path / "ab"))
