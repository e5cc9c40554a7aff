"""Withdrawals, erasure and the deletion of projects, in the database."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dicom_deid.database import (
    AccessReason,
    AuditRow,
    BatchItem,
    Database,
    Intent,
    KeyRing,
    ObjectIdentity,
    WithdrawalRequest,
)
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.keys import derive
from dicom_deid.database.patient_terms import PatientTerms
from dicom_deid.database.source_index import IndexedIdentifiers, IndexEntry, SourceIndex
from dicom_deid.database.withdrawals import StillBeingWritten
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.objects import SourceObject
from dicom_deid.reasons import Outcome, Reason

ACCESS = AccessReason(person="Dr Strand", reason="consent withdrawn")


def identity(number: int) -> ObjectIdentity:
    """Return the identifiers of an object: ten objects per patient, five per study and series."""
    patient, study = number // 10, number // 5
    return ObjectIdentity(
        f"MRN-{patient:05d}", f"ACC-{study:05d}", f"1.2.3.{study}", f"1.2.3.{study}.1", f"1.2.4.{number}"
    )


def indexed(number: int) -> IndexedIdentifiers:
    known = identity(number)
    return IndexedIdentifiers(
        patient_id=known.patient_id,
        issuer_of_patient_id="",
        accession_number=known.accession_number,
        study_instance_uid=known.study_instance_uid,
        series_instance_uid=known.series_instance_uid,
    )


def identifiers(number: int) -> dict[Identifier, str]:
    """Return the mapped identifiers of an object with the patient of each."""
    known = identity(number)
    pairs = [
        (IdentifierKind.PATIENT_ID, known.patient_id),
        (IdentifierKind.DATE_OFFSET, known.patient_id),
        (IdentifierKind.ACCESSION_NUMBER, known.accession_number),
        (IdentifierKind.STUDY_ID, f"STUDY-{number // 5}"),
        *((IdentifierKind.UID, uid) for uid in known[2:5]),
        (IdentifierKind.UID, f"1.2.5.{number // 5}.77"),
    ]
    return {Identifier(*pair): known.patient_id for pair in pairs}


def listing(count: int, etag: str = "e") -> list[SourceObject]:
    """Return source objects whose keys name their patients."""
    from tests.integration.database.conftest import WHEN

    return [SourceObject(f"DOE^{identity(n).patient_id}/{n}.dcm", 1000, etag, WHEN) for n in range(count)]


def number_of(item: BatchItem) -> int:
    return int(item.key.rsplit("/", 1)[1].removesuffix(".dcm"))


def process(database: Database, run: str, batches: Iterable, project: str = "p") -> set[int]:
    """Process batches as the pipeline does, and return the numbers of the objects that were written."""
    mapping = database.mapping(database.project(project))
    written = set()
    for reference in batches:
        lease = database.lease(reference.batch_id, "worker")
        items = [item for item in lease.items() if not item.withdrawn]
        owners = {each: patient for item in items for each, patient in identifiers(number_of(item)).items()}
        found = mapping.resolve(owners.keys(), owners)
        rows = []
        for item in items:
            pseudonym = found[Identifier(IdentifierKind.UID, identity(number_of(item)).sop_instance_uid)]
            rows.append(
                AuditRow(
                    item=item,
                    outcome=Outcome.DEIDENTIFIED,
                    destination_key=f"d/{pseudonym}.dcm",
                    destination_etag=f"etag-{number_of(item)}",
                    destination_size=9,
                )
            )
        intents = [
            Intent(item=row.item, destination_key=row.destination_key, identity=identity(number_of(row.item)))
            for row in rows
        ]
        refused = lease.intend(intents)
        rows = [row for row in rows if row.item.item_id not in refused]
        lease.record(rows)
        lease.finish()
        written |= {number_of(row.item) for row in rows}
    return written


def delete_copies(database: Database, withdrawal_id: str, project: str = "p") -> list[str]:
    """Do what the pipeline does after the store has deleted the copies, and return their keys."""
    keys = []
    while group := database.pending_deletions(withdrawal_id, limit=7):
        keys += [each.key for each in group]
        database.record_withdrawn(database.project(project), group)
    database.finish_withdrawal(database.project(project), withdrawal_id)
    return keys


@pytest.fixture
def released(database, steps) -> Database:
    """Return a database with 40 released objects of 4 patients, which are in the index of the source too."""
    run = steps.begin()
    index = SourceIndex(database.connection, database.project("p"), database.run(run).request.source)
    index.add([IndexEntry(source_object=each, identifiers=indexed(n)) for n, each in enumerate(listing(40))])
    assert len(process(database, run, database.plan(run, listing(40), batch_objects=20).batches)) == 40
    database.finish_run(run, "succeeded")
    return database


def pseudonym(database: Database, kind: IdentifierKind, original: str) -> str:
    wanted = Identifier(kind, original)
    return database.mapping(database.project("p")).resolve([wanted])[wanted]


REQUESTS = {
    "patient": (lambda _: {"patients": ["MRN-00001"]}, 10),
    "patient by pseudonym": (lambda db: {"patients": [pseudonym(db, IdentifierKind.PATIENT_ID, "MRN-00001")]}, 10),
    "two patients": (lambda _: {"patients": ["MRN-00001", " MRN-00002 "]}, 20),
    "accession number": (lambda _: {"accession_numbers": ["ACC-00002"]}, 5),
    "study": (lambda _: {"studies": ["1.2.3.2"]}, 5),
    "series by pseudonym": (lambda db: {"series": [pseudonym(db, IdentifierKind.UID, "1.2.3.2.1")]}, 5),
    "object": (lambda _: {"objects": ["1.2.4.17"]}, 1),
    "object by pseudonym": (lambda db: {"objects": [pseudonym(db, IdentifierKind.UID, "1.2.4.17")]}, 1),
    "everything": (lambda _: {"whole_project": True}, 40),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_withdrawn_is_deleted_and_never_written_again(released, steps, name):
    make, count = REQUESTS[name]
    request = WithdrawalRequest(**make(released))
    project = released.project("p")
    planned = released.withdraw(project, request, ACCESS, dry_run=True)
    assert (planned.withdrawal_id, planned.objects, planned.deletions, planned.unknown) == (
        None, count, {"destination": count}, 0,
    )  # fmt: skip
    assert released.pending_deletions() == []
    begun = released.withdraw(project, request, ACCESS)
    keys = delete_copies(released, begun.withdrawal_id)
    assert len(set(keys)) == count
    assert released.verify().problems == []
    # A later run, of other rules and of changed sources, writes none of them, and all others.
    run = steps.begin(recipe_digest="99" * 32)
    summary = released.plan(run, listing(40, etag="changed"))
    assert (summary.withdrawn, summary.planned) == (count, 40 - count)
    if name != "everything":
        assert len(process(released, run, summary.batches)) == 40 - count
    history = released.trace(keys[0])
    assert [row.outcome for row in history][:2] == ["deidentified", "withdrawn"]
    assert released.withdraw(project, request, ACCESS, dry_run=True).objects == 0


def test_a_new_source_object_of_a_withdrawn_patient_is_not_written(released, steps):
    # Only its identifiers tell, after the plan: the source key is new.
    project = released.project("p")
    begun = released.withdraw(project, WithdrawalRequest(patients=["MRN-00004"]), ACCESS)
    assert (begun.objects, begun.unknown) == (0, 1)
    delete_copies(released, begun.withdrawal_id)
    run = steps.begin()
    assert process(released, run, released.plan(run, listing(60)).batches) == set(range(50, 60))
    # From then on they are known to be withdrawn, and come back when the withdrawal is undone.
    assert released.plan(steps.begin(), listing(60)).withdrawn == 10
    assert released.undo_withdrawal(project, begun.withdrawal_id, ACCESS) == 10
    run = steps.begin()
    assert process(released, run, released.plan(run, listing(60)).batches) == set(range(40, 50))


def test_an_object_that_is_being_written_while_it_is_withdrawn_is_deleted_after(released, second, steps):
    run = steps.begin()
    batch = released.plan(run, listing(60)).batches[0]
    lease = released.lease(batch.batch_id, "worker")
    items = lease.items()
    intents = [
        Intent(item=each, destination_key=f"d/new-{number_of(each)}", identity=identity(number_of(each)))
        for each in items
    ]
    assert lease.intend(intents) == set()
    begun = second.withdraw(second.project("p"), WithdrawalRequest(patients=["MRN-00004"]), ACCESS)
    # The worker has written all of them by now, and records.
    deletions = lease.record([steps.row(each.item, destination_key=each.destination_key) for each in intents])
    assert sorted(each.key for each in deletions) == sorted(f"d/new-{n}" for n in range(40, 50))
    assert {each.withdrawal_id for each in deletions} == {begun.withdrawal_id}
    lease.finish()
    assert len(delete_copies(second, begun.withdrawal_id)) == 10
    assert second.verify().problems == []


def test_copies_after_approval_and_in_quarantine_are_withdrawn_too(database, steps):
    run = steps.begin(parameters={"quarantine": "s3://held/"})
    batch = database.plan(run, listing(20)).batches[0]
    lease = database.lease(batch.batch_id, "w")
    for item in lease.items():
        known = identity(number_of(item))
        if number_of(item) % 10 == 0:
            held = steps.row(item, Outcome.QUARANTINED, reason=Reason.PIXEL_RISK, identity=known)
            lease.record([held])
        else:
            lease.intend([Intent(item=item, destination_key=f"d/{item.item_id}", identity=known)])
            lease.record([steps.row(item)])
    lease.finish()
    with database.releasing("p", "s3://released", database.queries.written(database.run(run), limit=None)) as copies:
        assert len(copies) == 18
    begun = database.withdraw(database.project("p"), WithdrawalRequest(patients=["MRN-00001"]), ACCESS)
    assert begun.deletions == {"destination": 9, "release": 9, "quarantine": 1}
    (copy,) = [each for each in database.pending_deletions(begun.withdrawal_id) if each.place == "quarantine"]
    assert copy.source_key(database.project("p"), "s3://in/") == "DOE^MRN-00001/10.dcm"
    assert (copy.url, copy.reason) == ("s3://held/", "pixel-risk")
    delete_copies(database, begun.withdrawal_id)
    with database.releasing("p", "s3://released", database.queries.written(database.run(run), limit=None)) as copies:
        assert len(copies) == 9
    assert database.connection.query("test", "SELECT count(*) FROM released_copy") == [(9,)]
    assert database.verify().problems == []


def test_a_withdrawal_waits_for_copies_that_are_being_made_and_finds_them(released, second):
    """Catches an object that is copied to the place of release after its patient was withdrawn."""
    (run,) = released.runs()
    records = [each for each in released.queries.written(run, limit=None) if each.destination_etag == "etag-10"]
    request = WithdrawalRequest(patients=["MRN-00001"])
    with ThreadPoolExecutor(1) as pool, released.releasing("p", "s3://released", records) as (copy,):
        withdrawing = pool.submit(second.withdraw, second.project("p"), request, ACCESS)
        with pytest.raises(TimeoutError):
            withdrawing.result(timeout=0.5)
        copy.etag = "copied"
    assert withdrawing.result(timeout=30).deletions == {"destination": 10, "release": 1}
    pending = released.pending_deletions(withdrawing.result().withdrawal_id)
    assert [each.etag for each in pending if each.place == "release"] == ["copied"]


def end_session(database: Database, observer: Database) -> None:
    """Close a connection and wait until PostgreSQL has noticed, as after the death of a worker."""
    (pid,) = database.connection.query("test", "SELECT pg_backend_pid()")[0]
    database.connection.close()
    while observer.connection.query("test", "SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)):
        time.sleep(0.01)


@pytest.mark.parametrize("is_held", [False, True])
def test_what_a_dead_worker_wrote_of_a_withdrawn_patient_is_deleted(released, second, steps, is_held):
    """Catches a copy without audit row: the worker died between the write and the record."""
    run = steps.begin(parameters={"quarantine": "s3://held/"})
    batch = released.plan(run, listing(50)).batches[0]
    lease = second.lease(batch.batch_id, "worker")
    what = {"reason": Reason.PIXEL_RISK} if is_held else {"destination_key": "d/orphan"}
    item = lease.items()[0]
    assert lease.intend([Intent(item=item, identity=identity(number_of(item)), **what)]) == set()
    project = released.project("p")
    begun = released.withdraw(project, WithdrawalRequest(patients=["MRN-00004"]), ACCESS)
    assert released.pending_deletions(begun.withdrawal_id) == []
    with pytest.raises(StillBeingWritten, match="1 objects were being written"):
        released.finish_withdrawal(project, begun.withdrawal_id)
    end_session(second, released)
    (copy,) = released.pending_deletions(begun.withdrawal_id)
    if is_held:
        assert (copy.place, copy.url, copy.reason) == ("quarantine", "s3://held/", "pixel-risk")
        assert copy.source_key(project, "s3://in/") == "DOE^MRN-00004/40.dcm"
    else:
        assert (copy.place, copy.key, copy.etag) == ("destination", "d/orphan", None)
    delete_copies(released, begun.withdrawal_id)
    assert released.open_withdrawals() == []
    assert released.plan(steps.begin(), listing(50)).withdrawn == 1
    assert released.verify().problems == []


@pytest.mark.parametrize("first", ["dead", "failed"])
def test_what_an_earlier_attempt_wrote_of_a_withdrawn_patient_is_deleted(released, second, steps, first):
    batch = released.plan(steps.begin(), listing(50)).batches[0]
    lease = second.lease(batch.batch_id, "worker")
    item = lease.items()[0]
    intent = Intent(item=item, destination_key="d/orphan", identity=identity(number_of(item)))
    lease.intend([intent])
    begun = released.withdraw(released.project("p"), WithdrawalRequest(patients=["MRN-00004"]), ACCESS)
    if first == "dead":
        end_session(second, released)
        lease = second.lease(batch.batch_id, "another worker")
        assert lease.intend([intent]) == {item.item_id}
        deletions = lease.record([steps.row(item, Outcome.EXCLUDED)])
    else:
        # The write may have succeeded although its answer was lost.
        deletions = lease.record([steps.row(item, Outcome.FAILED, reason=Reason.STORAGE_ERROR)])
    assert [(each.key, each.withdrawal_id) for each in deletions] == [("d/orphan", begun.withdrawal_id)]
    lease.finish()
    assert delete_copies(released, begun.withdrawal_id) == ["d/orphan"]


def test_an_undone_withdrawal_is_written_again(released, steps):
    project = released.project("p")
    begun = released.withdraw(project, WithdrawalRequest(patients=["MRN-00001"]), ACCESS)
    with pytest.raises(ConfigurationError, match="it is running"):
        released.undo_withdrawal(project, begun.withdrawal_id, ACCESS)
    with pytest.raises(ConfigurationError, match="not deleted yet"):
        released.finish_withdrawal(project, begun.withdrawal_id)
    delete_copies(released, begun.withdrawal_id)
    assert released.undo_withdrawal(project, begun.withdrawal_id, ACCESS) == 10
    run = steps.begin()
    assert process(released, run, released.plan(run, listing(40)).batches) == set(range(10, 20))
    assert released.verify().problems == []
    for wrong in (begun.withdrawal_id, "nonsense"):
        with pytest.raises(ConfigurationError):
            released.undo_withdrawal(project, wrong, ACCESS)


def test_the_memory_of_a_withdrawal_that_was_deleted_by_hand_is_found(released):
    begun = released.withdraw(released.project("p"), WithdrawalRequest(patients=["MRN-00001"]), ACCESS)
    delete_copies(released, begun.withdrawal_id)
    released.connection.query("test", "DELETE FROM withdrawn")
    assert ["remembers 0 identifiers, but 1 were recorded" in each.what for each in released.verify().problems] == [
        True
    ]


def test_a_value_that_means_several_patients_is_refused(database, steps):
    project = database.project("one", {"single_patient_id": "ONE"})
    run = steps.begin(project="one")
    process(database, run, database.plan(run, listing(20)).batches, "one")
    with pytest.raises(ConfigurationError, match="several patients"):
        database.withdraw(project, WithdrawalRequest(patients=["ONE"]), ACCESS)
    with pytest.raises(ConfigurationError, match="Say what to withdraw"):
        WithdrawalRequest()


@pytest.mark.parametrize("number", [0, 7, 2**70])
def test_a_decision_that_the_project_does_not_have_is_refused(released, number):
    """Catches a mistyped number that begins a withdrawal of nothing, which looks like one that was done."""
    other = released.project("other")
    row = "INSERT INTO decision (project_id, action, is_rule, rules, settings, note, person) "
    made = row + "VALUES (%s, 'release', false, '', '{}', '', 'olga') RETURNING decision_id"
    ((of_other,),) = released.connection.query("test", made, (other.project_id,))
    for decision in (number, of_other):
        for dry_run in (True, False):
            with pytest.raises(ConfigurationError, match=f"no decision {decision} in project 'p'"):
                released.withdraw(released.project("p"), WithdrawalRequest(decision=decision), ACCESS, dry_run=dry_run)
    assert released.open_withdrawals() == []
    assert released.withdraw(other, WithdrawalRequest(decision=of_other), ACCESS).objects == 0


def test_deleted_sources_are_reported_and_can_be_withdrawn(released, steps):
    left = listing(40)[:30]
    assert released.plan(steps.begin(), left).deleted == 10
    # A run over a part of the bucket says nothing about the rest, nor does one that is limited.
    below = [each._replace(key=each.key.removeprefix("DOE^MRN-00001/")) for each in left[10:12]]
    assert released.plan(steps.begin(source="s3://in/DOE^MRN-00001"), below).deleted == 8
    assert released.plan(steps.begin(), left, limit=3).deleted == 0
    # A listing without any object is a wrong address rather than a source of which all was deleted.
    assert released.plan(steps.begin(), []).deleted == 0
    run = steps.begin()
    assert released.plan(run, listing(40)[:35]).deleted == 5
    assert released.report(run).deleted_sources == 5
    lost = {each.object_id for each in released.queries.deleted_sources(released.run(run))}
    assert lost == {released.trace(each.key)[-1].object_id for each in listing(40)[35:]}
    begun = released.withdraw(released.project("p"), WithdrawalRequest(deleted_sources=True), ACCESS)
    assert begun.objects == 5
    assert len(delete_copies(released, begun.withdrawal_id)) == 5
    assert released.report(run).deleted_sources == 0
    assert released.verify().problems == []


def dump(url: str) -> str:
    """Return everything that the database holds, as `pg_dump` writes it."""
    from dicom_deid.sandbox.postgresql import server_program

    program = server_program("pg_dump")
    if program.exists():
        done = subprocess.run([program, "--inserts", url], check=True, capture_output=True, text=True)
        return done.stdout
    connection = DatabaseConnection(url)
    tables = connection.query(
        "test",
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'dicom_deid' AND table_type = 'BASE TABLE'",
    )
    rows = [row for (name,) in tables for row in connection.query("test", f"SELECT {name}::text FROM {name}")]
    connection.close()
    return "\n".join(text for (text,) in rows)


def traces(database: Database, keys: KeyRing, values: Iterable[str]) -> dict[str, list[str]]:
    """Return every form in which a value could be in a dump: clear, hex, base64, and digests under every key."""
    project = database.project("p")
    secrets = [*keys.keys.values(), project.secret, database.chain_key]
    purposes = ("keyed hash", "row check", "uid", "source key hash", "source key", f"original {project.project_id}")
    secrets += [derive(secret, purpose) for secret in list(secrets) for purpose in purposes]
    found = {}
    for value in values:
        kinds = [value, *(f"{kind.value}\0{value}" for kind in IdentifierKind)]
        digests = [hmac.digest(secret, each.encode(), "sha256") for secret in secrets for each in kinds]
        digests += [hashlib.sha256(each.encode()).digest() for each in kinds]
        forms = [value, value.encode().hex(), base64.b64encode(value.encode()).decode().rstrip("=")]
        forms += [form for each in digests for form in (each.hex()[:32], base64.b64encode(each).decode()[:20])]
        uuids = [f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}" for h in (each.hex() for each in digests)]
        found[value] = forms + uuids
    return found


def decrypted(text: str, database: Database, keys: KeyRing) -> str:
    """Return all that the keys decrypt in a dump, tried on every value with every row's digest."""
    values = [bytes.fromhex(each[2:]) for each in set(_HEX.findall(text))]
    uuids = [bytes.fromhex(each.replace("-", "")) for each in set(_UUID.findall(text))]
    project = database.project("p")
    hashes = [each for each in values if len(each) == 32]
    plain = []
    ciphers = [project.source_key_cipher, *(keys.cipher(key, f"original {project.project_id}") for key in keys.keys)]
    bounds = uuids + [f"{kind.value}\0".encode() + each for kind in IdentifierKind for each in hashes]
    for value in values:
        if len(value) <= 28 or len(value) in (32, 60):
            continue
        for cipher in ciphers:
            for bound in bounds:
                try:
                    plain.append(cipher.decrypt(value, bound).decode())
                except ConfigurationError:
                    continue
    return "\n".join(plain)


