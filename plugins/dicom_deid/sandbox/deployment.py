"""Generate the secrets of a new deployment once, at random, so that there are no default passwords.

``python -m dicom_deid.sandbox.deployment SECRETS SERVER_SECRETS LOGIN`` is the command of the `secrets`
service of ``docker-compose.yaml``. Existing files are kept.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dicom_deid.database import KeyRing

_OWNER_ONLY = 0o600
_READABLE = 0o644


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Addresses of the servers of the deployment, as ``host:port``."""

    postgres: str = "postgres:5432"
    redis: str = "redis:6379"
    storage: str = "storage:8333"


def write_secrets(
    directory: Path, server_directory: Path, login_directory: Path, addresses: Addresses | None = None
) -> None:
    """Write the passwords and keys of a deployment, and the Airflow connections made of them.

    Parameters
    ----------
    directory
        For Airflow's processes: `fernet-key`, `jwt-secret`, `api-secret-key`, `database-url`, `broker-url`,
        `result-backend-url` and `connections.json`, readable by the owner only.
    server_directory
        For the servers, whose images run as their own users: `postgres-password`, `airflow-password`,
        `dicom-deid-password`, `redis-password` and `s3.json`. Only the servers may mount it.
    login_directory
        For `passwords.json`, the users' passwords, which Airflow's API server opens for writing.
    addresses
        Addresses of the servers.
    """
    addresses = addresses or Addresses()
    for each in (directory, server_directory, login_directory):
        each.mkdir(parents=True, exist_ok=True)
    passwords = {
        name: _keep(server_directory / f"{name}-password", secrets.token_urlsafe(24), _READABLE)
        for name in ("postgres", "airflow", "dicom-deid", "redis")
    }
    s3 = _storage_identity(server_directory / "s3.json")
    airflow = f"airflow:{passwords['airflow']}@{addresses.postgres}/airflow"
    _keep(directory / "database-url", f"postgresql+psycopg2://{airflow}")
    _keep(directory / "result-backend-url", f"db+postgresql+psycopg2://{airflow}")
    _keep(directory / "broker-url", f"redis://:{passwords['redis']}@{addresses.redis}/0")
    _keep(directory / "fernet-key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    _keep(directory / "jwt-secret", secrets.token_hex(32))
    _keep(directory / "api-secret-key", secrets.token_hex(16))
    _keep(login_directory / "passwords.json", json.dumps({"admin": secrets.token_urlsafe(12)}))
    documents = connection_documents(
        {"endpoint_url": f"http://{addresses.storage}", "login": s3["accessKey"], "password": s3["secretKey"]},
        f"postgresql://dicom_deid:{passwords['dicom-deid']}@{addresses.postgres}/dicom_deid",
        KeyRing.generate(),
        project="research",
    )
    connections = {name: json.loads(document) for name, document in documents.items()}
    _keep(directory / "connections.json", json.dumps(connections, indent=1))


def _keep(path: Path, value: str, mode: int = _OWNER_ONLY) -> str:
    """Write a new file; return the content of the file, which differs from `value` if it existed before."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(value)
    path.chmod(mode)
    return value


def _storage_identity(path: Path) -> dict[str, str]:
    """Return the S3 keys in SeaweedFS's file of identities; write it if it does not exist."""
    credentials = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
    identity = {"name": "dicom-deid", "credentials": [credentials], "actions": ["Admin", "Read", "List", "Write"]}
    kept: dict[str, str] = json.loads(_keep(path, json.dumps({"identities": [identity]}), _READABLE))["identities"][0][
        "credentials"
    ][0]
    return kept


def connection_documents(
    storage: Mapping[str, str], database_url: str, keys: KeyRing, *, project: str
) -> dict[str, str]:
    """Return the four connections that the DAGs use, as JSON documents by their ids.

    Parameters
    ----------
    storage
        `endpoint_url` (empty for AWS), `login` and `password` of the S3 store that is source and destination.
    database_url
        URL of the database of the mapping and the audit.
    keys
        Keys of the crosswalk.
    project
        Project of runs that name none.
    """
    s3 = {
        "conn_type": "aws",
        "login": storage["login"],
        "password": storage["password"],
        "extra": {"endpoint_url": storage["endpoint_url"] or None, "region_name": "us-east-1"},
    }
    parts = urlsplit(database_url)
    database = {
        "conn_type": "postgres",
        "host": parts.hostname,
        "port": parts.port,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "schema": parts.path.strip("/"),
    }
    deid = {
        "conn_type": "dicom_deid",
        "password": keys.to_text(),
        "extra": {"project": project, "recipe": "desktop, devices"},
    }
    documents = {
        "dicom_deid_source": s3,
        "dicom_deid_destination": s3,
        "dicom_deid_database": database,
        "dicom_deid_default": deid,
    }
    return {name: json.dumps(document) for name, document in documents.items()}


if __name__ == "__main__":
    write_secrets(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
