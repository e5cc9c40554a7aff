"""`dicom-deid dags`: the example DAGs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from dicom_deid.exceptions import ConfigurationError


@click.group()
def dags() -> None:
    """Install the example DAGs."""


@dags.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--force", is_flag=True, help="Overwrite DAG files that were changed.")
def install(directory: Path, force: bool) -> None:
    """Copy the example DAGs into DIRECTORY, Airflow's DAGs folder."""
    found = files("dicom_deid.example_dags").iterdir()
    shipped = {file.name: file.read_text("utf-8") for file in found if _is_dag(file.name)}
    changed = [name for name, text in shipped.items() if _differs(directory / name, text)]
    if changed and not force:
        raise ConfigurationError(
            f"{', '.join(sorted(changed))} in {directory} would be overwritten: use --force, or rename your copies."
        )
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(shipped.items()):
        (directory / name).write_text(text, "utf-8")
        click.echo(directory / name)


def _is_dag(name: str) -> bool:
    return name.startswith("dicom_deid_") and name.endswith(".py")


def _differs(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") != text
