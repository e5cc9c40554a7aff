"""Generate the attribute types of PS3.3 for Table E.1-1: ``python -m tools.ps3_15.element_types`` writes the CSV.

The facts are read from the tables of PS3.3 as highdicom (0.28) ships them, module by module and IOD by IOD, functional
groups included. Only the result ships with the package: for each SOP class, and first for any, the type of each
attribute with a composite action, at the root and (``>``) in a sequence.
"""

from __future__ import annotations

import csv
import importlib.resources
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tools.ps3_15.table import E1_1, read_rows

TYPES = E1_1.with_name("attribute_types.csv")
NO_TYPE = "3"


def main() -> None:
    """Write the strictest type that each SOP class gives each attribute at each place."""
    standard = importlib.resources.files("highdicom") / "_standard"
    iods, modules, sop_classes = (
        json.loads((standard / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("iod_module_map", "module_attribute_map", "sop_class_iod_map")
    )
    by_iod = {iod: dict(_strictest(_facts(of_iod, modules))) for iod, of_iod in iods.items()}
    of_any = dict(_strictest(fact for found in by_iod.values() for fact in found.items()))
    places = sorted(of_any, key=lambda place: (place.lstrip(">"), place))
    with TYPES.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(("sop_class_uid", *places))
        writer.writerow(("", *(of_any[place] for place in places)))
        for uid, iod in sorted(sop_classes.items()):
            # An item may be of a macro that the tables do not spell out for the IOD: there the strictest type holds.
            absent = {place: of_any[place] if place.startswith(">") else NO_TYPE for place in places}
            found = absent | by_iod[iod]
            writer.writerow((uid, *(found[place] for place in places)))


def _facts(of_iod: Iterable[Any], modules: dict[str, Any]) -> Iterator[tuple[str, str]]:
    wanted = {row.keyword for row in read_rows() if "/" in row.basic}
    for module in of_iod:
        for attribute in modules.get(module["key"], ()):
            kind = attribute["type"][0]
            if attribute["keyword"] in wanted and kind in "123":
                yield (">" if attribute["path"] else "") + attribute["keyword"], kind


def _strictest(facts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    found: dict[str, str] = {}
    for place, kind in facts:
        found[place] = min(kind, found.get(place, NO_TYPE))
    yield from found.items()


if __name__ == "__main__":
    main()
