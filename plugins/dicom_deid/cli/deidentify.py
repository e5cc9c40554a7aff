"""`dicom-deid deidentify`: a run from a terminal, with the same pipeline as the operators."""

from __future__ import annotations

import csv
import getpass
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dicom_deid.cli import EXIT_FAILED, EXIT_QUARANTINED
from dicom_deid.cli.options import (
    database_access,
    database_options,
    lines,
    owner_only,
    pairs,
)
from dicom_deid.cli.rule_options import POLICIES, policy_options, recipe_options
from dicom_deid.database import AuditRow, RunReport
from dicom_deid.engine.settings import Settings
from dicom_deid.pipeline import Connections, PlannedRun, RunConfiguration, plan_run, report_run
from dicom_deid.pipeline import Progress as BatchProgress
from dicom_deid.pipeline.configuration import IN_FLIGHT_BYTES, MEBIBYTE
from dicom_deid.pipeline.destination import DEFAULT_TEMPLATE
from dicom_deid.pipeline.recipes import recipes_and_settings
from dicom_deid.pipeline.withdrawal import withdraw_deleted_sources
from dicom_deid.pipeline.workers import OnProgress, run_batches
from dicom_deid.reasons import Reason

_BATCH_OBJECTS, _BATCH_BYTES = 1000, 2**29
"""Smaller batches than Airflow's: a batch costs a worker process next to nothing, and all processes get some."""

_OUTCOMES = {
    "deidentified": "De-identified",
    "excluded": "Excluded",
    "quarantined": "Quarantined",
    "failed": "Failed",
}


