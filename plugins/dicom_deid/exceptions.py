"""Exceptions of the package. No message holds a value of an object."""

from __future__ import annotations

from dicom_deid.reasons import Reason


class DicomDeidError(Exception):
    """Base class of the exceptions of this package."""


class ConfigurationError(DicomDeidError):
    """The request or the configuration is wrong; a retry does not help."""


class ObjectStoreError(DicomDeidError):
    """An object store request failed; a retry may help."""


class DatabaseError(DicomDeidError):
    """A PostgreSQL statement or connection failed; a retry may help."""


class Quarantine(DicomDeidError):
    """The object cannot be de-identified with certainty.

    Parameters
    ----------
    reason
        Reason code for the audit.
    where
        The tag path, for example ``(0040,a730)[0](0040,a123)``, or the rule (``desktop.dicom:12``); never a value.
    offset
        Offset in bytes from the beginning of the object, where it is known.
    """

    def __init__(self, reason: Reason, where: str = "", offset: int | None = None) -> None:
        self.reason = reason
        self.where = where
        self.offset = offset
        at = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{reason.value}{': ' + where if where else ''}{at}")
