"""Which types PS3.3 gives to the attributes of Table E.1-1: ``python -m bench.ps3_15.element_types`` writes the CSV.

The facts are read from the tables of PS3.3 as highdicom (0.28) ships them, module by module and IOD by IOD. Only the
result is kept, so that the recipes can be made without that package.
"""

from __future__ import annotations

import csv
import importlib.resources
import json
from collections import Counter, defaultdict

from bench.ps3_15.table import FOLDER, read_rows

TYPES = FOLDER / "element_types.csv"


def main() -> None:
    """Count the IODs that give an attribute with a composite action type 1, 2 and 3, at the root and nested."""
    standard = importlib.resources.files("highdicom") / "_standard"
    iods = json.loads((standard / "iod_module_map.json").read_text(encoding="utf-8"))
    modules = json.loads((standard / "module_attribute_map.json").read_text(encoding="utf-8"))
    wanted = {row.keyword for row in read_rows() if "/" in row.basic}
    strictest: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for iod, of_iod in iods.items():
        for module in of_iod:
            for attribute in modules.get(module["key"], ()):
                if attribute["keyword"] in wanted and attribute["type"][0] in "123":
                    place = "nested" if attribute["path"] else "root"
                    found = strictest[attribute["keyword"], place]
                    found[iod] = min(found.get(iod, "3"), attribute["type"][0])
    with TYPES.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(("keyword", "place", "iods_type_1", "iods_type_2", "iods_type_3"))
        for (keyword, place), found in sorted(strictest.items()):
            count = Counter(found.values())
            writer.writerow((keyword, place, count["1"], count["2"], count["3"]))


if __name__ == "__main__":
    main()
