"""Finish a run: add up its totals, log the reasons, and fail or warn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dicom_deid.links import RunPageLink, run_page
from dicom_deid.operators.arguments import ratio
from dicom_deid.operators.base import DicomDeidOperator, TooManyQuarantined, WorkLeft, planned_run
from dicom_deid.operators.lineage import run_lineage
from dicom_deid.reasons import Outcome, Reason

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.database import RunReport
    from dicom_deid.pipeline import RunConfiguration


class DicomReportOperator(DicomDeidOperator):
    """Finish a run, log its totals and reasons, and return the counts.

    Each outlet of the task gets an asset event with the counts. The trigger rule is `all_done`, so that a run with
    nothing to do, and one whose batches failed, are finished too.

    Parameters
    ----------
    run
        ``plan.output["run"]`` of `DicomPlanOperator`.
    max_quarantine_ratio
        Accepted ratio of quarantined objects to all objects, 0 to 1.
    on_excess
        What to do above this ratio: `fail` the task, or add a warning to the counts (`warn`).
    partition
        Partition key of the asset events (Airflow 3.3 and later), such as the month of a backfill. A DAG run that has
        a partition key of its own (3.2 and later) gives it to the events by itself.
    reconcile
        List the destination of a run that is done, compare it with the audit, and add the number of differences to the
        counts. A listing takes about a second per 10,000 objects.
    """

    template_fields: Sequence[str] = ("run", "max_quarantine_ratio", "partition")
    ui_color = "#fdf3e1"

    def __init__(
        self,
        *,
        run: Mapping[str, Any],
        max_quarantine_ratio: float = 0.1,
        on_excess: Literal["fail", "warn"] = "warn",
        partition: str | None = None,
        reconcile: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("trigger_rule", "all_done")
        super().__init__(**kwargs)
        self.run = run
        self.max_quarantine_ratio = max_quarantine_ratio
        self.on_excess = on_excess
        self.partition = partition
        self.reconcile = reconcile
        self._counts: dict[str, Any] = {}

    def run_task(self, context: Context) -> dict[str, Any]:
        """Finish the run and return its counts.

        Raises
        ------
        WorkLeft
            Planned objects have no final outcome because a batch failed. Clear the failed tasks to process them.
        TooManyQuarantined
            The ratio of quarantined objects is above `max_quarantine_ratio`, and `on_excess` is `fail`.
        """
        from dicom_deid.pipeline.planning import report_run

        run_id, configuration = planned_run(self.run)
        allowed = ratio("max_quarantine_ratio", self.max_quarantine_ratio)
        RunPageLink.persist(context, self, run_id)
        report = report_run(self.connections, run_id=run_id)
        left = report.open + report.outcomes.get(Outcome.FAILED, 0)
        differences = {} if left or not self.reconcile else self._differences(run_id, configuration)
        report = report_run(self.connections, run_id=run_id, state="failed" if left else "succeeded")
        self._log_report(report)
        excess = _excess(report, allowed)
        self._counts = {
            **_counts(run_id, report),
            "partition": self.partition or getattr(context["dag_run"], "partition_key", None),
            "differences": differences,
            "warnings": [
                *_nothing_listed(report, configuration.source),
                *report.run.warnings,
                *excess,
                *_lost_or_orphaned(differences, configuration.destination),
            ],
        }
        for warning in self._counts["warnings"]:
            self.log.warning("%s", warning)
        context["ti"].xcom_push(key="counts", value=self._counts)
        for asset in self.outlets:
            event = context["outlet_events"][asset]
            event.extra = self._counts
            if self.partition and hasattr(event, "add_partitions"):
                event.add_partitions(self.partition)
        if left:
            raise WorkLeft(f"{left} objects are not done: clear the failed tasks of this run to process them.")
        if excess and self.on_excess == "fail":
            raise TooManyQuarantined(excess[0])
        return self._counts

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return source and destination with the number of objects and bytes written by the run."""
        _, configuration = planned_run(self.run)
        return run_lineage(
            configuration.source,
            configuration.destination,
            objects=self._counts.get("deidentified"),
            size=self._counts.get("bytes_out"),
        )

    def _differences(self, run_id: str, configuration: RunConfiguration) -> dict[str, int]:
        from dicom_deid.database import AccessReason
        from dicom_deid.pipeline.withdrawal import reconcile_destination

        access = AccessReason(person=configuration.triggered_by or "unknown", reason=f"report of run {run_id}")
        result = reconcile_destination(self.connections, configuration.destination, access, run_id=run_id)
        differences = dict(result.counts)
        self.log.info(
            "Compared %d objects at the destination with the audit: %s", result.objects, differences or "equal"
        )
        return differences

    def _log_report(self, report: RunReport) -> None:
        self.log.info(
            "Listed %d objects, %d already done. De-identified %d, quarantined %d, failed %d; %.1f MB in %.1f s.",
            report.run.listed,
            report.run.already_done,
            report.outcomes.get(Outcome.DEIDENTIFIED, 0),
            report.outcomes.get(Outcome.QUARANTINED, 0),
            report.outcomes.get(Outcome.FAILED, 0),
            report.bytes_in / 1e6,
            report.seconds,
        )
        # Kept in the log, it later proves that no newer event of the audit was deleted.
        self.log.info("Head of the audit: %s", report.audit_head)
        if report.archived:
            self.log.info("%d objects (%.1f MB) are in an archive tier.", report.archived, report.archived_bytes / 1e6)
        if report.lacking_terms:
            self.log.info(
                "%d objects were written before a name or an identifier of their patient was known; the next run "
                "processes them again.",
                report.lacking_terms,
            )
        if report.deleted_sources:
            self.log.warning(
                "%d released objects have lost their source object. The page of the run lists them; the DAG "
                "dicom_deid_withdraw withdraws them with the switch Deleted sources.",
                report.deleted_sources,
            )
        for code, count in sorted(report.reasons.items(), key=lambda each: -each[1]):
            advice = Reason(code).advice
            self.log.warning("  %6d  %s: %s %s", count, code, advice.meaning, advice.what_to_do)


