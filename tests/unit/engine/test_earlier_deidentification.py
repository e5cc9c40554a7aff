"""Attributes about the de-identification: what earlier ones wrote stays; and identifiers that are absent."""

from __future__ import annotations

import pytest
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element
from tests.support.engine import RULES_ALONE, read, run

from dicom_deid.engine.profiles import profile_settings, recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

DESKTOP, BASIC = Recipe.named("desktop"), Recipe.resolve(*recipe_names())
PLAIN = Encoding()
PROFILE = profile_settings((), RULES_ALONE)
EARLIER = [[element("CodeValue", "99001"), element("CodingSchemeDesignator", "99X"), element("CodeMeaning", "Ours")]]


def an_object(*extra: Element, encoding: Encoding = PLAIN) -> bytes:
    common = [
        element("SOPClassUID", datasets.CT_IMAGE),
        element("SOPInstanceUID", "1.2.3.4.77"),
        element("PatientName", "Okonkwo^Adaeze"),
    ]
    return datasets.part10([*common, *extra], encoding)


@pytest.mark.parametrize("lengths", ["defined", "undefined"])
@pytest.mark.parametrize("syntax", [datasets.EXPLICIT_LE, datasets.IMPLICIT_LE, datasets.EXPLICIT_BE])
def test_methods_and_codes_are_added(syntax: str, lengths: str) -> None:
    encoding = Encoding(syntax, sequences=lengths)
    data = an_object(
        element("DeidentificationMethod", "CTP 2019"), Element(0x00120064, "SQ", EARLIER), encoding=encoding
    )
    once = run(data, BASIC, PROFILE).to_bytes()
    twice = run(once, BASIC, PROFILE).to_bytes()
    methods = list(read(once).DeidentificationMethod)
    assert methods[0] == "CTP 2019"
    assert list(read(twice).DeidentificationMethod) == methods != ["CTP 2019"]
    for new in (read(once), read(twice)):
        assert [one.CodeValue for one in new.DeidentificationMethodCodeSequence] == ["99001", "113100"]


def test_an_empty_sequence_of_codes_is_filled() -> None:
    new = read(run(an_object(Element(0x00120064, "SQ", [])), BASIC, PROFILE))
    assert [one.CodeValue for one in new.DeidentificationMethodCodeSequence] == ["113100"]


@pytest.mark.parametrize(
    "extra",
    [
        Element(0x00120063, "SQ", [[element("OperatorsName", "Brandvold^Sigrid")]]),
        Element(0x00120063, "OB", b"Brandvold^Sigrid"),
        Element(0x00120064, "LO", "Brandvold^Sigrid"),
        Element(0x00120064, "LO", ""),
    ],
    ids=["sequence", "bytes", "text", "empty text"],
)
def test_what_has_another_vr_is_no_earlier_method(extra: Element) -> None:
    """Catches items that no rule reaches because they are taken for a text, and a length of another width."""
    output = run(an_object(extra, encoding=Encoding(sequences="defined")), BASIC, PROFILE).to_bytes()
    assert b"Brandvold" not in output
    new = read(output)
    assert new.DeidentificationMethod[0].startswith("airflow-provider-dicom-deid")
    assert [one.CodeValue for one in new.DeidentificationMethodCodeSequence] == ["113100"]


@pytest.mark.parametrize(
    ("earlier", "now"),
    [("MODIFIED", "MODIFIED"), ("REMOVED", "REMOVED"), ("UNMODIFIED", "UNMODIFIED"), ("", "UNMODIFIED")],
)
def test_dates_do_not_become_unmodified(earlier: str, now: str) -> None:
    data = an_object(element("LongitudinalTemporalInformationModified", earlier))
    assert read(run(data, "REMOVE PatientName")).LongitudinalTemporalInformationModified == now


@pytest.mark.parametrize("syntax", [datasets.EXPLICIT_LE, datasets.IMPLICIT_LE])
def test_an_absent_patient_id_is_keyed_like_an_empty_one(syntax: str) -> None:
    """Two patients of two studies must not be merged, nor one patient of a study be split."""
    objects = [
        run(an_object(*extra, encoding=Encoding(syntax)), DESKTOP) for extra in ((), (element("PatientID", ""),))
    ]
    ids = {read(one).PatientID for one in objects} | {one.identifiers["PatientID"] for one in objects}
    assert len(ids) == 1
    assert ids != {""}


def test_an_absent_patient_id_stays_absent_if_it_is_not_replaced() -> None:
    assert "PatientID" not in read(run(an_object(), "REMOVE PatientName"))


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_without_study_or_series_is_held(missing: str) -> None:
    there = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    elements = [element(keyword, uid) for keyword, uid in there.items() if keyword != missing]
    data = datasets.part10(
        [element("SOPClassUID", datasets.CT_IMAGE), element("SOPInstanceUID", "1.2.3.4.77"), *elements], complete=False
    )
    with pytest.raises(Quarantine) as caught:
        run(data, "REMOVE PatientName")
    assert caught.value.reason is Reason.MISSING_IDENTIFIER


def test_no_object_is_written_without_a_class() -> None:
    """The file meta information is made of the data set; without both it would have an empty class."""
    data = an_object()
    bare = data[data.index(b"\x08\x00\x16\x00UI") :]
    assert read(run(bare, "REMOVE PatientName")).file_meta.MediaStorageSOPClassUID == datasets.CT_IMAGE
    with pytest.raises(Quarantine) as caught:
        run(bare, "REMOVE SOPClassUID")
    assert caught.value.reason is Reason.MISSING_IDENTIFIER


def test_an_object_of_no_patient_has_no_study() -> None:
    """Colour palettes are stored with images, and have neither study nor series."""
    palette = [element("SOPClassUID", "1.2.840.10008.5.1.4.39.1"), element("SOPInstanceUID", "1.2.3.4.77")]
    new = read(run(datasets.part10(palette, complete=False), DESKTOP))
    assert "StudyInstanceUID" not in new
    assert "PatientID" not in new
