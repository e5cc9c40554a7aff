"""Bad input gets a reason per object, the original is not touched, and the run continues."""

import json
import logging
import re
from contextlib import nullcontext
from pathlib import Path

import psycopg2
import pytest
from pydicom.data import get_testdata_file
from tests.support.datasets import ct_elements, part10
from tests.support.runs import RunEnvironment, patients, series, small_ct

from dicom_deid import __version__
from dicom_deid.exceptions import ConfigurationError, DatabaseError, ObjectStoreError, Quarantine
from dicom_deid.objectstore import S3Store
from dicom_deid.pipeline import BatchIncomplete, plan_run, process_object, run_batch
from dicom_deid.reasons import Reason


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def quarantine(s3):
    client = s3.client()
    name = f"quarantine-{id(client)}"
    client.create_bucket(Bucket=name)
    yield name
    client.delete_bucket(Bucket=name)


def unreadable_syntax():
    return small_ct(5).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")


def test_every_kind_of_bad_input_gets_its_reason_and_the_run_goes_on(place, quarantine):
    good = small_ct(1)
    without_study = part10(
        [each for each in ct_elements(6, rows=2, columns=2) if each.tag != 0x0020000D], complete=False
    )
    dicomdir = Path(get_testdata_file("DICOMDIR")).read_bytes()
    bad = {
        "empty.dcm": (b"", Reason.EMPTY_OBJECT),
        "notes.txt": (b"Seen on Monday.\n" * 50, Reason.NOT_DICOM),
        "cut.dcm": (good[:-200], Reason.TRUNCATED),
        "cut in header.dcm": (good[:1500], Reason.TRUNCATED),
        "DICOMDIR": (dicomdir, Reason.DICOMDIR),
        "syntax.dcm": (unreadable_syntax(), Reason.UNSUPPORTED_TRANSFER_SYNTAX),
        "without study.dcm": (without_study, Reason.MISSING_IDENTIFIER),
    }
    place.put({"good.dcm": good, **{key: data for key, (data, _) in bad.items()}})
    ran = place.run(quarantine=f"s3://{quarantine}/held")
    expected = {key: ("quarantined", reason.value) for key, (_, reason) in bad.items()}
    assert ran.outcomes == {"good.dcm": ("deidentified", None), **expected}
    assert len(place.get()) == 1
    assert place.get("in") == {"good.dcm": good, **{key: data for key, (data, _) in bad.items()}}

    copies = RunEnvironment(place.s3, quarantine, place.database).get("held")
    assert copies == {f"{reason.value}/{key}": data for key, (data, reason) in bad.items()}

    # Run again: nothing is left to do, and that is right.
    again = place.run(quarantine=f"s3://{quarantine}/held")
    assert (again.planned.summary.planned, again.planned.summary.already_done) == (0, 8)
    # Asked to, it tries the quarantined again; the copies that stand there are no conflict.
    retried = place.run(quarantine=f"s3://{quarantine}/held", retry_quarantined=True)
    assert retried.outcomes == expected
    for key in copies:
        place.s3.client().delete_object(Bucket=quarantine, Key=f"held/{key}")


def test_objects_that_vanish_or_change_after_listing_are_told_apart(place):
    place.put({f"{number}.dcm": small_ct(number) for number in range(4)})
    configuration = place.configuration()
    planned = plan_run(configuration, place.connections)
    place.s3.client().delete_object(Bucket=place.bucket, Key="in/1.dcm")
    place.put({"2.dcm": small_ct(99)})
    ran = place.work(configuration, planned)
    assert ran.outcomes["1.dcm"] == ("quarantined", "object-vanished")
    assert ran.outcomes["2.dcm"] == ("quarantined", "object-changed")
    assert sorted(outcome for outcome, _ in ran.outcomes.values()).count("deidentified") == 2
    # The new version is planned by the next run.
    assert place.run().outcomes == {"2.dcm": ("deidentified", None)}


def test_an_object_that_was_damaged_on_the_way_is_read_again_by_the_next_run(place, monkeypatch):
    place.put({"a.dcm": small_ct(1)})

    def fails(engine, store, key, **options):
        raise Quarantine(Reason.OBJECT_DAMAGED)

    with monkeypatch.context() as patched:
        patched.setattr(process_object, "fetch_object", fails)
        assert place.run().outcomes == {"a.dcm": ("quarantined", "object-damaged")}
    assert place.run().outcomes == {"a.dcm": ("deidentified", None)}


def test_a_different_object_at_the_destination_is_a_conflict_and_stays(place):
    place.put({"a.dcm": small_ct(1)})
    key = place.run().rows[0].destination_key
    place.s3.client().put_object(Bucket=place.bucket, Key=f"out/{key}", Body=b"other")
    place.put({"copy of a.dcm": small_ct(1)})
    ran = place.run()
    assert ran.outcomes == {"copy of a.dcm": ("quarantined", "destination-conflict")}
    # A person has to find what stands there.
    assert ran.rows[0].detail.startswith(f"{key}: ")
    assert place.get() == {key: b"other"}