def _nothing_listed(report: RunReport, source: str) -> list[str]:
    return [] if report.run.listed else [f"No object was listed at {source}: check the source and the prefix."]


def _lost_or_orphaned(differences: Mapping[str, int], destination: str) -> list[str]:
    found = ", ".join(f"{differences[name]} {name}" for name in ("lost", "changed", "orphan") if name in differences)
    if not found:
        return []
    command = f"dicom-deid audit reconcile {destination}"
    return [f"The destination differs from the audit ({found}): `{command}` lists the objects; --repair restores them."]


def _excess(report: RunReport, allowed: float) -> list[str]:
    quarantined = report.quarantine_ratio
    if quarantined <= allowed:
        return []
    return [f"{quarantined:.1%} of the objects were quarantined, more than the {allowed:.1%} that are accepted."]


def _counts(run_id: str, report: RunReport) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "page": run_page(run_id),
        "listed": report.run.listed,
        "already_done": report.run.already_done,
        "planned": report.run.planned,
        "deidentified": report.outcomes.get(Outcome.DEIDENTIFIED, 0),
        "quarantined": report.outcomes.get(Outcome.QUARANTINED, 0),
        "failed": report.outcomes.get(Outcome.FAILED, 0),
        "archived": report.archived,
        "archived_bytes": report.archived_bytes,
        "lacking_terms": report.lacking_terms,
        "deleted_sources": report.deleted_sources,
        "reasons": dict(report.reasons),
        "bytes_in": report.bytes_in,
        "bytes_out": report.bytes_out,
        "seconds": round(report.seconds, 3),
        "audit_head": report.audit_head,
    }
