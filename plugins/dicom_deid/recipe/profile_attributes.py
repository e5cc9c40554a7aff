"""PS3.15 Table E.1-1: the attributes that the Basic Application Level Confidentiality Profile changes."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

EDITION = "2026d"
"""Edition of PS3.15 that the tables and the recipes `ps3.15-*` follow."""
_TABLE = Path(__file__).parent / "data" / "e1_1_attributes.csv"
_TAG = re.compile(r"\(([0-9A-FX]{4}),([0-9A-FX]{4})\)")
_ANY_PRIVATE_TAG = 0x00091001


class ProfileAttribute(NamedTuple):
    """One row of the table.

    Parameters
    ----------
    tag
        As the table writes it, for example ``(0010,0010)``, or ``(50XX,XXXX)`` for repeating groups; ``PRIVATE``
        for private attributes.
    name
        Attribute name.
    in_composite_iod
        Whether the attribute is part of a standard composite IOD.
    basic_profile
        Action code of the basic profile (PS3.15 Table E.1-1a), for example ``X/Z/D``.
    options
        Action codes of the options that have one, by the name of the option's column.
    """

    tag: str
    name: str
    in_composite_iod: bool
    basic_profile: str
    options: dict[str, str]

    @property
    def example_tag(self) -> int:
        """The tag as an integer; the first one for a range of tags."""
        digits = _TAG.fullmatch(self.tag)
        return _ANY_PRIVATE_TAG if digits is None else int("".join(digits.groups()).replace("X", "0"), 16)

    @property
    def is_direct_identifier(self) -> bool:
        """True if no option of the standard retains or cleans the attribute."""
        return not self.options


@cache
def profile_attributes() -> tuple[ProfileAttribute, ...]:
    """Return the rows of PS3.15 Table E.1-1 in the order of their tags."""
    with _TABLE.open(encoding="utf-8", newline="") as table:
        return tuple(_attribute(row) for row in csv.DictReader(table))


@cache
def composite_tags() -> frozenset[int]:
    """Return the tags of the attributes whose action depends on their type in the object's IOD."""
    return frozenset(one.example_tag for one in profile_attributes() if "/" in one.basic_profile)


def _attribute(row: dict[str, str]) -> ProfileAttribute:
    tag, name, in_composite_iod, basic_profile = list(row.values())[:4]
    options = {option: code for option, code in list(row.items())[4:] if code}
    return ProfileAttribute(tag, name.split("\n")[0], in_composite_iod == "Y", basic_profile, options)
