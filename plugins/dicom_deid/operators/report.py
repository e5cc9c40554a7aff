"""The last task of a run: add up, judge, tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dicom_deid.links import RunPageLink
from dicom_deid.operators.base import DicomDeidOperator, TooManyQuarantined, WorkLeft, planned_run
from dicom_deid.operators.lineage import between
from dicom_deid.reasons import Outcome, Reason

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.database import RunReport


class DicomReportOperator(DicomDeidOperator):
    """Ends a run, logs its totals and the reasons, and returns the counts.

    The outlets of the task, if it has any, get an asset event with the counts. The trigger rule is `all_done`, so that
    a run with nothing to do and one whose batches failed are ended too.

    Parameters
    ----------
    run
        ``plan.output["run"]`` of `DicomPlanOperator`.
    max_quarantine_ratio
        Quarantined objects among all, 0 to 1, above which the run is not good.
    on_excess
        Whether the task then fails (`fail`) or says so in its log (`warn`).
    """

    template_fields: Sequence[str] = ("run", "max_quarantine_ratio")
    ui_color = "#fdf3e1"

    def __init__(
        self,
        *,
        run: Mapping[str, Any],
        max_quarantine_ratio: float = 1.0,
        on_excess: Literal["fail", "warn"] = "fail",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("trigger_rule", "all_done")
        super().__init__(**kwargs)
        self.run = run
        self.max_quarantine_ratio = max_quarantine_ratio
        self.on_excess = on_excess
        self._counts: dict[str, Any] = {}

    def execute(self, context: Context) -> dict[str, Any]:
        """End the run and report.

        Raises
        ------
        WorkLeft
            Objects were planned and are not done: a batch failed. Clear the failed tasks to take them up again.
        TooManyQuarantined
            More were quarantined than `max_quarantine_ratio`.
        """
        from dicom_deid.pipeline.planning import report_run

        run_id, _ = planned_run(self.run)
        RunPageLink.persist(context, self, run_id)
        report = report_run(self.connections, run_id=run_id)
        left = report.open + report.outcomes.get(Outcome.FAILED, 0)
        report = report_run(self.connections, run_id=run_id, state="failed" if left else "succeeded")
        self._tell(report)
        self._counts = _counts(run_id, report)
        context["ti"].xcom_push(key="counts", value=self._counts)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = self._counts
        if left:
            raise WorkLeft(f"{left} objects are not done: clear the failed tasks of this run to take them up again.")
        self._judge(report)
        return self._counts

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the places, and how much was written in all."""
        _, configuration = planned_run(self.run)
        return between(
            configuration.source,
            configuration.destination,
            objects=self._counts.get("deidentified"),
            size=self._counts.get("bytes_out"),
        )

    def _tell(self, report: RunReport) -> None:
        self.log.info(
            "Listed %d objects, %d done before. De-identified %d, quarantined %d, failed %d; %.1f MB in %.1f s.",
            report.run.listed,
            report.run.already_done,
            report.outcomes.get(Outcome.DEIDENTIFIED, 0),
            report.outcomes.get(Outcome.QUARANTINED, 0),
            report.outcomes.get(Outcome.FAILED, 0),
            report.bytes_in / 1e6,
            report.seconds,
        )
        for code, count in sorted(report.reasons.items(), key=lambda each: -each[1]):
            advice = Reason(code).advice
            self.log.warning("  %6d  %s: %s %s", count, code, advice.meaning, advice.what_to_do)

    def _judge(self, report: RunReport) -> None:
        ratio, allowed = report.quarantine_ratio, float(self.max_quarantine_ratio)
        if ratio <= allowed:
            return
        message = f"{ratio:.1%} of the objects were quarantined, more than the {allowed:.1%} that are allowed."
        if self.on_excess == "fail":
            raise TooManyQuarantined(message)
        self.log.warning(message)


def _counts(run_id: str, report: RunReport) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "listed": report.run.listed,
        "already_done": report.run.already_done,
        "planned": report.run.planned,
        "deidentified": report.outcomes.get(Outcome.DEIDENTIFIED, 0),
        "quarantined": report.outcomes.get(Outcome.QUARANTINED, 0),
        "failed": report.outcomes.get(Outcome.FAILED, 0),
        "reasons": dict(report.reasons),
        "bytes_in": report.bytes_in,
        "bytes_out": report.bytes_out,
        "seconds": round(report.seconds, 3),
    }
