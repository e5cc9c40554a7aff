"""Destination keys stay inside the destination, and two identifiers never share one."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.pipeline.destination import DEFAULT_TEMPLATE, KeyTemplate
from dicom_deid.reasons import Reason
from dicom_deid.recipe import CompiledRecipe, Recipe

UIDS = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}


def test_default_template():
    key = KeyTemplate.parse(DEFAULT_TEMPLATE).key({"PatientID": "PAT1234567", **UIDS})
    assert key == "PAT1234567/1.2/1.3/1.4.dcm"


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{PatientID}",
        "{PatientName}/{SOPInstanceUID}",
        "/{SOPInstanceUID}",
        "../{SOPInstanceUID}",
        "a/../{SOPInstanceUID}",
        "a//{SOPInstanceUID}",
        "./{SOPInstanceUID}",
        "{SOPInstanceUID}/",
        "{SOPInstanceUID!r}",
        "{SOPInstanceUID:>99}",
        "{SOPInstanceUID",
        "{SOPInstanceUID.__class__}",
        "{}{SOPInstanceUID}",
        "{0}{SOPInstanceUID}",
        "a b/{SOPInstanceUID}",
        "a\\{SOPInstanceUID}",
    ],
)
def test_refuses_templates_that_are_unsafe_or_do_not_tell_objects_apart(template):
    with pytest.raises(ConfigurationError, match="destination key"):
        KeyTemplate.parse(template)


def test_missing_identifier_is_a_quarantine_that_names_the_keyword():
    for value in (None, "", "  "):
        with pytest.raises(Quarantine, match="PatientID") as caught:
            KeyTemplate.parse(DEFAULT_TEMPLATE).key({"PatientID": value, **UIDS})
        assert caught.value.reason is Reason.MISSING_IDENTIFIER


def test_overlong_key_is_a_quarantine_without_the_value():
    with pytest.raises(Quarantine) as caught:
        KeyTemplate.parse(DEFAULT_TEMPLATE).key({"PatientID": "9" * 2000, **UIDS})
    assert "999" not in str(caught.value)


VALUES = st.text(min_size=1, max_size=20).filter(lambda text: text.strip())


@given(VALUES)
def test_no_value_leaves_its_path_segment(value):
    key = KeyTemplate.parse(DEFAULT_TEMPLATE).key({"PatientID": value, **UIDS})
    assert posixpath.normpath(key) == key
    assert key.count("/") == 3
    assert not key.startswith("/")
    assert key.isascii()


@given(VALUES, VALUES)
def test_two_values_never_share_a_key(one, other):
    template = KeyTemplate.parse(DEFAULT_TEMPLATE)
    keys = {template.key({"PatientID": value, **UIDS}) for value in (one, other)}
    assert len(keys) == len({one.strip(), other.strip()})


def plan(rules):
    return CompiledRecipe(Recipe.parse(f"FORMAT dicom\n%header\n{rules}\n"))


REPLACE_UIDS = """REPLACE StudyInstanceUID func:generate_value
REPLACE SeriesInstanceUID func:generate_value
REPLACE SOPInstanceUID func:generate_value
"""


def test_the_desktop_recipe_fits_the_default_template():
    KeyTemplate.parse(DEFAULT_TEMPLATE).check(CompiledRecipe(Recipe.named("desktop")), follows_references=False)


@pytest.mark.parametrize("option", [None, *Option])
@pytest.mark.parametrize(
    "template", [DEFAULT_TEMPLATE, "{PatientID}/{SOPInstanceUID}.dcm", "{AccessionNumber}/{Modality}/{SOPInstanceUID}"]
)
def test_every_option_of_the_profile_fits_templates_of_identifiers(option, template):
    options = () if option is None else (option,)
    compiled = CompiledRecipe(Recipe.resolve(*recipe_names(options)))
    follows_references = profile_settings(options).follow_uid_references
    KeyTemplate.parse(template).check(compiled, follows_references=follows_references)


@pytest.mark.parametrize(
    "rules",
    [
        REPLACE_UIDS,
        REPLACE_UIDS + "KEEP PatientID\nREPLACE PatientID x",
        REPLACE_UIDS + "REMOVE PatientID",
        REPLACE_UIDS + "JITTER PatientID 1",
        REPLACE_UIDS + "REPLACE PatientID x\nBLANK PatientID",
    ],
)
def test_a_recipe_that_leaves_an_identifier_of_the_template_is_refused(rules):
    with pytest.raises(ConfigurationError, match="PatientID"):
        KeyTemplate.parse(DEFAULT_TEMPLATE).check(plan(rules), follows_references=True)


def test_uids_may_be_kept_on_purpose_or_follow_the_mapping_but_not_be_forgotten():
    template = KeyTemplate.parse("{StudyInstanceUID}/{SOPInstanceUID}")
    template.check(plan("KEEP StudyInstanceUID\nKEEP SOPInstanceUID"), follows_references=False)
    template.check(plan("REPLACE PatientName x"), follows_references=True)
    with pytest.raises(ConfigurationError, match="StudyInstanceUID"):
        template.check(plan("REPLACE SOPInstanceUID func:generate_value"), follows_references=False)
