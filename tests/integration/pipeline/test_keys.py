"""Source keys of every kind: each object has an outcome of its own, and none holds up the others.

Servers differ in the keys that they accept: what one refuses is not stored there.
"""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer
from tests.support.runs import RunEnvironment, small_ct

from dicom_deid.sandbox import S3Service

GOOD = [f"z{number}.dcm" for number in range(10)]
PREFIX = "in/"


def keys() -> Iterator[str]:
    yield from (f"byte/{number:03} {chr(number)}.dcm" for number in range(1, 256))
    yield from (
        "dots/./a.dcm",
        "dots/../b.dcm",
        "dots//c.dcm",
        "dots/..",
        "./d.dcm",
        "..",
        " ",
        "dots/e.dcm/.",
        "f/ .dcm",
    )
    for letter in "xä":
        yield letter * ((1024 - len(PREFIX)) // len(letter.encode()))


@pytest.fixture(params=["seaweedfs", "moto"])
def place(request, s3, postgres_url) -> Iterator[RunEnvironment]:
    with ExitStack() as stack:
        if request.param == "moto":
            server = ThreadedMotoServer(port=0, verbose=False)
            server.start()
            stack.callback(server.stop)
            s3 = S3Service("http://{}:{}".format(*server.get_host_and_port()), access_key="test", secret_key="test")
        bucket = f"keys-{uuid.uuid4().hex[:8]}"
        s3.client().create_bucket(Bucket=bucket)
        yield RunEnvironment(s3, bucket, postgres_url)


def test_a_key_of_any_kind_is_one_object_s_outcome(place, tmp_path):
    """Catches a key that ends the batch, is an error of the program, or leaves objects behind it undone."""
    client = place.s3.client()
    for number, key in enumerate([*keys(), *GOOD]):
        with suppress(ClientError, BotoCoreError):
            client.put_object(Bucket=place.bucket, Key=f"{PREFIX}{key}", Body=small_ct(number))
    outcomes = place.run(destination=str(tmp_path / "out")).outcomes
    assert {outcomes[key] for key in GOOD} == {("deidentified", None)}
    assert len(outcomes) > 250
    assert {outcome for outcome, _ in outcomes.values()} <= {"deidentified", "quarantined"}
    assert "internal-error" not in {reason for _, reason in outcomes.values()}
    assert sum(outcome == "deidentified" for outcome, _ in outcomes.values()) > 230


def local_names() -> Iterator[bytes]:
    """Return file names of every byte that a file system takes, alone and in a folder, and names of 255 bytes."""
    for number in set(range(1, 256)) - {ord("/")}:
        yield b"%03d " % number + bytes([number]) + b".dcm"
        yield b"folder " + bytes([number]) + b"/a.dcm"
    yield b"x" * 255
    yield b"\xe4" * 255


def test_a_file_name_of_any_bytes_is_de_identified(s3, postgres_url, tmp_path):
    """Catches a name that is no UTF-8, which a directory can hold and no store; also of a member of a tar."""
    source, count = tmp_path / "in", 0
    for count, name in enumerate(local_names(), 1):
        path = source / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(small_ct(count))
    with tarfile.open(source / "b.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo(os.fsdecode(b"M\xfcller.dcm"))
        data = small_ct(count + 1)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    place = RunEnvironment(s3, "none", postgres_url)
    places = {"source": str(source), "destination": str(tmp_path / "out"), "quarantine": str(tmp_path / "held")}
    outcomes = place.run(**places).outcomes
    assert set(outcomes.values()) == {("deidentified", None)}
    assert len(outcomes) == count + 1
    assert os.fsdecode(b"b.tar!/M\xfcller.dcm") in outcomes
    assert place.run(**places).planned.summary.already_done == count + 1
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / os.fsdecode(b"M\xfcller.dcm")).write_bytes(b"no DICOM" * 50)
    assert set(place.run(**places | {"source": str(bad)}).outcomes.values()) == {("quarantined", "not-dicom")}
