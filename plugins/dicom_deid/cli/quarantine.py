"""`dicom-deid quarantine`: what the quarantine pages do, from a terminal."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dicom_deid.cli.options import database_access, database_options
from dicom_deid.database import Database
from dicom_deid.database.quarantine import (
    FILTERS,
    SORT_COLUMNS,
    DecisionAction,
    HeldGroup,
    HeldObject,
    approve_decision,
    count_held,
    list_decisions,
    list_held_groups,
    list_held_objects,
    pending_reviews,
    record_decision,
    record_shown,
    revoke_decision,
)
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore, open_source
from dicom_deid.pipeline import Connections, report_run
from dicom_deid.pipeline.decisions import make_decision
from dicom_deid.pipeline.pictures import (
    MAX_OBJECTS,
    Picture,
    PictureNotPossible,
    Projection,
    document_picture,
    frame_picture,
    projection_picture,
)
from dicom_deid.pipeline.planning import configuration_of_run, plan_review
from dicom_deid.pipeline.review import (
    NotReviewable,
    Unreadable,
    content_tree,
    kind_of_view,
    read_unreadable,
    residual_texts,
    review_deidentifier,
)
from dicom_deid.pipeline.workers import run_batches
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle

_person = click.option(
    "--person", default=getpass.getuser, show_default="the user of this machine", help="Who, for the audit."
)
_SHORT_ID = 8


@click.group()
def quarantine() -> None:
    """List, show and decide about quarantined objects.

    GROUP is the id of a group of held objects, or its first characters, as `list` prints it.
    """


@contextmanager
def _open(database: str | None, data_directory: Path | None, schema: str) -> Iterator[Database]:
    with (
        database_access(database, data_directory) as access,
        Database.connect(access.url, schema=schema, keys=access.keys) as opened,
    ):
        yield opened


@quarantine.command("list")
@click.option("--project")
@click.option("--reason", type=click.Choice([each.value for each in Reason]))
@click.option("--modality")
@click.option("--manufacturer", help="Part of the manufacturer's name.")
@click.option("--model", help="Part of the model's name.")
@click.option("--run", "run_id", help="Only objects that this run held.")
@click.option("--sort", type=click.Choice(list(SORT_COLUMNS)), default="objects", show_default=True)
@database_options
def list_groups(sort: str, database: str | None, data_directory: Path | None, schema: str, **filters: Any) -> None:
    """List groups of held objects."""
    chosen = {name: filters.get(name) or "" for name in FILTERS}
    with _open(database, data_directory, schema) as opened:
        groups = list_held_groups(opened.connection, chosen, sort=sort, limit=None)
        counts = count_held(opened.connection, chosen)
    for group in groups:
        size = f"{group.columns}x{group.rows}" if group.columns and group.rows else ""
        facts = [group.modality, group.manufacturer, group.model, group.software, size, group.element]
        state = f", {group.decided} decided" if group.decided else ""
        click.echo(
            f"{group.group_id[:_SHORT_ID]}  {group.objects:>6} objects ({group.studies} studies, {group.patients} "
            f"patients{state})  {group.reason}  {' '.join(filter(None, facts))}  [{group.project}]"
        )
    click.echo(f"{counts.objects} held objects in {counts.groups} groups, {counts.decided} decided.")


@quarantine.command()
@click.argument("group")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for PNG files, readable by you alone: the pictures show patients.",
)
@click.option("--objects", type=click.IntRange(1, MAX_OBJECTS), default=1, show_default=True, help="Objects to show.")
@click.option(
    "--projection", type=click.Choice([each.value for each in Projection]), help="Combine all frames of all objects."
)
@click.option("--frame", type=click.IntRange(1), default=1, show_default=True, help="Frame or page.")
@click.option("--clear", is_flag=True, help="Show residual text in clear.")
@_person
@database_options
def show(
    group: str,
    output: Path | None,
    objects: int,
    projection: str | None,
    frame: int,
    clear: bool,
    person: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Show objects of a group: pictures as PNG files, text on the terminal. It is recorded in the audit."""
    with _open(database, data_directory, schema) as opened:
        found = _find(opened, group)
        held = list_held_objects(opened.connection, {"group_id": found.group_id}, limit=objects)
        held = [each for each in held if each.source == held[0].source]
        view = kind_of_view(Reason(found.reason))
        if view in ("image", "document") and output is None:
            raise ConfigurationError("Pictures need --output, a directory for the PNG files.")
        what = f"projection {projection}" if projection else f"{view} {frame}{' in clear' if clear else ''}"
        record_shown(opened.connection, opened.chain_key, held, person, what)
        project = opened.project(found.project, create=False)
        stored = [each.source_object(project) for each in held]
        store = open_source(held[0].source)
        click.echo(f"{found.objects} objects, {Reason(found.reason).advice.meaning}")
        if output is not None and view in ("image", "document"):
            _write_pictures(output, found, store, stored, view, projection, frame)
        else:
            _print_text(opened, view, store, held, stored, clear=clear)


