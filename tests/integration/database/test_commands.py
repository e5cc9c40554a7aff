"""The commands `db`, `crosswalk`, `audit` and `plan`, as a person types them."""

from __future__ import annotations

import csv
import json
import signal
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dicom_deid.cli import main
from dicom_deid.database import KeyRing
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Outcome

WHO = ["--person", "Dr Strand", "--reason", "adverse event 12"]


@pytest.fixture
def run(store_url, keys, monkeypatch):
    """Run the command with the test's database and keys in the environment."""
    monkeypatch.setenv("DICOM_DEID_DATABASE", store_url)
    monkeypatch.setenv("DICOM_DEID_KEYS", keys.to_text())

    def invoke(*arguments: str, expect: int = 0, **more):
        result = CliRunner().invoke(main, list(arguments), **more)
        assert result.exit_code == expect, result.output
        return result.output

    return invoke


def test_db(run, postgres_url, monkeypatch):
    monkeypatch.setenv("DICOM_DEID_DATABASE", postgres_url)
    assert "not made" in run("db", "current")
    assert "did not exist; it stands at" in run("db", "upgrade")
    assert "stood at" in run("db", "upgrade")
    run("db", "downgrade", "base", expect=1, input="n\n")
    assert "stands at base" in run("db", "downgrade", "base", "--yes")
    printed = run("db", "roles", "--print", "--schema", "elsewhere")
    assert "CREATE ROLE elsewhere_reidentifier" in printed
    assert "not made" in run("db", "current")


def test_crosswalk(run, database, tmp_path):
    original = Identifier(IdentifierKind.PATIENT_ID, "MRN 1")
    pseudonym = database.mapping(database.project("p")).resolve([original])[original]
    look = ["crosswalk", "lookup", "--project", "p"]
    assert run(*look, pseudonym, *WHO) == f"PatientID,MRN 1,{pseudonym}\n"
    assert run(*look, "--to", "pseudonym", *WHO, input="MRN 1\n") == f"PatientID,MRN 1,{pseudonym}\n"
    assert "1 of 1 not found" in run(*look, "PAT0", *WHO, expect=1)
    assert "Missing option '--reason'" in run(*look, pseudonym, expect=2)
    assert "no project" in run("crosswalk", "lookup", "--project", "q", "x", *WHO, expect=2)
    file = tmp_path / "crosswalk.csv"
    # What stood there before, open to all.
    file.touch(mode=0o644)
    assert "1 pseudonyms written" in run("crosswalk", "export", str(file), "--project", "p", *WHO)
    assert file.stat().st_mode & 0o077 == 0
    assert list(csv.reader(file.open(newline="")))[1] == ["PatientID", "MRN 1", pseudonym]
    assert "1 pseudonyms imported" in run("crosswalk", "import", str(file), "--project", "new", *WHO)
    assert "2 rows" in run("crosswalk", "rotate", *WHO, env={"DICOM_DEID_KEYS": _with_new_key(database.keys)})
    bodies = database.connection.query(
        "test", "SELECT body FROM audit_event WHERE kind IN ('lookup', 'export', 'import')"
    )
    assert len(bodies) == 5
    assert all(json.loads(body)["person"] == "Dr Strand" for (body,) in bodies)


def _with_new_key(keys: KeyRing) -> str:
    return f"{KeyRing.generate('k2').to_text()},{keys.to_text()}"


def test_new_key(run):
    assert KeyRing.parse(run("crosswalk", "new-key", "--id", "spring").strip()).active_id == "spring"


def test_audit_and_plan(run, database, steps, tmp_path):
    run_id = steps.begin()
    steps.work(database.plan(run_id, steps.listing(3)).batches, Outcome.DEIDENTIFIED)
    database.finish_run(run_id, "succeeded")
    output = run("audit", "verify")
    assert "The audit verifies." in output
    head = next(line.split()[1] for line in output.splitlines() if line.startswith("head"))
    run("audit", "verify", "--run", run_id, "--expect-head", head)
    assert "no run of that id" in run("audit", "verify", "--run", "nonsense", expect=2)
    traced = run("audit", "trace", "DOE^JOHN/1.dcm")
    assert "deidentified" in traced
    assert "s3://out/ d/1" in traced
    assert "DOE^JOHN" not in traced
    assert "needs --reason" in run("audit", "trace", "d/1", "--show-source-keys", expect=2)
    assert "DOE^JOHN/1.dcm" in run("audit", "trace", "d/1", "--show-source-keys", *WHO)
    run("audit", "trace", "unknown", expect=1)
    assert "3 rows written" in run("audit", "export", str(tmp_path / "a.csv"))
    assert "0 rows written" in run("audit", "export", str(tmp_path / "a.csv"), "--outcome", "quarantined")
    assert "quarantined" in run("audit", "export", str(tmp_path / "a.csv"), "--outcome", "none", expect=2)
    nowhere = tmp_path / "absent" / "a.csv"
    assert f"Error: {nowhere}: No such file" in run("audit", "export", str(nowhere), expect=2)
    assert "0 plan rows removed" in run("plan", "prune")
    assert "3 plan rows removed" in run("plan", "prune", "--days", "0")
    database.connection.query(
        "test", "SET session_replication_role = replica; DELETE FROM audit WHERE item = 1; "
        "SET session_replication_role = DEFAULT"
    )  # fmt: skip
    assert "does NOT verify" in run("audit", "verify", expect=1)


