"""From Airflow's connections to what the pipeline is given: all that is meant, and nothing else."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

import jsonschema
import pytest

from dicom_deid.database import KeyRing
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.get_provider_info import get_provider_info
from dicom_deid.hooks.aws import s3_connection
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.hooks.postgres import database_url

KEYS = KeyRing.generate()


def connection(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> str:
    """Define an Airflow connection, as a site does by environment."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    return name


def test_static_keys_and_settings_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of the AWS connection that is lost on the way to the clients."""
    extra = {
        "endpoint_url": "https://s3.example.org",
        "region_name": "eu-central-1",
        "verify": "/etc/ca.pem",
        "aws_session_token": "token",
        "config_kwargs": {
            "s3": {"addressing_style": "virtual"},
            "proxies": {"https": "http://proxy:3128"},
            "connect_timeout": 3,
            "read_timeout": 7,
            "max_pool_connections": 11,
            "request_checksum_calculation": "when_required",
            "retries": {"max_attempts": 9},
        },
        "dicom_deid": {"server_side_encryption": "aws:kms", "kms_key_id": "k", "requests_per_second": 50},
    }
    found = s3_connection(connection(monkeypatch, "a1", conn_type="aws", login="id", password="secret", extra=extra))
    assert found is not None
    assert (found.endpoint_url, found.region, found.verify) == ("https://s3.example.org", "eu-central-1", "/etc/ca.pem")
    assert (found.access_key, found.secret_key, found.session_token) == ("id", "secret", "token")
    assert (found.addressing_style, found.proxies) == ("virtual", {"https": "http://proxy:3128"})
    assert (found.connect_timeout, found.read_timeout, found.max_connections) == (3, 7, 11)
    assert (found.checksum, found.retry.max_attempts) == ("md5", 9)
    assert (found.server_side_encryption, found.kms_key_id, found.requests_per_second) == ("aws:kms", "k", 50)
    assert "secret" not in repr(found)


def test_a_role_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that is dropped, so that the wrong identity reads the archive."""
    role = "arn:aws:iam::123456789012:role/reader"
    extra = {"role_arn": role, "assume_role_kwargs": {"ExternalId": "e"}}
    found = s3_connection(connection(monkeypatch, "a2", conn_type="aws", login="id", password="secret", extra=extra))
    assert found is not None
    assert (found.role_arn, found.external_id, found.access_key) == (role, "e", "id")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "postgres"}, "not aws"),
        ({"conn_type": "aws", "login": "i", "password": "s", "extra": {"dicom_deid": {"colour": 1}}}, "colour"),
    ],
)
def test_a_wrong_storage_connection_says_so(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    """A misspelt option that is silently without effect."""
    with pytest.raises(ConfigurationError, match=message):
        s3_connection(connection(monkeypatch, "a3", **fields))


def test_no_connection_means_the_environment() -> None:
    """Directories, and the standard AWS variables, need no connection."""
    assert s3_connection(None) is None


def test_the_database_url_is_libpqs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password with special characters, TLS settings lost, or other users' options that libpq does not know."""
    name = connection(
        monkeypatch,
        "p1",
        conn_type="postgres",
        host="db.example.org",
        port=5433,
        login="de id",
        password="p@ss/w:rd?",
        schema="deid",
        extra={"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem", "cursor": "dictcursor", "colour": "red"},
    )
    assert database_url(name) == (
        "postgresql://de%20id:p%40ss%2Fw%3Ard%3F@db.example.org:5433/deid"
        "?application_name=dicom-deid&sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"conn_type": "mysql", "schema": "x"}, "not postgres"), ({"conn_type": "postgres"}, "no database")],
)
def test_a_wrong_database_connection_says_so(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    """An error of the driver where one of ours says what to mend."""
    with pytest.raises(ConfigurationError, match=message):
        database_url(connection(monkeypatch, "p2", **fields))


def test_the_project_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of the form that does nothing."""
    extra = {"project": "study-7", "recipe": "desktop, ps3.15-basic", "org_root": "1.2.3", "max_date_offset_days": "30"}
    name = connection(monkeypatch, "d1", conn_type="dicom_deid", password=KEYS.to_text(), extra=extra)
    hook = DicomDeidHook(name)
    assert (hook.project, hook.recipes, hook.get_conn()) == ("study-7", ("desktop", "ps3.15-basic"), KEYS)
    assert hook.project_options == {"org_root": "1.2.3", "max_date_offset_days": 30}
    assert hook.test_connection()[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no keys"),
        ({"password": "k1:short"}, "key"),
        ({"password": KEYS.to_text(), "extra": {"recipe": "dekstop"}}, "dekstop"),
    ],
)
def test_the_test_button_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    """A button that is green for what the first run refuses, or red without a reason; never with a key in it."""
    good, text = DicomDeidHook(connection(monkeypatch, "d2", conn_type="dicom_deid", **fields)).test_connection()
    assert not good
    assert message in text
    assert KEYS.to_text() not in text


def test_provider_info_is_valid() -> None:
    """What Airflow would leave out with a warning: it checks the information against these schemas."""
    from importlib.resources import files

    for name in ("provider_info.schema.json", "provider.yaml.schema.json"):
        schema = json.loads((files("airflow") / name).read_text())
        jsonschema.validate(get_provider_info(), {**schema, "required": []})


def test_what_provider_info_names_can_be_imported() -> None:
    """A class that was moved and is still announced."""
    from airflow.sdk.module_loading import import_string

    info = get_provider_info()
    for path in [*info["extra-links"], *info["notifications"], info["connection-types"][0]["hook-class-name"]]:
        import_string(path)
    for group in (*info["hooks"], *info["operators"]):
        for module in group["python-modules"]:
            __import__(module)


def test_the_form_says_what_the_settings_do() -> None:
    """A default of the form that is another than the engine's: the form does not import it, for the sake of speed."""
    from dicom_deid.engine.profiles import Option
    from dicom_deid.engine.settings import PixelPolicy, PrivatePolicy, ResidualPolicy, Settings
    from dicom_deid.operators import forms
    from dicom_deid.recipe import Recipe

    params = forms.rule_params()
    words = {
        "private_elements": PrivatePolicy,
        "residuals": ResidualPolicy,
        "pixel_risk": PixelPolicy,
        "documents": Literal["allow", "quarantine"],
    }
    assert set(words) == set(forms.SETTINGS)
    for name, valid in words.items():
        assert params[name].value == getattr(Settings(), name)
        assert set(params[name].schema["enum"]) == set(get_args(valid))
    assert set(forms.profile_options()) == {option.value for option in Option}
    assert set(forms.shipped_recipes()) == set(Recipe.shipped()) - {option.recipe_name for option in Option}
