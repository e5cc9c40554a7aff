"""A process that withdraws and erases a patient, and kills itself at the n-th passage of a named point."""

from __future__ import annotations

from typing import Any

from tests.support.killable import POINTS, kill_at, serve

from dicom_deid.database import AccessReason, Database, WithdrawalRequest
from dicom_deid.objectstore import S3Store
from dicom_deid.pipeline.withdrawal import continue_withdrawal

ACCESS = AccessReason(person="olga", reason="consent withdrawn")

STAGES: dict[str, tuple[Any, str, str]] = {
    f"{when}-{name}": (owner, name, when)
    for owner, name in (
        (Database, "withdraw"),
        (S3Store, "delete"),
        (Database, "record_withdrawn"),
        (Database, "finish_withdrawal"),
        (Database, "erase_patients"),
    )
    for when in ("before", "after")
}


def withdraw_and_erase(connections: Any, project_name: str, patient: str, kill: tuple[str, int] | None) -> None:
    """Withdraw and erase a patient as far as that is not done yet, or die on the way."""
    POINTS.update(STAGES)
    with connections.open_database() as database:
        project = database.project(project_name, create=False)
        request = WithdrawalRequest(patients=[patient])
        begun = database.open_withdrawals(project)
        is_begun = begun or not database.withdraw(project, request, ACCESS, dry_run=True).objects
        if kill:
            kill_at(*kill)
        if not is_begun:
            begun = [str(database.withdraw(project, request, ACCESS).withdrawal_id)]
        for withdrawal_id in begun:
            continue_withdrawal(connections, project_name, withdrawal_id)
        if patient_is_known(database, patient):
            database.erase_patients(project, [patient], ACCESS)


def patient_is_known(database: Database, patient: str) -> bool:
    """Return whether the mapping has the patient."""
    found = database.crosswalk(database.project("test")).export(ACCESS)
    return any(row.original.value == patient for row in found)


if __name__ == "__main__":
    serve(withdraw_and_erase)
