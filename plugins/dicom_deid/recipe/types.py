"""Attribute types of PS3.3, which decide the composite actions of PS3.15 Table E.1-1a."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

_TABLE = Path(__file__).parent / "data" / "attribute_types.csv"
_NO_TYPE = "3"


class AttributeTypes(NamedTuple):
    """Types of the attributes with composite actions in one SOP class.

    Conditional types count as required. In sequences, the strictest type of all places applies.

    Parameters
    ----------
    types
        One digit per known place.
    """

    types: str

    def of(self, keyword: str, root: bool) -> str:
        """Return the type of an attribute: `1`, `2`, or `3` (also if the SOP class does not have it).

        Parameters
        ----------
        keyword
            Keyword of the attribute.
        root
            Whether it is in the root data set or in a sequence item.
        """
        index = _places().get(keyword if root else f">{keyword}")
        return _NO_TYPE if index is None else self.types[index]


def types_of(sop_class_uid: str) -> AttributeTypes:
    """Return the types of a SOP class; for a SOP class that is not in the standard, the strictest of all."""
    return _by_sop_class().get(sop_class_uid) or _by_sop_class()[""]


def all_optional() -> AttributeTypes:
    """Return types that make every attribute optional."""
    return AttributeTypes(_NO_TYPE * len(_places()))


@cache
def sop_classes() -> tuple[str, ...]:
    """Return the UIDs of the SOP classes whose types are known."""
    return tuple(uid for uid in _by_sop_class() if uid)


def resolve(code: str, type_: str) -> str:
    """Return the single action of a composite one for an attribute type (PS3.15 Table E.1-1a).

    Parameters
    ----------
    code
        For example ``X/Z/D`` or ``X/Z/U*``.
    type_
        `1`, `2` or `3`.

    Returns
    -------
    str
        The first action where the attribute may be absent, ``Z`` where it may be empty, else the last. Where an
        attribute must be there and the code offers no ``Z``, that is the last too. References that must be there are
        not emptied but replaced, as the Common Instance Reference Module (PS3.3 section C.12.2) may count on them.
    """
    choices = code.rstrip("*").split("/")
    if type_ == "3":
        return choices[0]
    return "Z" if type_ == "2" and "Z" in choices and choices[-1] != "U" else choices[-1]


@cache
def _rows() -> list[list[str]]:
    with _TABLE.open(encoding="utf-8", newline="") as table:
        return list(csv.reader(table))


@cache
def _places() -> dict[str, int]:
    return {place: index for index, place in enumerate(_rows()[0][1:])}


@cache
def _by_sop_class() -> dict[str, AttributeTypes]:
    return {uid: AttributeTypes("".join(types)) for uid, *types in _rows()[1:]}
