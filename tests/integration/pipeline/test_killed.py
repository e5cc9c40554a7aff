"""A worker that is killed anywhere is run again with the same result: mapping, keys, bytes and audit."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.datasets import ct_elements, part10
from tests.support.killable import PARTS, POINTS, Workers
from tests.support.runs import RunEnvironment, patients, series, small_ct

from dicom_deid.database import Database
from dicom_deid.pipeline import BatchHeld, plan_run


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def workers():
    opened = Workers()
    yield opened
    opened.close()


def left_behind(place):
    """Return destination, mapping and audit in a form in which equal runs are equal."""
    mapping = place.query("SELECT kind, keyed_hash::text, pseudonym FROM mapping ORDER BY 1, 2")
    audit = place.query(
        "SELECT DISTINCT d.key_hash::text, a.destination_key, encode(sha256_in, 'hex'), encode(sha256_out, 'hex'), "
        "a.outcome FROM audit a JOIN processed_object d USING (object_id) ORDER BY 1"
    )
    return place.get(), mapping, audit


def test_killed_at_every_stage_and_run_again_leaves_what_an_undisturbed_run_leaves(place, workers):
    """Each stage is struck in turn, on one run, until it ends by itself; then nothing is left to do.

    Between strikes a worker must get further with what the dead ones left. In the end every object is written once,
    under the pseudonyms that were committed first, and the audit tells each outcome the same way.
    """
    objects = series(patients(4), 25)
    place.put(objects)
    configuration = place.configuration(batch_objects=100, transfers=4, in_flight_bytes=2**20)
    planned = plan_run(configuration, place.connections)
    kills = [(point, passage) for passage in (1, 7) for point in POINTS if passage == 1 or "re" in point.split("-")[1]]
    mapping = []
    killed = 0
    for kill in kills:
        killed += workers.work(configuration, place.connections, planned, kill) == -9
        rows = place.query("SELECT kind, keyed_hash::text, pseudonym FROM mapping ORDER BY 1, 2")
        assert set(mapping) <= set(rows), "a pseudonym was lost or changed"
        mapping = rows
    assert killed >= 8
    workers.work(configuration, place.connections, planned, None)
    written, mapping, audit = left_behind(place)
    assert len(written) == len(objects)
    assert len(audit) == len(objects)
    assert {row[1] for row in audit} == set(written)

    # An undisturbed run over the same objects with the same mapping writes the same bytes under the same keys.
    again = place.configuration(destination=f"s3://{place.bucket}/undisturbed")
    workers.work(again, place.connections, plan_run(again, place.connections), None)
    assert place.get("undisturbed") == written
    assert place.query("SELECT kind, keyed_hash::text, pseudonym FROM mapping ORDER BY 1, 2") == mapping
    with Database.connect(place.database, keys=place.keys) as database:
        assert database.verify().problems == []


@pytest.mark.parametrize("server_side_copy", [False, True])
def test_killed_while_large_objects_are_written_and_run_again(place, workers, server_side_copy):
    """Would catch parts of two attempts in one object, and a large object that is never written again."""
    place.put({f"{number}.dcm": part10(ct_elements(number, rows=512, columns=12 * 1024)) for number in (1, 2, 3)})
    configuration = place.configuration(large_object_bytes=2**23, server_side_copy=server_side_copy)
    planned = plan_run(configuration, place.connections)
    for point in PARTS:
        if server_side_copy or not point.endswith("copy"):
            assert workers.work(configuration, place.connections, planned, (point, 1)) == -9
    workers.work(configuration, place.connections, planned, None)
    written, _, audit = left_behind(place)
    assert len(written) == len(audit) == 3
    again = place.configuration(destination=f"s3://{place.bucket}/undisturbed", large_object_bytes=2**30)
    workers.work(again, place.connections, plan_run(again, place.connections), None)
    assert place.get("undisturbed") == written


def test_two_workers_at_once_do_each_object_once_and_agree_on_pseudonyms(place, workers):
    objects = series(patients(3), 20)
    place.put(objects)
    configuration = place.configuration(batch_objects=10)
    planned = plan_run(configuration, place.connections)
    assert len(planned.summary.batches) >= 4
    other = Workers()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: each.work(configuration, place.connections, planned, None), (workers, other)))
    other.close()
    assert len(place.get()) == len(objects)
    assert place.query("SELECT count(*), count(DISTINCT object_id) FROM audit") == [(60, 60)]
    assert place.query("SELECT count(*) FROM mapping WHERE kind = 'PatientID'") == [(3,)]


def test_a_batch_leased_by_a_live_worker_is_not_reported_done(place):
    """A retry that finds the first attempt still at work must not end as a success, because that attempt may fail."""
    place.put(series(patients(1), 2))
    configuration = place.configuration()
    planned = plan_run(configuration, place.connections)
    with Database.connect(place.database, keys=place.keys) as database:
        assert database.lease(planned.summary.batches[0].batch_id, "first") is not None
        with pytest.raises(BatchHeld):
            place.work(configuration, planned)
    assert place.work(configuration, planned).results[0].objects == 2
    assert not place.work(configuration, planned).results[0].taken


def test_same_patient_same_pseudonym_across_runs_and_processes(place, workers):
    people = patients(2)
    first, second = series(people, 1), series(people, 3)
    place.put(first)
    workers.work(place.configuration(), place.connections, None, None)
    before = {key.split("/")[0] for key in place.get()}
    place.put(second)
    workers.work(place.configuration(), place.connections, None, None)
    assert {key.split("/")[0] for key in place.get()} == before
    assert len(before) == 2
    assert len(place.get()) == len(second)


def test_an_object_that_kills_its_workers_is_quarantined_and_the_others_are_done(place, tmp_path, monkeypatch):
    """An object at which two workers died is not tried again."""
    recipe = tmp_path / "deadly.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREPLACE StationName func:deadly\n")
    people = patients(20)
    objects = {f"{number:02}.dcm": small_ct(number, person) for number, person in enumerate(people)}
    place.put(objects)
    monkeypatch.setenv("DEADLY_STATION", people[7].station)
    configuration = place.configuration(
        batch_objects=10, recipes=(str(recipe), "desktop"), functions={"deadly": "tests.support.deadly:kill_at_station"}
    )
    ran = place.run_in_workers(configuration, 2)
    outcomes = dict(ran.outcomes)
    expected = {key for key, person in zip(objects, people, strict=True) if person.station == people[7].station}
    assert {key for key in outcomes if outcomes[key] == ("quarantined", "worker-died")} == expected
    assert {outcomes[key] for key in set(objects) - expected} == {("deidentified", None)}
    assert ran.complete
