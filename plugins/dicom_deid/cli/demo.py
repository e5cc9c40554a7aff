"""`dicom-deid demo`: a complete run on a laptop, on real DICOM objects, through Airflow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dicom_deid.cli.options import embedded_keys
from dicom_deid.cli.preview import changes_table
from dicom_deid.database import Database, KeyRing, RunReport
from dicom_deid.database.quarantine import HeldGroup, list_held_groups
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.changes import changes_between, read_elements
from dicom_deid.reasons import Outcome, Reason
from dicom_deid.sandbox import Sandbox, default_directory
from dicom_deid.sandbox.airflow import COMPONENTS, AirflowOptions, AirflowSandbox, create_database
from dicom_deid.sandbox.deployment import connection_documents
from dicom_deid.sandbox.samples import ensure_bucket, load_samples

DAG = "dicom_deid_on_demand"
SOURCE, PREFIX, DESTINATION = "incoming", "demo", "deidentified"
_WIDTH = 110
SHOWN = "test_files/CT_small.dcm"
"""The object whose changes are shown."""


@click.group(invoke_without_command=True)
@click.option("--keep", is_flag=True, help="Leave Airflow's UI running until Ctrl-C.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the demonstration keeps its data.  [default: next to the sandbox's]",
)
@click.pass_context
def demo(context: click.Context, keep: bool, directory: Path | None) -> None:
    """De-identify pydicom's own test files through a real Airflow, and show the results."""
    if context.invoked_subcommand is None:
        _run(
            Console(highlight=False, width=_WIDTH),
            directory or default_directory().with_name("demo"),
            keep,
        )


