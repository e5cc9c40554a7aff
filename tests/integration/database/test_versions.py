"""The other versions of PostgreSQL that this machine has (Debian's packages): the same work, the same results."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from dicom_deid.database import AccessReason, Database, schema
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.roles import create_roles
from dicom_deid.exceptions import DatabaseError
from dicom_deid.identifiers import Identifier, IdentifierKind

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(params=PROGRAMS, ids=[path.parent.name for path in PROGRAMS])
def other_url(request):
    """A server of another version; PostgreSQL refuses to run as root, so root starts it as `nobody`."""
    user = "nobody" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="dicom-deid-version-"))
    if user:
        shutil.chown(directory, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"user": user, "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data = directory / "data"
    subprocess.run([request.param / "initdb", "-D", data, "-U", "me", "--no-sync", "--auth=trust"], check=True, **quiet)
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    server = subprocess.Popen([request.param / "postgres", "-D", data, "-F", *options], **quiet)
    url = f"postgresql://me@127.0.0.1:{port}/postgres"
    deadline = time.monotonic() + 30
    while True:
        try:
            DatabaseConnection(url).connect()
            break
        except DatabaseError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield url
    server.terminate()
    server.wait()
    shutil.rmtree(directory)


def test_the_whole_work_on_another_version(other_url, keys, steps):
    with Database.connect(other_url, keys=keys) as database:
        database.upgrade()
        create_roles(database.connection)
        project = database.project("p")
        identifiers = [Identifier(kind, str(number)) for kind in IdentifierKind for number in range(20)]
        found = database.mapping(project).resolve(identifiers)
        assert database.mapping(project).resolve(identifiers) == found
        steps.database = database
        run = steps.begin()
        steps.work(database.plan(run, steps.listing(50), batch_objects=20).batches)
        database.finish_run(run, "succeeded")
        assert database.report(run).outcomes == {"deidentified": 50}
        assert database.plan(steps.begin(), steps.listing(50)).planned == 0
        assert database.verify().problems == []
        assert len(database.trace("d/1")) == 1
        asked = AccessReason(person="Dr Strand", reason="adverse event")
        assert len(list(database.crosswalk(project).export(asked))) == len(identifiers)
        assert list(database.rotate(asked)) == [0]
        schema.downgrade(database.connection, "base")
        database.upgrade()