def _write_pictures(
    output: Path, group: HeldGroup, store: ObjectStore, stored: list[SourceObject], view: str, projection: str | None,
    frame: int,
) -> None:  # fmt: skip
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = group.group_id[:_SHORT_ID]
    if projection:
        picture = projection_picture(store, stored, Projection(projection))
        _write(output / f"{name}-{projection}.png", picture)
        return
    draw: Callable[..., Picture] = document_picture if view == "document" else frame_picture
    for number, each in enumerate(stored, start=1):
        try:
            _write(output / f"{name}-{number:03}-{frame}.png", draw(store, each, frame - 1))
        except PictureNotPossible as problem:
            click.echo(f"object {number}: {problem}", err=True)


def _write(path: Path, picture: Picture) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(picture.png)
    click.echo(f"{path}: {picture.frames} of {picture.total} frames, {picture.objects} objects")


def _print_text(
    database: Database,
    view: str,
    store: ObjectStore,
    held: list[HeldObject],
    stored: list[SourceObject],
    *,
    clear: bool,
) -> None:
    configuration = configuration_of_run(database, held[0].run_id)
    for each, found in zip(held, stored, strict=True):
        click.echo(f"\nobject {each.link_id}:{each.number}  {each.detail}")
        try:
            if view == "unreadable":
                _print_unreadable(read_unreadable(store, found, Reason(each.reason), each.detail), clear=clear)
            elif view == "report":
                for line in content_tree(review_deidentifier(configuration), store, found):
                    click.echo(f"  {'  ' * line.level}{line.value_type} {line.concept}: {line.text}")
            else:
                for residual in residual_texts(review_deidentifier(configuration), store, found):
                    click.echo(f"  {residual.name} {residual.path} repeats {', '.join(residual.sources)}")
                    click.echo(f"    {residual.text if clear else residual.masked}")
        except NotReviewable as problem:
            click.echo(f"  {problem}", err=True)


def _print_unreadable(read: Unreadable, *, clear: bool) -> None:
    problem = f", then raises {read.error}{f': {read.message}' if clear else ''}" if read.error else ""
    lines = [
        read.element and f"encoded there: {read.element}",
        f"pydicom reads {read.elements} elements{read.last and f', the last {read.last}'}{problem}",
        read.standard,
    ]
    for line in filter(None, lines):
        click.echo(f"  {line}")


@quarantine.command()
@click.argument("group")
@click.argument("action", type=click.Choice([each.value for each in DecisionAction]))
@click.option("--mask", "masks", multiple=True, metavar="L,T,R,B", help="A rectangle to blank, in pixels; repeated.")
@click.option("--text", "places", multiple=True, metavar="L,T,R,B", help="A rectangle that may show text; repeated.")
@click.option("--rule", "is_rule", is_flag=True, help="Also for later objects of the device, as a rule of the project.")
@click.option("--object", "objects", multiple=True, metavar="LINK:NUMBER", help="Only these objects, as `show` prints.")
@click.option("--also", multiple=True, metavar="GROUP", help="Another group of the same reason; repeated.")
@click.option("--note", default="", help="Why; no patient names.")
@_person
@database_options
def decide(
    group: str,
    action: str,
    masks: tuple[str, ...],
    places: tuple[str, ...],
    is_rule: bool,
    objects: tuple[str, ...],
    also: tuple[str, ...],
    note: str,
    person: str,
    database: str | None,
    data_directory: Path | None,
    schema: str,
) -> None:
    """Record a decision about the objects of a group; `apply` carries it out."""
    with _open(database, data_directory, schema) as opened:
        new = make_decision(
            _find(opened, group),
            DecisionAction(action),
            person=person,
            note=note,
            rectangles=[Rectangle(*_numbers(each, ",", 4)) for each in masks],
            text=[Rectangle(*_numbers(each, ",", 4)) for each in places],
            is_rule=is_rule,
            objects=[(pair[0], pair[1]) for pair in (_numbers(each, ":", 2) for each in objects)] or None,
            other_groups=[_find(opened, each) for each in also],
        )
        number = record_decision(opened.connection, opened.chain_key, new)
        click.echo(f"Decision {number} is recorded.")


