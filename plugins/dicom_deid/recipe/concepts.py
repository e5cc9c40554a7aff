"""Content items of structured content (PS3.3 sections 10.2 and C.17.3), as rules select them."""

from __future__ import annotations

from typing import NamedTuple

VALUE_TYPES = (
    *("TEXT", "CODE", "NUM", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF"),
    *("COMPOSITE", "IMAGE", "WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD", "TABLE", "CONTAINER"),
)
"""What a content item may hold (Value Type, PS3.3 section C.17.3.2.1)."""

WRITTEN_VALUE_TYPES = frozenset(
    ("TEXT", "NUM", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF", "COMPOSITE", "IMAGE", "WAVEFORM")
)
"""Those whose value is one element, which a rule may write: of a reference, the UID of the instance."""

DATED_VALUE_TYPES = frozenset(("DATE", "DATETIME"))
"""Those whose value is a day, which a rule may shift."""


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
        """Return the concept by which items are compared."""
        return cls(code.upper(), scheme.upper(), value_type.upper())
