"""The index of a source: keyed hashes of identifiers and open attributes of each object, and what a cohort matches.

No original value is stored in clear: identifiers are found by the keyed hashes that the mapping uses, source keys are
encrypted. Attributes such as Modality or Manufacturer are stored as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Literal, NamedTuple
from uuid import UUID

from dicom_deid.database.connection import UNFLUSHED, DatabaseConnection
from dicom_deid.database.mapping import issuer_term, keyed_hash_of
from dicom_deid.database.projects import Project, decrypt_source_key, source_key_hash, split_source
from dicom_deid.database.pseudonyms import normalised
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.objects import SourceObject

LineStatus = Literal["found", "absent", "ambiguous"]

_HASH_BYTES = 16
_UNREADABLE_DIGITS = 3
_SELECTORS = ("key_hash", "series", "study", "accession", "patient")
"""Identifiers that a line may give, the most selective first: the first one that it gives is looked up by an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedIdentifiers:
    """Original identifiers of an object or of a line of a cohort list. PHI: stored only as keyed hashes.

    A None in a line of a cohort list matches anything; an empty string matches objects without the identifier. All are
    None for an object whose header cannot be read.
    """

    patient_id: str | None = field(default=None, repr=False)
    issuer_of_patient_id: str | None = field(default=None, repr=False)
    accession_number: str | None = field(default=None, repr=False)
    study_instance_uid: str | None = field(default=None, repr=False)
    series_instance_uid: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One object, to be put into the index.

    Parameters
    ----------
    source_object
        As it was listed, with its key relative to the source.
    is_listed
        Whether its time of modification is known from a listing.
    identifiers, sop_instance_uid
        Its original identifiers; left out if its header cannot be read.
    attributes
        Open attributes by name, for example ``{"Modality": "CT", "StudyMonth": "2024-05"}``.
    """

    source_object: SourceObject
    is_listed: bool = True
    identifiers: IndexedIdentifiers = field(default_factory=IndexedIdentifiers)
    sop_instance_uid: str = field(default="", repr=False)
    attributes: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def is_unreadable(self) -> bool:
        """True if the header of the object cannot be read."""
        return self.identifiers.series_instance_uid is None


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortAnswer:
    """The answer to one line of a cohort list.

    Parameters
    ----------
    number
        Line of the list.
    status
        `ambiguous`: the line matches objects of more than one patient, or of one PatientID from several issuers. Its
        objects are not planned.
    objects
        Number of objects that it matches.
    """

    number: int
    status: LineStatus
    objects: int


_STORE = """
INSERT INTO index_source (project_id, store, prefix)
VALUES (%(project)s, %(store)s, ''), (%(project)s, %(store)s, %(prefix)s)
ON CONFLICT DO NOTHING;
SELECT (SELECT source_id FROM index_source WHERE project_id = %(project)s AND store = %(store)s AND prefix = ''),
       (SELECT source_id FROM index_source WHERE project_id = %(project)s AND store = %(store)s AND prefix = %(prefix)s)
"""

_IDENTIFIERS = "patient, issuer, accession, study, series"

_ADD = f"""{UNFLUSHED}
CREATE TEMP TABLE IF NOT EXISTS index_entry (
    key_hash uuid, encrypted_key bytea, size bigint, etag text, version_id text, last_modified timestamptz,
    instance uuid, patient uuid, issuer uuid, accession uuid, study uuid, series uuid, attributes jsonb)
    ON COMMIT DELETE ROWS;
INSERT INTO pg_temp.index_entry SELECT * FROM unnest(
    %(key_hash)s::uuid[], %(encrypted_key)s::bytea[], %(size)s::bigint[], %(etag)s::text[], %(version_id)s::text[],
    %(last_modified)s::timestamptz[], %(instance)s::uuid[], %(patient)s::uuid[], %(issuer)s::uuid[],
    %(accession)s::uuid[], %(study)s::uuid[], %(series)s::uuid[], %(attributes)s::jsonb[]);
