"""Learned text layouts: where the images of a device show text, so that not every image has to be searched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dicom_deid.engine.pixels.filters import element_text
from dicom_deid.engine.pixels.regions import Region
from dicom_deid.recipe.criteria import criterion_line
from dicom_deid.recipe.filters import Rectangle

if TYPE_CHECKING:
    from pydicom import Dataset

_SAMPLED_ONE_IN = 50
_LONGEST = 64
_SHORTEST_WORD = 3
_PATIENT = (0x00100010, 0x00100020)
_MANUFACTURER, _MODEL, _ULTRASOUND_REGIONS = 0x00080070, 0x00081090, 0x00186011
_DEVICE = {
    "Modality": 0x00080060,
    "Manufacturer": _MANUFACTURER,
    "ManufacturerModelName": _MODEL,
    "SoftwareVersions": 0x00181020,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
}


class TextLayout(NamedTuple):
    """Where text was found in an object.

    Parameters
    ----------
    criteria
        Lines of a filter that select the objects of the same device, software, size and ultrasound layout.
    places
        Rectangles around the text.
    """

    criteria: str
    places: tuple[Rectangle, ...]


def layout_of(header: Dataset, regions: Sequence[Region]) -> TextLayout | None:
    """Return the layout of an object that was searched; None if it has no text or does not name its device.

    Parameters
    ----------
    header
        The object's original root elements.
    regions
        Where text was found.
    """
    values = {keyword: (element_text(header, tag) or "").strip() for keyword, tag in _DEVICE.items()}
    words = patient_words(" ".join(element_text(header, tag) or "" for tag in _PATIENT))
    if not (values["Manufacturer"] and values["ManufacturerModelName"]):
        return None
    if any(not is_free_of(value, words) for value in values.values()):
        return None
    lines = [criterion_line(keyword, value) for keyword, value in values.items()]
    if values["Modality"].upper() == "US":
        layout = element_text(header, _ULTRASOUND_REGIONS)
        lines.append(
            "missing SequenceOfUltrasoundRegions"
            if layout is None
            else criterion_line("SequenceOfUltrasoundRegions", layout)
        )
    places = tuple(region.rectangle for region in regions if region.blank and region.rectangle is not None)
    return TextLayout("\n".join(lines), places) if places else None


def patient_words(text: str) -> frozenset[str]:
    """Return the words of a patient's name and ID that must be in no value that is stored unencrypted."""
    return frozenset(word for word in re.split(r"[\W_]+", text.lower()) if len(word) >= _SHORTEST_WORD)


def is_free_of(value: str, words: frozenset[str]) -> bool:
    """Return whether a value is short, printable, and has none of some words."""
    return value.isprintable() and len(value) <= _LONGEST and not any(word in value.lower() for word in words)


def is_sampled(sop_instance_uid: str) -> bool:
    """Return whether an object is one of the 2 % that are searched although their layout is learned.

    The same object always gets the same answer, so that an attempt that is repeated has the same result.
    """
    digest = hashlib.sha256(sop_instance_uid.encode()).digest()
    return int.from_bytes(digest[:8]) % _SAMPLED_ONE_IN == 0
