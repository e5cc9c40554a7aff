"""Ask a person to approve a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail

from dicom_deid.airflow_compat import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context


class DicomApprovalOperator(ApprovalOperator):
    """Ask for approval once, and not of the person who requested the run.

    If the answer arrives while the process that asked is ending, Airflow's scheduler can take that end for the end of
    the task, and retries it. `ApprovalOperator` then drops the answer and asks again, and the run waits for a person
    who has answered already. This operator uses the answer.

    Parameters
    ----------
    requester_may_approve
        Accept the approval of the person who triggered the run.
    """

    def __init__(self, *, requester_may_approve: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.requester_may_approve = requester_may_approve

    def execute(self, context: Context) -> Any:
        """Ask, and wait without a worker; or return the answer that an earlier attempt received."""
        answer = _earlier_answer(context) if context["ti"].try_number > 1 else None
        return super().execute(context) if answer is None else self.execute_complete(context, answer)

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
        if approved and person == requester and person is not None and not self.requester_may_approve:
            raise AirflowFailException(
                "The person who requested a run cannot approve its release: clear this task, and ask a second person."
            )
        return super().execute_complete(context, event)


def _earlier_answer(context: Context) -> dict[str, Any] | None:
    try:
        detail = get_hitl_detail_content_detail(context["ti"].id)
    except AirflowRuntimeError:
        # An earlier attempt failed before it asked.
        return None
    if not detail.response_received or not detail.chosen_options:
        return None
    user = detail.responded_by_user
    return {
        "chosen_options": list(detail.chosen_options),
        "params_input": detail.params_input or {},
        "responded_at": detail.responded_at,
        "responded_by_user": {"id": user.id, "name": user.name} if user else None,
        "timedout": user is None,
    }
