"""Pseudonym mapping of a project: one stable pseudonym per original value, safe under concurrency."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Collection
from collections.abc import Mapping as MappingType
from functools import lru_cache
from typing import NamedTuple

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import UNFLUSHED, DatabaseConnection
from dicom_deid.database.keys import KeyRing
from dicom_deid.database.projects import Project, original_cipher
from dicom_deid.exceptions import DatabaseError
from dicom_deid.identifiers import Identifier, IdentifierKind

CACHE_SIZE = 200_000
"""Number of pseudonyms kept in the process: at most about 60 MB."""

_ATTEMPTS = 20

COUNTED: MappingType[IdentifierKind, str] = {
    IdentifierKind.PATIENT_ID: "patient_ids",
    IdentifierKind.ACCESSION_NUMBER: "accession_numbers",
    IdentifierKind.STUDY_ID: "study_ids",
}
"""The kinds with a limited number of digits, and the column of the project that counts them."""

# OFFSET 0 makes PostgreSQL look each original up: without statistics it reads the whole mapping of a new project.
_FIND = """
SELECT w.place, m.pseudonym, m.row_check
FROM unnest(%(kinds)s::text[], %(keyed_hashes)s::bytea[]) WITH ORDINALITY w (kind, keyed_hash, place)
CROSS JOIN LATERAL (
    SELECT pseudonym, row_check FROM mapping o
    WHERE o.project_id = %(project)s AND o.kind = w.kind AND o.keyed_hash = w.keyed_hash OFFSET 0) m
