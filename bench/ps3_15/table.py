"""Table E.1-1 of PS3.15 as rows, with the composite actions resolved by the element's type."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydicom.datadict import dictionary_VR, keyword_for_tag

FOLDER = Path(__file__).parent
E1_1 = FOLDER.parents[1] / "plugins/dicom_deid/recipe/data/e1_1_attributes.csv"
OPTIONS = {
    "retain-safe-private": "rtnSafePrivOpt",
    "retain-uids": "rtnUIDsOpt",
    "retain-device-identity": "rtnDevIdOpt",
    "retain-institution-identity": "rtnInstIdOpt",
    "retain-patient-characteristics": "rtnPatCharsOpt",
    "retain-longitudinal-full-dates": "rtnLongFullDatesOpt",
    "retain-longitudinal-modified-dates": "rtnLongModifDatesOpt",
    "clean-descriptors": "cleanDescOpt",
    "clean-structured-content": "cleanStructContOpt",
    "clean-graphics": "cleanGraphOpt",
}


@dataclass(frozen=True)
class Row:
    """One row: the tag as the table writes it, keyword and VR from the dictionary, actions as the table has them."""

    tag: str
    name: str
    keyword: str
    vr: str
    basic: str
    options: dict[str, str]

    @property
    def in_data_set(self) -> bool:
        """False for a range of groups, a command or file meta element, and a DICOMDIR: the engine sees to those."""
        return bool(self.keyword) and self.tag[1:5] not in ("0000", "0002", "0004")

    @property
    def action(self) -> str:
        """The basic profile's action, one of X, Z, D, U."""
        return resolve(self.basic, self.keyword)


def read_rows() -> list[Row]:
    """Return all rows in the order of the table."""
    rows = []
    with E1_1.open(encoding="utf-8", newline="") as source:
        for record in csv.DictReader(source):
            keyword, vr = "", ""
            if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", record["tag"]):
                tag = int(record["tag"][1:5] + record["tag"][6:10], 16)
                keyword, vr = keyword_for_tag(tag), dictionary_VR(tag)
            options = {option: record[column] for option, column in OPTIONS.items() if record[column]}
            rows.append(Row(record["tag"], record["name"], keyword, vr, record["basicProfile"], options))
    return rows


@cache
def required_types() -> dict[str, frozenset[str]]:
    """Return, for each attribute with a composite action, the types that any IOD gives it at any depth."""
    found: dict[str, set[str]] = {}
    with (FOLDER / "element_types.csv").open(encoding="utf-8", newline="") as source:
        for record in csv.DictReader(source):
            types = {kind for kind in "123" if int(record[f"iods_type_{kind}"])}
            found.setdefault(record["keyword"], set()).update(types)
    return {keyword: frozenset(types) for keyword, types in found.items()}


def resolve(code: str, keyword: str) -> str:
    """Resolve a composite action of Table E.1-1a by the strictest type that any IOD gives the attribute.

    A recipe's rule holds for every SOP class and every depth, so the action is the one that conforms in all of them:
    where an IOD needs a value, a dummy is written, though the attribute might be removed from other IODs.
    """
    choices = code.rstrip("*").split("/")
    if len(choices) == 1:
        return choices[0]
    types = required_types().get(keyword, frozenset("3"))
    if "1" in types and choices[-1] in ("D", "U"):
        return choices[-1]
    if ("1" in types or "2" in types) and "Z" in choices:
        return "Z"
    # Type 2 where the table offers only X/D: a value is needed, though an empty one would do.
    return choices[-1] if {"1", "2"} & types else choices[0]
