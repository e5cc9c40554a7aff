"""Faults between us and a real server: repeated where that is safe, otherwise one reason; nothing half-written.

Each test would catch a fault that is reported as success, leaves something behind, or ends a run that could go on.
"""

import base64
import hashlib
import os
import zlib
from dataclasses import replace

import pytest
from tests.support import fault_proxy
from tests.support.fault_proxy import FaultProxy, times
from tests.support.uploads import unfinished_uploads

from dicom_deid.exceptions import ConfigurationError, ObjectStoreError, Quarantine
from dicom_deid.objectstore import (
    LocalStore,
    S3Store,
    SourceObject,
    SourceRange,
    WriteMethod,
    write_parts,
)
from dicom_deid.reasons import Reason

MEBIBYTE = 2**20
SMALL = 5 * MEBIBYTE

pytestmark = pytest.mark.usefixtures("several_parts")
HANG = 4.0
"""Longer than the read timeout of the tests' connection."""

PASSING = {
    "500": fault_proxy.status(500),
    "503 SlowDown": fault_proxy.status(503, fault_proxy.SLOW_DOWN),
    "reset": fault_proxy.reset,
    "timeout": fault_proxy.hang(HANG),
}
READING = {
    **PASSING,
    "truncated": fault_proxy.truncate,
    "stalled": fault_proxy.stall(HANG),
    "short": fault_proxy.shorten,
}
WRITING = {**PASSING, "lost answer": fault_proxy.lose_answer}


@pytest.fixture
def proxy(s3):
    with FaultProxy(s3.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy, connection, shared_bucket, prefix):
    """A storage behind the proxy."""
    # The host is signed, and the proxy passes it on: the server checks the signature for the proxy's address.
    quick = replace(connection, endpoint_url=proxy.url, read_timeout=1.5, connect_timeout=1.5)
    return S3Store(shared_bucket, prefix, quick)


@pytest.fixture
def direct(connection, shared_bucket, prefix):
    """The same storage, without the proxy: what is really there."""
    return S3Store(shared_bucket, prefix, connection)


def puts(request):
    return request.method == "PUT"


def gets(request):
    return request.method == "GET"


def posts(request):
    return request.method == "POST"


@pytest.mark.parametrize("fault", READING)
@pytest.mark.parametrize("span", [(None, None), (100, 90_000)])
def test_reading_goes_on_after_a_fault_that_passes(proxy, behind, direct, fault, span):
    content = os.urandom(100_000)
    etag = direct.write("k", [content], metadata={}).etag
    proxy.fault = times(1, gets, READING[fault])
    start, end = span
    assert behind.read("k", etag=etag, size=len(content), start=start, end=end) == content[start:end]


@pytest.mark.parametrize("fault", ["500", "reset", "truncated", "short"])
def test_reading_gives_up_after_its_attempts(proxy, behind, direct, fault):
    direct.write("k", [b"0123456789"], metadata={})
    proxy.fault = times(99, gets, READING[fault])
    with pytest.raises(ObjectStoreError):
        behind.read("k", size=10)
    assert sum(gets(request) for request in proxy.seen) == behind.connection.retry.max_attempts


@pytest.mark.parametrize("fault", WRITING)
def test_writing_goes_on_after_a_fault_that_passes(proxy, behind, direct, fault):
    content = os.urandom(100_000)
    proxy.fault = times(1, puts, WRITING[fault])
    written = behind.write("k", [content], metadata={})
    assert direct.read("k", etag=written.etag) == content


@pytest.mark.parametrize("fault", ["500", "reset"])
def test_a_failed_write_leaves_and_reports_nothing(proxy, behind, direct, fault):
    proxy.fault = times(99, puts, WRITING[fault])
    with pytest.raises(ObjectStoreError):
        behind.write("k", [b"content"], metadata={})
    assert direct.find("k") is None


