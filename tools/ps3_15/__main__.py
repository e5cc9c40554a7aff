"""Write the recipes of the profile and the conformance page, or with ``--check`` report those that are stale."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.ps3_15.conformance import conformance_text
from tools.ps3_15.recipes import TITLES, basic_text, option_text

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "plugins/dicom_deid/recipes"


def made() -> dict[Path, str]:
    """Return every file that this program writes, with its text."""
    files = {RECIPES / f"ps3.15-{option}.dicom": option_text(option) for option in TITLES}
    return files | {RECIPES / "ps3.15-basic.dicom": basic_text(), ROOT / "docs/conformance.md": conformance_text()}


def main() -> None:
    """Write, or check."""
    stale = [path for path, text in made().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        sys.exit("\n".join(f"{path} is not what the generator makes" for path in stale) or 0)
    for path in stale:
        path.write_text(made()[path], encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
