"""Verification of the audit: every chain is walked, and every row's digest computed again."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from dicom_deid.database.audit import AUDIT_COLUMNS
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import GENESIS, event_hash, link_hash

_EVENTS = """
SELECT event_id, recorded_at, kind, run_id::text, project, body, previous, hash FROM audit_event ORDER BY event_id
"""

_LINKS = """
SELECT link_id, position, batch_id, attempt, recorded_at, rows, rows_hash, previous, hash FROM audit_link
WHERE run_id = %s ORDER BY position
"""


class Problem(NamedTuple):
    """Something that does not verify."""

    where: str
    what: str


@dataclass
class Verification:
    """The result.

    Parameters
    ----------
    problems
        What was found wrong; empty when the audit is as it was recorded.
    events, runs, links, rows
        How much was verified.
    head
        Hash of the newest event. Kept outside the database, it later proves that the newest events still stand.
    """

    problems: list[Problem] = field(default_factory=list)
    events: int = 0
    runs: int = 0
    links: int = 0
    rows: int = 0
    head: str = ""

    def add(self, where: str, what: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(where, what))


class _Link(NamedTuple):
    link_id: int
    position: int
    batch_id: int
    attempt: int
    recorded_at: datetime
    rows: int
    rows_hash: bytes
    previous: bytes
    hash: bytes


class _Digests(io.RawIOBase):
    """Digests COPY lines by their link as they arrive; a line is a row of the audit."""

    def __init__(self) -> None:
        self.current = -1
        self.digest = hashlib.sha256()
        self.count = 0
        self.done: dict[int, tuple[int, bytes]] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        link = int(bytes(text).split(b"\t", 3)[2])
        if link != self.current:
            self.flush_link()
            self.current = link
        self.digest.update(text)
        self.count += 1
        return len(text)

    def flush_link(self) -> None:
        if self.count:
            self.done[self.current] = (self.count, self.digest.digest())
        self.digest = hashlib.sha256()
        self.count = 0


def verify(
    connection: DatabaseConnection, chain_key: bytes, *, run_id: str | None = None, expected_head: str | None = None
) -> Verification:
    """Verify the whole audit, or the rows of one run (and all events).

    Parameters
    ----------
    database, chain_key
        The audit and the secret of its chains.
    run_id
        Only this run's rows.
    expected_head
        The head of an earlier verification; it must still be part of the chain.
    """
    result = Verification()
    with connection.transaction("verifying"):
        # One snapshot: runs that record meanwhile are seen as they stand at this moment.
        connection.query("verifying", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        begun, finished, hashes = _verify_events(connection, chain_key, result)
        if expected_head is not None and expected_head.lower() not in hashes:
            result.add("events", "the expected head is not in the chain: newer events were taken out or changed")
        for run in [run_id] if run_id else _runs(connection, begun):
            _verify_run(connection, chain_key, run, begun.get(run), finished.get(run), result)
        if run_id is None:
            _verify_nothing_else(connection, result)
    return result


def _verify_events(
    connection: DatabaseConnection, chain_key: bytes, result: Verification
) -> tuple[dict[str, bytes], dict[str, dict[str, Any]], set[str]]:
    begun: dict[str, bytes] = {}
    finished: dict[str, dict[str, Any]] = {}
    hashes: set[str] = set()
    previous = GENESIS
    for event_id, at, kind, run, project, body, its_previous, its_hash in connection.rows(
        "verifying the events", _EVENTS
    ):
        where = f"event {event_id}"
        if bytes(its_previous) != previous:
            result.add(where, "does not follow the event before it: one was taken out or slipped in")
        expected = event_hash(chain_key, bytes(its_previous), at, kind, run, project, body)
        if not hmac.compare_digest(expected, bytes(its_hash)):
            result.add(where, "was changed, or made without the store's secret")
        previous = bytes(its_hash)
        hashes.add(previous.hex())
        if kind == "run-begun" and run is not None:
            begun.setdefault(run, previous)
        if kind == "run-finished" and run is not None:
            finished[run] = json.loads(body)
        result.events += 1
    result.head = previous.hex()
    return begun, finished, hashes


def _runs(connection: DatabaseConnection, begun: dict[str, bytes]) -> Iterator[str]:
    yield from begun
    rows = connection.query("verifying the runs", "SELECT DISTINCT run_id::text FROM audit_link")
    yield from (run for (run,) in rows if run not in begun)


def _verify_run(
    connection: DatabaseConnection,
    chain_key: bytes,
    run_id: str,
    begun: bytes | None,
    finished: dict[str, Any] | None,
    result: Verification,
) -> None:
    result.runs += 1
    where = f"run {run_id}"
    if begun is None:
        result.add(where, "has no event of its beginning")
    digests = _digests(connection, run_id)
    previous, position = begun or b"", 0
    hashes = [previous.hex()]
    for link in _links(connection, run_id):
        position += 1
        _verify_link(chain_key, run_id, link, (position, previous), digests.done.pop(link.link_id, None), result)
        position, previous = link.position, link.hash
        hashes.append(previous.hex())
    if digests.done:
        result.add(where, f"{len(digests.done)} groups of rows belong to no link: they were slipped in")
    if finished is not None and not _covers(finished, hashes):
        result.add(where, "links that its end covers are missing: they were taken out")


def _covers(finished: dict[str, Any], hashes: list[str]) -> bool:
    links = int(finished["links"])
    return links == 0 or (links < len(hashes) and hashes[links] == finished["last_link"])


def _verify_link(
    chain_key: bytes,
    run_id: str,
    link: _Link,
    expected: tuple[int, bytes],
    rows: tuple[int, bytes] | None,
    result: Verification,
) -> None:
    where = f"run {run_id}, link {link.position} (batch {link.batch_id})"
    result.links += 1
    count, digest = rows or (0, b"")
    result.rows += count
    if (link.position, link.previous) != expected:
        result.add(where, "does not follow the link before it: one was taken out or slipped in")
    computed = link_hash(
        chain_key, link.previous, link.link_id, run_id, link.position, link.batch_id, link.attempt, link.recorded_at,
        link.rows, link.rows_hash,
    )  # fmt: skip
    if not hmac.compare_digest(computed, link.hash):
        result.add(where, "was changed, or made without the store's secret")
    if count != link.rows:
        result.add(where, f"covers {link.rows} rows, but there are {count}")
    elif digest != link.rows_hash:
        result.add(where, "a row was changed")


def _links(connection: DatabaseConnection, run_id: str) -> Iterator[_Link]:
    for row in connection.rows("verifying the links", _LINKS, (run_id,)):
        yield _Link(*row[:6], *map(bytes, row[6:]))


def _digests(connection: DatabaseConnection, run_id: str) -> _Digests:
    digests = _Digests()
    columns = ", ".join(AUDIT_COLUMNS)
    connection.copy_out(
        "verifying the rows",
        f"SELECT {columns} FROM audit WHERE run_id = %s ORDER BY run_id, link_id, number",  # noqa: S608
        (run_id,),
        digests,
    )
    digests.flush_link()
    return digests


def _verify_nothing_else(connection: DatabaseConnection, result: Verification) -> None:
    """Rows of runs that nobody began would be met by no chain."""
    rows = connection.query(
        "verifying the rows",
        "SELECT count(*) FROM audit a WHERE NOT EXISTS (SELECT FROM audit_link l WHERE l.link_id = a.link_id "
        "AND l.run_id = a.run_id)",
    )
    if rows[0][0]:
        result.add("audit", f"{rows[0][0]} rows belong to no link of their run: they were slipped in")
