"""Every option of the basic profile, and every pair of options, in a run."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import pydicom
import pytest
from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tests.support.runs import RunEnvironment

from dicom_deid.engine.profiles import Option
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.destination import DEFAULT_TEMPLATE
from dicom_deid.pipeline.recipes import recipes_and_settings

CT, SR, PR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.11.1"
TEXT = "Brandvold"
CREATOR = "Philips PET Private Group"


@pytest.fixture
def place(s3, s3_bucket, postgres_url):
    return RunEnvironment(s3, s3_bucket, postgres_url)


def common(sop_class: str, modality: str) -> Dataset:
    """Return a data set with one element for every option."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, generate_uid(), modality
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientAge = f"{TEXT}^Sigrid", "MRN7788123", "061Y"
    dataset.StudyDate, dataset.StudyDescription = "20210314", f"thorax for {TEXT}"
    dataset.DeviceSerialNumber, dataset.InstitutionName = "SN445566", "Example Hospital"
    block = dataset.private_block(0x7053, CREATOR, create=True)
    block.add_new(0x00, "DS", "1.25")
    dataset.private_block(0x0099, "ACME 1", create=True).add_new(0x01, "LO", "something")
    return dataset


def image() -> Dataset:
    dataset = common(CT, "CT")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", bytes(16)
    dataset["PixelData"].VR = "OB"
    return dataset


def report() -> Dataset:
    dataset = common(SR, "SR")
    dataset.ValueType = "CONTAINER"
    name, item = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "7", "99LOCAL", "Remark"
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", f"nodule in {TEXT}"
    item.ConceptNameCodeSequence = [name]
    dataset.ContentSequence = [item]
    return dataset


def presentation() -> Dataset:
    dataset = common(PR, "PR")
    text, annotation = Dataset(), Dataset()
    text.UnformattedTextValue = f"nodule in {TEXT}"
    annotation.TextObjectSequence = [text]
    dataset.GraphicAnnotationSequence = [annotation]
    return dataset


def part10(dataset: Dataset) -> bytes:
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(target := io.BytesIO(), dataset, enforce_file_format=True)
    return target.getvalue()


def safe_private(dataset: Dataset) -> bool:
    creators = {element.value for element in dataset if element.tag.is_private_creator}
    return creators == {CREATOR}


def remark(dataset: Dataset) -> str:
    return str(dataset.ContentSequence[0].TextValue)


# By option: the kind of object, and a test of its output.
EXPECTED: dict[Option, tuple[str, Callable[[Dataset, Dataset], bool]]] = {
    Option.RETAIN_SAFE_PRIVATE: ("ct", lambda before, after: safe_private(after)),
    Option.RETAIN_UIDS: ("ct", lambda before, after: after.StudyInstanceUID == before.StudyInstanceUID),
    Option.RETAIN_DEVICE_IDENTITY: ("ct", lambda before, after: after.DeviceSerialNumber == "SN445566"),
    Option.RETAIN_INSTITUTION_IDENTITY: ("ct", lambda before, after: after.InstitutionName == "Example Hospital"),
    Option.RETAIN_PATIENT_CHARACTERISTICS: ("ct", lambda before, after: after.PatientAge == "061Y"),
    Option.RETAIN_LONGITUDINAL_FULL_DATES: ("ct", lambda before, after: after.StudyDate == "20210314"),
    Option.RETAIN_LONGITUDINAL_MODIFIED_DATES: ("ct", lambda before, after: after.StudyDate not in ("", "20210314")),
    Option.CLEAN_DESCRIPTORS: ("ct", lambda before, after: after.StudyDescription.startswith("thorax")),
    Option.CLEAN_STRUCTURED_CONTENT: ("sr", lambda before, after: remark(after).startswith("nodule")),
    Option.CLEAN_GRAPHICS: (
        "pr",
        lambda before, after: "nodule" in after.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue,
    ),
    Option.CLEAN_PIXEL_DATA: (
        "ct",
        lambda before, after: "113101" in {code.CodeValue for code in after.DeidentificationMethodCodeSequence},
    ),
}
EXCLUSIVE = (Option.RETAIN_LONGITUDINAL_FULL_DATES, Option.RETAIN_LONGITUDINAL_MODIFIED_DATES)
COMBINATIONS = [(option,) for option in Option] + [
    pair for pair in itertools.combinations(Option, 2) if pair != EXCLUSIVE
]


TEMPLATES = (DEFAULT_TEMPLATE, "{PatientID}/{SOPInstanceUID}.dcm")


@pytest.mark.slow
def test_every_option_and_every_pair_runs(place):
    """Catches an option that no destination key fits, and one that another option undoes."""
    originals = {"ct": image(), "sr": report(), "pr": presentation()}
    place.put({f"{name}.dcm": part10(dataset) for name, dataset in originals.items()})
    residual = {"residuals": "redact-token"}
    for number, options in enumerate(COMBINATIONS):
        chosen = recipes_and_settings(["ps3.15-basic"], [option.value for option in options], residual)
        out = f"out{number}"
        configuration = place.configuration().from_mapping(
            {
                "source": f"s3://{place.bucket}/in",
                "destination": f"s3://{place.bucket}/{out}",
                "project": f"p{number}",
                "destination_key_template": TEMPLATES[number % 2],
                **chosen,
            }
        )
        ran = place.run(configuration)
        written = place.get(out)
        outputs = {
            row.item.key.removesuffix(".dcm"): pydicom.dcmread(io.BytesIO(written[row.destination_key]))
            for row in ran.rows
            if row.destination_key
        }
        assert "ct" in outputs, (options, ran.outcomes)
        for option in options:
            kind, is_expected = EXPECTED[option]
            assert kind in outputs, (options, ran.outcomes)
            assert is_expected(originals[kind], outputs[kind]), options
        for data in written.values():
            assert TEXT.encode() not in data, options


def test_two_options_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigurationError, match="choose one"):
        recipes_and_settings(["ps3.15-basic"], [option.value for option in EXCLUSIVE], None)
