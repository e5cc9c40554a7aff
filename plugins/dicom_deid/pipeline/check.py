"""Check everything that a run needs, before the first run: one line per check, OK or what to do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from dicom_deid.database import Database
from dicom_deid.database.roles import missing_rights
from dicom_deid.database.schema import HEAD, current
from dicom_deid.exceptions import ConfigurationError, DicomDeidError, Quarantine
from dicom_deid.objectstore import ObjectStore, open_object_store
from dicom_deid.objectstore.errors import RefusedError
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.reasons import Reason

_PART_BYTES = 5 * 2**20
"""Smallest part of a multipart upload that S3 accepts, except the last."""
_PROBES = ".dicom-deid-check/"
_METADATA = {"purpose": "check"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Parameters
    ----------
    name
        What was checked.
    problem
        What is wrong and what to do; empty if the check passed.
    note
        What was found, for a check that passed.
    """

    name: str
    problem: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.problem or 'OK'}{f' ({self.note})' if self.note else ''}"


def check_run(configuration: RunConfiguration, connections: Callable[[], Connections]) -> Iterator[CheckResult]:
    """Check the recipe, the keys, the database and the object stores of a run; yield one result per check.

    Small objects are written below ``.dicom-deid-check`` in the destination and the quarantine, and deleted. Nothing is
    written to the source and no run is created.

    Parameters
    ----------
    configuration
        The run to check.
    connections
        Returns the connections; called once, so that a missing connection is a result as well.
    """
    yield _result("recipe and extras", lambda: _check_recipe(configuration))
    found: list[Connections] = []
    yield _result("connections and keys", lambda: found.append(connections()))
    if not found:
        return
    yield _result("database", lambda: _check_database(configuration, found[0]))
    source = _opened(configuration.source, found[0].source)
    destination = _opened(configuration.destination, found[0].destination)
    yield _result(f"source {configuration.source}: list and read", lambda: _check_source(source()))
    yield from _check_target("destination", configuration.destination, destination)
    if configuration.quarantine:
        yield from _check_target(
            "quarantine", configuration.quarantine, _opened(configuration.quarantine, found[0].quarantine)
        )
    yield _result("server-side copy", lambda: _check_copy(source(), destination()))


def _result(name: str, check: Callable[[], str | None]) -> CheckResult:
    try:
        return CheckResult(name, note=check() or "")
    except (DicomDeidError, ValueError) as error:
        return CheckResult(name, problem=str(error))


def _opened(url: str, connection: object) -> Callable[[], ObjectStore]:
    return lambda: open_object_store(url, connection)  # type: ignore[arg-type]


def _check_recipe(configuration: RunConfiguration) -> str:
    recipe = make_deidentifier(configuration).recipe
    return f"{recipe.name}, {len(recipe.rules)} rules"


def _check_database(configuration: RunConfiguration, connections: Connections) -> str:
    with connections.open_database() as database:
        return _check_schema(database, configuration.project)


def _check_schema(database: Database, project: str) -> str:
    schema = database.connection.schema
    revision = current(database.connection)
    if revision != HEAD:
        state = "does not exist" if revision is None else "is of another version"
        raise ConfigurationError(f"the schema {schema} {state}: run `dicom-deid init`, or `dicom-deid db upgrade`")
    missing = missing_rights(database.connection, "writer")
    if missing:
        raise ConfigurationError(
            f"the login lacks {', '.join(missing)} in the schema {schema}: run "
            "`dicom-deid db roles --member writer LOGIN`"
        )
    database.project(project, create=False)
    return f"schema {schema}, project {project}"


def _check_source(source: ObjectStore) -> str:
    source.check()
    found = next(islice(source.list(), 1), None)
    if found is None:
        raise ConfigurationError(f"no object below {source.url}: check the bucket and the prefix")
    source.read(found.key, etag=found.etag, size=found.size, start=0, end=min(found.size, 1))
    return "objects are there"


def _check_target(role: str, url: str, opened: Callable[[], ObjectStore]) -> Iterator[CheckResult]:
    reached = _result(f"{role} {url}: list and multipart upload", lambda: opened().check(writable=True))
    yield reached
    if not reached.problem:
        yield _result(f"{role}: write, conditional write and delete", lambda: _check_write(opened()))


def _check_write(target: ObjectStore) -> None:
    key = f"{_PROBES}{secrets.token_hex(8)}"
    try:
        target.write(key, [b"one"], metadata=_METADATA)
        target.write(key, [b"two"], metadata=_METADATA)
    except Quarantine as error:
        if error.reason is not Reason.DESTINATION_CONFLICT:
            raise
    else:
        raise ConfigurationError(
            "the store overwrites an object that exists, because it ignores If-None-Match: set conditional_writes to "
            "false in the connection"
        )
    finally:
        target.delete(key)


def _check_copy(source: ObjectStore, destination: ObjectStore) -> str:
    """Copy a probe inside the destination; no object of the source is copied, since that would be PHI."""
    if not destination.can_copy_from(source):
        return "not between these stores: large objects pass through the worker"
    keys = [f"{_PROBES}{secrets.token_hex(8)}" for _ in range(2)]
    try:
        destination.write(keys[0], [bytes(_PART_BYTES)], metadata=_METADATA)
        probe = destination.find(keys[0])
        if probe is None:
            raise ConfigurationError("an object that was written cannot be found: check the rights to read and to list")
        upload = destination.open_multipart(keys[1], metadata=_METADATA, copies=True)
        try:
            upload.copy_part(1, 0, destination, probe, 0, probe.size)
            upload.complete()
        except RefusedError:
            upload.abort()
            return "the store refuses it: large objects pass through the worker"
        return "possible"
    finally:
        for key in keys:
            destination.delete(key)
