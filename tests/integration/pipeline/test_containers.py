"""A source of zip and tar files gives what the same objects give when they are loose."""

import gzip
import io
import tarfile
import zipfile

import pytest
from tests.support.runs import RunEnvironment, small_ct

from dicom_deid.pipeline import plan_run

OBJECTS = {f"series/{number:02}.dcm": small_ct(number) for number in range(12)}


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def zipped(files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(files):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def test_members_are_objects_of_plan_audit_and_quarantine(place):
    items = list(OBJECTS.items())
    encrypted = bytearray(zipped({"secret.dcm": b"secret"}))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    place.put(
        {
            # As the Finder of macOS makes it.
            "a.zip": zipped(
                dict(items[:5])
                | {"notes.txt": b"no DICOM" * 50, ".DS_Store": b"\0\0\0\1Bud1" + bytes(6140)}
                | {f"__MACOSX/._{name}": b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(150) for name, _ in items[:5]}
            ),
            "b.tgz": tarred({"inner.zip": zipped(dict(items[5:8])), **dict(items[8:10])}),
            "c.dcm.gz": gzip.compress(items[10][1]),
            "d.dcm": items[11][1],
            "cut.zip": zipped(dict(items[:2]))[:-30],
            "encrypted.zip": bytes(encrypted),
        }
    )
    first = place.run(batch_objects=4)
    outcomes = first.outcomes
    assert outcomes["a.zip!/series/00.dcm"] == ("deidentified", None)
    assert outcomes["b.tgz!/inner.zip!/series/05.dcm"] == ("deidentified", None)
    assert outcomes["c.dcm.gz!/c.dcm"] == ("deidentified", None)
    excluded = {key: reason for key, (outcome, reason) in outcomes.items() if outcome == "excluded"}
    system_files = {f"a.zip!/__MACOSX/._{name}" for name, _ in items[:5]} | {"a.zip!/.DS_Store"}
    assert excluded == dict.fromkeys(system_files, "system-file")
    held = {key: reason for key, (outcome, reason) in outcomes.items() if outcome == "quarantined"}
    assert held == {
        "a.zip!/notes.txt": "not-dicom",
        "cut.zip": "container-damaged",
        "encrypted.zip!/secret.dcm": "container-encrypted",
    }
    written = place.get()
    assert len(written) == len(OBJECTS)
    # Done is done, member by member.
    assert place.run().planned.summary.planned == 0
    place.put(OBJECTS, prefix="loose")
    place.run(source=f"s3://{place.bucket}/loose", destination=f"s3://{place.bucket}/from-loose")
    assert place.get("from-loose") == written


def test_a_stopped_run_goes_on_inside_the_container(place):
    place.put({"a.zip": zipped(OBJECTS)})
    configuration = place.configuration(batch_objects=100, transfers=1, in_flight_bytes=1)
    calls = []

    def stop_after_some():
        calls.append(1)
        return len(calls) > 4

    planned = plan_run(configuration, place.connections)
    stopped = place.work(configuration, planned, should_stop=stop_after_some)
    done = set(stopped.outcomes)
    assert 0 < len(done) < len(OBJECTS)
    rest = place.work(configuration, planned)
    assert set(rest.outcomes) == {f"a.zip!/{name}" for name in OBJECTS} - done
    assert len(place.get()) == len(OBJECTS)


def test_members_of_a_container_that_cannot_be_opened_do_not_count_as_deleted(place):
    """Catches a truncated upload of a container that withdraws what was released from its members."""
    whole = zipped(OBJECTS)
    place.put({"a.zip": whole, "b.dcm": OBJECTS["series/00.dcm"]})
    place.run()
    place.put({"a.zip": whole[:-30]})
    assert place.run().planned.summary.deleted == 0
    place.put({"a.zip": zipped({"series/00.dcm": OBJECTS["series/00.dcm"]})})
    assert place.run().planned.summary.deleted == len(OBJECTS) - 1
