"""Short ways to run the engine in tests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from dicom_deid.engine import Deidentifier, DeidentifyResult, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.recipe import Recipe


def pseudonyms(identifiers: Collection[Identifier]) -> dict[Identifier, str]:
    """Give every original a pseudonym that depends on nothing else."""
    return {original: _pseudonym(original) for original in identifiers}


def _pseudonym(original: Identifier) -> str:
    number = int(hashlib.sha256(f"{original.kind}:{original.value}".encode()).hexdigest()[:24], 16)
    if original.kind is IdentifierKind.UID:
        return f"2.25.{number}"
    if original.kind is IdentifierKind.DATE_OFFSET:
        return str(-(number % 300) - 1)
    return f"{original.kind.name[:3]}{number % 10**7:07d}"


def rules(text: str) -> Recipe:
    """Return a recipe of the given header lines."""
    return Recipe.parse(f"FORMAT dicom\n%header\n{text}", "test.dicom")


RULES_ALONE = Settings(residuals="off", pixel_risk="allow", documents="allow")
"""Without what looks at an object as a whole: its residuals, its pixels, its kind."""


def run(data: bytes, recipe: str | Recipe, settings: Settings = RULES_ALONE, **named: Any) -> DeidentifyResult:
    """De-identify one object."""
    chosen = rules(recipe) if isinstance(recipe, str) else recipe
    return Deidentifier(chosen, settings, **named).deidentify(data, pseudonyms)


def found_in(caught: pytest.ExceptionInfo[Quarantine]) -> str:
    """Return the element in which a residual was found; its detail also names the element it came from."""
    where, origin = caught.value.where.split(", original value of ")
    assert origin
    return where


def read(data: bytes | DeidentifyResult) -> Dataset:
    """Read an object as pydicom does."""
    return dcmread(io.BytesIO(data if isinstance(data, bytes) else data.to_bytes()))


def every_element(dataset: Dataset) -> Mapping[str, Any]:
    """Return every leaf element by its path, so that two data sets can be compared."""
    found: dict[str, Any] = {}

    def descend(one: Dataset, path: str) -> None:
        for element in one:
            here = f"{path}/{element.tag}"
            if element.VR == "SQ":
                found[here] = len(element.value)
                for index, item in enumerate(element.value):
                    descend(item, f"{here}[{index}]")
            else:
                found[here] = element.value

    descend(dataset, "")
    return found
