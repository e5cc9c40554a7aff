"""The basic profile of PS3.15 Annex E and its options: recipes, settings and codes of CID 7050."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.recipe.errors import nearest
from dicom_deid.recipe.profile_attributes import EDITION

PREFIX = "ps3.15-"
BASIC = f"{PREFIX}basic"


class Option(StrEnum):
    """An option of PS3.15 Table E.1-1, in order of application: a later option overrides an earlier one."""

    RETAIN_SAFE_PRIVATE = "retain-safe-private"
    RETAIN_UIDS = "retain-uids"
    RETAIN_DEVICE_IDENTITY = "retain-device-identity"
    RETAIN_INSTITUTION_IDENTITY = "retain-institution-identity"
    RETAIN_PATIENT_CHARACTERISTICS = "retain-patient-characteristics"
    RETAIN_LONGITUDINAL_FULL_DATES = "retain-longitudinal-full-dates"
    RETAIN_LONGITUDINAL_MODIFIED_DATES = "retain-longitudinal-modified-dates"
    CLEAN_DESCRIPTORS = "clean-descriptors"
    CLEAN_STRUCTURED_CONTENT = "clean-structured-content"
    CLEAN_GRAPHICS = "clean-graphics"
    CLEAN_PIXEL_DATA = "clean-pixel-data"

    @property
    def recipe_name(self) -> str:
        """The name of the recipe that ships for the option."""
        return f"{PREFIX}{self.value}"


class Code(NamedTuple):
    """A code of CID 7050, scheme DCM, for DeidentificationMethodCodeSequence (0012,0064)."""

    value: str
    meaning: str


_BASIC_CODE = Code("113100", "Basic Application Confidentiality Profile")
_CODES = {
    Option.CLEAN_PIXEL_DATA: Code("113101", "Clean Pixel Data Option"),
    Option.CLEAN_GRAPHICS: Code("113103", "Clean Graphics Option"),
    Option.CLEAN_STRUCTURED_CONTENT: Code("113104", "Clean Structured Content Option"),
    Option.CLEAN_DESCRIPTORS: Code("113105", "Clean Descriptors Option"),
    Option.RETAIN_LONGITUDINAL_FULL_DATES: Code("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Option.RETAIN_LONGITUDINAL_MODIFIED_DATES: Code(
        "113107", "Retain Longitudinal Temporal Information Modified Dates Option"
    ),
    Option.RETAIN_PATIENT_CHARACTERISTICS: Code("113108", "Retain Patient Characteristics Option"),
    Option.RETAIN_DEVICE_IDENTITY: Code("113109", "Retain Device Identity Option"),
    Option.RETAIN_UIDS: Code("113110", "Retain UIDs Option"),
    Option.RETAIN_SAFE_PRIVATE: Code("113111", "Retain Safe Private Option"),
    Option.RETAIN_INSTITUTION_IDENTITY: Code("113112", "Retain Institution Identity Option"),
}
_EXCLUSIVE = {Option.RETAIN_LONGITUDINAL_FULL_DATES, Option.RETAIN_LONGITUDINAL_MODIFIED_DATES}


def parse_options(names: Iterable[str]) -> tuple[Option, ...]:
    """Return options by name, in order of application.

    Raises
    ------
    ConfigurationError
        An unknown or unsupported option, or two that exclude each other.
    """
    chosen = {_parse_option(name) for name in names}
    if chosen >= _EXCLUSIVE:
        raise ConfigurationError("dates are either kept (full) or shifted (modified): choose one of the two options")
    return tuple(option for option in Option if option in chosen)


def _parse_option(name: str) -> Option:
    if name == "clean-recognizable-visual-features":
        raise ConfigurationError(
            "option clean-recognizable-visual-features is not supported: faces cannot be detected reliably; "
            "such objects are quarantined"
        )
    try:
        return Option(name)
    except ValueError:
        near = nearest(name, list(Option))
        hint = f"did you mean {near}?" if near else f"there are {', '.join(Option)}"
        raise ConfigurationError(f"unknown option {name}; {hint}") from None


def recipe_names(options: Collection[Option] = ()) -> tuple[str, ...]:
    """Return the recipes of the basic profile with options, as `Recipe.resolve` takes them."""
    return (BASIC, *(option.recipe_name for option in Option if option in options))


def profile_settings(options: Collection[Option] = (), settings: Settings | None = None) -> Settings:
    """Return `settings` with the changes that the basic profile with options requires.

    Private elements are removed, or only safe ones kept; unknown public elements, overlays and curves are removed; UID
    references are not followed if an option retains UIDs; residuals in cleaned descriptions are redacted.
    """
    changed = (settings or Settings()).replace(
        private_elements="safe" if Option.RETAIN_SAFE_PRIVATE in options else "remove",
        unknown_elements="remove",
        overlays="remove",
        curves="remove",
        icon_images="remove",
        follow_uid_references=Option.RETAIN_UIDS not in options,
    )
    if {Option.CLEAN_DESCRIPTORS, Option.CLEAN_STRUCTURED_CONTENT} & set(options) and changed.free_text == "keep":
        changed = changed.replace(free_text="vocabulary")
    if Option.CLEAN_DESCRIPTORS in options and changed.residuals == "quarantine":
        changed = changed.replace(residuals="redact-token")
    if Option.CLEAN_PIXEL_DATA in options and changed.pixel_risk == "quarantine":
        changed = changed.replace(pixel_risk="ocr")
    return changed


def method_edition(recipe_name: str) -> tuple[str, ...]:
    """Return the edition of the basic profile as DeidentificationMethod states it; nothing for other recipes."""
    return (f"PS3.15 {EDITION}",) if BASIC in recipe_name.split("+") else ()


def method_codes(recipe_name: str) -> tuple[Code, ...]:
    """Return the codes of CID 7050 for a recipe by its name; none if it is not the basic profile.

    A combined recipe's name joins the names of its parts by ``+``.
    """
    parts = recipe_name.split("+")
    if BASIC not in parts:
        return ()
    return (_BASIC_CODE, *(code for option, code in _CODES.items() if option.recipe_name in parts))
