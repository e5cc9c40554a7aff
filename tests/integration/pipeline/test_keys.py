"""Source keys of every kind: each object has an outcome of its own, and none holds up the others.

Servers differ in the keys that they accept: what one refuses is not stored there.
"""

from __future__ import annotations

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
