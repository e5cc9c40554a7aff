"""Import of an existing crosswalk: the whole file is checked before the first row is written."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TextIO

from dicom_deid.database import pseudonyms
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import copy_line
from dicom_deid.database.crosswalk import AccessReason
from dicom_deid.database.export import original_of, reversible
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.keys import KeyRing, register_active_key
from dicom_deid.database.mapping import bound_to, keyed_hash_of, row_check
from dicom_deid.database.projects import Project, original_cipher
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind

COLUMNS = ("kind", "original", "pseudonym")

_CHUNK = 5_000
_SHOWN = 20

_STAGE = """
DROP TABLE IF EXISTS pg_temp.incoming;
CREATE TEMP TABLE incoming (line bigint, kind text, keyed_hash bytea, pseudonym text, original bytea, is_unique boolean,
                             row_check bytea)
"""

_CONFLICTS = """
ANALYZE pg_temp.incoming;
SELECT line, problem FROM (
    SELECT i.line, 'the original is in line ' || min(o.line) || ' with another pseudonym' AS problem
    FROM incoming i JOIN incoming o ON o.kind = i.kind AND o.keyed_hash = i.keyed_hash AND o.pseudonym <> i.pseudonym
    WHERE o.line < i.line GROUP BY i.line
    UNION ALL
    SELECT i.line, 'the pseudonym is in line ' || min(o.line) || ' for another original'
    FROM incoming i JOIN incoming o ON o.kind = i.kind AND o.pseudonym = i.pseudonym AND o.keyed_hash <> i.keyed_hash
    WHERE o.line < i.line AND i.is_unique GROUP BY i.line
    UNION ALL
    SELECT i.line, 'the original has another pseudonym in the project'
    FROM incoming i JOIN mapping m ON m.project_id = %(project)s AND m.kind = i.kind AND m.keyed_hash = i.keyed_hash
    WHERE m.pseudonym <> i.pseudonym
    UNION ALL
    SELECT i.line, 'the pseudonym belongs to another original in the project'
    FROM incoming i JOIN mapping m ON m.project_id = %(project)s AND m.kind = i.kind AND m.pseudonym = i.pseudonym
    WHERE i.is_unique AND m.is_unique AND m.keyed_hash <> i.keyed_hash
) problems ORDER BY line LIMIT %(shown)s
"""

_WRITE = """
WITH rows AS (
    SELECT DISTINCT ON (kind, keyed_hash) kind, keyed_hash, pseudonym, original, is_unique, row_check
    FROM pg_temp.incoming
    ORDER BY kind, keyed_hash, line
), made AS (
    INSERT INTO mapping (project_id, kind, keyed_hash, pseudonym, original, key_id, is_unique, row_check)
    SELECT %(project)s, r.kind, r.keyed_hash, r.pseudonym, r.original, %(key_id)s, r.is_unique, r.row_check FROM rows r
    WHERE NOT EXISTS (SELECT FROM mapping m
                      WHERE m.project_id = %(project)s AND m.kind = r.kind AND m.keyed_hash = r.keyed_hash)
    ORDER BY r.kind, r.keyed_hash RETURNING kind
), counted AS (
    UPDATE project SET patient_ids = project.patient_ids + n.patient_ids,
        accession_numbers = project.accession_numbers + n.accession_numbers, study_ids = project.study_ids + n.study_ids
    FROM (SELECT count(*) FILTER (WHERE kind = 'PatientID') AS patient_ids,
                 count(*) FILTER (WHERE kind = 'AccessionNumber') AS accession_numbers,
                 count(*) FILTER (WHERE kind = 'StudyID') AS study_ids FROM made) n
    WHERE project_id = %(project)s
)
SELECT count(*) FROM made
"""


class Importer:
    """Imports rows of kind, original and pseudonym into one project."""

    def __init__(self, connection: DatabaseConnection, ring: KeyRing, project: Project, chain_key: bytes) -> None:
        self._connection = connection
        self._ring = ring
        self._project = project
        self._chain_key = chain_key
        self._cipher = original_cipher(ring, ring.active_id, project.project_id)
        self._problems: list[str] = []

    def import_csv(self, file: TextIO, access: AccessReason) -> int:
        """Read a CSV file with the columns `kind`, `original` and `pseudonym` and return how many rows are new.

        Rows that the project already has with the same pseudonym are accepted.

        Raises
        ------
        ConfigurationError
            Something is wrong; nothing was written. The message names lines, never values.
        """
        doing = "importing the crosswalk"
        register_active_key(self._connection, self._ring)
        self._connection.query(doing, _STAGE)
        rows = self._candidates(file)
        while chunk := "".join(islice(rows, _CHUNK)):
            self._connection.copy_in(doing, "pg_temp.incoming", chunk)
        self._refuse_problems()
        with self._connection.transaction(doing):
            # No worker and no other import adds rows between the check and the end.
            self._connection.query(doing, "LOCK TABLE mapping IN SHARE ROW EXCLUSIVE MODE")
            found = self._connection.query(doing, _CONFLICTS, {"project": self._project.project_id, "shown": _SHOWN})
            self._problems += [f"line {number}: {problem}" for number, problem in found]
            self._refuse_problems()
            parameters = {"project": self._project.project_id, "key_id": self._ring.active_id}
            made = int(self._connection.query(doing, _WRITE, parameters)[0][0])
            body = {"person": access.person, "reason": access.reason, "rows": made}
            record_event(self._connection, self._chain_key, "import", body, project=self._project.name)
        self._connection.query(doing, "DROP TABLE pg_temp.incoming")
        return made

    def _refuse_problems(self) -> None:
        if self._problems:
            shown = "\n  ".join(self._problems[:_SHOWN])
            raise ConfigurationError(f"Nothing was imported:\n  {shown}")

    def _candidates(self, file: TextIO) -> Iterator[str]:
        reader = csv.reader(file)
        header = [name.strip().lower() for name in next(reader, [])]
        if header != list(COLUMNS):
            raise ConfigurationError(f"The first line must be: {','.join(COLUMNS)}")
        for row in reader:
            if not row:
                continue
            row = [original_of(cell) for cell in row]
            if problem := self._problem(row):
                if len(self._problems) < _SHOWN:
                    self._problems.append(f"line {reader.line_num}: {problem}")
                continue
            yield self._staged(reader.line_num, IdentifierKind(row[0].strip()), row[1], row[2].strip())

    def _problem(self, row: list[str]) -> str | None:
        if len(row) != len(COLUMNS):
            return f"has {len(row)} fields, not {len(COLUMNS)}"
        kind = row[0].strip()
        if kind not in set(IdentifierKind):
            return f"the kind is not one of {', '.join(IdentifierKind)}"
        if not pseudonyms.normalised(row[1]):
            return "the original is empty"
        options = self._project.options
        if kind == IdentifierKind.UID and options.uid_strategy == "derived":
            return "the project derives its UIDs; they cannot be imported"
        if kind == IdentifierKind.PATIENT_ID and options.single_patient_id not in (None, row[2].strip()):
            return "the project has a single PatientID, and this is another"
        problem = pseudonyms.problem_of(IdentifierKind(kind), row[2].strip(), options.max_date_offset_days)
        return problem and f"the pseudonym {problem}"

    def _staged(self, number: int, kind: IdentifierKind, original: str, pseudonym: str) -> str:
        plain = pseudonyms.normalised(original)
        keyed_hash = keyed_hash_of(self._project, kind, plain)
        shared = kind is IdentifierKind.DATE_OFFSET or (
            kind is IdentifierKind.PATIENT_ID and self._project.options.single_patient_id
        )
        encrypted = self._cipher.encrypt(plain.encode(), bound_to(kind.value, keyed_hash))
        check = row_check(self._project, kind.value, keyed_hash, pseudonym)
        return copy_line(number, kind.value, keyed_hash, pseudonym, encrypted, "f" if shared else "t", check)


def write_csv(rows: Iterable[tuple[tuple[IdentifierKind, str], str]], file: TextIO) -> int:
    """Write crosswalk rows as :meth:`Importer.import_csv` reads them, and return how many.

    Originals that a spreadsheet would run as a formula are escaped; the import reverses that.
    """
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = 0
    for (kind, value), pseudonym in rows:
        writer.writerow((kind.value, reversible(value), reversible(pseudonym)))
        count += 1
    return count
