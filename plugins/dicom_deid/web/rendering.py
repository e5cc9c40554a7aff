"""Render templates and format numbers and times."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FunctionLoader, StrictUndefined

from dicom_deid.links import PAGES

_KIBI = 1024


def page(template: str, request: Request, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template to a page."""
    airflow = _airflow()
    paths = {"airflow": airflow, "root": airflow + PAGES}
    text = _environment().get_template(template).render(**paths, request=request, status=status, **values)
    return HTMLResponse(text, status_code=status)


def _airflow() -> str:
    """Return the path prefix under which Airflow is served (`[api] base_url`)."""
    base: str = conf.get("api", "base_url", fallback="")
    return urlsplit(base).path.rstrip("/")


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(lambda name: files("dicom_deid.web").joinpath("templates", name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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
    """Return a time to the second, in UTC."""
    return value.strftime("%Y-%m-%d %H:%M:%S") if value else ""


def duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    Examples
    --------
    >>> duration(75)
    '0:01:15'
    """
    return str(timedelta(seconds=round(seconds)))
