"""Access to originals: who, why, and an event in the audit before the first row is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.keys import Cipher, KeyRing
from dicom_deid.database.mapping import bound_to, keyed_hash_of
from dicom_deid.database.projects import Project, original_sealer
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import Identifier, IdentifierKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReason:
    """Who does something that the audit must show, and why.

    Parameters
    ----------
    person
        Who, as the caller knows them; the database adds its own login.
    reason
        Why: at least a few words.
    """

    person: str
    reason: str

    def __post_init__(self) -> None:
        if not self.person.strip() or len(self.reason.strip()) < 5:
            raise ConfigurationError("Say who asks, and why, in a few words: both go into the audit.")


class CrosswalkRow(NamedTuple):
    """A row of the crosswalk. PHI."""

    original: Identifier
    pseudonym: str

    def __repr__(self) -> str:
        return f"Pair({self.original!r}, ...)"


_REIDENTIFY = "SELECT kind, keyed_hash, pseudonym, original, key_id FROM reidentify(%s, %s, %s, %s)"


class Crosswalk:
    """The mapping of a project, seen as a whole, by those who may re-identify.

    Parameters
    ----------
    database, ring, project
        As for :class:`dicom_deid.database.Mapping`; the login needs the role of a re-identifier.
    chain_key
        The secret of the audit's chains.
    """

    def __init__(self, connection: DatabaseConnection, ring: KeyRing, project: Project, chain_key: bytes) -> None:
        self._database = connection
        self._ring = ring
        self._project = project
        self._chain_key = chain_key

    def pseudonyms_of(self, kind: IdentifierKind, values: list[str], asked: AccessReason) -> list[CrosswalkRow]:
        """Return the pseudonyms that these originals have; those that have none are left out.

        Nothing is made, and the look-up stands in the audit whatever it finds.
        """
        plain = [pseudonyms.normalised(value) for value in values]
        event = self._record("lookup", asked, {"direction": "to-pseudonym", "kind": kind.value, "count": len(plain)})
        if self._is_derived(kind):
            options, key = self._project.options, self._project.uid_key
            return [
                CrosswalkRow(Identifier(kind, each), pseudonyms.derived_uid(options.org_root, key, each))
                for each in plain
            ]
        keyed_hashes = [keyed_hash_of(self._project, kind, each) for each in plain]
        return self._open(self._database.query("looking up", _REIDENTIFY, (event, [kind.value], keyed_hashes, None)))

    def originals_of(self, kind: IdentifierKind, values: list[str], asked: AccessReason) -> list[CrosswalkRow]:
        """Return the originals behind these pseudonyms. The pseudonyms stand in the audit, the originals do not.

        Raises
        ------
        ConfigurationError
            UIDs of a project with derived UIDs have no rows: the audit's trace leads from object to object instead.
        """
        if self._is_derived(kind):
            raise ConfigurationError(
                "The project derives its UIDs and keeps no rows of them; find the object with `dicom-deid audit trace`."
            )
        body = {"direction": "to-original", "kind": kind.value, "count": len(values), "pseudonyms": values}
        event = self._record("lookup", asked, body)
        return self._open(self._database.query("looking up", _REIDENTIFY, (event, [kind.value], None, values)))

    def export(self, asked: AccessReason, kinds: list[IdentifierKind] | None = None) -> Iterator[CrosswalkRow]:
        """Give every row, of some kinds or of all, in flat memory. The audit shows the export before the first row."""
        names = None if kinds is None else [kind.value for kind in kinds]
        event = self._record("export", asked, {"kinds": names or "all"})
        rows = self._database.rows("exporting the crosswalk", _REIDENTIFY, (event, names, None, None))
        opener = self._opener()
        return (opener.open(*row) for row in rows)

    def _is_derived(self, kind: IdentifierKind) -> bool:
        return kind is IdentifierKind.UID and self._project.options.uid_strategy == "derived"

    def _record(self, kind: str, asked: AccessReason, body: Mapping[str, object]) -> int:
        full = {"person": asked.person, "reason": asked.reason, **body}
        return record_event(self._database, self._chain_key, kind, full, project=self._project.name)[0]

    def _opener(self) -> _Opener:
        return _Opener(self._ring, self._project.project_id)

    def _open(self, rows: list[tuple[str, bytes, str, bytes, str]]) -> list[CrosswalkRow]:
        opener = self._opener()
        return [opener.open(*row) for row in rows]


class _Opener:
    """Opens sealed originals, whichever key of the ring sealed them."""

    def __init__(self, ring: KeyRing, project_id: int) -> None:
        self._ring = ring
        self._project_id = project_id
        self._sealers: dict[str, Cipher] = {}

    def open(self, kind: str, keyed_hash: bytes, pseudonym: str, sealed: bytes, key_id: str) -> CrosswalkRow:
        if key_id not in self._sealers:
            self._sealers[key_id] = original_sealer(self._ring, key_id, self._project_id)
        plain = self._sealers[key_id].open(bytes(sealed), bound_to(kind, bytes(keyed_hash)))
        return CrosswalkRow(Identifier(IdentifierKind(kind), plain.decode()), pseudonym)


def events(connection: DatabaseConnection, limit: int = 100) -> list[dict[str, object]]:
    """Return the newest events of the audit, newest first: runs, look-ups, exports, imports, rotations."""
    rows = connection.query(
        "reading the events",
        "SELECT recorded_at, kind, project, login, body FROM audit_event ORDER BY event_id DESC LIMIT %s",
        (limit,),
    )
    names = ("recorded_at", "kind", "project", "login")
    return [{**dict(zip(names, row[:4], strict=True)), **json.loads(row[4])} for row in rows]
