"""Content items of structured content (PS3.3 sections 10.2 and C.17.3), as rules select them."""

from __future__ import annotations

from typing import NamedTuple

VALUE_TYPES = (
    *("TEXT", "CODE", "NUM", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF"),
    *("COMPOSITE", "IMAGE", "WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD", "TABLE", "CONTAINER"),
)
"""Value types of content items (Value Type, PS3.3 section C.17.3.2.1)."""

WRITTEN_VALUE_TYPES = frozenset(
    ("TEXT", "NUM", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF", "COMPOSITE", "IMAGE", "WAVEFORM")
)
"""Value types whose value is one element that a rule may write; for a reference, the UID of the instance."""

DATED_VALUE_TYPES = frozenset(("DATE", "DATETIME"))
"""Value types whose value is a date that a rule may shift."""


class Concept(NamedTuple):
    """The concept name of a content item with its value type, in upper case.

    Parameters
    ----------
    code
        Code Value, Long Code Value or URN Code Value.
    scheme
        Coding Scheme Designator; empty beside a URN.
    value_type
        One of `VALUE_TYPES`.
    """

    code: str
    scheme: str
    value_type: str

    @classmethod
    def of(cls, code: str, scheme: str, value_type: str) -> Concept:
        """Return the concept in upper case, so that concepts compare equal in any case."""
        return cls(code.upper(), scheme.upper(), value_type.upper())
