"""What was written can be corrected: objects are replaced when source, recipe or settings change."""

import threading

import pytest
from tests.support.runs import RunEnvironment, small_ct

from dicom_deid.database import Database

ONE_MORE_RULE = "FORMAT dicom\n%header\nREMOVE StationName\nREMOVE Manufacturer\n"
OTHER_KEY = "corrected/{SOPInstanceUID}.dcm"


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


@pytest.fixture
def recipes(tmp_path):
    path = tmp_path / "more.dicom"
    path.write_text(ONE_MORE_RULE)
    return ("desktop", str(path))


def with_other_pixels(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def verified(place):
    with Database.connect(place.database, keys=place.keys) as database:
        return database.verify().problems


def test_one_more_rule_replaces_every_object_and_readers_miss_none(place, recipes):
    """The destination is that of a fresh run, without conflicts, while readers poll every key."""
    place.put({f"{number:03}.dcm": small_ct(number) for number in range(60)})
    first = place.run()
    before = place.get()
    done, missed = threading.Event(), []

    def poll():
        client = place.s3.client()
        while not done.is_set():
            for key in before:
                try:
                    client.head_object(Bucket=place.bucket, Key=f"out/{key}")
                except client.exceptions.ClientError:
                    missed.append(key)

    reader = threading.Thread(target=poll)
    reader.start()
    second = place.run(recipes=recipes)
    done.set()
    reader.join()
    assert not missed
    assert second.planned.summary.superseding == {"recipe": 60}
    assert set(second.outcomes.values()) == {("deidentified", None)}
    after = place.get()
    assert set(after) == set(before)
    assert all(after[key] != before[key] for key in after)
    place.run(recipes=recipes, destination=f"s3://{place.bucket}/fresh")
    assert place.get("fresh") == after
    assert place.run(recipes=recipes).planned.summary.planned == 0
    # Back to the first rules: the same objects again.
    third = place.run()
    assert third.planned.summary.planned == 60
    assert place.get() == before
    assert first.outcomes == third.outcomes
    assert verified(place) == []


def test_a_corrected_source_replaces_its_result(place):
    place.put({"a.dcm": small_ct(1), "b.dcm": small_ct(2)})
    place.run()
    before = place.get()
    place.put({"a.dcm": with_other_pixels(small_ct(1))})
    ran = place.run()
    assert ran.outcomes == {"a.dcm": ("deidentified", None)}
    after = place.get()
    assert set(after) == set(before)
    assert sum(after[key] != before[key] for key in after) == 1


def test_an_object_under_another_key_is_deleted_after_the_new_one_was_written(place):
    place.put({f"{number}.dcm": small_ct(number) for number in range(5)})
    place.run()
    before = place.get()
    place.run(destination_key_template=OTHER_KEY)
    after = place.get()
    assert not set(before) & set(after)
    assert sorted(after.values()) == sorted(before.values())
    assert all(key.startswith("corrected/") for key in after)
    assert verified(place) == []


def test_an_object_of_another_program_is_neither_replaced_nor_deleted(place, recipes):
    place.put({"a.dcm": small_ct(1)})
    place.run()
    (key,) = place.get()
    place.put({key: b"another program's"}, prefix="out")
    ran = place.run(recipes=recipes)
    assert ran.outcomes == {"a.dcm": ("quarantined", "destination-conflict")}
    assert ran.rows[0].detail == f"{key}: not written by this project for this source object"
    assert place.get() == {key: b"another program's"}
    ran = place.run(destination_key_template=OTHER_KEY)
    assert ran.outcomes == {"a.dcm": ("deidentified", None)}
    assert place.get()[key] == b"another program's"


def test_on_change_keep_leaves_what_was_written(place, recipes):
    place.put({"a.dcm": small_ct(1)})
    place.run()
    before = place.get()
    place.put({"b.dcm": small_ct(2)})
    ran = place.run(recipes=recipes, on_change="keep")
    assert ran.planned.summary.kept == 1
    assert ran.outcomes == {"b.dcm": ("deidentified", None)}
    assert before.items() <= place.get().items()


@pytest.mark.parametrize("batch_objects", [100, 1])
def test_two_source_objects_with_one_instance_uid_are_a_conflict_that_says_so(place, batch_objects):
    place.put({"a.dcm": small_ct(1), "b.dcm": with_other_pixels(small_ct(1))})
    ran = place.run(batch_objects=batch_objects)
    assert ran.outcomes == {"a.dcm": ("deidentified", None), "b.dcm": ("quarantined", "destination-conflict")}
    detail = next(row.detail for row in ran.rows if row.reason)
    assert "another source object with the same SOP Instance UID" in detail
