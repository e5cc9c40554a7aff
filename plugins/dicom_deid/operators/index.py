"""Index a source, so that runs can be planned from cohort lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dicom_deid.operators.arguments import location
from dicom_deid.operators.base import DicomDeidOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class DicomIndexOperator(DicomDeidOperator):
    """Read the headers of the new and changed objects of a source into the index of a project.

    Returns the counts of `IndexSummary`.

    Parameters
    ----------
    source
        ``s3://bucket/prefix``, or an absolute path that the worker can read.
    project
        Default: that of the `dicom_deid` connection. The keys of the project hash the identifiers.
    transfers
        Number of headers that are read at a time.
    """

    template_fields: Sequence[str] = ("source", "project")
    ui_color = "#e8f1fb"

    def __init__(self, *, source: str, project: str | None = None, transfers: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.project = project
        self.transfers = transfers

    def run_task(self, context: Context) -> dict[str, int]:
        """Index the source and return the counts.

        Raises
        ------
        ConfigurationError
            The connections or the project are wrong.
        ObjectStoreError, DatabaseError
            The store or the database is unavailable; a retry resumes.
        """
        from dicom_deid.objectstore import open_source
        from dicom_deid.pipeline.indexing import index_source

        store = open_source(location("source", self.source), self.source_connection)
        store.check()
        with self.connections.open_database() as database:
            database.upgrade()
            summary = asdict(
                index_source(database, store, self.project or self.hook.project or "", transfers=self.transfers)
            )
        self.log.info("Index of %s: %s.", store.url, ", ".join(f"{count} {name}" for name, count in summary.items()))
        return summary