_HEX = re.compile(r"\\x[0-9a-f]+")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_after_erasing_nothing_of_the_patient_is_in_a_dump_with_all_keys(released, keys, store_url, steps):
    project = released.project("p")
    originals = sorted({each.value for number in range(10, 20) for each in identifiers(number)})
    keys_of_patient = [each.key for each in listing(20)[10:]]
    others = sorted({each.value for number in range(20, 30) for each in identifiers(number)})
    pseudonym_of_patient = pseudonym(released, IdentifierKind.PATIENT_ID, "MRN-00001")
    released.crosswalk(project).pseudonyms_of(IdentifierKind.PATIENT_ID, ["MRN-00001"], ACCESS)
    with pytest.raises(ConfigurationError, match="still released"):
        released.erase_patients(project, ["MRN-00001"], ACCESS)
    begun = released.withdraw(project, WithdrawalRequest(patients=["MRN-00001"]), ACCESS)
    delete_copies(released, begun.withdrawal_id)
    before = dump(store_url)
    forms = traces(released, keys, [*originals, *keys_of_patient])
    # The search would find them: before the erasure it does.
    assert all(any(form in before for form in forms[value]) for value in originals)
    assert all(any(form in before for form in forms[value]) for value in keys_of_patient)
    assert released.erase_patients(project, [pseudonym_of_patient], ACCESS) == len(originals) + 1
    after = dump(store_url)
    assert {value for value in forms if any(form in after for form in forms[value])} == set()
    readable = decrypted(after, released, keys)
    assert not [value for value in forms if value in readable.splitlines()]
    assert "DOE^MRN-00002/20.dcm" in readable
    assert "MRN-00002" in readable.splitlines()
    assert released.crosswalk(project).originals_of(IdentifierKind.PATIENT_ID, [pseudonym_of_patient], ACCESS) == []
    kept = traces(released, keys, others)
    assert all(any(form in after for form in kept[value]) for value in others)
    assert released.verify().problems == []
    event = json.loads(
        released.connection.query("test", "SELECT body FROM audit_event WHERE kind = 'patient-erased'")[0][0]
    )
    assert (event["person"], event["objects"]) == ("Dr Strand", 10)
    history = released.trace(f"d/{pseudonym(released, IdentifierKind.UID, '1.2.4.20')}.dcm")
    assert len(history) == 1
    with pytest.raises(ConfigurationError, match="knows nothing"):
        released.erase_patients(project, ["MRN-00001"], ACCESS)


