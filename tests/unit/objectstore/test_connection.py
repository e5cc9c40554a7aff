"""One connection behaves the same whichever client moves the bytes: each setting reaches both.

What a client sends is recorded by a server that answers every request in the way that S3 would.
"""

import hashlib
import logging
import os
import ssl
import subprocess
import threading
from base64 import b64encode
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from dicom_deid.exceptions import ConfigurationError, ObjectStoreError
from dicom_deid.objectstore import RetryPolicy, S3Connection, S3Store
from dicom_deid.objectstore.errors import TransientError

ASSUMED = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>assumed-token</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


ETAG = hashlib.md5(b"x", usedforsecurity=False).hexdigest()


class Recorder(ThreadingHTTPServer):
    """Records requests; answers so that clients are content."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.content = b"x"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_arguments):
        """Ignore clients that hang up after a fault."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers, body))
        content = ASSUMED if b"AssumeRole" in body else self.server.content if self.command == "GET" else b""
        # The bucket is empty until something is written.
        self.send_response_only(404 if self.command == "HEAD" else 200)
        self.send_header("ETag", f'"{ETAG}"')
        self.send_header("Last-Modified", "Sun, 01 Jan 2023 00:00:00 GMT")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_POST = do_HEAD = do_CONNECT = answer  # noqa: N815

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server():
    with Recorder() as server:
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No settings but the test's own."""
    for name in list(os.environ):
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def connect(server, **settings):
    defaults = {
        "endpoint_url": server.url,
        "access_key": "AK",
        "secret_key": "SK",
        "retry": RetryPolicy(max_attempts=1),
    }
    return S3Connection(**{**defaults, **settings})


ODD = "odd//"
"""A prefix that obstore cannot express: keys with it are requested by boto3, all others by obstore."""


def put_with_both(server, connection, key="k"):
    """The two requests, by boto3 and by obstore, that write an object; the first key has the prefix `ODD`."""
    storage = S3Store("bucket", "", connection)
    server.requests.clear()
    for each in (ODD + key, key):
        storage.write(each, [b"x"], metadata={"run": "1"})
    written = [request for request in server.requests if request[0] == "PUT"]
    assert [is_boto3(request) for request in written] == [True, False]
    return written


def is_boto3(request):
    return request[2]["user-agent"].startswith("Boto3")


def get_with_both(server, connection, **options):
    storage = S3Store("bucket", "", connection)
    server.requests.clear()
    for key in (ODD + "k", "k"):
        storage.read(key, **options)
    assert [is_boto3(request) for request in server.requests] == [True, False]
    return server.requests


