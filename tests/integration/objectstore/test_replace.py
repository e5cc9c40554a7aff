"""Replacing and deleting objects: only the object that is meant, and never one that another program wrote."""

import os
import threading
import uuid
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from moto.server import ThreadedMotoServer

from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.objectstore import LocalStore, S3Store, SourceRange, WriteMethod, write_parts
from dicom_deid.reasons import Reason

MEBIBYTE = 2**20


@pytest.fixture(params=["s3", "s3 without conditional writes", "local"])
def store(request, connection, shared_bucket, prefix, tmp_path):
    if request.param == "local":
        return LocalStore(tmp_path / "files")
    conditional = request.param == "s3"
    return S3Store(shared_bucket, prefix, replace(connection, conditional_writes=conditional))


def conflict(call):
    with pytest.raises(Quarantine) as caught:
        call()
    assert caught.value.reason is Reason.DESTINATION_CONFLICT


@pytest.mark.parametrize("key", ["a/k", "a//k"])
def test_the_object_with_the_known_etag_is_replaced_and_no_other(store, key):
    if key == "a//k" and isinstance(store, LocalStore):
        pytest.skip("a directory has no such key")
    old = store.write(key, [b"old"], metadata={})
    new = store.write(key, [b"new!"], metadata={}, replaces=old.etag)
    assert not new.existed
    assert store.read(key, etag=new.etag) == b"new!"
    # Another program's object is at the key now.
    conflict(lambda: store.write(key, [b"newer"], metadata={}, replaces=old.etag))
    assert store.read(key) == b"new!"
    # A worker that was killed after the write finds its own bytes.
    assert store.write(key, [b"new!"], metadata={}, replaces=old.etag).existed


def test_an_object_that_was_deleted_meanwhile_is_written(store):
    old = store.write("k", [b"old"], metadata={})
    store.delete("k")
    assert not store.write("k", [b"new"], metadata={}, replaces=old.etag).existed
    assert store.read("k") == b"new"


def test_only_the_known_object_is_deleted(store):
    old = store.write("k", [b"old"], metadata={})
    conflict(lambda: store.delete("k", etag="0" * 32))
    assert store.read("k") == b"old"
    store.delete("k", etag=old.etag)
    assert store.find("k") is None
    store.delete("k", etag=old.etag)


@pytest.mark.usefixtures("several_parts")
def test_a_large_object_is_replaced_by_each_method(store):
    original = os.urandom(11 * MEBIBYTE)
    listed = store.find(store.write("in", [original], metadata={}).key)
    etag = None
    for number, server_side_copy in enumerate((True, False, True)):
        parts = [b"%d" % number, SourceRange(0, listed.size)]
        done = write_parts(
            store, listed, store, "out", parts, metadata={}, replaces=etag, server_side_copy=server_side_copy
        )
        assert done.method is not WriteMethod.ALREADY_PRESENT
        etag = done.etag
        assert store.read("out", etag=etag) == b"%d" % number + original
    parts = [b"x", SourceRange(0, listed.size)]
    conflict(lambda: write_parts(store, listed, store, "out", parts, metadata={}, replaces="0" * 32))


def test_of_many_replacements_exactly_one_wins(bucket):
    old = bucket.write("k", [b"old"], metadata={})
    outcomes = []

    def write(number):
        try:
            outcomes.append(bucket.write("k", [b"%d" % number], metadata={}, replaces=old.etag).existed)
        except Quarantine as refused:
            outcomes.append(refused.reason)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["False", *[Reason.DESTINATION_CONFLICT] * 7]


def test_readers_find_one_version_or_the_other_at_any_time(store):
    """A reader that polls while the object is replaced must never miss it."""
    etag = store.write("k", [b"0" * 1000], metadata={}).etag
    done = threading.Event()
    seen, missed = set(), []

    def poll():
        while not done.is_set():
            found = store.find("k")
            if found is None:
                missed.append(1)
            else:
                seen.add(bytes(store.read("k"))[:1])

    reader = threading.Thread(target=poll)
    reader.start()
    for number in range(1, 10):
        etag = store.write("k", [b"%d" % number * 1000], metadata={}, replaces=etag).etag
    done.set()
    reader.join()
    assert not missed
    assert seen <= {b"%d" % number for number in range(10)}


@pytest.fixture(params=["seaweedfs", "moto"])
def versioned(request, connection):
    """Return a connection to a server, and a bucket with versions on it."""
    with ExitStack() as stack:
        if request.param == "moto":
            server = ThreadedMotoServer(port=0, verbose=False)
            server.start()
            stack.callback(server.stop)
            connection = replace(connection, endpoint_url="http://{}:{}".format(*server.get_host_and_port()))
        bucket = f"versions-{uuid.uuid4().hex[:8]}"
        client = connection.clients(bucket)[0]
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield connection, bucket


