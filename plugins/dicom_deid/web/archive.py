"""Page of what is in the archive, from the index of its sources, and the form of a run over a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, Request, Response

from dicom_deid.database.audit_queries import Queries
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.source_index import ArchiveCount, count_archive, indexed_sources
from dicom_deid.links import ON_DEMAND_DAG
from dicom_deid.recipe.criteria import criterion_line
from dicom_deid.web.access import can_trigger, may_trigger
from dicom_deid.web.database import open_connection
from dicom_deid.web.downloads import csv_download
from dicom_deid.web.forms import verified_form
from dicom_deid.web.rendering import PAGE_ROWS, PageNumber, page
from dicom_deid.web.trigger import trigger

router = APIRouter()

Connection = Annotated[DatabaseConnection, Depends(open_connection)]
_ABSENT = "-"
"""Stands for an object without the attribute in a filter: an empty filter is none."""
_FIELDS = ("modality", "year", "manufacturer", "model")
_KEYWORDS = {"modality": "Modality", "manufacturer": "Manufacturer", "model": "ManufacturerModelName"}


def filters(modality: str = "", year: str = "", manufacturer: str = "", model: str = "") -> dict[str, str]:
    """Return the filters of the page, by field."""
    return {"modality": modality, "year": year, "manufacturer": manufacturer, "model": model}


Filters = Annotated[dict[str, str], Depends(filters)]


@router.get("/archive")
def archive(
    request: Request,
    connection: Connection,
    user: GetUserDep,
    chosen: Filters,
    project: str = "",
    number: PageNumber = 1,
) -> Response:
    """Show how many indexed objects there are of each kind, and how many are de-identified, held or excluded."""
    projects = Queries(connection).project_names()
    project = project or next(iter(projects), "")
    counts = count_archive(connection, project)
    found = [each for each in counts if _is_chosen(each, chosen)]
    return page(
        "archive.html",
        request,
        projects=projects,
        project=project,
        chosen=chosen,
        choices={name: sorted({_text(each, name) for each in counts}) for name in _FIELDS},
        counts=found[(number - 1) * PAGE_ROWS : number * PAGE_ROWS],
        total=ArchiveCount("", "", "", "", *map(sum, zip(*(each[4:] for each in found), strict=True)))
        if found
        else None,
        number=number,
        pages=max(1, -(-len(found) // PAGE_ROWS)),
        sources=indexed_sources(connection, project),
        criteria=criteria(chosen),
        can_trigger=can_trigger(user, ON_DEMAND_DAG),
    )


@router.get("/archive.csv")
def archive_csv(connection: Connection, chosen: Filters, project: str = "") -> Response:
    """Download the counts."""
    found = [each for each in count_archive(connection, project) if _is_chosen(each, chosen)]
    return csv_download("archive.csv", [list(ArchiveCount._fields), *map(list, found)])


@router.post("/archive/runs", dependencies=[Depends(may_trigger(ON_DEMAND_DAG)), Depends(verified_form)])
def start(
    request: Request,
    user: GetUserDep,
    project: Annotated[str, Form()],
    source: Annotated[str, Form()],
    destination: Annotated[str, Form()],
    select: Annotated[str, Form()] = "",
    preview: Annotated[bool, Form()] = False,
) -> Response:
    """Start a run of the DAG with the criteria."""
    conf = {"project": project, "source": source, "destination": destination, "preview": preview}
    lines = "\n".join(line.strip() for line in select.splitlines() if line.strip())
    started = trigger(ON_DEMAND_DAG, conf | ({"select": lines} if lines else {}), user.get_name())
    return page("run_started.html", request, dag_id=ON_DEMAND_DAG, started=started)


def criteria(chosen: Mapping[str, str]) -> str:
    """Return the criteria of a run over the objects that the filters show.

    Examples
    --------
    >>> criteria({"modality": "CT", "year": "2019", "manufacturer": "", "model": "-"})
    'equals Modality CT + between StudyDate 20190101 20191231 + notcontains ManufacturerModelName .'
    """
    found = []
    for name, value in chosen.items():
        if name == "year" and value:
            missing = value == _ABSENT
            found.append("notcontains StudyDate ." if missing else f"between StudyDate {value}0101 {value}1231")
        elif value:
            found.append(criterion_line(_KEYWORDS[name], "" if value == _ABSENT else value))
    return " + ".join(found)


def _text(count: ArchiveCount, name: str) -> str:
    return str(getattr(count, name) or _ABSENT)


def _is_chosen(count: ArchiveCount, chosen: Mapping[str, str]) -> bool:
    return all(_text(count, name) == value for name, value in chosen.items() if value)
