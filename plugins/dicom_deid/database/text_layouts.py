"""Learned text layouts of a project: where the images of a device showed text, and in how many objects in a row.

A layout is learned once so many objects in a row had text only in its places. A run that is planned then takes its
filter; text outside the places, found in an object that is searched all the same, makes it unlearned.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from dicom_deid.database.connection import DatabaseConnection

Place = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the image, the last two exclusive."""

_MARGIN = 4
"""Text that is at most this many pixels outside a place is inside: the filter blanks them too."""
_MOST_PLACES = 64


class LearnedLayout(NamedTuple):
    """The layout of one device, software, image size and ultrasound layout.

    Parameters
    ----------
    label
        Name of its filter.
    criteria
        Lines of the filter.
    places
        Where text was found.
    objects, agreeing
        Objects that were searched, and how many in a row had text only in the places.
    unlearned_at
        When text was last found outside the places of the learned layout.
    """

    label: str
    criteria: str
    places: list[Place]
    objects: int
    agreeing: int
    unlearned_at: datetime | None

    def rule(self, section: str) -> str:
        """Return the filter that blanks the places."""
        wider = (
            (max(left - _MARGIN, 0), max(top - _MARGIN, 0), right + _MARGIN, bottom + _MARGIN)
            for left, top, right, bottom in self.places
        )
        lines = [f"  {line}" for line in self.criteria.splitlines()]
        lines += [f"  coordinates {','.join(map(str, place))}" for place in wider]
        clears = ["  clears pixel-risk", "  clears burned-in-annotation"]
        return "\n".join([f"%filter {section}", f"LABEL {self.label}", *lines, *clears, "", ""])


def record_layouts(
    connection: DatabaseConnection,
    project_id: int,
    seen: Iterable[tuple[str, Sequence[Place]]],
    unlearned: Collection[str],
) -> None:
    """Count objects that were searched, and unlearn layouts.

    Parameters
    ----------
    seen
        Of each object the criteria of its device, and where text was found.
    unlearned
        Labels of layouts outside whose places text was found.
    """
    by_label: dict[str, list[Sequence[Place]]] = defaultdict(list)
    criteria = {}
    for lines, places in seen:
        label = _label(project_id, lines)
        criteria[label] = lines
        by_label[label].append(places)
    doing = "recording text layouts"
    with connection.transaction(doing):
        if unlearned:
            connection.query(
                doing,
                "UPDATE text_layout SET agreeing = 0, unlearned_at = clock_timestamp() "
                "WHERE project_id = %s AND label = ANY (%s)",
                (project_id, sorted(unlearned)),
            )
        if not by_label:
            return
        values = {"project": project_id, "labels": sorted(by_label)}
        # Rows are locked in one order, so that batches do not wait for each other in a circle.
        rows = connection.query(
            doing,
            "INSERT INTO text_layout (project_id, label) SELECT %(project)s, unnest(%(labels)s::text[]) ORDER BY 2 "
            "ON CONFLICT DO NOTHING; SELECT label, places, agreeing FROM text_layout "
            "WHERE project_id = %(project)s AND label = ANY (%(labels)s) ORDER BY label FOR UPDATE",
            values,
        )
        new = []
        for label, places, agreeing in rows:
            known, in_a_row = _merged([tuple(place) for place in places], agreeing, by_label[label])
            new.append([label, criteria[label], known, in_a_row, len(by_label[label])])
        connection.query(
            doing,
            "UPDATE text_layout t SET criteria = n.criteria, places = n.places, agreeing = n.agreeing, "
            "objects = t.objects + n.objects FROM json_to_recordset(%(new)s) "
            "n (label text, criteria text, places jsonb, agreeing integer, objects integer) "
            "WHERE t.project_id = %(project)s AND t.label = n.label",
            values
            | {
                "new": json.dumps(
                    [dict(zip(("label", "criteria", "places", "agreeing", "objects"), row, strict=True)) for row in new]
                )
            },
        )


def list_layouts(connection: DatabaseConnection, project: str) -> list[LearnedLayout]:
    """Return all layouts of a project, those with most objects first."""
    rows = connection.query(
        "reading text layouts",
        "SELECT label, criteria, places, objects, agreeing, unlearned_at FROM text_layout "
        "JOIN project p USING (project_id) WHERE p.name = %s ORDER BY objects DESC, label",
        (project,),
    )
    return [LearnedLayout(*row) for row in rows]


def layout_rules(connection: DatabaseConnection, project: str, objects: int, section: str) -> str:
    """Return the filters of the layouts that at least so many objects in a row agree with, as recipe text."""
    learned = sorted(one for one in list_layouts(connection, project) if one.agreeing >= objects > 0)
    return "".join(one.rule(section) for one in learned)


def _label(project_id: int, criteria: str) -> str:
    digest = hashlib.sha256(f"{project_id}\0{criteria}".encode()).digest()
    return f"text layout {uuid.UUID(bytes=digest[:16])}"


def _merged(known: list[Place], agreeing: int, seen: Iterable[Sequence[Place]]) -> tuple[list[Place], int]:
    """Return the places with those of more objects, and how many objects in a row had text only in them."""
    for places in seen:
        new = [place for place in places if not any(_is_inside(place, other) for other in known)]
        agreeing = 0 if new else agreeing + 1
        for place in new:
            known = _joined(known, place)
        if len(known) > _MOST_PLACES:
            # Text is everywhere: learn from the start.
            known, agreeing = [], 0
    return known, agreeing


def _is_inside(place: Place, other: Place) -> bool:
    return (
        other[0] - _MARGIN <= place[0]
        and other[1] - _MARGIN <= place[1]
        and place[2] <= other[2] + _MARGIN
        and place[3] <= other[3] + _MARGIN
    )


def _joined(known: Sequence[Place], place: Place) -> list[Place]:
    """Return places with one more, joined with all that it overlaps."""
    apart = []
    for other in known:
        if other[0] < place[2] and place[0] < other[2] and other[1] < place[3] and place[1] < other[3]:
            place = (min(place[0], other[0]), min(place[1], other[1]), max(place[2], other[2]), max(place[3], other[3]))
        else:
            apart.append(other)
    return _joined(apart, place) if len(apart) < len(known) else [*apart, place]
