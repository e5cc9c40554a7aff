"""One exception class a case. No message ever holds a value of an object."""

from __future__ import annotations

from dicom_deid.reasons import Reason


class DicomDeidError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigurationError(DicomDeidError):
    """What the user asked for cannot be done as it stands; a retry will not help."""


class ObjectStoreError(DicomDeidError):
    """An object store did not do what it was asked; a retry may help."""


class DatabaseError(DicomDeidError):
    """PostgreSQL did not do what it was asked; a retry may help."""


class ProgramAtFault(DicomDeidError):
    """Object after object failed by a fault of the program; a retry will not help.

    Parameters
    ----------
    fault
        The type of the last exception and the line that raised it.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"Object after object failed by a fault of the program ({fault}). The rest of the batch is left: "
            "report it, and run again after an upgrade."
        )


class Quarantine(DicomDeidError):
    """An object that cannot be de-identified for certain.

    Parameters
    ----------
    reason
        Why, as the audit records it.
    where
        The tag path, for example ``(0040,a730)[0](0040,a123)``, or the rule (``desktop.dicom:12``); never a value.
    offset
        Bytes from the beginning of the object, where that says something.
    """

    def __init__(self, reason: Reason, where: str = "", offset: int | None = None) -> None:
        self.reason = reason
        self.where = where
        self.offset = offset
        at = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{reason.value}{': ' + where if where else ''}{at}")
