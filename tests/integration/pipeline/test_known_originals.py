"""Originals of the patient's other objects are search terms, whatever the threads do and also after a kill."""

from __future__ import annotations

import random

import pytest
from tests.integration.pipeline.test_killed import Workers, left_behind
from tests.support.datasets import element, part10
from tests.support.killable import POINTS
from tests.support.runs import CALM, RunEnvironment

from dicom_deid.engine import PatientTermIndex
from dicom_deid.exceptions import ObjectStoreError, Quarantine
from dicom_deid.pipeline import RunConfiguration, plan_run, process_object, report_run
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.reasons import Reason
from dicom_deid.score.identity import Patient


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def an_object(number: int, patient: str, name: str = "", text: str = "", **more: str) -> bytes:
    values = {
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": f"1.2.826.0.1.99.{number}",
        "StudyInstanceUID": "1.2.826.0.1.5",
        "SeriesInstanceUID": "1.2.826.0.1.6",
        "Modality": "CT",
        "PatientName": name,
        "PatientID": patient,
        "SeriesDescription": text,
    }
    elements = [element(keyword, value) for keyword, value in (values | more).items()]
    return part10([*elements, element("PixelData", bytes(range(200)), "OW")])


def configuration(place: RunEnvironment, policy: str = "quarantine", **changes: object) -> RunConfiguration:
    return place.configuration(settings=CALM.replace(residuals=policy), **changes)


def test_a_name_that_only_another_object_of_the_patient_has(place: RunEnvironment) -> None:
    """The second object has the name in its description only; the same words of another patient are left."""
    place.put(
        {
            "1.dcm": an_object(1, "P-10", "Doe^John"),
            "2.dcm": an_object(2, "P-10", "", "John Doe, knee"),
            "3.dcm": an_object(3, "P-11", "", "John Doe, knee"),
            "4.dcm": an_object(4, "", "Roe^Jane", StudyInstanceUID="1.2.826.0.1.7"),
            "5.dcm": an_object(5, "", "", "Roe", StudyInstanceUID="1.2.826.0.1.7"),
            "6.dcm": an_object(6, "", "", "Roe", StudyInstanceUID="1.2.826.0.1.8"),
        }
    )
    ran = place.run(configuration(place))
    found = ("quarantined", "residual-found")
    written = ("deidentified", None)
    assert [ran.outcomes[f"{n}.dcm"] for n in range(1, 7)] == [written, found, written, written, found, written]
    found_in = "SeriesDescription, original value of PatientName"
    assert {row.detail.split(" at ")[0] for row in ran.rows if row.reason} == {found_in}


def test_originals_of_a_quarantined_object_are_found_also_in_a_retry(place: RunEnvironment) -> None:
    """A screen shot is quarantined before its originals are swept; the images after it may have its name in a text."""
    place.put(
        {
            "1.dcm": an_object(1, "P-10", "Doe^John", Modality="OT"),
            "2.dcm": an_object(2, "P-10", "", "John Doe, knee"),
            "3.dcm": b"no DICOM",
            "4.dcm": an_object(4, "P-10", "", "Doe"),
        }
    )
    settings = CALM.replace(residuals="quarantine", pixel_risk="quarantine")
    asked = iter([False, False, True])
    stopped = place.configuration(settings=settings, transfers=1, in_flight_bytes=1)
    planned = plan_run(stopped, place.connections)
    first = place.work(stopped, planned, should_stop=lambda: next(asked, True))
    rest = place.work(stopped, planned)
    assert first.rows
    assert rest.rows
    assert first.outcomes | rest.outcomes == {
        "1.dcm": ("quarantined", "pixel-risk"),
        "2.dcm": ("quarantined", "residual-found"),
        "3.dcm": ("quarantined", "not-dicom"),
        "4.dcm": ("quarantined", "residual-found"),
    }


@pytest.mark.parametrize("problem", ["deleted", "replaced", "unreadable", Reason.ARCHIVED, Reason.OBJECT_DAMAGED])
def test_a_recorded_object_that_cannot_be_read_again_blocks_nothing(place, monkeypatch, problem: str) -> None:
    """What the first attempt learned from it is in the database: the objects behind it are searched for it."""
    place.put(
        {
            "1.dcm": an_object(1, "P-10", "Doe^John"),
            "2.dcm": an_object(2, "P-10", "", "axial"),
            "3.dcm": an_object(3, "P-10", "", "seen with Doe"),
            "4.dcm": an_object(4, "P-11", "", "seen with Doe"),
        }
    )
    stopped = configuration(place, transfers=1, in_flight_bytes=1)
    planned = plan_run(stopped, place.connections)
    asked = iter([False, True])
    first = place.work(stopped, planned, should_stop=lambda: next(asked, True))
    assert first.outcomes == {"1.dcm": ("deidentified", None)}
    if problem == "deleted":
        place.s3.client().delete_object(Bucket=place.bucket, Key="in/1.dcm")
    elif problem == "replaced":
        place.put({"1.dcm": b"another object"})
    else:
        original = process_object.read_patient_terms

        def fails(engine, store, key, **options):
            if key == "1.dcm":
                if isinstance(problem, Reason):
                    raise Quarantine(problem)
                raise ObjectStoreError("reading an object: the store answered 500")
            return original(engine, store, key, **options)

        monkeypatch.setattr(process_object, "read_patient_terms", fails)
    assert place.work(stopped, planned).outcomes == {
        "2.dcm": ("deidentified", None),
        "3.dcm": ("quarantined", "residual-found"),
        "4.dcm": ("deidentified", None),
    }