UPDATE index_source SET has_objects = true WHERE source_id = %(source)s AND NOT has_objects;
INSERT INTO index_attributes (store_id, attributes)
SELECT DISTINCT %(store)s, attributes FROM pg_temp.index_entry ORDER BY 2 ON CONFLICT DO NOTHING;
WITH entry AS MATERIALIZED (
    SELECT e.*, a.attributes_number FROM pg_temp.index_entry e
    JOIN index_attributes a ON a.store_id = %(store)s AND a.attributes = e.attributes
), named AS (
    -- The conflict finds a series by all of its identifiers. A join could find it by an accession number that is empty
    -- in a whole archive.
    INSERT INTO index_series (store_id, {_IDENTIFIERS}, attributes_number)
    SELECT DISTINCT %(store)s, {_IDENTIFIERS}, attributes_number FROM entry ORDER BY 2, 3, 4, 5, 6, 7
    ON CONFLICT (store_id, {_IDENTIFIERS}, attributes_number) DO UPDATE SET objects = index_series.objects
    RETURNING {_IDENTIFIERS}, attributes_number, series_number
), placed AS (
    SELECT DISTINCT ON (e.key_hash) e.*, n.series_number
    FROM entry e JOIN named n USING ({_IDENTIFIERS}, attributes_number) ORDER BY e.key_hash
), put AS (
    INSERT INTO index_object AS o (store_id, key_hash, source_id, encrypted_key, size, etag, version_id, last_modified,
                                   instance, series_number)
    SELECT %(store)s, key_hash, %(source)s, encrypted_key, size, etag, coalesce(version_id, ''), last_modified,
        instance, series_number FROM placed
    ON CONFLICT (store_id, key_hash) DO UPDATE SET source_id = excluded.source_id, size = excluded.size,
        etag = excluded.etag, version_id = excluded.version_id,
        last_modified = coalesce(excluded.last_modified, o.last_modified),
        instance = excluded.instance, series_number = excluded.series_number
)
SELECT DISTINCT o.series_number FROM placed p JOIN index_object o ON o.store_id = %(store)s AND o.key_hash = p.key_hash
WHERE o.series_number <> p.series_number
"""  # noqa: S608 - constants

_LIST = """
DROP TABLE IF EXISTS pg_temp.listed;
CREATE TEMP TABLE listed (key_hash uuid);
SELECT clock_timestamp()
"""

_CHANGED = """
INSERT INTO pg_temp.listed SELECT unnest(%(keys)s::uuid[]);
SELECT w.position FROM unnest(%(keys)s::uuid[], %(etags)s::text[]) WITH ORDINALITY w (key_hash, etag, position)
LEFT JOIN index_object o ON o.store_id = %(store)s AND o.key_hash = w.key_hash
WHERE o.etag IS DISTINCT FROM w.etag ORDER BY 1
"""

_ADD_PROCESSED = """
INSERT INTO pg_temp.listed SELECT i.key_hash FROM batch b JOIN batch_item i USING (batch_id)
WHERE b.started_at >= %(began)s OR b.finished_at >= %(began)s OR b.expires_at >= %(began)s;
ANALYZE pg_temp.listed
"""

# Rows that were listed under a prefix above this one may lie outside it: the listing of that prefix removes them.
_VANISHED = """
SELECT o.key_hash::text, o.encrypted_key FROM index_object o JOIN index_source s USING (source_id)
WHERE o.store_id = %(store)s AND starts_with(s.prefix, %(prefix)s)
  AND NOT EXISTS (SELECT FROM pg_temp.listed l WHERE l.key_hash = o.key_hash)
