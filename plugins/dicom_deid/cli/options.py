"""Options that several commands share: the database and its keys."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

import click

from dicom_deid.database import KeyRing
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.sandbox import Sandbox, default_directory

Command = TypeVar("Command", bound=Callable[..., Any])

KEYS_VARIABLE = "DICOM_DEID_KEYS"


class DatabaseAccess(NamedTuple):
    """URL of a database and the keys of its crosswalk; both secret."""

    url: str
    keys: KeyRing

    def __repr__(self) -> str:
        return "DatabaseAccess(...)"


def database_options(command: Command) -> Command:
    """Add the options of the database with the mapping and the audit."""
    for option in (
        click.option(
            "--schema",
            default="dicom_deid",
            envvar="DICOM_DEID_SCHEMA",
            show_default=True,
            help="Schema of the tables.",
        ),
        click.option(
            "--data-directory",
            type=click.Path(path_type=Path, file_okay=False),
            envvar="DICOM_DEID_SANDBOX",
            help="Data directory of the embedded PostgreSQL, if no --database is given.  "
            "[default: the sandbox's directory]",
        ),
        click.option(
            "--database",
            envvar="DICOM_DEID_DATABASE",
            metavar="URL",
            help="PostgreSQL of the mapping and the audit (better given as DICOM_DEID_DATABASE, which other users of "
            "the machine cannot see); its keys come from DICOM_DEID_KEYS.  [default: an embedded server]",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def database_access(database: str | None, data_directory: Path | None) -> Iterator[DatabaseAccess]:
    """Give the database of the options, or the embedded one, which is started if necessary and stopped again.

    Raises
    ------
    ConfigurationError
        The keys are missing or unreadable, or the embedded server does not start.
    """
    if database:
        yield DatabaseAccess(database, KeyRing.from_environment())
        return
    sandbox = Sandbox(data_directory or default_directory(), keep=True)
    found_running = sandbox.is_running(object_store=False)
    sandbox.start(object_store=False)
    try:
        yield DatabaseAccess(sandbox.postgres_url, embedded_keys(sandbox.directory))
    finally:
        if not found_running:
            sandbox.stop()


def embedded_keys(directory: Path) -> KeyRing:
    """Return the keys of the embedded database: from `DICOM_DEID_KEYS`, else from a file beside its data.

    The file is created on first use and readable only by its owner. Without it the crosswalk is lost.

    Raises
    ------
    ConfigurationError
        The file is readable by others, or holds no keys.
    """
    if os.environ.get(KEYS_VARIABLE, "").strip():
        return KeyRing.from_environment()
    path = directory / "keys"
    if not path.exists():
        _write_once(path, KeyRing.generate().to_text())
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others: chmod 600 it, and consider new keys.")
    return KeyRing.parse(path.read_text())


def _write_once(path: Path, text: str) -> None:
    """Write a secret atomically, unless another process has written it."""
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        with suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        Path(unfinished).unlink()


@contextmanager
def owner_only(path: Path, *, append: bool = False) -> Iterator[TextIO]:
    """Open a file to write, or append, text that may name patients: only its owner can read it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC), 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)
        yield file


def lines(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> str:
    """Join repeated options, one line each."""
    return "\n".join(values)


def access_options(command: Command) -> Command:
    """Add the options that say who does something, and why, for the audit."""
    command = click.option("--reason", required=True, help="Why; it is recorded in the audit.")(command)
    return click.option(
        "--person", default=getpass.getuser, show_default="the user of this machine", help="Who, for the audit."
    )(command)


def pairs(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read repeated ``NAME=VALUE`` options."""
    given = {}
    for each in values:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise click.BadParameter("give NAME=VALUE", param=parameter)
        given[name] = value
    return given
