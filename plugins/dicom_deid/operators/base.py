"""What all operators share: the connections by their ids, and which errors are worth a retry."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowSkipException, XComNotFound

from dicom_deid.exceptions import ConfigurationError, ProgramAtFault
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.links import RunPageLink

if TYPE_CHECKING:
    from dicom_deid.objectstore import S3Connection
    from dicom_deid.pipeline.configuration import RunConfiguration
    from dicom_deid.pipeline.connections import Connections


class TooManyQuarantined(ConfigurationError):
    """More objects were quarantined than the report allows."""


class WorkLeft(ConfigurationError):
    """A run ended with objects that were planned and are not done."""


RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=ConfigurationError,
            action=RetryAction.FAIL,
            reason="What was asked cannot be done as it stands; a retry would not help.",
        ),
        RetryRule(
            exception=ProgramAtFault,
            action=RetryAction.FAIL,
            reason="The program is at fault, and would be again.",
        ),
        RetryRule(
            exception=XComNotFound,
            action=RetryAction.FAIL,
            reason="Nothing was planned: look at the task that plans the run.",
        ),
    ]
)
"""What a retry would not help fails at once; storage and database errors are retried as the task says."""


class DicomDeidOperator(BaseOperator):
    """Base of the operators: reads Airflow's connections and nothing else.

    Parameters
    ----------
    source_conn_id, destination_conn_id, quarantine_conn_id
        Ids of `aws` connections; the quarantine's is the destination's if not given. None reads the AWS environment
        variables.
    database_conn_id
        Id of the `postgres` connection of mapping, plan and audit.
    deid_conn_id
        Id of the `dicom_deid` connection: project, recipe and keys.
    """

    operator_extra_links = (RunPageLink(),)

    def __init__(
        self,
        *,
        source_conn_id: str | None = "dicom_deid_source",
        destination_conn_id: str | None = "dicom_deid_destination",
        quarantine_conn_id: str | None = None,
        database_conn_id: str = "dicom_deid_database",
        deid_conn_id: str = DicomDeidHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RETRY_POLICY)
        super().__init__(**kwargs)
        self.source_conn_id = source_conn_id
        self.destination_conn_id = destination_conn_id
        self.quarantine_conn_id = quarantine_conn_id
        self.database_conn_id = database_conn_id
        self.deid_conn_id = deid_conn_id

    @cached_property
    def hook(self) -> DicomDeidHook:
        """The `dicom_deid` connection."""
        return DicomDeidHook(self.deid_conn_id)

    @cached_property
    def source_connection(self) -> S3Connection | None:
        """How to reach the source, None where the AWS environment variables say it."""
        from dicom_deid.hooks.aws import s3_connection

        return s3_connection(self.source_conn_id)

    @cached_property
    def connections(self) -> Connections:
        """How to reach database and storages; never handed to another task."""
        from dicom_deid.hooks.aws import s3_connection
        from dicom_deid.hooks.postgres import database_url
        from dicom_deid.pipeline.connections import Connections

        return Connections(
            database=database_url(self.database_conn_id),
            keys=self.hook.get_conn(),
            schema=self.hook.database_schema,
            source=self.source_connection,
            destination=s3_connection(self.destination_conn_id),
            quarantine=s3_connection(self.quarantine_conn_id or self.destination_conn_id),
        )


def planned_run(run: Mapping[str, Any] | None) -> tuple[str, RunConfiguration]:
    """Return the run's id and configuration as the planning task handed them over.

    Raises
    ------
    ConfigurationError
        Nothing was handed over: the planning task failed or did not run.
    AirflowSkipException
        It was a dry run.
    """
    from dicom_deid.pipeline.configuration import RunConfiguration

    if not run:
        raise ConfigurationError("Nothing was planned: look at the task that plans the run.")
    if run.get("dry_run"):
        raise AirflowSkipException("A dry run: its report is in the log of the task that plans.")
    return run["run_id"], RunConfiguration.from_mapping(run["configuration"])
