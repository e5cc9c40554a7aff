"""Start DAG runs from the pages, and show the trigger form of a DAG filled in.

Airflow's own form cannot be opened with values: in Airflow 3.1 to 3.3 it has no address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow.sdk import Param
from fastapi import HTTPException
from starlette.datastructures import FormData

from dicom_deid.airflow_compat import ParamValidationError


class FormField(NamedTuple):
    """One param of a DAG, as a field of its form.

    Parameters
    ----------
    name
        Name of the param.
    value
        The value that the form shows.
    schema
        JSON schema of the param, with title, description and section.
    """

    name: str
    value: Any
    schema: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The name that people see."""
        return str(self.schema.get("title", self.name))

    @property
    def types(self) -> list[str]:
        """The JSON types that the param takes."""
        types = self.schema.get("type", "string")
        return [types] if isinstance(types, str) else list(types)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """The values to choose from and their words; the empty one is None."""
        words = self.schema.get("values_display", {})
        values = self.schema.get("enum", self.schema.get("examples", []))
        return [("" if value is None else str(value), words.get(value, value or "")) for value in values]

    def allows(self, value: object) -> bool:
        """Return whether a value is one of the param."""
        try:
            Param(**self.schema).resolve(value)
        except ParamValidationError:
            return False
        return True

    def sent(self, form: FormData) -> object:
        """Return the value that was sent with a form; text that is no number is left as it is."""
        if "boolean" in self.types:
            return self.name in form
        if "array" in self.types:
            return form.getlist(self.name) or None
        text = "\n".join(str(form.get(self.name, "")).split("\r\n")).strip()
        if not text and "null" in self.types:
            return None
        for kind, read in (("integer", int), ("number", float)):
            if kind in self.types:
                try:
                    return read(text)
                except ValueError:
                    break
        return text


def form_sections(dag_id: str, values: Mapping[str, object]) -> dict[str, list[FormField]]:
    """Return the fields of a DAG's form by section; those without a section come first.

    Parameters
    ----------
    values
        Values that replace the defaults of params.

    Raises
    ------
    HTTPException
        409 if there is no such DAG.
    """
    from airflow.models.serialized_dag import SerializedDagModel

    dag = SerializedDagModel.get_dag(dag_id)
    if dag is None:
        raise _no_such_dag(dag_id)
    sections: dict[str, list[FormField]] = {"": []}
    for name in dag.params:
        spec = dag.params.get_param(name).dump()
        default = spec["value"] if isinstance(spec["value"], str | int | float | list) else None
        field = FormField(name, values.get(name, default), spec["schema"])
        sections.setdefault(field.schema.get("section", ""), []).append(field)
    return sections


def _no_such_dag(dag_id: str) -> HTTPException:
    return HTTPException(409, f"The DAG {dag_id} is not in the DAGs folder: add it, then try again.")


def trigger(dag_id: str, conf: Mapping[str, object], user: str) -> str:
    """Start a run of a DAG and return its id.

    Parameters
    ----------
    conf
        Its conf, which Airflow stores and shows: never an identifier.
    user
        Name of the user, for Airflow and the audit.

    Raises
    ------
    HTTPException
        409 if there is no such DAG, 422 if its form does not allow the values.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagNotFound
    from airflow.utils.types import DagRunTriggeredByType

    try:
        dag_run = trigger_dag(dag_id, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=user, conf=dict(conf))
    except DagNotFound:
        raise _no_such_dag(dag_id) from None
    except (ParamValidationError, ValueError):
        raise HTTPException(422, f"The form of the DAG {dag_id} does not allow these values.") from None
    return str(dag_run.run_id) if dag_run else ""
