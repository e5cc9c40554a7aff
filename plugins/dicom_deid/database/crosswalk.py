"""Access to originals; each is recorded in the audit, with person and reason, before the first row is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.keys import Cipher, KeyRing
from dicom_deid.database.mapping import bound_to, keyed_hash_of, verify_row
from dicom_deid.database.projects import Project, original_cipher
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import Identifier, IdentifierKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReason:
    """The person who does something that the audit must show, and the reason.

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
        return f"CrosswalkRow({self.original!r}, ...)"


_REIDENTIFY = (
    "SELECT kind, keyed_hash, pseudonym, original, key_id, row_check FROM reidentify(%s, %s, %s::bytea[], %s, %s)"
)


class Crosswalk:
    """The mapping of a project, for those who may re-identify.

    Parameters
    ----------
    connection, ring, project
        As for :class:`dicom_deid.database.Mapping`; the login needs the role of a re-identifier.
    chain_key
        The secret of the audit's chains.
    """

    def __init__(self, connection: DatabaseConnection, ring: KeyRing, project: Project, chain_key: bytes) -> None:
        self._connection = connection
        self._ring = ring
        self._project = project
        self._chain_key = chain_key
        self._ciphers: dict[str, Cipher] = {}

    def pseudonyms_of(self, kind: IdentifierKind, values: list[str], access: AccessReason) -> list[CrosswalkRow]:
        """Return the pseudonyms that these originals have; those that have none are left out.

        No pseudonym is created, and the look-up is recorded in the audit whatever it finds.
        """
        plain = [pseudonyms.normalised(value) for value in values]
        keyed_hashes = [keyed_hash_of(self._project, kind, each) for each in plain]
        # The salt is not stored, so that no original can be tested against the event later.
        salt = os.urandom(32)
        digest = hashlib.sha256(salt + b"".join(keyed_hashes)).hexdigest()
        body = {"direction": "to-pseudonym", "kind": kind.value, "count": len(plain), "digest": digest}
        event = self._record("lookup", access, body)
        if self._is_derived(kind):
            options, key = self._project.options, self._project.uid_key
            return [
                CrosswalkRow(Identifier(kind, each), pseudonyms.derived_uid(options.org_root, key, each))
                for each in plain
            ]
        return self._rows((event, [kind.value], keyed_hashes, None, salt))

    def originals_of(self, kind: IdentifierKind, values: list[str], access: AccessReason) -> list[CrosswalkRow]:
        """Return the originals of these pseudonyms. The audit records the pseudonyms, not the originals.

        Raises
        ------
        ConfigurationError
            UIDs of a project with derived UIDs have no rows: use the audit's trace instead.
        """
        if self._is_derived(kind):
            raise ConfigurationError(
                "The project derives its UIDs and keeps no rows of them; find the object with `dicom-deid audit trace`."
            )
        body = {"direction": "to-original", "kind": kind.value, "count": len(values), "pseudonyms": values}
        event = self._record("lookup", access, body)
        return self._rows((event, [kind.value], None, values, None))

    def export(self, access: AccessReason, kinds: list[IdentifierKind] | None = None) -> Iterator[CrosswalkRow]:
        """Stream every row, of some kinds or of all. The export is recorded in the audit before the first row."""
        names = None if kinds is None else [kind.value for kind in kinds]
        event = self._record("export", access, {"kinds": names or "all"})
        rows = self._connection.rows("exporting the crosswalk", _REIDENTIFY, (event, names, None, None, None))
        return (self._decrypt(*row) for row in rows)

    def _is_derived(self, kind: IdentifierKind) -> bool:
        return kind is IdentifierKind.UID and self._project.options.uid_strategy == "derived"

    def _record(self, kind: str, access: AccessReason, body: Mapping[str, object]) -> int:
        full = {"person": access.person, "reason": access.reason, **body}
        return record_event(self._connection, self._chain_key, kind, full, project=self._project.name)[0]

    def _rows(self, question: tuple[object, ...]) -> list[CrosswalkRow]:
        return [self._decrypt(*row) for row in self._connection.query("looking up", _REIDENTIFY, question)]

    def _decrypt(
        self, kind: str, keyed_hash: bytes, pseudonym: str, encrypted: bytes, key_id: str, check: bytes
    ) -> CrosswalkRow:
        verify_row(self._project, kind, keyed_hash, pseudonym, check)
        if key_id not in self._ciphers:
            self._ciphers[key_id] = original_cipher(self._ring, key_id, self._project.project_id)
        plain = self._ciphers[key_id].decrypt(bytes(encrypted), bound_to(kind, bytes(keyed_hash)))
        return CrosswalkRow(Identifier(IdentifierKind(kind), plain.decode()), pseudonym)
