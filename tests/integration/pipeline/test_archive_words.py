"""With `free_text = vocabulary` the archive vouches for words that occur for many patients of the project."""

from __future__ import annotations

import pytest
from tests.integration.pipeline.test_known_originals import an_object
from tests.support.engine import read
from tests.support.runs import CALM, RunEnvironment

from dicom_deid.database import AccessReason
from dicom_deid.database.archive_words import frequent_words
from dicom_deid.pipeline import plan_run

ACCESS = AccessReason(person="test", reason="erasure is requested")


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def described(place: RunEnvironment, source: str, texts: dict[str, str], **more: str) -> None:
    """Put one object for each patient."""
    place.put(
        {
            f"{patient}.dcm": an_object(
                1000 * len(source) + number, patient, f"Torvelin{chr(97 + number)}^Anna", text, **more
            )
            for number, (patient, text) in enumerate(texts.items())
        },
        source,
    )


def configured(place: RunEnvironment, source: str, least: int = 3):
    settings = CALM.replace(free_text="vocabulary", residuals="quarantine")
    return place.configuration(source=f"s3://{place.bucket}/{source}", settings=settings, word_patients=least)


def written(place: RunEnvironment) -> set[str]:
    return {read(data).SeriesDescription for data in place.get().values()}


def test_a_word_of_many_patients_stays_from_the_next_run_on(place: RunEnvironment) -> None:
    described(place, "first", {f"P-{n}": "Zentralklinik knee" for n in range(3)})
    place.run(configured(place, "first"))
    assert written(place) == {"************* knee"}
    described(place, "second", {"P-9": "Zentralklinik knee"})
    place.run(configured(place, "second"))
    assert written(place) == {"************* knee", "Zentralklinik knee"}


def test_a_word_of_few_patients_stays_masked_however_often_it_occurs(place: RunEnvironment) -> None:
    described(place, "first", {"P-1": "Zentralklinik knee", "P-2": "Zentralklinik hip"})
    place.run(configured(place, "first"))
    described(place, "second", {"P-1": "Zentralklinik foot", "P-2": "Zentralklinik hand"})
    place.run(configured(place, "second"))
    described(place, "third", {"P-3": "Zentralklinik knee"})
    place.run(configured(place, "third"))
    assert all("Zentralklinik" not in text for text in written(place))


@pytest.mark.parametrize("name", ["Quellmann", "Schneider"])
def test_the_name_of_a_physician_of_many_patients_stays_masked(place: RunEnvironment, name: str) -> None:
    """One that an element of one object holds, and one that is a common surname and in no element."""
    texts = {f"P-{n}": f"knee {name}" for n in range(5)}
    described(place, "first", texts)
    if name == "Quellmann":
        place.put({"6.dcm": an_object(77, "P-6", "Doe^Jim", "hip", ReferringPhysicianName=f"{name}^Eva")}, "first")
    place.run(configured(place, "first"))
    described(place, "second", {"P-9": f"knee {name}"})
    place.run(configured(place, "second"))
    assert not any(name in text for text in written(place))


def test_the_words_of_a_run_are_fixed_when_it_is_planned(place: RunEnvironment) -> None:
    """A retry gives the same bytes, and what is known later does not plan objects again."""
    described(place, "first", {f"P-{n}": "Zentralklinik knee" for n in range(3)})
    described(place, "second", {"P-9": "Zentralklinik knee"})
    late = configured(place, "second").replace(external_id="late")
    planned = plan_run(late, place.connections)
    place.run(configured(place, "first"))
    again = plan_run(late, place.connections)
    assert again.run_id == planned.run_id
    assert again.configuration.archive_words == planned.configuration.archive_words
    place.work(again.configuration, again)
    assert written(place) == {"************* knee"}
    assert plan_run(configured(place, "second"), place.connections).summary.planned == 0


def test_words_are_encrypted_reported_for_several_patients_and_erased_with_them(place: RunEnvironment) -> None:
    texts = {f"P-{n}": "Zentralklinik knee" for n in range(3)} | {"P-5": "Quellmann knee"}
    described(place, "first", texts)
    place.run(configured(place, "first"))
    with place.connections.open_database() as database:
        project = database.project("test")
        assert [(one.word, one.patients) for one in frequent_words(database.connection, project, patients=1)] == [
            ("zentralklinik", 3)
        ]
        stored = database.connection.query("test", "SELECT word, word_hash::text FROM archive_word")
        assert len(stored) == 4
        assert not any(b"klinik" in bytes(word) for word, _ in stored)
        database.connection.query("test", "UPDATE processed_object SET destination_key = NULL")
        database.erase_patients(project, ["P-0", "P-1"], ACCESS)
        assert frequent_words(database.connection, project, patients=2) == []
