"""Withdraw released objects, or lift a withdrawal."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.operators.arguments import boolean, check_conf, location, whole_number
from dicom_deid.operators.base import DicomDeidOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dicom_deid.database import AccessReason, Database, Project, WithdrawalRequest


class DicomWithdrawOperator(DicomDeidOperator):
    """Delete released objects from the destination, places of release and quarantine, and never write them again.

    It takes no identifier: Airflow stores and shows arguments, so they are in a list, or were entered on the page
    *Withdrawals*. Returns the id of the withdrawal and counts. A retry continues the withdrawal that was begun.

    Parameters
    ----------
    reason
        Recorded in the audit with the user who triggered the DAG.
    project
        Default: that of the `dicom_deid` connection.
    withdrawal_list
        ``s3://bucket/key`` or path of a CSV file of kind and value, as `dicom-deid release withdraw --from` reads; it
        is read with the source's connection.
    decision
        Withdraw what this quarantine decision released, and later its rule; its number on the page *Decisions*.
    deleted_sources
        Withdraw released objects whose source object is gone, as the last whole run found.
    preview
        Dry run: count what would be deleted, and change nothing.
    withdrawal_id
        Continue this withdrawal instead.
    undo
        Lift this withdrawal instead: the next run writes its objects again.
    transfers
        Number of deletions at the same time.
    """

    template_fields: Sequence[str] = (
        "reason",
        "project",
        "withdrawal_list",
        "decision",
        "deleted_sources",
        "preview",
        "withdrawal_id",
        "undo",
    )
    ui_color = "#fbe8e8"

    def __init__(
        self,
        *,
        reason: str,
        project: str | None = None,
        withdrawal_list: str | None = None,
        decision: int | str | None = None,
        deleted_sources: bool = False,
        preview: bool = False,
        withdrawal_id: str | None = None,
        undo: str | None = None,
        transfers: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reason = reason
        self.project = project
        self.withdrawal_list = withdrawal_list
        self.decision = decision
        self.deleted_sources = deleted_sources
        self.preview = preview
        self.withdrawal_id = withdrawal_id
        self.undo = undo
        self.transfers = transfers

    def run_task(self, context: Context) -> dict[str, Any]:
        """Withdraw, and return the id and the counts.

        Raises
        ------
        ConfigurationError
            Nothing, or several things, are to be done; the list or the id is wrong.
        StillBeingWritten, ObjectStoreError, DatabaseError
            A retry continues.
        """
        from dicom_deid.pipeline.withdrawal import continue_withdrawal

        check_conf(context)
        self.deleted_sources = boolean("deleted_sources", self.deleted_sources)
        wanted = (self.withdrawal_list, self.decision, self.deleted_sources, self.withdrawal_id, self.undo)
        if sum(map(bool, wanted)) != 1:
            raise ConfigurationError(
                "Give one of: a list, a decision, deleted sources, a withdrawal to continue or to undo."
            )
        name = self.project or self.hook.project or ""
        access = self._access(context)
        with self.connections.open_database() as database:
            project = database.project(name, create=False)
            if self.undo:
                objects = database.undo_withdrawal(project, self.undo, access)
                self.log.info("The withdrawal of %d objects was undone; the next run writes them again.", objects)
                return {"withdrawal_id": self.undo, "objects": objects}
            begun = self._begin(database, project, access, context)
        if begun["withdrawal_id"] is not None:
            deleted = continue_withdrawal(self.connections, name, begun["withdrawal_id"], transfers=self.transfers)
            self.log.info("Withdrawal %s: %d copies were deleted.", begun["withdrawal_id"], deleted)
            begun["deleted"] = deleted
        return begun

    def _access(self, context: Context) -> AccessReason:
        from dicom_deid.database import AccessReason

        person = getattr(context["dag_run"], "triggering_user_name", None) or context["ti"].run_id
        return AccessReason(person=person, reason=str(self.reason or ""))

    def _begin(self, database: Database, project: Project, access: AccessReason, context: Context) -> dict[str, Any]:
        """Begin the withdrawal, unless it was begun; return its id, which is that of the task instance, and counts."""
        if self.withdrawal_id:
            return {"withdrawal_id": self.withdrawal_id}
        instance = context["ti"]
        name = f"dicom-deid withdrawal {instance.dag_id}/{instance.run_id}/{instance.task_id}"
        withdrawal_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        if database.is_withdrawal(project, withdrawal_id):
            return {"withdrawal_id": withdrawal_id}
        begun = database.withdraw(
            project,
            self._request(),
            access,
            withdrawal_id=withdrawal_id,
            dry_run=boolean("preview", self.preview),
        )
        counts = {"objects": begun.objects, **begun.deletions, "unknown": begun.unknown}
        word = "would be" if begun.withdrawal_id is None else "are"
        self.log.info("%d objects %s withdrawn.", begun.objects, word)
        for place, count in begun.deletions.items():
            self.log.info("  %s: %d copies", place, count)
        if begun.unknown:
            self.log.warning("%d values of the list are known to no object of the project; check them.", begun.unknown)
        return {"withdrawal_id": begun.withdrawal_id, **counts}

    def _request(self) -> WithdrawalRequest:
        from dicom_deid.database import WithdrawalRequest
        from dicom_deid.pipeline.cohort import load_list
        from dicom_deid.pipeline.withdrawal import read_withdrawal_list

        if not self.withdrawal_list:
            decision = whole_number("decision", self.decision, maximum=2**63 - 1)
            return WithdrawalRequest(decision=decision, deleted_sources=self.deleted_sources)
        data = load_list(location("withdrawal_list", self.withdrawal_list), self.source_connection)
        return WithdrawalRequest(**read_withdrawal_list(data))
