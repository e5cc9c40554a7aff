"""Transfer syntaxes (PS3.5 section 10 and annex A)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from pydicom.uid import UID

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"


class Encoding(NamedTuple):
    """Encoding of the elements of a data set."""

    implicit: bool
    big_endian: bool


class TransferSyntax(NamedTuple):
    """A transfer syntax of the standard."""

    uid: str
    encoding: Encoding
    deflated: bool
    encapsulated: bool


# Encapsulated transfer syntaxes of PS3.6 Table A-1 (2026d) that pydicom 3.0 does not list: JPEG XL, deflated frames.
_NEWER_ENCAPSULATED = frozenset(
    {
        *("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"),
        "1.2.840.10008.1.2.8.1",
    }
)
# JPIP Referenced Deflate and JPIP HTJ2K Referenced Deflate: the data set is deflated (PS3.5 sections A.7 and A.10).
_DEFLATED_REFERENCES = frozenset({"1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})


@lru_cache(maxsize=256)
def find_transfer_syntax(uid: str) -> TransferSyntax | None:
    """Return the transfer syntax, or `None` if the standard defines none with that UID."""
    if uid in _NEWER_ENCAPSULATED:
        return TransferSyntax(uid, Encoding(implicit=False, big_endian=False), deflated=False, encapsulated=True)
    known = UID(uid)
    if not known.is_transfer_syntax:
        return None
    encoding = Encoding(known.is_implicit_VR, not known.is_little_endian)
    deflated = known.is_deflated or uid in _DEFLATED_REFERENCES
    return TransferSyntax(uid, encoding, deflated, known.is_encapsulated)
