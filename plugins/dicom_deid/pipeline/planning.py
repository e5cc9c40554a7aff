"""What a run has to do, cut into batches; and what it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dicom_deid.database import PlanSummary, RunReport, RunRequest, RunState
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.engine import make_deidentifier


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that may begin.

    Parameters
    ----------
    run_id
        Its identifier in the store.
    summary
        What was listed and planned, with a reference a batch.
    """

    run_id: str
    summary: PlanSummary


def plan_run(configuration: RunConfiguration, connections: Connections) -> PlannedRun:
    """List the source, leave out what was done under the same rules, and cut the rest into batches.

    The schema and the project are made on first use. The recipe is compiled and all storages are checked first, so that
    what cannot work stops before the first object.

    Parameters
    ----------
    configuration
        The run. Planned again under its `external_id`, it is the same run, and batches that no worker has begun are
        planned anew.
    connections
        How to reach database and storages.

    Raises
    ------
    ConfigurationError
        A retry will not help: recipe, missing bucket, refused keys, overlapping places.
    ObjectStoreError, DatabaseError
        Storage or database are away; a retry may help.
    """
    deidentifier = make_deidentifier(configuration)
    with connections.open(configuration) as (database, object_stores):
        database.upgrade()
        database.project(configuration.project, configuration.project_options)
        request = RunRequest(
            project=configuration.project,
            source=object_stores.source.url,
            destination=object_stores.destination.url,
            recipe_name=deidentifier.recipe.name,
            recipe_digest=deidentifier.recipe.digest,
            settings_digest=configuration.digest,
            triggered_by=configuration.triggered_by,
            reason=configuration.reason,
            parameters=_parameters(configuration),
            airflow=dict(configuration.airflow_context),
            external_id=configuration.external_id,
        )
        run_id = database.start_run(request)
        summary = database.plan(
            run_id,
            object_stores.source.list(),
            max_batches=configuration.max_batches,
            batch_objects=configuration.batch_objects,
            batch_bytes=configuration.batch_bytes,
            limit=configuration.limit,
            newer_than=configuration.after,
            older_than=configuration.before,
            retry_quarantined=configuration.retry_quarantined,
        )
    return PlannedRun(run_id, summary)


def report_run(connections: Connections, *, run_id: str, state: RunState | None = None) -> RunReport:
    """Return the totals of a run.

    Parameters
    ----------
    connections
        How to reach the database.
    run_id
        What `plan_run` returned.
    state
        Ends the run in this state first, which puts its totals into the audit; None leaves it as it is.
    """
    with connections.open_database() as database:
        if state is not None:
            database.finish_run(run_id, state)
        return database.report(run_id)


_TOLD_APART = frozenset(
    {"source", "destination", "project", "triggered_by", "reason", "airflow_context", "external_id"}
)


def _parameters(configuration: RunConfiguration) -> dict[str, object]:
    """Return what of the configuration the request does not say in a field of its own."""
    return {name: value for name, value in asdict(configuration).items() if name not in _TOLD_APART}
