"""Plan a run, and report its totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from typing import Any

from dicom_deid.database import AccessReason, Database, PlanSummary, RunReport, RunRequest, RunState
from dicom_deid.database.archive_words import take_snapshot
from dicom_deid.database.quarantine import list_decided_objects, pending_decisions, project_rules
from dicom_deid.database.runs import find_request
from dicom_deid.database.source_index import CohortAnswer, record_answers
from dicom_deid.database.text_layouts import layout_rules
from dicom_deid.engine.pixels import LEARNED
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore.containers import note_unread
from dicom_deid.pipeline.cohort import import_pseudonyms, match_cohort
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.engine import amend, make_deidentifier


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A planned run.

    Parameters
    ----------
    run_id
        Identifier of the run in the database.
    summary
        Counts of the plan, with one reference per batch.
    configuration
        The configuration for the batches: it holds the patient key and the device rules of the project.
    cohort
        The answer to each line of the cohort list.
    """

    run_id: str
    summary: PlanSummary
    configuration: RunConfiguration
    cohort: tuple[CohortAnswer, ...] = ()


def plan_run(
    configuration: RunConfiguration,
    connections: Connections,
    *,
    create_project: bool = True,
    list_objects: Callable[[Database], Iterable[SourceObject]] | None = None,
) -> PlannedRun:
    """List the source, skip what was done with the same recipe and settings, and cut the rest into batches.

    The schema and the project are created on first use. The recipe is compiled and all object stores are checked first,
    so that a run that cannot work fails before the first object.

    Parameters
    ----------
    configuration
        The run. Planned again with the same `external_id`, it is the same run, and batches that no worker has started
        are planned again.
    connections
        Database and object store credentials.
    create_project
        Create the project if it does not exist.
    list_objects
        Returns the objects to plan; None to list the source.

    Raises
    ------
    ConfigurationError
        A retry does not help: the recipe, a missing bucket, refused credentials, overlapping source and destination.
    ObjectStoreError, DatabaseError
        The object store or the database is unavailable; a retry may help.
    """
    make_deidentifier(configuration)
    with connections.open(configuration) as (database, object_stores), ExitStack() as resources:
        database.upgrade()
        project = database.project(configuration.project, configuration.project_options, create=create_project)
        configuration = configuration.replace(
            patient_key=project.options.patient_key, archive_words=_snapshot_of_words(database, configuration)
        )
        configuration, work_digest = _with_project_rules(database, configuration)
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
            airflow_context=dict(configuration.airflow_context),
            external_id=configuration.external_id,
            work_digest=work_digest,
        )
        database.store_recipe(deidentifier.recipe.digest, deidentifier.recipe.name, str(deidentifier.recipe))
        run_id = database.start_run(request)
        # A run that is planned again keeps its words.
        words = str(database.run(run_id).request.parameters.get("archive_words", ""))
        configuration = configuration.replace(archive_words=words)
        answers: tuple[CohortAnswer, ...] = ()
        listing: Iterable[SourceObject]
        unread: list[str] = []
        if list_objects is not None:
            listing = list_objects(database)
        else:
            cohort = resources.enter_context(match_cohort(configuration, connections))
            if cohort is None:
                listing = note_unread(object_stores.source.list(), unread)
            else:
                access = AccessReason(
                    person=configuration.triggered_by or "unknown", reason=f"cohort list of run {run_id}"
                )
                import_pseudonyms(database, project, cohort.lines, access)
                record_answers(database.connection, run_id, cohort.answers)
                answers, listing = tuple(cohort.answers), cohort.objects
        summary = database.plan(
            run_id,
            listing,
            max_batches=configuration.max_batches,
            batch_objects=configuration.batch_objects,
            batch_bytes=configuration.batch_bytes,
            limit=configuration.limit,
            newer_than=configuration.after,
            older_than=configuration.before,
            retry_quarantined=configuration.retry_quarantined,
            on_change=configuration.on_change,
            selection=configuration.selection.digest,
            is_whole_listing=list_objects is None and configuration.cohort is None,
            restores_archived=configuration.restore == "request",
            unread_prefixes=unread,
        )
    return PlannedRun(run_id, summary, configuration, answers)


