"""Server processes that outlive the process that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil


class ProcessIdentity(NamedTuple):
    """A process, identified by its pid and its creation time, since pids are reused."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of the running process `pid`, or None when there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def is_running(self) -> bool:
        """Return whether this process is running; a zombie is not."""
        return self._process() is not None

    def stop(self, *, ask_with: signal.Signals = signal.SIGTERM, patience: float = 15.0) -> None:
        """Send the process a signal, wait for its end, and kill it after `patience` seconds.

        Raises
        ------
        OSError
            The process does not end when killed.
        """
        for sign in (ask_with, signal.SIGKILL):
            process = self._process()
            if process is None:
                return
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
            if self._wait(patience):
                return
        raise OSError(f"process {self.pid} does not end")

    def _wait(self, seconds: float) -> bool:
        # psutil's own wait does not return for a zombie that its parent has not reaped.
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if same else None


_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


def clean_environment(*more: str) -> dict[str, str]:
    """Return the environment variables that a server needs: no keys, passwords or credentials of this process.

    Parameters
    ----------
    more
        Names of other variables that it needs.
    """
    return {name: os.environ[name] for name in (*_INHERITED, *more) if name in os.environ}


def start_process(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> ProcessIdentity:
    """Start a server in its own session; append its output to `log`.

    Raises
    ------
    OSError
        The program cannot be started, or ended at once.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - the sandbox's own command lines
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**clean_environment(), **(environment or {})},
            cwd="/",
            start_new_session=True,
            **identity_of(user),
        )
    identity = ProcessIdentity.of(process.pid)
    if identity is None or process.poll() is not None:
        raise OSError(f"{Path(command[0]).name} ended at once; see {log}")
    return identity


def identity_of(user: str | None) -> dict[str, Any]:
    """Return the `subprocess` arguments that run a program as another user, without our groups."""
    if user is None:
        return {}
    import pwd

    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
