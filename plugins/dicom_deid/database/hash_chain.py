"""The hash chains of the audit: what was recorded cannot be changed, taken out or slipped in without its keys.

There are two kinds of chain. *Events* (runs begun and finished, look-ups, imports, exports, rotations) form one chain
over the whole store. The *links* of a run form a chain that begins at the event of its beginning and is sealed by the
event of its end; each link covers the audit rows that were recorded with it.

A hash is HMAC-SHA-256 under a secret of the store that is sealed under the key ring: whoever can write to the database
but lacks the key ring cannot make a chain that verifies.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import line
from dicom_deid.database.keys import KEY_BYTES, KeyRing

GENESIS = bytes(32)
"""What the first event covers."""

STORE_SECRET_PURPOSE = "store secret"  # noqa: S105

_NAME = "audit chain"


def chain_key(connection: DatabaseConnection, ring: KeyRing) -> bytes:
    """Return the secret of the chains, made on first use."""
    rows = _read_secret(connection)
    if not rows:
        sealed = ring.cipher(ring.active_id, STORE_SECRET_PURPOSE).seal(secrets.token_bytes(KEY_BYTES), _NAME.encode())
        connection.query(
            "making the secret of the audit",
            "INSERT INTO secret (name, secret, key_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (_NAME, sealed, ring.active_id),
        )
        rows = _read_secret(connection)
    sealed, key_id = rows[0]
    return ring.cipher(key_id, STORE_SECRET_PURPOSE).open(bytes(sealed), _NAME.encode())


def _read_secret(connection: DatabaseConnection) -> list[tuple[bytes, str]]:
    rows = connection.query(
        "reading the secret of the audit", "SELECT secret, key_id FROM secret WHERE name = %s", (_NAME,)
    )
    return [(sealed, key_id) for sealed, key_id in rows]


def event_hash(
    key: bytes, previous: bytes, recorded_at: datetime, kind: str, run_id: str | None, project: str | None, body: str
) -> bytes:
    """Return the hash of an event that follows the one whose hash is `previous`."""
    return hmac.digest(key, previous + line(recorded_at, kind, run_id, project, body).encode(), "sha256")


def link_hash(
    key: bytes, previous: bytes, link_id: int, run_id: str, position: int, batch_id: int, attempt: int,
    recorded_at: datetime, rows: int, rows_hash: bytes,
) -> bytes:  # fmt: skip
    """Return the hash of a link that follows the one whose hash is `previous`."""
    text = line(link_id, run_id, position, batch_id, attempt, recorded_at, rows, rows_hash)
    return hmac.digest(key, previous + text.encode(), "sha256")


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

    Events take turns: each covers the one before it.
    """
    doing = "recording an event in the audit"
    text = json.dumps(body, sort_keys=True, ensure_ascii=False).replace("\\u0000", "\\ufffd")
    with connection.transaction(doing):
        connection.query(doing, "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' events', 0))")
        last = connection.query(doing, "SELECT hash FROM audit_event ORDER BY event_id DESC LIMIT 1")
        previous = bytes(last[0][0]) if last else GENESIS
        moment = datetime.now(UTC)
        digest = event_hash(key, previous, moment, kind, run_id, project, text)
        rows = connection.query(
            doing,
            "INSERT INTO audit_event (recorded_at, kind, run_id, project, body, previous, hash) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING event_id",
            (moment, kind, run_id, project, text, previous, digest),
        )
    return int(rows[0][0]), digest
