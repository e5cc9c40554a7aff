"""OpenLineage facets: the source and the destination of a run, and how much was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


def run_lineage(
    source: str, destination: str | None, *, objects: int | None = None, size: int | None = None
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a run. Data sets are buckets with a prefix, never objects.

    Parameters
    ----------
    source, destination
        ``s3://bucket/prefix`` or a directory; None as destination if nothing is written.
    objects, size
        Objects and bytes written, if known.
    """
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.openlineage.extractors import OperatorLineage

    facets: dict[str, Any] = (
        {"outputStatistics": OutputStatisticsOutputDatasetFacet(fileCount=objects, size=size)}
        if objects is not None
        else {}
    )
    return OperatorLineage(
        inputs=[Dataset(*_name(source))],
        outputs=[OutputDataset(*_name(destination), outputFacets=facets)] if destination else [],
    )


def _name(url: str) -> tuple[str, str]:
    """Return namespace and name of a location, after OpenLineage's naming rules for S3 and files."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return f"s3://{parts.netloc}", parts.path.strip("/") or "/"
    return "file", parts.path
