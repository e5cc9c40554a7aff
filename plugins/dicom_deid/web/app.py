"""FastAPI application with the pages, mounted by Airflow; `access` has the permissions."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from dicom_deid.database.errors import TableMissing
from dicom_deid.exceptions import ConfigurationError, DicomDeidError
from dicom_deid.web.access import may_read
from dicom_deid.web.archive import router as archive
from dicom_deid.web.comparison import router as comparison
from dicom_deid.web.database import schema_exists
from dicom_deid.web.decisions import router as decisions
from dicom_deid.web.objects import router as objects
from dicom_deid.web.projects import router as projects
from dicom_deid.web.quarantine import router as quarantine
from dicom_deid.web.recipes import router as recipes
from dicom_deid.web.rendering import page
from dicom_deid.web.review import router as review
from dicom_deid.web.runs import router as runs
from dicom_deid.web.vocabulary import router as vocabulary
from dicom_deid.web.withdrawals import router as withdrawals

if TYPE_CHECKING:
    from starlette.middleware.base import RequestResponseEndpoint

STATIC = {
    "chart.js": "text/javascript",
    "pages.js": "text/javascript",
    "review.js": "text/javascript",
    "theme.js": "text/javascript",
    "pages.css": "text/css",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app() -> FastAPI:
    """Return the application."""
    # FastAPI's own documentation routes would need no login.
    app = FastAPI(title="De-identification", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_add_headers)
    app.add_exception_handler(HTTPException, _show_refusal)
    app.add_exception_handler(DicomDeidError, _show_failure)
    app.add_exception_handler(TableMissing, _show_no_run)
    routers = (
        runs,
        archive,
        quarantine,
        review,
        decisions,
        objects,
        comparison,
        recipes,
        vocabulary,
        projects,
        withdrawals,
    )
    for router in routers:
        app.include_router(router, dependencies=[Depends(may_read)])
    app.get("/static/{name}", dependencies=[Depends(may_read)])(static)
    return app


def static(name: str) -> Response:
    """Return a style sheet or script; nothing is loaded from another host."""
    if name not in STATIC:
        raise HTTPException(404, "There is no such file.")
    content = files("dicom_deid.web").joinpath("static", name).read_bytes()
    return Response(content, media_type=STATIC[name], headers={"Cache-Control": "private, max-age=3600"})


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _show_refusal(request: Request, error: Exception) -> Response:
    """Return the error as a page to a browser and as JSON to a program."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": detail}, status)
    return page("refusal.html", request, status=status, detail=detail)


def _show_no_run(request: Request, error: Exception) -> Response:
    """Show the first steps if no run has created the tables yet."""
    try:
        if schema_exists():
            return _show_failure(request, error)
    except DicomDeidError as problem:
        # A schema without USAGE looks as if it did not exist.
        return _show_failure(request, problem)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": "There is no run yet."}, 404)
    return page("no_run.html", request)


def _show_failure(request: Request, error: Exception) -> Response:
    """Show what is wrong with a form, or what to check when the database cannot be read.

    Messages of this package hold no values.
    """
    status = 422 if request.method == "POST" and isinstance(error, ConfigurationError) else 503
    return page("refusal.html", request, status=status, detail=str(error))
