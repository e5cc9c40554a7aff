"""The index of a source, and runs over the objects that a cohort list names."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from tests.support.runs import RunEnvironment, patients, series, small_ct

from dicom_deid.database import AccessReason, AuditRow, ProjectOptions, WithdrawalRequest
from dicom_deid.database.source_index import IndexEntry, SourceIndex, count_archive, read_answers
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import S3Store, open_object_store
from dicom_deid.pipeline import plan_run, report_run
from dicom_deid.pipeline.indexing import IndexSummary, index_source
from dicom_deid.pipeline.withdrawal import continue_withdrawal, reconcile_destination
from dicom_deid.score.identity import Patient

PEOPLE = patients(3)


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def index(place: RunEnvironment, source: str = "in") -> IndexSummary:
    store = open_object_store(f"s3://{place.bucket}/{source}", place.connection)
    with place.connections.open_database() as database:
        database.upgrade()
        return index_source(database, store, "test")


def changed(data: bytes, **attributes: str) -> bytes:
    header = dcmread(DicomBytesIO(data))
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    file = DicomBytesIO()
    header.save_as(file)
    return file.getvalue()


def archive(people: Sequence[Patient], slices: int) -> dict[str, bytes]:
    """Return slices of patients of one hospital."""
    return {key: changed(data, IssuerOfPatientID="HOSPITAL") for key, data in series(people, slices).items()}


def headers(objects: dict[str, bytes]) -> dict[str, object]:
    return {key: dcmread(DicomBytesIO(data)) for key, data in objects.items()}


def cohort(tmp_path: Path, text: str) -> str:
    path = tmp_path / "list.csv"
    path.write_text(text)
    return str(path)


def test_only_new_and_changed_headers_are_read_and_deleted_objects_leave_the_index(place: RunEnvironment):
    objects = archive(PEOPLE[:2], 3)
    place.put({**objects, "notes.txt": b"no DICOM" * 100})
    assert index(place) == IndexSummary(listed=7, read=7, unreadable=1, removed=0)
    assert index(place) == IndexSummary(listed=7, read=0, unreadable=0, removed=0)
    other, gone = list(objects)[:2]
    place.put({other: objects[gone]})
    place.s3.client().delete_object(Bucket=place.bucket, Key=f"in/{gone}")
    assert index(place) == IndexSummary(listed=6, read=1, unreadable=0, removed=1)


def indexed(place: RunEnvironment) -> int:
    """Return how many objects the page of the archive counts."""
    with place.connections.open_database() as database:
        return sum(each.objects for each in count_archive(database.connection, "test"))


def delete(place: RunEnvironment, key: str) -> None:
    place.s3.client().delete_object(Bucket=place.bucket, Key=key)


def test_a_source_that_looks_empty_leaves_the_index(place: RunEnvironment):
    """Catches an index of millions that is lost because a file system is not mounted, or an endpoint is wrong."""
    objects = archive(PEOPLE[:1], 2)
    place.put(objects)
    index(place)
    for key in objects:
        delete(place, f"in/{key}")
    assert index(place) == IndexSummary(listed=0, read=0, unreadable=0, removed=0)
    assert indexed(place) == 2


def test_a_run_that_lists_the_source_removes_deleted_objects_from_the_index(place: RunEnvironment, tmp_path: Path):
    """Catches a cohort list that finds objects which a run has not listed any more."""
    objects = archive(PEOPLE[:2], 3)
    place.put(objects)
    index(place)
    # Of one the run has a row, of the other only the index knows.
    excluded = [key for key, header in headers(objects).items() if header.Modality == "MR"]
    place.run(limit=1)
    for gone in (next(iter(objects)), list(objects)[-1]):
        delete(place, f"in/{gone}")
    place.run(limit=2)
    place.run(newer_than="2020-01-01")
    assert indexed(place) == len(objects)
    place.run(exclude="equals Modality MR")
    assert indexed(place) == len(objects) - 2
    delete(place, f"in/{excluded[0]}")
    place.run(exclude="equals Modality MR")
    assert indexed(place) == len(objects) - 2 - (excluded[0] not in (next(iter(objects)), list(objects)[-1]))
    ran = place.run(cohort=cohort(tmp_path, f"SourceKey\n{next(iter(objects))}\n"))
    assert [answer.status for answer in ran.planned.cohort] == ["absent"]


def test_a_run_over_a_folder_removes_from_the_index_what_it_covers(place: RunEnvironment):
    """Catches a run that removes objects outside the prefix that it lists."""
    place.put(archive(PEOPLE[:1], 2), "in/a")
    place.put(archive(PEOPLE[1:2], 2), "in/b")
    (first, *_), (other, *_) = (list(archive([person], 2)) for person in PEOPLE[:2])
    index(place, "in/a")
    index(place, "in/b")
    for folder, key in (("a", first), ("b", other)):
        delete(place, f"in/{folder}/{key}")
    place.run(source=f"s3://{place.bucket}/in/a")
    assert indexed(place) == 3
    place.run()
    assert indexed(place) == 2


def test_a_released_object_leaves_an_index_of_the_whole_bucket_too(place: RunEnvironment):
    objects = archive(PEOPLE[:1], 2)
    place.put(objects, "in/a")
    index(place)
    place.run(source=f"s3://{place.bucket}/in/a")
    delete(place, f"in/a/{next(iter(objects))}")
    place.run(source=f"s3://{place.bucket}/in/a")
    assert indexed(place) == 1


def test_what_another_run_processes_during_a_listing_has_not_vanished(
    place: RunEnvironment, monkeypatch: pytest.MonkeyPatch
):
    """Catches a released object that is taken for deleted because it is newer than the listing."""
    objects = archive(PEOPLE[:1], 3)
    late = next(iter(objects))
    place.put({key: data for key, data in objects.items() if key != late})
    listing = S3Store.list

    def with_an_arrival(store: S3Store, start_after: str | None = None) -> Iterator[SourceObject]:
        yield from listing(store, start_after)
        monkeypatch.undo()
        place.put({late: objects[late]})
        place.run()

    monkeypatch.setattr(S3Store, "list", with_an_arrival)
    planned = plan_run(place.configuration(), place.connections)
    assert (planned.summary.listed, planned.summary.deleted, indexed(place)) == (2, 0, 3)


def test_what_cannot_be_read_is_counted_and_found_by_its_key_only(place: RunEnvironment, tmp_path: Path):
    """Catches an archive page without the objects that no one can read, and old identifiers of a replaced object."""
    objects = archive(PEOPLE[:1], 2)
    place.put(objects)
    index(place)
    damaged = next(iter(objects))
    place.put({damaged: b"no DICOM" * 100, "notes.txt": b"no DICOM either" * 100})
    place.run()
    assert indexed(place) == 3
    assert index(place) == IndexSummary(listed=3, read=0, unreadable=0, removed=0)
    text = f"PatientID,SourceKey\n{PEOPLE[0].patient_id},\n,notes.txt\n{PEOPLE[0].patient_id},{damaged}\n"
    ran = place.run(cohort=cohort(tmp_path, text))
    answers = [(answer.status, answer.objects) for answer in ran.planned.cohort]
    assert answers == [("found", 1), ("found", 1), ("absent", 0)]
    with place.connections.open_database() as database:
        (unknown,) = [each for each in count_archive(database.connection, "test") if each.modality is None]
    assert (unknown.objects, unknown.quarantined) == (2, 2)


def test_an_index_of_a_folder_leaves_the_rest_of_the_bucket(place: RunEnvironment):
    place.put(archive(PEOPLE[:1], 2), "in/a")
    place.put(archive(PEOPLE[1:2], 2), "in/b")
    assert index(place).read == 4
    assert index(place, "in/a").removed == 0
    assert index(place).read == 0


def test_a_cohort_is_planned_from_the_index_and_every_line_is_answered(place: RunEnvironment, tmp_path: Path):
    objects = archive(PEOPLE, 3)
    place.put(objects)
    index(place)
    known = headers(objects)
    first, second, third = (
        [key for key, header in known.items() if header.PatientID == person.patient_id] for person in PEOPLE
    )
    text = (
        "PatientID;AccessionNumber;SeriesInstanceUID;SourceKey\n"
        f"{PEOPLE[0].patient_id};;;\n"
        f";{known[second[0]].AccessionNumber};;\n"
        f";;{known[third[0]].SeriesInstanceUID};{third[0]}\n"
        f"{PEOPLE[0].patient_id};no such accession;;\n"
        ";;;missing.dcm\n"
    )
    ran = place.run(cohort=cohort(tmp_path, text))
    expected = {
        *first,
        *(key for key in objects if known[key].AccessionNumber == known[second[0]].AccessionNumber),
        third[0],
    }
    assert set(ran.outcomes) == expected
    assert {outcome for outcome, _ in ran.outcomes.values()} == {"deidentified"}
    answers = {answer.number: (answer.status, answer.objects) for answer in ran.planned.cohort}
    assert answers[2] == ("found", 3)
    assert answers[3][0] == "found"
    assert answers[4] == ("found", 1)
    assert answers[5] == answers[6] == ("absent", 0)
    with place.connections.open_database() as database:
        stored = read_answers(database.connection, ran.planned.run_id)
    assert stored == list(ran.planned.cohort)


def test_a_patient_id_of_two_issuers_is_ambiguous_until_the_issuer_is_given(place: RunEnvironment, tmp_path: Path):
    objects = archive(PEOPLE[:1], 2)
    place.put({key: changed(data, IssuerOfPatientID=f"HOSPITAL-{n}") for n, (key, data) in enumerate(objects.items())})
    index(place)
    person = PEOPLE[0].patient_id
    ran = place.run(cohort=cohort(tmp_path, f"PatientID,IssuerOfPatientID\n{person},\n{person},HOSPITAL-1\n"))
    assert [(answer.status, answer.objects) for answer in ran.planned.cohort] == [("ambiguous", 2), ("found", 1)]
    assert len(ran.outcomes) == 1


def test_the_pseudonym_of_a_list_is_used(place: RunEnvironment, tmp_path: Path):
    place.put(archive(PEOPLE[:1], 1))
    index(place)
    place.run(cohort=cohort(tmp_path, f"PatientID,Pseudonym\n{PEOPLE[0].patient_id},TRIAL-007\n"))
    (written,) = place.get().values()
    assert dcmread(DicomBytesIO(written)).PatientID == "TRIAL-007"


def test_a_run_fills_the_index_in_passing(place: RunEnvironment, tmp_path: Path):
    objects = archive(PEOPLE[:2], 2)
    place.put(objects)
    place.run()
    again = place.run(cohort=cohort(tmp_path, f"PatientID\n{PEOPLE[0].patient_id}\n"), recipes=("ps3.15-basic",))
    assert len(again.outcomes) == 2
    assert index(place).read == 0


def test_a_run_also_indexes_what_it_excludes_and_holds(place: RunEnvironment):
    """Catches counts of the archive that lack what no run has analysed."""
    objects = archive(PEOPLE[:1], 3)
    first = next(iter(objects))
    place.put({**objects, first: changed(objects[first], StudyInstanceUID="")})
    ran = place.run(exclude="equals Modality MR")
    assert sorted(outcome for outcome, _ in ran.outcomes.values()) == ["deidentified", "excluded", "quarantined"]
    with place.connections.open_database() as database:
        counts = [each[6:] for each in count_archive(database.connection, "test")]
    assert [sum(column) for column in zip(*counts, strict=True)] == [1, 1, 1]
    assert index(place).read == 0


def test_a_source_that_is_not_indexed_says_so(place: RunEnvironment, tmp_path: Path):
    place.put(archive(PEOPLE[:1], 1))
    with pytest.raises(ConfigurationError, match="run `dicom-deid index` first"):
        plan_run(place.configuration(cohort=cohort(tmp_path, "PatientID\nP\n")), place.connections)


def test_the_list_may_be_in_the_bucket_and_a_missing_one_is_named(place: RunEnvironment):
    place.put(archive(PEOPLE[:1], 1))
    index(place)
    place.put({"list.csv": f"PatientID\n{PEOPLE[0].patient_id}\n".encode()}, "lists")
    assert len(place.run(cohort=f"s3://{place.bucket}/lists/list.csv").outcomes) == 1
    with pytest.raises(ConfigurationError, match="There is no list at"):
        plan_run(place.configuration(cohort=f"s3://{place.bucket}/lists/other.csv"), place.connections)


def test_no_identifier_is_stored_in_clear(place: RunEnvironment, tmp_path: Path):
    """Catches a patient's name, identifier or source key in any table, also where a device attribute repeats it."""
    person = PEOPLE[0]
    objects = archive([person], 1)
    (key, data) = next(iter(objects.items()))
    place.put({key: changed(data, Manufacturer=f"scanner of {person.name.replace('^', ' ')}")})
    header = dcmread(DicomBytesIO(data))
    index(place)
    place.run(cohort=cohort(tmp_path, f"PatientID,StudyInstanceUID\n{person.patient_id},{header.StudyInstanceUID}\n"))
    tables = place.query("SELECT tablename FROM pg_tables WHERE schemaname = 'dicom_deid'")
    texts = " ".join(str(place.query(f"SELECT t::text FROM dicom_deid.{name} t")) for (name,) in tables)
    planted = [person.patient_id, header.StudyInstanceUID, header.SOPInstanceUID, key, *person.name.split("^")]
    assert [value for value in planted if str(value).casefold() in texts.casefold()] == []


