"""Airflow triggers; import them from here."""

from dicom_deid.triggers.arrivals import NewObjectsTrigger

__all__ = ["NewObjectsTrigger"]