"""

_REMOVE = """
DELETE FROM index_object WHERE store_id = %(store)s AND key_hash = ANY (%(keys)s::uuid[]) RETURNING series_number
"""

_LINES = """
DROP TABLE IF EXISTS pg_temp.cohort, pg_temp.cohort_match;
CREATE TEMP TABLE cohort AS SELECT * FROM unnest(
    %(number)s::integer[], %(key_hash)s::uuid[], %(patient)s::uuid[], %(issuer)s::uuid[], %(accession)s::uuid[],
    %(study)s::uuid[], %(series)s::uuid[])
    w (number, key_hash, patient, issuer, accession, study, series);
"""

_OTHERS = " AND ".join(
    f"(c.{each} IS NULL OR s.{each} = c.{each})" for each in ("patient", "issuer", "accession", "study", "series")
)


def _branch(selector: str) -> str:
    """Return the query of the lines whose most selective identifier is `selector`."""
    is_first = " AND ".join(
        [f"c.{selector} IS NOT NULL", *(f"c.{each} IS NULL" for each in _SELECTORS[: _SELECTORS.index(selector)])]
    )
    if selector == "key_hash":
        return f"""
            SELECT c.number, s.series_number, o.key_hash FROM pg_temp.cohort c
            JOIN index_object o ON o.store_id = %(store)s AND o.key_hash = c.key_hash
            JOIN index_series s USING (series_number) WHERE {is_first} AND {_OTHERS}"""  # noqa: S608 - constants
    return f"""
        SELECT c.number, s.series_number, NULL::uuid FROM pg_temp.cohort c
        JOIN index_series s ON s.store_id = %(store)s AND s.{selector} = c.{selector}
        WHERE {is_first} AND {_OTHERS}"""  # noqa: S608 - constants


_MATCH = f"""
CREATE TEMP TABLE cohort_match AS SELECT * FROM ({" UNION ALL ".join(map(_branch, _SELECTORS))})
    w (number, series_number, key_hash);
ANALYZE pg_temp.cohort_match;
WITH series AS (
    SELECT series_number, count(*) AS objects FROM index_object
    WHERE series_number IN (SELECT series_number FROM pg_temp.cohort_match WHERE key_hash IS NULL) GROUP BY 1
), answer AS (
    SELECT m.number, sum(CASE WHEN m.key_hash IS NULL THEN coalesce(n.objects, 0) ELSE 1 END)::bigint AS objects,
        count(DISTINCT s.patient) FILTER (WHERE n.objects > 0 OR m.key_hash IS NOT NULL) AS patients,
        -- Many archives have the issuer in some objects of a patient only.
        count(DISTINCT s.issuer) FILTER (WHERE s.issuer <> %(no_issuer)s
                                         AND (n.objects > 0 OR m.key_hash IS NOT NULL)) AS issuers
    FROM pg_temp.cohort_match m JOIN index_series s USING (series_number) LEFT JOIN series n USING (series_number)
    GROUP BY 1
)
SELECT c.number,
    CASE WHEN coalesce(a.objects, 0) = 0 THEN 'absent' WHEN a.patients > 1 OR a.issuers > 1 THEN 'ambiguous'
         ELSE 'found' END,
    coalesce(a.objects, 0)
FROM pg_temp.cohort c LEFT JOIN answer a USING (number) ORDER BY 1
"""  # noqa: S608 - constants

_OBJECT = "o.key_hash::text, o.encrypted_key, o.size, o.etag, o.last_modified, nullif(o.version_id, '')"

# OFFSET 0 makes PostgreSQL look each series up by the index, rather than read all objects of the archive.
_MATCHED_OBJECTS = f"""
WITH found AS (
    SELECT DISTINCT series_number, key_hash FROM pg_temp.cohort_match WHERE number = ANY (%(found)s)
)
SELECT {_OBJECT} FROM found f CROSS JOIN LATERAL (
    SELECT * FROM index_object WHERE series_number = f.series_number OFFSET 0) o
