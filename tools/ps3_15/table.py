"""Tables E.1-1 and E.3.4-1 of PS3.15 as rows."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.sr._snomed_dict import mapping

from dicom_deid.recipe.types import resolve, types_of

FOLDER = Path(__file__).parent
E3_4_1 = FOLDER / "e3_4_1_structured_content.csv"
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
CONTENT_OPTIONS = {
    "retain-uids": "Rtn. UIDs Opt.",
    "retain-device-identity": "Rtn. Dev. Id. Opt.",
    "retain-institution-identity": "Rtn. Inst. Id. Opt.",
    "retain-patient-characteristics": "Rtn. Pat. Chars. Opt.",
    "retain-longitudinal-full-dates": "Rtn. Long. Full Dates Opt.",
    "retain-longitudinal-modified-dates": "Rtn. Long. Modif. Dates Opt.",
    "clean-descriptors": "Clean Desc. Opt.",
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
    def is_composite(self) -> bool:
        """True if the action depends on the attribute's type in the object's IOD."""
        return "/" in self.basic

    def action(self, sop_class_uid: str = "", *, root: bool = True) -> str:
        """Return the basic profile's action, one of X, Z, D, U, in objects of a SOP class or of an unknown one."""
        return resolve(self.basic, types_of(sop_class_uid).of(self.keyword, root))


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


@dataclass(frozen=True)
class ContentRow:
    """One row of Table E.3.4-1: content items of one concept and value type, actions as the table has them."""

    meaning: str
    code: str
    scheme: str
    value_type: str
    basic: str
    options: dict[str, str]

    @property
    def action(self) -> str:
        """The basic profile's action, X or D.

        Of X/D it is D: whether a template needs the item cannot be told from the object, and a dummy fits in any.
        """
        return self.basic.split("/")[-1]

    @property
    def fields(self) -> list[str]:
        """The expressions that select the items; a SNOMED code also as reports of before 2018 write it (SRT)."""
        names = [(self.code, self.scheme)]
        older = mapping["SCT"].get(self.code) if self.scheme == "SCT" else None
        if older is not None:
            names.append((older, "SRT"))
        texts = [f"content:{code},{scheme},{self.value_type}" for code, scheme in names]
        return [f'"{text}"' if " " in text else text for text in texts]


def read_content_rows() -> list[ContentRow]:
    """Return all rows of Table E.3.4-1 in the order of the table."""
    with E3_4_1.open(encoding="utf-8", newline="") as source:
        return [
            ContentRow(
                record["Code Meaning"],
                record["Code Value"],
                record["Coding Scheme Designator"],
                record["Value Type"],
                record["Basic Prof."],
                {option: record[column] for option, column in CONTENT_OPTIONS.items() if record[column]},
            )
            for record in csv.DictReader(source)
        ]
