"""Whole runs between real buckets, with mapping and audit in a real database."""

import hashlib
import io
import re

import pydicom
import pytest
from tests.support.runs import Place, patients, series

from dicom_deid.pipeline import report_run


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return Place(s3, s3_bucket, postgres_url)


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