@pytest.mark.parametrize("checksum", ["sha256", "crc64nvme", "md5"])
def test_bytes_that_were_damaged_on_the_way_are_refused(proxy, behind, direct, shared_bucket, prefix, checksum):
    storage = S3Store(shared_bucket, prefix, replace(behind.connection, checksum=checksum))
    proxy.fault = times(1, lambda request: puts(request) and bool(request.body), fault_proxy.damage_request(proxy))
    storage.write("k", [b"content"], metadata={})
    assert direct.read("k") == b"content"
    upload = storage.open_multipart("m", metadata={})
    proxy.fault = times(1, lambda request: puts(request) and bool(request.body), fault_proxy.damage_request(proxy))
    upload.put_part(1, 0, b"content")
    upload.complete()
    assert direct.read("m") == b"content"


def test_wrong_clock_is_a_configuration_error(proxy, behind):
    # Repeating would not help, and no other object would fare better.
    proxy.fault = times(1, gets, fault_proxy.status(403, fault_proxy.SKEWED))
    with pytest.raises(ConfigurationError, match="clock"):
        behind.read("k")


def test_listing_goes_on_after_faults(proxy, behind, direct):
    for key in ("a", "b"):
        direct.write(key, [b""], metadata={})
    proxy.fault = times(2, gets, PASSING["503 SlowDown"])
    assert [listed.key for listed in behind.list()] == ["a", "b"]


def test_messages_hold_no_keys(proxy, behind):
    # Source keys often hold names of patients, and the clients put keys into their messages.
    for fault in (fault_proxy.status(500), fault_proxy.status(400), fault_proxy.status(403), fault_proxy.reset):
        proxy.fault = times(99, lambda _request: True, fault)
        for act in (
            lambda: behind.read("DOE^JOHN"),
            lambda: behind.write("DOE^JOHN", [b""], metadata={}),
            lambda: behind.find("DOE^JOHN"),
            lambda: behind.open_multipart("DOE^JOHN", metadata={}),
        ):
            with pytest.raises((ObjectStoreError, ConfigurationError)) as caught:
                act()
            error = caught.value
            assert "DOE" not in str(error)
            assert error.__cause__ is None
            assert error.__suppress_context__


@pytest.fixture(scope="module")
def content():
    return os.urandom(12 * MEBIBYTE)


@pytest.fixture
def large(tmp_path, content):
    """A source that does not fault, so that a fault hits the destination."""
    (tmp_path / "o").write_bytes(content)
    source = LocalStore(tmp_path)
    (listed,) = source.list()
    return source, listed


def is_part(number):
    return lambda request: puts(request) and f"partNumber={number}&" in request.path + "&"


def is_completion(request):
    return posts(request) and "uploadId=" in request.path


@pytest.mark.parametrize("fault", WRITING)
@pytest.mark.parametrize("step", ["part", "completion"])
def test_large_object_goes_on_after_a_fault_that_passes(proxy, behind, direct, large, content, fault, step):
    source, listed = large
    proxy.fault = times(1, is_part(2) if step == "part" else is_completion, WRITING[fault])
    done = write_parts(source, listed, behind, "k", [b"h", SourceRange(1, listed.size)], metadata={}, part_bytes=SMALL)
    # A completion whose answer was lost is found done: by its bytes, not by trust.
    assert done.method is (
        WriteMethod.ALREADY_PRESENT if (fault, step) == ("lost answer", "completion") else WriteMethod.MULTIPART
    )
    assert direct.read("k", etag=done.etag) == b"h" + content[1:]
    assert unfinished_uploads(direct) == []


@pytest.mark.parametrize("step", [is_part(3), is_completion], ids=["part", "completion"])
def test_large_object_that_fails_leaves_nothing(proxy, behind, direct, large, step):
    source, listed = large
    proxy.fault = times(99, step, fault_proxy.status(503))
    with pytest.raises(ObjectStoreError):
        write_parts(source, listed, behind, "k", [b"h", SourceRange(1, listed.size)], metadata={}, part_bytes=SMALL)
    assert direct.find("k") is None
    assert unfinished_uploads(direct) == []