def test_the_archive_is_counted_by_kind(place: RunEnvironment):
    objects = archive(PEOPLE, 3)
    place.put(objects)
    index(place)
    place.run(limit=4)
    with place.connections.open_database() as database:
        counts = count_archive(database.connection, "test")
    assert sum(each.objects for each in counts) == 9
    assert sum(each.deidentified for each in counts) == 4
    modalities = {header.Modality for header in headers(objects).values()}
    assert {each.modality for each in counts} == modalities


COUNTED_FROM_ROWS = """
SELECT count(*), sum(size)::bigint, count(*) FILTER (WHERE outcome = 'deidentified'),
    count(*) FILTER (WHERE outcome = 'quarantined'), count(*) FILTER (WHERE outcome = 'excluded')
FROM index_object LEFT JOIN processed_object USING (key_hash)
"""


def test_the_counts_stay_true_whatever_changes_the_index_or_an_outcome(place: RunEnvironment):
    """Catches a statement that changes the index or an outcome without the counts of the archive."""
    access = AccessReason(person="bob", reason="a test of counts")
    objects = archive(PEOPLE, 3)
    keys = list(objects)

    def totals() -> tuple[int, ...]:
        """Return objects, de-identified, quarantined and excluded ones, compared with a count of all rows."""
        with place.connections.open_database() as database:
            counts = count_archive(database.connection, "test")
            expected = database.connection.query("test", COUNTED_FROM_ROWS)
        indexed, size, *outcomes = map(sum, zip(*(each[4:] for each in counts), strict=True))
        assert expected == [(indexed, size, *outcomes)]
        return (indexed, *outcomes)

    place.put(objects)
    index(place)
    assert totals() == (9, 0, 0, 0)
    place.run(exclude="equals Modality MR")
    assert totals() == (9, 6, 0, 3)
    # The object of another patient under the key of one, and bytes that are none.
    place.put({keys[0]: changed(objects[keys[0]], PatientID="X", StudyDate="20010203"), keys[1]: b"no DICOM" * 100})
    place.run(exclude="equals Modality MR")
    assert totals() == (9, 5, 1, 3)
    place.put({"new.dcm": objects[keys[0]]})
    place.s3.client().delete_object(Bucket=place.bucket, Key=f"in/{keys[2]}")
    index(place)
    assert totals() == (9, 5, 1, 2)
    with place.connections.open_database() as database:
        project = database.project("test")
        begun = database.withdraw(project, WithdrawalRequest(patients=(PEOPLE[1].patient_id,)), access)
    continue_withdrawal(place.connections, "test", begun.withdrawal_id)
    assert totals() == (9, 3, 1, 2)
    with place.connections.open_database() as database:
        database.undo_withdrawal(project, begun.withdrawal_id, access)
    assert totals() == (9, 3, 1, 2)
    place.run(exclude="equals Modality MR")
    assert totals() == (9, 6, 1, 2)
    released = "SELECT destination_key FROM dicom_deid.processed_object WHERE outcome = 'deidentified' LIMIT 1"
    place.s3.client().delete_object(Bucket=place.bucket, Key=f"out/{place.query(released)[0][0]}")
    reconcile_destination(place.connections, place.configuration().destination, access, repair=True)
    assert totals() == (9, 5, 1, 2)


