"""Registers the pages where this folder is Airflow's plugins folder; an installed package registers them itself."""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="dicom_deid"):
    from dicom_deid.web.plugin import DicomDeidPlugin  # noqa: F401
