"""The mapping of one project: one pseudonym an original, for ever, under any concurrency."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Collection, Iterable
from collections.abc import Mapping as MappingType
from typing import NamedTuple

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.keys import Cipher, KeyRing
from dicom_deid.database.projects import Project, original_sealer
from dicom_deid.exceptions import DatabaseError
from dicom_deid.identifiers import Identifier, IdentifierKind

CACHE_SIZE = 200_000
"""Pseudonyms kept in the process: about 60 MB at the most."""

_ATTEMPTS = 20

COUNTED: MappingType[IdentifierKind, str] = {
    IdentifierKind.PATIENT_ID: "patient_ids",
    IdentifierKind.ACCESSION_NUMBER: "accession_numbers",
    IdentifierKind.STUDY_ID: "study_ids",
}
"""The kinds of limited digits, and the project's column that counts them."""

_FIND = """
SELECT w.place, m.pseudonym
FROM unnest(%(kinds)s::text[], %(keyed_hashes)s::bytea[]) WITH ORDINALITY w (kind, keyed_hash, place)
JOIN mapping m ON m.project_id = %(project)s AND m.kind = w.kind AND m.keyed_hash = w.keyed_hash
UNION ALL
SELECT 0, patient_ids || ' ' || accession_numbers || ' ' || study_ids FROM project WHERE project_id = %(project)s
"""

# Rows go in in the order of their look-ups, so that two workers that share originals wait for each other in one
# direction only; the project's row, which all share, comes last. A row that meets another's original or pseudonym is
# left out and told apart afterwards.
INSERT = """
WITH made AS (
    INSERT INTO mapping (project_id, kind, keyed_hash, pseudonym, original, key_id, is_unique)
    SELECT %(project)s, kind, keyed_hash, pseudonym, original, %(key_id)s, is_unique
    FROM unnest(%(kinds)s::text[], %(keyed_hashes)s::bytea[], %(pseudonyms)s::text[], %(originals)s::bytea[],
                %(is_unique)s::boolean[]) AS w (kind, keyed_hash, pseudonym, original, is_unique)
    ORDER BY kind, keyed_hash
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
"""


class Candidate(NamedTuple):
    """A row that may go into the mapping."""

    kind: IdentifierKind
    keyed_hash: bytes
    pseudonym: str
    original: bytes
    is_unique: bool


def keyed_hash_of(project: Project, kind: IdentifierKind, value: str) -> bytes:
    """Return the HMAC under which a normalised original is found."""
    return hmac.digest(project.lookup_key, f"{kind.value}\0{value}".encode(), "sha256")


def bound_to(kind: str, keyed_hash: bytes) -> bytes:
    """Return what a sealed original is bound to, so that it opens in its own row only."""
    return kind.encode() + b"\0" + keyed_hash


def candidate_of(
    cipher: Cipher, kind: IdentifierKind, value: str, keyed_hash: bytes, pseudonym: str, *, is_unique: bool
) -> Candidate:
    """Make a row from a normalised original."""
    return Candidate(
        kind, keyed_hash, pseudonym, cipher.seal(value.encode(), bound_to(kind.value, keyed_hash)), is_unique
    )


def insert_parameters(project: Project, key_id: str, rows: Iterable[Candidate]) -> dict[str, object]:
    """Return the parameters of :data:`INSERT`."""
    rows = list(rows)
    return {
        "project": project.project_id,
        "key_id": key_id,
        "kinds": [row.kind.value for row in rows],
        "keyed_hashes": [row.keyed_hash for row in rows],
        "pseudonyms": [row.pseudonym for row in rows],
        "originals": [row.original for row in rows],
        "is_unique": [row.is_unique for row in rows],
    }


