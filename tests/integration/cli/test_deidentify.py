"""The command line as a user calls it: exit codes, report, summary, and keys kept from others."""

import json
import os
import re
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from rich.console import Console
from tests.support.runs import RunEnvironment, patients, series, small_ct

from dicom_deid.cli.options import database_access, embedded_keys
from dicom_deid.cli.preview import _print_differences, changes_table
from dicom_deid.database import KeyRing
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline import Connections, RunConfiguration, plan_run
from dicom_deid.pipeline.changes import Change, ChangeKind
from dicom_deid.pipeline.preview import ObjectPreview
from dicom_deid.sandbox import Sandbox

SETTINGS = ["--residuals", "off", "--pixel-risk", "allow", "--documents", "allow"]


@pytest.fixture
def run(s3, postgres_url, tmp_path):
    """Call the command in a process of its own; return what it said and its exit code."""
    keys = KeyRing.generate()

    def call(*arguments, python_path=""):
        environment = {
            "PATH": str(Path(sys.executable).parent),
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{Path(__file__).parents[3] / 'plugins'}:{python_path}",
            "DICOM_DEID_DATABASE": postgres_url,
            "DICOM_DEID_KEYS": keys.to_text(),
            **s3.environment(),
        }
        return subprocess.run(
            ["dicom-deid", *map(str, arguments)], env=environment, capture_output=True, text=True, cwd=tmp_path
        )

    call.keys = keys
    return call


def test_bucket_to_bucket_with_a_report_and_nothing_left_to_do(run, s3, s3_bucket, postgres_url, tmp_path):
    place = RunEnvironment(s3, s3_bucket, postgres_url)
    people = patients(2)
    place.put(series(people, 3))
    command = ["deidentify", f"s3://{s3_bucket}/in", f"s3://{s3_bucket}/out", "--project", "p", *SETTINGS]
    # The report of an earlier run, which all may read: a report names source keys.
    (tmp_path / "report.jsonl").touch(mode=0o644)
    done = run(*command, "--report", "report.jsonl")
    assert done.returncode == 0, done.stderr
    report = tmp_path / "report.jsonl"
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(lines) == 6
    assert {line["destination"] for line in lines} == set(place.get())
    assert all(len(line["sha256_in"]) == len(line["sha256_out"]) == 64 for line in lines)
    # What is printed holds no identifier; the report, the user's own file, names source keys.
    assert not any(person.name.split("^")[0] in done.stdout + done.stderr for person in people)

    again = run(*command)
    assert again.returncode == 0
    assert "Nothing is left to do" in again.stdout
    past = run(*command, "--older-than", "2001-01-01")
    assert re.search(r"Outside the times +│ +6 ", past.stdout)


def test_settings_of_pixels_are_options(run, postgres_url, tmp_path):
    (tmp_path / "in").mkdir()
    options = ["--layout-objects", "7", "--overlays", "remove", "--faces", "hold", "--check-masks", "none"]
    done = run("deidentify", "in", "out", "--project", "p", *SETTINGS, *options)
    assert done.returncode == 0, done.stderr
    with closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT request FROM dicom_deid.run")
        settings = json.loads(cursor.fetchone()[0])["parameters"]["settings"]
    assert (settings["layout_objects"], settings["overlays"]) == (7, "remove")
    assert (settings["faces"], settings["check_masks"]) == ("hold", "none")
    refused = run("deidentify", "in", "out", "--project", "p", "--layout-objects", "-1")
    assert refused.returncode == 2


