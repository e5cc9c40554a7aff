"""Base class of the operators: Airflow connections, and which errors are retried."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from dicom_deid.airflow_compat import AirflowFailException, AirflowSkipException, XComNotFound
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.links import RunPageLink

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

    from dicom_deid.objectstore import S3Connection
    from dicom_deid.pipeline.configuration import RunConfiguration
    from dicom_deid.pipeline.connections import Connections

NOTHING_PLANNED = "No run was planned: the planning task failed, was skipped or has not run; see its log."


class TooManyQuarantined(ConfigurationError):
    """More objects were quarantined than the report allows."""


class WorkLeft(ConfigurationError):
    """A run ended with planned objects that have no final outcome."""


class DicomDeidOperator(BaseOperator):
    """Base class of the operators: reads Airflow connections, and fails without retry where a retry cannot help.

    Parameters
    ----------
    source_conn_id, destination_conn_id, quarantine_conn_id
        Ids of `aws` connections. The quarantine uses the destination's connection if none is given. None uses the AWS
        environment variables.
    database_conn_id
        Id of the `postgres` connection of the mapping, the plan and the audit.
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
        super().__init__(**kwargs)
        self.source_conn_id = source_conn_id
        self.destination_conn_id = destination_conn_id
        self.quarantine_conn_id = quarantine_conn_id
        self.database_conn_id = database_conn_id
        self.deid_conn_id = deid_conn_id

    def execute(self, context: Context) -> Any:
        """Run the task.

        Raises
        ------
        AirflowFailException
            A retry cannot help: the configuration is wrong, an object must not be released, or the package has a
            fault. Object store and database errors are raised as they are, and retried as the task is configured.
        """
        try:
            return self.run_task(context)
        except (ConfigurationError, Quarantine) as error:
            raise AirflowFailException(str(error)) from error

    @abstractmethod
    def run_task(self, context: Context) -> Any:
        """Do the work of the operator."""

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Render the template fields; fail with a clear message if the planning task left no result."""
        try:
            super().render_template_fields(context, jinja_env)
        except XComNotFound:
            raise AirflowFailException(NOTHING_PLANNED) from None

    @cached_property
    def hook(self) -> DicomDeidHook:
        """The hook of the `dicom_deid` connection."""
        return DicomDeidHook(self.deid_conn_id)

    @cached_property
    def source_connection(self) -> S3Connection | None:
        """S3 connection of the source; None to use the AWS environment variables."""
        from dicom_deid.hooks.aws import s3_connection

        return s3_connection(self.source_conn_id)

    @cached_property
    def connections(self) -> Connections:
        """Database and object store credentials. They are never passed to another task."""
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
    """Return the id and the configuration of the run that the planning task pushed to XCom.

    Raises
    ------
    ConfigurationError
        The planning task pushed nothing.
    AirflowSkipException
        The planning task planned nothing on purpose, such as for a preview.
    """
    from dicom_deid.pipeline.configuration import RunConfiguration

    if not run:
        raise ConfigurationError(NOTHING_PLANNED)
    if "skip" in run:
        raise AirflowSkipException(run["skip"])
    return run["run_id"], RunConfiguration.from_mapping(run["configuration"])
