"""The hash chains of the audit: rows cannot be modified, deleted or inserted without the key.

There are two kinds of chain. *Events* (runs, look-ups, imports, exports, rotations, releases, withdrawals) form one
chain over the whole schema. The *links* of a run form a chain that begins at the event that begins the run and ends
with the event that finishes it; each link covers the audit rows that were recorded with it.

A *head* per chain holds how many events, or links of a project, there are and the newest hash, so that the newest ones
cannot be deleted unnoticed. Its counter can only be advanced.

Hashes are HMAC-SHA-256 under a secret of the schema that is encrypted under the key ring: without the key ring, even a
database superuser cannot forge a valid chain.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import datetime

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import copy_line
from dicom_deid.database.keys import KEY_BYTES, KeyRing, register_active_key

GENESIS = bytes(32)
"""The hash before the first event."""

SCHEMA_SECRET_PURPOSE = "schema secret"  # noqa: S105

EVENT_VERSION = 1
"""The list of fields of an event that are hashed; older events keep theirs."""

EVENTS = "events"
"""The name of the chain of events."""

_NAME = "audit chain"

_LAST_EVENT = """
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' events', 0));
SELECT clock_timestamp(), session_user::text, (SELECT hash FROM audit_event ORDER BY event_id DESC LIMIT 1),
    coalesce((SELECT counter FROM chain_head WHERE chain = %s), 0)
"""

ADVANCE = """
INSERT INTO chain_head (chain, counter, hash, mac) VALUES (%(chain)s, %(counter)s, %(hash)s, %(mac)s)
ON CONFLICT (chain) DO UPDATE SET counter = excluded.counter, hash = excluded.hash, mac = excluded.mac
"""
"""Advance the head of a chain by one; see :func:`head_parameters`."""


def chain_key(connection: DatabaseConnection, ring: KeyRing) -> bytes:
    """Return the secret of the chains, created on first use."""
    rows = _read_secret(connection)
    if not rows:
        register_active_key(connection, ring)
        cipher = ring.cipher(ring.active_id, SCHEMA_SECRET_PURPOSE)
        connection.query(
            "creating the secret of the audit",
            "INSERT INTO secret (name, secret, key_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (_NAME, cipher.encrypt(secrets.token_bytes(KEY_BYTES), _NAME.encode()), ring.active_id),
        )
        rows = _read_secret(connection)
    encrypted, key_id = rows[0]
    return ring.cipher(key_id, SCHEMA_SECRET_PURPOSE).decrypt(bytes(encrypted), _NAME.encode())


def _read_secret(connection: DatabaseConnection) -> list[tuple[bytes, str]]:
    rows = connection.query(
        "reading the secret of the audit", "SELECT secret, key_id FROM secret WHERE name = %s", (_NAME,)
    )
    return [(encrypted, key_id) for encrypted, key_id in rows]


def links_of(project: str) -> str:
    """Return the name of the chain head over all links of a project."""
    return f"links of {project}"


def event_hash(
    key: bytes, previous: bytes, version: int, recorded_at: datetime, kind: str, run_id: str | None,
    project: str | None, login: str, body: str,
) -> bytes:  # fmt: skip
    """Return the hash of an event that follows the one whose hash is `previous`."""
    text = copy_line(version, recorded_at, kind, run_id, project, login, body)
    return hmac.digest(key, previous + text.encode(), "sha256")


def link_hash(
    key: bytes, previous: bytes, version: int, link_id: int, run_id: str, position: int, batch_id: int, attempt: int,
    recorded_at: datetime, rows: int, rows_hash: bytes,
) -> bytes:  # fmt: skip
    """Return the hash of a link that follows the one whose hash is `previous`."""
    text = copy_line(version, link_id, run_id, position, batch_id, attempt, recorded_at, rows, rows_hash)
    return hmac.digest(key, previous + text.encode(), "sha256")


def head_mac(key: bytes, chain: str, counter: int, digest: bytes) -> bytes:
    """Return the authentication code of a head."""
    return hmac.digest(key, copy_line(chain, counter, digest).encode(), "sha256")


def record_event(
    connection: DatabaseConnection,
    key: bytes,
    kind: str,
    body: Mapping[str, object],
    *,
    run_id: str | None = None,
    project: str | None = None,
) -> tuple[int, bytes]:
    """Append an event and return its id and hash; committed on return unless a transaction is open.

    Events are recorded one at a time: each covers the one before it.
    """
    doing = "recording an event in the audit"
    text = json.dumps(body, sort_keys=True, ensure_ascii=False).replace("\\u0000", "\\ufffd")
    with connection.transaction(doing):
        moment, login, last, counter = connection.query(doing, _LAST_EVENT, (EVENTS,))[0]
        previous = GENESIS if last is None else bytes(last)
        digest = event_hash(key, previous, EVENT_VERSION, moment, kind, run_id, project, login, text)
        rows = connection.query(
            doing,
            ADVANCE + "; INSERT INTO audit_event (recorded_at, kind, run_id, project, body, version, previous, hash) "
            "VALUES (%(moment)s, %(kind)s, %(run)s, %(project)s, %(body)s, %(version)s, %(previous)s, %(hash)s) "
            "RETURNING event_id",
            {
                **head_parameters(key, EVENTS, counter + 1, digest),
                "moment": moment,
                "kind": kind,
                "run": run_id,
                "project": project,
                "body": text,
                "version": EVENT_VERSION,
                "previous": previous,
            },
        )
    return int(rows[0][0]), digest


def head_parameters(key: bytes, chain: str, counter: int, digest: bytes) -> dict[str, object]:
    """Return the parameters of :data:`ADVANCE`."""
    return {"chain": chain, "counter": counter, "hash": digest, "mac": head_mac(key, chain, counter, digest)}
