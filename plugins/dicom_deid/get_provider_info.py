"""The face that Airflow reads of the provider."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's provider schema describes it."""
    return {
        "package-name": "airflow-provider-dicom-deid",
        "name": "DICOM de-identification",
        "description": "De-identify DICOM archives in S3-compatible storage.",
        "integrations": [
            {
                "integration-name": "DICOM de-identification",
                "external-doc-url": "https://www.dicomstandard.org/",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": "DICOM de-identification",
                "python-modules": ["dicom_deid.hooks.dicom_deid"],
            }
        ],
        "operators": [
            {
                "integration-name": "DICOM de-identification",
                "python-modules": [
                    "dicom_deid.operators.plan",
                    "dicom_deid.operators.deidentify",
                    "dicom_deid.operators.report",
                    "dicom_deid.operators.preview",
                    "dicom_deid.operators.release",
                ],
            }
        ],
        "connection-types": [_CONNECTION_TYPE],
        "extra-links": ["dicom_deid.links.RunPageLink"],
        "notifications": [
            "dicom_deid.notifications.notifiers.QuarantineNotifier",
            "dicom_deid.notifications.notifiers.DeadlineNotifier",
        ],
    }


def _field(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


_CONNECTION_TYPE = {
    "connection-type": "dicom_deid",
    "hook-class-name": "dicom_deid.hooks.dicom_deid.DicomDeidHook",
    "hook-name": "DICOM de-identification",
    "ui-field-behaviour": {
        "hidden-fields": ["host", "port", "login", "schema", "extra"],
        "relabeling": {"password": "Keys"},
        "placeholders": {"password": "2026:base64 of 32 bytes, the active key first, then older ones"},
    },
    "conn-fields": {
        "project": _field("Project", "The mapping domain; pseudonyms are consistent inside one."),
        "recipe": _field("Recipe", "Name or path of a recipe; several with commas.", default="desktop"),
        "org_root": _field(
            "UID root",
            "Root of new UIDs, at most 33 characters.",
            maxLength=33,
            pattern="^$|^[0-2](\\.(0|[1-9][0-9]*))+$",
        ),
        "single_patient_id": _field("Single PatientID", "Give every patient this PatientID. Empty: one each."),
        "uid_strategy": _field(
            "UID strategy",
            "Store each new UID, or derive it from the keys.",
            enum=["stored", "derived"],
            default="stored",
        ),
        "max_date_offset_days": {
            "label": "Largest date offset",
            "description": "Days by which a patient's dates are shifted at most.",
            "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 36500},
        },
        "database_schema": _field("Database schema", "Schema of the crosswalk and the audit.", default="dicom_deid"),
    },
}
