"""The compose file: valid, and without default passwords, open ports and processes of root."""

from __future__ import annotations

import json
import re
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from dicom_deid.database import KeyRing
from dicom_deid.sandbox.deployment import Addresses, write_secrets

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yaml").read_text()
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, anchors and merges resolved."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
    return found


def interpolated() -> dict[str, Any]:
    """Return the file as compose sees it after variables have their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE).replace("$$", "$")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_it_is_a_compose_file() -> None:
    """Catches a key, value, volume, secret or configuration that the compose specification does not have."""
    compose_spec.PyCompose.from_json(json.dumps(interpolated())).validate()


def test_the_validator_refuses_what_is_wrong() -> None:
    """Catches a validator that accepts everything."""
    wrong = interpolated()
    wrong["services"]["redis"]["helthcheck"] = {}
    with pytest.raises(ValueError, match="helthcheck"):
        compose_spec.PyCompose.from_json(json.dumps(wrong))


def test_every_long_running_service_has_a_health_check(services: dict[str, Any]) -> None:
    """Catches a service that others wait for, or an operator looks at, without a health check."""
    stays = {name for name, service in services.items() if service.get("restart") == "unless-stopped"}
    assert stays == {*AIRFLOW, "postgres", "redis", "storage"}
    assert all("healthcheck" in services[name] for name in stays)


def test_no_password_is_in_the_file(services: dict[str, Any]) -> None:
    """Catches a default password, which sites would keep in production."""
    for name, service in services.items():
        for key, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|CONN|BROKER|BACKEND$", key):
                assert "/run/" in str(value) or value.startswith("airflow."), (name, key)
    assert not re.search(r"password:\s*\S", COMPOSE.lower().replace("password_file", ""))


def test_ports_are_published_on_localhost_only(services: dict[str, Any]) -> None:
    """Catches a port that is open to the network before TLS is in front of it."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_nothing_runs_as_root(services: dict[str, Any]) -> None:
    """Catches an image whose processes run as root."""
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users[-1] == "airflow"
    # The image of Redis leaves root only for a command that is redis-server itself; that of PostgreSQL always does.
    assert services["redis"]["user"] == "redis"


def test_superuser_secrets_reach_only_their_servers(services: dict[str, Any]) -> None:
    """The superuser's password is hidden from Airflow's processes, which run code of DAG authors."""
    for name in AIRFLOW:
        assert not [volume for volume in services[name]["volumes"] if volume.startswith("server-secrets")]


def test_dependencies_are_services(services: dict[str, Any]) -> None:
    """Catches a service that waits for one that is not there."""
    for service in services.values():
        assert set(service.get("depends_on") or {}) <= set(services)


def test_volumes_and_configs_are_declared(services: dict[str, Any]) -> None:
    """Catches a volume that compose would refuse, or a file of the host that is not in the repository."""
    declared = set(yaml.safe_load(COMPOSE)["volumes"])
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    files = {name for name in used if name.startswith("./")}
    assert used - files == declared
    assert all((ROOT / name).is_file() for name in files)


def test_old_releases_of_compose_accept_the_file() -> None:
    """Catches a key that only newer releases of Compose have: inline content of configs needs 2.23.1."""
    assert "configs" not in yaml.safe_load(COMPOSE)


def test_files_that_airflow_writes_are_on_a_writable_volume(services: dict[str, Any]) -> None:
    """Catches a read-only password file, which makes the API server exit at once."""
    path = services["api-server"]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    mounts = [volume.split(":") for volume in services["api-server"]["volumes"]]
    assert [mount for mount in mounts if path.startswith(mount[1] + "/")] == [["login", "/run/login"]]


def test_connections_of_the_ui_are_not_overridden(services: dict[str, Any]) -> None:
    """Catches a secrets backend or variable that overrides what is changed in the UI."""
    names = {name for service in services.values() for name in service.get("environment") or {}}
    assert [name for name in names if name.startswith(("AIRFLOW_CONN_", "AIRFLOW__SECRETS__"))] == []
    assert "airflow connections import /run/dicom-deid/connections.json" in services["migrate"]["command"]


def test_the_image_has_what_the_form_and_the_pages_offer() -> None:
    """Catches text recognition in the form, or pictures on the review page, that the image cannot do."""
    extras = re.search(r"\$\{wheel\}\[([\w,]+)\]", DOCKERFILE)[1].split(",")
    assert {"ocr", "codecs", "review", "sandbox"} <= set(extras)


def test_the_files_that_the_image_copies_make_the_wheel(tmp_path: Path) -> None:
    """Catches a build of the image that fails, or leaves out a license, for a file that is not copied."""
    (names,) = re.findall(r"^COPY --chown=airflow:0 (pyproject.toml .*) \./$", DOCKERFILE, re.MULTILINE)
    for name in names.split():
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "plugins", tmp_path / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    # The build of `pip wheel`, without its download of the build requirements.
    wheel = tmp_path / next(WheelBuilder(str(tmp_path)).build(directory=str(tmp_path), versions=["standard"]))
    inside = zipfile.ZipFile(wheel).namelist()
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in inside if "/licenses/" in name}
    assert "dicom_deid/example_dags/dicom_deid_on_demand.py" in inside


def test_secrets_are_generated_once(tmp_path: Path) -> None:
    """Catches secrets that change with the next start, which would lock out the databases and lose the crosswalk."""
    places = tmp_path / "airflow", tmp_path / "servers", tmp_path / "login"
    write_secrets(*places)
    first = {path.name: path.read_text() for place in places for path in place.iterdir()}
    write_secrets(*places, Addresses(postgres="elsewhere:1"))
    assert {path.name: path.read_text() for place in places for path in place.iterdir()} == first
    assert len(set(first.values())) == len(first)


def test_connections_hold_the_passwords_of_their_servers(tmp_path: Path) -> None:
    """Catches a password in a connection that is not the server's."""
    write_secrets(tmp_path / "airflow", tmp_path / "servers", tmp_path / "login")
    connections = json.loads((tmp_path / "airflow" / "connections.json").read_text())
    password = (tmp_path / "servers" / "dicom-deid-password").read_text()
    identity = json.loads((tmp_path / "servers" / "s3.json").read_text())["identities"][0]["credentials"][0]
    assert connections["dicom_deid_database"]["password"] == password
    assert connections["dicom_deid_source"]["password"] == identity["secretKey"]
    assert KeyRing.parse(connections["dicom_deid_default"]["password"])
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "airflow").iterdir())


def test_every_secret_that_is_read_is_written(services: dict[str, Any], tmp_path: Path) -> None:
    """Catches a secret file that no service writes."""
    write_secrets(tmp_path / "dicom-deid", tmp_path / "servers", tmp_path / "login")
    named = set(re.findall(r"/run/(dicom-deid|servers|login)/([\w.-]+)", COMPOSE))
    for place, name in named:
        assert (tmp_path / place / name).exists(), name
