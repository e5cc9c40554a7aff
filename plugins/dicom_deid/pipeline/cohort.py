"""Cohort lists: the patients, studies, series or objects that a run is to release, as a CSV or Parquet file."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from dicom_deid.database import AccessReason, Database, Project
from dicom_deid.database.crosswalk_import import write_csv
from dicom_deid.database.source_index import CohortAnswer, IndexedIdentifiers, SourceIndex
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind, PatientKey, with_issuer
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import S3Connection, open_object_store
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import Connections

COLUMNS = {
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "AccessionNumber": "accession_number",
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SourceKey": "source_key",
    "Pseudonym": "pseudonym",
}
"""Columns of a cohort list. `Pseudonym` is the PatientID that the patient is to get in the project."""

_MAX_BYTES = 64 * 2**20
_DELIMITERS = (",", ";", "\t")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_SHORTENED = re.compile(r"[0-9][.,][0-9]+E\+?[0-9]+", re.IGNORECASE)
"""A long number as a spreadsheet writes it after it has lost its digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortLine:
    """One line of a cohort list. All of its identifiers must match; their values are PHI.

    Parameters
    ----------
    number
        Line of the file, from 1; the header is line 1.
    pseudonym
        PatientID that the patient is to have in the project, None to generate one.
    """

    number: int
    patient_id: str | None = field(default=None, repr=False)
    issuer_of_patient_id: str | None = field(default=None, repr=False)
    accession_number: str | None = field(default=None, repr=False)
    study_instance_uid: str | None = field(default=None, repr=False)
    series_instance_uid: str | None = field(default=None, repr=False)
    source_key: str | None = field(default=None, repr=False)
    pseudonym: str | None = field(default=None, repr=False)

    @property
    def identifiers(self) -> IndexedIdentifiers:
        """The identifiers that must match, without the source key."""
        return IndexedIdentifiers(**{each.name: getattr(self, each.name) for each in fields(IndexedIdentifiers)})

    @property
    def selects(self) -> bool:
        """True if the line has an identifier or a key that selects objects; an issuer alone does not."""
        given = (
            self.patient_id,
            self.accession_number,
            self.study_instance_uid,
            self.series_instance_uid,
            self.source_key,
        )
        return any(given)

    def patient(self, patient_key: PatientKey) -> str | None:
        """Return the original of the patient's pseudonym: the PatientID, with its issuer if that is part of the key."""
        if self.patient_id is None or patient_key == "id":
            return self.patient_id
        return with_issuer(self.patient_id, self.issuer_of_patient_id or "")


def load_cohort(url: str, connection: S3Connection | None = None, patient_key: PatientKey = "id") -> list[CohortLine]:
    """Read a cohort list from ``s3://bucket/key`` or a path.

    Raises
    ------
    ConfigurationError
        There is no such file, or :func:`read_cohort` refuses it.
    """
    return read_cohort(load_list(url, connection), url.rpartition("/")[2], patient_key)


def load_list(url: str, connection: S3Connection | None = None) -> bytes:
    """Read a list of at most 64 MiB from ``s3://bucket/key`` or a path.

    Raises
    ------
    ConfigurationError
        There is no such file, or it is too large.
    """
    parent, _, name = url.rpartition("/")
    store = open_object_store(parent or ("/" if url.startswith("/") else "."), connection)
    found = store.find(name)
    if found is None:
        raise ConfigurationError(f"There is no list at {url}.")
    if found.size > _MAX_BYTES:
        raise ConfigurationError(f"{url}: the list is larger than {_MAX_BYTES >> 20} MiB. Cut it into several lists.")
    return bytes(store.read(name, etag=found.etag, size=found.size))


class MatchedCohort(NamedTuple):
    """A cohort list and what the index of the source has for it.

    Parameters
    ----------
    lines, answers
        The list, and one answer per line.
    objects
        The objects of the lines that were found, each once; read while the context is open.
    """

    lines: list[CohortLine]
    answers: list[CohortAnswer]
    objects: Iterator[SourceObject]


@contextmanager
def match_cohort(configuration: RunConfiguration, connections: Connections) -> Iterator[MatchedCohort | None]:
    """Look the lines of a run's cohort list up in the index of its source; None if the run has no list.

    Raises
    ------
    ConfigurationError
        The list cannot be read, or the source is not indexed.
    """
    if configuration.cohort is None:
        yield None
        return
    lines = load_cohort(configuration.cohort, connections.source, configuration.patient_key or "id")
    source = open_object_store(configuration.source, connections.source).url
    start = source.rstrip("/") + "/"
    # A connection of its own: the matched objects are read from it while another one plans them.
    with connections.open_database() as database:
        index = SourceIndex(database.connection, database.project(configuration.project, create=False), source)
        if index.is_empty:
            raise ConfigurationError(f"{source} is not indexed for this project: run `dicom-deid index` first.")
        answers = index.match(
            [(line.number, line.identifiers, line.source_key and line.source_key.removeprefix(start)) for line in lines]
        )
        yield MatchedCohort(lines, answers, index.matched_objects(answers))


def import_pseudonyms(database: Database, project: Project, lines: Iterable[CohortLine], access: AccessReason) -> int:
    """Import the pseudonyms that a cohort list gives for its patients, and return how many are new.

    Raises
    ------
    ConfigurationError
        A patient has another pseudonym in the project, or a pseudonym is taken; nothing was imported.
    """
    given = {
        (IdentifierKind.PATIENT_ID, patient): line.pseudonym
        for line in lines
        if (patient := line.patient(project.options.patient_key)) and line.pseudonym
    }
    if not given:
        return 0
    file = io.StringIO()
    write_csv(given.items(), file)
    file.seek(0)
    return database.import_crosswalk(project, file, access)