def test_erasing_an_unknown_patient_erases_nobody(released):
    """Catches a mistyped patient among others, who is then believed to be erased."""
    project = released.project("p")
    begun = released.withdraw(project, WithdrawalRequest(patients=["MRN-00001"]), ACCESS)
    delete_copies(released, begun.withdrawal_id)
    with pytest.raises(ConfigurationError, match="knows nothing of 1 of the 2 patients; nothing was erased"):
        released.erase_patients(project, ["MRN-00001", "MRN-0001"], ACCESS)
    assert released.erase_patients(project, ["MRN-00001"], ACCESS) > 0


def test_a_patient_who_is_only_in_the_index_is_erased(released):
    project = released.project("p")
    index = SourceIndex(released.connection, project, "s3://in/")
    # Whoever typed it may have misspelled a name.
    typed = {"BodyPartExamined": "HAND MULLER"}
    index.add([IndexEntry(source_object=listing(51)[50], identifiers=indexed(50), attributes=typed)])
    count = "SELECT (SELECT count(*) FROM index_object), (SELECT count(*) FROM index_attributes)"
    assert released.connection.query("test", count) == [(41, 2)]
    released.erase_patients(project, [identity(50).patient_id], ACCESS)
    assert released.connection.query("test", count) == [(40, 1)]


