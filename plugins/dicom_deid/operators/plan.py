"""Plan a run: list the source, skip objects that are done, and cut the rest into batches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dicom_deid.links import PREVIEW_KEY, RunPageLink
from dicom_deid.operators.arguments import (
    LIMIT_MAXIMUM,
    boolean,
    check_conf,
    location,
    quarantine_location,
    whole_number,
)
from dicom_deid.operators.base import DicomDeidOperator
from dicom_deid.operators.forms import SETTINGS
from dicom_deid.operators.lineage import run_lineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from dicom_deid.database import PlanSummary
    from dicom_deid.objects import SourceObject
    from dicom_deid.pipeline.configuration import RunConfiguration

SAMPLE = 10
"""Objects per modality that a preview reads."""


class DicomPlanOperator(DicomDeidOperator):
    """Plan a run and return one small reference per batch, to map `DicomDeidentifyOperator` over.

    The run is pushed as XCom `run` for the later tasks. Keys of objects stay in the database.

    Parameters
    ----------
    source, destination
        ``s3://bucket/prefix``, or an absolute path that every worker can read.
    prefix
        Only objects whose keys start with this, below the source.
    quarantine
        Where copies of quarantined originals are written: one of the *Quarantine locations* of the `dicom_deid`
        connection, or below one; never in the destination's bucket.
    project, recipes
        Default: those of the `dicom_deid` connection. A recipe is the name of a shipped recipe or a path.
        A text may name several, separated by commas.
    create_project
        Create the project if it does not exist; otherwise a name that does not exist is an error.
    patient_key
        Whether a PatientID identifies a patient of the project alone (`id`), or with its issuer (`id-and-issuer`).
        Default: that of the project or, for a new one, of the connection.
    profile_options
        Options of PS3.15, such as ``clean-descriptors``, with the recipe ``ps3.15-basic``.
    settings
        Fields of `Settings` that differ from their defaults.
    cohort
        ``s3://bucket/key`` or path of a cohort list, which is read with the source's connection: only objects that it
        names are planned, from the index of the source (see `DicomIndexOperator`).
    select, exclude
        Lines of criteria in the language of `%filter`: only objects for which every line of `select` and no line of
        `exclude` holds are de-identified; the others get the outcome `excluded`.
    limit
        Maximum number of objects.
    newer_than, older_than
        ISO 8601 instants: only objects last modified at or after the first and before the second.
    reason
        Reason for the run, recorded in the audit with the user who triggered it.
    retry_quarantined
        Also plan objects that were quarantined under the same rules before.
    preview
        Dry run: report what the rules would do to a sample, and plan nothing.
    options
        Other fields of `RunConfiguration`.
    skip_scheduled
        Skip runs that the schedule starts: the DAG runs as a backfill or when it is triggered.
    settle_seconds
        Only plan objects in whose folder nothing was modified for so long, so that studies are complete.
    """

    template_fields: Sequence[str] = (
        "source",
        "prefix",
        "destination",
        "quarantine",
        "project",
        "create_project",
        "patient_key",
        "recipes",
        "profile_options",
        "settings",
        "cohort",
        "select",
        "exclude",
        "limit",
        "newer_than",
        "older_than",
        "reason",
        "retry_quarantined",
        "preview",
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
        create_project: bool = False,
        patient_key: str | None = None,
        recipes: str | Sequence[str] | None = None,
        profile_options: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        cohort: str | None = None,
        select: str | None = None,
        exclude: str | None = None,
        limit: int | None = None,
        newer_than: str | None = None,
        older_than: str | None = None,
        reason: str | None = None,
        retry_quarantined: bool = False,
        preview: bool = False,
        options: Mapping[str, Any] | None = None,
        skip_scheduled: bool = False,
        settle_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.prefix = prefix
        self.destination = destination
        self.quarantine = quarantine
        self.project = project
        self.create_project = create_project
        self.patient_key = patient_key
        self.recipes = recipes
        self.profile_options = profile_options
        self.settings = settings
        self.cohort = cohort
        self.select = select
        self.exclude = exclude
        self.limit = limit
        self.newer_than = newer_than
        self.older_than = older_than
        self.reason = reason
        self.retry_quarantined = retry_quarantined
        self.preview = preview
        self.options = options
        self.skip_scheduled = skip_scheduled
        self.settle_seconds = settle_seconds

    def run_task(self, context: Context) -> list[dict[str, Any]]:
        """Plan the run and return one reference per batch.

        Raises
        ------
        ConfigurationError
            Recipe, connections or parameters are wrong.
        ObjectStoreError, DatabaseError
            The object store or the database is unavailable; a retry plans again.
        """
        from dicom_deid.pipeline.planning import plan_run
        from dicom_deid.pipeline.sample import describe_sample
        from dicom_deid.pipeline.withdrawal import withdraw_deleted_sources

        check_conf(context)
        if self.skip_scheduled and _run_type(context) == "scheduled":
            return self._plan_nothing(context, "The schedule started this run: start a backfill, or trigger the DAG.")
        configuration = self.configuration(context)
        self._log_configuration(configuration)
        if boolean("preview", self.preview):
            report = self._sample(configuration, SAMPLE)
            context["ti"].xcom_push(key=PREVIEW_KEY, value=report)
            for line in describe_sample(report):
                self.log.info(line)
            return self._plan_nothing(
                context, "Preview only: the report is in the tab De-identification of the DAG run, and in this log."
            )
        settles = self.settle_seconds is not None
        if settles and next(self._settled_objects(configuration), None) is None:
            return self._plan_nothing(context, "No object has settled.")
        create_project = boolean("create_project", self.create_project)
        planned = plan_run(
            configuration,
            self.connections,
            create_project=create_project,
            list_objects=(lambda _: self._settled_objects(configuration)) if settles else None,
        )
        self._log_summary(planned.summary)
        for status, count in Counter(answer.status for answer in planned.cohort).items():
            self.log.info("  lines of the cohort list %s: %d", status, count)
        withdrawn = withdraw_deleted_sources(self.connections, planned)
        if withdrawn:
            self.log.info("  %d released objects were withdrawn because their source objects are gone", withdrawn)
        run = {"run_id": planned.run_id, "configuration": json.loads(planned.configuration.to_json())}
        context["ti"].xcom_push(key="run", value=run)
        RunPageLink.persist(context, self, planned.run_id)
        return [{"batch_id": batch.batch_id, "label": batch.label} for batch in planned.summary.batches]

    def _settled_objects(self, configuration: RunConfiguration) -> Iterator[SourceObject]:
        from dicom_deid.objectstore import open_source
        from dicom_deid.pipeline.arrivals import settled_objects

        before = datetime.now(UTC) - timedelta(seconds=float(self.settle_seconds or 0))
        source = open_source(configuration.source, self.source_connection)
        return settled_objects(source.list(), before)

    def _sample(
        self, configuration: RunConfiguration, wanted: int, other: RunConfiguration | None = None
    ) -> dict[str, Any]:
        """Return the report of a sample of the source, or of the objects of the cohort list."""
        from dicom_deid.pipeline.cohort import match_cohort
        from dicom_deid.pipeline.sample import preview_sample

        if configuration.cohort is None:
            return preview_sample(configuration, self.source_connection, wanted=wanted, other=other)
        with match_cohort(configuration, self.connections) as cohort:
            listing = cohort and cohort.objects
            return preview_sample(configuration, self.source_connection, wanted=wanted, other=other, listing=listing)

    def _plan_nothing(self, context: Context, why: str) -> list[dict[str, Any]]:
        """Let the other tasks skip, which map over no batch."""
        self.log.info("%s", why)
        context["ti"].xcom_push(key="run", value={"skip": why})
        return []

    def configuration(self, context: Context) -> RunConfiguration:
        """Return the configuration made of the parameters, the connection and the Airflow run.

        Raises
        ------
        ConfigurationError
            A parameter is missing or wrong.
        """
        from dicom_deid.pipeline.configuration import RunConfiguration
        from dicom_deid.pipeline.recipes import recipes_and_settings

        given = {
            "quarantine": quarantine_location(self.quarantine, self.hook) if self.quarantine else None,
            "patient_key": self.patient_key,
            "cohort": self.cohort,
            "select": self.select,
            "exclude": self.exclude,
            "limit": whole_number("limit", self.limit, maximum=LIMIT_MAXIMUM),
            "newer_than": self.newer_than,
            "older_than": self.older_than,
            "retry_quarantined": boolean("retry_quarantined", self.retry_quarantined) or None,
        }
        return RunConfiguration.from_mapping(
            {
                **self.hook.project_options,
                **(self.options or {}),
                **{name: value for name, value in given.items() if value not in (None, "")},
                "source": location("source", self.source) and self._source_url,
                "destination": location("destination", self.destination),
                "project": self.project or self.hook.project or "",
                **recipes_and_settings(self._recipes, self.profile_options, self.settings),
                "reason": self.reason or "",
                **airflow_run(context),
            }
        )

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return source and destination."""
        return run_lineage(self._source_url, None if self.preview else self.destination)

    @property
    def _source_url(self) -> str:
        return f"{self.source.rstrip('/')}/{self.prefix}" if self.prefix else self.source

    @property
    def _recipes(self) -> tuple[str, ...]:
        if not self.recipes:
            return self.hook.recipes
        named = self.recipes.split(",") if isinstance(self.recipes, str) else self.recipes
        return tuple(name.strip() for name in named)

    def _log_configuration(self, configuration: RunConfiguration) -> None:
        self.log.info("Source %s, destination %s.", configuration.source, configuration.destination)
        ids = {
            "source": self.source_conn_id,
            "destination": self.destination_conn_id,
            "database": self.database_conn_id,
            "keys": self.deid_conn_id,
        }
        self.log.info("Connections: %s.", ", ".join(f"{use} {conn_id}" for use, conn_id in ids.items()))
        self.log.info("Project %s, recipe %s.", configuration.project, " + ".join(configuration.recipes))
        policies = ", ".join(f"{name} {getattr(configuration.settings, name)}" for name in SETTINGS)
        self.log.info("Policies: %s.", policies)

    def _log_summary(self, summary: PlanSummary) -> None:
        self.log.info(
            "Listed %d objects: %d already done, %d planned (%.1f MB) in %d batches.",
            summary.listed,
            summary.already_done,
            summary.planned,
            summary.bytes / 1e6,
            len(summary.batches),
        )
        if summary.archived:
            self.log.info(
                "%d objects (%.1f MB) are in an archive tier.", summary.archived, summary.archived_bytes / 1e6
            )
        for why, count in sorted(summary.why.items()):
            self.log.info("  %s: %d", why, count)
        for why, count in sorted(summary.superseding.items()):
            self.log.info("  of which to be replaced, because of %s: %d", why, count)


def airflow_run(context: Context) -> dict[str, Any]:
    """Return the user and the Airflow run; a planning task that is retried continues the same run."""
    instance, dag_run = context["ti"], context["dag_run"]
    airflow_context = {"dag_id": instance.dag_id, "run_id": instance.run_id, "run_type": _run_type(context)}
    return {
        "triggered_by": getattr(dag_run, "triggering_user_name", None) or "",
        "airflow_context": airflow_context,
        "external_id": f"{instance.dag_id}/{instance.run_id}/{instance.task_id}",
    }


def _run_type(context: Context) -> str:
    """Return the type of the DAG run as a plain word, such as ``manual``."""
    run_type = context["dag_run"].run_type
    return str(getattr(run_type, "value", run_type))
