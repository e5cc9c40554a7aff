"""`dicom-deid crosswalk`: originals and pseudonyms, for those who may see both."""

from __future__ import annotations

import csv
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from dicom_deid.cli.options import access_options, database_access, database_options, owner_only
from dicom_deid.database import AccessReason, Database, KeyRing
from dicom_deid.database.crosswalk_import import write_csv
from dicom_deid.database.export import spreadsheet_safe
from dicom_deid.identifiers import IdentifierKind

_KINDS = click.Choice([kind.value for kind in IdentifierKind])


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
@access_options
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
    access_reason = AccessReason(person=person, reason=reason)
    wanted = list(values) or [text.rstrip("\n") for text in sys.stdin if text.strip()]
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        found = db.crosswalk(db.project(project, create=False))
        look = found.originals_of if direction == "original" else found.pseudonyms_of
        pairs = look(IdentifierKind(kind), wanted, access_reason)
    writer = csv.writer(sys.stdout)
    for original, pseudonym in pairs:
        writer.writerow((original.kind.value, spreadsheet_safe(original.value), spreadsheet_safe(pseudonym)))
    known = {pair.pseudonym if direction == "original" else pair.original.value for pair in pairs}
    if missing := [value for value in wanted if value.strip() not in known]:
        click.echo(f"{len(missing)} of {len(wanted)} not found", err=True)
        sys.exit(1)


@crosswalk.command()
@click.option("--project", required=True, help="The project.")
@database_options
def ambiguous(project: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """List the pseudonyms of patients whose PatientID has several issuers, or whose study has several patients.

    `lookup` finds their originals. The columns are: why, number of issuers or of the study in this list, pseudonym.
    """
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        found = db.ambiguous_patients(db.project(project, create=False))
    writer = csv.writer(sys.stdout)
    for each in found:
        why = "study" if each.study else "issuers"
        writer.writerow((why, each.study or each.issuers, spreadsheet_safe(each.pseudonym)))


@crosswalk.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--project", required=True, help="The project; made when it does not exist.")
@access_options
@database_options
def import_(
    file: Any, project: str, person: str, reason: str, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Import a crosswalk from a CSV FILE with the columns kind, original, pseudonym: all of it, or nothing."""
    access_reason = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        db.upgrade()
        count = db.import_crosswalk(db.project(project), file, access_reason)
    click.echo(f"{count} pseudonyms imported into project {project}.")


@crosswalk.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--project", required=True, help="The project.")
@click.option("--kind", "kinds", type=_KINDS, multiple=True, help="Only these kinds.")
@access_options
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
    access_reason = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        rows = db.crosswalk(db.project(project, create=False)).export(
            access_reason, [IdentifierKind(kind) for kind in kinds] or None
        )
        with _whole_or_nothing(file) as target:
            count = write_csv(rows, target)
    click.echo(f"{count} pseudonyms written to {file}.")


@contextmanager
def _whole_or_nothing(file: Path) -> Iterator[TextIO]:
    """Open a file that appears when it is complete; an export that fails or is killed leaves no original behind."""
    if file.exists() and not file.is_file():
        # A device or a pipe, such as /dev/stdout.
        with owner_only(file) as target:
            yield target
        return
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with _named_when_complete(unfinished) as target:
            yield target
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _named_when_complete(file: Path) -> Iterator[TextIO]:
    """Open a file that has no name until it is complete, if the file system can do that."""
    try:
        descriptor = os.open(file.parent, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except (AttributeError, OSError):
        with owner_only(file) as target:
            yield target
        return
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as target:
        yield target
        target.flush()
        # With a descriptor of a directory the link in /proc is followed.
        os.link(f"/proc/self/fd/{descriptor}", file, src_dir_fd=descriptor)


@crosswalk.command()
@click.argument("patients", nargs=-1, required=False)
@click.option("--project", required=True, help="The project.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@access_options
@database_options
def erase(
    patients: tuple[str, ...],
    project: str,
    yes: bool,
    person: str,
    reason: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Erase PATIENTS (original PatientIDs or their pseudonyms) whose objects are withdrawn, for good.

    Originals, keyed hashes, date offsets, source keys and the memory of their withdrawal are deleted. An object of
    theirs that is still in the source would be processed as of a new patient: delete it there first. PATIENTS are
    read from standard input, one per line, when none is given: other users of the machine do not see them.
    """
    access_reason = AccessReason(person=person, reason=reason)
    wanted = list(patients) or [text.strip() for text in sys.stdin if text.strip()]
    if not yes:
        click.confirm(f"Erase {len(wanted)} patients of project {project}? This cannot be undone", abort=True)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        count = db.erase_patients(db.project(project, create=False), wanted, access_reason)
    click.echo(f"{count} pseudonyms were erased. Backups of the database still hold them: see the documentation.")


@crosswalk.command()
@access_options
@database_options
def rotate(person: str, reason: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Encrypt every original under the first key of DICOM_DEID_KEYS, while workers go on.

    When it was stopped, start it again.
    """
    access_reason = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access, _open(access, schema) as db:
        count = 0
        for count in db.rotate(access_reason):
            click.echo(f"\r{count} rows", nl=False, err=True)
        in_use = db.keys_in_use()
    others = {key: number for key, number in in_use.items() if key != access.keys.active_id}
    click.echo(f"\n{count} rows were encrypted again under key {access.keys.active_id}.")
    for key, number in others.items():
        click.echo(f"Key {key} still encrypts {number} values: keep it, and rotate again.")
    if not others:
        click.echo("No other key encrypts anything; the others can be removed.")


def _open(access: Any, schema: str) -> Database:
    return Database.connect(access.url, schema=schema, keys=access.keys)
