"""Fill the index of a source: which patient, study, series and kind of object each key holds."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice

from pydicom.datadict import tag_for_keyword

from dicom_deid.database import Database
from dicom_deid.database.projects import INDEX_ATTRIBUTES
from dicom_deid.database.source_index import IndexedIdentifiers, IndexEntry, SourceIndex
from dicom_deid.dicom.root_elements import RootElements
from dicom_deid.engine import AnalysisResult
from dicom_deid.engine.pixels.layouts import is_free_of, patient_words
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore
from dicom_deid.objectstore.containers import note_unread
from dicom_deid.pipeline.fetch import fetch_root_elements
from dicom_deid.reasons import Reason

_NUMBERS = ("Rows", "Columns")
_OPEN_TEXTS = tuple(name for name in INDEX_ATTRIBUTES if name not in (*_NUMBERS, "StudyMonth"))
_TEXTS = (*_OPEN_TEXTS, "PatientName", "PatientID", "StudyDate")
_IDENTIFIERS = ("IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
INDEX_TAGS = frozenset(tag for name in (*_NUMBERS, *_TEXTS, *_IDENTIFIERS) if (tag := tag_for_keyword(name)))
"""Tags of the elements that an index entry is made of."""
UNREAD = frozenset({Reason.ARCHIVED, Reason.OBJECT_VANISHED, Reason.OBJECT_CHANGED, Reason.OBJECT_DAMAGED})
"""Reasons why a header was not read that say nothing about it."""
_CHUNK = 1000
_READ_BY_A_THREAD = 16
"""Objects that are given to a thread at once: one by one, the hand-over costs as much as the parsing."""
_GROUPS_AHEAD = 64
_ADD_AT_ONCE = 500
_STUDY_MONTH = re.compile(r"(?P<year>[0-9]{4})(?P<month>0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSummary:
    """The result of indexing.

    Parameters
    ----------
    listed
        Objects in the listing.
    read
        Objects whose header was read: new ones, and those that changed since they were indexed.
    unreadable
        Of these, objects that are no DICOM, malformed, or cannot be read now.
    removed
        Objects that the index had and the listing has not.
    """

    listed: int
    read: int
    unreadable: int
    removed: int


def index_entry(
    header: AnalysisResult | RootElements, source_object: SourceObject, *, is_listed: bool = True
) -> IndexEntry:
    """Return the index entry of an object that was analysed, or of whose root elements `INDEX_TAGS` were read."""
    original = header.original
    texts = tuple([original(keyword) for keyword in _TEXTS])
    return IndexEntry(
        source_object=source_object,
        is_listed=is_listed,
        identifiers=IndexedIdentifiers(
            patient_id=original("PatientID"),
            issuer_of_patient_id=original("IssuerOfPatientID"),
            accession_number=original("AccessionNumber"),
            study_instance_uid=original("StudyInstanceUID"),
            series_instance_uid=original("SeriesInstanceUID"),
        ),
        sop_instance_uid=original("SOPInstanceUID"),
        attributes=_attributes(texts, tuple([header.number(keyword) for keyword in _NUMBERS])),
    )


@lru_cache(maxsize=4096)
def _attributes(texts: tuple[str, ...], numbers: tuple[int | None, ...]) -> Mapping[str, str | int]:
    """Return the attributes of an object; those of a series are the same."""
    values = dict(zip(_TEXTS, texts, strict=True))
    # An operator may have typed the patient's name into any of them.
    words = patient_words(f"{values['PatientName']} {values['PatientID']}")
    attributes: dict[str, str | int] = {
        keyword: values[keyword] for keyword in _OPEN_TEXTS if values[keyword] and is_free_of(values[keyword], words)
    }
    attributes |= {name: number for name, number in zip(_NUMBERS, numbers, strict=True) if number is not None}
    month = _STUDY_MONTH.match(values["StudyDate"])
    if month:
        attributes["StudyMonth"] = f"{month['year']}-{month['month']}"
    return attributes


def index_source(database: Database, store: ObjectStore, project: str, *, transfers: int = 16) -> IndexSummary:
    """Read the headers of all new and changed objects of a source into the index of a project.

    Objects that were deleted from the source are removed from the index.

    Parameters
    ----------
    database, store, project
        Where the index is, the source, and whose keys hash the identifiers.
    transfers
        Number of headers that are read at a time.

    Raises
    ------
    ObjectStoreError, DatabaseError
        The store or the database is unavailable. The same call resumes: what is indexed is not read again.
    """
    index = SourceIndex(database.connection, database.project(project), store.url)
    listed = read = unreadable = 0
    unread: list[str] = []

    def chunks() -> Iterator[list[SourceObject]]:
        nonlocal listed
        objects = note_unread(store.list(), unread)
        while chunk := list(islice(objects, _CHUNK)):
            listed += len(chunk)
            yield chunk

    groups = (
        changed[start : start + _READ_BY_A_THREAD]
        for changed in index.changed(chunks(), unread)
        for start in range(0, len(changed), _READ_BY_A_THREAD)
    )
    waiting: list[IndexEntry] = []
    with ThreadPoolExecutor(transfers, "dicom-deid-index") as pool:
        for entries in _in_order(pool, partial(_read_entries, store), groups):
            read += len(entries)
            waiting += [entry for entry in entries if entry is not None]
            unreadable += sum(entry is None or entry.is_unreadable for entry in entries)
            if len(waiting) >= _ADD_AT_ONCE:
                index.add(waiting)
                waiting.clear()
    index.add(waiting)
    index.count()
    return IndexSummary(listed=listed, read=read, unreadable=unreadable, removed=index.removed)


def _read_entries(store: ObjectStore, objects: Sequence[SourceObject]) -> list[IndexEntry | None]:
    """Read the headers of some objects and return their entries; None for one that cannot be read now."""
    return [_read_entry(store, listed) for listed in objects]


def _read_entry(store: ObjectStore, listed: SourceObject) -> IndexEntry | None:
    if listed.archive_state:
        return None
    try:
        header = fetch_root_elements(
            store, listed.key, INDEX_TAGS, size=listed.size, etag=listed.etag, version_id=listed.version_id
        )
        return index_entry(header, listed)
    except Quarantine as problem:
        return None if problem.reason in UNREAD else IndexEntry(source_object=listed)


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[Sequence[SourceObject]], list[IndexEntry | None]],
    groups: Iterable[Sequence[SourceObject]],
) -> Iterator[list[IndexEntry | None]]:
    """Yield the results in the order of the groups; the pool goes on reading while the caller lists and stores."""
    pending: deque[Future[list[IndexEntry | None]]] = deque()
    for group in groups:
        pending.append(pool.submit(work, group))
        if len(pending) >= _GROUPS_AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
