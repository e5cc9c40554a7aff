"""Airflow as separate processes, for demonstrations and tests."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import psycopg2
from psycopg2 import sql

from dicom_deid.exceptions import ConfigurationError, DicomDeidError
from dicom_deid.sandbox.ports import free_ports
from dicom_deid.sandbox.process import clean_environment

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
"""The `airflow` commands of a deployment with the LocalExecutor."""

_STOP_SECONDS = 15
_SHOWN_LINES = 10


class AirflowNotReady(DicomDeidError):
    """Airflow did not become healthy in time; the message names the log file."""


@dataclass(frozen=True, kw_only=True)
class AirflowOptions:
    """Settings of an Airflow deployment.

    Parameters
    ----------
    home
        `AIRFLOW_HOME`: configuration, passwords and logs are written below it.
    database_url
        SQLAlchemy URL of an empty (or an Airflow) database.
    dags_folder
        The folder of DAG files.
    plugins_folder
        The folder of plugin files. If not given, only installed packages provide plugins.
    connections
        Airflow connections by id, as URIs or JSON documents, passed to the processes as environment variables.
    users
        Role (`viewer`, `user`, `op`, `admin`) by user name. Each gets a random password; see
        `AirflowSandbox.passwords`.
    executor
        `LocalExecutor`, or `CeleryExecutor` with `environment` naming the broker.
    parallelism
        Tasks at a time in one scheduler.
    environment
        Other environment variables; they override everything above.
    port
        Port of the API server; a free one if None.
    """

    home: Path
    database_url: str
    dags_folder: Path
    plugins_folder: Path | None = None
    connections: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=lambda: {"admin": "admin"})
    executor: str = "LocalExecutor"
    parallelism: int = 4
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None


class AirflowSandbox:
    """Airflow's components as child processes on free ports.

    Parameters
    ----------
    options
        Settings of the deployment.

    Examples
    --------
    >>> with AirflowSandbox(options) as airflow:                  # doctest: +SKIP
    ...     airflow.request("GET", "/api/v2/dags")
    """

    def __init__(self, options: AirflowOptions) -> None:
        self.options = options
        free, log_port, trigger_port = free_ports(3)
        self.port = options.port or free
        self.url = f"http://127.0.0.1:{self.port}"
        self.passwords = {user: secrets.token_urlsafe(12) for user in options.users}
        self.environment = self._environment(log_port, trigger_port)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tokens: dict[str, str] = {}

    def start(self, components: Sequence[str] = COMPONENTS, *, timeout: float = 120) -> None:
        """Create the database and start the components; return when all are healthy.

        Parameters
        ----------
        components
            `airflow` commands, for example `api-server` or `celery worker`.
        timeout
            Seconds to wait until all components are healthy.

        Raises
        ------
        AirflowNotReady
            A component ended or was not healthy in time.
        """
        self.run("db", "migrate")
        try:
            for component in components:
                self.start_component(component)
            self.wait_until_healthy(components, timeout)
        except BaseException:
            self.stop()
            raise

    def start_component(
        self,
        command: str,
        *,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start an `airflow` command in the background.

        Parameters
        ----------
        command
            For example `celery worker --concurrency 2`.
        name
            Name of the process for `stop_component` and its log file. Default: the command.
        environment
            Environment variables of this process only.
        wrapper
            Words before the command, such as those that start it with other mounts.
        """
        name = name or command
        log = self.process_log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
                [*wrapper, sys.executable, "-m", "airflow", *command.split()],
                env={**self.environment, **(environment or {})},
                cwd=self.options.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return the process of a component, by the name given to `start_component`."""
        return self._processes[name]

    def stop_component(self, name: str, *, kill: bool = False) -> None:
        """Stop one component and its child processes.

        Parameters
        ----------
        name
            As given to `start_component`.
        kill
            Kill it, to simulate a lost machine.
        """
        _end(self._processes.pop(name), kill=kill)

    def stop(self) -> None:
        """Stop all components, in the order in which they were started."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name in list(self._processes):
            self.stop_component(name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *arguments: str) -> str:
        """Run an `airflow` command to its end and return what it printed.

        Raises
        ------
        ConfigurationError
            The command failed; the message holds the end of its output.
        """
        self._prepare_home()
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.options.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ConfigurationError(f"`airflow {' '.join(arguments)}` failed:\n{(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def process_log(self, name: str) -> Path:
        """Return the file that holds the output of a component."""
        return self.options.home / "processes" / f"{name.replace(' ', '-')}.log"

    def token(self, user: str) -> str:
        """Return a bearer token of a user."""
        if user not in self._tokens:
            body = {"username": user, "password": self.passwords[user]}
            answer = httpx.post(f"{self.url}/auth/token", json=body, timeout=30).raise_for_status()
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def request(self, method: str, path: str, *, user: str | None = None, **options: Any) -> httpx.Response:
        """Send a request to the API server as a user, the first one if none is named."""
        user = user or next(iter(self.options.users))
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=60, **options)

    def trigger(self, dag_id: str, conf: Mapping[str, object], *, unpause: bool = True) -> str:
        """Start a run of a DAG and return its run id.

        Raises
        ------
        ConfigurationError
            The DAG's parameters refuse `conf`; the message says which and why.
        """
        if unpause:
            self.request("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        body = {"conf": dict(conf), "logical_date": None}
        answer = self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise ConfigurationError(f"{dag_id} refused its parameters: {answer.json()['detail']}")
        run_id: str = answer.raise_for_status().json()["dag_run_id"]
        return run_id

    def wait_for_run(self, dag_id: str, run_id: str, *, timeout: float = 300) -> str:
        """Return the state in which a DAG run ended.

        Raises
        ------
        AirflowNotReady
            The run did not end in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = self.request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").raise_for_status()
            state: str = answer.json()["state"]
            if state in {"success", "failed"}:
                return state
            time.sleep(0.5)
        raise AirflowNotReady(
            f"{dag_id} did not end within {timeout:.0f} s; see {self.url}/dags/{dag_id}/runs/{run_id}"
        )

    def wait_for_dags(self, *dag_ids: str, timeout: float = 60) -> None:
        """Return when the DAG processor has read the DAGs.

        Raises
        ------
        AirflowNotReady
            A DAG is missing after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if all(self.request("GET", f"/api/v2/dags/{dag}").status_code == httpx.codes.OK for dag in dag_ids):
                return
            time.sleep(0.5)
        raise AirflowNotReady(f"a DAG is missing; see {self.process_log('dag-processor')}")

    def _prepare_home(self) -> None:
        home = self.options.home
        for folder in (home / "logs", home / "processes", self._plugins_folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._passwords_file.touch(mode=0o600)
        self._passwords_file.write_text(json.dumps(self.passwords))

    @property
    def _passwords_file(self) -> Path:
        return self.options.home / "passwords.json"

    @property
    def _plugins_folder(self) -> Path:
        return self.options.plugins_folder or self.options.home / "plugins"

    def _environment(self, log_port: int, trigger_port: int) -> dict[str, str]:
        options = self.options
        settings = {
            "CORE__DAGS_FOLDER": str(options.dags_folder),
            "CORE__PLUGINS_FOLDER": str(self._plugins_folder),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": options.executor,
            "CORE__PARALLELISM": str(options.parallelism),
            "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in options.users.items()),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords_file),
            "DATABASE__SQL_ALCHEMY_CONN": options.database_url,
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "LOGGING__BASE_LOG_FOLDER": str(options.home / "logs"),
            "LOGGING__WORKER_LOG_SERVER_PORT": str(log_port),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_port),
            "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(options.home / "logs" / "dag_processor"),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        inherited = clean_environment("PYTHONPATH")
        scripts = str(Path(sys.executable).parent)
        return {
            **inherited,
            "PATH": f"{scripts}{os.pathsep}{inherited.get('PATH', '')}",
            "AIRFLOW_HOME": str(options.home),
            **{f"AIRFLOW__{key}": value for key, value in settings.items()},
            **{f"AIRFLOW_CONN_{key.upper()}": value for key, value in options.connections.items()},
            **options.environment,
        }

    def wait_until_healthy(self, components: Sequence[str], timeout: float) -> None:
        """Return when all components are healthy.

        Raises
        ------
        AirflowNotReady
            A component ended or was not healthy in time.
        """
        names = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
        wanted = [names[component] for component in components if component in names]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    log = self.process_log(name)
                    end = "\n".join(log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])
                    raise AirflowNotReady(f"`airflow {name}` ended; see {log}:\n{end}")
            if self._is_healthy(wanted):
                return
            time.sleep(0.25)
        raise AirflowNotReady(f"Airflow was not healthy within {timeout:.0f} s; see {self.options.home / 'processes'}")

    def _is_healthy(self, wanted: Sequence[str]) -> bool:
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(health[name]["status"] == "healthy" for name in ("metadatabase", *wanted))


def create_database(url: str, name: str) -> None:
    """Create a database on the server of `url`, unless it is there."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    """End a process and its children: with SIGTERM first, then with SIGKILL."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    if not kill:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Tasks run in process groups of their own.
    for each in started:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
