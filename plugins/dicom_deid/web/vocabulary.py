"""Page of the words of free text that no word list has: what the cleaning of free text masks most often."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse

from dicom_deid.database import Database
from dicom_deid.database.archive_words import ArchiveWord, frequent_words
from dicom_deid.pipeline.engine import FORMAT_LINE
from dicom_deid.web.access import can_locate, may_locate
from dicom_deid.web.database import open_database
from dicom_deid.web.rendering import page

router = APIRouter()

Open = Annotated[Database, Depends(open_database)]
Patients = Annotated[int, Query(ge=2, le=10**6)]
PATIENTS = 5
"""Words of fewer patients may be names."""


@router.get("/vocabulary")
def vocabulary(
    request: Request, database: Open, user: GetUserDep, project: str = "", patients: Patients = PATIENTS
) -> Response:
    """Show the words of a project that no list has, the most frequent first, never with a patient."""
    projects = database.queries.project_names()
    project = project or next(iter(projects), "")
    is_allowed = can_locate(user)
    return page(
        "vocabulary.html",
        request,
        projects=projects,
        project=project,
        patients=patients,
        is_allowed=is_allowed,
        words=_words(database, project, patients) if project and is_allowed else [],
    )


@router.get("/vocabulary.dicom", dependencies=[Depends(may_locate)])
def site_words(database: Open, project: str, patients: Patients = PATIENTS) -> Response:
    """Download the words, without those that are names, as a section `%vocabulary` to be reviewed."""
    words = sorted(each.word for each in _words(database, project, patients) if not each.is_name)
    return PlainTextResponse(
        "".join([FORMAT_LINE, "\n%vocabulary\n", *(f"{word}\n" for word in words)]),
        headers={"Content-Disposition": 'attachment; filename="site-vocabulary.dicom"'},
    )


def _words(database: Database, project: str, patients: int) -> list[ArchiveWord]:
    return frequent_words(database.connection, database.project(project, create=False), patients=patients)
