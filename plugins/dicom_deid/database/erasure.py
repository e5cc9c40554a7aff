"""Erasure: everything that could identify a patient, or belongs to a project, is deleted from the database.

The audit keeps its rows, which hold random object ids and pseudonyms, and still verifies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.keys import KeyRing
from dicom_deid.database.locks import LOCK_OBJECTS, LOCK_WITHDRAWALS
from dicom_deid.database.mapping import bound_to, keyed_hash_of
from dicom_deid.database.projects import Project, original_cipher
from dicom_deid.database.source_index import IndexedIdentifiers, index_hashes
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind, without_issuer

# The identifiers of a study or series that another patient has too are not deleted: they are that patient's as well.
_CHOOSE = """
DROP TABLE IF EXISTS pg_temp.erased_series, pg_temp.erased_object, pg_temp.erased_hash;
CREATE TEMP TABLE erased_series ON COMMIT DROP AS
SELECT * FROM source_series WHERE project_id = %(project)s AND patient_hash = ANY (%(patients)s::bytea[]);
CREATE TEMP TABLE erased_object ON COMMIT DROP AS
SELECT d.scope_id, d.key_hash, d.object_id, d.instance_hash, d.destination_key, d.etag FROM processed_object d
JOIN pg_temp.erased_series USING (series_number);
CREATE TEMP TABLE erased_hash ON COMMIT DROP AS
SELECT 'PatientID' AS kind, unnest(%(patients)s::bytea[]) AS keyed_hash
UNION SELECT 'DateOffset', unnest(%(offsets)s::bytea[])
UNION SELECT 'AccessionNumber', accession_hash FROM pg_temp.erased_series
UNION SELECT 'UID', study_hash FROM pg_temp.erased_series
UNION SELECT 'UID', series_hash FROM pg_temp.erased_series
UNION SELECT m.kind, m.keyed_hash FROM mapping m JOIN patient p USING (patient_number)
    WHERE p.project_id = %(project)s AND p.keyed_hash = ANY (%(patients)s::bytea[])
UNION SELECT 'UID', m.keyed_hash FROM mapping m
    JOIN pg_temp.erased_object o ON o.instance_hash = encode(substr(m.keyed_hash, 1, 16), 'hex')::uuid
    WHERE m.project_id = %(project)s AND m.kind = 'UID';
DELETE FROM pg_temp.erased_hash h USING source_series s
WHERE s.project_id = %(project)s AND NOT s.patient_hash = ANY (%(patients)s::bytea[]) AND h.keyed_hash <> ''
  AND (h.kind = 'AccessionNumber' AND s.accession_hash = h.keyed_hash
       OR h.kind = 'UID' AND h.keyed_hash IN (s.study_hash, s.series_hash));
SELECT (SELECT count(*) FROM pg_temp.erased_object WHERE destination_key IS NOT NULL),
    (SELECT count(*) FROM deletion WHERE object_id IN (SELECT object_id FROM pg_temp.erased_object)),
    (SELECT count(*) FROM write_intent WHERE series_number IN (SELECT series_number FROM pg_temp.erased_series)),
    (SELECT count(*) FROM unnest(%(patients)s::bytea[], %(offsets)s::bytea[], %(index_patients)s::uuid[],
            %(index_issuers)s::uuid[]) w (patient, date_offset, index_patient, index_issuer)
        WHERE NOT EXISTS (SELECT FROM pg_temp.erased_series s WHERE s.patient_hash = w.patient)
          AND NOT EXISTS (SELECT FROM mapping m WHERE m.project_id = %(project)s AND m.kind = 'PatientID'
                          AND m.keyed_hash = w.patient)
          AND NOT EXISTS (SELECT FROM mapping m WHERE m.project_id = %(project)s AND m.kind = 'DateOffset'
                          AND m.keyed_hash = w.date_offset)
          AND NOT EXISTS (SELECT FROM patient_term t WHERE t.project_id = %(project)s AND t.patient_hash = w.patient)
          AND NOT EXISTS (SELECT FROM archive_word a WHERE a.project_id = %(project)s AND a.patient_hash = w.patient)
          AND NOT EXISTS (SELECT FROM index_series s JOIN index_source i ON i.source_id = s.store_id
                          WHERE i.project_id = %(project)s AND s.patient = w.index_patient
                            AND (w.index_issuer IS NULL OR w.index_issuer = s.issuer)))
"""

_FORGOTTEN = """
SELECT x.withdrawal_id::text, count(*) FROM withdrawn x JOIN pg_temp.erased_hash h
    ON h.kind = x.kind AND h.keyed_hash = x.keyed_hash