def test_the_same_object_twice_in_the_source_is_no_conflict(place):
    place.put({"a.dcm": small_ct(1), "b.dcm": small_ct(1)})
    assert set(place.run().outcomes.values()) == {("deidentified", None)}
    assert len(place.get()) == 1


def test_places_that_overlap_are_refused(place):
    place.put({"a.dcm": small_ct(1)})
    for destination in ("in", "in/below", ""):
        with pytest.raises(ConfigurationError, match="same place"):
            place.run(destination=f"s3://{place.bucket}/{destination}")


def test_missing_bucket_wrong_keys_and_unknown_recipe_stop_before_the_first_object(place):
    place.put({"a.dcm": small_ct(1)})
    with pytest.raises(ConfigurationError, match="bucket"):
        place.run(source="s3://no-such-bucket/in")
    with pytest.raises(ConfigurationError, match="recipe"):
        place.run(recipes=("desktpo",))
    secret = place.s3.secret_key
    place.s3 = type(place.s3)(**{**vars(place.s3), "secret_key": "not-the-secret"})
    with pytest.raises(ConfigurationError, match="credentials") as caught:
        plan_run(place.configuration(), place.connections)
    assert "not-the-secret" not in str(caught.value)
    assert secret not in str(caught.value)


def test_a_recipe_error_names_file_and_line(place, tmp_path):
    recipe = tmp_path / "site.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREMOVE PatientsName\n")
    with pytest.raises(ConfigurationError, match=r"site.dicom.*3"):
        place.run(recipes=(str(recipe),))


def test_rules_that_change_between_plan_and_batch_are_refused(place, tmp_path):
    place.put({"a.dcm": small_ct(1)})
    recipe = tmp_path / "site.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREMOVE StationName\n")
    configuration = place.configuration(recipes=("desktop", str(recipe)))
    planned = plan_run(configuration, place.connections)
    recipe.write_text("FORMAT dicom\n%header\nREMOVE ProtocolName\n")
    with pytest.raises(ConfigurationError, match="plan it again"):
        place.work(configuration, planned)
    assert place.get() == {}


def test_an_unavailable_database_is_one_error_and_a_retry_resumes(place, monkeypatch):
    objects = series(patients(2), 20)
    place.put(objects)
    configuration = place.configuration(transfers=2, in_flight_bytes=300_000)
    planned = plan_run(configuration, place.connections)
    original, calls = process_object.write_parts, []

    def cut_database(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            name = place.database.rpartition("/")[2]
            with psycopg2.connect(place.database) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
                    "AND pid <> pg_backend_pid()",
                    (name,),
                )
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(process_object, "write_parts", cut_database)
        with pytest.raises(DatabaseError) as caught:
            place.work(configuration, planned)
    assert "retry" in str(caught.value)
    ran = place.work(configuration, planned)
    assert len(place.get()) == len(objects)
    assert {outcome for outcome, _ in ran.outcomes.values()} == {"deidentified"}


def test_storage_errors_of_some_objects_leave_the_others_done_and_a_retry_takes_the_rest(place, monkeypatch):
    objects = {f"{number:02}.dcm": small_ct(number) for number in range(12)}
    place.put(objects)
    configuration = place.configuration()
    planned = plan_run(configuration, place.connections)
    original = process_object.fetch_object

    def fails(engine, storage, key, **options):
        if key in ("03.dcm", "07.dcm"):
            raise ObjectStoreError("reading an object: the store answered 500")
        return original(engine, storage, key, **options)

    with monkeypatch.context() as patched:
        patched.setattr(process_object, "fetch_object", fails)
        with pytest.raises(BatchIncomplete) as caught:
            place.work(configuration, planned)
    assert caught.value.result.reasons == {Reason.STORAGE_ERROR: 2}
    assert len(place.get()) == 10
    assert sorted(place.work(configuration, planned).outcomes) == ["03.dcm", "07.dcm"]
    assert len(place.get()) == 12


def test_an_unexpected_exception_quarantines_its_object_and_shows_no_value(place, monkeypatch, caplog):
    place.put({"DOE^JOHN.dcm": small_ct(1), "b.dcm": small_ct(2)})
    original = process_object.fetch_object

    def fails(engine, store, key, **options):
        if key.startswith("DOE"):
            raise KeyError("DOE^JOHN")
        return original(engine, store, key, **options)

    monkeypatch.setattr(process_object, "fetch_object", fails)
    with caplog.at_level(logging.INFO):
        ran = place.run()
    assert ran.outcomes == {"DOE^JOHN.dcm": ("quarantined", "internal-error"), "b.dcm": ("deidentified", None)}
    detail = next(row.detail for row in ran.rows if row.reason)
    assert re.fullmatch(rf"KeyError at test_bad_input\.py:\d+, version {re.escape(__version__)}", detail)
    assert "KeyError" in caplog.text
    assert "DOE" not in caplog.text


