"""One pseudonym per original, permanently, under any concurrency."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from dicom_deid.database import Database, KeyRing, pseudonyms
from dicom_deid.database.mapping import Mapping
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import Identifier, IdentifierKind

WORKER = """
import json, random, sys
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.database import Database, KeyRing
url, keys, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chance = random.Random(seed)
kinds = list(IdentifierKind)
with Database.connect(url, keys=KeyRing.parse(keys)) as database:
    mapping = database.mapping(database.project("p"))
    for _ in range(rounds):
        wanted = [Identifier(chance.choice(kinds), f"ORIGINAL-{chance.randrange(600)}") for _ in range(120)]
        found = mapping.resolve(wanted)
        print(json.dumps([[o.kind, o.value, p] for o, p in found.items()]), flush=True)
"""


def start(url: str, keys: KeyRing, seed: int, rounds: int) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WORKER, url, keys.to_text(), str(seed), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def answers(text: str) -> list[tuple[str, str, str]]:
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [tuple(each) for line in whole for each in json.loads(line)]


def check_one_to_one(said: list[tuple[str, str, str]]) -> None:
    forwards, backwards = defaultdict(set), defaultdict(set)
    for kind, value, pseudonym in said:
        forwards[kind, value].add(pseudonym)
        if kind != IdentifierKind.DATE_OFFSET:
            backwards[kind, pseudonym].add(value)
    assert all(len(each) == 1 for each in forwards.values())
    assert all(len(each) == 1 for each in backwards.values())


def rows(database: Database) -> int:
    return database.connection.query("test", "SELECT count(*) FROM mapping")[0][0]


def test_eight_processes_agree_on_everything(database, keys, store_url):
    # Overlapping sets in different orders: would catch lost races, duplicates, and deadlocks (a worker would fail).
    workers = [start(store_url, keys, seed, 15) for seed in range(8)]
    said = []
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        said += answers(output)
    check_one_to_one(said)
    identifiers = {(kind, value) for kind, value, _ in said}
    assert len(identifiers) > 2900
    assert rows(database) == len(identifiers)
    counted = database.connection.query("test", "SELECT patient_ids, accession_numbers, study_ids FROM project")[0]
    kinds = (IdentifierKind.PATIENT_ID, IdentifierKind.ACCESSION_NUMBER, IdentifierKind.STUDY_ID)
    assert counted == tuple(sum(kind == each for kind, _ in identifiers) for each in kinds)


@pytest.mark.slow
def test_killed_between_any_two_statements_nothing_is_lost(database, keys, store_url):
    # SIGKILL at random moments; whatever a worker was told before it died must hold for all others afterwards.
    chance = random.Random(4)
    said = []
    for seed in range(6):
        worker = start(store_url, keys, seed, 10_000)
        beginning = worker.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        worker.send_signal(signal.SIGKILL)
        said += answers(beginning + worker.stdout.read())
        worker.wait()
    mapping = Mapping(database.connection, keys, database.project("p"))
    again = mapping.resolve({Identifier(IdentifierKind(kind), value) for kind, value, _ in said})
    assert all(again[Identifier(IdentifierKind(kind), value)] == pseudonym for kind, value, pseudonym in said)
    check_one_to_one(said)


def test_a_batch_of_new_originals_costs_two_round_trips_and_a_known_one_at_most_one(database, keys):
    identifiers = [Identifier(IdentifierKind.UID, f"1.2.{number}") for number in range(1500)]
    mapping = database.mapping(database.project("p"))
    before = database.connection.round_trips
    first = mapping.resolve(identifiers)
    assert database.connection.round_trips - before == 2
    assert mapping.resolve(identifiers) == first
    assert database.connection.round_trips - before == 2
    assert database.mapping(database.project("p")).resolve(identifiers) == first
    assert database.connection.round_trips - before == 3


def test_pseudonyms_have_the_forms_of_the_desktop_application(database):
    project = database.project("forms", {"org_root": "1.2.826.0.1.3680043.10.999", "max_date_offset_days": 10})
    mapping = database.mapping(project)
    found = mapping.resolve([Identifier(kind, f"x{number}") for kind in IdentifierKind for number in range(50)])
    for (kind, _), pseudonym in found.items():
        if kind in pseudonyms.PREFIXES:
            prefix = pseudonyms.PREFIXES[kind]
            assert pseudonym.startswith(prefix)
            assert len(pseudonym) == len(prefix) + 7
            assert pseudonym[len(prefix)] != "0"
        elif kind is IdentifierKind.UID:
            assert pseudonyms.is_uid(pseudonym)
            assert pseudonym.startswith("1.2.826.0.1.3680043.10.999.")
        else:
            assert 0 < abs(int(pseudonym)) <= 10


def test_padding_and_blanks_make_no_difference(database):
    mapping = database.mapping(database.project("p"))
    forms = [Identifier(IdentifierKind.PATIENT_ID, form) for form in ("A 1", " A 1 ", "A 1\0", "\tA 1 \0 ")]
    found = mapping.resolve(forms)
    assert set(found) == set(forms)
    assert len(set(found.values())) == 1
    assert rows(database) == 1


def test_collisions_are_tried_again(database, monkeypatch):
    # Three patients, three possible pseudonyms: nearly every candidate collides.
    monkeypatch.setattr(pseudonyms, "random_identifier", lambda kind, digits: f"PAT{random.randrange(3)}")
    found = database.mapping(database.project("p")).resolve(
        [Identifier(IdentifierKind.PATIENT_ID, each) for each in "abc"]
    )
    assert sorted(found.values()) == ["PAT0", "PAT1", "PAT2"]


def test_digits_grow_before_half_the_range_is_taken(database, monkeypatch):
    monkeypatch.setattr(pseudonyms, "FIRST_DIGITS", 1)
    mapping = database.mapping(database.project("p"))
    for step in range(60):
        found = mapping.resolve([Identifier(IdentifierKind.STUDY_ID, f"{step}-{number}") for number in range(10)])
        # With 10 * step rows and these: at most 40 % of the range is in use.
        assert all((step + 1) * 10 <= 0.4 * 9 * 10 ** (len(each) - 5) for each in found.values())
    assert rows(database) == 600


def test_projects_cannot_be_linked(database):
    identifiers = [Identifier(IdentifierKind.PATIENT_ID, "A"), Identifier(IdentifierKind.UID, "1.2.3")]
    one = database.mapping(database.project("one")).resolve(identifiers)
    two = database.mapping(database.project("two")).resolve(identifiers)
    assert set(one.values()).isdisjoint(two.values())
    assert database.connection.query("test", "SELECT count(DISTINCT keyed_hash), count(*) FROM mapping")[0] == (4, 4)


def test_a_single_patient_id_keeps_date_offsets_per_patient(database):
    project = database.project("single", {"single_patient_id": "TRIAL-1"})
    patients = [Identifier(IdentifierKind.PATIENT_ID, str(number)) for number in range(20)]
    offsets = [Identifier(IdentifierKind.DATE_OFFSET, str(number)) for number in range(20)]
    found = database.mapping(project).resolve(patients + offsets)
    assert {found[each] for each in patients} == {"TRIAL-1"}
    assert len({found[each] for each in offsets}) > 10


def test_derived_uids_need_no_row_and_are_the_same_everywhere(database, second):
    options = {"uid_strategy": "derived"}
    identifiers = [Identifier(IdentifierKind.UID, f"1.2.{number}") for number in range(500)]
    before = database.connection.round_trips
    mapping = database.mapping(database.project("derived", options))
    opened = database.connection.round_trips
    found = mapping.resolve(identifiers)
    assert database.connection.round_trips == opened > before
    assert found == second.mapping(second.project("derived")).resolve(identifiers)
    assert len(set(found.values())) == 500
    assert all(pseudonyms.is_uid(each) for each in found.values())
    assert rows(database) == 0
    other = database.mapping(database.project("derived-too", options)).resolve(identifiers)
    assert set(other.values()).isdisjoint(found.values())


def test_options_are_fixed_and_the_error_names_which(database):
    database.project("fixed", {"max_date_offset_days": 10})
    assert database.project("fixed").options.max_date_offset_days == 10
    with pytest.raises(ConfigurationError, match="another org_root, max_date_offset_days;"):
        database.project("fixed", {"org_root": "1.2.3", "max_date_offset_days": 5, "uid_strategy": "stored"})


def test_another_key_ring_is_refused(store_url, database):
    with (
        Database.connect(store_url, keys=KeyRing.generate()) as stranger,
        pytest.raises(ConfigurationError, match="'k1' is not the key that this schema was used with"),
    ):
        stranger.project("p")
    with (
        Database.connect(store_url, keys=KeyRing.generate("k9")) as stranger,
        pytest.raises(ConfigurationError, match="lacks key 'k1'"),
    ):
        stranger.project("p")
    with Database.connect(store_url) as keyless, pytest.raises(ConfigurationError, match="keys are needed"):
        keyless.project("p")


def test_threads_share_a_mapping_with_a_small_cache(database, keys):
    mapping = Mapping(database.connection, keys, database.project("p"), cache_size=40)
    said, failures = [], []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(20):
                wanted = [Identifier(IdentifierKind.UID, str(chance.randrange(200))) for _ in range(30)]
                said.extend((o.kind, o.value, p) for o, p in mapping.resolve(wanted).items())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_one_to_one(said)


def test_no_original_is_stored_in_clear(database, steps, tmp_path: Path):
    # Every table of the schema, dumped as text: would catch an identifier, or a source key, stored as it is.
    secret = ["PHI-PATIENT-77", "1.2.840.113619.777"]
    mapping = database.mapping(database.project("p"))
    mapping.resolve([Identifier(IdentifierKind.PATIENT_ID, secret[0]), Identifier(IdentifierKind.UID, secret[1])])
    run = steps.begin()
    steps.work(database.plan(run, steps.listing(5)).batches)
    database.finish_run(run, "succeeded")
    tables = database.connection.query(
        "test", "SELECT table_name FROM information_schema.tables WHERE table_schema = 'dicom_deid'"
    )
    text = "".join(
        str([bytes(v) if isinstance(v, memoryview) else v for v in row])
        for (table,) in tables
        for row in database.connection.query("test", f"SELECT * FROM {table}")
    )
    assert "deidentified" in text
    for value in [*secret, "DOE^JOHN"]:
        assert value not in text
        assert value.encode().hex() not in text
