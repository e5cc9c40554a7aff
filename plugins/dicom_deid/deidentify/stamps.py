"""What a de-identified object says of its own de-identification (PS3.15 section E.1, PS3.3 section C.7.1.1)."""

from __future__ import annotations

from dicom_deid import __version__
from dicom_deid.deidentify.rulebook import Stamp
from dicom_deid.recipe import Action, ElementName, Plan, Recipe

_PATIENT_IDENTITY_REMOVED = 0x00120062
_DEIDENTIFICATION_METHOD = 0x00120063
_LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED = 0x00280303
_STUDY_DATE = 0x00080020
_MAX_LO = 64


def stamps_of(recipe: Recipe, plan: Plan) -> tuple[Stamp, ...]:
    """Return the elements that say that, by what, and how an object was de-identified."""
    name = "".join(character if character.isascii() and character.isprintable() else "_" for character in recipe.name)
    method = "\\".join(
        (
            f"airflow-provider-dicom-deid {__version__}"[:_MAX_LO],
            f"recipe {name}".replace("\\", "_")[: _MAX_LO - 24] + f" sha256 {recipe.digest[:16]}",
        )
    )
    return (
        _stamp(_PATIENT_IDENTITY_REMOVED, "YES"),
        _stamp(_DEIDENTIFICATION_METHOD, method),
        _stamp(_LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, _temporal_information(recipe, plan)),
    )


def _temporal_information(recipe: Recipe, plan: Plan) -> str:
    if any(rule.action is Action.JITTER for rule in recipe.rules):
        return "MODIFIED"
    steps = plan.steps(ElementName.of(_STUDY_DATE))
    return "REMOVED" if steps else "UNMODIFIED"


def _stamp(tag: int, text: str) -> Stamp:
    value = text.encode("ascii")
    return Stamp(ElementName.of(tag), value + b" " * (len(value) % 2))