@pytest.mark.parametrize("delete_versions", [True, False])
def test_versions_are_deleted_or_kept_and_none_comes_back(versioned, delete_versions):
    connection, bucket = versioned
    key = "a/k"
    store = S3Store(bucket, "out", replace(connection, delete_versions=delete_versions))

    def versions():
        found = store.client.list_object_versions(Bucket=bucket, Prefix=store.full_key(key))
        return [each["Key"] for each in found.get("Versions", ())]

    neighbour = store.write(f"{key}2", [b"of another key"], metadata={})
    store.write(f"{key}2", [b"of another key too"], metadata={}, replaces=neighbour.etag)
    neighbours = versions()
    old = store.write(key, [b"with a name"], metadata={})
    new = store.write(key, [b"without"], metadata={}, replaces=old.etag)
    assert len(versions()) - len(neighbours) == (1 if delete_versions else 2)
    large = write_parts(store, store.find(key), store, key, [os.urandom(33 * MEBIBYTE)], metadata={}, replaces=new.etag)
    assert len(versions()) - len(neighbours) == (1 if delete_versions else 3)
    assert store.delete(key, etag=large.etag)
    assert store.find(key) is None
    assert versions() == (neighbours if delete_versions else [*[store.full_key(key)] * 3, *neighbours])


def test_an_object_that_a_killed_process_has_deleted_says_that_a_version_is_kept(versioned):
    """Catches an audit that says that every byte of a withdrawn object is gone, after a kill before it was recorded."""
    connection, bucket = versioned
    store = S3Store(bucket, "a", connection)
    store.write("k", [b"with a name"], metadata={})
    store.write("kk", [b"of another key"], metadata={})
    assert [store.delete("k"), store.delete("k"), store.delete("never")] == ["version-kept", "version-kept", ""]
    client = store.client
    for each in client.list_object_versions(Bucket=bucket, Prefix="a/k")["Versions"]:
        client.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    assert store.delete("k") == ""


def test_old_versions_below_a_deleted_object_are_deleted_too(versioned):
    connection, bucket = versioned
    S3Store(bucket, "", connection).write("k", [b"old"], metadata={})
    S3Store(bucket, "", connection).delete("k")
    store = S3Store(bucket, "", replace(connection, delete_versions=True))
    assert not store.delete("k")
    assert not store.client.list_object_versions(Bucket=bucket).get("Versions")


@pytest.fixture
def locked(versioned):
    """Return a connection, a bucket with object lock, and a function that locks the newest version of a key."""
    connection = replace(versioned[0], delete_versions=True)
    bucket = f"locked-{uuid.uuid4().hex[:8]}"
    client = connection.clients(bucket)[0]
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)

    def lock(key):
        until = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
        client.put_object_retention(Bucket=bucket, Key=key, Retention=until)

    return connection, bucket, lock


def test_object_lock_keeps_versions_and_nothing_fails(locked, caplog):
    connection, bucket, lock = locked
    store = S3Store(bucket, "", connection)
    old = store.write("k", [b"with a name"], metadata={})
    lock("k")
    new = store.write("k", [b"without"], metadata={}, replaces=old.etag)
    assert bytes(store.read("k")) == b"without"
    new = store.write("k", [b"still without"], metadata={}, replaces=new.etag)
    # One line for a store, however many objects are replaced.
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"Object lock keeps versions of objects that are replaced in s3://{bucket}"
    ]
    lock("k")
    assert store.delete("k", etag=new.etag) == "version-kept"
    assert store.find("k") is None
    assert store.delete("k") == "version-kept"

    def versions():
        return [each["VersionId"] for each in store.client.list_object_versions(Bucket=bucket)["Versions"]]

    locked_versions = versions()
    assert len(locked_versions) == 2
    again = store.write("k", [b"once more"], metadata={})
    assert store.delete("k", etag=again.etag) == "version-kept"
    # The newest version is gone, and no locked one has become the object.
    assert versions() == locked_versions
    assert store.find("k") is None


def test_a_version_that_may_not_be_deleted_is_an_error_unless_it_is_locked(locked, monkeypatch):
    """Catches missing permissions that are taken for object lock."""
    connection, bucket, lock = locked
    store = S3Store(bucket, "", connection)
    store.write("k", [b"data"], metadata={})
    lock("k")
    head = store.head
    monkeypatch.setattr(
        store,
        "head",
        lambda key, **more: {**head(key, **more), "ObjectLockMode": None, "ObjectLockLegalHoldStatus": ""},
    )
    with pytest.raises(ConfigurationError, match="deleting a version: the store answered 403 AccessDenied"):
        store.delete("k")