WHERE f.key_hash IS NULL AND o.store_id = %(store)s
UNION ALL
SELECT {_OBJECT} FROM found f JOIN index_object o ON o.store_id = %(store)s AND o.key_hash = f.key_hash
WHERE f.series_number NOT IN (SELECT series_number FROM found WHERE key_hash IS NULL)
"""  # noqa: S608 - constants


def _count(series: str) -> str:
    """Return the statement that counts the objects of some series again, which a query gives.

    One connection counts at a time, and sees what was committed before: the last one to count is right.
    """
    return f"""
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' index counts', 0));
UPDATE index_series s SET (objects, bytes, deidentified, quarantined, excluded)
    = (n.objects, n.bytes, n.deidentified, n.quarantined, n.excluded)
FROM (
    SELECT t.series_number, count(o.key_hash) AS objects, coalesce(sum(o.size), 0)::bigint AS bytes,
        count(*) FILTER (WHERE d.deidentified) AS deidentified,
        count(*) FILTER (WHERE d.quarantined AND NOT d.deidentified) AS quarantined,
        count(*) FILTER (WHERE d.excluded AND NOT d.deidentified AND NOT d.quarantined) AS excluded
    FROM index_series t JOIN index_source i ON i.source_id = t.store_id
    LEFT JOIN index_object o ON o.series_number = t.series_number
    LEFT JOIN LATERAL (
        SELECT bool_or(d.outcome = 'deidentified') AS deidentified, bool_or(d.outcome = 'quarantined') AS quarantined,
            bool_or(d.outcome = 'excluded') AS excluded
        FROM work_scope w JOIN processed_object d USING (scope_id)
        WHERE w.project_id = i.project_id AND w.source_store = i.store AND d.key_hash = o.key_hash) d ON true
    WHERE t.series_number IN ({series}) GROUP BY 1
) n
WHERE s.series_number = n.series_number AND (s.objects, s.bytes, s.deidentified, s.quarantined, s.excluded)
    IS DISTINCT FROM (n.objects, n.bytes, n.deidentified, n.quarantined, n.excluded)
"""  # noqa: S608 - constants


_COUNT_ALL = _count("SELECT series_number FROM index_series WHERE store_id = %(store)s")

_COUNT_BATCH = _count("""
    SELECT unnest(%(left)s::bigint[]) UNION
    SELECT o.series_number FROM batch_item b JOIN index_object o ON o.store_id = %(store)s AND o.key_hash = b.key_hash
    WHERE b.batch_id = %(batch)s""")

_COUNT_UNFINISHED = _count("""
    SELECT o.series_number FROM batch b JOIN work_scope w USING (scope_id) JOIN batch_item t USING (batch_id)
    JOIN index_source x ON x.project_id = w.project_id AND x.store = w.source_store AND x.prefix = ''
    JOIN index_object o ON o.store_id = x.source_id AND o.key_hash = t.key_hash
    WHERE b.run_id = %(run)s AND b.state <> 'finished'""")

_COUNT_OBJECTS = _count("""
    SELECT o.series_number FROM processed_object p JOIN work_scope USING (scope_id)
    JOIN index_source x ON x.project_id = work_scope.project_id AND x.store = work_scope.source_store AND x.prefix = ''
    JOIN index_object o ON o.store_id = x.source_id AND o.key_hash = p.key_hash
    WHERE p.object_id = ANY (%(objects)s::uuid[])""")

_COUNTS = """
WITH counted AS (
    SELECT s.attributes_number, sum(objects) AS objects, sum(bytes) AS bytes, sum(deidentified) AS deidentified,
        sum(quarantined) AS quarantined, sum(excluded) AS excluded
    FROM project p JOIN index_source i USING (project_id) JOIN index_series s ON s.store_id = i.source_id
    WHERE p.name = %(project)s AND objects > 0 GROUP BY 1
)
SELECT a.attributes ->> 'Modality', left(a.attributes ->> 'StudyMonth', 4), a.attributes ->> 'Manufacturer',
    a.attributes ->> 'ManufacturerModelName', sum(objects)::bigint, sum(bytes)::bigint, sum(deidentified)::bigint,
    sum(quarantined)::bigint, sum(excluded)::bigint
