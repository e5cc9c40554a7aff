"""Strict parsing of operator arguments, which arrive as text when they were templated."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.field_checks import similar_name

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dicom_deid.hooks.dicom_deid import DicomDeidHook

LIMIT_MAXIMUM = 100_000_000
"""Largest accepted number of objects of a run."""

_BOOLEANS = {"true": True, "false": False}


def boolean(name: str, value: Any) -> bool:
    """Return a switch, given as bool or as the text ``true`` or ``false`` in any case.

    Raises
    ------
    ConfigurationError
        The value is neither.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise ConfigurationError(f"{name} must be true or false.")


def whole_number(name: str, value: Any, *, maximum: int) -> int | None:
    """Return a number of at least 1, given as int or as decimal text; None for an empty value.

    Raises
    ------
    ConfigurationError
        The value is not a whole number from 1 to `maximum`.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        raise ConfigurationError(f"{name} must be a whole number from 1 to {maximum}.")
    return value


def ratio(name: str, value: Any) -> float:
    """Return a number from 0 to 1, given as number or as text.

    Raises
    ------
    ConfigurationError
        The value is not such a number.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ConfigurationError(f"{name} must be a number from 0 to 1.")
    return number


def location(name: str, value: Any) -> str:
    """Return a location: ``s3://bucket/prefix`` or an absolute path.

    A relative path would mean another directory on each worker, and ``s3//bucket`` is one.

    Raises
    ------
    ConfigurationError
        The value is empty or of another form.
    """
    text = str(value or "").strip()
    if not text or text == "None":
        raise ConfigurationError(f"No {name} is given: set {name} to s3://bucket/prefix or an absolute path.")
    if not text.startswith(("s3://", "file:///")) and not PurePath(text).is_absolute():
        raise ConfigurationError(f"The {name} must be s3://bucket/prefix or an absolute path; check its spelling.")
    return text


def quarantine_location(value: Any, hook: DicomDeidHook) -> str:
    """Return the location of copies of quarantined originals.

    Who fills in the form of a DAG does not decide where originals are copied: the connection names the locations.

    Raises
    ------
    ConfigurationError
        It is no location, or neither one of those of the connection nor below one.
    """
    url = location("quarantine", value)
    if not any(_path(url).startswith(_path(each)) for each in hook.quarantine_locations):
        raise ConfigurationError(
            "Copies of quarantined originals are written to the quarantine locations of the connection "
            f"{hook.deid_conn_id} alone, and the quarantine is in none of them: choose one, or have it added there."
        )
    return url


def _path(url: str) -> str:
    """Return a location as a path that ends in a slash, without ``..``, which would lead out of a folder."""
    return posixpath.normpath(unquote(url.removeprefix("file://"))).rstrip("/") + "/"


def check_conf(context: Context) -> None:
    """Check that the conf of the DAG run has only keys that the DAG declares as params.

    Airflow ignores other keys, so that a misspelt `limit` would start a run over everything.

    Raises
    ------
    ConfigurationError
        A key is not declared.
    """
    declared: Mapping[str, Any] = context["dag"].params
    unknown = sorted(set(context["dag_run"].conf or {}) - set(declared))
    if unknown:
        valid = f"it has {', '.join(sorted(declared))}" if declared else "it has none"
        hint = similar_name(unknown[0], declared)
        raise ConfigurationError(f"The DAG has no parameter {', '.join(unknown)}{hint or f'; {valid}'}.")
