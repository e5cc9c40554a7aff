"""Hook of the `dicom_deid` connection: project, recipe and keys."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from dicom_deid.airflow_compat import AirflowNotFoundException
from dicom_deid.exceptions import ConfigurationError, DicomDeidError
from dicom_deid.hooks.connections import get_connection

if TYPE_CHECKING:
    from dicom_deid.database import KeyRing

PROJECT_OPTIONS = ("org_root", "single_patient_id", "uid_strategy", "max_date_offset_days", "patient_key")
"""Connection fields that are options of the project, fixed when it is created."""


_USUAL_CONNECTIONS = ("dicom_deid_source", "dicom_deid_destination", "dicom_deid_database")


class DicomDeidHook(BaseHook):
    """Read a `dicom_deid` connection.

    The keys are the connection's password, so that Airflow masks and encrypts them.

    Parameters
    ----------
    deid_conn_id
        Id of the connection.
    """

    conn_name_attr = "deid_conn_id"
    default_conn_name = "dicom_deid_default"
    conn_type = "dicom_deid"
    hook_name = "DICOM de-identification"

    def __init__(self, deid_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deid_conn_id = deid_conn_id

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Fields of the connection form that have a value."""
        extra = get_connection(self.deid_conn_id, self.conn_type).extra_dejson
        known = ("project", "recipe", "database_schema", "quarantine_locations", *PROJECT_OPTIONS)
        return {name: extra[name] for name in known if extra.get(name) not in (None, "")}

    @property
    def project(self) -> str | None:
        """Project of tasks that name none."""
        return self.fields.get("project")

    @property
    def recipes(self) -> tuple[str, ...]:
        """Recipes of tasks that name none."""
        return _separated(self.fields.get("recipe", "desktop, devices"))

    @property
    def quarantine_locations(self) -> tuple[str, ...]:
        """Locations to which, and below which, tasks may copy quarantined originals."""
        return _separated(self.fields.get("quarantine_locations", ""))

    @property
    def database_schema(self) -> str:
        """PostgreSQL schema of the crosswalk and the audit."""
        return str(self.fields.get("database_schema", "dicom_deid"))

    @property
    def project_options(self) -> dict[str, Any]:
        """Project options, as fields of `RunConfiguration`."""
        options = {name: self.fields[name] for name in PROJECT_OPTIONS if name in self.fields}
        if "max_date_offset_days" in options:
            options["max_date_offset_days"] = int(options["max_date_offset_days"])
        return options

    def get_conn(self) -> KeyRing:
        """Return the keys of the crosswalk, which hash and encrypt original values.

        Raises
        ------
        ConfigurationError
            The connection has no keys, or they cannot be read.
        """
        from dicom_deid.database import KeyRing

        keys = get_connection(self.deid_conn_id, self.conn_type).password
        if not keys:
            raise ConfigurationError(
                f"The connection {self.deid_conn_id} has no keys: put what `dicom-deid crosswalk new-key` prints into "
                "its field Keys."
            )
        return KeyRing.parse(keys)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the package can work, and a message, for the connection form's test button.

        Keys and recipe are read. The connections of the stores and of the database are tried if they exist under their
        usual ids, since the test button of an `aws` connection asks AWS STS, which other stores do not have.
        """
        from dicom_deid.recipe import Recipe

        try:
            keys = self.get_conn()
            recipe = Recipe.resolve(*self.recipes)
            tried = [self._try(conn_id, keys) for conn_id in _USUAL_CONNECTIONS]
        except (DicomDeidError, ValueError) as error:
            return False, str(error)
        project = f"project {self.project}" if self.project else "no project: each task must name one"
        others = ", ".join(tried)
        return True, f"{project}; recipe {recipe.name}, {len(recipe.rules)} rules; keys are readable; {others}"

    def _try(self, conn_id: str, keys: KeyRing) -> str:
        """Connect to the store or database of a connection; return what was found."""
        from dicom_deid.database import Database
        from dicom_deid.hooks.aws import s3_connection
        from dicom_deid.hooks.postgres import database_url

        try:
            connection = BaseHook.get_connection(conn_id)
        except AirflowNotFoundException:
            return f"{conn_id} does not exist"
        if connection.conn_type == "postgres":
            with Database.connect(database_url(conn_id), schema=self.database_schema, keys=keys):
                return f"{conn_id} works"
        store = s3_connection(conn_id)
        if store is not None:
            store.check_credentials()
        return f"{conn_id} works"


def _separated(text: Any) -> tuple[str, ...]:
    return tuple(each.strip() for each in str(text).split(",") if each.strip())
