"""Key rotation: everything that older keys encrypted is encrypted again under the active one, while workers go on.

Look-ups do not depend on the ring (they use the project's secret, which is only encrypted again), so no pseudonym
changes and no worker waits. Each step commits; a rotation that was stopped is started again.
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.hash_chain import SCHEMA_SECRET_PURPOSE, record_event
from dicom_deid.database.keys import KeyRing, register_active_key
from dicom_deid.database.mapping import bound_to
from dicom_deid.database.projects import SECRET_PURPOSE, original_cipher

STEP = 1_000
"""Number of rows that are encrypted again in one transaction."""

_ROWS = """
SELECT kind, keyed_hash, original, key_id FROM mapping WHERE project_id = %(project)s AND key_id {side} %(active)s
ORDER BY key_id LIMIT %(step)s FOR UPDATE SKIP LOCKED
"""

_UPDATE = """
UPDATE mapping m SET original = w.original, key_id = %(active)s
FROM unnest(%(kinds)s::text[], %(keyed_hashes)s::bytea[], %(originals)s::bytea[]) w (kind, keyed_hash, original)
WHERE m.project_id = %(project)s AND m.kind = w.kind AND m.keyed_hash = w.keyed_hash
"""


def rotate(connection: DatabaseConnection, ring: KeyRing, chain_key: bytes, access: AccessReason) -> Iterator[int]:
    """Encrypt everything under the ring's active key, and yield the number of rows done after each step.

    The ring must hold every key that still encrypts something. Needs the owner's role.
    """
    register_active_key(connection, ring)
    _record(connection, ring, chain_key, "rotation-begun", access)
    _rotate_secrets(connection, ring, "project", SECRET_PURPOSE)
    _rotate_secrets(connection, ring, "secret", SCHEMA_SECRET_PURPOSE)
    total = 0
    for (project_id,) in connection.query("rotating", "SELECT project_id FROM project ORDER BY project_id"):
        # Two ranges of the index on key ids, below and above the active one.
        for side in ("<", ">"):
            while count := _rotate_rows(connection, ring, project_id, side):
                total += count
                yield total
    _record(connection, ring, chain_key, "rotation-finished", access)
    yield total


def keys_in_use(connection: DatabaseConnection) -> dict[str, int]:
    """Return how many values each key still encrypts, by key id: originals and secrets."""
    rows = connection.query(
        "counting what each key encrypts",
        "SELECT key_id, sum(n)::bigint FROM (SELECT key_id, count(*) n FROM mapping GROUP BY key_id UNION ALL "
        "SELECT key_id, count(*) FROM project WHERE deleted_at IS NULL GROUP BY key_id UNION ALL "
        "SELECT key_id, count(*) FROM secret GROUP BY key_id) counts GROUP BY key_id ORDER BY key_id",
    )
    return dict(rows)


def _record(connection: DatabaseConnection, ring: KeyRing, chain_key: bytes, kind: str, access: AccessReason) -> None:
    body = {"person": access.person, "reason": access.reason, "active_key": ring.active_id}
    record_event(connection, chain_key, kind, body)


def _rotate_secrets(connection: DatabaseConnection, ring: KeyRing, table: str, purpose: str) -> None:
    with connection.transaction("rotating"):
        rows = connection.query(
            "rotating",
            f"SELECT name, secret, key_id FROM {table} WHERE key_id <> %s AND secret <> '' "  # noqa: S608
            "ORDER BY name FOR UPDATE",
            (ring.active_id,),
        )
        for name, encrypted, key_id in rows:
            plain = ring.cipher(key_id, purpose).decrypt(bytes(encrypted), name.encode())
            connection.query(
                "rotating",
                f"UPDATE {table} SET secret = %s, key_id = %s WHERE name = %s",  # noqa: S608
                (ring.cipher(ring.active_id, purpose).encrypt(plain, name.encode()), ring.active_id, name),
            )


def _rotate_rows(connection: DatabaseConnection, ring: KeyRing, project_id: int, side: str) -> int:
    parameters = {"project": project_id, "active": ring.active_id, "step": STEP}
    active = original_cipher(ring, ring.active_id, project_id)
    with connection.transaction("rotating"):
        rows = connection.query("rotating", _ROWS.format(side=side), parameters)
        ciphers = {key_id: original_cipher(ring, key_id, project_id) for key_id in {row[3] for row in rows}}
        encrypted = []
        for kind, keyed_hash, original, key_id in rows:
            bound = bound_to(kind, bytes(keyed_hash))
            encrypted.append(active.encrypt(ciphers[key_id].decrypt(bytes(original), bound), bound))
        if rows:
            arrays = {
                "kinds": [row[0] for row in rows],
                "keyed_hashes": [row[1] for row in rows],
                "originals": encrypted,
            }
            connection.query("rotating", _UPDATE, parameters | arrays)
    return len(rows)