@click.command()
@click.argument("source")
@click.argument("destination")
@recipe_options
@click.option("--project", required=True, help="Mapping domain: pseudonyms are the same inside one.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="Append one line of JSON per object: keys, outcome, reason, digests. Source keys may be PHI.",
)
@click.option("--quarantine", metavar="URL", help="Where copies of quarantined originals go.")
@click.option(
    "--destination-key-template", default=DEFAULT_TEMPLATE, show_default=True, help="Template of destination keys."
)
@click.option(
    "--variable",
    "variables",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="Value of a var:NAME of the recipe.",
)
@click.option(
    "--function",
    "functions",
    multiple=True,
    callback=pairs,
    metavar="NAME=MODULE:FUNCTION",
    help="Function of a func:NAME of the recipe.",
)
@policy_options
@click.option(
    "--cohort",
    metavar="LIST",
    help="CSV or Parquet list of patients, studies, series or keys: only these are de-identified. The source must be "
    "indexed (see `dicom-deid index`).",
)
@click.option(
    "--cohort-report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Write the answer to each line of the cohort list: line, status, number of objects.",
)
@click.option(
    "--select",
    multiple=True,
    callback=lines,
    metavar="CRITERIA",
    help='Only objects for which the criteria hold, for example "equals Modality CT || equals Modality MR"; repeated: '
    "all must hold.",
)
@click.option(
    "--exclude",
    multiple=True,
    callback=lines,
    metavar="CRITERIA",
    help='Leave out objects for which the criteria hold, for example "contains ImageType LOCALIZER"; repeated: any.',
)
@click.option(
    "--word-patients",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="With --free-text vocabulary: keep words that at least this many patients of the project have.",
)
@click.option("--limit", type=click.IntRange(1), help="Number of objects to de-identify at most.")
@click.option("--newer-than", metavar="INSTANT", help="Only objects last modified at or after it (ISO 8601).")
@click.option("--older-than", metavar="INSTANT", help="Only objects last modified before it (ISO 8601).")
@click.option("--retry-quarantined", is_flag=True, help="Try objects again that were quarantined under the same rules.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="number of cores",
    help="Number of processes, which take one batch each.",
)
@click.option("--transfers", type=click.IntRange(1), default=16, show_default=True, help="Reads and writes at a time.")
@click.option(
    "--memory",
    type=click.IntRange(1),
    default=IN_FLIGHT_BYTES // MEBIBYTE,
    show_default=True,
    metavar="MB",
    help="Bound of the bytes of objects in flight, in each process.",
)
@click.option(
    "--on-change",
    type=click.Choice(["supersede", "keep"]),
    default="supersede",
    show_default=True,
    help="Replace objects that were written when source, recipe or settings have changed, or keep them.",
)
@click.option(
    "--on-source-deleted",
    type=click.Choice(["report", "withdraw"]),
    default="report",
    show_default=True,
    help="Withdraw released objects whose source object is gone, or only count them.",
)
@click.option("--create-project/--no-create-project", default=True, help="Create the project if it does not exist.")
@click.option("--dry-run", is_flag=True, help="Plan and print what would be done, and write nothing.")
@click.option(
    "--restore",
    type=click.Choice(["no", "request"]),
    default="no",
    show_default=True,
    help="Ask the store to restore archived objects; a later run processes them.",
)
@click.option("--reason", default="", help="Why the run is made, for the audit.")
@database_options
def deidentify(
    source: str,
    destination: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
    report: Path | None,
    cohort_report: Path | None,
    memory: int,
    workers: int,
    create_project: bool,
    dry_run: bool,
    recipes: tuple[str, ...],
    profile_options: tuple[str, ...],
    **options: Any,
) -> None:  # fmt: skip
    """De-identify the DICOM objects of SOURCE into DESTINATION.

    Both are s3://bucket/prefix, reached as the standard AWS environment variables say (AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID, ...), or directories. Objects that were done before with the same recipe and settings are
    skipped, so that the same command resumes an interrupted run.
    """
    given = {name: options.pop(name) for name in POLICIES}
    rules = recipes_and_settings(recipes, profile_options, given)
    configuration = RunConfiguration(
        source=source,
        destination=destination,
        recipes=rules["recipes"],
        settings=Settings(**rules["settings"]),
        in_flight_bytes=memory * MEBIBYTE,
        batch_objects=_BATCH_OBJECTS,
        batch_bytes=_BATCH_BYTES,
        triggered_by=getpass.getuser(),
        **options,
    )
    with _report_file(report) as on_recorded, database_access(database, data_directory) as access:
        connections = Connections(database=access.url, keys=access.keys, schema=schema)
        planned = plan_run(configuration, connections, create_project=create_project)
        if cohort_report is not None:
            _write_cohort_report(cohort_report, planned)
        if dry_run:
            report_run(connections, run_id=planned.run_id, state="cancelled")
            _print_plan(planned)
            return
        withdrawn = withdraw_deleted_sources(connections, planned)
        complete = False
        try:
            with _stopping() as should_stop, _progress(planned) as on_progress:
                complete = run_batches(
                    connections,
                    planned,
                    workers=workers,
                    should_stop=should_stop,
                    on_progress=on_progress,
                    on_recorded=on_recorded,
                )
        finally:
            totals = report_run(connections, run_id=planned.run_id, state="succeeded" if complete else "failed")
    _print_summary(planned, totals, withdrawn)
    sys.exit(_exit_code(complete, totals))


@contextmanager
def _progress(planned: PlannedRun) -> Iterator[OnProgress]:
    """Show a progress bar; give the function that updates it."""
    done: dict[int, int] = {}
    with _progress_bar() as bar:
        task = bar.add_task("De-identifying", total=planned.summary.planned, visible=planned.summary.planned > 0)

        def update(batch_id: int, now: BatchProgress) -> None:
            done[batch_id] = now.objects
            bar.update(task, completed=sum(done.values()))

        yield update


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def _report_file(path: Path | None) -> Iterator[Callable[[Sequence[AuditRow]], None]]:
    """Give the function that writes rows to the report."""
    if path is None:
        yield lambda rows: None
        return
    with owner_only(path, append=True) as file:
        yield lambda rows: _write_lines(file, rows)


