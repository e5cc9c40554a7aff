"""Look-up, import, export and rotation of the crosswalk."""

from __future__ import annotations

import io
import json
import threading

import pytest

from dicom_deid.database import AccessReason, Database, KeyRing
from dicom_deid.database.crosswalk_import import write_csv
from dicom_deid.database.mapping import Mapping
from dicom_deid.exceptions import ConfigurationError, DatabaseError
from dicom_deid.identifiers import Identifier, IdentifierKind

ASKED = AccessReason(person="Dr Strand", reason="adverse event, case 12")
ORIGINALS = [Identifier(kind, f"{kind}-{number}") for kind in IdentifierKind for number in range(30)]


def events(database: Database, kind: str) -> list[dict]:
    rows = database.connection.query("test", "SELECT body FROM audit_event WHERE kind = %s ORDER BY event_id", (kind,))
    return [json.loads(body) for (body,) in rows]


def test_lookup_works_both_ways_and_always_leaves_an_event(database):
    project = database.project("p")
    found = database.mapping(project).resolve(ORIGINALS)
    crosswalk = database.crosswalk(project)
    patient = ORIGINALS[30]
    assert patient.kind is IdentifierKind.PATIENT_ID
    assert crosswalk.originals_of(IdentifierKind.PATIENT_ID, [found[patient], "PAT0"], ASKED) == [
        (patient, found[patient])
    ]
    assert crosswalk.pseudonyms_of(IdentifierKind.PATIENT_ID, [patient.value + " "], ASKED) == [
        (patient, found[patient])
    ]
    assert crosswalk.pseudonyms_of(IdentifierKind.PATIENT_ID, ["nobody"], ASKED) == []
    recorded = events(database, "lookup")
    assert len(recorded) == 3
    assert {(each["person"], each["reason"]) for each in recorded} == {("Dr Strand", "adverse event, case 12")}
    assert recorded[0]["pseudonyms"] == [found[patient], "PAT0"]
    assert patient.value not in json.dumps(recorded)


@pytest.mark.parametrize(("person", "reason"), [("", "a good reason"), ("x", ""), ("x", "  ok ")])
def test_who_and_why_are_not_optional(person, reason):
    with pytest.raises(ConfigurationError, match="Say who asks"):
        AccessReason(person=person, reason=reason)


def test_shared_pseudonyms_lead_back_to_all_their_originals(database):
    project = database.project("single", {"single_patient_id": "ONE"})
    patients = [Identifier(IdentifierKind.PATIENT_ID, str(number)) for number in range(5)]
    database.mapping(project).resolve(patients)
    pairs = database.crosswalk(project).originals_of(IdentifierKind.PATIENT_ID, ["ONE"], ASKED)
    assert {pair.original for pair in pairs} == set(patients)


def test_derived_uids_are_looked_up_forwards_only(database):
    project = database.project("derived", {"uid_strategy": "derived"})
    original = Identifier(IdentifierKind.UID, "1.2.3")
    pseudonym = database.mapping(project).resolve([original])[original]
    assert database.crosswalk(project).pseudonyms_of(IdentifierKind.UID, ["1.2.3"], ASKED) == [(original, pseudonym)]
    with pytest.raises(ConfigurationError, match="audit trace"):
        database.crosswalk(project).originals_of(IdentifierKind.UID, [pseudonym], ASKED)


def test_export_and_import_carry_a_crosswalk_to_another_project(database, second):
    found = database.mapping(database.project("p")).resolve(ORIGINALS)
    file = io.StringIO()
    assert write_csv(database.crosswalk(database.project("p")).export(ASKED), file) == len(ORIGINALS)
    target = database.project("moved")
    file.seek(0)
    assert database.import_crosswalk(target, file, ASKED) == len(ORIGINALS)
    file.seek(0)
    assert database.import_crosswalk(target, file, ASKED) == 0
    assert second.mapping(second.project("moved")).resolve(ORIGINALS) == found
    assert [event["rows"] for event in events(database, "import")] == [len(ORIGINALS), 0]
    assert events(database, "export")[0]["kinds"] == "all"


