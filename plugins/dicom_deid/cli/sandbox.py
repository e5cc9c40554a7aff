"""`dicom-deid sandbox`: real servers for a laptop."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from dicom_deid.cli.options import KEYS_VARIABLE, embedded_keys
from dicom_deid.sandbox import Sandbox, default_directory

_DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Where the servers keep their data (default: DICOM_DEID_SANDBOX, or a directory in your home).",
)


@click.group()
def sandbox() -> None:
    """Real servers for a laptop: S3 (SeaweedFS) and PostgreSQL."""


@sandbox.command()
@_DIRECTORY
@click.option("--bucket", "buckets", multiple=True, help="Make this bucket when it is missing; may be repeated.")
def up(directory: Path | None, buckets: tuple[str, ...]) -> None:
    """Start the servers, or find them running, and print how to reach them.

    The output can be read by a shell: `eval "$(dicom-deid sandbox up)"`.
    """
    servers = Sandbox(directory or default_directory()).start()
    client = servers.s3.client()
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in buckets:
        if bucket not in existing:
            client.create_bucket(Bucket=bucket)
    _print_environment(servers)


@sandbox.command()
@_DIRECTORY
@click.option("--delete", is_flag=True, help="Delete all data too: buckets, pseudonyms, audit.")
def down(directory: Path | None, delete: bool) -> None:
    """Stop the servers; their data stay."""
    servers = Sandbox(directory or default_directory(), keep=not delete)
    servers.stop()
    click.echo(f"Stopped{' and deleted' if delete else ''}: {servers.directory}")


@sandbox.command()
@_DIRECTORY
@click.pass_context
def status(context: click.Context, directory: Path | None) -> None:
    """Print how to reach the servers; exit 1 when they do not run."""
    servers = Sandbox(directory or default_directory())
    if not servers.is_running():
        click.echo(f"Not running: {servers.directory}", err=True)
        context.exit(1)
    _print_environment(servers)


def _print_environment(servers: Sandbox) -> None:
    variables = {
        **servers.s3.environment(),
        "DICOM_DEID_DATABASE": servers.postgres_url,
        KEYS_VARIABLE: embedded_keys(servers.directory).to_text(),
    }
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
