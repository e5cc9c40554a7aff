"""Images and documents where no reader of the pixel data would look for them."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread
from tests.support.engine import pseudonyms
from tests.support.images import image_dataset

from dicom_deid.engine import Deidentifier, DeidentifyResult, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

CT, SECONDARY_CAPTURE, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.276.0.99.1"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
BANNER = """FORMAT dicom
%header
REMOVE PatientName
%filter graylist
LABEL banner
  contains Modality US
  coordinates 0,0,8,2
  clears pixel-risk
"""


def an_image(sop_class: str = CT, modality: str = "CT") -> Dataset:
    dataset = image_dataset(bytes(range(64)), rows=8, columns=8, image_type=("ORIGINAL", "PRIMARY", "AXIAL"))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = modality
    return dataset


def deidentified(dataset: Dataset, recipe: Recipe | None = None, **settings: str) -> DeidentifyResult:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    engine = Deidentifier(recipe or Recipe.named("desktop"), Settings(faces="allow", **settings))
    return engine.deidentify(file.getvalue(), pseudonyms)


def held(dataset: Dataset) -> tuple[Reason, str]:
    with pytest.raises(Quarantine) as caught:
        deidentified(dataset)
    return caught.value.reason, caught.value.where


@pytest.mark.parametrize("sop_class", [CT, SECONDARY_CAPTURE, PRIVATE])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_document_in_an_object_of_another_class(sop_class: str, is_nested: bool) -> None:
    dataset = an_image(sop_class)
    if sop_class != CT:
        del dataset.PixelData
    holder = dataset
    if is_nested:
        holder = Dataset()
        dataset.ReferencedImageSequence = [holder]
    holder.EncapsulatedDocument = b"%PDF-1.7"
    assert held(dataset) == (Reason.ENCAPSULATED_DOCUMENT, "(0042,0011) EncapsulatedDocument")
    assert deidentified(dataset, documents="allow").notes[Reason.ENCAPSULATED_DOCUMENT] == 1
    removing = Recipe.parse("FORMAT dicom\n%header\nREMOVE EncapsulatedDocument\nREMOVE ReferencedImageSequence\n")
    assert b"%PDF" not in deidentified(dataset, removing).to_bytes()
    holder.EncapsulatedDocument = b""
    deidentified(dataset)


@pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, PRIVATE])
def test_overlay_planes_without_an_image_are_an_image(sop_class: str) -> None:
    dataset = an_image(sop_class)
    del dataset.PixelData
    add_plane(dataset)
    assert held(dataset)[0] is Reason.PIXEL_RISK
    assert deidentified(dataset, overlays="remove")


def test_planes_of_a_presentation_state_are_graphics() -> None:
    dataset = an_image(PRESENTATION_STATE, "PR")
    del dataset.PixelData
    add_plane(dataset)
    assert held(dataset)[0] is Reason.GRAPHIC_CONTENT
    assert deidentified(dataset, documents="allow")


def add_plane(dataset: Dataset) -> None:
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60003000, "OB", b"\x7e" * 8)


@pytest.mark.parametrize("photometric", ["RGB", "PALETTE COLOR", "YBR_FULL_422", "CMYK"])
def test_a_colour_image_of_a_class_that_is_grey(photometric: str) -> None:
    """Workstations write their screens so."""
    dataset = an_image()
    dataset.PhotometricInterpretation = photometric
    assert held(dataset)[0] is Reason.PIXEL_RISK
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.77.1.6", "SM"
    dataset.SpecimenLabelInImage = "NO"
    deidentified(dataset)


def test_thumbnails_at_any_depth_are_removed_with_what_they_show() -> None:
    dataset = an_image("1.2.840.10008.5.1.4.1.1.6.1", "US")
    icon = image_dataset(b"THUMBNAIL" * 7 + b"!", rows=8, columns=8)
    reference = Dataset()
    reference.IconImageSequence = [icon]
    dataset.IconImageSequence = [icon]
    dataset.ReferencedImageSequence = [reference]
    output = deidentified(dataset, Recipe.parse(BANNER), residuals="off").to_bytes()
    assert b"THUMBNAIL" not in output
    again = dcmread(io.BytesIO(output))
    assert not again.pixel_array[:2].any()
    assert again.pixel_array[2:].any()
    assert len(again.ReferencedImageSequence) == 1