BAD = {
    "original,pseudonym\n": "first line must be",
    "kind,original,pseudonym\nName,a,b\n": "line 2: the kind is not one of",
    "kind,original,pseudonym\nUID,1.2,1.02\n": "line 2: the pseudonym is not a valid UID",
    "kind,original,pseudonym\nPatientID, ,P\n": "line 2: the original is empty",
    "kind,original,pseudonym\nPatientID,a\n": "line 2: has 2 fields",
    "kind,original,pseudonym\nDateOffset,a,0\n": "line 2: the pseudonym is not a number of days",
    "kind,original,pseudonym\nAccessionNumber,a,ABCDEFGHIJKLMNOPQ\n": "line 2: the pseudonym has not 1 to 16",
    "kind,original,pseudonym\nPatientID,a,X\nPatientID,a ,Y\n": "line 3: the original is in line 2",
    "kind,original,pseudonym\nPatientID,a,X\nPatientID,b,X\n": "line 3: the pseudonym is in line 2",
    "kind,original,pseudonym\nPatientID,KNOWN,X\n": "line 2: the original has another pseudonym in the project",
    "kind,original,pseudonym\nPatientID,other,{taken}\n": "line 2: the pseudonym belongs to another original",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_an_import_with_any_fault_writes_nothing_and_quotes_nothing(database, text):
    project = database.project("p")
    known = Identifier(IdentifierKind.PATIENT_ID, "KNOWN")
    taken = database.mapping(project).resolve([known])[known]
    good = "StudyID,SECRETVALUE,S1\n"
    with pytest.raises(ConfigurationError) as refusal:
        database.import_crosswalk(project, io.StringIO(text.replace("{taken}", taken) + good), ASKED)
    assert BAD[text] in str(refusal.value)
    assert "KNOWN" not in str(refusal.value)
    assert database.connection.query("test", "SELECT count(*) FROM mapping") == [(1,)]
    assert events(database, "import") == []


def test_date_offsets_may_be_shared_in_an_import(database):
    text = "kind,original,pseudonym\nDateOffset,a,-5\nDateOffset,b,-5\n"
    assert database.import_crosswalk(database.project("p"), io.StringIO(text), ASKED) == 2


def ring(old: KeyRing, *, new_first: bool) -> KeyRing:
    new = {"k2": b"n" * 32}
    return KeyRing(new | dict(old.keys) if new_first else dict(old.keys) | new)


def test_rotation_re_encrypts_everything_while_workers_write(database, keys, store_url, monkeypatch):
    # Would catch a second pseudonym for an original that is looked up while its row is sealed anew.
    monkeypatch.setattr("dicom_deid.database.rotation.STEP", 20)
    before = database.mapping(database.project("p")).resolve(ORIGINALS)
    both = ring(keys, new_first=True)
    stop, said = threading.Event(), []

    def work() -> None:
        number = 0
        with Database.connect(store_url, keys=ring(keys, new_first=False)) as old_worker:
            mapping = Mapping(old_worker.connection, old_worker.keys, old_worker.project("p"), cache_size=1)
            while not stop.is_set() or number < 3:
                said.append(mapping.resolve([*ORIGINALS, Identifier(IdentifierKind.UID, f"new-{number}")]))
                number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with Database.connect(store_url, keys=both) as rotating:
            # Stopped in the middle, then taken up again.
            progress = rotating.rotate(ASKED)
            next(progress)
            progress.close()
            assert max(rotating.rotate(ASKED)) >= len(ORIGINALS) - 20
    finally:
        stop.set()
        worker.join()
    assert all(each.items() >= before.items() for each in said)
    with Database.connect(store_url, keys=both) as last:
        list(last.rotate(ASKED))
    with Database.connect(store_url, keys=KeyRing({"k2": b"n" * 32})) as new:
        assert new.mapping(new.project("p")).resolve(ORIGINALS) == before
        assert len(list(new.crosswalk(new.project("p")).export(ASKED))) == len(ORIGINALS) + len(said)
        assert new.verify().problems == []
    assert database.connection.query("test", "SELECT DISTINCT key_id FROM mapping") == [("k2",)]


def test_a_moved_or_changed_row_is_not_decrypted(database):
    project = database.project("p")
    database.mapping(project).resolve(ORIGINALS[:2])
    database.connection.query(
        "test",
        "UPDATE mapping SET original = (SELECT original FROM mapping ORDER BY keyed_hash LIMIT 1) "
        "WHERE keyed_hash = (SELECT max(keyed_hash) FROM mapping)",
    )
    with pytest.raises(ConfigurationError, match="cannot be decrypted"):
        list(database.crosswalk(project).export(ASKED))


def reidentify(database: Database, *question: object) -> list[tuple]:
    return database.connection.query(
        "test", "SELECT kind, pseudonym FROM reidentify(%s, %s, %s::bytea[], %s, %s)", question
    )


def test_a_look_up_event_returns_exactly_what_it_names(database):
    # One reason for one patient must not open the whole crosswalk, nor another patient.
    project = database.project("p")
    found = database.mapping(project).resolve(ORIGINALS)
    one, other = found[ORIGINALS[30]], found[ORIGINALS[31]]
    crosswalk = database.crosswalk(project)
    crosswalk.originals_of(IdentifierKind.PATIENT_ID, [one], ASKED)
    newest = "SELECT max(event_id) FROM audit_event"
    event = database.connection.query("test", newest)[0][0]
    patient = [IdentifierKind.PATIENT_ID.value]
    assert reidentify(database, event, patient, None, [one], None) == [("PatientID", one)]
    crosswalk.pseudonyms_of(IdentifierKind.PATIENT_ID, [ORIGINALS[30].value], ASKED)
    by_original = database.connection.query("test", newest)[0][0]
    export = iter(crosswalk.export(ASKED, [IdentifierKind.STUDY_ID]))
    assert len(list(export)) == 30
    exported = database.connection.query("test", newest)[0][0]
    hashes = [bytes(each) for (each,) in database.connection.query("test", "SELECT keyed_hash FROM mapping")]
    for question in (
        (event, None, None, None, None),
        (event, patient, None, None, None),
        (event, patient, None, [one, other], None),
        (event, patient, None, [other], None),
        (event, ["UID"], None, [one], None),
        (event, patient, hashes, [one], None),
        (event, patient, hashes, None, b""),
        (by_original, patient, hashes[:1], None, b""),
        (by_original, patient, hashes, None, None),
        (by_original, patient, None, [one], None),
        (by_original, None, None, None, None),
        (exported, None, None, None, None),
        (exported, patient, None, None, None),
        (exported, ["StudyID"], None, [one], None),
    ):
        with pytest.raises(ConfigurationError, match="may not do this"):
            reidentify(database, *question)


def test_two_keys_under_one_id_are_refused_in_either_order(postgres_url, keys):
    with Database.connect(postgres_url, keys=keys) as database:
        database.upgrade()
        other = KeyRing.generate(keys.active_id)
        late = Database.connect(postgres_url, keys=other)
        # Opened, and its keys checked, before the first key was registered.
        assert late.keys is other
        database.project("p")
        with pytest.raises(ConfigurationError, match=r"is not the (key|one)"):
            late.project("q")
        late.close()
        both = KeyRing(dict(keys.keys) | {"k2": b"2" * 32})
        with Database.connect(postgres_url, keys=KeyRing(dict(reversed(list(both.keys.items()))))) as newer:
            newer.mapping(newer.project("p")).resolve([Identifier(IdentifierKind.UID, "1.2")])
        wrong = KeyRing(dict(keys.keys) | {"k2": b"3" * 32})
        with Database.connect(postgres_url, keys=wrong) as worker, pytest.raises(ConfigurationError, match="'k2'"):
            worker.project("p")


def test_swapped_pseudonyms_are_refused_when_they_are_used(database):
    # Would catch a worker that writes one patient's objects under another's pseudonym.
    project = database.project("p")
    first, second = ORIGINALS[30:32]
    found = database.mapping(project).resolve([first, second])
    swap = "UPDATE mapping SET pseudonym = %s WHERE pseudonym = %s"
    for new, old in (("x", found[first]), (found[first], found[second]), (found[second], "x")):
        database.connection.query("test", swap, (new, old))
    with pytest.raises(DatabaseError, match="was changed in the database"):
        database.mapping(project).resolve([first])
    with pytest.raises(DatabaseError, match="was changed in the database"):
        database.crosswalk(project).originals_of(IdentifierKind.PATIENT_ID, [found[first]], ASKED)
    assert any("moved to another row" in problem.what for problem in database.verify().problems)