def _write_lines(file: TextIO, rows: Sequence[AuditRow]) -> None:
    for row in rows:
        line = {
            "source": row.item.key,
            "destination": row.destination_key,
            "outcome": row.outcome.value,
            "reason": row.reason and row.reason.value,
            "detail": row.detail,
            "sha256_in": row.sha256_in,
            "sha256_out": row.sha256_out,
            "bytes_in": row.item.size,
            "bytes_out": row.destination_size,
        }
        file.write(json.dumps(line) + "\n")
    file.flush()


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Let the first interrupt stop the run between objects, and a second one end the process."""
    asked = False

    def ask(number: int, _frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        click.echo("Stopping after the objects in flight; the same command resumes.", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_cohort_report(path: Path, planned: PlannedRun) -> None:
    with owner_only(path) as file:
        writer = csv.writer(file)
        writer.writerow(("line", "status", "objects"))
        writer.writerows((answer.number, answer.status, answer.objects) for answer in planned.cohort)


def _exit_code(complete: bool, totals: RunReport) -> int:
    if not complete or totals.outcomes.get("failed") or totals.left_to_other_runs:
        return EXIT_FAILED
    return EXIT_QUARANTINED if totals.quarantined or totals.archived else 0


def _plan_table(planned: PlannedRun) -> Table:
    """Return a table of what the plan found."""
    summary = planned.summary
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_row("Listed", str(summary.listed), "")
    for status, count in Counter(answer.status for answer in planned.cohort).items():
        table.add_row(f"Cohort lines {status}", str(count), "")
    if summary.outside:
        table.add_row("Outside the times", str(summary.outside), "")
    table.add_row("Already done", str(summary.already_done), "")
    if summary.kept:
        table.add_row("Kept though changed", str(summary.kept), "--on-change supersede replaces them")
    if summary.withdrawn:
        table.add_row("Withdrawn before", str(summary.withdrawn), "")
    for why, count in sorted(summary.superseding.items()):
        table.add_row(f"To be replaced: {why}", str(count), "")
    if summary.deleted:
        table.add_row("Source object is gone", str(summary.deleted), "--on-source-deleted withdraw withdraws them")
    return table


def _print_plan(planned: PlannedRun) -> None:
    table = _plan_table(planned)
    for why, count in sorted(planned.summary.why.items()):
        table.add_row(f"To be processed: {why}", str(count), "")
    table.add_row("To be processed", str(planned.summary.planned), f"{planned.summary.bytes / 1e6:.1f} MB")
    if planned.summary.archived:
        table.add_row("Archived", str(planned.summary.archived), f"{planned.summary.archived_bytes / 1e6:.1f} MB")
    console = Console()
    console.print(table)
    console.print("Dry run: nothing was written.")


def _print_summary(planned: PlannedRun, totals: RunReport, withdrawn: int) -> None:
    summary = planned.summary
    table = _plan_table(planned)
    if withdrawn:
        table.add_row("Withdrawn now", str(withdrawn), "their source objects are gone")
    for outcome in _OUTCOMES:
        table.add_row(_OUTCOMES[outcome], str(totals.outcomes.get(outcome, 0)), "")
    table.add_row("Archived", str(totals.archived), f"{totals.archived_bytes / 1e6:.1f} MB" if totals.archived else "")
    if totals.open:
        table.add_row("Still open", str(totals.open), "run the same command again")
    if totals.left_to_other_runs:
        table.add_row("Left to another run", str(totals.left_to_other_runs), "run the same command again after it")
    if totals.lacking_terms:
        table.add_row("To be searched again", str(totals.lacking_terms), "written before a name was known: run again")
    for code, count in sorted(totals.reasons.items()):
        table.add_row(f"  {code}", str(count), Reason(code).advice.what_to_do)
    table.add_row("Read", f"{totals.bytes_in / 1e6:.1f} MB", "")
    table.add_row("Written", f"{totals.bytes_out / 1e6:.1f} MB", f"in {totals.seconds:.1f} s")
    console = Console()
    console.print(f"Run {planned.run_id}")
    console.print(f"Audit head {totals.audit_head}", soft_wrap=True)
    console.print(table)
    for warning in totals.run.warnings:
        console.print(f"Warning: {warning}")
    if not summary.listed:
        console.print("No object was found there: the source is a bucket, a folder in one, or a directory.")
    elif not summary.planned:
        console.print("Nothing is left to do. Use --retry-quarantined to process quarantined objects again.")
