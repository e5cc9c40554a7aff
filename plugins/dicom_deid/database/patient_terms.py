"""Search terms of patients that last: what earlier runs of a project removed from a patient's objects.

They are encrypted under a key of the project's secret, found by the keyed hash of the PatientID, and erased with the
patient. A run uses what was recorded before it began, so that a retry knows what the first attempt knew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import UNFLUSHED, DatabaseConnection
from dicom_deid.database.locks import LOCK_OBJECTS
from dicom_deid.database.mapping import keyed_hash_of
from dicom_deid.database.projects import Project
from dicom_deid.identifiers import IdentifierKind

_KNOWN = """
SELECT w.place, t.patient_hash, t.term_hash, t.term
FROM unnest(%(patients)s::bytea[]) WITH ORDINALITY w (patient_hash, place)
JOIN patient_term t ON t.project_id = %(project)s AND t.patient_hash = w.patient_hash
    AND (%(before)s::timestamptz IS NULL OR t.recorded_at < %(before)s)
ORDER BY w.place, t.recorded_at, t.term_hash
"""

# In one order, so that two workers that add terms of the same patients wait for each other in one direction only. No
# object that gave a term, or was searched for it, is written before its intent is committed, which flushes the terms.
_ADD = f"""{UNFLUSHED}
WITH added AS (
    INSERT INTO patient_term (project_id, patient_hash, term_hash, term, is_lasting)
    SELECT %(project)s, w.patient_hash, w.term_hash, w.term, w.is_lasting
    FROM unnest(%(patients)s::bytea[], %(hashes)s::bytea[], %(terms)s::bytea[], %(lasting)s::boolean[])
        w (patient_hash, term_hash, term, is_lasting)
    ORDER BY w.patient_hash, w.term_hash ON CONFLICT DO NOTHING RETURNING patient_hash, is_lasting
)
SELECT DISTINCT patient_hash FROM added a WHERE is_lasting
  AND EXISTS (SELECT FROM source_series s WHERE s.project_id = %(project)s AND s.patient_hash = a.patient_hash)
"""  # noqa: S608 - constants

# Needed for patients whose objects are written, or about to be; others are compared with the terms when recorded.
# The lock waits for objects that are being recorded: they may have been searched without the terms just added.
_MARK = """
UPDATE processed_object d SET lacks_terms = true FROM source_series s
WHERE s.project_id = %(project)s AND s.patient_hash = ANY (%(patients)s::bytea[])
  AND d.series_number = s.series_number AND d.destination_key IS NOT NULL AND NOT d.lacks_terms
  AND d.terms < (SELECT count(*) FROM patient_term t WHERE t.project_id = s.project_id
                 AND t.patient_hash = s.patient_hash AND t.is_lasting)
"""


class PatientTerms:
    """The stored search terms of a project's patients.

    Parameters
    ----------
    connection
        The database.
    project
        Its secret encrypts the terms.
    before
        Terms that were recorded later are not returned; None to return all.
    """

    def __init__(self, connection: DatabaseConnection, project: Project, before: datetime | None) -> None:
        self._connection = connection
        self._project = project
        self._before = before

    def of_all_runs(self) -> PatientTerms:
        """Return the same with the terms of all runs, also of this one."""
        return PatientTerms(self._connection, self._project, None)

    def known(self, patients: Collection[str]) -> dict[str, list[str]]:
        """Return the terms of patients by their original PatientIDs, in the order in which they were recorded. PHI."""
        if not patients:
            return {}
        wanted = list(patients)
        parameters = {
            "project": self._project.project_id,
            "patients": [self._hash(patient) for patient in wanted],
            "before": self._before,
        }
        known: dict[str, list[str]] = {}
        for place, patient_hash, term_hash, term in self._connection.query("reading search terms", _KNOWN, parameters):
            bound = bytes(patient_hash) + bytes(term_hash)
            text = self._project.term_cipher.decrypt(bytes(term), bound).decode()
            known.setdefault(wanted[place - 1], []).append(text)
        return known

    def add(self, terms: Mapping[str, Mapping[str, bool]]) -> None:
        """Store terms of patients, and mark objects that were written without them.

        Parameters
        ----------
        terms
            For each original PatientID the terms, and whether each is lasting: objects that were written before it was
            known are planned again. Those that are stored already make no difference. PHI.
        """
        doing = "storing search terms"
        rows = [
            (
                self._hash(patient),
                keyed_hash_of(self._project, IdentifierKind.PATIENT_ID, f"term {text}"),
                text,
                is_lasting,
            )
            for patient, texts in terms.items()
            for text, is_lasting in texts.items()
        ]
        if not rows:
            return
        cipher = self._project.term_cipher
        parameters = {
            "project": self._project.project_id,
            "patients": [patient for patient, _, _, _ in rows],
            "hashes": [term_hash for _, term_hash, _, _ in rows],
            "terms": [cipher.encrypt(text.encode(), patient + term_hash) for patient, term_hash, text, _ in rows],
            "lasting": [is_lasting for _, _, _, is_lasting in rows],
        }
        added = [patient for (patient,) in self._connection.query(doing, _ADD, parameters)]
        if added:
            with self._connection.transaction(doing):
                self._connection.query(
                    doing, LOCK_OBJECTS + _MARK, {"project": self._project.project_id, "patients": added}
                )

    def _hash(self, patient: str) -> bytes:
        return keyed_hash_of(self._project, IdentifierKind.PATIENT_ID, pseudonyms.normalised(patient))