def drawn(seed: int, count: int = 120, *, often: float = 0.3) -> dict[str, bytes]:
    """Objects of a few patients, the first named and others now and then; some name any of them in a text."""
    rng = random.Random(seed)
    people = [Patient.draw(rng) for _ in range(5)]
    objects: dict[str, bytes] = {}
    met = set()
    for number in range(count):
        patient, named = rng.choice(people), rng.choice(people)
        name = patient.name if patient.name not in met or rng.random() < often else ""
        met.add(patient.name)
        text = f"seen {named.name.split('^')[rng.randrange(2)]}" if rng.random() < 0.4 else "axial"
        objects[f"{number:04d}.dcm"] = an_object(number, patient.patient_id, name, text)
    return objects


def model(configuration: RunConfiguration, objects: dict[str, bytes]) -> dict[str, str]:
    """Outcomes as one thread gives them that takes one object after the other."""
    deidentifier = make_deidentifier(configuration)
    known, placeholders = PatientTermIndex(), PreviewPseudonyms()
    outcomes = {}
    for key, data in sorted(objects.items()):
        others = known.add_and_get(*deidentifier.patient_terms(data))
        try:
            analysis = deidentifier.search_patient_terms(deidentifier.analyse(data), others)
            deidentifier.rewrite(analysis, placeholders.resolve(analysis.identifiers))
            outcomes[key] = "deidentified"
        except Quarantine:
            outcomes[key] = "quarantined"
    return outcomes


def test_what_is_found_does_not_depend_on_threads_or_room(place: RunEnvironment) -> None:
    """Catches knowledge that comes too late because an object was read, or written, sooner than another."""
    objects = drawn(1)
    place.put(objects)
    expected = model(configuration(place), objects)
    assert {"deidentified", "quarantined"} == set(expected.values())
    for number, options in enumerate([{"transfers": 1}, {"transfers": 16}, {"transfers": 7, "in_flight_bytes": 1}]):
        ran = place.run(configuration(place, destination=f"s3://{place.bucket}/out{number}", **options))
        assert {key: outcome for key, (outcome, _) in ran.outcomes.items()} == expected


@pytest.mark.parametrize("policy", ["quarantine", "redact-token"])
def test_a_killed_worker_is_run_again_with_the_same_result(place: RunEnvironment, policy: str) -> None:
    """A retry reads the recorded objects again for their search terms."""
    objects = drawn(3, often=0)
    place.put(objects)
    workers = Workers()
    settings = {"transfers": 4, "in_flight_bytes": 2**18, "batch_objects": 120}
    disturbed = configuration(place, policy, **settings)
    planned = plan_run(disturbed, place.connections)
    kills = [(point, passage) for point in POINTS for passage in (1, 25) if passage == 1 or point.endswith("-write")]
    killed = sum(workers.work(disturbed, place.connections, planned, kill) == -9 for kill in kills)
    assert killed >= 6
    workers.work(disturbed, place.connections, planned, None)
    written, _, audit = left_behind(place)
    outcomes = {row[0]: row[-1] for row in audit}
    undisturbed = configuration(place, policy, destination=f"s3://{place.bucket}/undisturbed", **settings)
    workers.work(undisturbed, place.connections, plan_run(undisturbed, place.connections), None)
    workers.close()
    assert place.get("undisturbed") == written
    sql = "SELECT DISTINCT d.key_hash::text, a.outcome FROM audit a JOIN processed_object d USING (object_id)"
    again = {row[0]: row[1] for row in place.query(sql)}
    assert again == outcomes
    if policy == "quarantine":
        assert len(written) == list(model(disturbed, objects).values()).count("deidentified")