WHERE x.project_id = %(project)s GROUP BY 1
"""

_ERASE = """
WITH gone AS (
    DELETE FROM withdrawn x USING pg_temp.erased_hash h
    WHERE x.project_id = %(project)s AND h.kind = x.kind AND h.keyed_hash = x.keyed_hash RETURNING x.withdrawal_id
)
UPDATE withdrawal SET state = 'erased' WHERE withdrawal_id IN (SELECT withdrawal_id FROM gone) AND state = 'finished';
WITH erased AS (
    DELETE FROM index_series s USING index_source i WHERE i.source_id = s.store_id AND i.project_id = %(project)s
      AND EXISTS (SELECT FROM unnest(%(index_patients)s::uuid[], %(index_issuers)s::uuid[]) w (patient, issuer)
                  WHERE w.patient = s.patient AND (w.issuer IS NULL OR w.issuer = s.issuer))
    RETURNING s.series_number
)
DELETE FROM index_object WHERE series_number IN (SELECT series_number FROM erased);
DELETE FROM index_attributes a USING index_source i WHERE i.source_id = a.store_id AND i.project_id = %(project)s
  AND NOT EXISTS (SELECT FROM index_series s WHERE s.attributes_number = a.attributes_number);
DELETE FROM patient_term WHERE project_id = %(project)s AND patient_hash = ANY (%(patients)s::bytea[]);
DELETE FROM archive_word WHERE project_id = %(project)s AND patient_hash = ANY (%(patients)s::bytea[]);
DELETE FROM decided_object t USING pg_temp.erased_object o WHERE t.scope_id = o.scope_id AND t.key_hash = o.key_hash;
DELETE FROM done_container c USING pg_temp.erased_object o WHERE c.scope_id = o.scope_id AND c.etag = o.etag;
DELETE FROM held_object t USING pg_temp.erased_object o WHERE t.object_id = o.object_id;
DELETE FROM batch_item i USING batch b, pg_temp.erased_object o
WHERE b.batch_id = i.batch_id AND b.scope_id = o.scope_id AND i.key_hash = o.key_hash;
WITH gone AS (
    DELETE FROM mapping m USING pg_temp.erased_hash h
    WHERE m.project_id = %(project)s AND m.kind = h.kind AND m.keyed_hash = h.keyed_hash RETURNING 1
), objects AS (
    DELETE FROM processed_object d USING pg_temp.erased_object o
    WHERE d.scope_id = o.scope_id AND d.key_hash = o.key_hash RETURNING 1
), series AS (
    DELETE FROM source_series s USING pg_temp.erased_series e WHERE s.series_number = e.series_number
), patients AS (
    DELETE FROM patient WHERE project_id = %(project)s AND keyed_hash = ANY (%(patients)s::bytea[])
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM objects)
"""

_DELETE_PROJECT = """
DELETE FROM decided_object WHERE scope_id IN (SELECT scope_id FROM work_scope WHERE project_id = %(project)s);
DELETE FROM held_object WHERE project_id = %(project)s;
DELETE FROM text_layout WHERE project_id = %(project)s;
DELETE FROM done_container WHERE scope_id IN (SELECT scope_id FROM work_scope WHERE project_id = %(project)s);
DELETE FROM batch_item i USING batch b, work_scope s
WHERE i.batch_id = b.batch_id AND b.scope_id = s.scope_id AND s.project_id = %(project)s;
DELETE FROM write_intent WHERE scope_id IN (SELECT scope_id FROM work_scope WHERE project_id = %(project)s);
DELETE FROM processed_object WHERE scope_id IN (SELECT scope_id FROM work_scope WHERE project_id = %(project)s);
DELETE FROM withdrawn WHERE project_id = %(project)s;
DELETE FROM source_series WHERE project_id = %(project)s;
WITH sources AS (SELECT source_id FROM index_source WHERE project_id = %(project)s), series AS (
    DELETE FROM index_series WHERE store_id IN (SELECT source_id FROM sources)
)
DELETE FROM index_object WHERE store_id IN (SELECT source_id FROM sources);
DELETE FROM index_attributes WHERE store_id IN (
    SELECT source_id FROM index_source WHERE project_id = %(project)s);
