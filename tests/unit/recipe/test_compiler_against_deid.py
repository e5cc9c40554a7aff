"""The plan, carried out over pydicom data sets in the plainest way, does what the `deid` package does.

Catches: a wrong precedence, a field expression that selects too much or too little, a protected element that is
touched or a simplified step that mattered. The interpreter below is slow and obvious on purpose: it takes the steps
rule by rule over the whole object, as the language is defined.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from tests.support.recipes import CREATOR, VARIABLES, recipe_texts

from dicom_deid.recipe import (
    Action,
    CompiledRecipe,
    ElementName,
    Function,
    Literal,
    Presence,
    Recipe,
    Step,
    ValueLists,
    Variable,
)

deid_config = pytest.importorskip("deid.config")
with contextlib.redirect_stdout(io.StringIO()):
    from deid.dicom.actions import jitter_timestamp
    from deid.dicom.parser import DicomParser


def generate_value(item: Any, value: Any, field: Any, dicom: Any) -> str:
    return f"G{len(str(field.element.value or ''))}"


FUNCTIONS = {
    "always": lambda item, value, field, dicom: True,
    "never": lambda item, value, field, dicom: False,
    "generate_value": generate_value,
}

PARTS = (
    "person",
    "dates",
    "private",
    "request",
    "references",
    "overlay",
    "pixels",
    "voi",
    "institution",
    "identifiers",
    "meta",
)


def _object(parts: frozenset[str]) -> FileDataset:
    """Make an object that holds every kind of element that precedence distinguishes, as far as `parts` names them."""
    dataset = FileDataset("memory", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.Modality = "CT"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2.3"
    if "meta" in parts:
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    if "person" in parts:
        dataset.PatientName, dataset.PatientID = "Doe^Johanna", "P77"
        dataset.PatientComments = "Johanna was here"
        dataset.OtherPatientIDs = ["A1", "B2"]
        dataset.PatientSize = "1.7"
    if "dates" in parts:
        dataset.StudyDate, dataset.PatientBirthDate, dataset.ContentDate = "20200229", "19610101", ""
        dataset.AcquisitionDateTime = "20200229101112.123456"
    if "institution" in parts:
        dataset.InstitutionName, dataset.OperatorsName = "Clinic", "Roe^Rita"
        dataset.DeviceSerialNumber = "77"
    if "identifiers" in parts:
        dataset.AccessionNumber, dataset.StudyID, dataset.SeriesNumber = "", "S1", 3
    if "private" in parts:
        dataset.add_new(0x00290010, "LO", CREATOR)
        dataset.add_new(0x00291008, "CS", "IMAGE NUM 4")
        dataset.add_new(0x00291077, "LO", "Doe^Johanna")
    if "overlay" in parts:
        dataset.add_new(0x60003000, "OW", b"\0\1")
    if "pixels" in parts:
        dataset.add_new(0x7FE00010, "OW", b"\0\1")
    if "voi" in parts:
        voi = Dataset()
        voi.PatientID = "hidden"
        dataset.VOILUTSequence = Sequence([voi])
    if "request" in parts:
        dataset.RequestAttributesSequence = Sequence([_request("R1"), _request("")])
    if "references" in parts:
        dataset.ReferencedStudySequence = Sequence([_reference()])
    return dataset


def _request(identifier: str) -> Dataset:
    item = Dataset()
    item.RequestedProcedureID = identifier
    item.StudyDate = "20200301"
    return item


def _reference() -> Dataset:
    item = Dataset()
    item.PatientID, item.PatientName = "N5", "Nest^Nora"
    item.ReferencedSOPInstanceUID = "1.2.9"
    item.add_new(0x00290011, "LO", CREATOR)
    item.add_new(0x00291108, "CS", "INNER")
    item.RequestAttributesSequence = Sequence([_request("R2")])
    return item


@dataclass
class ElementContext:
    """An element of an object, with the data set that holds it."""

    holder: Dataset
    name: ElementName
    parents: tuple[DataElement, ...]

    @property
    def element(self) -> DataElement | None:
        alive = all(parent.value for parent in self.parents)
        return self.holder.get(self.name.tag) if alive else None


def _walk(plan: CompiledRecipe, dataset: FileDataset) -> Iterator[ElementContext]:
    """Yield what rules can see; without skipped and kept elements and everything inside them."""
    levels = [(dataset, None, ()), (dataset.file_meta, None, ())]
    kept = {
        element.tag
        for holder, _, _ in levels
        for element in holder
        if plan.is_kept(_name(element, None, holder is dataset.file_meta))
    }
    while levels:
        holder, parent, parents = levels.pop(0)
        for element in holder:
            name = _name(element, parent, holder is dataset.file_meta)
            if plan.is_skipped(name) or element.tag in kept:
                continue
            yield ElementContext(holder, name, parents)
            if element.VR == "SQ":
                levels += [(item, name.nested_name, (*parents, element)) for item in element.value]


def _name(element: DataElement, parent: str | None, file_meta: bool) -> ElementName:
    nested_name = element.keyword if parent is None else f"{parent}__{element.keyword}"
    creator = element.private_creator if element.tag.is_private else None
    return ElementName(
        int(element.tag), element.VR, element.keyword, element.name, nested_name, creator, file_meta, parent is None
    )


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if element.VM > 1:
        return [str(one) for one in value]
    return [] if value is None else [str(value)]


def carry_out(recipe: Recipe, dataset: FileDataset) -> FileDataset:
    plan = CompiledRecipe(recipe)
    places = list(_walk(plan, dataset))
    presence: Presence = plan.presence(place.name for place in places)
    # deid searches a value as the regular expression that it happens to be.
    pairs = [(place.name, _texts(place.element)) for place in places if place.element is not None]
    lists = plan.collect_values(pairs, escape=str)
    if not plan.needs_presence:
        presence = frozenset()
    todo = [(step, place) for place in places for step in plan.steps(place.name, presence)]
    visible = {place.name.tag for place in places if place.name.root}
    for addition in plan.additions:
        if addition.element.tag not in visible:
            holder = dataset.file_meta if addition.element.file_meta else dataset
            place = ElementContext(holder, addition.element, ())
            todo += [(step, place) for step in plan.steps_of_addition(addition, presence)]
    for index in range(len(recipe.rules)):
        at_rule = [(step, place) for step, place in todo if step.rule_index == index]
        for step, place in [pair for pair in at_rule if _applies(pair[0], pair[1], lists)]:
            _take(step, place)
    return dataset


def _applies(step: Step, place: ElementContext, lists: ValueLists) -> bool:
    element = place.element
    if step.action is Action.ADD:
        return True
    if element is None:
        return False
    if step.condition is not None and not _given(step.condition, element):
        return False
    return step.values_list is None or lists.hits(step.values_list, [str(element.value)])


def _take(step: Step, place: ElementContext) -> None:
    element = place.element
    if step.action is Action.ADD:
        if element is None:
            place.holder.add_new(place.name.tag, place.name.vr, _given(step.value, None))
        else:
            element.value = _given(step.value, element)
    elif element is None:
        return
    elif step.action is Action.REMOVE:
        if element.VR == "SQ":
            element.value = []
        del place.holder[place.name.tag]
    elif step.action is Action.BLANK:
        element.value = None
    elif step.action is Action.REPLACE:
        element.value = _given(step.value, element)
    elif element.value:
        assert isinstance(step.value, Literal)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            element.value = jitter_timestamp(_Field(element), int(step.value.text))


@dataclass
class _Field:
    element: DataElement
    name: str = ""


def _given(value: object, element: DataElement | None) -> Any:
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, Variable):
        return VARIABLES[value.name]
    assert isinstance(value, Function)
    return FUNCTIONS[value.name](None, None, element and _Field(element), None)


def _content(dataset: Dataset) -> dict[str, object]:
    found: dict[str, object] = {}
    for element in [*getattr(dataset, "file_meta", []), *dataset]:
        if element.VR == "SQ":
            value: object = [_content(item) for item in element.value or []]
        else:
            value = (element.VR, _texts(element) if element.value is not None else [])
            value = (element.VR, []) if value[1] == [""] else value
        found[f"{element.tag}"] = value
    return found


def _by_deid(text: str, dataset: FileDataset, path: Path) -> FileDataset:
    path.write_text(text)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        parser = DicomParser(dataset, deid_config.DeidRecipe(str(path)))
        for name, value in {**FUNCTIONS, **VARIABLES}.items():
            parser.define(name, value)
        parser.parse()
    return dataset


EVERYTHING = frozenset(PARTS)
HEAD = "FORMAT dicom\n%header\n"


@example(HEAD + "REMOVE ALL\nREPLACE PatientID X\nKEEP StudyDate\nADD StudyDate 20200102\n", EVERYTHING)
@example(HEAD + "KEEP ReferencedStudySequence\nREMOVE PatientID\n", EVERYTHING)
@example(HEAD + "KEEP ReferencedStudySequence__PatientID\nREMOVE PatientID\n", EVERYTHING)
@example(HEAD + "ADD TransferSyntaxUID 1.2\nREMOVE TransferSyntaxUID\n", EVERYTHING)
@example(HEAD + "BLANK StudyDate\nJITTER StudyDate 3\nREPLACE StudyDate 20200102\nJITTER StudyDate 4\n", EVERYTHING)
@example(HEAD + "REMOVE select:VR:SQ\nREPLACE PatientID func:generate_value\n", EVERYTHING)
@example("FORMAT dicom\n%fields ids\nFIELD contains:ReferencedStudy\n%header\nREMOVE fields:ids\n", EVERYTHING)
@example("FORMAT dicom\n%fields ids\nFIELD StudyID\n%header\nADD StudyID X\nBLANK fields:ids\n", frozenset())
@example("FORMAT dicom\n%fields ids\nFIELD PatientID\n%header\nREMOVE PatientID\nREPLACE fields:ids X\n", EVERYTHING)
@example(
    'FORMAT dicom\n%values v\nSPLIT PatientName by="^"\n%header\nREPLACE contains:PatientName X\nBLANK values:v\n'
    "REPLACE contains:PatientName Y\n",
    EVERYTHING,
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(recipe_texts(for_oracle=True), st.frozensets(st.sampled_from(PARTS)))
@pytest.mark.filterwarnings("ignore")
def test_plan_does_what_deid_does(tmp_path: Path, text: str, parts: frozenset[str]) -> None:
    """Catches any difference in which elements are changed, and to what."""
    expected = _by_deid(text, _object(parts), tmp_path / "recipe.dicom")
    assert _content(carry_out(Recipe.parse(text), _object(parts))) == _content(expected)