@demo.command()
@click.option("--endpoint-url", envvar=["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], help="Of the S3 store.")
@click.option(
    "--connections",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An Airflow connections file with the connection `dicom_deid_source` of the store.",
)
def seed(endpoint_url: str | None, connections: Path | None) -> None:
    """Upload the demonstration's objects to the bucket `incoming` and create the bucket `deidentified`."""
    import boto3

    settings: dict[str, Any] = {"endpoint_url": endpoint_url}
    if connections is not None:
        source = json.loads(connections.read_text())["dicom_deid_source"]
        settings = {
            "endpoint_url": source["extra"]["endpoint_url"],
            "region_name": source["extra"]["region_name"],
            "aws_access_key_id": source["login"],
            "aws_secret_access_key": source["password"],
        }
    client = boto3.client("s3", **settings)
    count = load_samples(client, SOURCE, PREFIX)
    ensure_bucket(client, DESTINATION)
    click.echo(
        f"{count} objects in s3://{SOURCE}/{PREFIX}; trigger the DAG {DAG}: source s3://{SOURCE}, destination s3://{DESTINATION}."
    )


def _run(console: Console, directory: Path, keep: bool) -> None:
    began = time.monotonic()
    with Sandbox(directory, keep=True) as sandbox, _step(console, "Starting Airflow") as done:
        keys = embedded_keys(directory)
        airflow = _airflow(sandbox, keys, directory)
        airflow.start(COMPONENTS if keep else COMPONENTS[:3])
        done(airflow.url)
        try:
            objects = load_samples(sandbox.s3.client(), SOURCE, PREFIX)
            ensure_bucket(sandbox.s3.client(), DESTINATION)
            console.print(f"Objects in s3://{SOURCE}/{PREFIX}: [bold]{objects}[/]")
            _trigger(console, airflow)
            with Database.connect(sandbox.postgres_url, keys=keys) as db:
                _show(console, sandbox, db)
                held = list_held_groups(db.connection, {"reason": Reason.PIXEL_RISK.value}, limit=1)
            console.print(f"\nTook {time.monotonic() - began:.0f} s.")
            _where_next(console, airflow, directory, keep, held)
            if keep:
                _wait_for_interrupt()
        finally:
            airflow.stop()


def _airflow(sandbox: Sandbox, keys: KeyRing, directory: Path) -> AirflowSandbox:
    create_database(sandbox.postgres_url, "airflow")
    s3 = sandbox.s3
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    return AirflowSandbox(
        AirflowOptions(
            home=directory / "airflow",
            database_url=sandbox.database_url("airflow").replace("postgresql://", "postgresql+psycopg2://"),
            dags_folder=Path(str(files("dicom_deid.example_dags"))),
            connections=connection_documents(storage, sandbox.postgres_url, keys, project="demo"),
        )
    )


@contextmanager
def _step(console: Console, what: str) -> Iterator[Any]:
    """Print that a long step begins; give the function that prints its result and duration."""
    began = time.monotonic()
    console.print(f"{what} ...")
    yield lambda result: console.print(f"{what}: {result} after {time.monotonic() - began:.0f} s")


def _trigger(console: Console, airflow: AirflowSandbox) -> None:
    airflow.wait_for_dags(DAG)
    began = time.monotonic()
    conf = {
        "source": f"s3://{SOURCE}",
        "prefix": f"{PREFIX}/",
        "destination": f"s3://{DESTINATION}",
        "create_project": True,
        "reason": "Demonstration",
    }
    run_id = airflow.trigger(DAG, conf)
    state = airflow.wait_for_run(DAG, run_id)
    console.print(f"DAG {DAG}, run {run_id}: [bold]{state}[/] after {time.monotonic() - began:.0f} s")
    if state != "success":
        raise ConfigurationError(f"The run did not succeed; its logs are below {airflow.options.home / 'logs'}.")


def _show(console: Console, sandbox: Sandbox, db: Database) -> None:
    run = db.runs(1, project="demo")[0]
    report = db.report(run.run_id)
    console.print()
    if not run.planned:
        console.print(f"[bold]Nothing is left to do[/]: all {run.already_done} objects were done before.")
        report = db.report(next(each for each in db.runs(project="demo") if each.planned).run_id)
        console.print("Results of the last run that processed objects:")
    _show_totals(console, report)
    _show_reasons(console, report)
    _show_object(console, sandbox, db)
    verified = db.verify()
    found = "nothing was changed" if not verified.problems else f"{len(verified.problems)} PROBLEMS"
    console.print(f"\nAudit: {verified.rows} rows, {verified.events} events; hash chains verified, [bold]{found}[/].")
    kinds = ", ".join(f"{count} {kind}" for kind, count in db.queries.crosswalk_sizes().get("demo", {}).items())
    console.print(f"Crosswalk of the project demo: {kinds}.")


def _show_totals(console: Console, report: RunReport) -> None:
    table = Table("", "Objects", title="Run", title_justify="left")
    table.columns[1].justify = "right"
    table.add_row("in the source", str(report.run.listed))
    table.add_row("done before", str(report.run.already_done))
    for outcome in (Outcome.DEIDENTIFIED, Outcome.QUARANTINED, Outcome.FAILED):
        table.add_row(outcome.value, str(report.outcomes.get(outcome, 0)))
    console.print(table)


def _show_reasons(console: Console, report: RunReport) -> None:
    table = Table("Reason", "Objects", "What it means", title="Quarantined", title_justify="left")
    table.columns[1].justify = "right"
    for code, count in sorted(report.reasons.items(), key=lambda each: -each[1]):
        table.add_row(code, str(count), Reason(code).advice.meaning)
    console.print(table)


def _show_object(console: Console, sandbox: Sandbox, db: Database) -> None:
    """Show what changed in one object. The values are those of public test files."""
    written = [each.destination_key for each in db.trace(SHOWN) if each.destination_key]
    if not written:
        return
    client = sandbox.s3.client()
    key = f"{PREFIX}/{SHOWN}"
    before = read_elements(client.get_object(Bucket=SOURCE, Key=key)["Body"].read())
    after = read_elements(client.get_object(Bucket=DESTINATION, Key=written[-1])["Body"].read(), before)
    changes = list(changes_between(before, after))
    shown = [each for each in changes if not each.is_private]
    console.print(f"{key}\n-> {written[-1]}")
    console.print(changes_table(shown, show_originals=True))
    console.print(f"... and {len(changes) - len(shown)} private elements.")


def _where_next(
    console: Console, airflow: AirflowSandbox, directory: Path, keep: bool, held: Sequence[HeldGroup]
) -> None:
    console.print("\n[bold]Where to look next[/]")
    if keep:
        user, password = next(iter(airflow.passwords.items()))
        console.print(f"  Airflow       {airflow.url}   login {user}   password {password}")
        console.print(f"  the pages     {airflow.url}/dicom-deid/   (in the navigation: Browse, De-identification)")
        for group in held:
            console.print(
                f"  held images   {airflow.url}/dicom-deid/quarantine/groups/{group.group_id}   (look, mask, release)"
            )
        console.print("  stop          Ctrl-C")
    else:
        console.print("  Airflow's UI  make demo KEEP=1")
    console.print(f"  the servers   dicom-deid sandbox up --directory {directory}")
    console.print("  your own S3   docs/airflow.md")


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        click.echo()
