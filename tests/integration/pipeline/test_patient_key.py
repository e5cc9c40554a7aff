"""Patients of two hospitals with one PatientID: counted, and told apart in a project whose key has the issuer."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tests.support.runs import Ran, RunEnvironment

from dicom_deid.cli import main
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import open_object_store
from dicom_deid.pipeline import plan_run, report_run
from dicom_deid.pipeline.indexing import index_source

ID = "100200"
RECIPE = "FORMAT dicom\n%header\nREMOVE PatientName\nJITTER StudyDate var:patient_offset\n" + "".join(
    f"REPLACE {each} func:generate_value\n"
    for each in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
)
CT = "1.2.840.10008.5.1.4.1.1.2"


def header(name: str, issuer: str | None, study: str, patient_id: str = ID) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, generate_uid()
    dataset.Modality, dataset.StudyDate = "CT", "20210314"
    dataset.PatientName, dataset.PatientID = name, patient_id
    if issuer is not None:
        dataset.IssuerOfPatientID = issuer
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(target := io.BytesIO(), dataset, enforce_file_format=True)
    return target.getvalue()


@pytest.fixture
def place(s3, s3_bucket, postgres_url, monkeypatch) -> RunEnvironment:
    place = RunEnvironment(s3, s3_bucket, postgres_url)
    monkeypatch.setenv("DICOM_DEID_DATABASE", postgres_url)
    monkeypatch.setenv("DICOM_DEID_KEYS", place.keys.to_text())
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    shared = generate_uid()
    place.put(
        {
            "a1.dcm": header("Okonkwo^Adaeze", "HOSP_A", generate_uid()),
            "a2.dcm": header("Okonkwo^Adaeze", "HOSP_A", generate_uid()),
            "b.dcm": header("Lindqvist^Bo", "HOSP_B", generate_uid()),
            "c.dcm": header("Brandvold^Sigrid", None, shared, "300"),
            "d.dcm": header("Brandvold^Sigrid", None, shared, "301"),
        }
    )
    return place


def terminal(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def written(place: RunEnvironment, ran: Ran) -> dict[str, Dataset]:
    """Return the new headers by source key."""
    objects = place.get()
    return {
        row.item.key: pydicom.dcmread(io.BytesIO(objects[row.destination_key]))
        for row in ran.rows
        if row.destination_key
    }


def ambiguous() -> list[list[str]]:
    output = terminal("crosswalk", "ambiguous", "--project", "test")
    return [line.split(",") for line in output.split()]


def test_one_patient_of_two_issuers_is_counted(place: RunEnvironment):
    ran = place.run()
    new = written(place, ran)
    assert new["a1.dcm"].PatientID == new["b.dcm"].PatientID
    run = report_run(place.connections, run_id=ran.planned.run_id, state="succeeded").run
    assert (run.patients_of_several_issuers, run.studies_of_several_patients) == (1, 1)
    assert len(run.warnings) == 2
    assert not any(text in "".join(run.warnings) for text in (ID, "HOSP", "300"))
    ids = sorted([new["c.dcm"].PatientID, new["d.dcm"].PatientID])
    assert ambiguous() == [["issuers", "2", new["b.dcm"].PatientID], *(["study", "1", each] for each in ids)]
    # The counts concern the objects of the run: nothing was planned in the second.
    again = place.run()
    assert report_run(place.connections, run_id=again.planned.run_id, state="succeeded").run.warnings == []


def test_a_key_with_the_issuer_tells_patients_apart_everywhere(place: RunEnvironment, tmp_path: Path):
    terminal("project", "create", "test", "--patient-key", "id-and-issuer", "--max-date-offset-days", "36500")
    store = open_object_store(f"s3://{place.bucket}/in", place.connection)
    with place.connections.open_database() as database:
        index_source(database, store, "test")
    (tmp_path / "r.dicom").write_text(RECIPE)
    ran = place.run(recipes=(str(tmp_path / "r.dicom"),))
    new = written(place, ran)
    first, second, other = (new[f"{key}.dcm"] for key in ("a1", "a2", "b"))
    assert first.PatientID == second.PatientID != other.PatientID
    assert first.StudyDate == second.StudyDate != other.StudyDate
    run = report_run(place.connections, run_id=ran.planned.run_id, state="succeeded").run
    assert (run.patients_of_several_issuers, run.studies_of_several_patients) == (0, 1)
    access = ("--person", "olga", "--reason", "consent withdrawn")
    assert f"PatientID,{ID}^^^HOSP_B,{other.PatientID}" in terminal(
        "crosswalk", "lookup", "--project", "test", "--to", "pseudonym", f"{ID}^^^HOSP_B", *access
    )
    terminal("release", "withdraw", "--project", "test", "--patient", f"{ID}^^^HOSP_B", *access)
    terminal("crosswalk", "erase", f"{ID}^^^HOSP_B", "--project", "test", "--yes", *access)
    assert len(place.get()) == 4
    assert place.query("SELECT count(*) FROM index_series")[0][0] == 4


def test_a_cohort_list_gives_each_of_them_a_pseudonym(place: RunEnvironment, tmp_path: Path):
    terminal("project", "create", "test", "--patient-key", "id-and-issuer")
    store = open_object_store(f"s3://{place.bucket}/in", place.connection)
    with place.connections.open_database() as database:
        index_source(database, store, "test")
    lines = f"PatientID,IssuerOfPatientID,Pseudonym\n{ID},HOSP_A,TRIAL-A\n{ID},HOSP_B,TRIAL-B\n"
    (tmp_path / "list.csv").write_text(lines)
    ran = place.run(cohort=str(tmp_path / "list.csv"))
    assert {key: new.PatientID for key, new in written(place, ran).items()} == {
        "a1.dcm": "TRIAL-A",
        "a2.dcm": "TRIAL-A",
        "b.dcm": "TRIAL-B",
    }


def test_the_patient_key_is_fixed_and_other_options_need_not_be_repeated(place: RunEnvironment):
    terminal("project", "create", "test", "--patient-key", "id-and-issuer", "--max-date-offset-days", "9")
    planned = plan_run(place.configuration(patient_key="id-and-issuer"), place.connections)
    assert planned.configuration.digest != place.configuration().digest
    with pytest.raises(ConfigurationError, match="created with another patient_key"):
        plan_run(place.configuration(patient_key="id"), place.connections)
