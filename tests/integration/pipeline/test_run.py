"""Whole runs between real buckets, with mapping and audit in a real database."""

import hashlib
import io
import re
from dataclasses import replace

import pydicom
import pytest
from tests.support.datasets import ct_elements, part10
from tests.support.runs import RunEnvironment, patients, series

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline import plan_run, report_run


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def test_a_run_from_bucket_to_bucket(place):
    people = patients(3)
    objects = series(people, 6)
    place.put(objects)
    ran = place.run()
    written = place.get()
    assert {outcome for outcome, _ in ran.outcomes.values()} == {"deidentified"}
    assert len(written) == len(objects)
    for row in ran.rows:
        data = written[row.destination_key]
        assert row.sha256_in == hashlib.sha256(objects[row.item.key]).hexdigest()
        assert row.sha256_out == hashlib.sha256(data).hexdigest()
        assert row.destination_size == len(data)
        assert row.destination_etag == hashlib.md5(data).hexdigest()
    for key, data in written.items():
        dataset = pydicom.dcmread(io.BytesIO(data))
        assert re.fullmatch(r"PAT\d{7}", dataset.PatientID)
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        identifiers = (dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        assert key == "/".join(identifiers) + ".dcm"
        assert dataset.PatientIdentityRemoved == "YES"
    assert len({key.split("/")[0] for key in written}) == 3
    report = report_run(place.connections, run_id=ran.planned.run_id, state="succeeded")
    assert report.outcomes == {"deidentified": 18}
    assert report.run.state == "succeeded"


def test_several_workers_give_what_one_gives(place):
    """The same bytes under the same keys, whichever process takes a batch; bad input too."""
    place.put(series(patients(3), 8) | {"notes.txt": b"no DICOM" * 40})
    alone = place.run(batch_objects=7)
    several = place.run_in_workers(place.configuration(destination=f"s3://{place.bucket}/several", batch_objects=7), 3)
    assert several.complete
    assert several.outcomes == alone.outcomes
    assert place.get("several") == place.get()
    assert sum(several.progress.values()) == 25


def test_a_stop_reaches_the_workers(place):
    place.put(series(patients(2), 60))
    configuration = place.configuration(transfers=1, in_flight_bytes=100_000, batch_objects=40)
    first = place.run_in_workers(configuration, 2, stop_after=1)
    assert not first.complete
    assert len(first.rows) < 120
    rest = place.run_in_workers(configuration, 2)
    assert len(first.rows) + len(rest.rows) == 120


def test_a_killed_worker_is_replaced_and_its_batch_is_done(place, tmp_path, monkeypatch):
    """Catches a run that ends, or loses a batch, because one process was killed (for memory, say)."""
    place.put(series(patients(2), 10))
    marker = tmp_path / "killed"
    configuration = place.configuration(
        batch_objects=5,
        recipes=("desktop", str(_recipe(tmp_path))),
        functions={"deadly": "tests.support.deadly:kill_once"},
    )
    monkeypatch.setenv("DEADLY_MARKER", str(marker))
    ran = place.run_in_workers(configuration, 2)
    assert marker.exists()
    assert ran.complete
    assert len(place.get()) == 20


def test_an_error_of_every_batch_ends_the_run_with_its_message(place):
    place.put(series(patients(1), 4))
    configuration = place.configuration(batch_objects=1)
    planned = plan_run(configuration, place.connections)
    wrong = replace(planned, configuration=configuration.replace(recipes=("ps3.15-basic",)))
    with pytest.raises(ConfigurationError, match="plan it again"):
        place.run_in_workers(configuration, 2, planned=wrong)
    assert place.get() == {}


def _recipe(folder):
    path = folder / "deadly.dicom"
    path.write_text("FORMAT dicom\n%header\nREPLACE StationName func:deadly\n")
    return path


def test_large_objects_are_streamed_or_copied_by_the_store_with_the_same_bytes(place):
    """Streamed, every byte is vouched for; copied by the store, the audit says which bytes are."""
    data = part10(ct_elements(4, rows=512, columns=40 * 1024))
    place.put({"large.dcm": data})
    whole = place.run(destination=f"s3://{place.bucket}/whole", large_object_bytes=2**30)
    streamed = place.run(destination=f"s3://{place.bucket}/streamed", large_object_bytes=2**24, server_side_copy=False)
    copied = place.run(destination=f"s3://{place.bucket}/copied", large_object_bytes=2**24)
    checked = place.run(destination=f"s3://{place.bucket}/checked", large_object_bytes=2**24, verify="full")
    assert place.get("whole") == place.get("streamed") == place.get("copied") == place.get("checked")
    digests = [(ran.rows[0].sha256_in, ran.rows[0].sha256_out) for ran in (whole, streamed, copied, checked)]
    assert digests[0] == digests[1] == (hashlib.sha256(data).hexdigest(), digests[0][1])
    assert digests[2] == (None, None)
    assert digests[3] == (None, digests[0][1])
    assert "server-side copy" in copied.rows[0].detail


def test_directories_work_like_buckets(place, tmp_path):
    for key, data in series(patients(2), 3).items():
        path = tmp_path / "in" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    ran = place.run(source=str(tmp_path / "in"), destination=str(tmp_path / "out"))
    assert set(ran.outcomes.values()) == {("deidentified", None)}
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 6
