"""Provider metadata that Airflow reads."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider metadata, after Airflow's provider schema."""
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
                "python-modules": ["dicom_deid.hooks"],
            }
        ],
        "operators": [
            {
                "integration-name": "DICOM de-identification",
                "python-modules": ["dicom_deid.operators"],
            }
        ],
        "triggers": [
            {
                "integration-name": "DICOM de-identification",
                "python-modules": ["dicom_deid.triggers"],
            }
        ],
        "connection-types": [_CONNECTION_TYPE],
        "config": _CONFIG,
        "extra-links": ["dicom_deid.links.RunPageLink"],
        "notifications": [
            "dicom_deid.notifications.QuarantineNotifier",
            "dicom_deid.notifications.DeadlineNotifier",
        ],
    }


def _field(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _option(description: str, default: str, example: str | None = None, kind: str = "string") -> dict[str, Any]:
    return {
        "description": description,
        "type": kind,
        "default": default,
        "example": example,
        "version_added": "0.1.0",
    }


_CONFIG = {
    "dicom_deid": {
        "description": "DICOM de-identification.",
        "options": {
            "recipes_folder": _option(
                "Directory of the site's own recipes (``*.dicom``), which the trigger forms offer.", "", "/opt/recipes"
            ),
            "arrival_source": _option(
                "Source of the example DAG ``dicom_deid_on_arrival``. Empty: the DAG starts no run.",
                "",
                "s3://incoming",
            ),
            "arrival_destination": _option(
                "Destination of the example DAG ``dicom_deid_on_arrival``.", "", "s3://deidentified"
            ),
            "arrival_queue": _option(
                "URL of an SQS queue with the events of ``arrival_source``. Empty: the source is listed.",
                "",
                "https://sqs.eu-central-1.amazonaws.com/123456789012/arrivals",
            ),
            "arrival_settle_seconds": _option(
                "Seconds without a new object in a folder after which its objects are de-identified on arrival.",
                "60.0",
                kind="float",
            ),
            "pages_database_conn_id": _option(
                "Connection of the database that the pages read.", "dicom_deid_database", "deid_reader"
            ),
            "pages_deid_conn_id": _option("Connection with the keys, for the pages.", "dicom_deid_default"),
            "pages_source_conn_id": _option("Connection of the source, for the pages.", "dicom_deid_source"),
            "pages_destination_conn_id": _option(
                "Connection of the destination, for the pages.", "dicom_deid_destination"
            ),
        },
    }
}

_CONNECTION_TYPE = {
    "connection-type": "dicom_deid",
    "hook-class-name": "dicom_deid.hooks.DicomDeidHook",
    "hook-name": "DICOM de-identification",
    "ui-field-behaviour": {
        "hidden-fields": ["host", "port", "login", "schema", "extra"],
        "relabeling": {"password": "Keys"},
        "placeholders": {"password": "2026:base64 of 32 bytes, the active key first, then older ones"},
    },
    "conn-fields": {
        "project": _field("Project", "Pseudonyms are consistent inside a project."),
        "recipe": _field(
            "Recipe", "Name or path of a recipe; separate several with commas.", default="desktop, devices"
        ),
        "quarantine_locations": _field(
            "Quarantine locations",
            "Where tasks may copy quarantined originals, and below: s3://bucket/prefix or absolute paths; separate "
            "several with commas. Empty: nowhere.",
        ),
        "org_root": _field(
            "UID root",
            "Root of new UIDs, at most 33 characters.",
            maxLength=33,
            pattern="^$|^[0-2](\\.(0|[1-9][0-9]*))+$",
        ),
        "single_patient_id": _field("Single PatientID", "PatientID given to every patient. Empty: one per patient."),
        "uid_strategy": _field(
            "UID strategy",
            "Store each new UID, or derive it from the keys.",
            enum=["stored", "derived"],
            default="stored",
        ),
        "patient_key": _field(
            "Patient key",
            "Whether a PatientID identifies a patient alone (default), or with its IssuerOfPatientID.",
            enum=["", "id", "id-and-issuer"],
            default="",
        ),
        "max_date_offset_days": {
            "label": "Largest date offset",
            "description": "Maximum number of days by which the dates of a patient are shifted.",
            "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 36500},
        },
        "database_schema": _field("Database schema", "Schema of the crosswalk and the audit.", default="dicom_deid"),
    },
}
