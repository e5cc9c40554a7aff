"""`dicom-deid crosswalk`: originals and pseudonyms, for those who may see both."""

from __future__ import annotations

import csv
import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dicom_deid.cli.options import database_access, database_options, owner_only
from dicom_deid.database import AccessReason, Database, KeyRing
from dicom_deid.database.crosswalk_import import write_csv
from dicom_deid.identifiers import IdentifierKind

Command = TypeVar("Command", bound=Callable[..., Any])

_KINDS = click.Choice([kind.value for kind in IdentifierKind])


def _accountable(command: Command) -> Command:
    """Add the options that go into the audit."""
    command = click.option("--reason", required=True, help="Why; it goes into the audit.")(command)
    return click.option(
        "--person", default=getpass.getuser, show_default="the user of this machine", help="Who asks, for the audit."
    )(command)


@click.group()
def crosswalk() -> None:
    """Look up, import, export and re-key pseudonyms."""


@crosswalk.command("new-key")
@click.option("--id", "key_id", default="k1", show_default=True, help="Id of the key; another for each new key.")
def new_key(key_id: str) -> None:
    """Print a new key, as DICOM_DEID_KEYS takes it. Keep it where secrets are kept, and keep a copy."""
    click.echo(KeyRing.generate(key_id).to_text())


@crosswalk.command()
@click.argument("values", nargs=-1, required=False)
@click.option("--project", required=True, help="The project.")
@click.option(
    "--kind", type=_KINDS, default=IdentifierKind.PATIENT_ID.value, show_default=True, help="Kind of identifier."
)
@click.option(
    "--to",
    "direction",
    type=click.Choice(["original", "pseudonym"]),
    default="original",
    show_default=True,
    help="Which way.",
)
@_accountable
@database_options
def lookup(
    values: tuple[str, ...],
    project: str,
    kind: str,
    direction: str,
    person: str,
    reason: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Find the original behind a pseudonym, or the pseudonym of an original; the audit keeps who, when and why.

    VALUES are read from standard input, one a line, when none is given: other users of the machine do not see them.
    """
    asked = AccessReason(person=person, reason=reason)
    wanted = list(values) or [text.rstrip("\n") for text in sys.stdin if text.strip()]
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        found = db.crosswalk(db.project(project, create=False))
        look = found.originals_of if direction == "original" else found.pseudonyms_of
        pairs = look(IdentifierKind(kind), wanted, asked)
    writer = csv.writer(sys.stdout)
    for original, pseudonym in pairs:
        writer.writerow((original.kind.value, original.value, pseudonym))
    known = {pair.pseudonym if direction == "original" else pair.original.value for pair in pairs}
    if missing := [value for value in wanted if value.strip() not in known]:
        click.echo(f"{len(missing)} of {len(wanted)} not found", err=True)
        sys.exit(1)


@crosswalk.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--project", required=True, help="The project; made when it does not exist.")
@_accountable
@database_options
def import_(
    file: Any, project: str, person: str, reason: str, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Import a crosswalk from a CSV FILE with the columns kind, original, pseudonym: all of it, or nothing."""
    asked = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        db.upgrade()
        count = db.import_crosswalk(db.project(project), file, asked)
    click.echo(f"{count} pseudonyms imported into project {project}.")


@crosswalk.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--project", required=True, help="The project.")
@click.option("--kind", "kinds", type=_KINDS, multiple=True, help="Only these kinds.")
@_accountable
@database_options
def export(
    file: Path,
    project: str,
    kinds: tuple[str, ...],
    person: str,
    reason: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Write the crosswalk to a CSV FILE, which only its owner can read; it holds every original in the clear."""
    asked = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        rows = db.crosswalk(db.project(project, create=False)).export(
            asked, [IdentifierKind(kind) for kind in kinds] or None
        )
        with owner_only(file) as target:
            count = write_csv(rows, target)
    click.echo(f"{count} pseudonyms written to {file}.")


@crosswalk.command()
@_accountable
@database_options
def rotate(person: str, reason: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Seal every original under the first key of DICOM_DEID_KEYS. Stopped, start it again; workers may go on."""
    asked = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        count = 0
        for count in db.rotate(asked):
            click.echo(f"\r{count} rows", nl=False, err=True)
    click.echo(f"\n{count} rows are sealed under key {access.keys.active_id}; no other key seals anything.")


def _open(access: Any, schema: str) -> Database:
    return Database.connect(access.url, schema=schema, keys=access.keys)
