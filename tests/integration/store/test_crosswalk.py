"""Look-up, import, export and rotation of the crosswalk."""

from __future__ import annotations

import io
import json
import threading

import pytest

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.originals import Kind, Original
from dicom_deid.store import Accountability, KeyRing, ProjectOptions, Store
from dicom_deid.store.importing import write_csv
from dicom_deid.store.mapping import Mapping

ASKED = Accountability(person="Dr Strand", reason="adverse event, case 12")
ORIGINALS = [Original(kind, f"{kind}-{number}") for kind in Kind for number in range(30)]


def events(store: Store, kind: str) -> list[dict]:
    rows = store.database.query("test", "SELECT body FROM audit_event WHERE kind = %s ORDER BY event_id", (kind,))
    return [json.loads(body) for (body,) in rows]


def test_lookup_works_both_ways_and_always_leaves_an_event(store):
    project = store.project("p")
    found = store.mapping(project).resolve(ORIGINALS)
    crosswalk = store.crosswalk(project)
    patient = ORIGINALS[30]
    assert patient.kind is Kind.PATIENT_ID
    assert crosswalk.originals_of(Kind.PATIENT_ID, [found[patient], "PAT0"], ASKED) == [(patient, found[patient])]
    assert crosswalk.pseudonyms_of(Kind.PATIENT_ID, [patient.value + " "], ASKED) == [(patient, found[patient])]
    assert crosswalk.pseudonyms_of(Kind.PATIENT_ID, ["nobody"], ASKED) == []
    recorded = events(store, "lookup")
    assert len(recorded) == 3
    assert {(each["person"], each["reason"]) for each in recorded} == {("Dr Strand", "adverse event, case 12")}
    assert recorded[0]["pseudonyms"] == [found[patient], "PAT0"]
    assert patient.value not in json.dumps(recorded)


@pytest.mark.parametrize(("person", "reason"), [("", "a good reason"), ("x", ""), ("x", "  ok ")])
def test_who_and_why_are_not_optional(person, reason):
    with pytest.raises(ConfigurationError, match="Say who asks"):
        Accountability(person=person, reason=reason)


def test_shared_pseudonyms_lead_back_to_all_their_originals(store):
    project = store.project("single", ProjectOptions(single_patient_id="ONE"))
    patients = [Original(Kind.PATIENT_ID, str(number)) for number in range(5)]
    store.mapping(project).resolve(patients)
    pairs = store.crosswalk(project).originals_of(Kind.PATIENT_ID, ["ONE"], ASKED)
    assert {pair.original for pair in pairs} == set(patients)


def test_derived_uids_are_looked_up_forwards_only(store):
    project = store.project("derived", ProjectOptions(uid_strategy="derived"))
    original = Original(Kind.UID, "1.2.3")
    pseudonym = store.mapping(project).resolve([original])[original]
    assert store.crosswalk(project).pseudonyms_of(Kind.UID, ["1.2.3"], ASKED) == [(original, pseudonym)]
    with pytest.raises(ConfigurationError, match="audit trace"):
        store.crosswalk(project).originals_of(Kind.UID, [pseudonym], ASKED)


def test_export_and_import_carry_a_crosswalk_to_another_project(store, second):
    found = store.mapping(store.project("p")).resolve(ORIGINALS)
    file = io.StringIO()
    assert write_csv(store.crosswalk(store.project("p")).export(ASKED), file) == len(ORIGINALS)
    target = store.project("moved")
    file.seek(0)
    assert store.import_crosswalk(target, file, ASKED) == len(ORIGINALS)
    file.seek(0)
    assert store.import_crosswalk(target, file, ASKED) == 0
    assert second.mapping(second.project("moved")).resolve(ORIGINALS) == found
    assert [event["rows"] for event in events(store, "import")] == [len(ORIGINALS), 0]
    assert events(store, "export")[0]["kinds"] == "all"


