"""New pseudonyms: random, or for UIDs derived from the original under the project's secret."""

from __future__ import annotations

import hmac
import re
import secrets
import uuid
from collections.abc import Mapping

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind

MAX_UID_LENGTH = 64
"""PS3.5 section 9.1."""

FIRST_DIGITS = 7
"""The desktop application wrote PAT, ACA and STID with seven digits."""

PREFIXES: Mapping[IdentifierKind, str] = {
    IdentifierKind.PATIENT_ID: "PAT",
    IdentifierKind.ACCESSION_NUMBER: "ACA",
    IdentifierKind.STUDY_ID: "STID",
}

_MIN_UID_DIGITS = 30
_PADDING = " \t\r\n\f\v\0"
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")


def normalised(value: str) -> str:
    """Return an original without DICOM padding and surrounding blanks (PS3.5 section 6.2)."""
    return value.strip(_PADDING)


def is_uid(text: str) -> bool:
    """Return whether `text` is a valid UID (PS3.5 section 9.1): no leading zeros, at most 64 characters."""
    return len(text) <= MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def checked_org_root(root: str) -> str:
    """Return a UID root that leaves at least 30 digits for the number.

    Raises
    ------
    ConfigurationError
        It is not a valid UID, or too long: with fewer digits, UIDs of a large archive could collide.
    """
    longest = MAX_UID_LENGTH - 1 - _MIN_UID_DIGITS
    if not is_uid(root) or root[0] not in "012" or "." not in root:
        raise ConfigurationError("org_root is not a valid UID root (PS3.5 section 9.1), as 2.25 is.")
    if len(root) > longest:
        raise ConfigurationError(f"org_root has {len(root)} characters; at most {longest} leave room for the number.")
    return root


def _uid(root: str, number: uuid.UUID) -> str:
    # 39 digits at most; a longer root than the usual takes the first of them. A decimal has no leading zero.
    return f"{root}.{number.int}"[:MAX_UID_LENGTH]


def random_uid(root: str) -> str:
    """Return `root` and the integer of a random UUID (PS3.5 section B.2 for the root 2.25)."""
    return _uid(root, uuid.uuid4())


def derived_uid(root: str, secret: bytes, original: str) -> str:
    """Return `root` and the integer of a UUID whose (pseudo-)random bits are HMAC-SHA-256 of the original."""
    digest = hmac.digest(secret, original.encode(), "sha256")
    return _uid(root, uuid.UUID(bytes=digest[:16], version=4))


def digits_for(used: int, wanted: int) -> int:
    """Return how many digits new pseudonyms have, so that the range grows well before half of it is taken.

    Parameters
    ----------
    used
        How many pseudonyms of the kind the project has.
    wanted
        How many are to be made now.
    """
    digits = FIRST_DIGITS
    # 40 %: what other workers make at the same moment is not in `used` yet.
    while (used + wanted) * 10 > 4 * 9 * 10 ** (digits - 1):
        digits += 1
    return digits


def random_identifier(kind: IdentifierKind, digits: int) -> str:
    """Return the kind's prefix and a random number of that many digits, the first not zero."""
    least = 10 ** (digits - 1)
    return f"{PREFIXES[kind]}{least + secrets.randbelow(9 * least)}"


def random_offset(max_days: int) -> str:
    """Return a signed number of days, never zero, at most `max_days` either way, as text."""
    days = 1 + secrets.randbelow(max_days)
    return str(days if secrets.randbelow(2) else -days)


def problem_of(kind: IdentifierKind, pseudonym: str, max_days: int) -> str | None:
    """Return why a pseudonym is not valid for its kind, None when it is (PS3.5 section 6.2 for lengths)."""
    if kind is IdentifierKind.UID:
        return None if is_uid(pseudonym) else "is not a valid UID"
    if kind is IdentifierKind.DATE_OFFSET:
        fits = re.fullmatch(r"[+-]?[0-9]{1,6}", pseudonym) and 0 < abs(int(pseudonym)) <= max_days
        return None if fits else f"is not a number of days from 1 to {max_days}, either way"
    longest = 64 if kind is IdentifierKind.PATIENT_ID else 16
    if not 0 < len(pseudonym) <= longest:
        return f"has not 1 to {longest} characters"
    if not pseudonym.isprintable() or "\\" in pseudonym or pseudonym != pseudonym.strip():
        return "has control characters, a backslash or surrounding blanks"
    return None
