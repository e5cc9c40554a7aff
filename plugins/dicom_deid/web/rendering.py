"""Render templates and format numbers and times."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow.configuration import conf
from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FunctionLoader, StrictUndefined

from dicom_deid.links import PAGES, airflow_path

_KIBI = 1024
PAGE_ROWS = 50
"""Rows of a page of a list."""
PageNumber = Annotated[int, Query(ge=1, le=10**6, alias="page")]
"""Number of the page of a list, from 1."""


def page(template: str, request: Request, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template to a page."""
    airflow = airflow_path()
    paths = {"airflow": airflow, "root": airflow + PAGES}
    token = getattr(request.state, "form_token", "")
    text = (
        _environment()
        .get_template(template)
        .render(**paths, request=request, form_token=token, status=status, time_zone=time_zone().key, **values)
    )
    return HTMLResponse(text, status_code=status)


def redirect(path: str) -> RedirectResponse:
    """Return the answer to a form: show a page, below the path at which a proxy serves Airflow.

    Examples
    --------
    >>> redirect("/decisions").headers["location"]
    '/dicom-deid/decisions'
    """
    return RedirectResponse(f"{airflow_path()}{PAGES}{path}", status_code=303)


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(lambda name: files("dicom_deid.web").joinpath("templates", name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"with_query": with_query}
    environment.filters |= {"size": size, "moment": moment, "duration": duration, "number": number}
    return environment


def size(count: float) -> str:
    """Return a number of bytes with its unit.

    Examples
    --------
    >>> size(1536)
    '1.5 KB'
    """
    for unit in ("B", "KB", "MB", "GB"):
        if count < _KIBI:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIBI
    return f"{count:.1f} TB"


def number(count: int) -> str:
    """Return a count with thousands separators.

    Examples
    --------
    >>> number(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def moment(value: datetime | None) -> str:
    """Return a time to the second, in Airflow's default time zone."""
    return value.astimezone(time_zone()).strftime("%Y-%m-%d %H:%M:%S") if value else ""


def time_zone() -> ZoneInfo:
    """Return the default time zone of Airflow's UI."""
    name: str = conf.get("core", "default_timezone", fallback="utc")
    try:
        return ZoneInfo("UTC" if name.lower() in ("utc", "system") else name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    Examples
    --------
    >>> duration(75)
    '0:01:15'
    """
    return str(timedelta(seconds=round(seconds)))


def with_query(request: Request, **changes: object) -> str:
    """Return the query of the current page with some parameters changed; empty ones are left out."""
    parameters = {**request.query_params, **changes}
    return "?" + urlencode({name: value for name, value in parameters.items() if value not in ("", None)})
