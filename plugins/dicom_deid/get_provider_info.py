"""The face that Airflow reads of the provider."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's provider schema describes it."""
    return {
        "package-name": "airflow-provider-dicom-deid",
        "name": "DICOM de-identification",
        "description": "De-identify DICOM archives in S3-compatible storage.",
    }