def read_cohort(data: bytes, name: str, patient_key: PatientKey = "id") -> list[CohortLine]:
    """Read a cohort list.

    Parameters
    ----------
    data
        The file: Parquet, or CSV in UTF-8, UTF-16 with byte order mark or Latin-1, separated by comma, semicolon or
        tab. Column names are those of `COLUMNS`, in any case and order.
    name
        Name of the file, for messages.
    patient_key
        Whether equal PatientIDs of two issuers are one patient, which has one pseudonym.

    Returns
    -------
    list of CohortLine
        In the order of the file. Lines with equal identifiers are kept; each is answered in the report.

    Raises
    ------
    ConfigurationError
        The file cannot be read without guessing. The message names the line or the column, never a value.
    """
    rows = _parquet_rows(data, name) if data[:4] == b"PAR1" else _csv_rows(_text(data, name), name)
    lines = [_line(number, values, name) for number, values in rows]
    if not lines:
        raise ConfigurationError(f"{name}: the list has no lines below its header.")
    _check_pseudonyms(lines, name, patient_key)
    return lines


def _text(data: bytes, name: str) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
    # The bytes 80 to 9F are control characters in Latin-1 and letters in other code pages: not to be told apart.
    if encoding == "utf-16" or re.search(rb"[\x80-\x9f]", data):
        raise ConfigurationError(f"{name}, line {number}: the text is not UTF-8. Save the list as CSV UTF-8.")
    return data.decode("latin-1")


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    if "\0" in text:
        raise ConfigurationError(f"{name}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character.")
    header_line = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    readers = {delimiter: next(csv.reader([header_line], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda each: sum(_column(word) is not None for word in readers[each]))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: Sequence[str] | None = None
    try:
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if columns is None:
                columns = _columns(row, name)
            elif len(row) != len(columns):
                raise ConfigurationError(
                    f"{name}, line {reader.line_num}: {len(row)} fields where the header has {len(columns)}."
                )
            else:
                yield reader.line_num, dict(zip(columns, row, strict=True))
    except csv.Error:
        raise ConfigurationError(f"{name}, line {reader.line_num}: a quotation mark is not closed.") from None
    if columns is None:
        raise ConfigurationError(f"{name}: the list is empty. Its first line names the columns: {', '.join(COLUMNS)}.")


def _parquet_rows(data: bytes, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError(f"{name} is Parquet: install the extra `parquet`, or give CSV.") from None
    try:
        table = parquet.read_table(pa.BufferReader(data))
    except pa.ArrowException:
        raise ConfigurationError(f"{name}: the file is not valid Parquet.") from None
    columns = _columns(table.column_names, name)
    for number, row in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True), 1):
        for column, value in zip(columns, row, strict=True):
            if value is not None and not isinstance(value, str | int):
                raise ConfigurationError(f"{name}, row {number}: column {column} holds neither text nor whole numbers.")
        yield number, {column: "" if value is None else str(value) for column, value in zip(columns, row, strict=True)}


def _column(word: str) -> str | None:
    plain = re.sub(r"[\s_-]", "", word).casefold()
    return next((known for known in COLUMNS if known.casefold() == plain), None)


def _columns(words: Iterable[str], name: str) -> list[str]:
    found = []
    for word in words:
        column = _column(word)
        if column is None:
            # A list without a header would show a patient's identifier here: only near misses are quoted.
            near = difflib.get_close_matches(word.strip(), COLUMNS, 1, 0.6)
            what = f"the column {word.strip()} is unknown; did you mean {near[0]}?" if near else "a column is unknown."
            raise ConfigurationError(f"{name}, line 1: {what} Columns are {', '.join(COLUMNS)}.")
        if column in found:
            raise ConfigurationError(f"{name}, line 1: the column {column} is there twice.")
        found.append(column)
    return found


def _line(number: int, values: dict[str, str], name: str) -> CohortLine:
    given = {column: value.strip(" \0\t") for column, value in values.items()}
    for column, value in given.items():
        if column.endswith("UID") and value and not _UID.fullmatch(value):
            raise ConfigurationError(f"{name}, line {number}: {column} is not a UID.")
        if column != "SourceKey" and _SHORTENED.fullmatch(value):
            raise ConfigurationError(
                f"{name}, line {number}: {column} was shortened to a power of ten by a spreadsheet. Export it as text."
            )
    line = CohortLine(number=number, **{COLUMNS[column]: value or None for column, value in given.items()})
    if not line.selects:
        raise ConfigurationError(f"{name}, line {number}: no identifier that selects objects.")
    if line.pseudonym and not line.patient_id:
        raise ConfigurationError(f"{name}, line {number}: a Pseudonym needs the PatientID that it replaces.")
    return line


def _check_pseudonyms(lines: Iterable[CohortLine], name: str, patient_key: PatientKey) -> None:
    """Refuse two pseudonyms for one patient, and one pseudonym for two."""
    pseudonym_of: dict[str, CohortLine] = {}
    patient_of: dict[str, CohortLine] = {}
    for line in lines:
        patient = line.patient(patient_key)
        if patient is None or line.pseudonym is None:
            continue
        first = pseudonym_of.setdefault(patient, line)
        if first.pseudonym != line.pseudonym:
            raise ConfigurationError(f"{name}, lines {first.number} and {line.number}: two pseudonyms of one patient.")
        first = patient_of.setdefault(line.pseudonym, line)
        if first.patient(patient_key) != patient:
            raise ConfigurationError(f"{name}, lines {first.number} and {line.number}: one pseudonym of two patients.")