def test_the_end_of_a_run_counts_what_a_dead_worker_has_recorded(place: RunEnvironment):
    """Catches counts that lag behind because a batch did not come to its end."""

    def die(rows: Sequence[AuditRow]) -> None:
        raise RuntimeError

    place.put(archive(PEOPLE[:1], 2))
    index(place)
    planned = plan_run(place.configuration(), place.connections)
    with pytest.raises(RuntimeError):
        place.work(planned.configuration, planned, recorded=die)
    report_run(place.connections, run_id=planned.run_id, state="failed")
    with place.connections.open_database() as database:
        assert sum(each.deidentified for each in count_archive(database.connection, "test")) == 2


def test_an_index_is_added_to_while_another_worker_counts_it(place: RunEnvironment):
    """Catches a batch that fails because PostgreSQL cancels its statement to break a deadlock."""
    objects = archive(PEOPLE[:2], 1)
    place.put(objects)
    index(place)
    store = open_object_store(f"s3://{place.bucket}/in", place.connection)
    entries = [IndexEntry(source_object=listed) for listed in store.list()]
    lock = "UPDATE index_series SET objects = objects WHERE series_number = (SELECT {} FROM ordered)"
    ordered = "WITH ordered AS (SELECT array_agg(series_number ORDER BY {}) AS n FROM index_series WHERE objects = 0) "
    with place.connections.open_database() as database, place.connections.open_database() as other:
        added = SourceIndex(database.connection, database.project("test"), store.url)
        added.add(entries)
        # The first to wait so long is cancelled.
        other.connection.query("test", "SET deadlock_timeout = '1min'")
        in_order = ordered.format("patient, issuer, accession, study, series, attributes_number")
        with ThreadPoolExecutor(1) as pool:
            with other.connection.transaction("test"):
                other.connection.query("test", in_order + lock.format("n[array_length(n, 1)]"))
                done = pool.submit(added.add, entries)
                while not other.connection.query("test", "SELECT 1 FROM pg_locks WHERE NOT granted"):
                    time.sleep(0.01)
                other.connection.query("test", in_order + lock.format("n[1]"))
            done.result()


def test_the_project_says_which_attributes_are_stored(place):
    """Catches an attribute in the index that the project does not list."""
    place.put({"a.dcm": small_ct(1)})
    with place.connections.open_database() as database:
        database.upgrade()
        database.project("test", {"index_attributes": "Modality,Rows"})
    index(place)
    with place.connections.open_database() as database:
        (stored,) = database.connection.query("reading", "SELECT attributes FROM index_attributes")
    assert stored == ({"Modality": "CT", "Rows": 16},)
    with pytest.raises(ConfigurationError, match="BodyPartExamined"):
        ProjectOptions(index_attributes="PatientName")
