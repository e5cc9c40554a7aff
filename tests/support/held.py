"""Images that the default settings hold: ultrasound with a bright banner, of several devices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tests.support.datasets import Encoding, element, part10

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
ROWS, COLUMNS, BANNER_ROWS = 64, 96, 8


class Device(NamedTuple):
    """Attributes that distinguish devices."""

    manufacturer: str
    model: str
    software: str = "1.0"


def held_image(
    device: Device,
    *,
    number: int = 1,
    name: str = "Roe^Jane",
    patient_id: str = "P1",
    comment: str = "",
    frames: int = 1,
    modality: str = "US",
    sop_class: str = ULTRASOUND,
    banner_rows: int = BANNER_ROWS,
    text: str = "",
) -> bytes:
    """Return an 8-bit image with a bright banner in its first rows.

    Parameters
    ----------
    number
        Distinguishes the objects of a patient.
    text
        A line that is burned in below the banner.
    """
    # Smooth: the text search takes a few of a thousand images of noise for text.
    slope = np.add.outer(np.arange(ROWS), np.arange(COLUMNS)) // 2 + 20 + number % 40
    pixels = np.add.outer(np.arange(frames), slope).astype(np.uint8)
    pixels[:, :banner_rows] = 255
    if text:
        line = Image.new("L", (COLUMNS, ROWS))
        ImageDraw.Draw(line).text((4, 24), text, fill=255, font=ImageFont.load_default(16))
        pixels = np.maximum(pixels, np.asarray(line))
    study = f"1.2.3.{int.from_bytes(patient_id.encode())}"
    elements = [
        element("SpecificCharacterSet", "ISO_IR 192"),
        element("SOPClassUID", sop_class),
        element("SOPInstanceUID", f"{study}.1.{number}"),
        element("ImageType", "ORIGINAL\\PRIMARY\\AXIAL"),
        element("Modality", modality),
        element("Manufacturer", device.manufacturer),
        element("ManufacturerModelName", device.model),
        element("SoftwareVersions", device.software),
        element("PatientName", name),
        element("PatientID", patient_id),
        element("StudyInstanceUID", study),
        element("SeriesInstanceUID", f"{study}.1"),
        element("SamplesPerPixel", 1),
        element("PhotometricInterpretation", "MONOCHROME2"),
        element("Rows", ROWS),
        element("Columns", COLUMNS),
        element("BitsAllocated", 8),
        element("BitsStored", 8),
        element("HighBit", 7),
        element("PixelRepresentation", 0),
        element("PixelData", pixels.tobytes(), "OB"),
    ]
    if frames > 1:
        elements.append(element("NumberOfFrames", frames))
    if comment:
        elements.append(element("ImageComments", comment))
    return part10(elements, Encoding(codec="utf-8"))


def held_images(device: Device, *, patients: int, images: int) -> dict[str, bytes]:
    """Return images of a device by source keys."""
    return {
        f"{device.model}/{patient}/{image}.dcm": held_image(
            device, number=1000 * patient + image, name=f"Name{patient}^A", patient_id=f"PID{patient}"
        )
        for patient in range(patients)
        for image in range(images)
    }
