"""Airflow hooks; import them from here."""

from dicom_deid.hooks.dicom_deid import DicomDeidHook

__all__ = ["DicomDeidHook"]
