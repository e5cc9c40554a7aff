"""Verification of the audit: every chain is followed, every digest is computed again, and the tables are compared."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from dicom_deid.database.audit import AUDIT_COLUMNS
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import EVENTS, GENESIS, event_hash, head_mac, link_hash, links_of
from dicom_deid.database.mapping import row_check
from dicom_deid.database.projects import Project

_EVENTS = """
SELECT event_id, recorded_at, kind, run_id::text, project, body, version, login, previous, hash FROM audit_event
ORDER BY event_id
"""

_LINKS = """
SELECT link_id, position, batch_id, attempt, recorded_at, version, rows, rows_hash, previous, hash FROM audit_link
WHERE run_id = %s ORDER BY position
"""

_STRAY_ROWS = """
SELECT count(*) FROM audit a
WHERE NOT EXISTS (SELECT FROM audit_link l WHERE l.link_id = a.link_id AND l.run_id = a.run_id)
"""

_MAPPING_COLUMNS = "project_id, kind, keyed_hash, pseudonym, row_check"

_ALL_COLUMNS_READABLE = """
SELECT bool_and(has_column_privilege('mapping', name, 'SELECT'))
FROM unnest(string_to_array(%s, ', ')) name
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
        Everything that is wrong; empty when the audit is as it was recorded.
    events, runs, links, rows, pseudonyms
        Numbers of what was verified. `pseudonyms` is None where the login may not read the mapping.
    head
        Number of events and hash of the newest. Kept outside the database, it later proves that they still exist.
    """

    problems: list[Problem] = field(default_factory=list)
    events: int = 0
    runs: int = 0
    links: int = 0
    rows: int = 0
    pseudonyms: int | None = None
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
    version: int
    rows: int
    rows_hash: bytes
    previous: bytes
    hash: bytes


@dataclass
class _Run:
    """The events of a run or a withdrawal."""

    begun: bytes
    is_withdrawal: bool
    project: str
    request: dict[str, Any]
    ends: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Events:
    """The runs, projects and withdrawals that the events name."""

    runs: dict[str, _Run] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    withdrawn: Counter[str] = field(default_factory=Counter)


@dataclass
class _Links:
    """The links of all runs of a project: their number, and the newest hash of each run."""

    count: int = 0
    newest: set[bytes] = field(default_factory=set)


class _Digests(io.RawIOBase):
    """Digest COPY lines by their link as they arrive; a line is a row of the audit."""

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
    connection: DatabaseConnection,
    chain_key: bytes,
    projects: Mapping[str, Project],
    *,
    run_id: str | None = None,
    expected_head: str | None = None,
) -> Verification:
    """Verify the whole audit and the mapping, or the rows of one run (and all events).

    Parameters
    ----------
    connection, chain_key
        The audit and the secret of its chains.
    projects
        All projects that were not deleted, by name.
    run_id
        Only this run's rows.
    expected_head
        The head of an earlier verification or report; it must still be part of the chain.
    """
    result = Verification()
    with connection.transaction("verifying"):
        # One snapshot: runs that record meanwhile are seen as they are at this moment.
        connection.query("verifying", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        events = _verify_events(connection, chain_key, result)
        if expected_head is not None and expected_head.lower().rpartition(":")[2] not in events.hashes:
            result.add("events", "the expected head is not in the chain: newer events were deleted or changed")
        last: dict[str, _Links] = {}
        for run in [run_id] if run_id else _runs(connection, events):
            _verify_run(connection, chain_key, run, events.runs.get(run), result, last)
        if run_id is None:
            _verify_heads(connection, chain_key, last, result)
            _verify_run_table(connection, events, result)
            _verify_projects(connection, events, result)
            _verify_withdrawals(connection, events, result)
            _verify_stray_rows(connection, result)
            _verify_mapping(connection, projects, result)
    return result


def _verify_events(connection: DatabaseConnection, chain_key: bytes, result: Verification) -> _Events:
    events = _Events()
    previous = GENESIS
    for row in connection.rows("verifying the events", _EVENTS):
        event_id, at, kind, run, project, body, version, login, its_previous, its_hash = row
        where = f"event {event_id}"
        if bytes(its_previous) != previous:
            result.add(where, "does not follow the event before it: one was deleted or inserted")
        expected = event_hash(chain_key, bytes(its_previous), version, at, kind, run, project, login, body)
        if not hmac.compare_digest(expected, bytes(its_hash)):
            result.add(where, "was changed, or made without the secret of the audit")
            body = "{}"
        previous = bytes(its_hash)
        events.hashes.add(previous.hex())
        _note_event(events, kind, run, project, json.loads(body), previous)
        result.events += 1
    result.head = f"{result.events}:{previous.hex()}"
    _compare_head(connection, chain_key, EVENTS, result.events, {previous}, result)
    return events


def _note_event(
    events: _Events, kind: str, run: str | None, project: str | None, body: dict[str, Any], digest: bytes
) -> None:
    if run is not None:
        _note_run_event(events, kind, run, project or "", body, digest)
    if kind == "project-created" and project is not None:
        events.created.add(project)
    if kind == "project-deleted" and project is not None:
        events.deleted.add(project)
        for each, begun in events.runs.items():
            if begun.project == project:
                events.withdrawn.pop(each, None)
    if kind == "patient-erased":
        events.withdrawn.subtract(body.get("forgotten", {}))


def _note_run_event(events: _Events, kind: str, run: str, project: str, body: dict[str, Any], digest: bytes) -> None:
    """Note an event of a run or a withdrawal."""
    if kind in ("run-begun", "withdrawal-begun"):
        events.runs.setdefault(run, _Run(digest, kind == "withdrawal-begun", project, body))
    if kind in ("run-finished", "withdrawal-finished") and run in events.runs:
        events.runs[run].ends.append(body)
    if kind == "withdrawal-begun":
        events.withdrawn[run] = int(body.get("identifiers", 0))
    if kind == "withdrawal-undone":
        events.withdrawn[run] = 0


def _compare_head(
    connection: DatabaseConnection, chain_key: bytes, chain: str, count: int, newest: set[bytes], result: Verification
) -> None:
    rows = connection.query(
        "verifying the heads", "SELECT counter, hash, mac FROM chain_head WHERE chain = %s", (chain,)
    )
    if not rows:
        if count:
            result.add(chain, "the head of the chain was deleted")
        return
    counter, digest, mac = rows[0]
    if not hmac.compare_digest(head_mac(chain_key, chain, counter, bytes(digest)), bytes(mac)):
        result.add(chain, "the head of the chain was changed, or made without the secret of the audit")
    elif counter != count:
        result.add(chain, f"there are {count}, but {counter} were recorded: some were deleted or inserted")
    elif bytes(digest) not in newest:
        result.add(chain, "the newest is not the one that was recorded last")


def _runs(connection: DatabaseConnection, events: _Events) -> Iterator[str]:
    yield from events.runs
    rows = connection.query("verifying the runs", "SELECT DISTINCT run_id::text FROM audit_link")
    yield from (run for (run,) in rows if run not in events.runs)


def _verify_run(
    connection: DatabaseConnection,
    chain_key: bytes,
    run_id: str,
    run: _Run | None,
    result: Verification,
    last: dict[str, _Links],
) -> None:
    result.runs += 1
    where = f"run {run_id}"
    if run is None:
        result.add(where, "has no event of its beginning")
    digests = _digests(connection, run_id)
    previous, position = run.begun if run else b"", 0
    hashes = [previous.hex()]
    for link in _links(connection, run_id):
        position += 1
        _verify_link(chain_key, run_id, link, (position, previous), digests.pop(link.link_id, None), result)
        position, previous = link.position, link.hash
        hashes.append(previous.hex())
    if run is not None:
        links = last.setdefault(run.project, _Links())
        links.count += len(hashes) - 1
        links.newest.add(previous)
        if not all(_covers(end, hashes) for end in run.ends):
            result.add(where, "links that its end covers are missing: they were deleted")


def _covers(finished: dict[str, Any], hashes: list[str]) -> bool:
    links = int(finished.get("links", 0))
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
        result.add(where, "does not follow the link before it: one was deleted or inserted")
    computed = link_hash(
        chain_key, link.previous, link.version, link.link_id, run_id, link.position, link.batch_id, link.attempt,
        link.recorded_at, link.rows, link.rows_hash,
    )  # fmt: skip
    if not hmac.compare_digest(computed, link.hash):
        result.add(where, "was changed, or made without the secret of the audit")
    if count != link.rows:
        result.add(where, f"covers {link.rows} rows, but there are {count}")
    elif digest != link.rows_hash:
        result.add(where, "a row was changed")


def _links(connection: DatabaseConnection, run_id: str) -> Iterator[_Link]:
    for row in connection.rows("verifying the links", _LINKS, (run_id,)):
        yield _Link(*row[:7], *map(bytes, row[7:]))


def _digests(connection: DatabaseConnection, run_id: str) -> dict[int, tuple[int, bytes]]:
    """Return number and digest of the rows of each link, by the columns that its version names."""
    found: dict[int, tuple[int, bytes]] = {}
    versions = connection.query(
        "verifying the rows", "SELECT DISTINCT version FROM audit_link WHERE run_id = %s", (run_id,)
    )
    for (version,) in versions:
        digests = _Digests()
        columns = ", ".join(AUDIT_COLUMNS.get(version, AUDIT_COLUMNS[1]))
        connection.copy_out(
            "verifying the rows",
            f"SELECT {columns} FROM audit WHERE run_id = %(run)s AND link_id IN "  # noqa: S608 - constants
            "(SELECT link_id FROM audit_link WHERE run_id = %(run)s AND version = %(version)s) "
            "ORDER BY run_id, link_id, number",
            {"run": run_id, "version": version},
            digests,
        )
        digests.flush_link()
        found |= digests.done
    return found


def _verify_heads(
    connection: DatabaseConnection,
    chain_key: bytes,
    last: Mapping[str, _Links],
    result: Verification,
) -> None:
    known = {links_of(project): each for project, each in last.items()}
    recorded = connection.query("verifying the heads", "SELECT chain FROM chain_head WHERE chain <> %s", (EVENTS,))
    for chain in sorted(known.keys() | {chain for (chain,) in recorded}):
        links = known.get(chain, _Links())
        _compare_head(connection, chain_key, chain, links.count, links.newest, result)


def _verify_run_table(connection: DatabaseConnection, events: _Events, result: Verification) -> None:
    """Compare the runs with the events of their beginning and end."""
    rows = connection.query("verifying the runs", "SELECT run_id::text, request, state FROM run")
    for run_id, request, state in rows:
        where = f"run {run_id}"
        run = events.runs.get(run_id)
        if run is None:
            result.add(where, "is in the table of runs, but has no event of its beginning")
        elif json.loads(request) != run.request:
            result.add(where, "its request differs from the event of its beginning")
        elif state != "running" and (not run.ends or run.ends[-1].get("state") != state):
            result.add(where, "its state differs from the event of its end")
    missing = {run_id for run_id, run in events.runs.items() if not run.is_withdrawal} - {row[0] for row in rows}
    for run_id in sorted(missing):
        result.add(f"run {run_id}", "was deleted from the table of runs")


def _verify_projects(connection: DatabaseConnection, events: _Events, result: Verification) -> None:
    rows = connection.query("verifying the projects", "SELECT name, deleted_at IS NOT NULL FROM project")
    for name, is_deleted in rows:
        if name not in events.created:
            result.add(f"project {name}", "has no event of its creation")
        if is_deleted != (name in events.deleted):
            result.add(f"project {name}", "was deleted, or restored, without an event")
    for name in sorted(events.created - {name for name, _ in rows}):
        result.add(f"project {name}", "was deleted from the table of projects")


def _verify_withdrawals(connection: DatabaseConnection, events: _Events, result: Verification) -> None:
    rows = connection.query(
        "verifying the withdrawals", "SELECT withdrawal_id::text, count(*) FROM withdrawn GROUP BY withdrawal_id"
    )
    remembered = Counter(dict(rows))
    for withdrawal in sorted(remembered.keys() | events.withdrawn.keys()):
        if remembered[withdrawal] != events.withdrawn[withdrawal]:
            result.add(
                f"withdrawal {withdrawal}",
                f"remembers {remembered[withdrawal]} identifiers, but {events.withdrawn[withdrawal]} were recorded",
            )


def _verify_stray_rows(connection: DatabaseConnection, result: Verification) -> None:
    rows = connection.query("verifying the rows", _STRAY_ROWS)
    if rows[0][0]:
        result.add("audit", f"{rows[0][0]} rows belong to no link of their run: they were inserted")


def _verify_mapping(connection: DatabaseConnection, projects: Mapping[str, Project], result: Verification) -> None:
    """Verify that every pseudonym belongs to its row, where the login may read them."""
    if not connection.query("verifying the mapping", _ALL_COLUMNS_READABLE, (_MAPPING_COLUMNS,))[0][0]:
        return
    by_id = {project.project_id: project for project in projects.values()}
    wrong: Counter[str] = Counter()
    result.pseudonyms = 0
    for project_id, kind, keyed_hash, pseudonym, check in connection.rows(
        "verifying the mapping",
        f"SELECT {_MAPPING_COLUMNS} FROM mapping",  # noqa: S608 - constants
    ):
        result.pseudonyms += 1
        project = by_id.get(project_id)
        expected = b"" if project is None else row_check(project, kind, bytes(keyed_hash), pseudonym)
        if project is None or not hmac.compare_digest(expected, bytes(check)):
            wrong[kind] += 1
    for kind, count in sorted(wrong.items()):
        result.add("mapping", f"{count} pseudonyms of kind {kind} were changed or moved to another row")