def _snapshot_of_words(database: Database, configuration: RunConfiguration) -> str:
    if configuration.settings.free_text != "vocabulary":
        return ""
    project = database.project(configuration.project)
    return take_snapshot(database.connection, project, patients=configuration.word_patients)


def _with_project_rules(database: Database, configuration: RunConfiguration) -> tuple[RunConfiguration, str]:
    """Return the configuration with the device rules and learned layouts of its project, and the digest of the work.

    A run that is planned again keeps those that it was first planned with, whatever was decided or learned meanwhile.
    """
    if configuration.external_id is not None:
        earlier = find_request(database.connection, configuration.external_id)
        if earlier is not None:
            rules = str(earlier.parameters.get("project_rules", ""))
            return configuration.replace(project_rules=rules), earlier.work_digest
    decided = project_rules(database.connection, configuration.project)
    configuration = configuration.replace(project_rules=decided)
    if configuration.settings.pixel_risk != "ocr":
        return configuration, ""
    objects = configuration.settings.layout_objects
    learned = layout_rules(database.connection, configuration.project, objects, LEARNED)
    if not learned:
        return configuration, ""
    # Objects that were searched for text are done, whichever layouts were learned then.
    work_digest = f"{make_deidentifier(configuration).recipe.digest} {configuration.digest}"
    return configuration.replace(project_rules=f"{decided}{learned}"), work_digest


def configuration_of_run(database: Database, run_id: str) -> RunConfiguration:
    """Return the configuration of an earlier run.

    Raises
    ------
    ConfigurationError
        There is no such run.
    """
    request = database.run(run_id).request
    known = {each.name for each in fields(RunConfiguration)}
    parameters = {name: value for name, value in request.parameters.items() if name in known}
    places = {"source": request.source, "destination": request.destination, "project": request.project}
    return RunConfiguration.from_mapping({**parameters, **places})


def plan_review(connections: Connections, run_id: str, **changes: Any) -> PlannedRun:
    """Plan the objects that reviewers have decided about, with the configuration of the run that held them.

    Parameters
    ----------
    connections
        Database and object store credentials.
    run_id
        The run; decided objects of other runs from the same source to the same destination are planned too.
    changes
        Fields of the configuration that differ: who triggered the review and why.

    Raises
    ------
    ConfigurationError
        There is no such run, its recipe is not found any more, or a decision needs an extra that is not installed.
    """
    with connections.open_database() as database:
        request = database.run(run_id).request
        configuration = configuration_of_run(database, run_id)
        for decision in pending_decisions(database.connection, run_id):
            make_deidentifier(amend(configuration, decision))
    whole = {"limit": None, "newer_than": None, "older_than": None, "retry_quarantined": True}

    def decided(database: Database) -> Iterable[SourceObject]:
        project = database.project(request.project, create=False)
        return (held.source_object(project) for held in list_decided_objects(database.connection, run_id))

    return plan_run(configuration.replace(**whole, **changes), connections, list_objects=decided)


def report_run(connections: Connections, *, run_id: str, state: RunState | None = None) -> RunReport:
    """Return the totals of a run.

    Parameters
    ----------
    connections
        Database credentials.
    run_id
        As returned by `plan_run`.
    state
        Finish the run in this state first, which records its totals in the audit; None leaves the run open.
    """
    with connections.open_database() as database:
        if state is not None:
            database.finish_run(run_id, state)
        return database.report(run_id)


_FIELDS_OF_REQUEST = frozenset(
    {"source", "destination", "project", "triggered_by", "reason", "airflow_context", "external_id"}
)


def _parameters(configuration: RunConfiguration) -> dict[str, object]:
    """Return the fields of the configuration that are not fields of `RunRequest`."""
    return {name: value for name, value in asdict(configuration).items() if name not in _FIELDS_OF_REQUEST}
