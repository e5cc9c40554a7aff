"""Buttons on a task instance that lead to the pages of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/dicom-deid"
"""Where the pages are mounted in Airflow's API server."""


class RunPageLink(BaseOperatorLink):
    """Leads from a task to the page of its de-identification run."""

    name = "De-identification run"

    @classmethod
    def persist(cls, context: Context, operator: BaseOperator, run_id: str) -> None:
        """Store the address at once, so that the button works while the task runs."""
        address = run_page(run_id)
        operator.__dict__["run_page"] = address
        context["ti"].xcom_push(key=cls().xcom_key, value=address)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or nothing for a task that ended before it knew its run."""
        address: str = operator.__dict__.get("run_page", "")
        return address


def run_page(run_id: str) -> str:
    """Return the address of the page of a run."""
    return f"{PAGES}/runs/{quote(run_id, safe='')}"
