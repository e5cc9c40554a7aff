"""The first task of a run: list, leave out what is done, cut the rest into batches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dicom_deid.links import RunPageLink
from dicom_deid.operators.base import DicomDeidOperator
from dicom_deid.operators.lineage import between
from dicom_deid.operators.sampling import preview

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.database import PlanSummary
    from dicom_deid.pipeline.configuration import RunConfiguration

_SAMPLE = 10
"""Objects of each modality that a dry run looks at."""


class DicomPlanOperator(DicomDeidOperator):
    """Plans a run and returns a small reference a batch, to map `DicomDeidentifyOperator` over.

    The run itself goes to the later tasks as XCom `run`. No key of an object leaves the database.

    Parameters
    ----------
    source, destination
        ``s3://bucket/prefix`` or a directory that every worker sees.
    prefix
        Goes on where the source ends.
    quarantine
        Where copies of quarantined originals go; never in the destination's bucket.
    project, recipes
        Those of the `dicom_deid` connection if not given. A recipe is the name of one that ships, or a path.
    profile_options
        Options of PS3.15, such as ``clean-descriptors``, with the recipe ``ps3.15-basic``.
    settings
        Fields of `Settings` that differ from their defaults.
    limit
        At most so many objects.
    newer_than, older_than
        ISO 8601 instants: objects last modified at or after the first, and before the second.
    reason
        Why, for the audit. Who is the user that triggered the run.
    only_preview
        Report what the rules would do to a sample, and plan nothing.
    options
        Further fields of `RunConfiguration`.
    """

    template_fields: Sequence[str] = (
        "source",
        "prefix",
        "destination",
        "quarantine",
        "project",
        "recipes",
        "profile_options",
        "settings",
        "limit",
        "newer_than",
        "older_than",
        "reason",
        "only_preview",
        "options",
    )
    ui_color = "#e8f1fb"

    def __init__(
        self,
        *,
        source: str,
        destination: str,
        prefix: str | None = None,
        quarantine: str | None = None,
        project: str | None = None,
        recipes: str | Sequence[str] | None = None,
        profile_options: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        limit: int | None = None,
        newer_than: str | None = None,
        older_than: str | None = None,
        reason: str | None = None,
        only_preview: bool = False,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.prefix = prefix
        self.destination = destination
        self.quarantine = quarantine
        self.project = project
        self.recipes = recipes
        self.profile_options = profile_options
        self.settings = settings
        self.limit = limit
        self.newer_than = newer_than
        self.older_than = older_than
        self.reason = reason
        self.only_preview = only_preview
        self.options = options

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Plan the run.

        Raises
        ------
        ConfigurationError
            Recipe, connections or parameters are wrong; not retried.
        ObjectStoreError, DatabaseError
            Storage or database are away; a retry plans again.
        """
        from dicom_deid.pipeline.planning import plan_run

        configuration = self.configuration(context)
        if self.only_preview:
            preview(self.log, configuration, self.source_connection, wanted=_SAMPLE)
            context["ti"].xcom_push(key="run", value={"dry_run": True})
            return []
        planned = plan_run(configuration, self.connections)
        self._tell(planned.summary)
        run = {"run_id": planned.run_id, "configuration": json.loads(planned.configuration.to_json())}
        context["ti"].xcom_push(key="run", value=run)
        RunPageLink.persist(context, self, planned.run_id)
        return [{"batch_id": batch.batch_id, "label": batch.label} for batch in planned.summary.batches]

    def configuration(self, context: Context) -> RunConfiguration:
        """Return the run's configuration, of the parameters, the connection and the Airflow run.

        Raises
        ------
        ConfigurationError
            A parameter is missing or wrong.
        """
        from dicom_deid.pipeline.configuration import RunConfiguration
        from dicom_deid.pipeline.recipes import recipes_and_settings

        given = {
            "quarantine": self.quarantine,
            "limit": self.limit,
            "newer_than": self.newer_than,
            "older_than": self.older_than,
        }
        return RunConfiguration.from_mapping(
            {
                **self.hook.project_options,
                **(self.options or {}),
                **{name: value for name, value in given.items() if value not in (None, "")},
                "source": self._place,
                "destination": self.destination,
                "project": self.project or self.hook.project or "",
                **recipes_and_settings(self._recipes, self.profile_options, self.settings),
                "reason": self.reason or "",
                **_who_and_where(context),
            }
        )

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the places that the run reads and writes."""
        return between(self._place, None if self.only_preview else self.destination)

    @property
    def _place(self) -> str:
        return f"{self.source.rstrip('/')}/{self.prefix}" if self.prefix else self.source

    @property
    def _recipes(self) -> tuple[str, ...]:
        if not self.recipes:
            return self.hook.recipes
        return (self.recipes,) if isinstance(self.recipes, str) else tuple(self.recipes)

    def _tell(self, summary: PlanSummary) -> None:
        self.log.info(
            "Listed %d objects: %d done before, %d to do (%.1f MB) in %d batches.",
            summary.listed,
            summary.already_done,
            summary.planned,
            summary.bytes / 1e6,
            len(summary.batches),
        )
        for why, count in sorted(summary.why.items()):
            self.log.info("  %s: %d", why, count)


def _who_and_where(context: Context) -> dict[str, Any]:
    """Return who asked and which Airflow run it is; planned again, the same Airflow run goes on with the same run."""
    instance, dag_run = context["ti"], context["dag_run"]
    airflow_context = {"dag_id": instance.dag_id, "run_id": instance.run_id, "run_type": str(dag_run.run_type)}
    return {
        "triggered_by": getattr(dag_run, "triggering_user_name", None) or "",
        "airflow_context": airflow_context,
        "external_id": f"{instance.dag_id}/{instance.run_id}/{instance.task_id}",
    }
