"""deid and the engine side by side: the same bytes, the same recipe, the same generators."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydicom
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.recipe import Recipe

Content = dict[str, Any]


def generate_value(item: Any, value: Any, field: Any, dicom: Any) -> str:
    """Return a value that depends on the element's own alone, so that both programs make the same."""
    original = field.element.value
    text = "" if original is None else str(original)
    number = int(hashlib.sha256(f"{field.element.tag}{text}".encode()).hexdigest()[:12], 16)
    return f"1.2.{number}" if field.element.VR == "UI" else str(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "always": lambda item, value, field, dicom: True,
    "never": lambda item, value, field, dicom: False,
    "generate_value": generate_value,
}
VARIABLES: dict[str, Any] = {"study_name": "Study7", "nothing": "", "something": "yes"}


def by_deid(data: bytes, recipe_path: Path) -> Dataset:
    """Return the data set as deid leaves it in memory."""
    from deid.config import DeidRecipe
    from deid.dicom.parser import DicomParser
    from deid.logger import bot

    bot.level = -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = DicomParser(dcmread(io.BytesIO(data), force=True), recipe=DeidRecipe(str(recipe_path)))
        for name, value in {**FUNCTIONS, **VARIABLES}.items():
            parser.define(name, value)
        parser.parse(strip_sequences=False, remove_private=False)
        return parser.dicom


def as_written(dataset: Dataset) -> Dataset:
    """Return the data set as it is read after it was written, where the encoding does not keep VRs.

    A private element whose creator a rule removed has no VR any more once it is written in implicit VR.
    """
    if not dataset.original_encoding[0]:
        return dataset
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset.save_as(target, implicit_vr=True, little_endian=True)
        except (AttributeError, TypeError, ValueError):
            return dataset  # deid left something that cannot be written
        return dcmread(io.BytesIO(target.getvalue()), force=True)


def engine_for(text: str, settings: Settings | None = None) -> Deidentifier:
    """Return the engine in parity mode with the deterministic generators."""
    return Deidentifier(Recipe.parse(text), settings or Settings.parity(), functions=FUNCTIONS, variables=VARIABLES)


def by_engine(data: bytes, deidentifier: Deidentifier) -> bytes:
    """Return the engine's output; every original that it asks for is replaced by a text made from it."""
    result = deidentifier.deidentify(data, lambda identifiers: {one: f"1.2.{n}" for n, one in enumerate(identifiers)})
    return result.to_bytes()


def read(data: bytes) -> Content:
    """Return what an encoded object holds, as pydicom reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return content(dcmread(io.BytesIO(data), force=True))


def content(dataset: Dataset) -> Content:
    """Return what a data set holds: VR and values by tag, items as lists; file meta information included."""
    found: Content = {}
    for element in [*(getattr(dataset, "file_meta", None) or ()), *dataset]:
        if element.tag.element == 0:
            continue  # group lengths follow from the rest
        value = element.value
        if element.VR == "SQ":
            found[str(element.tag)] = [content(item) for item in value or []]
        else:
            found[str(element.tag)] = (element.VR, _texts(value))
    return found


FILES = sorted(
    path
    for folder in ("test_files", "charset_files")
    for path in (Path(pydicom.__file__).parent / "data" / folder).rglob("*")
    if path.is_file() and path.suffix in ("", ".dcm")
)
"""Every file of DICOM elements that pydicom ships."""


def _is_empty(value: object) -> bool:
    """Return whether an element is empty; an empty UN may have been a sequence."""
    return value == [] or (isinstance(value, tuple) and value[1] == [])


def _texts(value: object) -> list[str]:
    if value is None or value == "" or value == b"":
        return []
    if isinstance(value, bytes):
        return [hashlib.sha256(value.rstrip(b"\0 ")).hexdigest()[:16]]
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    texts = [str(one).rstrip(" \0") for one in values]
    return [] if not any(texts) else texts


def differences(ours: Mapping[str, object], theirs: Mapping[str, object], at: str = "") -> Iterator[str]:
    """Name every element that differs: path, and what differs, never more than the test needs."""
    for tag in sorted({*ours, *theirs}):
        where = f"{at}{tag}"
        mine, other = ours.get(tag), theirs.get(tag)
        if mine == other or (_is_empty(mine) and _is_empty(other)):
            continue
        if mine is None or other is None:
            yield f"{where} only {'deid' if mine is None else 'engine'}"
        elif isinstance(mine, list) and isinstance(other, list):
            if len(mine) != len(other):
                yield f"{where} items {len(mine)} != {len(other)}"
            for number, (item, another) in enumerate(zip(mine, other, strict=False)):
                yield from differences(item, another, f"{where}[{number}]")
        else:
            yield f"{where} {mine} != {other}"
