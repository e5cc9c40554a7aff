"""Words of an archive: for how many patients of a project a word of free text occurs that no list has.

Each patient is counted once, by the keyed hash of the PatientID, up to a bound per word; the word itself is encrypted.
Erasing a patient deletes the patient's rows. A run uses the words of a snapshot, so that a retry gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.mapping import keyed_hash_of
from dicom_deid.database.projects import Project
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind

_HASH_BYTES = 16

# In one order, so that two workers wait for each other in one direction only. Two workers may exceed the bound.
_ADD = """
INSERT INTO archive_word (project_id, word_hash, patient_hash, word, is_name)
SELECT %(project)s, w.word_hash, w.patient_hash, w.word, w.is_name
FROM unnest(%(hashes)s::bytea[], %(patients)s::bytea[], %(words)s::bytea[], %(names)s::boolean[])
    w (word_hash, patient_hash, word, is_name)
WHERE (SELECT count(*) FROM archive_word a WHERE a.project_id = %(project)s AND a.word_hash = w.word_hash
       AND (a.is_name OR NOT w.is_name)) < %(bound)s
ORDER BY w.word_hash, w.patient_hash
ON CONFLICT (project_id, word_hash, patient_hash) DO UPDATE SET is_name = true
    WHERE excluded.is_name AND NOT archive_word.is_name
"""

_VOUCHED = """
SELECT word_hash FROM archive_word WHERE project_id = %(project)s
GROUP BY word_hash HAVING count(*) >= %(least)s AND NOT bool_or(is_name) ORDER BY word_hash
"""

_STORE = """
INSERT INTO archive_word_snapshot (project_id, digest, words) VALUES (%(project)s, %(digest)s, %(words)s)
ON CONFLICT (project_id, digest) DO UPDATE SET taken_at = clock_timestamp()
"""

_FREQUENT = """
SELECT word_hash, (array_agg(patient_hash ORDER BY patient_hash))[1], (array_agg(word ORDER BY patient_hash))[1],
    count(*), bool_or(is_name)
FROM archive_word WHERE project_id = %(project)s
GROUP BY word_hash HAVING count(*) >= %(least)s ORDER BY count(*) DESC, word_hash LIMIT %(limit)s
"""


class ArchiveWord(NamedTuple):
    """A word of free text that no list has and that occurs for several patients.

    Parameters
    ----------
    word
        In lower case.
    patients
        Number of patients that it was counted for, up to the bound.
    is_name
        Whether it was in a person's name in one of the objects: the archive does not vouch for it.
    """

    word: str
    patients: int
    is_name: bool


class ArchiveWords:
    """The words that the archive vouches for, as a run found them when it was planned.

    Parameters
    ----------
    project
        Its secret is the key of the hashes.
    words
        The hashes of the words, one after the other.
    """

    def __init__(self, project: Project, words: bytes) -> None:
        self._project = project
        self._hashes = frozenset(words[at : at + _HASH_BYTES] for at in range(0, len(words), _HASH_BYTES))
        # The same hashes of another project are other words.
        self.key = f"{project.project_id} {hashlib.sha256(words).hexdigest()}"

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and bool(self._hashes) and _hash_of(self._project, word) in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)


def add_words(
    connection: DatabaseConnection,
    project: Project,
    words: Mapping[str, Mapping[str, bool]],
    *,
    bound: int,
) -> None:
    """Count words of patients.

    Parameters
    ----------
    connection, project
        The database, and the project.
    words
        For each original PatientID the words, casefolded, and whether each is a part of a person's name. PHI.
    bound
        Number of patients up to which a word is counted.
    """
    rows = []
    for patient, of_patient in words.items():
        patient_hash = keyed_hash_of(project, IdentifierKind.PATIENT_ID, pseudonyms.normalised(patient))
        for word, is_name in of_patient.items():
            word_hash = _hash_of(project, word)
            encrypted = project.term_cipher.encrypt(word.encode(), word_hash + patient_hash)
            rows.append((word_hash, patient_hash, encrypted, is_name))
    if not rows:
        return
    parameters = {
        "project": project.project_id,
        "bound": bound,
        **{name: [row[at] for row in rows] for at, name in enumerate(("hashes", "patients", "words", "names"))},
    }
    connection.query("counting words of free text", _ADD, parameters)


def take_snapshot(connection: DatabaseConnection, project: Project, *, patients: int) -> str:
    """Store the words that occur for at least so many patients and in no person's name, and return the digest."""
    doing = "taking a snapshot of the archive's words"
    least = {"project": project.project_id, "least": patients}
    words = b"".join(bytes(word_hash) for (word_hash,) in connection.query(doing, _VOUCHED, least))
    digest = hashlib.sha256(words).hexdigest()
    connection.query(doing, _STORE, {"project": project.project_id, "digest": digest, "words": words})
    return digest


def read_snapshot(connection: DatabaseConnection, project: Project, digest: str) -> ArchiveWords:
    """Return the words of a snapshot.

    Raises
    ------
    ConfigurationError
        There is no such snapshot: it was pruned, or belongs to another project.
    """
    rows = connection.query(
        "reading the archive's words",
        "SELECT words FROM archive_word_snapshot WHERE project_id = %s AND digest = %s",
        (project.project_id, digest),
    )
    if not rows:
        raise ConfigurationError("The words of the archive that the run was planned with are gone: plan it again.")
    return ArchiveWords(project, bytes(rows[0][0]))


def frequent_words(
    connection: DatabaseConnection, project: Project, *, patients: int, limit: int = 1000
) -> list[ArchiveWord]:
    """Return words that no list has and that occur for at least so many patients, the most frequent first.

    Words of fewer patients, which may be names, are neither decrypted nor returned.
    """
    parameters = {"project": project.project_id, "least": max(2, patients), "limit": limit}
    return [
        ArchiveWord(
            project.term_cipher.decrypt(bytes(word), bytes(word_hash) + bytes(patient_hash)).decode(), count, is_name
        )
        for word_hash, patient_hash, word, count, is_name in connection.query(
            "reading frequent words", _FREQUENT, parameters
        )
    ]


def _hash_of(project: Project, word: str) -> bytes:
    return keyed_hash_of(project, IdentifierKind.PATIENT_ID, f"word {word}")[:_HASH_BYTES]
