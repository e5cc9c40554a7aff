"""Names that moved between Airflow 3.1 and 3.3, imported from the module where this Airflow has them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _first(name: str, *modules: str) -> Any:
    """Return an attribute of the first module that can be imported and has it."""
    for module in modules[:-1]:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return getattr(import_module(modules[-1]), name)


AirflowFailException: type[Exception] = _first("AirflowFailException", "airflow.sdk.exceptions", "airflow.exceptions")
AirflowSkipException: type[Exception] = _first("AirflowSkipException", "airflow.sdk.exceptions", "airflow.exceptions")
AirflowNotFoundException: type[Exception] = _first(
    "AirflowNotFoundException", "airflow.sdk.exceptions", "airflow.exceptions"
)
ParamValidationError: type[Exception] = _first("ParamValidationError", "airflow.sdk.exceptions", "airflow.exceptions")
XComNotFound: type[Exception] = _first("XComNotFound", "airflow.sdk.exceptions", "airflow.exceptions")
Stats = _first("Stats", "airflow.sdk.observability.stats", "airflow.stats")
CronDataIntervalTimetable = _first("CronDataIntervalTimetable", "airflow.sdk", "airflow.timetables.interval")
AsyncCallback = _first(
    "AsyncCallback", "airflow.sdk", "airflow.sdk.definitions.callback", "airflow.sdk.definitions.deadline"
)
DeadlineAlert = _first("DeadlineAlert", "airflow.sdk", "airflow.sdk.definitions.deadline")
DeadlineReference = _first("DeadlineReference", "airflow.sdk", "airflow.sdk.definitions.deadline")
