"""The sandbox: SeaweedFS and PostgreSQL in one directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.sandbox.ports import are_free, free_ports
from dicom_deid.sandbox.postgresql import PostgreSQL
from dicom_deid.sandbox.seaweedfs import S3Service, SeaweedFS
from dicom_deid.sandbox.state import SandboxState, ServerState

_ATTEMPTS = 3
"""Another process can take a port between the check and the bind; then other ports are tried."""


def default_directory() -> Path:
    """Return the default directory of the sandbox: `DICOM_DEID_SANDBOX`, or below the user's data home."""
    named = os.environ.get("DICOM_DEID_SANDBOX")
    if named:
        return Path(named)
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "dicom-deid" / "sandbox"


class Sandbox:
    """SeaweedFS (S3) and PostgreSQL, with random passwords, on free ports of the loopback interface.

    The servers outlive the process that starts them. Another `Sandbox` of the same directory, in any process, finds
    them running, or restarts those that ended, with the same data. Safe for several processes at the same time. As a
    context manager it starts on entering and stops on leaving.

    Parameters
    ----------
    directory
        Directory of data, logs and the state file; created if it does not exist. Default: `default_directory()`.
    keep
        Keep the directory when the sandbox stops. If False, the directory is deleted and PostgreSQL does not sync to
        disk.

    Examples
    --------
    >>> with Sandbox(keep=False) as sandbox:  # doctest: +SKIP
    ...     print(sandbox.postgres_url, sandbox.s3.endpoint_url)
    """

    def __init__(self, directory: str | Path | None = None, *, keep: bool = True) -> None:
        self.directory = Path(directory or default_directory()).absolute()
        self.keep = keep

    def start(self, *, object_store: bool = True) -> Self:
        """Start the servers that do not run, and wait until they answer.

        Parameters
        ----------
        object_store
            Start SeaweedFS as well as PostgreSQL.

        Raises
        ------
        ConfigurationError
            A program is missing or a server does not start; servers that were started are stopped again.
        """
        with self._locked():
            state = self._state() or SandboxState()
            state.save(self._state_file)
            try:
                if object_store:
                    self._start_server(state, state.s3, self._seaweedfs(state))
                self._start_server(state, state.postgres, self._postgresql(state))
            except BaseException:
                self._stop_servers(state)
                raise
        return self

    def stop(self) -> None:
        """Stop the servers and wait until their processes have ended."""
        if not self.directory.exists():
            return
        with self._locked():
            state = self._state()
            if state is not None:
                self._stop_servers(state)
            if not self.keep:
                shutil.rmtree(self.directory)

    def is_running(self, *, object_store: bool = True) -> bool:
        """Return whether PostgreSQL and, if `object_store` is true, SeaweedFS are running."""
        state = self._state()
        return state is not None and state.postgres.is_running() and (not object_store or state.s3.is_running())

    @property
    def s3(self) -> S3Service:
        """Address and credentials of the S3 server."""
        state = self._running_state()
        return self._seaweedfs(state).service(state.s3.ports)

    @property
    def postgres_url(self) -> str:
        """URL of the sandbox's database, including the password."""
        return self.database_url()

    def database_url(self, database: str = "dicom_deid") -> str:
        """Return the URL of a database of the server, including the password."""
        state = self._running_state(object_store=False)
        return self._postgresql(state).url(state.postgres.ports[0], database)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def _state_file(self) -> Path:
        return self.directory / "state.json"

    def _state(self) -> SandboxState | None:
        return SandboxState.load(self._state_file)

    def _running_state(self, *, object_store: bool = True) -> SandboxState:
        state = self._state()
        if state is None or not self.is_running(object_store=object_store):
            raise ConfigurationError(f"the sandbox in {self.directory} does not run; start it: dicom-deid sandbox up")
        return state

    def _seaweedfs(self, state: SandboxState) -> SeaweedFS:
        log = self.directory / "seaweedfs.log"
        return SeaweedFS(self.directory / "seaweedfs", log, state.access_key, state.secret_key)

    def _postgresql(self, state: SandboxState) -> PostgreSQL:
        log = self.directory / "postgresql.log"
        return PostgreSQL(self.directory / "postgresql", log, state.password, durable=self.keep)

    def _start_server(self, state: SandboxState, server: ServerState, program: SeaweedFS | PostgreSQL) -> None:
        for _ in range(_ATTEMPTS):
            if server.process is None or not server.process.is_running():
                if len(server.ports) != program.port_count or not are_free(server.ports):
                    server.ports = free_ports(program.port_count)
                server.process = program.spawn(server.ports)
                # Saved before waiting, so that the process is found even if this one is killed meanwhile.
                state.save(self._state_file)
            if program.wait_until_ready(server.process, server.ports):
                return
            server.process.stop()
            server.ports = []
        raise ConfigurationError(f"{type(program).__name__} does not start; see {program.log}")

    def _stop_servers(self, state: SandboxState) -> None:
        # An orderly stop takes SeaweedFS three seconds, which temporary data do not need.
        seaweedfs_ends_with = signal.SIGTERM if self.keep else signal.SIGKILL
        for server, ask_with in ((state.s3, seaweedfs_ends_with), (state.postgres, signal.SIGINT)):
            if server.process is not None:
                server.process.stop(ask_with=ask_with)
                server.process = None
        state.save(self._state_file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Beside the directory, because the lock must outlive it.
        with self.directory.with_name(self.directory.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
