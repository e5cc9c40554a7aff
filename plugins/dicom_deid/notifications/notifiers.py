"""Notifiers for quarantined objects, warnings and late runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.notifier import BaseNotifier

from dicom_deid.reasons import Reason

if TYPE_CHECKING:
    from airflow.sdk import Context

Deliver = Callable[[str, str], BaseNotifier]
"""Return a notifier of any provider (mail, chat) that delivers a subject and a text."""


class QuarantineNotifier(BaseNotifier):
    """Notify of quarantined objects and warnings; an `on_success_callback` or `on_failure_callback` of the report task.

    Nothing is sent for a run without either. The text holds counts, reason codes and advice, and no data of an object.

    Parameters
    ----------
    deliver
        For example ``lambda subject, text: SmtpNotifier(to="imaging@example.org", subject=subject,
        html_content=f"<pre>{text}</pre>")``. If not given, the text is logged as a warning of the task.

    Examples
    --------
    >>> DicomReportOperator(..., on_success_callback=QuarantineNotifier())  # doctest: +SKIP
    """

    template_fields: Sequence[str] = ()

    def __init__(self, deliver: Deliver | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deliver = deliver

    def notify(self, context: Context) -> None:
        """Send the message if objects were quarantined or the run has warnings."""
        instance = context["ti"]
        counts = instance.xcom_pull(task_ids=instance.task_id, key="counts")
        if not counts or not (counts["quarantined"] or counts["warnings"]):
            return
        subject, text = message(f"{instance.dag_id}, {instance.run_id}", counts)
        if self.deliver is None:
            self.log.warning("%s\n%s", subject, text)
        else:
            self.deliver(subject, text).notify(context)


class DeadlineNotifier(BaseNotifier):
    """Notify that a DAG run missed its deadline; the callback of a `DeadlineAlert`, called by Airflow's triggerer.

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
        text = "The run is still active, or waits for a free slot. Its page shows the progress."
        if self.deliver is None:
            self.log.warning("%s. %s", subject, text)
        else:
            await self.deliver(subject, text).async_notify(context)


def message(run: str, counts: dict[str, Any]) -> tuple[str, str]:
    """Return subject and text of the message about a run.

    Parameters
    ----------
    run
        Name of the run.
    counts
        Counts that `DicomReportOperator` returns.
    """
    lines = [
        f"Run: {run}",
        f"De-identified {counts['deidentified']}, quarantined {counts['quarantined']}, failed {counts['failed']}.",
        *counts["warnings"],
        "",
    ]
    for code, count in sorted(counts["reasons"].items(), key=lambda each: -each[1]):
        advice = Reason(code).advice
        lines.append(f"{count:>8}  {code}: {advice.meaning} {advice.what_to_do}")
    return f"{counts['quarantined']} objects quarantined, {len(counts['warnings'])} warnings", "\n".join(lines)
