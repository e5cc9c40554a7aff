"""Page of what is in the archive, from the index of its sources, and runs over a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.datastructures import FormData

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
from dicom_deid.web.trigger import form_sections, trigger

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
        can_trigger=can_trigger(user, ON_DEMAND_DAG),
    )


@router.get("/archive.csv")
def archive_csv(connection: Connection, chosen: Filters, project: str = "") -> Response:
    """Download the counts."""
    found = [each for each in count_archive(connection, project) if _is_chosen(each, chosen)]
    return csv_download("archive.csv", [list(ArchiveCount._fields), *map(list, found)])


@router.get("/archive/run", dependencies=[Depends(may_trigger(ON_DEMAND_DAG))])
def plan(request: Request, chosen: Filters, project: str = "", source: str = "") -> Response:
    """Show the trigger form of the DAG, filled in with the criteria of the filters."""
    values = {"project": project, "source": source, "preview": True, "select": criteria(chosen) or None}
    return page("trigger.html", request, dag_id=ON_DEMAND_DAG, sections=form_sections(ON_DEMAND_DAG, values))


async def sent_form(request: Request) -> FormData:
    """Return the fields of the form."""
    return await request.form()


@router.post("/archive/run", dependencies=[Depends(may_trigger(ON_DEMAND_DAG)), Depends(verified_form)])
def start(request: Request, user: GetUserDep, form: Annotated[FormData, Depends(sent_form)]) -> Response:
    """Start a run of the DAG with the values of the form."""
    fields = [field for section in form_sections(ON_DEMAND_DAG, {}).values() for field in section]
    conf = {field.name: field.sent(form) for field in fields}
    wrong = [field.title for field in fields if not field.allows(conf[field.name])]
    if wrong:
        raise HTTPException(422, f"Not a value that the DAG allows: {', '.join(wrong)}. Go back and correct it.")
    started = trigger(ON_DEMAND_DAG, conf, user.get_name())
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
