"""The quarantine from a terminal: listed, shown, decided, applied."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tests.support.held import Device, held_image, held_images
from tests.support.runs import RunEnvironment

from dicom_deid.cli import main
from dicom_deid.engine.settings import Settings

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def place(s3, s3_bucket, postgres_url, monkeypatch) -> RunEnvironment:
    place = RunEnvironment(s3, s3_bucket, postgres_url)
    monkeypatch.setenv("DICOM_DEID_DATABASE", postgres_url)
    monkeypatch.setenv("DICOM_DEID_KEYS", place.keys.to_text())
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    place.put(held_images(Device("ACME", "Echo 1"), patients=2, images=2))
    place.put({"r.dcm": held_image(Device("ACME", "CT"), modality="CT", sop_class=CT, comment="saw Roe")})
    place.run(settings=Settings())
    return place


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["quarantine", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def group(reason: str) -> str:
    return re.findall(rf"^(\w{{8}}) .* {reason} ", run("list").output, re.MULTILINE)[0]


def test_from_list_to_release(place: RunEnvironment, tmp_path: Path) -> None:
    listed = run("list", "--reason", "pixel-risk").output
    assert "4 objects (2 studies, 2 patients)" in listed
    assert "US ACME Echo 1 1.0 96x64" in listed
    echo = group("pixel-risk")
    run("show", echo, "--output", str(tmp_path / "png"), "--objects", "2")
    run("show", echo, "--output", str(tmp_path / "png"), "--objects", "4", "--projection", "maximum")
    files = sorted((tmp_path / "png").iterdir())
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert Image.open(files[0]).size == (96, 64)
    run("decide", echo, "mask", "--mask", "0,0,96,8", "--rule", "--person", "ada", "--note", "banner")
    assert "4 deidentified" in run("apply").output
    written = [pydicom.dcmread(io.BytesIO(data)) for data in place.get().values()]
    assert len(written) == 4
    assert all(not each.pixel_array[:8].any() and each.pixel_array[8:].any() for each in written)
    assert "ada  mask, rule  active  4 objects, 4 released" in run("decisions").output
    exported = CliRunner().invoke(main, ["recipe", "export-rules", "test"]).output
    assert "coordinates 0,0,96,8" in exported
    released = run("revoke", "1", "--person", "bob").stdout.splitlines()
    assert {line.rpartition("/out/")[2] for line in released} == set(place.get())


def test_text_is_masked(place: RunEnvironment) -> None:
    residual = group("residual-found")
    assert "saw ███" in run("show", residual).output
    assert "saw Roe" in run("show", residual, "--clear").output
    events = place.query("SELECT body FROM audit_event WHERE kind = 'held-object-shown' ORDER BY event_id")
    assert [json.loads(body)["what"] for (body,) in events] == ["residual 1", "residual 1 in clear"]
    run("decide", residual, "redact")
    assert "1 deidentified" in run("apply").output


def test_a_retry_of_a_group(place: RunEnvironment) -> None:
    run("retry", group("pixel-risk"))
    assert "4 quarantined" in run("apply").output
    assert "No decided objects" in run("apply").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "zz"], "No group"),
        (["decide", "GROUP", "mask", "--mask", "1,2,3"], "4 whole numbers"),
        (["decide", "GROUP", "mask", "--mask", "0,0,999,9"], "not inside"),
        (["show", "GROUP"], "--output"),
    ],
)
def test_wrong_usage_says_what_to_do(place: RunEnvironment, arguments: list[str], message: str) -> None:
    given = [group("pixel-risk") if each == "GROUP" else each for each in arguments]
    result = CliRunner().invoke(main, ["quarantine", *given])
    assert result.exit_code == 2
    assert message in result.output
