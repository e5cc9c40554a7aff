"""Who is told, and in which words, when people have to look at something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.notifier import BaseNotifier

from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    from airflow.sdk import Context

Deliver = Callable[[str, str], BaseNotifier]
"""Makes, of a subject and a text, the notifier that delivers them: by mail, chat, or whatever a provider has."""


class QuarantineNotifier(BaseNotifier):
    """Tells that quarantined objects need a look; an `on_success_callback` or `on_failure_callback` of the report task.

    Says nothing when nothing was quarantined. The text holds counts, reason codes and advice, and nothing of an object.

    Parameters
    ----------
    deliver
        For example ``lambda subject, text: SmtpNotifier(to="imaging@example.org", subject=subject,
        html_content=f"<pre>{text}</pre>")``. Without one the text goes to the task's log as a warning.

    Examples
    --------
    >>> DicomReportOperator(..., on_success_callback=QuarantineNotifier())  # doctest: +SKIP
    """

    template_fields: Sequence[str] = ()

    def __init__(self, deliver: Deliver | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deliver = deliver

    def notify(self, context: Context) -> None:
        """Send the message, if there is reason to."""
        instance = context["ti"]
        counts = instance.xcom_pull(task_ids=instance.task_id, key="counts")
        if not counts or not counts["quarantined"]:
            return
        subject, text = message(f"{instance.dag_id}, {instance.run_id}", counts)
        if self.deliver is None:
            self.log.warning("%s\n%s", subject, text)
        else:
            self.deliver(subject, text).notify(context)


class DeadlineNotifier(BaseNotifier):
    """Tells that a run has missed its deadline; the callback of a `DeadlineAlert`, which Airflow's triggerer calls.

    Parameters
    ----------
    dag_id
        The DAG that is late.
    deliver
        As for `QuarantineNotifier`.
    """

    template_fields: Sequence[str] = ("dag_id",)

    def __init__(self, dag_id: str, deliver: Deliver | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dag_id = dag_id
        self.deliver = deliver

    async def async_notify(self, context: Context) -> None:
        """Send the message."""
        subject = f"{self.dag_id} has missed its deadline"
        text = "The run is still going on, or waits for a free slot. Its page shows how far it is."
        if self.deliver is None:
            self.log.warning("%s. %s", subject, text)
        else:
            await self.deliver(subject, text).async_notify(context)


def message(run: str, counts: dict[str, Any]) -> tuple[str, str]:
    """Return subject and text of the message about a run.

    Parameters
    ----------
    run
        Its name.
    counts
        What `DicomReportOperator` returns.
    """
    lines = [
        f"Run: {run}",
        f"De-identified {counts['deidentified']}, quarantined {counts['quarantined']}, failed {counts['failed']}.",
        "",
    ]
    for code, count in sorted(counts["reasons"].items(), key=lambda each: -each[1]):
        advice = Reason(code).advice
        lines.append(f"{count:>8}  {code}: {advice.meaning} {advice.what_to_do}")
    return f"{counts['quarantined']} quarantined objects need a look", "\n".join(lines)
