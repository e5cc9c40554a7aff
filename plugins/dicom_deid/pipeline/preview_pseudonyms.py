"""Pseudonyms for previews: formatted like real ones, consistent within one preview, never stored."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection

from dicom_deid.database.pseudonyms import FIRST_DIGITS, PREFIXES
from dicom_deid.identifiers import Identifier, IdentifierKind


class PreviewPseudonyms:
    """Derives example pseudonyms from a random key that is not kept.

    Parameters
    ----------
    max_date_offset_days
        Bound of the example date offsets.
    """

    def __init__(self, max_date_offset_days: int = 365) -> None:
        self._key = secrets.token_bytes(32)
        self._days = max_date_offset_days

    def resolve(self, identifiers: Collection[Identifier]) -> dict[Identifier, str]:
        """Return an example pseudonym for each identifier; the same one for the same identifier."""
        return {identifier: self._derive(identifier) for identifier in identifiers}

    def _derive(self, identifier: Identifier) -> str:
        text = f"{identifier.kind.value}\0{identifier.value}".encode()
        number = int.from_bytes(hmac.digest(self._key, text, "sha256")[:16])
        if identifier.kind is IdentifierKind.UID:
            return f"2.25.{number}"
        if identifier.kind is IdentifierKind.DATE_OFFSET:
            return str(-(number % self._days) - 1)
        least = 10 ** (FIRST_DIGITS - 1)
        return f"{PREFIXES[identifier.kind]}{least + number % (9 * least)}"
