"""What a run has to do, cut into batches; and what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from dicom_deid.database import Database, PlanSummary, RunReport, RunRequest, RunState
from dicom_deid.database.projects import open_key
from dicom_deid.database.quarantine import list_decided_objects, project_rules
from dicom_deid.objects import SourceObject
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
    configuration
        The configuration for the batches: it holds the device rules of the project.
    """

    run_id: str
    summary: PlanSummary
    configuration: RunConfiguration


def plan_run(
    configuration: RunConfiguration,
    connections: Connections,
    *,
    create_project: bool = True,
    list_objects: Callable[[Database], Iterable[SourceObject]] | None = None,
) -> PlannedRun:
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
    create_project
        Create the project if it does not exist.
    list_objects
        Returns the objects to plan; None to list the source.

    Raises
    ------
    ConfigurationError
        A retry will not help: recipe, missing bucket, refused keys, overlapping places.
    ObjectStoreError, DatabaseError
        Storage or database are away; a retry may help.
    """
    make_deidentifier(configuration)
    with connections.open(configuration) as (database, object_stores):
        database.upgrade()
        database.project(configuration.project, configuration.project_options, create=create_project)
        configuration = configuration.replace(project_rules=project_rules(database.connection, configuration.project))
        deidentifier = make_deidentifier(configuration)
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
            object_stores.source.list() if list_objects is None else list_objects(database),
            max_batches=configuration.max_batches,
            batch_objects=configuration.batch_objects,
            batch_bytes=configuration.batch_bytes,
            limit=configuration.limit,
            newer_than=configuration.after,
            older_than=configuration.before,
            retry_quarantined=configuration.retry_quarantined,
        )
    return PlannedRun(run_id, summary, configuration)


def plan_review(connections: Connections, run_id: str, **changes: Any) -> PlannedRun:
    """Plan the objects that reviewers have decided about, with the configuration of the run that held them.

    Parameters
    ----------
    connections
        How to reach database and storages.
    run_id
        The run; decided objects of other runs from the same source to the same destination are planned too.
    changes
        Fields of the configuration that differ: who triggered the review and why.

    Raises
    ------
    ConfigurationError
        There is no such run, or its recipe is not found any more.
    """
    with connections.open_database() as database:
        request = database.run(run_id).request
    known = {each.name for each in fields(RunConfiguration)}
    parameters = {name: value for name, value in request.parameters.items() if name in known}
    whole = {"limit": None, "newer_than": None, "older_than": None, "retry_quarantined": True}
    places = {"source": request.source, "destination": request.destination, "project": request.project}
    configuration = RunConfiguration.from_mapping({**parameters, **whole, **places, **changes})

    def decided(database: Database) -> Iterator[SourceObject]:
        project = database.project(request.project, create=False)
        for each in list_decided_objects(database.connection, run_id):
            key = open_key(project, each.key_hash, each.encrypted_key)
            yield SourceObject(key, each.size, each.etag, each.recorded_at, each.version_id)

    return plan_run(configuration, connections, list_objects=decided)


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
