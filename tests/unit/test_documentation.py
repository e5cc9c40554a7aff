"""The commands that README, the pages and the package itself show are commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from tools.module_list import PAGE, module_list

from dicom_deid.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("plugins/dicom_deid/cli/*.py"))]
# A command ends at a pipe, a semicolon or a parenthesis outside quotes.
_UNQUOTED = re.compile(r'(?:"[^"]*"|[^|;)])*')
_SHOWN = re.compile(r"(?:^|[`$ (\"])dicom-deid ((?:[a-z]+(?:-[a-z]+)*)(?: [^`\n]*)?)", re.MULTILINE)


def _commands() -> list[tuple[str, str]]:
    """Return every command line that is shown, by page; a line that ends with a backslash goes on."""
    found = set()
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for shown in _SHOWN.findall(text):
            command = re.split(r"\s#\s|\.\.\. ", _UNQUOTED.match(shown)[0])[0].strip()
            # The end of a string literal that the command is in.
            found.add((page.name, command.removesuffix('"') if command.count('"') % 2 else command))
    return sorted(found)


def _command_of(words: list[str]) -> click.Command:
    """Return the sub-command that the first words name."""
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None or command.name == "demo", f"there is no command {word}"
        command = found or command
    return command


@pytest.mark.parametrize(("page", "shown"), _commands())
def test_a_command_that_is_shown_is_one(page: str, shown: str) -> None:
    """Catches a command, an option or a choice that a reader copies and that the command line refuses."""
    words = shlex.split(shown)
    command = _command_of(words)
    options = {name: option for option in command.params for name in option.opts}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if not word.startswith("--"):
            continue
        assert word in options, f"{page}: {word} is no option of {command.name}"
        kind = options[word].type
        if isinstance(kind, click.Choice):
            assert following in kind.choices, f"{page}: {word} takes no {following}"


def test_files_named_by_the_architecture_page_exist() -> None:
    """Catches a page that sends a reader to a file that was moved."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "plugins" / "dicom_deid"
    named = set(re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py|[a-z_0-9]+(?:/[a-z_0-9]+)*/)`", text))
    assert len(named) > 50
    missing = [name for name in named if not ((ROOT / name).exists() or (package / name).exists())]
    assert [name for name in missing if "/" in name or not list(package.rglob(name))] == []


def test_names_in_the_architecture_page_are_in_their_files() -> None:
    """Catches a page that names a function or constant that was renamed: "`file.py` (`Name`, ...)"."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = [
        (file, name)
        for file, names in re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)` \(([^)]*)\)", text)
        for name in re.findall(r"`([A-Za-z_]+)`", names)
    ]
    assert len(named) > 10
    package = ROOT / "plugins" / "dicom_deid"
    assert [pair for pair in named if pair[1] not in (package / pair[0]).read_text(encoding="utf-8")] == []


def test_the_list_of_modules_is_as_written() -> None:
    assert PAGE.read_text(encoding="utf-8") == module_list(), "run python -m tools.module_list"