def test_of_two_objects_of_one_instance_the_first_is_written(place: RunEnvironment) -> None:
    """The other one is the conflict, whichever thread is quicker."""
    objects = {}
    for number in range(30):
        objects[f"{number:03d}a.dcm"] = an_object(number, "P-1", text="first")
        objects[f"{number:03d}b.dcm"] = an_object(number, "P-1", text="second")
    place.put(objects)
    ran = place.run(configuration(place, "off"))
    assert {key for key, outcome in ran.outcomes.items() if outcome == ("deidentified", None)} == {
        key for key in objects if key.endswith("a.dcm")
    }
    assert all(ran.outcomes[key] == ("quarantined", "destination-conflict") for key in objects if key.endswith("b.dcm"))


def test_what_an_earlier_run_removed_is_found_in_a_later_one(place: RunEnvironment) -> None:
    """Its batches see none of the objects that named the patient; another project knows nothing of the patient."""
    place.put({"1.dcm": an_object(1, "P-10", "Doe^John")})
    assert place.run(configuration(place)).outcomes["1.dcm"] == ("deidentified", None)
    place.put({"2.dcm": an_object(2, "P-10", "", "John Doe, knee"), "3.dcm": an_object(3, "P-11", "", "John Doe")})
    other = place.run(configuration(place, project="other", destination=f"s3://{place.bucket}/other"))
    # In a batch with the first object, the second is found; the stored terms are of the first project.
    assert other.outcomes["2.dcm"] == ("quarantined", "residual-found")
    later = place.run(configuration(place))
    assert later.outcomes["2.dcm"] == ("quarantined", "residual-found")
    assert later.outcomes["3.dcm"] == ("deidentified", None)


def test_terms_of_a_run_do_not_change_what_its_own_retry_finds(place: RunEnvironment) -> None:
    """Catches a retry that knows more than the first attempt did, and so writes other bytes."""
    settings = configuration(place, batch_objects=1)
    place.put({"1.dcm": an_object(1, "P-10", "", "John Doe, knee"), "2.dcm": an_object(2, "P-10", "Doe^John")})
    first = place.run(settings)
    assert set(first.outcomes.values()) == {("deidentified", None)}
    place.put({"3.dcm": an_object(3, "P-10", "", "seen by Doe")})
    assert place.run(settings).outcomes["3.dcm"] == ("quarantined", "residual-found")


def test_an_object_written_before_a_name_was_known_is_replaced_by_the_next_run(place: RunEnvironment) -> None:
    """Whatever the order of arrival, the same objects are held; what differs from study to study plans nothing."""
    place.put(
        {
            "1.dcm": an_object(1, "P-10", "", "John Doe, knee"),
            "2.dcm": an_object(2, "P-10", "", "knee", AccessionNumber="A-77665"),
            "3.dcm": an_object(3, "P-11", "", "John Doe, knee"),
        }
    )
    first = place.run(configuration(place))
    assert {outcome for outcome, _ in first.outcomes.values()} == {"deidentified"}
    assert report(place, first).lacking_terms == 0
    place.put({"4.dcm": an_object(4, "P-10", "Doe^John", AccessionNumber="A-99887")})
    second = place.run(configuration(place))
    assert second.planned.summary.why == {"new": 1}
    assert report(place, second).lacking_terms == 2
    third = place.run(configuration(place))
    assert third.planned.summary.why == {"terms": 2}
    assert third.planned.summary.superseding == {"terms": 2}
    assert third.outcomes == {"1.dcm": ("quarantined", "residual-found"), "2.dcm": ("deidentified", None)}
    assert report(place, third).lacking_terms == 0
    with place.connections.open_database() as database:
        held = database.trace("1.dcm")[-1]
        assert (held.outcome, held.replaced_key) == ("quarantined", database.trace("1.dcm")[0].destination_key)
        assert database.verify().problems == []
    # The copy that holds the name is deleted: of the three that remain one is the other patient's.
    assert sum(b"Doe, knee" in data for data in place.get().values()) == 1
    assert len(place.get()) == 3
    place.put({"5.dcm": an_object(5, "P-10", "Doe^John", ReferringPhysicianName="Miller^Ada")})
    assert report(place, place.run(configuration(place))).lacking_terms == 0
    assert place.run(configuration(place)).planned.summary.planned == 0


def test_objects_of_a_patient_in_two_batches_at_a_time(place: RunEnvironment) -> None:
    """Neither batch knows what the other finds; the next run does."""
    place.put(
        {
            "1.dcm": an_object(1, "P-10", "", "John Doe, knee"),
            "2.dcm": an_object(2, "P-10", "Doe^John"),
        }
    )
    parts = configuration(place, batch_objects=1, batch_bytes=1)
    first = place.run(parts)
    assert len(first.planned.summary.batches) == 2
    assert report(place, first).lacking_terms == 1
    assert place.run(parts).outcomes == {"1.dcm": ("quarantined", "residual-found")}
    assert place.run(parts).planned.summary.planned == 0


def report(place: RunEnvironment, ran):
    return report_run(place.connections, run_id=ran.planned.run_id)