@pytest.mark.parametrize("problem", ["internal", "malformed", "storage", "denied", "control characters"])
def test_many_bad_objects_first_in_the_listing_do_not_block_the_good_ones(place, monkeypatch, problem):
    """Catches a batch that ends after a number of failures, so that what is behind them is never processed."""
    count = 25
    bad = {f"a{number:02}.dcm": small_ct(number) for number in range(count)}
    if problem == "malformed":
        bad = {key: data[:-300] for key, data in bad.items()}
    if problem == "control characters":
        bad = {f"a\n{chr(number + 1)}.dcm": small_ct(number) for number in range(count)}
    good = {f"b{number}.dcm": small_ct(100 + number) for number in range(10)}
    place.put(bad | good)
    original = process_object.fetch_object
    errors = {
        "internal": KeyError("x"),
        "storage": ObjectStoreError("reading an object: the store answered 500"),
        "denied": ConfigurationError("reading an object: the store answered 403"),
    }

    def fails(engine, store, key, **options):
        if key in bad and problem in errors:
            raise errors[problem]
        return original(engine, store, key, **options)

    monkeypatch.setattr(process_object, "fetch_object", fails)
    configuration = place.configuration(transfers=1)
    planned = plan_run(configuration, place.connections)
    rows = []
    incomplete = pytest.raises(BatchIncomplete) if problem in ("storage", "denied") else nullcontext()
    with incomplete:
        run_batch(
            planned.configuration,
            place.connections,
            run_id=planned.run_id,
            batch_id=planned.summary.batches[0].batch_id,
            worker="test",
            recorded=rows.extend,
        )
    outcomes = {row.item.key: row.outcome for row in rows}
    assert {outcomes[key] for key in good} == {"deidentified"}
    expected = {"internal": "quarantined", "malformed": "quarantined", "control characters": "deidentified"}
    assert {outcomes[key] for key in bad} == {expected.get(problem, "failed")}


def test_an_outage_ends_the_batch_with_what_to_check(place, monkeypatch):
    """An unavailable store ends the batch at the first object; no other object is tried."""
    place.put({f"{number:03}.dcm": small_ct(number) for number in range(60)})
    configuration = place.configuration(transfers=1, in_flight_bytes=1)
    planned = plan_run(configuration, place.connections)
    read = []

    def fails(engine, store, key, **options):
        read.append(key)
        monkeypatch.setattr(S3Store, "check", unavailable)
        raise ObjectStoreError("reading an object: the connection to the store failed")

    def unavailable(store, *, writable=False):
        raise ConfigurationError("the bucket cannot be used")

    with monkeypatch.context() as patched:
        patched.setattr(process_object, "fetch_object", fails)
        with pytest.raises(ObjectStoreError, match="connection to the store failed"):
            place.work(configuration, planned)
    monkeypatch.undo()
    assert len(read) <= 2
    place.work(configuration, planned)
    assert len(place.get()) == 60


def test_a_stop_between_objects_releases_the_batch(place):
    objects = {f"{number:03}.dcm": small_ct(number) for number in range(60)}
    place.put(objects)
    configuration = place.configuration(transfers=2, in_flight_bytes=150_000)
    planned = plan_run(configuration, place.connections)
    told = []
    first = place.work(configuration, planned, should_stop=lambda: len(told) > 2, progress=told.append,
                       progress_seconds=0)  # fmt: skip
    assert first.results[0].stopped
    assert 0 < first.results[0].objects < 60
    rest = place.work(configuration, planned)
    assert first.results[0].objects + rest.results[0].objects == 60
    assert len(place.get()) == 60


def test_no_identifier_of_the_input_in_any_output_log_report_or_table(place, caplog, capsys):
    """No identifier of the input is in any output, log, report or table.

    The recipe and default settings are those of a site; objects that hold a residual are quarantined.
    """
    people = patients(3, seed=7)
    objects = series(people, 4)
    place.put(objects)
    with caplog.at_level(logging.INFO):
        ran = place.run(settings=place.configuration().settings.replace(residuals="quarantine"))
    written = place.get()
    assert written
    tables = place.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'dicom_deid'")
    stored = json.dumps([place.query(f"SELECT * FROM {name}") for (name,) in tables], default=_plain)
    told = "\n".join([caplog.text, capsys.readouterr().out, repr(ran.results), repr(ran.planned), repr(ran.rows)])
    for person in people:
        for value in (person.name, person.patient_id, person.accession_number, person.study_uid, person.address):
            needle = value.encode()
            assert not any(needle in data or needle in key.encode() for key, data in written.items())
            assert value not in stored
            assert value not in told
        assert not re.search(re.escape(person.name.replace("^", "_")), stored + told)


def _plain(value):
    return bytes(value).decode("latin-1") if isinstance(value, memoryview | bytes) else str(value)


def test_a_batch_of_another_run_is_refused(place):
    place.put({"a.dcm": small_ct(1)})
    configuration = place.configuration()
    planned = plan_run(configuration, place.connections)
    with pytest.raises(ConfigurationError, match="another run"):
        run_batch(
            configuration,
            place.connections,
            run_id="00000000-0000-0000-0000-000000000000",
            batch_id=planned.summary.batches[0].batch_id,
            worker="test",
        )
