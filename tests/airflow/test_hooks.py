"""Tests of what the hooks read from Airflow connections."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar, Literal, get_args
from urllib.parse import parse_qs

import jsonschema
import pytest

from dicom_deid.database import KeyRing
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.get_provider_info import get_provider_info
from dicom_deid.hooks.aws import OWN_OPTIONS, s3_connection
from dicom_deid.hooks.dicom_deid import DicomDeidHook
from dicom_deid.hooks.postgres import database_url
from dicom_deid.objectstore import S3Connection
from dicom_deid.sandbox import S3Service
from dicom_deid.sandbox.deployment import connection_documents

KEYS = KeyRing.generate()


def connection(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> str:
    """Define an Airflow connection by an environment variable, and return its id."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    return name


def test_static_keys_and_settings_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a setting of the AWS connection that is lost on the way to the clients."""
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
    assert tuple(found.session.get_credentials().get_frozen_credentials())[:3] == ("id", "secret", "token")
    assert (found.addressing_style, found.proxies) == ("virtual", {"https": "http://proxy:3128"})
    assert (found.connect_timeout, found.read_timeout, found.max_connections) == (3, 7, 11)
    assert (found.checksum, found.retry.max_attempts) == ("md5", 9)
    assert (found.server_side_encryption, found.kms_key_id, found.requests_per_second) == ("aws:kms", "k", 50)
    assert "secret" not in repr(found)


STS_ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


class TokenService(BaseHTTPRequestHandler):
    """Answers AssumeRole and keeps what was asked."""

    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_POST(self) -> None:
        self.asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.end_headers()
        self.wfile.write(STS_ANSWER.encode())

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def token_service() -> Iterator[str]:
    """A server that answers AssumeRole; its address."""
    server = HTTPServer(("127.0.0.1", 0), TokenService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_role_is_assumed_with_all_its_arguments(monkeypatch: pytest.MonkeyPatch, token_service: str) -> None:
    """Catches a role, or the policy that narrows it, that is dropped, so that the task may do more than it should."""
    arguments = {
        "RoleSessionName": "nightly",
        "DurationSeconds": 900,
        "Policy": '{"Version": "2012-10-17"}',
        "ExternalId": "external",
    }
    extra = {
        "role_arn": "arn:aws:iam::123456789012:role/reader",
        "region_name": "eu-central-1",
        "assume_role_kwargs": arguments,
        "service_config": {"sts": {"endpoint_url": token_service}},
    }
    found = s3_connection(connection(monkeypatch, "a2", conn_type="aws", login="id", password="secret", extra=extra))
    assert found is not None
    assert found.session.get_credentials().get_frozen_credentials().access_key == "ASIAROLE"
    (asked,) = TokenService.asked
    assert asked["RoleArn"] == [extra["role_arn"]]
    assert {name: asked[name] for name in arguments} == {name: [str(value)] for name, value in arguments.items()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "postgres"}, "must be of type aws"),
        ({"extra": {"dicom_deid": {"colour": 1}}}, "colour in dicom_deid"),
        ({"extra": {"config_kwargs": {"client_cert": "/etc/client.pem"}}}, "client_cert in config_kwargs"),
        ({"extra": {"config_kwargs": {"user_agent_extra": "x", "tcp_keepalive": True}}}, "tcp_keepalive, user_agent"),
        ({"extra": {"config_kwargs": {"s3": {"use_accelerate_endpoint": True}}}}, "use_accelerate_endpoint"),
        ({"extra": {"config_kwargs": {"s3": {"payload_signing_enabled": False}}}}, "payload signing"),
        ({"extra": {"config_kwargs": {"signature_version": "s3"}}}, "signature_version"),
        ({"extra": {"service_config": {"s3": {"extra_args": {}}}}}, "extra_args"),
        ({"extra": {"config_kwargs": {"retries": {"mode": "adaptive"}}}}, r"mode in config_kwargs\.retries"),
        ({"extra": {"endpiont_url": "https://s3.example.org"}}, "endpiont_url in its extra"),
    ],
)
def test_a_setting_without_effect_is_refused(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    """Catches a setting that protects something, or a misspelt one, that is silently without effect."""
    fields = {"conn_type": "aws", "login": "i", "password": "s", **fields}
    with pytest.raises(ConfigurationError, match=message) as raised:
        s3_connection(connection(monkeypatch, "a3", **fields))
    assert "'a3'" in str(raised.value)


def test_every_setting_of_a_store_can_be_given() -> None:
    """Catches a setting that an administrator cannot reach from an Airflow connection."""
    of_the_session = {"access_key", "secret_key", "session_token"}
    of_the_aws_connection = {
        "name", "session", "endpoint_url", "region", "verify", "addressing_style", "proxies", "connect_timeout",
        "read_timeout", "max_connections", "retry",
    }  # fmt: skip
    names = {field.name for field in dataclasses.fields(S3Connection)}
    assert names - of_the_session - of_the_aws_connection == set(OWN_OPTIONS)


@pytest.mark.parametrize(
    "read", [s3_connection, database_url, lambda name: DicomDeidHook(name).get_conn()], ids=["s3", "database", "keys"]
)
def test_a_missing_connection_is_named(read: Any) -> None:
    """Catches a task that uses the credentials of the machine, and an error without the connection's name."""
    with pytest.raises(ConfigurationError, match="There is no connection 'no_such_connection'"):
        read("no_such_connection")