UNION ALL
SELECT 0, patient_ids || ' ' || accession_numbers || ' ' || study_ids, NULL FROM project WHERE project_id = %(project)s
"""

# Rows are inserted in the order of their keyed hashes, so that two workers that share originals wait for each other in
# one direction only; the row of the project, which all share, comes last. A row whose original or pseudonym exists is
# left out, and looked up afterwards. The intents that are committed before an object is written flush the pseudonyms.
_INSERT = f"""{UNFLUSHED}
INSERT INTO patient (project_id, keyed_hash)
SELECT DISTINCT %(project)s, w.patient FROM unnest(%(patients)s::bytea[]) w (patient) WHERE w.patient IS NOT NULL
ORDER BY w.patient ON CONFLICT DO NOTHING;
WITH made AS (
    INSERT INTO mapping (project_id, kind, keyed_hash, pseudonym, original, key_id, is_unique, patient_number,
                         row_check)
    SELECT %(project)s, w.kind, w.keyed_hash, w.pseudonym, w.original, %(key_id)s, w.is_unique, p.patient_number,
        w.row_check
    FROM unnest(%(kinds)s::text[], %(keyed_hashes)s::bytea[], %(pseudonyms)s::text[], %(originals)s::bytea[],
                %(is_unique)s::boolean[], %(patients)s::bytea[], %(row_checks)s::bytea[])
        AS w (kind, keyed_hash, pseudonym, original, is_unique, patient, row_check)
    LEFT JOIN patient p ON p.project_id = %(project)s AND p.keyed_hash = w.patient
    ORDER BY w.kind, w.keyed_hash
    ON CONFLICT DO NOTHING
    RETURNING kind, keyed_hash
), counted AS (
    UPDATE project SET patient_ids = project.patient_ids + n.patient_ids,
                       accession_numbers = project.accession_numbers + n.accession_numbers,
                       study_ids = project.study_ids + n.study_ids
    FROM (SELECT count(*) FILTER (WHERE kind = 'PatientID') AS patient_ids,
                 count(*) FILTER (WHERE kind = 'AccessionNumber') AS accession_numbers,
                 count(*) FILTER (WHERE kind = 'StudyID') AS study_ids
          FROM made) n
    WHERE project_id = %(project)s AND n.patient_ids + n.accession_numbers + n.study_ids > 0
)
SELECT kind, keyed_hash FROM made
"""  # noqa: S608 - constants


def keyed_hash_of(project: Project, kind: IdentifierKind, value: str) -> bytes:
    """Return the HMAC that is the key of a normalised original."""
    return _keyed_hash(project.hash_key, kind, value)


@lru_cache(maxsize=16_384)
def _keyed_hash(key: bytes, kind: IdentifierKind, value: str) -> bytes:
    # Mapping, intents and index hash the same originals, and objects of a series share most of them.
    return hmac.digest(key, f"{kind.value}\0{value}".encode(), "sha256")


def issuer_term(issuer: str) -> str:
    """Return what is hashed of an IssuerOfPatientID, which is no PatientID itself."""
    return f"issuer {issuer}"


def bound_to(kind: str, keyed_hash: bytes) -> bytes:
    """Return what an encrypted original is bound to, so that it can be decrypted in its own row only."""
    return kind.encode() + b"\0" + keyed_hash


def row_check(project: Project, kind: str, keyed_hash: bytes, pseudonym: str) -> bytes:
    """Return the authentication code that binds a pseudonym to its row."""
    return hmac.digest(project.row_check_key, bound_to(kind, keyed_hash) + pseudonym.encode(), "sha256")[:16]


def verify_row(project: Project, kind: str, keyed_hash: bytes, pseudonym: str, check: bytes) -> None:
    """Refuse a row whose pseudonym was changed or moved from another row.

    Raises
    ------
    DatabaseError
        The pseudonym does not belong to the row.
    """
    if not hmac.compare_digest(row_check(project, kind, bytes(keyed_hash), pseudonym), bytes(check)):
        raise DatabaseError(
            "A pseudonym in the mapping was changed in the database: it does not belong to its row. "
            "Run `dicom-deid audit verify`, and restore the table from a backup."
        )


class _Candidate(NamedTuple):
    """A row that may be inserted into the mapping."""

    kind: IdentifierKind
    keyed_hash: bytes
    pseudonym: str
    original: bytes
    is_unique: bool
    patient: bytes | None


class Mapping:
    """The pseudonyms of one project.

    Thread-safe. Pseudonyms that :meth:`resolve` returns are committed and never change, so they may be cached.

    Parameters
    ----------
    connection
        The database.
    ring
        Encrypts new originals.
    project
        The project.
    cache_size
        How many pseudonyms to keep in the process.
    """

    def __init__(
        self, connection: DatabaseConnection, ring: KeyRing, project: Project, *, cache_size: int = CACHE_SIZE
    ) -> None:
        self.project = project
        self._connection = connection
        self._ring = ring
        self._cipher = original_cipher(ring, ring.active_id, project.project_id)
        self._cache: dict[Identifier, str] = {}
        self._cache_size = cache_size

    def resolve(
        self, identifiers: Collection[Identifier], patients: MappingType[Identifier, str] | None = None
    ) -> dict[Identifier, str]:
        """Return the pseudonym of every original, created now where there is none.

        A batch of known originals costs one round trip, or none when they are cached; one of new originals two,
        whatever its size. Surrounding blanks and padding make no difference.

        Parameters
        ----------
        identifiers
            Originals found in the objects; PHI.
        patients
            The original PatientID that each identifier belongs to, so that it can be erased with the patient.

        Returns
        -------
        dict of Identifier to str
            By the identifiers as they were given. For `IdentifierKind.DATE_OFFSET` a signed integer of days.

        Raises
        ------
        DatabaseError
            PostgreSQL failed; some pseudonyms may have been created, a retry returns them. Or a row was manipulated.
        """
        wanted = {
            original: Identifier(original.kind, pseudonyms.normalised(original.value)) for original in identifiers
        }
        missing = {original for original in wanted.values() if original not in self._cache}
        found = {original: self._cache[original] for original in set(wanted.values()) - missing}
        if self.project.options.uid_strategy == "derived":
            derived = {original: self._derived(original) for original in missing if original.kind is IdentifierKind.UID}
            missing -= derived.keys()
            found |= derived
        if missing:
            owners = {wanted[original]: patient for original, patient in (patients or {}).items() if original in wanted}
            found |= self._resolve_stored(missing, owners)
        self._remember(found)
        return {original: found[plain] for original, plain in wanted.items()}

    def _derived(self, original: Identifier) -> str:
        return pseudonyms.derived_uid(self.project.options.org_root, self.project.uid_key, original.value)

    def _resolve_stored(
        self, identifiers: Collection[Identifier], owners: MappingType[Identifier, str]
    ) -> dict[Identifier, str]:
        missing = {original: keyed_hash_of(self.project, *original) for original in identifiers}
        found: dict[Identifier, str] = {}
        for _attempt in range(_ATTEMPTS):
            known, used = self._find(missing)
            found |= known
            missing = {original: keyed_hash for original, keyed_hash in missing.items() if original not in known}
            if missing:
                made = self._insert(missing, used, owners)
                found |= made
                missing = {original: keyed_hash for original, keyed_hash in missing.items() if original not in made}
            if not missing:
                return found
        raise DatabaseError(f"{len(missing)} pseudonyms could not be created: every candidate was taken. Try again.")

    def _find(
        self, keyed_hashes: MappingType[Identifier, bytes]
    ) -> tuple[dict[Identifier, str], Counter[IdentifierKind]]:
        identifiers = list(keyed_hashes)
        rows = self._connection.query(
            "looking up pseudonyms",
            _FIND,
            {
                "project": self.project.project_id,
                "kinds": [original.kind.value for original in identifiers],
                "keyed_hashes": list(keyed_hashes.values()),
            },
        )
        counts = next(text for place, text, _ in rows if place == 0)
        used = Counter(dict(zip(COUNTED, map(int, counts.split()), strict=True)))
        found = {}
        for place, pseudonym, check in rows:
            if place:
                original = identifiers[place - 1]
                verify_row(self.project, original.kind.value, keyed_hashes[original], pseudonym, check)
                found[original] = pseudonym
        return found, used

    def _insert(
        self,
        keyed_hashes: MappingType[Identifier, bytes],
        used: Counter[IdentifierKind],
        owners: MappingType[Identifier, str],
    ) -> dict[Identifier, str]:
        wanted = Counter(original.kind for original in keyed_hashes)
        digits = {kind: pseudonyms.digits_for(used[kind], wanted[kind]) for kind in COUNTED}
        rows = {
            (original.kind.value, keyed_hash): (
                original,
                self._candidate(original, keyed_hash, digits, self._patient(owners.get(original))),
            )
            for original, keyed_hash in keyed_hashes.items()
        }
        made = self._connection.query(
            "storing pseudonyms", _INSERT, self._parameters([row for _, row in rows.values()])
        )
        inserted = (rows[kind, bytes(keyed_hash)] for kind, keyed_hash in made)
        return {original: row.pseudonym for original, row in inserted}

    def _patient(self, patient_id: str | None) -> bytes | None:
        plain = pseudonyms.normalised(patient_id or "")
        return keyed_hash_of(self.project, IdentifierKind.PATIENT_ID, plain) if plain else None

    def _parameters(self, rows: Collection[_Candidate]) -> dict[str, object]:
        return {
            "project": self.project.project_id,
            "key_id": self._ring.active_id,
            "kinds": [row.kind.value for row in rows],
            "keyed_hashes": [row.keyed_hash for row in rows],
            "pseudonyms": [row.pseudonym for row in rows],
            "originals": [row.original for row in rows],
            "is_unique": [row.is_unique for row in rows],
            "patients": [row.patient for row in rows],
            "row_checks": [row_check(self.project, row.kind.value, row.keyed_hash, row.pseudonym) for row in rows],
        }

    def _candidate(
        self,
        original: Identifier,
        keyed_hash: bytes,
        digits: MappingType[IdentifierKind, int],
        patient: bytes | None,
    ) -> _Candidate:
        kind, value = original
        options = self.project.options
        is_unique = True
        if kind is IdentifierKind.UID:
            pseudonym = pseudonyms.random_uid(options.org_root)
        elif kind is IdentifierKind.DATE_OFFSET:
            pseudonym, is_unique = pseudonyms.random_offset(options.max_date_offset_days), False
        elif kind is IdentifierKind.PATIENT_ID and options.single_patient_id:
            pseudonym, is_unique = options.single_patient_id, False
        else:
            pseudonym = pseudonyms.random_identifier(kind, digits[kind])
        encrypted = self._cipher.encrypt(value.encode(), bound_to(kind.value, keyed_hash))
        return _Candidate(kind, keyed_hash, pseudonym, encrypted, is_unique, patient)

    def _remember(self, found: MappingType[Identifier, str]) -> None:
        self._cache |= found
        if len(self._cache) > self._cache_size:
            # Drop the oldest half. Another thread may drop the same keys at the same time.
            for original in list(self._cache)[: len(self._cache) - self._cache_size // 2]:
                self._cache.pop(original, None)
