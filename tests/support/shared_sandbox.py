"""One sandbox for all worker processes of a test run, thrown away with the last of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.process import ProcessIdentity

# Not pytest's own temporary directory, which other users cannot enter: run by root, PostgreSQL is another user.
ROOT = Path(tempfile.gettempdir()) / f"dicom-deid-tests-{os.getuid()}"


@contextmanager
def shared_sandbox(run: str) -> Iterator[Sandbox]:
    """Start the sandbox of a test run, or join it; the last to leave throws it away.

    Sandboxes of runs that were killed are found by their dead users, and thrown away first.
    """
    ROOT.mkdir(mode=0o700, exist_ok=True)
    place = ROOT / run
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    user = place / "users" / f"{me.pid}-{me.created}"
    sandbox = Sandbox(place / "sandbox", keep=False)
    with _locked():
        for other in ROOT.iterdir():
            if other.is_dir() and not _users(other):
                _throw_away(other)
        user.parent.mkdir(parents=True, exist_ok=True)
        user.touch()
        sandbox.start()
    try:
        yield sandbox
    finally:
        with _locked():
            user.unlink()
            if not _users(place):
                _throw_away(place)


@contextmanager
def _locked() -> Iterator[None]:
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _users(place: Path) -> list[Path]:
    users = (place / "users").glob("*-*")
    return [user for user in users if ProcessIdentity(*_parse(user.name)).is_running()]


def _parse(name: str) -> tuple[int, float]:
    pid, created = name.split("-")
    return int(pid), float(created)


def _throw_away(place: Path) -> None:
    Sandbox(place / "sandbox", keep=False).stop()
    shutil.rmtree(place, ignore_errors=True)