def test_a_deleted_project_holds_nothing_and_cannot_be_used_again(released, keys, store_url):
    project = released.project("p")
    other = released.project("other")
    released.mapping(other).resolve([Identifier(IdentifierKind.PATIENT_ID, "KEPT")])
    with pytest.raises(ConfigurationError, match="still released"):
        released.delete_project(project, ACCESS)
    begun = released.withdraw(project, WithdrawalRequest(whole_project=True), ACCESS)
    delete_copies(released, begun.withdrawal_id)
    secret = project.secret
    assert released.delete_project(project, ACCESS) == 88
    text = dump(store_url)
    assert secret.hex() not in text
    assert released.queries.crosswalk_sizes() == {"other": {"PatientID": 1}}
    assert [each.name for each in released.projects()] == ["other"]
    for table in ("index_source", "index_attributes", "index_series", "index_object"):
        assert released.connection.query("test", f"SELECT count(*) FROM {table}") == [(0,)]
    with pytest.raises(ConfigurationError, match="was deleted"):
        released.project("p")
    assert released.verify().problems == []


def test_the_search_terms_of_a_patient_last_and_are_erased_with_the_patient(released, store_url):
    project = released.project("p")
    terms = PatientTerms(released.connection, project, datetime.max.replace(tzinfo=UTC))
    of_first = {"Quellmann^Ada": True, "19630704": True}
    terms.add({"MRN-00001": of_first, "MRN-00002": {"Ystergaard^Bo": True}})
    terms.add({"MRN-00001": {"19630704": True}})
    assert {patient: sorted(known) for patient, known in terms.known(["MRN-00001", "MRN-00002", "x"]).items()} == {
        "MRN-00001": ["19630704", "Quellmann^Ada"],
        "MRN-00002": ["Ystergaard^Bo"],
    }
    assert PatientTerms(released.connection, project, datetime.min.replace(tzinfo=UTC)).known(["MRN-00001"]) == {}
    assert not any(name in dump(store_url) for name in ("Quellmann", "Ystergaard"))
    begun = released.withdraw(project, WithdrawalRequest(patients=["MRN-00001"]), ACCESS)
    delete_copies(released, begun.withdrawal_id)
    released.erase_patients(project, ["MRN-00001"], ACCESS)
    assert terms.known(["MRN-00001", "MRN-00002"]) == {"MRN-00002": ["Ystergaard^Bo"]}
