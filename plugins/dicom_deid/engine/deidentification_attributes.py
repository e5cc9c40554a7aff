"""Attributes that describe the de-identification (PS3.15 section E.1, PS3.3 section C.7.1.1)."""

from __future__ import annotations

from typing import Any, NamedTuple

from dicom_deid import __version__
from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.vr import LONG_FORM_VRS
from dicom_deid.dicom.walk import IMPLICIT, LONG, SHORT, DatasetContext
from dicom_deid.engine.profiles import method_codes, method_edition
from dicom_deid.recipe import Action, CompiledRecipe, ElementName, Recipe

_PATIENT_IDENTITY_REMOVED = 0x00120062
DEIDENTIFICATION_METHOD = 0x00120063
DEIDENTIFICATION_METHOD_CODE_SEQUENCE = 0x00120064
LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED = 0x00280303
_CODE_VALUE, _CODING_SCHEME_DESIGNATOR, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_STUDY_DATE = 0x00080020
_MAX_LO = 64


class DeidentificationAttribute(NamedTuple):
    """An element that is written into a data set in place of an existing one.

    Parameters
    ----------
    tag, vr
        Of the element.
    value
        Its encoded value, or the items of a sequence.
    """

    tag: int
    vr: str
    value: bytes | tuple[tuple[DeidentificationAttribute, ...], ...]

    def encode(self, context: DatasetContext[Any]) -> bytes:
        """Encode the element for a data set or item."""
        value = self.value if isinstance(self.value, bytes) else self._items(context, self.value)
        head = context.order.tag.pack(self.tag >> 16, self.tag & 0xFFFF) + self.vr.encode()
        form = IMPLICIT if context.implicit else LONG if self.vr in LONG_FORM_VRS else SHORT
        return element_bytes(head, form, value, context.order)

    def encode_items(self, context: DatasetContext[Any], without: bytes = b"") -> bytes:
        """Encode the items of a sequence, except those whose first value is part of `without`."""
        items = self.value if isinstance(self.value, tuple) else ()
        return self._items(context, tuple(item for item in items if item[0].encode(context)[8:] not in without))

    @staticmethod
    def _items(context: DatasetContext[Any], items: tuple[tuple[DeidentificationAttribute, ...], ...]) -> bytes:
        encoded = [b"".join(attribute.encode(context) for attribute in item) for item in items]
        return b"".join(context.order.item + context.order.u32.pack(len(item)) + item for item in encoded)


def attributes_of(recipe: Recipe, compiled: CompiledRecipe) -> tuple[DeidentificationAttribute, ...]:
    """Return the elements that say that an object was de-identified, with the software and the recipe."""
    name = "".join(character if character.isascii() and character.isprintable() else "_" for character in recipe.name)
    method = "\\".join(
        (
            f"airflow-provider-dicom-deid {__version__}"[:_MAX_LO],
            f"recipe {name}".replace("\\", "_")[: _MAX_LO - 24] + f" sha256 {recipe.digest[:16]}",
            *method_edition(recipe.name),
        )
    )
    deidentification_attributes = [
        text_attribute(_PATIENT_IDENTITY_REMOVED, "CS", "YES"),
        text_attribute(DEIDENTIFICATION_METHOD, "LO", method),
        text_attribute(LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, "CS", _temporal_information(recipe, compiled)),
    ]
    codes = method_codes(recipe.name)
    if codes:
        items = tuple(
            (
                text_attribute(_CODE_VALUE, "SH", code.value),
                text_attribute(_CODING_SCHEME_DESIGNATOR, "SH", "DCM"),
                text_attribute(_CODE_MEANING, "LO", code.meaning),
            )
            for code in codes
        )
        deidentification_attributes.append(
            DeidentificationAttribute(DEIDENTIFICATION_METHOD_CODE_SEQUENCE, "SQ", items)
        )
    return tuple(deidentification_attributes)


def _temporal_information(recipe: Recipe, compiled: CompiledRecipe) -> str:
    if any(rule.action is Action.JITTER for rule in recipe.rules):
        return "MODIFIED"
    steps = compiled.steps(ElementName.of(_STUDY_DATE))
    return "REMOVED" if steps else "UNMODIFIED"


def text_attribute(tag: int, vr: str, text: str) -> DeidentificationAttribute:
    """Return an element of ASCII text."""
    value = text.encode("ascii")
    return DeidentificationAttribute(tag, vr, value + b" " * (len(value) % 2))