class Mapping:
    """The pseudonyms of one project.

    Thread-safe. What :meth:`resolve` returned is committed, and stays as it is for ever, which is why it may be cached.

    Parameters
    ----------
    database
        Where the rows are.
    ring
        Seals new originals.
    project
        Whose pseudonyms.
    cache_size
        How many pseudonyms to keep in the process.
    """

    def __init__(
        self, connection: DatabaseConnection, ring: KeyRing, project: Project, *, cache_size: int = CACHE_SIZE
    ) -> None:
        self.project = project
        self._database = connection
        self._ring = ring
        self._sealer = original_sealer(ring, ring.active_id, project.project_id)
        self._cache: dict[Identifier, str] = {}
        self._cache_size = cache_size

    def resolve(self, identifiers: Collection[Identifier]) -> dict[Identifier, str]:
        """Return the pseudonym of every original, made now where there is none.

        A batch of known originals costs one round trip, or none when the process knows them; one of new originals two,
        whatever its size. Surrounding blanks and padding make no difference.

        Parameters
        ----------
        originals
            What stands in the objects; PHI.

        Returns
        -------
        dict of Original to str
            By the originals as they were given. For `IdentifierKind.DATE_OFFSET` a signed integer of days.

        Raises
        ------
        DatabaseError
            PostgreSQL failed; some pseudonyms may have been made, a retry returns them.
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
            found |= self._resolve_stored(missing)
        self._remember(found)
        return {original: found[plain] for original, plain in wanted.items()}

    def _derived(self, original: Identifier) -> str:
        return pseudonyms.derived_uid(self.project.options.org_root, self.project.uid_key, original.value)

    def _resolve_stored(self, identifiers: Collection[Identifier]) -> dict[Identifier, str]:
        missing = {original: keyed_hash_of(self.project, *original) for original in identifiers}
        found: dict[Identifier, str] = {}
        for _attempt in range(_ATTEMPTS):
            known, used = self._find(missing)
            found |= known
            missing = {original: keyed_hash for original, keyed_hash in missing.items() if original not in known}
            if missing:
                made = self._insert(missing, used)
                found |= made
                missing = {original: keyed_hash for original, keyed_hash in missing.items() if original not in made}
            if not missing:
                return found
        raise DatabaseError(f"{len(missing)} pseudonyms could not be made: every candidate was taken. Try again.")

    def _find(
        self, keyed_hashes: MappingType[Identifier, bytes]
    ) -> tuple[dict[Identifier, str], Counter[IdentifierKind]]:
        identifiers = list(keyed_hashes)
        rows = self._database.query(
            "looking up pseudonyms",
            _FIND,
            {
                "project": self.project.project_id,
                "kinds": [original.kind.value for original in identifiers],
                "keyed_hashes": list(keyed_hashes.values()),
            },
        )
        counts = next(text for place, text in rows if place == 0)
        used = Counter(dict(zip(COUNTED, map(int, counts.split()), strict=True)))
        return {identifiers[place - 1]: pseudonym for place, pseudonym in rows if place}, used

    def _insert(
        self, keyed_hashes: MappingType[Identifier, bytes], used: Counter[IdentifierKind]
    ) -> dict[Identifier, str]:
        wanted = Counter(original.kind for original in keyed_hashes)
        digits = {kind: pseudonyms.digits_for(used[kind], wanted[kind]) for kind in COUNTED}
        rows = {
            (original.kind.value, keyed_hash): (original, self._candidate(original, keyed_hash, digits))
            for original, keyed_hash in keyed_hashes.items()
        }
        parameters = insert_parameters(self.project, self._ring.active_id, (row for _, row in rows.values()))
        made = self._database.query("storing pseudonyms", INSERT, parameters)
        inserted = (rows[kind, bytes(keyed_hash)] for kind, keyed_hash in made)
        return {original: row.pseudonym for original, row in inserted}

    def _candidate(
        self, original: Identifier, keyed_hash: bytes, digits: MappingType[IdentifierKind, int]
    ) -> Candidate:
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
        return candidate_of(self._sealer, kind, value, keyed_hash, pseudonym, is_unique=is_unique)

    def _remember(self, found: MappingType[Identifier, str]) -> None:
        self._cache |= found
        if len(self._cache) > self._cache_size:
            # The oldest half goes. Threads may meet here: a key that another has dropped is no matter.
            for original in list(self._cache)[: len(self._cache) - self._cache_size // 2]:
                self._cache.pop(original, None)
