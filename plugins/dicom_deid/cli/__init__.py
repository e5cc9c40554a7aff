"""The command `dicom-deid`: the same pipeline without a scheduler."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from dicom_deid import __version__
from dicom_deid.exceptions import ConfigurationError, DicomDeidError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3

COMMANDS = {
    "init": "Create the schema, its roles and a project; print the Airflow connections.",
    "check": "Check connections, buckets, rights, keys and recipe before a run.",
    "dags": "Install the example DAGs.",
    "index": "Index a source, so that cohort lists can be planned from it.",
    "deidentify": "De-identify the objects of a bucket or directory into another.",
    "preview": "Show which elements of one object a recipe changes; write nothing.",
    "recipe": "Check recipes and list those that ship.",
    "vocabulary": "List words that would be masked in free text.",
    "plan": "Remove finished plans.",
    "quarantine": "List, show and decide about quarantined objects.",
    "release": "Copy approved objects to where others read them; withdraw released objects.",
    "crosswalk": "Look up, import, export and re-key pseudonyms.",
    "project": "Delete a project.",
    "audit": "Verify, trace, reconcile and export the audit.",
    "db": "Create and upgrade the database schema and its roles.",
    "sandbox": "Start S3 and PostgreSQL servers on a laptop.",
    "demo": "A complete run on a laptop, through Airflow, on real DICOM objects.",
}
"""Sub-commands and their help; each is the attribute of that name in the module of that name."""


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is called, and turns our exceptions into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the sub-commands in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a sub-command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dicom_deid.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sub-commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Call the sub-command; exit with 2 for wrong usage or configuration, 1 for other errors."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_USAGE)
        except DicomDeidError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_FAILED)
        except OSError as error:
            if error.filename is None:
                raise
            # A file that the command names cannot be read or written.
            click.echo(f"Error: {error.filename}: {error.strerror}", err=True)
            sys.exit(EXIT_USAGE)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dicom-deid")
def main() -> None:
    """De-identify DICOM objects in S3-compatible storage or directories.

    Exit codes: 0 all done; 3 done, with quarantined or archived objects; 1 failed, a retry resumes; 2 wrong usage or
    configuration.
    """