def test_store_that_knows_no_copy_by_range(proxy, behind, direct, content):
    direct.client.put_object(Bucket=direct.bucket, Key=direct.full_key("in/o"), Body=content)
    proxy.fault = times(99, lambda request: "x-amz-copy-source" in request.headers, fault_proxy.status(501))
    (listed,) = direct.list()
    done = write_parts(behind, listed, behind, "k", [b"h", SourceRange(1, listed.size)], metadata={})
    assert done.method is WriteMethod.MULTIPART
    assert direct.read("k") == b"h" + content[1:]
    assert unfinished_uploads(direct) == []


@pytest.mark.parametrize("fault", [fault_proxy.status(503), fault_proxy.reset], ids=["503", "reset"])
def test_copy_by_range_goes_on_after_a_fault_that_passes(proxy, behind, direct, content, fault):
    direct.client.put_object(Bucket=direct.bucket, Key=direct.full_key("in/o"), Body=content)
    proxy.fault = times(1, lambda request: "x-amz-copy-source" in request.headers, fault)
    (listed,) = direct.list()
    done = write_parts(behind, listed, behind, "k", [b"h", SourceRange(1, listed.size)], metadata={})
    assert done.method is WriteMethod.SERVER_SIDE_COPY
    assert direct.read("k") == b"h" + content[1:]


def test_a_source_deleted_during_a_large_copy(direct, tmp_path):
    gone = SourceObject("gone", 40 * MEBIBYTE, "0" * 32, None)
    for destination in (direct, LocalStore(tmp_path)):
        with pytest.raises(Quarantine) as caught:
            write_parts(direct, gone, destination, "k", [b"h", SourceRange(1, gone.size)], metadata={})
        assert caught.value.reason is Reason.OBJECT_VANISHED
        assert destination.find("k") is None
    assert unfinished_uploads(direct) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_object_that_is_gone_for_a_moment_is_read(proxy, behind, direct):
    """A store that answers 404 or 416 to some requests must not make objects disappear from a run."""
    etag = direct.write("k", [b"content"], metadata={}).etag
    for status in (404, 416):
        proxy.fault = times(2, gets, fault_proxy.status(status, b""))
        assert behind.read("k", etag=etag, size=7) == b"content"


@pytest.mark.parametrize(("status", "reason"), [(404, Reason.OBJECT_VANISHED), (416, Reason.OBJECT_CHANGED)])
def test_an_object_that_stays_missing_has_its_own_reason(proxy, behind, direct, status, reason):
    etag = direct.write("k", [b"content"], metadata={}).etag
    proxy.fault = times(100, gets, fault_proxy.status(status, b""))
    with pytest.raises(Quarantine) as caught:
        behind.read("k", etag=etag, size=7)
    assert caught.value.reason is reason


def test_a_body_without_an_etag_is_read_again(proxy, behind, direct):
    etag = direct.write("k", [b"content"], metadata={}).etag
    proxy.fault = times(1, gets, fault_proxy.without_header("ETag"))
    assert behind.read("k", etag=etag, size=7) == b"content"


def test_damaged_bytes_are_read_again(proxy, behind, direct):
    """A body of the right length with other bytes would be de-identified, and its damage released."""
    content = os.urandom(1000)
    etag = direct.write("k", [content], metadata={}).etag
    proxy.fault = times(1, gets, fault_proxy.damage)
    assert behind.read("k", etag=etag, size=1000) == content


def test_an_object_that_is_damaged_in_the_store_has_a_reason(proxy, behind, direct):
    good = direct.write("good", [b"content"], metadata={}).etag
    bad = direct.write("bad", [b"content"], metadata={}).etag
    assert behind.read("good", etag=good, size=7) == b"content"
    proxy.fault = times(100, gets, fault_proxy.damage)
    with pytest.raises(Quarantine) as caught:
        behind.read("bad", etag=bad, size=7)
    assert caught.value.reason is Reason.OBJECT_DAMAGED


