"""Airflow triggers; import them from here."""

from dicom_deid.triggers.arrivals import NewObjectsTrigger, SettledMessagesTrigger

__all__ = ["NewObjectsTrigger", "SettledMessagesTrigger"]
