"""Patients and studies whose identifiers may mix up people: one PatientID of several issuers, one study of several."""

from __future__ import annotations

from typing import NamedTuple

from dicom_deid.database.connection import DatabaseConnection

_OF_PROJECT = """
several_issuers AS (
    SELECT patient_hash, count(DISTINCT issuer_hash) AS issuers FROM source_series
    WHERE project_id = %(project)s AND patient_hash <> '' AND issuer_hash <> ''
      AND (%(run)s IS NULL OR patient_hash IN (SELECT patient_hash FROM of_run))
    GROUP BY patient_hash HAVING count(DISTINCT issuer_hash) > 1
), several_patients AS (
    SELECT study_hash FROM source_series
    WHERE project_id = %(project)s AND study_hash <> '' AND patient_hash <> ''
      AND (%(run)s IS NULL OR study_hash IN (SELECT study_hash FROM of_run))
    GROUP BY study_hash HAVING count(DISTINCT patient_hash) > 1
)
"""

_COUNT = f"""
WITH of_run AS MATERIALIZED (
    SELECT DISTINCT s.patient_hash, s.study_hash FROM batch b JOIN batch_item i USING (batch_id)
    JOIN processed_object d ON d.scope_id = b.scope_id AND d.key_hash = i.key_hash
    JOIN source_series s USING (series_number) WHERE b.run_id = %(run)s
), {_OF_PROJECT}
SELECT (SELECT count(*) FROM several_issuers) AS patients_of_several_issuers,
    (SELECT count(*) FROM several_patients) AS studies_of_several_patients
"""  # noqa: S608 - constants

_LIST = f"""
WITH of_run AS (SELECT ''::bytea AS patient_hash, ''::bytea AS study_hash WHERE false), {_OF_PROJECT}
SELECT 0, m.pseudonym, s.issuers FROM several_issuers s
JOIN mapping m ON m.project_id = %(project)s AND m.kind = 'PatientID' AND m.keyed_hash = s.patient_hash
UNION ALL
SELECT dense_rank() OVER (ORDER BY study_hash), m.pseudonym, NULL
FROM (SELECT DISTINCT study_hash, patient_hash FROM source_series JOIN several_patients USING (study_hash)
      WHERE project_id = %(project)s) s
JOIN mapping m ON m.project_id = %(project)s AND m.kind = 'PatientID' AND m.keyed_hash = s.patient_hash
ORDER BY 1, 2
"""  # noqa: S608 - constants


class AmbiguousPatient(NamedTuple):
    """A patient whose identifiers may mix up people.

    Parameters
    ----------
    study
        Number in the list of the study that other patients have too; 0 for a PatientID of several issuers.
    pseudonym
        PatientID in the project.
    issuers
        Number of issuers of the original PatientID; None for a patient of such a study.
    """

    study: int
    pseudonym: str
    issuers: int | None


def count_ambiguous(connection: DatabaseConnection, run_id: str, project_id: int) -> dict[str, int]:
    """Return how many PatientIDs of a run have several issuers, and how many of its studies several patients.

    All objects that the project has processed are taken into account.
    """
    found = connection.query("counting issuers", _COUNT, {"run": run_id, "project": project_id})[0]
    return {"patients_of_several_issuers": found[0], "studies_of_several_patients": found[1]}


def list_ambiguous(connection: DatabaseConnection, project_id: int) -> list[AmbiguousPatient]:
    """Return the patients of a project whose identifiers may mix up people, by pseudonym."""
    rows = connection.query("listing issuers", _LIST, {"run": None, "project": project_id})
    return [AmbiguousPatient(*row) for row in rows]
