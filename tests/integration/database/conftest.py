"""A store in a fresh database, and the steps that most tests take."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pytest

from dicom_deid.database import AuditRow, Database, KeyRing, RunRequest
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.objects import SourceObject
from dicom_deid.reasons import Outcome

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


class Steps:
    """What a pipeline does with a store, without objects."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def listing(
        self, count: int, *, size: int = 1000, etag: str = "e", start: int = 0, modified: datetime = WHEN
    ) -> list[SourceObject]:
        numbers = range(start, start + count)
        return [SourceObject(f"DOE^JOHN/{number}.dcm", size, etag, modified) for number in numbers]

    def begin(self, **changes: object) -> str:
        request = {
            "project": "p",
            "source": "s3://in/",
            "destination": "s3://out/",
            "recipe_name": "desktop",
            "recipe_digest": "ab" * 32,
            "settings_digest": "cd" * 32,
        }
        return self.database.start_run(RunRequest(**request | changes))

    def row(self, item, outcome=Outcome.DEIDENTIFIED, **more) -> AuditRow:
        written = {"destination_key": f"d/{item.item_id}", "destination_size": 9, "sha256_out": "12" * 32}
        return AuditRow(item=item, outcome=outcome, **(written if outcome is Outcome.DEIDENTIFIED else {}) | more)

    def wait_for_sessions(self, count: int) -> None:
        """Wait until the server has noticed that connections ended, which takes it some milliseconds."""
        deadline = time.monotonic() + 10
        count_them = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        while self.database.connection.query("test", count_them)[0][0] > count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def work(self, batches: Iterable, outcome=Outcome.DEIDENTIFIED, **more) -> list[str]:
        """Do every batch to its end and return the source keys that were done."""
        done = []
        for reference in batches:
            lease = self.database.lease(reference.batch_id, "worker")
            if lease is None:
                continue
            items = lease.items()
            lease.record([self.row(item, outcome, **more) for item in items])
            lease.finish()
            done += [item.key for item in items]
        return done


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest.fixture(scope="session")
def template(sandbox_servers) -> Iterator[str]:
    """The name of a database that holds the schema and nothing else; copying it is quicker than migrating each time."""
    name = f"template_{uuid.uuid4().hex[:16]}"
    server = DatabaseConnection(sandbox_servers.postgres_url)
    server.query("test", f"CREATE DATABASE {name}")
    with Database.connect(sandbox_servers.database_url(name)) as database:
        database.upgrade()
    yield name
    server.query("test", f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.fixture
def store_url(sandbox_servers, template) -> Iterator[str]:
    """The URL of a fresh database with the schema in it."""
    name = f"store_{uuid.uuid4().hex[:16]}"
    server = DatabaseConnection(sandbox_servers.postgres_url)
    server.query("test", f"CREATE DATABASE {name} TEMPLATE {template}")
    yield sandbox_servers.database_url(name)
    server.query("test", f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.fixture
def database(store_url, keys):
    with Database.connect(store_url, keys=keys) as database:
        database.project("p")
        yield database


@pytest.fixture
def steps(database) -> Steps:
    return Steps(database)


@pytest.fixture
def second(store_url, keys, database):
    """Another connection to the same store, as another worker has one."""
    with Database.connect(store_url, keys=keys) as second:
        yield second
