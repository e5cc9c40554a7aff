"""Extra links of task instances to the pages of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

REVIEW_DAG = "dicom_deid_review"
"""Id of the DAG that processes decided objects. Permission to trigger it is permission to review."""

PREVIEW_KEY = "preview"
"""XCom key of the report of a preview, which the tab of the DAG run shows."""

WITHDRAW_DAG = "dicom_deid_withdraw"
"""Id of the DAG that deletes withdrawn objects. Permission to trigger it is permission to withdraw."""

ON_DEMAND_DAG = "dicom_deid_on_demand"
"""Id of the DAG that the page of the archive starts."""

PAGES = "/dicom-deid"
"""Path of the pages in Airflow's API server, below the path of `[api] base_url`."""


class RunPageLink(BaseOperatorLink):
    """Link from a task to the page of its de-identification run."""

    name = "De-identification run"

    @classmethod
    def persist(cls, context: Context, operator: BaseOperator, run_id: str) -> None:
        """Push the link's address to XCom, so that it works while the task is running."""
        address = run_page(run_id)
        operator.__dict__["run_page"] = address
        context["ti"].xcom_push(key=cls().xcom_key, value=address)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty text for a task that ended before its run was known."""
        address: str = operator.__dict__.get("run_page", "")
        return address


def run_page(run_id: str) -> str:
    """Return the address of the page of a run."""
    return f"{airflow_path()}{PAGES}/runs/{quote(run_id, safe='')}"


def airflow_path() -> str:
    """Return the path prefix of Airflow's URL (`[api] base_url`), empty if there is none."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
