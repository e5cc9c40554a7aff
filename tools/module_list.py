"""Write docs/modules.md: one line per module, from the first line of its docstring.

python -m tools.module_list
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "plugins" / "dicom_deid"
PAGE = ROOT / "docs" / "modules.md"

_HEADER = """# Modules

One line per module: the first line of its docstring, written by `python -m tools.module_list`.
[Architecture](architecture.md) says where to begin.
"""


def module_list() -> str:
    """Return the page in Markdown, one table per package."""
    sections = [_HEADER]
    for folder in sorted({path.parent for path in _modules()}):
        rows = [f"| `{path.name}` | {_first_line(path)} |" for path in _modules() if path.parent == folder]
        name = folder.relative_to(PACKAGE.parent).as_posix()
        sections.append("\n".join([f"## {name}/", "", "| module | |", "|---|---|", *rows, ""]))
    return "\n".join(sections)


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if _first_line(path))


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.partition("\n")[0].replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(module_list())
