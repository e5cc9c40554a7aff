"""Templates, and the few words and numbers that they show."""

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
    places = {"airflow": airflow, "root": airflow + PAGES}
    text = _environment().get_template(template).render(**places, request=request, status=status, **values)
    return HTMLResponse(text, status_code=status)


def _airflow() -> str:
    """Return the path below which Airflow is served, also behind a proxy that adds one."""
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
    """Return a number of bytes for people.

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
    """Return a count with thin groups of digits.

    Examples
    --------
    >>> number(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def moment(value: datetime | None) -> str:
    """Return an instant to the second, in UTC as the store has it."""
    return value.strftime("%Y-%m-%d %H:%M:%S") if value else ""


def duration(seconds: float) -> str:
    """Return a length of time.

    Examples
    --------
    >>> duration(75)
    '0:01:15'
    """
    return str(timedelta(seconds=round(seconds)))
