"""Destination keys: made from what the rules wrote, never from source keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from urllib.parse import quote

from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.reasons import Reason

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

_LITERAL = re.compile(r"[A-Za-z0-9._=/-]*")
_MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A template of destination keys, such as ``{PatientID}/{SOPInstanceUID}.dcm``.

    A value is percent-encoded, so that it can neither end its path segment nor climb out of the destination, and two
    values never become one.
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
            If it names another field, does not tell two objects apart, or is no safe relative path.
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

    def key(self, identifiers: Mapping[str, str]) -> str:
        """Return the key of an object with these identifiers, as the rules left them.

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
