"""What happened to an object: from its source key forwards, or from its destination key back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.plan import object_hash
from dicom_deid.database.projects import Project, open_key


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One audit row, as a person reads it.

    Parameters
    ----------
    source_key
        The source key, when it was asked for in the open; it may name a patient.
    key_hash
        The digest that stands for the source key.
    """

    recorded_at: datetime
    run_id: str
    batch_id: int
    attempt: int
    project: str
    source: str
    key_hash: str
    source_key: str | None = field(repr=False)
    source_etag: str
    source_size: int
    destination: str
    destination_key: str | None
    destination_size: int | None
    sha256_in: str | None
    sha256_out: str | None
    outcome: str
    reason: str | None
    detail: str
    recipe_digest: str
    settings_digest: str
    package_version: str
    sop_class_uid: str | None
    actions: str
    notes: str
    milliseconds: int


_TRACE = """
SELECT recorded_at, run_id::text, batch_id, attempt, project, source, key_hash::text, encrypted_key, source_etag,
       source_size, destination, destination_key, destination_size, encode(sha256_in, 'hex'),
       encode(sha256_out, 'hex'), outcome, reason, detail, encode(recipe_digest, 'hex'),
       encode(settings_digest, 'hex'), package_version, sop_class_uid, actions, notes, milliseconds
FROM audit WHERE key_hash = ANY (%(hashes)s::uuid[]) OR destination_key = ANY (%(keys)s)
ORDER BY recorded_at, link_id, number
"""


def trace(
    connection: DatabaseConnection,
    projects: list[Project],
    key: str,
    *,
    reveal: Callable[[Project], None] | None = None,
) -> list[AuditRecord]:
    """Return every attempt at an object, the oldest first.

    Parameters
    ----------
    database
        The audit.
    projects
        Those whose objects may be meant.
    key
        A source key or a destination key, bare or with its address before it (`s3://bucket/prefix/key`).
    reveal
        Called once for a project before its source keys are opened, so that the access can be recorded. Without it
        source keys are not shown.
    """
    keys = _without_address(connection, key)
    hashes = [object_hash(project, each) for project in projects for each in keys]
    by_name = {project.name: project for project in projects}
    rows = connection.query("tracing an object", _TRACE, {"hashes": hashes, "keys": keys})
    if reveal is not None:
        for name in sorted({row[4] for row in rows} & by_name.keys()):
            reveal(by_name[name])
    return [_traced(row, by_name.get(row[4]) if reveal else None) for row in rows]


def _traced(row: tuple[Any, ...], project: Project | None) -> AuditRecord:
    values: dict[str, Any] = dict(zip(AuditRecord.__dataclass_fields__, row, strict=True))
    sealed = values["source_key"]
    values["source_key"] = None if project is None else open_key(project, values["key_hash"], sealed)
    return AuditRecord(**values)


def _without_address(connection: DatabaseConnection, key: str) -> list[str]:
    """Return the key as given and without each address of the store that it begins with."""
    rows = connection.query(
        "tracing an object", "SELECT source FROM work_scope UNION SELECT destination FROM work_scope"
    )
    addresses = [address for (address,) in rows if key.startswith(address)]
    bare = [key[len(address) :].lstrip("/") for address in addresses]
    if key.startswith("s3://"):
        bare.append(key.removeprefix("s3://").partition("/")[2])
    return list(dict.fromkeys([key, *bare]))
