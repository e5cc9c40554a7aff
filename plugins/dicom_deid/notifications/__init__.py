"""Airflow notifiers; import them from here."""

from dicom_deid.notifications.notifiers import DeadlineNotifier, QuarantineNotifier

__all__ = ["DeadlineNotifier", "QuarantineNotifier"]