FROM counted JOIN index_attributes a USING (attributes_number) GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2, 3, 4
"""


class ArchiveCount(NamedTuple):
    """Number of indexed objects of one kind, and how many of them have which newest outcome in the project."""

    modality: str | None
    year: str | None
    manufacturer: str | None
    model: str | None
    objects: int
    bytes: int
    deidentified: int
    quarantined: int
    excluded: int


class SourceIndex:
    """The index of one source for one project.

    Parameters
    ----------
    connection
        The database.
    project
        Its keys hash the identifiers; two projects share no index.
    source
        URL of the source: ``s3://bucket/prefix`` or a directory.

    Attributes
    ----------
    removed
        Number of objects that were removed because they have vanished from the source.
    """

    def __init__(self, connection: DatabaseConnection, project: Project, source: str) -> None:
        self._connection = connection
        self._project = project
        self._stored = frozenset(project.options.index_attributes.split(","))
        store, self._prefix = split_source(source)
        rows = connection.query(
            "opening the index",
            _STORE,
            {"project": project.project_id, "store": store, "prefix": self._prefix},
        )
        self._store_id, self._source_id = rows[0]
        # Series that objects left because they were replaced under their keys, or have vanished.
        self._left: set[int] = set()
        self.removed = 0

    def add(self, entries: Sequence[IndexEntry]) -> None:
        """Put objects into the index, or replace what it has of them, in one round trip."""
        if not entries:
            return
        columns = ("key_hash", "encrypted_key", "size", "etag", "version_id", "last_modified", "instance")
        hashed = ("patient", "issuer", "accession", "study", "series")
        values: dict[str, Any] = {name: [] for name in (*columns, *hashed, "attributes")}
        nothing = _index_hash(self._project, IdentifierKind.UID, "")
        of_entries = index_hashes(self._project, (each.identifiers for each in entries))
        for entry, hashes in zip(entries, of_entries, strict=True):
            listed = entry.source_object
            moment = listed.last_modified if entry.is_listed else None
            key = self._prefix + listed.key
            key_hash = source_key_hash(self._project, key)
            encrypted = self._project.source_key_cipher.encrypt(
                key.encode("utf-8", "surrogateescape"), UUID(key_hash).bytes
            )
            instance = _index_hash(self._project, IdentifierKind.UID, entry.sop_instance_uid)
            row = (key_hash, encrypted, listed.size, listed.etag, listed.version_id, moment, instance)
            for name, value in zip(columns, row, strict=True):
                values[name].append(value)
            for name, value in zip(hashed, hashes, strict=True):
                values[name].append(value or nothing)
            if entry.is_unreadable:
                # Unreadable objects are spread over many series: a batch counts all objects of its series.
                values["series"][-1] = key_hash[:_UNREADABLE_DIGITS].ljust(2 * _HASH_BYTES, "0")
            attributes = {name: value for name, value in entry.attributes.items() if name in self._stored}
            values["attributes"].append(json.dumps(attributes, sort_keys=True))
        # Counting locks the series in another order: outside a transaction a deadlock is only a second attempt.
        rows = self._connection.query(
            "adding to the index", _ADD, {**values, "store": self._store_id, "source": self._source_id}
        )
        self._left.update(number for (number,) in rows)

    def count(self) -> None:
        """Count the objects of each series by outcome, for :func:`count_archive`."""
        self._connection.query("counting the index", _COUNT_ALL, {"store": self._store_id})

    def count_changed(self, batch_id: int | None = None) -> None:
        """Count the series again that objects have left, and those of the objects of a batch."""
        if self._left or batch_id is not None:
            parameters = {"store": self._store_id, "batch": batch_id, "left": sorted(self._left)}
            self._connection.query("counting the index", _COUNT_BATCH, parameters)

    def changed(
        self, listing: Iterable[Sequence[SourceObject]], unread: Sequence[str] = ()
    ) -> Iterator[list[SourceObject]]:
        """Yield, for each chunk of a complete listing, the objects that the index lacks or has of another version.

        After the last chunk, objects that were not listed are removed from the index; `unread` as for
        :meth:`remove_vanished`. A listing without any object is taken for a wrong address, as when planning.
        """
        ((began,),) = self._connection.query("reading the index", _LIST)
        is_empty = True
        for chunk in listing:
            is_empty = False
            rows = self._connection.query(
                "reading the index",
                _CHANGED,
                {
                    "keys": [source_key_hash(self._project, self._prefix + each.key) for each in chunk],
                    "etags": [each.etag for each in chunk],
                    "store": self._store_id,
                },
            )
            yield [chunk[position - 1] for (position,) in rows]
        if not is_empty:
            add_processed(self._connection, began)
            self.remove_vanished(unread)

    def remove_vanished(self, unread: Sequence[str] = (), known: Sequence[str] = ()) -> None:
        """Remove the objects that were indexed below this source and that a complete listing of it has not.

        Parameters
        ----------
        unread
            Prefixes, relative to the source, of keys that the listing could not show.
        known
            Hashes of the keys of other objects that have vanished, which were indexed with a larger part of the store.

        The keys of the listing are in the table `pg_temp.listed`.
        """
        doing = "removing deleted objects from the index"
        parameters = {"store": self._store_id, "prefix": self._prefix}
        rows = self._connection.query(doing, _VANISHED, parameters)
        kept = tuple(self._prefix + each for each in unread)
        gone = [
            key_hash
            for key_hash, encrypted in rows
            if not (kept and decrypt_source_key(self._project, key_hash, encrypted).startswith(kept))
        ]
        removed = self._connection.query(doing, _REMOVE, {**parameters, "keys": [*gone, *known]})
        self._left.update(number for (number,) in removed)
        self.removed = len(removed)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing of the store is indexed for the project."""
        rows = self._connection.query(
            "reading the index", "SELECT NOT EXISTS (SELECT FROM index_object WHERE store_id = %s)", (self._store_id,)
        )
        return bool(rows[0][0])

    def match(self, lines: Sequence[tuple[int, IndexedIdentifiers, str | None]]) -> list[CohortAnswer]:
        """Look up the lines of a cohort list: line number, identifiers, source key relative to the source.

        Returns
        -------
        list of CohortAnswer
            One per line, in the order of the numbers.
        """
        hashes = index_hashes(self._project, (identifiers for _, identifiers, _ in lines))
        parameters: dict[str, Any] = {
            name: [each[position] for each in hashes]
            for position, name in enumerate(("patient", "issuer", "accession", "study", "series"))
        }
        parameters["number"] = [number for number, _, _ in lines]
        parameters["key_hash"] = [
            None if key is None else source_key_hash(self._project, self._prefix + key) for _, _, key in lines
        ]
        doing = "looking up a cohort"
        self._connection.query(doing, _LINES, parameters)
        rows = self._connection.query(
            doing, _MATCH, {"store": self._store_id, "no_issuer": _index_hash(self._project, IdentifierKind.UID, "")}
        )
        return [CohortAnswer(number=number, status=status, objects=objects) for number, status, objects in rows]

    def matched_objects(self, answers: Iterable[CohortAnswer]) -> Iterator[SourceObject]:
        """Yield the objects of the lines with the status `found`, each once, after :meth:`match`."""
        found = [answer.number for answer in answers if answer.status == "found"]
        for key_hash, encrypted, size, etag, last_modified, version_id in self._connection.rows(
            "reading a cohort", _MATCHED_OBJECTS, {"store": self._store_id, "found": found}
        ):
            key = decrypt_source_key(self._project, key_hash, encrypted)
            if key.startswith(self._prefix):
                moment = last_modified or datetime.now(UTC)
                yield SourceObject(key.removeprefix(self._prefix), size, etag, moment, version_id)


