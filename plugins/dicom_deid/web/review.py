"""Review of a group of held objects: pictures, text, and decisions."""

from __future__ import annotations

from collections.abc import Callable
from threading import BoundedSemaphore
from typing import Annotated, Any, TypeVar
from uuid import UUID

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response

from dicom_deid.database import Database
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import (
    DecisionAction,
    HeldGroup,
    HeldObject,
    find_held_object,
    list_held_groups,
    list_held_objects,
    record_decision,
    record_shown,
)
from dicom_deid.objects import SourceObject
from dicom_deid.pipeline.decisions import can_be_rule, make_decision, possible_actions
from dicom_deid.pipeline.pictures import (
    MAX_OBJECTS,
    Picture,
    PictureNotPossible,
    Projection,
    Window,
    document_picture,
    frame_picture,
    projection_picture,
)
from dicom_deid.pipeline.planning import configuration_of_run
from dicom_deid.pipeline.review import (
    NotReviewable,
    content_tree,
    kind_of_view,
    read_unreadable,
    residual_texts,
    review_deidentifier,
)
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Rectangle
from dicom_deid.web.access import can_review, may_review
from dicom_deid.web.database import open_connection, open_database, open_source
from dicom_deid.web.downloads import csv_download
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, page, redirect

router = APIRouter(prefix="/quarantine/groups/{group_id}")

Connection = Annotated[DatabaseConnection, Depends(open_connection)]
Open = Annotated[Database, Depends(open_database)]
Shown = TypeVar("Shown")

_OBJECT_COLUMNS = ["object_id", "run_id", "held_since", "reason", "detail", "size", "decision_id", "decision_action"]
_RENDERING = BoundedSemaphore(3)
"""Pictures that are drawn at the same time: together they must fit into the memory of the API server."""
_SECONDS = 60
_POST = [Depends(may_review), Depends(verified_form)]