BAD = {
    "original,pseudonym\n": "first line must be",
    "kind,original,pseudonym\nName,a,b\n": "line 2: the kind is not one of",
    "kind,original,pseudonym\nUID,1.2,1.02\n": "line 2: the pseudonym is not a valid UID",
    "kind,original,pseudonym\nPatientID, ,P\n": "line 2: the original is empty",
    "kind,original,pseudonym\nPatientID,a\n": "line 2: has 2 fields",
    "kind,original,pseudonym\nDateOffset,a,0\n": "line 2: the pseudonym is not a number of days",
    "kind,original,pseudonym\nAccessionNumber,a,ABCDEFGHIJKLMNOPQ\n": "line 2: the pseudonym has not 1 to 16",
    "kind,original,pseudonym\nPatientID,a,X\nPatientID,a ,Y\n": "line 3: the original stands in line 2",
    "kind,original,pseudonym\nPatientID,a,X\nPatientID,b,X\n": "line 3: the pseudonym stands in line 2",
    "kind,original,pseudonym\nPatientID,KNOWN,X\n": "line 2: the original has another pseudonym in the project",
    "kind,original,pseudonym\nPatientID,other,{taken}\n": "line 2: the pseudonym stands for another original",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_an_import_with_any_fault_writes_nothing_and_quotes_nothing(store, text):
    project = store.project("p")
    known = Original(Kind.PATIENT_ID, "KNOWN")
    taken = store.mapping(project).resolve([known])[known]
    good = "StudyID,SECRETVALUE,S1\n"
    with pytest.raises(ConfigurationError) as refusal:
        store.import_crosswalk(project, io.StringIO(text.replace("{taken}", taken) + good), ASKED)
    assert BAD[text] in str(refusal.value)
    assert "KNOWN" not in str(refusal.value)
    assert store.database.query("test", "SELECT count(*) FROM mapping") == [(1,)]
    assert events(store, "import") == []


def test_date_offsets_may_be_shared_in_an_import(store):
    text = "kind,original,pseudonym\nDateOffset,a,-5\nDateOffset,b,-5\n"
    assert store.import_crosswalk(store.project("p"), io.StringIO(text), ASKED) == 2


def ring(old: KeyRing, *, new_first: bool) -> KeyRing:
    new = {"k2": b"n" * 32}
    return KeyRing(new | dict(old.keys) if new_first else dict(old.keys) | new)


def test_rotation_seals_everything_anew_while_workers_write(store, keys, store_url, monkeypatch):
    # Would catch a second pseudonym for an original that is looked up while its row is sealed anew.
    monkeypatch.setattr("dicom_deid.store.rotation.STEP", 20)
    before = store.mapping(store.project("p")).resolve(ORIGINALS)
    both = ring(keys, new_first=True)
    stop, said = threading.Event(), []

    def work() -> None:
        number = 0
        with Store.connect(store_url, keys=ring(keys, new_first=False)) as old_worker:
            mapping = Mapping(old_worker.database, old_worker.keys, old_worker.project("p"), cache_size=1)
            while not stop.is_set() or number < 3:
                said.append(mapping.resolve([*ORIGINALS, Original(Kind.UID, f"new-{number}")]))
                number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with Store.connect(store_url, keys=both) as rotating:
            # Stopped in the middle, then taken up again.
            progress = rotating.rotate(ASKED)
            next(progress)
            progress.close()
            assert max(rotating.rotate(ASKED)) >= len(ORIGINALS) - 20
    finally:
        stop.set()
        worker.join()
    assert all(each.items() >= before.items() for each in said)
    with Store.connect(store_url, keys=both) as last:
        list(last.rotate(ASKED))
    with Store.connect(store_url, keys=KeyRing({"k2": b"n" * 32})) as new:
        assert new.mapping(new.project("p")).resolve(ORIGINALS) == before
        assert len(list(new.crosswalk(new.project("p")).export(ASKED))) == len(ORIGINALS) + len(said)
        assert new.verify().problems == []
    assert store.database.query("test", "SELECT DISTINCT key_id FROM mapping") == [("k2",)]


def test_a_row_moved_or_changed_does_not_open(store):
    project = store.project("p")
    store.mapping(project).resolve(ORIGINALS[:2])
    store.database.query(
        "test",
        "UPDATE mapping SET original = (SELECT original FROM mapping ORDER BY lookup LIMIT 1) "
        "WHERE lookup = (SELECT max(lookup) FROM mapping)",
    )
    with pytest.raises(ConfigurationError, match="does not open"):
        list(store.crosswalk(project).export(ASKED))