def put_without_checksum(store, key):
    answer = store.client.put_object(Bucket=store.bucket, Key=store.full_key(key), Body=b"content")
    return answer["ETag"].strip('"')


def test_a_store_whose_etags_are_no_md5_is_read_without_comparing(proxy, behind, direct):
    """Some stores give other ETags of the same form, and keep no checksum: such objects must not be held."""
    etag = put_without_checksum(direct, "k")
    proxy.fault = times(2, gets, fault_proxy.damage)
    assert len(behind.read("k", etag=etag, size=7)) == 7


ENCRYPTIONS = [
    {"x-amz-server-side-encryption": "aws:kms"},
    {"x-amz-server-side-encryption": "aws:kms:dsse"},
    {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
]


@pytest.mark.parametrize("headers", ENCRYPTIONS, ids=lambda headers: next(iter(headers.values())))
def test_an_object_with_an_encryption_key_of_its_own_is_not_held(proxy, behind, direct, headers):
    """In one bucket some objects may have an MD5 for an ETag, and others, encrypted, an ETag of the same form."""
    plain = direct.write("plain", [b"content"], metadata={}).etag
    encrypted = put_without_checksum(direct, "encrypted")
    assert behind.read("plain", etag=plain, size=7) == b"content"
    # A body that differs from its ETag stands for an ETag that is no MD5.
    is_encrypted = lambda request: request.path.endswith("encrypted")  # noqa: E731
    say = fault_proxy.with_headers(headers)
    proxy.fault = lambda handler, request, forward: (
        is_encrypted(request)
        and ((fault_proxy.damage if request.method == "GET" else say)(handler, request, forward) or True)
    )
    reads = len(proxy.seen)
    assert len(behind.read("encrypted", etag=encrypted, size=7)) == 7
    assert len(proxy.seen) - reads == 2, "one request more, and no second body"


@pytest.mark.parametrize("name", ["sha256", "sha1", "crc32"])
def test_the_checksum_that_the_store_keeps_decides(proxy, behind, direct, name):
    """Also where ETags tell nothing: the first object of a store that is damaged is not de-identified."""
    etag = direct.write("k", [b"content"], metadata={}).etag
    checksums = {
        "sha256": hashlib.sha256(b"content").digest(),
        "sha1": hashlib.sha1(b"content").digest(),
        "crc32": zlib.crc32(b"content").to_bytes(4, "big"),
    }
    kept = fault_proxy.with_headers({f"x-amz-checksum-{name}": base64.b64encode(checksums[name]).decode()})
    proxy.fault = lambda handler, request, forward: (
        (fault_proxy.damage if request.method == "GET" else kept)(handler, request, forward) or True
    )
    with pytest.raises(Quarantine) as caught:
        behind.read("k", etag=etag, size=7)
    assert caught.value.reason is Reason.OBJECT_DAMAGED


def test_etags_of_multipart_uploads_are_not_compared(proxy, behind, direct):
    upload = direct.open_multipart("k", metadata={})
    upload.put_part(1, 0, b"content")
    etag = upload.complete().etag
    assert etag.endswith("-1")
    assert behind.read("k", etag=etag, size=7) == b"content"
    assert [request.method for request in proxy.seen] == ["GET"]


@pytest.mark.parametrize("status", [404, 412])
def test_a_refused_write_is_not_blamed_on_the_source(proxy, behind, status):
    """The destination's 404 or 412 must not be recorded as a source object that is gone, or as a conflict."""
    proxy.fault = times(100, puts, fault_proxy.status(status, b""))
    with pytest.raises(ObjectStoreError, match=f"writing an object: .*{status}"):
        behind.write("k", [b"content"], metadata={})
