"""The plan, leases and records, as a pipeline uses them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dicom_deid.objects import SourceObject
from dicom_deid.originals import Kind, Original
from dicom_deid.reasons import Outcome, Reason
from dicom_deid.store import AuditRow, KeyRing, RunRequest, Store

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
DIGEST = "ab" * 32


def listing(count: int, *, size: int = 1000, etag: str = "e") -> list[SourceObject]:
    return [SourceObject(f"DOE^JOHN/{number}.dcm", size, etag, WHEN) for number in range(count)]


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest.fixture
def store(postgres_url, keys):
    with Store.connect(postgres_url, keys=keys) as store:
        store.upgrade()
        store.project("p")
        yield store


def begin(store: Store, **changes) -> str:
    request = {
        "project": "p",
        "source": "s3://in/",
        "destination": "s3://out/",
        "recipe_name": "desktop",
        "recipe_digest": DIGEST,
        "settings_digest": DIGEST,
    }
    return store.start_run(RunRequest(**request | changes))


def work(store: Store, summary, outcome=Outcome.DEIDENTIFIED, reason=None) -> list[str]:
    done = []
    for reference in summary.batches:
        lease = store.lease(reference.batch_id, "w")
        if lease is None:
            continue
        items = lease.items()
        lease.record(
            [
                AuditRow(
                    item=item, outcome=outcome, reason=reason, destination_key=f"d{item.item_id}", destination_size=9
                )
                for item in items
            ]
        )
        done += [item.key for item in items]
        lease.finish()
    return done


def test_a_run_does_everything_once_and_the_next_finds_nothing_left(store):
    run = begin(store)
    summary = store.plan(run, listing(1234), target_objects=100)
    assert (summary.listed, summary.already_done, summary.planned) == (1234, 0, 1234)
    assert len(summary.batches) == 13
    assert max(batch.objects for batch in summary.batches) == 100
    assert sorted(work(store, summary)) == sorted(entry.key for entry in listing(1234))
    store.finish_run(run, "succeeded")
    report = store.report(run)
    assert report.outcomes == {"deidentified": 1234}
    assert (report.bytes_in, report.bytes_out, report.open) == (1234000, 1234 * 9, 0)
    again = store.plan(begin(store), listing(1234))
    assert (again.already_done, again.planned, again.batches) == (1234, 0, ())


def test_resolve(store):
    mapping = store.mapping(store.project("p"))
    originals = [Original(Kind.PATIENT_ID, "A"), Original(Kind.PATIENT_ID, "A "), Original(Kind.UID, "1.2.3")]
    found = mapping.resolve(originals)
    assert found[originals[0]] == found[originals[1]]
    assert found == store.mapping(store.project("p")).resolve(originals)


def test_reasons(store):
    run = begin(store)
    work(store, store.plan(run, listing(3)), Outcome.QUARANTINED, Reason.NOT_DICOM)
    report = store.report(run)
    assert report.reasons == {"not-dicom": 3}
    assert report.quarantine_ratio == 1