@router.get("")
def group_page(
    request: Request, group_id: UUID, connection: Connection, user: GetUserDep, number: PageNumber = 1
) -> Response:
    """Show a group: its device, its objects, and the form for decisions. Nothing of the objects is read."""
    group = _found(connection, group_id)
    objects = list_held_objects(
        connection, {"group_id": group.group_id}, limit=PAGE_ROWS, offset=(number - 1) * PAGE_ROWS
    )
    reason = Reason(group.reason)
    return page(
        "review.html",
        request,
        group=group,
        reason=reason,
        objects=objects,
        number=number,
        pages=max(1, -(-group.objects // PAGE_ROWS)),
        view=kind_of_view(reason),
        actions=[(action, can_be_rule(reason, action)) for action in possible_actions(reason)],
        projections=list(Projection),
        most=MAX_OBJECTS,
        can_review=can_review(user),
    )


@router.get("/objects.csv")
def objects_csv(group_id: UUID, connection: Connection) -> Response:
    """Download the held objects of a group, without source keys."""
    objects = list_held_objects(connection, {"group_id": str(group_id)}, limit=None)
    return csv_download(
        "held-objects.csv", [_OBJECT_COLUMNS, *([getattr(each, name) for name in _OBJECT_COLUMNS] for each in objects)]
    )


@router.post("/picture", dependencies=_POST)
def picture(
    group_id: UUID,
    database: Open,
    user: GetUserDep,
    link_id: Annotated[int, Form()],
    number: Annotated[int, Form()],
    frame: Annotated[int, Form()] = 0,
    projection: Annotated[str, Form()] = "",
    whole_group: Annotated[bool, Form()] = False,
    center: Annotated[float | None, Form()] = None,
    width: Annotated[float | None, Form()] = None,
) -> Response:
    """Return a picture of an object, or a projection over its group. It is recorded in the audit first."""
    group = _found(database.connection, group_id)
    chosen = _object(database.connection, group, link_id, number)
    window = Window(center, width) if center is not None and width else None
    objects = [chosen]
    if projection and whole_group:
        same_place = list_held_objects(database.connection, {"group_id": group.group_id}, limit=MAX_OBJECTS)
        objects = [each for each in same_place if each.source == chosen.source]
    what = f"projection {projection}" if projection else f"frame {frame}"
    stored = _opened(database, group, objects, user.get_name(), what)
    store = open_source(chosen.source)

    def draw() -> Picture:
        if kind_of_view(Reason(group.reason)) == "document":
            return document_picture(store, stored[0], frame)
        if projection:
            return projection_picture(store, stored, Projection(projection), window)
        return frame_picture(store, stored[0], frame, window)

    drawn = _limited(draw)
    headers = {"X-Frames": str(drawn.frames), "X-Total": str(drawn.total), "X-Objects": str(drawn.objects)}
    return Response(drawn.png, media_type="image/png", headers=headers)


@router.post("/text", dependencies=_POST)
def text(
    request: Request,
    group_id: UUID,
    database: Open,
    user: GetUserDep,
    link_id: Annotated[int, Form()],
    number: Annotated[int, Form()],
    clear: Annotated[bool, Form()] = False,
) -> Response:
    """Show the text of an object that keeps it held. It is recorded in the audit first."""
    group = _found(database.connection, group_id)
    chosen = _object(database.connection, group, link_id, number)
    view = kind_of_view(Reason(group.reason))
    (stored,) = _opened(database, group, [chosen], user.get_name(), f"{view} text{' in clear' if clear else ''}")
    store = open_source(chosen.source)

    def read() -> dict[str, Any]:
        if view == "unreadable":
            return {"unreadable": read_unreadable(store, stored, Reason(group.reason), chosen.detail)}
        deidentifier = review_deidentifier(configuration_of_run(database, chosen.run_id))
        if view == "report":
            return {"lines": content_tree(deidentifier, store, stored)}
        return {"residuals": residual_texts(deidentifier, store, stored)}

    return page("review_text.html", request, view=view, clear=clear, held=chosen, group=group, **_limited(read))


@router.post("/decide", dependencies=_POST)
def decide(
    group_id: UUID,
    database: Open,
    user: GetUserDep,
    action: Annotated[DecisionAction, Form()],
    extent: Annotated[str, Form(pattern="^(object|group|rule)$")],
    rectangles: Annotated[str, Form()] = "",
    text: Annotated[str, Form()] = "",
    link_id: Annotated[int, Form()] = 0,
    number: Annotated[int, Form()] = 0,
    note: Annotated[str, Form()] = "",
) -> Response:
    """Record a decision and return to the page of the group, or to the quarantine if the group is decided."""
    group = _found(database.connection, group_id)
    if extent == "object":
        _object(database.connection, group, link_id, number)
    new = make_decision(
        group,
        action,
        person=user.get_name(),
        note=note.strip(),
        rectangles=_rectangles(rectangles),
        text=_rectangles(text),
        is_rule=extent == "rule",
        objects=[(link_id, number)] if extent == "object" else None,
    )
    record_decision(database.connection, database.chain_key, new)
    return redirect(f"/quarantine/groups/{group_id}")


def _found(connection: DatabaseConnection, group_id: UUID) -> HeldGroup:
    groups = list_held_groups(connection, {"group_id": str(group_id)})
    if not groups:
        raise HTTPException(404, "No held object is in this group any more.")
    return groups[0]


def _object(connection: DatabaseConnection, group: HeldGroup, link_id: int, number: int) -> HeldObject:
    found = find_held_object(connection, link_id, number)
    if found is None or found.group_id != group.group_id:
        raise HTTPException(404, "The object is not held in this group any more.")
    return found


def _opened(
    database: Database, group: HeldGroup, objects: list[HeldObject], user: str, what: str
) -> list[SourceObject]:
    """Return the source objects with their decrypted keys; the access is recorded first."""
    project = database.project(group.project, create=False)
    record_shown(database.connection, database.chain_key, objects, user, what)
    return [each.source_object(project) for each in objects]


def _limited(show: Callable[[], Shown]) -> Shown:
    """Show something while few others are shown.

    Raises
    ------
    HTTPException
        422 with what is wrong with the object, 503 if the server is busy.
    """
    if not _RENDERING.acquire(timeout=_SECONDS):
        raise HTTPException(503, "The server is busy with other pictures: try again.")
    try:
        return show()
    except (PictureNotPossible, NotReviewable) as error:
        raise HTTPException(422, str(error)) from None
    finally:
        _RENDERING.release()


def _rectangles(text: str) -> list[Rectangle]:
    """Parse ``left,top,right,bottom`` rectangles, separated by semicolons."""
    try:
        return [Rectangle(*map(int, each.split(","))) for each in text.split(";") if each.strip()]
    except (TypeError, ValueError):
        raise HTTPException(422, "A rectangle is left,top,right,bottom in pixels.") from None
