"""A patient is withdrawn and erased from real servers, killed at every stage."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from uuid import UUID

import pytest
from click.testing import CliRunner
from tests.support.datasets import ct_elements, element, part10
from tests.support.killable import Workers
from tests.support.killable_withdrawal import ACCESS, STAGES, patient_is_known
from tests.support.runs import RunEnvironment, patients, series

from dicom_deid.cli import main
from dicom_deid.database import Database, WithdrawalRequest
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.pipeline.release import release_run
from dicom_deid.pipeline.withdrawal import continue_withdrawal, finish_deletions


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def terminal(place, monkeypatch):
    """Run a command with the servers of the place."""
    monkeypatch.setenv("DICOM_DEID_DATABASE", place.database)
    monkeypatch.setenv("DICOM_DEID_KEYS", place.keys.to_text())
    connection = place.connection
    monkeypatch.setenv("AWS_ENDPOINT_URL", connection.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", connection.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", connection.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", connection.region)

    def invoke(*arguments: str, expect: int = 0) -> str:
        result = CliRunner().invoke(main, [*arguments, "--person", "olga", "--reason", "consent withdrawn"])
        assert result.exit_code == expect, result.output
        return result.output

    return invoke


def test_a_patient_withdraws(place, terminal):
    people = patients(3)
    place.put(series(people, 4))
    ran = place.run()
    before = place.get()
    target = f"s3://{place.bucket}/released"
    release_run(place.connections, run_id=ran.planned.run_id, release_to=target, person="vic")
    assert place.get("released") == before
    patient = ["--project", "test", "--patient", people[1].patient_id]
    counted = terminal("release", "withdraw", *patient, "--dry-run")
    assert "4 objects would be withdrawn" in counted
    assert place.get() == before
    done = terminal("release", "withdraw", *patient)
    assert "destination: 4 copies" in done
    assert "release: 4 copies" in done
    after = place.get()
    assert len(after) == 8
    assert place.get("released") == after
    assert all(before[key] == data for key, data in after.items())
    # Nothing of the patient is written again, not even a new object.
    place.put(series(people, 5))
    assert len(place.run().planned.summary.batches) == 1
    assert len(place.get()) == 10
    withdrawal = done.split("Withdrawal ")[1].split(":")[0]
    assert "of 5 objects was undone" in terminal("release", "withdraw", "--project", "test", "--undo", withdrawal)
    place.run()
    assert len(place.get()) == 15
    assert set(before) <= set(place.get())
    terminal("release", "withdraw", *patient)
    erased = terminal("crosswalk", "erase", people[1].patient_id, "--project", "test", "--yes")
    assert "pseudonyms were erased" in erased
    with place.connections.open_database() as database:
        assert not patient_is_known(database, people[1].patient_id)
        assert patient_is_known(database, people[0].patient_id)
        assert database.verify().problems == []


def test_what_is_not_there_is_refused(place, terminal):
    """Catches a withdrawal of a mistyped number or id that ends without an error, or as one of another project."""
    place.put(series(patients(1), 2))
    place.run()
    place.run(project="other", destination=f"s3://{place.bucket}/other")
    withdraw = ["release", "withdraw", "--project", "test"]
    assert "no decision 7 in project 'test'" in terminal(*withdraw, "--decision", "7", expect=2)
    assert "no such withdrawal" in terminal(*withdraw, "--resume", str(UUID(int=1)), expect=2)
    assert "an id is not of the form of one" in terminal(*withdraw, "--resume", "first", expect=2)
    with place.connections.open_database() as database:
        request = WithdrawalRequest(whole_project=True)
        of_other = database.withdraw(database.project("other"), request, ACCESS).withdrawal_id
    assert "no such withdrawal in project 'test'" in terminal(*withdraw, "--resume", of_other, expect=2)
    assert len(place.get("other")) == len(place.get()) == 2
    typo = terminal("audit", "reconcile", f"s3://{place.bucket}/outt", expect=2)
    assert "No run has the destination" in typo


def run_with_copies(place):
    """Run with copies of quarantined objects."""
    return place.run(settings=Settings(residuals="off"), quarantine=f"s3://{place.bucket}-held/q")


@pytest.fixture
def held_bucket(place):
    client = place.s3.client()
    client.create_bucket(Bucket=f"{place.bucket}-held")
    yield lambda: [each["Key"] for each in client.list_objects_v2(Bucket=f"{place.bucket}-held").get("Contents", ())]
    for listed in client.list_objects_v2(Bucket=f"{place.bucket}-held").get("Contents", ()):
        client.delete_object(Bucket=f"{place.bucket}-held", Key=listed["Key"])


def held_objects(people, count):
    """Return CT slices that say they show identifiers."""
    mark = element("BurnedInAnnotation", "YES")
    return {
        f"{person.patient_id}/{number}.dcm": part10(
            sorted([*ct_elements(number, rows=16, columns=16, patient=person), mark], key=lambda each: each.tag)
        )
        for person in people
        for number in range(count)
    }


def test_copies_in_quarantine_are_withdrawn_and_later_ones_are_not_made(place, terminal, held_bucket):
    people = patients(2)
    place.put(held_objects(people, 2))
    assert set(run_with_copies(place).outcomes.values()) == {("quarantined", "burned-in-annotation")}
    assert len(held_bucket()) == 4
    done = terminal("release", "withdraw", "--project", "test", "--patient", people[0].patient_id)
    assert "quarantine: 2 copies" in done
    assert len(held_bucket()) == 2
    place.put(held_objects(people, 3))
    later = run_with_copies(place)
    assert sorted(later.outcomes.values()) == [("excluded", None), ("quarantined", "burned-in-annotation")]
    assert sorted(key.split("/")[-2] for key in held_bucket()) == [people[1].patient_id] * 3


def test_a_correction_is_released_in_place_of_what_was_released_before(place, tmp_path):
    """The copies at the place of release are superseded, under the same key and under another one."""
    place.put(series(patients(2), 3))
    target = f"s3://{place.bucket}/released"

    def release(ran):
        return release_run(place.connections, run_id=ran.planned.run_id, release_to=target, person="vic").objects

    assert release(place.run()) == 6
    before = place.get("released")
    recipe = tmp_path / "more.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREMOVE StationName\nREMOVE Manufacturer\n")
    assert release(place.run(recipes=("desktop", str(recipe)))) == 6
    corrected = place.get("released")
    assert corrected == place.get()
    assert corrected.keys() == before.keys()
    assert all(corrected[key] != before[key] for key in before)
    moved = place.run(recipes=("desktop", str(recipe)), destination_key_template="moved/{SOPInstanceUID}.dcm")
    assert release(moved) == 6
    assert place.get("released") == place.get()
    # What something else wrote there is not replaced.
    key = min(place.get("released"))
    place.put({key: b"another program's"}, prefix="released")
    with pytest.raises(Quarantine, match="destination-conflict"):
        release(place.run(destination_key_template="moved/{SOPInstanceUID}.dcm"))
    assert place.get("released")[key] == b"another program's"


def test_a_project_ends(place, terminal):
    place.put(series(patients(2), 3))
    place.run()
    wrong = terminal("project", "delete", "test", "--confirm", "tset", expect=2)
    assert "nothing was deleted" in wrong
    assert len(place.get()) == 6
    assert "Project test was deleted" in terminal("project", "delete", "test", "--confirm", "test")
    assert place.get() == {}
    with place.connections.open_database() as database:
        assert database.verify().problems == []
        assert database.queries.crosswalk_sizes() == {}


@pytest.mark.slow
@pytest.mark.parametrize("passage", [1, 3])
def test_killed_at_every_stage_the_end_is_that_of_an_undisturbed_withdrawal(place, passage):
    people = patients(6)
    place.put(series(people, 5))
    place.run()
    before = place.get()
    workers, killed = Workers("tests.support.killable_withdrawal"), 0
    try:
        for person in people[:5]:
            # At later passages only deletions are killed: everything else happens once.
            for stage in (each for each in STAGES if passage == 1 or "delete" in each):
                code = workers.work(place.connections, "test", person.patient_id, (stage, passage))
                assert code in (0, -9)
                killed += code == -9
            assert workers.work(place.connections, "test", person.patient_id, None) == 0
    finally:
        workers.close()
    assert killed >= (45 if passage == 1 else 10), killed
    left = place.get()
    assert len(left) == 5
    assert all(before[key] == data for key, data in left.items())
    with place.connections.open_database() as database:
        assert database.verify().problems == []
        assert [patient_is_known(database, each.patient_id) for each in people] == [False] * 5 + [True]
        assert database.open_withdrawals() == []
        assert database.crosswalk(database.project("test")).export(ACCESS) is not None
    assert place.query("SELECT count(*) FROM deletion") == [(0,)]


@pytest.mark.parametrize("delete_versions", [True, False])
def test_object_lock_on_the_destination_is_in_the_audit_and_holds_up_nothing(
    place, monkeypatch, caplog, tmp_path, delete_versions
):
    """Catches a run that fails because of a lock, and a withdrawal that seems to have deleted every byte."""
    bucket = f"locked-{uuid.uuid4().hex[:8]}"
    client = place.s3.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"Mode": "COMPLIANCE", "Days": 1}
    client.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )
    connection = replace(place.connection, delete_versions=delete_versions)
    monkeypatch.setattr(RunEnvironment, "connection", connection)
    people = patients(2)
    place.put(series(people, 2))
    destination = f"s3://{bucket}/out"
    assert {outcome for outcome, _ in place.run(destination=destination).outcomes.values()} == {"deidentified"}
    rules = tmp_path / "more.dicom"
    rules.write_text("FORMAT dicom\n%header\nREMOVE StudyDescription\nREPLACE StudyID var:study\n")
    again = place.run(destination=destination, recipes=("desktop", str(rules)), variables={"study": "1"})
    assert again.planned.summary.superseding == {"recipe": 4}
    assert {outcome for outcome, _ in again.outcomes.values()} == {"deidentified"}
    with place.connections.open_database() as database:
        project = database.project("test")
        begun = database.withdraw(project, WithdrawalRequest(patients=[people[0].patient_id]), ACCESS)
    assert continue_withdrawal(place.connections, "test", begun.withdrawal_id) == 2
    assert f"2 objects were deleted, and {destination} keeps versions of them" in caplog.text
    details = place.query("SELECT DISTINCT detail FROM audit WHERE outcome = 'withdrawn'")
    assert details == [("destination; a version is kept",)]
    assert len(client.list_objects_v2(Bucket=bucket)["Contents"]) == 2
    # Two versions of each object; nothing of them is lost to the lock.
    assert len(client.list_object_versions(Bucket=bucket)["Versions"]) == 8


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_versioned_destination_says_what_it_keeps_also_after_a_kill(place, monkeypatch, is_killed):
    """Catches an audit that is silent about versions because the object was gone when it was looked at again."""
    bucket = f"versions-{uuid.uuid4().hex[:8]}"
    client = place.s3.client()
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    people = patients(1)
    place.put(series(people, 3))
    destination = f"s3://{bucket}/out"
    place.run(destination=destination)
    moved = {"destination": destination, "destination_key_template": "moved/{SOPInstanceUID}.dcm"}
    if is_killed:
        monkeypatch.setattr(Database, "settle_deletions", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.run(**moved)
        monkeypatch.undo()
        with place.connections.open_database() as database:
            assert finish_deletions(place.connections, database) == 3
    else:
        place.run(**moved)
    events = place.query("SELECT body FROM audit_event WHERE kind = 'superseded-versions-kept'")
    assert [json.loads(body) for (body,) in events] == [{"destination": destination, "objects": 3}]
    with place.connections.open_database() as database:
        request = WithdrawalRequest(patients=[people[0].patient_id])
        begun = database.withdraw(database.project("test"), request, ACCESS)
    if is_killed:
        monkeypatch.setattr(Database, "record_withdrawn", interrupt)
        with pytest.raises(KeyboardInterrupt):
            continue_withdrawal(place.connections, "test", begun.withdrawal_id)
        monkeypatch.undo()
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    continue_withdrawal(place.connections, "test", begun.withdrawal_id)
    details = place.query("SELECT detail, count(*) FROM audit WHERE outcome = 'withdrawn' GROUP BY detail")
    assert details == [("destination; a version is kept", 3)]


def interrupt(*arguments, **options):
    raise KeyboardInterrupt
