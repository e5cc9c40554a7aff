"""Rotation: everything that the old keys sealed is sealed again under the active one, while workers go on.

Look-ups do not depend on the ring (they use the project's secret, which is only sealed anew), so no pseudonym changes
and no worker waits. Each step commits; stopped anywhere, it is started again.
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.hash_chain import STORE_SECRET_PURPOSE, record_event
from dicom_deid.database.keys import KeyRing
from dicom_deid.database.mapping import bound_to
from dicom_deid.database.projects import SECRET_PURPOSE, original_sealer

STEP = 1_000
"""Rows that are sealed anew in one transaction."""

_ROWS = """
SELECT kind, keyed_hash, original, key_id FROM mapping WHERE project_id = %(project)s AND key_id {side} %(active)s
ORDER BY key_id LIMIT %(step)s FOR UPDATE SKIP LOCKED
"""

_UPDATE = """
UPDATE mapping m SET original = w.original, key_id = %(active)s
FROM unnest(%(kinds)s::text[], %(keyed_hashes)s::bytea[], %(originals)s::bytea[]) w (kind, keyed_hash, original)
WHERE m.project_id = %(project)s AND m.kind = w.kind AND m.keyed_hash = w.keyed_hash
"""


def rotate(connection: DatabaseConnection, ring: KeyRing, chain_key: bytes, asked: AccessReason) -> Iterator[int]:
    """Seal everything under the ring's active key, giving how many rows are done after each step.

    The ring must hold every key that still seals something. Needs the owner's role.
    """
    _record(connection, ring, chain_key, "rotation-begun", asked)
    _rotate_secrets(connection, ring, "project", SECRET_PURPOSE)
    _rotate_secrets(connection, ring, "secret", STORE_SECRET_PURPOSE)
    total = 0
    for (project_id,) in connection.query("rotating", "SELECT project_id FROM project ORDER BY project_id"):
        # Two ranges of the index on key ids, below and above the active one.
        for side in ("<", ">"):
            while count := _rotate_rows(connection, ring, project_id, side):
                total += count
                yield total
    _record(connection, ring, chain_key, "rotation-finished", asked)
    yield total


def _record(connection: DatabaseConnection, ring: KeyRing, chain_key: bytes, kind: str, asked: AccessReason) -> None:
    body = {"person": asked.person, "reason": asked.reason, "active_key": ring.active_id}
    record_event(connection, chain_key, kind, body)


def _rotate_secrets(connection: DatabaseConnection, ring: KeyRing, table: str, purpose: str) -> None:
    with connection.transaction("rotating"):
        rows = connection.query(
            "rotating",
            f"SELECT name, secret, key_id FROM {table} WHERE key_id <> %s ORDER BY name FOR UPDATE",  # noqa: S608
            (ring.active_id,),
        )
        for name, sealed, key_id in rows:
            plain = ring.cipher(key_id, purpose).open(bytes(sealed), name.encode())
            connection.query(
                "rotating",
                f"UPDATE {table} SET secret = %s, key_id = %s WHERE name = %s",  # noqa: S608
                (ring.cipher(ring.active_id, purpose).seal(plain, name.encode()), ring.active_id, name),
            )


def _rotate_rows(connection: DatabaseConnection, ring: KeyRing, project_id: int, side: str) -> int:
    parameters = {"project": project_id, "active": ring.active_id, "step": STEP}
    active = original_sealer(ring, ring.active_id, project_id)
    with connection.transaction("rotating"):
        rows = connection.query("rotating", _ROWS.format(side=side), parameters)
        sealers = {key_id: original_sealer(ring, key_id, project_id) for key_id in {row[3] for row in rows}}
        sealed = []
        for kind, keyed_hash, original, key_id in rows:
            bound = bound_to(kind, bytes(keyed_hash))
            sealed.append(active.seal(sealers[key_id].open(bytes(original), bound), bound))
        if rows:
            arrays = {"kinds": [row[0] for row in rows], "keyed_hashes": [row[1] for row in rows], "originals": sealed}
            connection.query("rotating", _UPDATE, parameters | arrays)
    return len(rows)
