"""What a de-identified object says of its own de-identification (PS3.15 section E.1, PS3.3 section C.7.1.1)."""

from __future__ import annotations

from typing import NamedTuple

from dicom_deid import __version__
from dicom_deid.deidentify.profiles import method_codes
from dicom_deid.dicom.values import LONG_FORM_VRS
from dicom_deid.dicom.walk import Level
from dicom_deid.recipe import Action, ElementName, Plan, Recipe

_PATIENT_IDENTITY_REMOVED = 0x00120062
_DEIDENTIFICATION_METHOD = 0x00120063
_DEIDENTIFICATION_METHOD_CODE_SEQUENCE = 0x00120064
_LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED = 0x00280303
_CODE_VALUE, _CODING_SCHEME_DESIGNATOR, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_STUDY_DATE = 0x00080020
_MAX_LO = 64


class Stamp(NamedTuple):
    """An element that is written into a data set, whatever stood there.

    Parameters
    ----------
    tag, vr
        Of the element.
    value
        Its encoded value, or the items of a sequence.
    """

    tag: int
    vr: str
    value: bytes | tuple[tuple[Stamp, ...], ...]

    def encode(self, level: Level) -> bytes:
        """Encode the element for a level."""
        value = self.value if isinstance(self.value, bytes) else self._items(level, self.value)
        head = level.order.tag.pack(self.tag >> 16, self.tag & 0xFFFF)
        if level.implicit:
            return head + level.order.u32.pack(len(value)) + value
        if self.vr in LONG_FORM_VRS:
            return head + self.vr.encode() + b"\0\0" + level.order.u32.pack(len(value)) + value
        return head + self.vr.encode() + level.order.u16.pack(len(value)) + value

    @staticmethod
    def _items(level: Level, items: tuple[tuple[Stamp, ...], ...]) -> bytes:
        encoded = [b"".join(stamp.encode(level) for stamp in item) for item in items]
        return b"".join(level.order.item + level.order.u32.pack(len(item)) + item for item in encoded)


def stamps_of(recipe: Recipe, plan: Plan) -> tuple[Stamp, ...]:
    """Return the elements that say that, by what, and how an object was de-identified."""
    name = "".join(character if character.isascii() and character.isprintable() else "_" for character in recipe.name)
    method = "\\".join(
        (
            f"airflow-provider-dicom-deid {__version__}"[:_MAX_LO],
            f"recipe {name}".replace("\\", "_")[: _MAX_LO - 24] + f" sha256 {recipe.digest[:16]}",
        )
    )
    stamps = [
        text_stamp(_PATIENT_IDENTITY_REMOVED, "CS", "YES"),
        text_stamp(_DEIDENTIFICATION_METHOD, "LO", method),
        text_stamp(_LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, "CS", _temporal_information(recipe, plan)),
    ]
    codes = method_codes(recipe.name)
    if codes:
        items = tuple(
            (
                text_stamp(_CODE_VALUE, "SH", code.value),
                text_stamp(_CODING_SCHEME_DESIGNATOR, "SH", "DCM"),
                text_stamp(_CODE_MEANING, "LO", code.meaning),
            )
            for code in codes
        )
        stamps.append(Stamp(_DEIDENTIFICATION_METHOD_CODE_SEQUENCE, "SQ", items))
    return tuple(stamps)


def _temporal_information(recipe: Recipe, plan: Plan) -> str:
    if any(rule.action is Action.JITTER for rule in recipe.rules):
        return "MODIFIED"
    steps = plan.steps(ElementName.of(_STUDY_DATE))
    return "REMOVED" if steps else "UNMODIFIED"


def text_stamp(tag: int, vr: str, text: str) -> Stamp:
    """Return a stamp of ASCII text."""
    value = text.encode("ascii")
    return Stamp(tag, vr, value + b" " * (len(value) % 2))
