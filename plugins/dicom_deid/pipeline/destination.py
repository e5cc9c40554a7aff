"""Destination keys, made from the new identifiers of an object, never from its source key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from urllib.parse import quote

from pydicom.datadict import tag_for_keyword

from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Action, CompiledRecipe, ElementName

DEFAULT_TEMPLATE = "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"

FIELDS = (
    "PatientID",
    "StudyID",
    "AccessionNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "Modality",
)
"""Keywords that a template may name."""

_TAGS = {keyword: tag for keyword in FIELDS if (tag := tag_for_keyword(keyword)) is not None}
_LITERAL = re.compile(r"[A-Za-z0-9._=/-]*")
_MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A template of destination keys, such as ``{PatientID}/{SOPInstanceUID}.dcm``.

    Values are percent-encoded, so that none leaves its path segment or the destination, and no two values give one key.
    """

    template: str
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, template: str) -> KeyTemplate:
        """Check a template.

        Parameters
        ----------
        template
            Keywords of `FIELDS` in braces, with letters, digits and ``. _ = / -`` between them.

        Raises
        ------
        ConfigurationError
            If it names another field, gives two objects one key, or is not a safe relative path.
        """
        names: list[str] = []
        try:
            pieces = list(Formatter().parse(template))
        except ValueError:
            raise ConfigurationError("The destination key has an unpaired brace.") from None
        for literal, name, specification, conversion in pieces:
            if not _LITERAL.fullmatch(literal):
                raise ConfigurationError(
                    "The destination key may have letters, digits and . _ = / - between its fields."
                )
            if name is None:
                continue
            if name not in FIELDS or specification or conversion:
                raise ConfigurationError(f"The destination key may name only {', '.join(FIELDS)}; not {{{name}}}.")
            names.append(name)
        if "SOPInstanceUID" not in names:
            raise ConfigurationError("The destination key lacks {SOPInstanceUID}: two objects would have one key.")
        if any(segment.strip(".") == "" for segment in template.split("/")):
            raise ConfigurationError("The destination key must be a relative path without empty or dotted segments.")
        return cls(template, tuple(dict.fromkeys(names)))

    def check(self, plan: CompiledRecipe, *, follows_references: bool) -> None:
        """Check that no original value can become part of a key.

        A keyword must be replaced by the recipe. UIDs may also be mapped without a rule of their own, or be kept on
        purpose by a KEEP rule. Modality identifies no one.

        Parameters
        ----------
        plan
            The compiled recipe.
        follows_references
            Whether UIDs are mapped without a rule of their own.

        Raises
        ------
        ConfigurationError
            The recipe leaves an identifier of the template as it is, or removes it.
        """
        for keyword in self.fields:
            if keyword != "Modality" and not _is_safe(plan, keyword, follows_references):
                raise ConfigurationError(
                    f"The destination key names {keyword}, which recipe {plan.recipe.name} does not replace: "
                    f"the key would hold an original value, or none. Replace it in the recipe (REPLACE {keyword} "
                    "func:generate_value) or give another destination key."
                )

    def key(self, identifiers: Mapping[str, str]) -> str:
        """Return the key of an object with these new identifiers.

        Raises
        ------
        Quarantine
            `MISSING_IDENTIFIER` if one that the template names is absent or empty; `INVALID_REPLACEMENT` if the
            key would be longer than the 1,024 bytes that S3 allows.
        """
        values = {}
        for name in self.fields:
            value = (identifiers.get(name) or "").strip()
            if not value:
                raise Quarantine(Reason.MISSING_IDENTIFIER, f"{name} in the destination key")
            encoded = quote(value, safe="")
            values[name] = encoded if encoded.strip(".") else encoded.replace(".", "%2E")
        key = self.template.format_map(values)
        if len(key) > _MAX_KEY_BYTES:
            raise Quarantine(Reason.INVALID_REPLACEMENT, "destination key")
        return key


def _is_safe(plan: CompiledRecipe, keyword: str, follows_references: bool) -> bool:
    element = ElementName.of(_TAGS[keyword])
    is_uid = keyword.endswith("UID")
    steps = plan.steps(element)
    if not steps or plan.is_kept(element):
        return is_uid and (follows_references or plan.is_retained(element))
    written = any(step.action in (Action.ADD, Action.REPLACE) and step.is_certain for step in steps)
    return written and steps[-1].action not in (Action.REMOVE, Action.BLANK)
