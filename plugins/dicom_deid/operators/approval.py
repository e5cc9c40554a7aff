"""Ask a person to approve a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import exceptions

from dicom_deid.airflow_compat import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

_ASKED = "dicom_deid_asked"
_AWAITING_INPUT: Any = getattr(exceptions, "TaskAwaitingInput", ())
"""Raised to wait for an answer, in Airflow 3.3 and later."""


class DicomApprovalOperator(ApprovalOperator):
    """Ask for approval once, and not of the person who requested the run.

    If the answer arrives while the process that asked is ending, Airflow's scheduler can take that end for the end of
    the task, and retries it. `ApprovalOperator` then drops the answer and asks again, and the run waits for a person
    who has answered already. This operator waits for the answer to the first question (Airflow 3.3 and later).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # The first retry finds the answer; another would ask again, where a failed task shows what happened.
        self.retries = min(self.retries or 0, 1 if _AWAITING_INPUT else 0)

    def execute(self, context: Context) -> Any:
        """Ask, and wait without a worker; a retry waits for the answer without asking again."""
        state: Any = context.get("task_state_store")
        if state is None:
            return super().execute(context)
        # A task that is cleared gets another id, and asks again.
        request = str(context["ti"].id)
        if state.get(_ASKED) == request:
            raise _AWAITING_INPUT(method_name="execute_complete", timeout=self.response_timeout)
        try:
            return super().execute(context)
        except _AWAITING_INPUT:
            state.set(_ASKED, request)
            raise

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the answer; skip the downstream tasks if it is no.

        Raises
        ------
        AirflowFailException
            The person who triggered the run approved it.
        """
        person = (event.get("responded_by_user") or {}).get("name")
        requester = getattr(context["dag_run"], "triggering_user_name", None)
        approved = self.APPROVE in event.get("chosen_options", ())
        if approved and person == requester and person is not None:
            raise AirflowFailException(
                "The person who requested a run cannot approve its release: clear this task, and ask a second person."
            )
        return super().execute_complete(context, event)
