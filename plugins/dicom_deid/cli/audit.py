"""`dicom-deid audit`: what was done, and the proof that it was not changed."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from dicom_deid.cli.options import access_options, database_access, database_options
from dicom_deid.database import AccessReason, AuditRecord, Database
from dicom_deid.database.projects import split_source
from dicom_deid.pipeline import Connections
from dicom_deid.pipeline.withdrawal import reconcile_destination
from dicom_deid.reasons import Outcome


@click.group()
def audit() -> None:
    """Verify, trace and export what was done."""


@audit.command()
@click.option("--run", "run_id", help="Only the rows of this run (and all events).")
@click.option("--expect-head", help="The head that an earlier verification printed; it must still be there.")
@database_options
def verify(
    run_id: str | None, expect_head: str | None, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Find changed, missing and inserted rows. Exits 1 when there are any.

    Keep the printed head outside the database (reports hold it too): with --expect-head it proves later that the newest
    events of today still exist, even if the whole database was replaced by an older copy.
    """
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        result = db.verify(run_id=run_id, expected_head=expect_head)
    for problem in result.problems:
        click.echo(f"{problem.where}: {problem.what}", err=True)
    click.echo(f"{result.events} events, {result.runs} runs, {result.links} links, {result.rows} rows")
    if result.pseudonyms is None:
        click.echo("The mapping was not verified: this login may not read it; the writer's or the owner's may.")
    else:
        click.echo(f"{result.pseudonyms} pseudonyms")
    click.echo(f"head {result.head}")
    if result.problems:
        click.echo(f"The audit does NOT verify: {len(result.problems)} problems.", err=True)
        sys.exit(1)
    click.echo("The audit verifies.")


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--run", "run_id", help="Only this run.")
@click.option("--outcome", type=click.Choice([each.value for each in Outcome]), help="Only this outcome.")
@database_options
def export(
    file: Path, run_id: str | None, outcome: str | None, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Write the audit to FILE (.parquet or .csv), one row per object and attempt. Source keys are left out."""
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        count = db.export_audit(file, run_id=run_id, outcome=outcome)
    click.echo(f"{count} rows written to {file}.")


@audit.command()
@click.argument("key")
@click.option("--show-source-keys", is_flag=True, help="Show source keys, which may name patients; needs --reason.")
@click.option("--reason", help="Why source keys are to be shown; it goes into the audit.")
@click.option("--person", default=getpass.getuser, show_default="the user of this machine", help="Who, for the audit.")
@database_options
def trace(
    key: str,
    show_source_keys: bool,
    reason: str | None,
    person: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Show every attempt at the objects of a source KEY or a destination KEY."""
    if show_source_keys and not reason:
        raise click.UsageError("--show-source-keys needs --reason")
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        found = db.trace(key)
        keys = db.source_keys(found, AccessReason(person=person, reason=reason)) if show_source_keys and reason else {}
    for record in found:
        _print(record, keys)
    if not found:
        click.echo(
            "The audit knows no object of that key. "
            "Give it as s3://bucket/key, or relative to the source or destination.",
            err=True,
        )
        sys.exit(1)


@audit.command()
@click.option(
    "--hours", type=click.IntRange(min=0), default=24, show_default=True, help="Runs that recorded nothing for so long."
)
@database_options
def close(hours: int, database: str | None, data_directory: Path | None, schema: str) -> None:
    """End runs that nothing works on any more as abandoned, so that their rows are covered by an end."""
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as db,
    ):
        closed = db.close_abandoned(hours)
    for run_id in closed:
        click.echo(run_id)
    click.echo(f"{len(closed)} runs were closed.")


@audit.command()
@click.argument("destination")
@click.option("--repair", is_flag=True, help="Delete orphans and left-over objects; have the next run write lost ones.")
@access_options
@database_options
def reconcile(
    destination: str,
    repair: bool,
    person: str,
    reason: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Compare DESTINATION with the audit. Exits 1 when they differ.

    Differences: lost (deleted from the destination), changed, orphan (written by a worker that died before it recorded
    it), left-over (superseded or withdrawn), unknown (something else wrote it; never touched).
    """
    access_reason = AccessReason(person=person, reason=reason)
    with database_access(database, data_directory) as access:
        connections = Connections(database=access.url, keys=access.keys, schema=schema)
        result = reconcile_destination(connections, destination, access_reason, repair=repair)
    for found in result.found:
        click.echo(f"{found.difference.value:10} {found.key}  run {found.run_id or '-'}")
    if more := sum(result.counts.values()) - len(result.found):
        click.echo(f"and {more} more")
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.counts.items())) or "no difference"
    click.echo(f"{result.objects} objects at the destination: {counts}.")
    if result.found and repair:
        click.echo("Orphans and left-over objects were deleted; the next run writes lost objects again.")
    elif result.found:
        sys.exit(1)


def _print(row: AuditRecord, keys: Mapping[str, str]) -> None:
    reason = f" ({row.reason})" if row.reason else ""
    click.echo(f"{row.recorded_at:%Y-%m-%d %H:%M:%S} UTC  {row.outcome}{reason} {row.detail}".rstrip())
    key = keys.get(row.object_id)
    source = row.source if key is None else f"{split_source(row.source)[0]}/{key}"
    for name, value in (
        ("project", row.project),
        ("run", f"{row.run_id}, batch {row.batch_id}, attempt {row.attempt}"),
        ("object", row.object_id),
        ("source", f"{source}  {row.source_size} bytes, etag {row.source_etag}"),
        ("sha256 in", row.sha256_in),
        ("destination", row.destination_key and f"{row.destination} {row.destination_key}"),
        ("replaced", row.replaced_key),
        ("sha256 out", row.sha256_out),
        ("recipe", row.recipe_digest),
        ("settings", row.settings_digest),
        ("package", row.package_version),
        ("actions", row.actions),
    ):
        if value:
            click.echo(f"    {name:12} {value}")