def _index_hash(project: Project, kind: IdentifierKind, value: str) -> str:
    """Return the first 128 bits of the keyed hash of a value; one and the same for all that are empty."""
    plain = normalised(value)
    return keyed_hash_of(project, kind if plain else IdentifierKind.UID, plain)[:_HASH_BYTES].hex()


def index_hashes(project: Project, some: Iterable[IndexedIdentifiers]) -> list[tuple[str | None, ...]]:
    """Return the hashes of patient, issuer, accession number, study and series of each; None for what is not given."""
    # Objects of a series have the same identifiers.
    hash_of = cache(partial(_index_hash, project))
    return [
        tuple(
            [
                None if value is None else hash_of(kind, value)
                for kind, value in (
                    (IdentifierKind.PATIENT_ID, of.patient_id),
                    (IdentifierKind.PATIENT_ID, of.issuer_of_patient_id and issuer_term(of.issuer_of_patient_id)),
                    (IdentifierKind.ACCESSION_NUMBER, of.accession_number),
                    (IdentifierKind.UID, of.study_instance_uid),
                    (IdentifierKind.UID, of.series_instance_uid),
                )
            ]
        )
        for of in some
    ]


def add_processed(connection: DatabaseConnection, began: datetime) -> None:
    """Add to the keys of a listing what other runs have processed since it began: it may be newer than the listing."""
    connection.query("looking for deleted source objects", _ADD_PROCESSED, {"began": began})


