"""A run configuration travels through XCom unchanged, holds no secret, and refuses what would leak or loop."""

import json
import pickle

import pytest

from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.configuration import RunConfiguration


def configuration(**changes):
    values = {"source": "s3://archive/ct", "destination": "s3://research/ct", "project": "research-1"} | changes
    return RunConfiguration(**values)


def test_json_round_trip_keeps_every_field():
    original = configuration(
        recipes=("desktop", "site.dicom"),
        settings=Settings(private_elements="remove", layout_objects=7),
        variables={"SITE": "A"},
        functions={"f": "os.path:join"},
        quarantine="s3://quarantine/ct",
        newer_than="2024-05-01",
        limit=5,
        airflow_context={"dag": "d"},
        external_id="dag/run",
    )
    assert RunConfiguration.from_json(original.to_json()) == original


def test_pickles_for_worker_processes():
    assert pickle.loads(pickle.dumps(configuration())) == configuration()


def test_partial_settings_and_one_recipe_as_text_are_what_a_form_gives():
    made = RunConfiguration.from_mapping(
        {"source": "a", "destination": "b", "project": "p", "recipes": "desktop", "settings": {"layout_objects": 3}}
    )
    assert made.recipes == ("desktop",)
    assert made.settings == Settings(layout_objects=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "s3://key:secret@archive/ct"}, "keys belong in the connection"),
        ({"source": "gs://archive"}, "scheme gs"),
        ({"source": " "}, "source is empty"),
        ({"source": "s3:///prefix"}, "s3://bucket/prefix"),
        ({"project": " "}, "no name"),
        ({"recipes": ()}, "No recipe"),
        ({"transfers": 0}, "transfers"),
        ({"limit": -1}, "limit"),
        ({"newer_than": "yesterday"}, "newer_than"),
        ({"newer_than": "2024-05-02", "older_than": "2024-05-01"}, "before older_than"),
        ({"destination_key_template": "{PatientName}/{SOPInstanceUID}"}, "PatientName"),
        ({"quarantine": "s3://research/else"}, "destination's bucket"),
        ({"quarantine": "s3://archive/ct/quarantine"}, "overlaps the source"),
        ({"destination": "/data/out", "quarantine": "/data/out/quarantine"}, "destination's bucket"),
    ],
)
def test_refuses_with_what_to_do(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        configuration(**changes)


def test_quarantine_directory_beside_the_destination_directory_is_fine():
    assert configuration(source="/in", destination="/out", quarantine="/quarantine").quarantine == "/quarantine"


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ConfigurationError, match="no field sorce"):
        RunConfiguration.from_mapping({"sorce": "a", "destination": "b", "project": "p"})
    with pytest.raises(ConfigurationError, match="lacks source"):
        RunConfiguration.from_mapping({"destination": "b", "project": "p"})
    with pytest.raises(ConfigurationError, match="no field maxdepth"):
        RunConfiguration.from_mapping({"source": "a", "destination": "b", "project": "p", "settings": {"maxdepth": 3}})
    with pytest.raises(ConfigurationError, match="not JSON"):
        RunConfiguration.from_json("{")


def test_digest_follows_what_decides_the_bytes_and_their_key_and_nothing_else():
    digest = configuration().digest
    decisive = [
        {"settings": Settings(layout_objects=3)},
        {"variables": {"SITE": "B"}},
        {"destination_key_template": "{SOPInstanceUID}"},
    ]
    indifferent = [
        {"transfers": 3},
        {"transfers": 2},
        {"limit": 9},
        {"triggered_by": "x"},
        {"airflow_context": {"a": "b"}},
    ]
    assert all(configuration(**changes).digest != digest for changes in decisive)
    assert all(configuration(**changes).digest == digest for changes in indifferent)


def test_functions_are_imported_or_refused_by_name():
    assert configuration(functions={"f": "json:dumps"}).load_functions() == {"f": json.dumps}
    for path in ("no_such_module:f", "json:no_such", "json:__doc__", "json"):
        with pytest.raises(ConfigurationError, match="func:"):
            configuration(functions={"f": path}).load_functions()
