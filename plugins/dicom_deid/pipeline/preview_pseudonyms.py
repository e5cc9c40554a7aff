"""Pseudonyms for previews: they look like real ones, hold within one preview, and are stored nowhere."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection

from dicom_deid.identifiers import Identifier, IdentifierKind

_PREFIX = {IdentifierKind.PATIENT_ID: "PAT", IdentifierKind.ACCESSION_NUMBER: "ACA", IdentifierKind.STUDY_ID: "STID"}


class PreviewPseudonyms:
    """Derives a stand-in for each original under a random key that is forgotten with the object.

    Parameters
    ----------
    max_date_offset_days
        Bound of stand-ins for date offsets.
    """

    def __init__(self, max_date_offset_days: int = 365) -> None:
        self._key = secrets.token_bytes(32)
        self._days = max_date_offset_days

    def resolve(self, identifiers: Collection[Identifier]) -> dict[Identifier, str]:
        """Return the stand-in of each original: the same original, the same stand-in."""
        return {original: self._stand_in(original) for original in identifiers}

    def _stand_in(self, original: Identifier) -> str:
        text = f"{original.kind.value}\0{original.value}".encode()
        number = int.from_bytes(hmac.digest(self._key, text, "sha256")[:16])
        if original.kind is IdentifierKind.UID:
            return f"2.25.{number}"
        if original.kind is IdentifierKind.DATE_OFFSET:
            return str(-(number % self._days) - 1)
        return f"{_PREFIX[original.kind]}{1_000_000 + number % 9_000_000}"