def count_unfinished(connection: DatabaseConnection, run_id: str) -> None:
    """Count the series again that the unfinished batches of a run have objects of."""
    connection.query("counting the index", _COUNT_UNFINISHED, {"run": run_id})


def count_objects(connection: DatabaseConnection, objects: Sequence[str]) -> None:
    """Count the series of objects again whose outcome was changed otherwise than by a batch, given by their ids."""
    if objects:
        connection.query("counting the index", _COUNT_OBJECTS, {"objects": objects})


def count_archive(connection: DatabaseConnection, project: str) -> list[ArchiveCount]:
    """Return how many indexed objects there are by modality, year, manufacturer and model, the most frequent first."""
    rows = connection.query("counting the archive", _COUNTS, {"project": project})
    return [ArchiveCount(*row) for row in rows]


def indexed_sources(connection: DatabaseConnection, project: str) -> list[str]:
    """Return the URLs of the sources that are indexed for a project."""
    rows = connection.query(
        "reading the indexed sources",
        "SELECT store, i.prefix FROM project p JOIN index_source i USING (project_id) "
        "WHERE p.name = %s AND i.has_objects ORDER BY 1, 2",
        (project,),
    )
    return [f"{store}/{prefix}".rstrip("/") for store, prefix in rows]


def record_answers(connection: DatabaseConnection, run_id: str, answers: Sequence[CohortAnswer]) -> None:
    """Record the answers of a run's cohort list: line numbers and counts, no identifier."""
    connection.query(
        "recording a cohort",
        "DELETE FROM cohort_line WHERE run_id = %(run)s; INSERT INTO cohort_line (run_id, number, status, objects) "
        "SELECT %(run)s, * FROM unnest(%(numbers)s::integer[], %(states)s::text[], %(objects)s::bigint[])",
        {
            "run": run_id,
            "numbers": [answer.number for answer in answers],
            "states": [answer.status for answer in answers],
            "objects": [answer.objects for answer in answers],
        },
    )


def read_answers(connection: DatabaseConnection, run_id: str) -> list[CohortAnswer]:
    """Return the answers of a run's cohort list, by line."""
    rows = connection.query(
        "reading a cohort", "SELECT number, status, objects FROM cohort_line WHERE run_id = %s ORDER BY 1", (run_id,)
    )
    return [CohortAnswer(number=number, status=status, objects=objects) for number, status, objects in rows]
