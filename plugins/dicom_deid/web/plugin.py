"""Airflow plugin that registers the pages."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from dicom_deid.links import PAGES, airflow_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class LazyApp:
    """Imports the application at the first request: every task process loads plugins, only the API server serves."""

    @cached_property
    def app(self) -> ASGIApp:
        """The FastAPI application."""
        from dicom_deid.web.app import create_app

        return create_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self.app(scope, receive, send)


class DicomDeidPlugin(AirflowPlugin):
    """Registers the application and its entry in the navigation."""

    name = "dicom_deid"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {"app": LazyApp(), "url_prefix": PAGES, "name": "De-identification"}
    ]
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "De-identification",
            "href": f"{airflow_path()}{PAGES}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "dicom-deid-pages",
        },
        {
            "name": "De-identification",
            "href": f"{airflow_path()}{PAGES}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "dicom-deid-run",
        },
    ]