def test_no_connection_means_the_environment() -> None:
    """Catches directories and stores configured by AWS variables need no connection."""
    assert s3_connection(None) is None


def test_the_database_url_is_accepted_by_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches lost special characters of a password, lost TLS settings, and options that libpq does not know."""
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
    [({"conn_type": "mysql", "schema": "x"}, "must be of type postgres"), ({"conn_type": "postgres"}, "no database")],
)
def test_a_wrong_database_connection_is_reported(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    """Catches an error of the driver where a message should say what to change."""
    with pytest.raises(ConfigurationError, match=message):
        database_url(connection(monkeypatch, "p2", **fields))


@pytest.mark.parametrize("broken", [None, "dicom_deid_source", "dicom_deid_database"])
def test_the_test_button_tries_the_stores_and_the_database(
    monkeypatch: pytest.MonkeyPatch, s3: S3Service, postgres_url: str, broken: str | None
) -> None:
    """Catches a button that asks AWS for the credentials of another store, or that is green for a wrong password."""
    storage = {"endpoint_url": s3.endpoint_url, "login": s3.access_key, "password": s3.secret_key}
    for name, text in connection_documents(storage, postgres_url, KEYS, project="p").items():
        document = json.loads(text)
        if name == broken:
            document["password"] = "wrong"
        if name != "dicom_deid_destination":
            connection(monkeypatch, name, **document)
    good, text = DicomDeidHook().test_connection()
    if broken is None:
        assert good, text
        assert "dicom_deid_source works, dicom_deid_destination does not exist, dicom_deid_database works" in text
    else:
        assert not good
        assert broken == "dicom_deid_database" or broken in text
    assert s3.secret_key not in text


def test_the_project_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a field of the form that does nothing."""
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
    """Catches a success for what the first run refuses, a failure without a reason, and a key in the message."""
    good, text = DicomDeidHook(connection(monkeypatch, "d2", conn_type="dicom_deid", **fields)).test_connection()
    assert not good
    assert message in text
    assert KEYS.to_text() not in text


def test_provider_info_is_valid() -> None:
    """Airflow validates the information against these schemas and leaves out what is invalid."""
    from importlib.resources import files

    for name in ("provider_info.schema.json", "provider.yaml.schema.json"):
        schema = json.loads((files("airflow") / name).read_text())
        jsonschema.validate(get_provider_info(), {**schema, "required": []})


def test_classes_of_provider_info_can_be_imported() -> None:
    """Catches a class that was moved and is still announced."""
    from airflow.sdk.module_loading import import_string

    info = get_provider_info()
    for path in [*info["extra-links"], *info["notifications"], info["connection-types"][0]["hook-class-name"]]:
        import_string(path)
    for group in (*info["hooks"], *info["operators"], *info["triggers"]):
        for module in group["python-modules"]:
            __import__(module)


def test_form_defaults_are_those_of_the_settings() -> None:
    """The form repeats the defaults of the engine, which it does not import, to be fast."""
    from dicom_deid.engine.profiles import Option
    from dicom_deid.engine.settings import (
        CheckPolicy,
        FacePolicy,
        FreeTextPolicy,
        PixelPolicy,
        PrivatePolicy,
        ResidualPolicy,
        Settings,
    )
    from dicom_deid.operators import forms
    from dicom_deid.recipe import Recipe

    params = forms.rule_params()
    words = {
        "private_elements": PrivatePolicy,
        "residuals": ResidualPolicy,
        "faces": FacePolicy,
        "free_text": FreeTextPolicy,
        "pixel_risk": PixelPolicy,
        "check_masks": CheckPolicy,
        "overlays": Literal["keep", "remove"],
        "documents": Literal["allow", "quarantine"],
    }
    assert {*words, "layout_objects"} == set(forms.SETTINGS)
    assert params["layout_objects"].value == Settings().layout_objects
    for name, valid in words.items():
        assert params[name].value == getattr(Settings(), name)
        assert set(params[name].schema["enum"]) == set(get_args(valid))
    assert set(forms.profile_options()) == {option.value for option in Option}
    assert set(forms.shipped_recipes()) == set(Recipe.shipped()) - {option.recipe_name for option in Option} - {
        "devices"
    }