def test_exit_codes_for_quarantine_failure_and_usage(run, s3_bucket, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no DICOM " * 30)
    (tmp_path / "in" / "a.dcm").write_bytes(small_ct(1))
    quarantined = run("deidentify", "in", "out", "--project", "p", *SETTINGS)
    assert quarantined.returncode == 3
    assert "not-dicom" in quarantined.stdout

    wrong_recipe = tmp_path / "wrong.dicom"
    wrong_recipe.write_text("FORMAT dicom\n%header\nREMOVE PatientsName\n")
    for arguments, words in (
        (["in", "out"], "--project"),
        (["in", "in/out", "--project", "p"], "same place"),
        (["nowhere", "out", "--project", "p"], "does not exist"),
        (["in", "out", "--project", "p", "--recipe", "wrong.dicom"], "wrong.dicom"),
        (["s3://no-such-bucket-here/in", "out", "--project", "p"], "bucket"),
        (["in", "out", "--project", "p", "--schema", "Not-a-Schema"], "schema"),
        (["in", "out", "--project", "p", "--report", "absent/report.jsonl"], "absent/report.jsonl"),
    ):
        done = run("deidentify", *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    away = run("deidentify", "in", "out2", "--project", "p", "--database", "postgresql://127.0.0.1:1/x")
    assert away.returncode == 1
    (tmp_path / "empty").mkdir()
    nothing = run("deidentify", "empty", "out3", "--project", "p")
    assert nothing.returncode == 0
    assert "No object was found there" in nothing.stdout
    assert "PostgreSQL" in away.stderr


@pytest.mark.parametrize("days", [-1, 1])
def test_a_wrong_clock_changes_no_count_and_no_exit_code(run, tmp_path, days):
    """Catches rows that are looked for by the worker's clock: nothing would be counted, and the exit code be 0."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(
        "import datetime, time\n"
        f"right, wrong = time.time, lambda: right() + {days * 86400}\n"
        "class Kind(type(datetime.datetime)):\n"
        "    def __instancecheck__(cls, one): return isinstance(one, datetime.datetime.__base__)\n"
        "class Wrong(datetime.datetime, metaclass=Kind):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return cls.__base__.fromtimestamp(wrong(), tz)\n"
        "time.time, datetime.datetime = wrong, Wrong\n"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no DICOM " * 30)
    (tmp_path / "in" / "a.dcm").write_bytes(small_ct(1))
    command = ["deidentify", "in", "out", "--project", "p", *SETTINGS]
    done = run(*command, python_path=tmp_path / "clock")
    assert re.search(r"De-identified +│ +1 ", done.stdout), done.stdout + done.stderr
    assert "not-dicom" in done.stdout
    assert done.returncode == 3


def test_a_resumed_run_adds_to_its_report(run, tmp_path):
    """Catches a report that holds only what the last of several calls did."""
    (tmp_path / "in").mkdir()
    command = ["deidentify", "in", "out", "--project", "p", *SETTINGS, "--report", "report.jsonl"]
    for number in (1, 2):
        (tmp_path / "in" / f"{number}.dcm").write_bytes(small_ct(number))
        assert run(*command).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == ["1.dcm", "2.dcm"]


def test_a_file_name_that_is_not_utf8_ends_no_run(run, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for number, name in enumerate([b"a\xff.dcm", b"b.dcm", b"c\xe9.txt"]):
        data = small_ct(number) if name.endswith(b".dcm") else b"no DICOM " * 30
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(data)
    done = run("deidentify", "in", "out", "--project", "p", *SETTINGS, "--quarantine", "held", "--report", "r.jsonl")
    assert done.returncode == 3, done.stderr
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    assert (tmp_path / "held" / "not-dicom" / "c%E9.txt").exists()
    sources = {json.loads(line)["source"] for line in (tmp_path / "r.jsonl").read_text().splitlines()}
    assert sources == {os.fsdecode(name) for name in (b"a\xff.dcm", b"b.dcm", b"c\xe9.txt")}


def test_objects_that_another_run_is_processing_are_no_success(run, tmp_path, postgres_url):
    """Exit code 0 would say that all is done, while the other run may yet fail."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(small_ct(1))
    command = ["deidentify", "in", "out", "--project", "p", *SETTINGS]
    configuration = RunConfiguration(
        source=str(tmp_path / "in"),
        destination=str(tmp_path / "out"),
        project="p",
        settings=Settings(residuals="off", pixel_risk="allow", documents="allow"),
    )
    connections = Connections(database=postgres_url, keys=run.keys)
    planned = plan_run(configuration, connections)
    with connections.open_database() as database:
        assert database.lease(planned.summary.batches[0].batch_id, "other") is not None
        done = run(*command)
    assert done.returncode == 1
    assert re.search(r"Left to another run +│ +1 ", done.stdout)


def test_a_dry_run_counts_what_would_be_replaced_and_a_run_withdraws_what_is_gone(run, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.dcm").write_bytes(small_ct(number))
    command = ["deidentify", "in", "out", "--project", "p", *SETTINGS]
    assert run(*command).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    (tmp_path / "more.dicom").write_text("FORMAT dicom\n%header\nREMOVE Manufacturer\n")
    (source / "2.dcm").unlink()
    changed = [*command, "--recipe", "desktop", "--recipe", "more.dicom"]
    dry = run(*changed, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert re.search(r"To be replaced: recipe +│ +2 ", dry.stdout)
    assert re.search(r"Source object is gone +│ +1 ", dry.stdout)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")} == before
    done = run(*changed, "--on-source-deleted", "withdraw")
    assert done.returncode == 0, done.stderr
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    assert len(after) == 2
    assert all(after[path] != before[path] for path in after)
    assert run(*command, "--no-create-project", "--project", "mistyped").returncode == 2


def test_preview_hides_originals_unless_asked_and_writes_nothing(run, tmp_path):
    person = patients(1)[0]
    (tmp_path / "a.dcm").write_bytes(small_ct(1, person))
    before = sorted(tmp_path.iterdir())
    hidden = run("preview", "a.dcm")
    assert hidden.returncode == 0, hidden.stderr
    assert "Anonymous" in hidden.stdout
    assert person.patient_id not in hidden.stdout
    assert person.patient_id in run("preview", "a.dcm", "--show-originals").stdout
    compared = run("preview", "a.dcm", "--against", "ps3.15-basic")
    assert "treated differently" in compared.stdout
    # A place in a sequence is whole at 80 columns, on two lines if need be.
    assert "…" not in "".join(line.split("│")[1] for line in compared.stdout.splitlines() if line.startswith("│"))
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "notes.txt").write_text("no DICOM " * 30)
    refused = run("preview", "notes.txt")
    assert refused.returncode == 3
    assert "not-dicom" in refused.stdout
    assert run("preview", "absent.dcm").returncode == 2


def test_names_of_private_elements_are_no_markup(capsys):
    """Catches a name without which a line of the preview means nothing."""
    change = Change("(0021,1004)", "[injection phase]", ChangeKind.REMOVED, "1", None, None)
    one = ObjectPreview((change,), 0)
    Console(width=100).print(changes_table([change], show_originals=False))
    _print_differences(Console(width=100), ("a",), ("b",), one, ObjectPreview((), 1), details=True)
    assert capsys.readouterr().out.count("[injection phase]") == 2


def test_what_the_sandbox_prints_is_all_that_a_run_needs(run, tmp_path):
    """Catches a variable that is missing: a newcomer evaluates the output and starts."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(small_ct(1))
    command = 'eval "$(dicom-deid sandbox up --directory servers --bucket results)" && exec dicom-deid "$@"'
    arguments = ["deidentify", "in", "s3://results/in", "--project", "p", *SETTINGS]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).parents[3] / "plugins"),
    }
    try:
        done = subprocess.run(
            ["sh", "-c", command, "sh", *arguments], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    finally:
        run("sandbox", "down", "--directory", "servers", "--delete")


def test_embedded_keys_are_made_once_and_kept_from_others(tmp_path, monkeypatch):
    monkeypatch.delenv("DICOM_DEID_KEYS", raising=False)
    first = embedded_keys(tmp_path)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert embedded_keys(tmp_path) == first
    (tmp_path / "keys").chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        embedded_keys(tmp_path)
    monkeypatch.setenv("DICOM_DEID_KEYS", KeyRing.generate().to_text())
    assert embedded_keys(tmp_path) != first


def test_the_embedded_database_comes_without_an_object_store(tmp_path):
    """A run between directories must neither wait for a server that it does not use, nor leave one behind."""
    with database_access(None, tmp_path / "sandbox") as access:
        with closing(psycopg2.connect(access.url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
        assert not (tmp_path / "sandbox" / "seaweedfs").exists()
        assert not Sandbox(tmp_path / "sandbox").is_running()
    assert not Sandbox(tmp_path / "sandbox").is_running(object_store=False)