def test_the_message_of_a_wrong_database_never_shows_the_password(run, monkeypatch):
    monkeypatch.setenv("DICOM_DEID_DATABASE", "postgresql://u:sesame@127.0.0.1:9/x")
    away = run("audit", "verify", expect=1)
    assert "cannot be reached" in away
    assert "sesame" not in away
    monkeypatch.setenv("DICOM_DEID_DATABASE", "u:sesame@127.0.0.1")
    unreadable = run("audit", "verify", expect=2)
    assert "URL of the database" in unreadable
    assert "sesame" not in unreadable


def test_abandoned_runs_are_closed(run, database, steps):
    database.plan(steps.begin(), steps.listing(3))
    assert "0 runs were closed" in run("audit", "close")
    assert "1 runs were closed" in run("audit", "close", "--hours", "0")
    assert database.runs()[0].state == "abandoned"
    assert "The audit verifies." in run("audit", "verify")


def test_a_failed_export_leaves_no_original_behind(run, database, tmp_path, monkeypatch):
    database.mapping(database.project("p")).resolve([Identifier(IdentifierKind.PATIENT_ID, "MRN 1")])

    def fail(rows, file):
        file.write(str(next(iter(rows)).original.value))
        file.flush()
        raise ConfigurationError("the export failed")

    monkeypatch.setattr("dicom_deid.cli.crosswalk.write_csv", fail)
    file = tmp_path / "crosswalk.csv"
    assert "the export failed" in run("crosswalk", "export", str(file), "--project", "p", *WHO, expect=2)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import importlib, os, signal, sys
from dicom_deid.cli import main
def write_and_die(rows, file):
    file.write(next(iter(rows)).original.value)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
importlib.import_module("dicom_deid.cli.crosswalk").write_csv = write_and_die
main(sys.argv[1:])
"""


def test_a_killed_export_leaves_no_original_behind(run, database, tmp_path):
    """Catches an unfinished file with originals in clear that is left in the folder."""
    database.mapping(database.project("p")).resolve([Identifier(IdentifierKind.PATIENT_ID, "MRN 1")])
    command = ["crosswalk", "export", str(tmp_path / "crosswalk.csv"), "--project", "p", *WHO]
    done = subprocess.run([sys.executable, "-c", KILLED, *command], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []
    run(*command)
    (written,) = tmp_path.iterdir()
    assert (written.name, stat.S_IMODE(written.stat().st_mode)) == ("crosswalk.csv", 0o600)
    assert "MRN 1" in written.read_text()


def test_a_rotation_says_what_other_keys_still_encrypt(run, database, keys):
    new, old = KeyRing.generate("k2"), database.keys
    both = {"DICOM_DEID_KEYS": f"{new.to_text()},{old.to_text()}"}
    assert "No other key encrypts anything" in run("crosswalk", "rotate", *WHO, env=both)
    back = {"DICOM_DEID_KEYS": f"{old.to_text()},{new.to_text()}"}
    database.connection.query("test", "SELECT 1")
    assert "under key k1" in run("crosswalk", "rotate", *WHO, env=back)
    # A key that another worker wrote with meanwhile.
    database.connection.query("test", "UPDATE secret SET key_id = 'k2'")
    assert database.keys_in_use() == {"k1": 1, "k2": 1}


def test_text_that_a_spreadsheet_would_run_is_escaped(run, database, steps, tmp_path):
    run_id = steps.begin()
    lease = database.lease(database.plan(run_id, steps.listing(2)).batches[0].batch_id, "w")
    lease.record([steps.row(item, detail="=HYPERLINK(1)") for item in lease.items()])
    file = tmp_path / "a.csv"
    run("audit", "export", str(file))
    assert {row["detail"] for row in csv.DictReader(file.open(newline=""))} == {"'=HYPERLINK(1)"}
    for value in ("=1+1", "-5", "'quoted", "@x"):
        database.mapping(database.project("p")).resolve([Identifier(IdentifierKind.PATIENT_ID, value)])
    exported = tmp_path / "crosswalk.csv"
    run("crosswalk", "export", str(exported), "--project", "p", *WHO)
    cells = {row["original"] for row in csv.DictReader(exported.open(newline=""))}
    assert cells == {"'=1+1", "-5", "''quoted", "'@x"}
    run("crosswalk", "import", str(exported), "--project", "again", *WHO)
    looked_up = run("crosswalk", "lookup", "--project", "again", "--to", "pseudonym", "=1+1", *WHO)
    assert looked_up.startswith("PatientID,'=1+1,PAT")
    run("crosswalk", "lookup", "--project", "again", "--to", "pseudonym", "'quoted", *WHO)
    exported.write_text("kind,original,pseudonym\nPatientID,MRN,'=2+2\n")
    run("crosswalk", "import", str(exported), "--project", "third", *WHO)
    assert "PatientID,MRN,'=2+2" in run("crosswalk", "lookup", "--project", "third", "--to", "pseudonym", "MRN", *WHO)