HEADERS = [
    ({}, {"content-type": "application/dicom", "x-amz-meta-run": "1", "if-none-match": "*"}),
    ({"session_token": "token"}, {"x-amz-security-token": "token"}),
    ({"server_side_encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
    (
        {"server_side_encryption": "aws:kms", "kms_key_id": "key", "bucket_key": True},
        {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "key",
            "x-amz-server-side-encryption-bucket-key-enabled": "true",
        },
    ),
    ({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}),
    ({"requester_pays": True}, {"x-amz-request-payer": "requester"}),
    ({"checksum": "sha256"}, {"x-amz-checksum-sha256": b64encode(hashlib.sha256(b"x").digest()).decode()}),
    ({"conditional_writes": True}, {"if-none-match": "*"}),
]
ABSENT = [
    ({}, {"x-amz-security-token", "x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-request-payer"}),
    ({"checksum": "md5"}, {"x-amz-checksum-sha256", "x-amz-checksum-crc32", "x-amz-trailer"}),
    ({"checksum": "sha256"}, {"x-amz-checksum-crc64nvme"}),
    ({"conditional_writes": False}, {"if-none-match"}),
]


@pytest.mark.parametrize(("settings", "expected"), HEADERS)
def test_settings_become_the_same_headers(server, settings, expected):
    for _, _, headers, body in put_with_both(server, connect(server, **settings)):
        assert {name: headers.get(name, "").lower() for name in expected} == {
            name: value.lower() for name, value in expected.items()
        }
        assert body == b"x"


@pytest.mark.parametrize(("settings", "absent"), ABSENT)
def test_what_is_not_set_is_not_sent(server, settings, absent):
    # Would catch defaults of one client, such as boto3's CRC32 trailers, that older stores refuse.
    for _, _, headers, _ in put_with_both(server, connect(server, **settings)):
        assert not absent & set(headers)


def test_conditional_and_ranged_reads(server):
    connection = connect(server, requester_pays=True)
    for method, path, headers, _ in get_with_both(
        server, connection, etag="9dd4e461268c8034f5c8564e155c67a6", version_id="v1"
    ):
        assert method == "GET"
        assert "versionId=v1" in path
        assert headers["if-match"] == f'"{ETAG}"'
        assert headers["x-amz-request-payer"] == "requester"
    storage = S3Store("bucket", "", connection)
    server.requests.clear()
    for key in (ODD + "k", "k"):
        # The recorder answers with the whole object, which is refused; the request is what matters.
        with pytest.raises(ObjectStoreError):
            storage.read(key, start=3)
    assert {headers["range"] for _, _, headers, _ in server.requests} == {"bytes=3-"}
    assert {is_boto3(request) for request in server.requests} == {True, False}


@pytest.mark.parametrize(("region", "in_scope"), [(None, "us-east-1"), ("eu-central-1", "eu-central-1")])
def test_region_and_access_key_are_in_the_signature(server, region, in_scope):
    for _, _, headers, _ in put_with_both(server, connect(server, region=region)):
        assert "Credential=AK/" in headers["authorization"]
        assert f"/{in_scope}/s3/aws4_request" in headers["authorization"]


@pytest.mark.parametrize("key", ["a/b.dcm", "with space+plus%25ü#?&=.dcm"])
def test_path_style_and_escaped_keys(server, key):
    first, second = put_with_both(server, connect(server), key)
    assert first[1] == second[1].replace("/bucket/", f"/bucket/{ODD}")
    assert second[1].startswith("/bucket/")
    assert first[2]["host"] == second[2]["host"]


def test_virtual_style(server):
    # Through a proxy, which needs no name server for the bucket's host.
    settings = {"endpoint_url": "http://store.invalid", "proxies": {"http": server.url}, "addressing_style": "virtual"}
    for _, path, headers, _ in put_with_both(server, connect(server, **settings)):
        assert path.replace(ODD, "") == "http://bucket.store.invalid/k"
        assert headers["host"] == "bucket.store.invalid"


@pytest.mark.parametrize(
    ("settings", "endpoint", "virtual"),
    [
        ({"region": "us-west-2"}, "https://bucket.s3.us-west-2.amazonaws.com", True),
        ({"region": "eu-west-1"}, "https://bucket.s3.eu-west-1.amazonaws.com", True),
        ({"region": "eu-west-1", "addressing_style": "path"}, "https://s3.eu-west-1.amazonaws.com", False),
        ({"endpoint_url": "https://minio.example"}, "https://minio.example", False),
    ],
)
def test_endpoint_follows_boto3(settings, endpoint, virtual):
    # Would catch one client asking another host than the other.
    clients = S3Connection(access_key="AK", secret_key="SK", **settings).clients("bucket")
    assert clients.store.config["endpoint_url_s3"] == endpoint
    assert (clients.store.config["virtual_hosted_style_request"] == "true") is virtual


def test_endpoint_of_the_connection_wins_over_the_environment(server, monkeypatch):
    # Would catch obstore reading variables that boto3, given an endpoint, does not.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "other")
    for _, _, headers, _ in put_with_both(server, connect(server)):
        assert "Credential=AK/" in headers["authorization"]
        assert "x-amz-security-token" not in headers


def test_environment(server, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "FROM-ENV",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }.items():
        monkeypatch.setenv(name, value)
    for _, _, headers, _ in put_with_both(server, S3Connection.from_environment()):
        assert "Credential=FROM-ENV/" in headers["authorization"]
        assert "/eu-north-1/s3/" in headers["authorization"]
        assert headers["x-amz-security-token"] == "t"
        assert "x-amz-checksum-sha256" not in headers


def test_profile(server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "archive")
    (tmp_path / "credentials").write_text("[archive]\naws_access_key_id=PROFILE\naws_secret_access_key=s\n")
    (tmp_path / "config").write_text("[profile archive]\nregion=ap-south-1\n")
    for _, _, headers, _ in put_with_both(server, connect(server, access_key=None, secret_key=None)):
        assert "Credential=PROFILE/" in headers["authorization"]
        assert "/ap-south-1/s3/" in headers["authorization"]


def test_session(server):
    # What the Airflow connection hands over: a session whose credentials it made and renews.
    session = boto3.session.Session("SESSION", "s", "token", region_name="eu-west-3")
    connection = connect(server, access_key=None, secret_key=None, session=session)
    for _, _, headers, _ in put_with_both(server, connection):
        assert "Credential=SESSION/" in headers["authorization"]
        assert "/eu-west-3/s3/" in headers["authorization"]
        assert headers["x-amz-security-token"] == "token"


def test_role(server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    monkeypatch.setenv("AWS_PROFILE", "reader")
    (tmp_path / "credentials").write_text("[archive]\naws_access_key_id=i\naws_secret_access_key=s\n")
    (tmp_path / "config").write_text(
        "[profile reader]\nrole_arn=arn:aws:iam::1:role/r\nexternal_id=ext\nsource_profile=archive\n"
    )
    connection = connect(server, region="us-east-1", access_key=None, secret_key=None)
    storage = S3Store("bucket", "", connection)
    for key in (ODD + "k", "k"):
        storage.write(key, [b"x"], metadata={})
    asked = [body for _, _, _, body in server.requests if b"AssumeRole" in body]
    assert len(asked) == 1
    assert b"ExternalId=ext" in asked[0]
    written = [headers for method, _, headers, _ in server.requests if method == "PUT"]
    assert len(written) == 2
    for headers in written:
        assert "Credential=ASSUMED/" in headers["authorization"]
        assert headers["x-amz-security-token"] == "assumed-token"


def test_proxy(server):
    connection = connect(server, endpoint_url="http://store.invalid", proxies={"http": server.url})
    for _, path, headers, _ in put_with_both(server, connection):
        assert path.replace(ODD, "") == "http://store.invalid/bucket/k"
        assert headers["host"] == "store.invalid"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of an authority of our own for 127.0.0.1."""
    place = tmp_path_factory.mktemp("certificates")
    names = {name: str(place / name) for name in ("ca.key", "ca.pem", "key", "request", "crt", "extensions")}
    (place / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    # The authority, a request, and the certificate that the one signs for the other.
    commands = """
        req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout {ca.key} -out {ca.pem}
        req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout {key} -out {request}
        x509 -req -days 2 -CA {ca.pem} -CAkey {ca.key} -CAcreateserial -extfile {extensions} -in {request} -out {crt}
    """
    for command in commands.strip().splitlines():
        words = [names.get(word.strip("{}"), word) if word.startswith("{") else word for word in command.split()]
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return names


@pytest.fixture
def https(certificate):
    with Recorder() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate["crt"], certificate["key"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server
        server.shutdown()


def https_connection(server, **settings):
    return connect(server, endpoint_url=server.url.replace("http:", "https:"), **settings)


def test_certificate_authority(https, certificate, monkeypatch):
    assert len(put_with_both(https, https_connection(https, verify=certificate["ca.pem"]))) == 2
    assert len(put_with_both(https, https_connection(https, verify=False))) == 2
    monkeypatch.setenv("AWS_CA_BUNDLE", certificate["ca.pem"])
    assert len(put_with_both(https, https_connection(https))) == 2


def test_bytes_are_compared_with_the_etag_over_tls_too(server, https):
    server.content = https.content = b"y"
    encrypted = https_connection(https, verify=False)
    for connection in (connect(server), encrypted):
        with pytest.raises(TransientError, match="differ from the ETag"):
            S3Store("bucket", "", connection).read("k")
    assert S3Store("bucket", "", replace(encrypted, compare_etags=False)).read("k") == b"y"


CHECKSUMS = [
    ({}, "CRC64NVME"),
    ({"region": "cn-north-1"}, "CRC64NVME"),
    ({"checksum": "sha256"}, "SHA256"),
    ({"endpoint_url": "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com"}, "CRC64NVME"),
    ({"endpoint_url": "http://s3.us-east-1.amazonaws.com"}, "SHA256"),
    ({"endpoint_url": "https://amazonaws.com.store.example"}, "SHA256"),
    ({"endpoint_url": "https://store.example"}, "SHA256"),
    ({"endpoint_url": "https://store.example", "checksum": "crc64nvme"}, "CRC64NVME"),
]


@pytest.mark.parametrize(("settings", "checksum"), CHECKSUMS)
def test_the_checksum_that_aws_is_known_to_check_is_its_default(settings, checksum):
    config = S3Connection(access_key="AK", secret_key="SK", **settings).clients("bucket").store.config
    assert config["checksum_algorithm"].upper() == checksum
    assert str(config["unsigned_payload"]).lower() == str(checksum == "CRC64NVME").lower()


def test_unknown_certificate_authority_is_refused(https):
    # Would catch either client trusting anybody.
    storage = S3Store("bucket", "", https_connection(https))
    for key in (ODD + "k", "k"):
        with pytest.raises(TransientError):
            storage.write(key, [b"x"], metadata={})
    assert https.requests == []


@pytest.mark.parametrize("settings", [{"verify": "/nowhere/ca.pem"}, {"endpoint_url": "no url"}, {"access_key": None}])
def test_settings_that_cannot_be_used_are_configuration_errors(server, settings):
    if settings == {"access_key": None}:
        settings = {"access_key": None, "secret_key": None}
    with pytest.raises(ConfigurationError):
        connect(server, **settings).clients("bucket")


def test_an_unknown_profile_is_a_configuration_error(server, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(ConfigurationError):
        connect(server, access_key=None, secret_key=None).clients("bucket")


def test_repr_shows_no_secrets():
    connection = S3Connection(
        access_key="AK",
        secret_key="very-secret",
        session_token="very-secret",
        proxies={"http": "http://user:very-secret@proxy"},
        session=boto3.session.Session("AK", "very-secret"),
    )
    assert "very-secret" not in repr(connection)
    assert "very-secret" not in str(connection)


@pytest.mark.parametrize(
    "settings",
    [{"checksum": "none"}, {"addressing_style": "host"}, {"bytes_per_second": 0}, {"requests_per_second": "fast"}],
)
def test_unknown_words_and_numbers_are_refused(settings):
    # Would catch a misspelt setting from a connection's JSON that turns a check off in silence.
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        S3Connection(**settings)


def test_source_keys_are_not_logged_when_everything_logs(caplog):
    """Clients log requests whole at DEBUG, which a user may set for all loggers; keys may name patients."""
    server = Recorder()
    caplog.set_level(logging.DEBUG)
    storage = S3Store("bucket", "", S3Connection(endpoint_url=server.url, access_key="a", secret_key="s"))
    # obstore cannot express the second key, so that boto3 reads it.
    for key in ("doe-john.dcm", "a//doe-john.dcm"):
        storage.read(key)
        storage.find(key)
    assert any("doe-john" in path for _, path, _, _ in server.requests)
    assert "doe-john" not in caplog.text
    server.shutdown()