DELETE FROM index_source WHERE project_id = %(project)s;
DELETE FROM patient WHERE project_id = %(project)s;
DELETE FROM patient_term WHERE project_id = %(project)s;
DELETE FROM archive_word WHERE project_id = %(project)s;
DELETE FROM archive_word_snapshot WHERE project_id = %(project)s;
UPDATE project SET deleted_at = clock_timestamp(), secret = '' WHERE project_id = %(project)s;
WITH gone AS (DELETE FROM mapping WHERE project_id = %(project)s RETURNING 1) SELECT count(*) FROM gone
"""


def erase_patients(
    connection: DatabaseConnection,
    ring: KeyRing,
    chain_key: bytes,
    project: Project,
    patients: Sequence[str],
    access: AccessReason,
) -> int:
    """Erase patients, whose objects must be withdrawn, and return how many pseudonyms were deleted. Needs the owner.

    Their originals, keyed hashes, date offsets, source keys and the memory of their withdrawal are deleted: an object
    of theirs that is still in the source would be processed as of a new patient.

    Parameters
    ----------
    patients
        PatientIDs, as originals or pseudonyms; PHI.

    Raises
    ------
    ConfigurationError
        A patient is unknown, or objects of one are still released.
    """
    doing = "erasing"
    originals = [_original_of(connection, ring, project, pseudonyms.normalised(each)) for each in patients]
    parameters = {
        "project": project.project_id,
        "patients": [keyed_hash_of(project, IdentifierKind.PATIENT_ID, each) for each in originals],
        "offsets": [keyed_hash_of(project, IdentifierKind.DATE_OFFSET, each) for each in originals],
        **_index_parameters(project, originals),
    }
    with connection.transaction(doing):
        connection.query(doing, LOCK_WITHDRAWALS + LOCK_OBJECTS, parameters)
        released, deletions, intents, unknown = connection.query(doing, _CHOOSE, parameters)[0]
        if unknown:
            raise ConfigurationError(
                f"The project knows nothing of {unknown} of the {len(originals)} patients; nothing was erased."
            )
        if released or deletions or intents:
            raise ConfigurationError(
                f"{released + deletions + intents} objects are still released or being processed: withdraw the patient "
                "first (`dicom-deid release withdraw`), and wait for the withdrawal to end."
            )
        forgotten = dict(connection.query(doing, _FORGOTTEN, parameters))
        erased, objects = connection.query(doing, _ERASE, parameters)[0]
        body = {
            "person": access.person,
            "reason": access.reason,
            "patients": len(originals),
            "pseudonyms": erased,
            "objects": objects,
            "forgotten": forgotten,
        }
        record_event(connection, chain_key, "patient-erased", body, project=project.name)
    return int(erased)


def _index_parameters(project: Project, originals: Sequence[str]) -> dict[str, list[str | None]]:
    """Return how the index of a source has patients; the issuer counts only if it is part of the patient key."""
    if project.options.patient_key == "id":
        patients = [IndexedIdentifiers(patient_id=each) for each in originals]
    else:
        split = map(without_issuer, originals)
        patients = [IndexedIdentifiers(patient_id=each, issuer_of_patient_id=issuer) for each, issuer in split]
    hashes = index_hashes(project, patients)
    return {"index_patients": [each[0] for each in hashes], "index_issuers": [each[1] for each in hashes]}


def _original_of(connection: DatabaseConnection, ring: KeyRing, project: Project, value: str) -> str:
    """Return the original PatientID, which may be given by its pseudonym."""
    rows = connection.query(
        "looking for the patient",
        "SELECT keyed_hash, original, key_id FROM mapping "
        "WHERE project_id = %s AND kind = 'PatientID' AND pseudonym = %s AND is_unique",
        (project.project_id, value),
    )
    if not rows:
        return value
    keyed_hash, original, key_id = rows[0]
    cipher = original_cipher(ring, key_id, project.project_id)
    return cipher.decrypt(bytes(original), bound_to(IdentifierKind.PATIENT_ID.value, bytes(keyed_hash))).decode()


def delete_project(connection: DatabaseConnection, chain_key: bytes, project: Project, access: AccessReason) -> int:
    """Erase a project after everything is withdrawn, and return how many pseudonyms were deleted. Needs the owner.

    Its secret is destroyed: nothing that was encrypted or hashed under it can be read again.

    Raises
    ------
    ConfigurationError
        Objects of the project are still released.
    """
    doing = "deleting the project"
    parameters = {"project": project.project_id}
    with connection.transaction(doing):
        left: Counter[str] = Counter()
        connection.query(doing, LOCK_WITHDRAWALS + LOCK_OBJECTS, parameters)
        rows = connection.query(
            doing,
            "SELECT 'released', count(*) FROM processed_object JOIN work_scope USING (scope_id) "
            "WHERE project_id = %(project)s AND destination_key IS NOT NULL UNION ALL "
            "SELECT 'deletions', count(*) FROM deletion JOIN work_scope USING (scope_id) "
            "WHERE project_id = %(project)s",
            parameters,
        )
        left.update(dict(rows))
        if left.total():
            raise ConfigurationError(f"{left.total()} objects of the project are still released: withdraw them first.")
        erased = connection.query(doing, _DELETE_PROJECT, parameters)[0][0]
        body = {"person": access.person, "reason": access.reason, "pseudonyms": erased}
        record_event(connection, chain_key, "project-deleted", body, project=project.name)
    return int(erased)
