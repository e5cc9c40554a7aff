"""Database errors say what to do and quote nothing."""

from __future__ import annotations

import traceback

import psycopg2
import psycopg2.errors
import pytest

from dicom_deid.database.errors import ConnectionLost, TableMissing, database_error, translate_errors
from dicom_deid.database.runs import RunRequest
from dicom_deid.exceptions import ConfigurationError, DatabaseError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg2.OperationalError("server at HOST closed: DOE^JOHN"), ConnectionLost),
        (psycopg2.InterfaceError("connection already closed"), ConnectionLost),
        (psycopg2.errors.UniqueViolation("Key (x)=(DOE^JOHN) exists"), DatabaseError),
    ],
)
def test_database_errors_hold_no_text_of_the_server(error, kind):
    def fail() -> None:
        raise error

    with pytest.raises(kind) as failure:
        translate_errors("resolving", fail)
    assert "DOE" not in "".join(traceback.format_exception(failure.value, chain=True))
    assert failure.value.__context__ is None
    assert str(failure.value).startswith("While resolving:")


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        ("28P01", ConfigurationError, "login"),
        ("3D000", ConfigurationError, "database name"),
        ("42P01", TableMissing, "db upgrade"),
        ("42501", ConfigurationError, "db roles"),
        ("57P01", ConnectionLost, "retry resumes"),
        ("53300", DatabaseError, "lacks resources"),
    ],
)
def test_codes_have_advice(code, kind, advice):
    class Coded(psycopg2.Error):
        pgcode = code

    failure = database_error(Coded("DOE^JOHN"), "planning")
    assert type(failure) is kind
    assert advice in str(failure)
    assert code in str(failure)


def test_a_request_survives_json():
    request = RunRequest(
        project="p", source="a", destination="b", recipe_name="r", recipe_digest="c", settings_digest="d",
        parameters={"x": [1]}, external_id="dag/1",
    )  # fmt: skip
    assert RunRequest.from_json(request.to_json()) == request