@quarantine.command()
@click.argument("groups", nargs=-1, required=True, metavar="GROUP...")
@_person
@database_options
def retry(groups: tuple[str, ...], person: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Decide that groups are processed again under the current recipe; the same as `decide GROUP retry`."""
    with _open(database, data_directory, schema) as opened:
        first, *others = (_find(opened, each) for each in groups)
        new = make_decision(first, DecisionAction.RETRY, person=person, other_groups=others)
        number = record_decision(opened.connection, opened.chain_key, new)
        click.echo(f"Decision {number} is recorded.")


@quarantine.command()
@click.option("--project", default="", help="Only objects of this project.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@_person
@database_options
def apply(
    project: str, workers: int, person: str, database: str | None, data_directory: Path | None, schema: str
) -> None:
    """Process the decided objects: release, exclude, or hold them again."""
    with database_access(database, data_directory) as access:
        connections = Connections(database=access.url, keys=access.keys, schema=schema)
        with connections.open_database() as opened:
            pending = pending_reviews(opened.connection, project)
        for each in pending:
            planned = plan_review(connections, each.run_id, triggered_by=person, reason="Review of quarantined objects")
            complete = run_batches(
                connections,
                planned,
                workers=workers,
                should_stop=lambda: False,
                on_progress=lambda _batch, _progress: None,
                on_recorded=lambda _rows: None,
            )
            totals = report_run(connections, run_id=planned.run_id, state="succeeded" if complete else "failed")
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.outcomes.items()))
            click.echo(f"Run {planned.run_id}: {counts or 'nothing to do'}")
        if not pending:
            click.echo("No decided objects are waiting.")


@quarantine.command()
@click.option("--project", default="", help="Only decisions of this project.")
@database_options
def decisions(project: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """List decisions, newest first."""
    with _open(database, data_directory, schema) as opened:
        for each in list_decisions(opened.connection, project):
            rule = ", rule" if each.is_rule else ""
            click.echo(
                f"{each.decision_id:>5}  {each.created_at:%Y-%m-%d %H:%M} UTC  {each.person}  {each.action}{rule}  "
                f"{each.state}  {each.objects} objects, {each.released} released  [{each.project}]  {each.note}"
            )


@quarantine.command()
@click.argument("decision_id", type=int)
@_person
@database_options
def approve(decision_id: int, person: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Approve a decision as the second person."""
    with _open(database, data_directory, schema) as opened:
        approve_decision(opened.connection, opened.chain_key, decision_id, person)
        click.echo(f"Decision {decision_id} is active.")


@quarantine.command()
@click.argument("decision_id", type=int)
@_person
@database_options
def revoke(decision_id: int, person: str, database: str | None, data_directory: Path | None, schema: str) -> None:
    """Revoke a decision and print the destination keys of the objects that were released by it."""
    with _open(database, data_directory, schema) as opened:
        released = revoke_decision(opened.connection, opened.chain_key, decision_id, person)
    for each in released:
        click.echo(f"{each.destination}/{each.destination_key}")
    click.echo(f"Decision {decision_id} is revoked; {len(released)} objects were released by it.", err=True)


def _find(database: Database, prefix: str) -> HeldGroup:
    groups = [
        each
        for each in list_held_groups(database.connection, {}, limit=None)
        if each.group_id.startswith(prefix.lower())
    ]
    if len(groups) != 1:
        what = "No group" if not groups else f"{len(groups)} groups"
        raise ConfigurationError(
            f"{what} of held objects begins with {prefix}: `dicom-deid quarantine list` shows them."
        )
    return groups[0]


def _numbers(text: str, separator: str, count: int) -> list[int]:
    try:
        numbers = [int(each) for each in text.split(separator)]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise click.UsageError(f"{text}: give {count} whole numbers, separated by {separator}")
    return numbers
