"""Fixtures that all tests share: real servers, a fresh bucket, a fresh database."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from hypothesis import settings
from tests.support.programs import missing_programs
from tests.support.shared_sandbox import shared_sandbox

from dicom_deid.sandbox import S3Service, Sandbox

# What fails in continuous integration fails again where it is looked into; elsewhere every run draws anew.
settings.register_profile("reproducible", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("reproducible")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which programs are missing on this machine, and how to install them."""
    reports = terminalreporter.stats.get("skipped", [])
    lines = missing_programs(report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple))
    if lines:
        terminalreporter.section("missing programs")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def sandbox_servers(testrun_uid: str) -> Iterator[Sandbox]:
    """One SeaweedFS and one PostgreSQL for the whole test session, shared by its worker processes."""
    with shared_sandbox(testrun_uid) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def s3(sandbox_servers: Sandbox) -> S3Service:
    """The S3 server: `.endpoint_url`, `.access_key`, `.secret_key`, `.region`, `.client()`, `.environment()`."""
    return sandbox_servers.s3


@pytest.fixture
def s3_bucket(s3: S3Service) -> Iterator[str]:
    """The name of a fresh bucket, deleted afterwards with all that is in it."""
    client = s3.client()
    name = f"test-{uuid.uuid4().hex[:16]}"
    client.create_bucket(Bucket=name)
    yield name
    client.delete_bucket(Bucket=name)


@pytest.fixture
def postgres_url(sandbox_servers: Sandbox) -> Iterator[str]:
    """The URL of a fresh, empty database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with closing(psycopg2.connect(sandbox_servers.postgres_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            yield sandbox_servers.database_url(name)
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
