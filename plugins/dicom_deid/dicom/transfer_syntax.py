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


@lru_cache(maxsize=256)
def find_transfer_syntax(uid: str) -> TransferSyntax | None:
    """Return the transfer syntax, or `None` if the standard defines none with that UID."""
    known = UID(uid)
    if not known.is_transfer_syntax:
        return None
    encoding = Encoding(known.is_implicit_VR, not known.is_little_endian)
    return TransferSyntax(uid, encoding, known.is_deflated, known.is_encapsulated)
