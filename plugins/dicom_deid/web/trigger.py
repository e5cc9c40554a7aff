"""Start DAG runs from the pages."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import HTTPException


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
    from airflow.sdk.exceptions import ParamValidationError
    from airflow.utils.types import DagRunTriggeredByType

    try:
        dag_run = trigger_dag(dag_id, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=user, conf=dict(conf))
    except DagNotFound:
        raise HTTPException(409, f"The DAG {dag_id} is not in the DAGs folder: add it, then try again.") from None
    except (ParamValidationError, ValueError):
        raise HTTPException(422, f"The form of the DAG {dag_id} does not allow these values.") from None
    return str(dag_run.run_id) if dag_run else ""
