"""The way of one object from the source to the destination: see `ObjectProcessor.process`."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import Any, Final, TypeVar
from urllib.parse import quote

from dicom_deid import __version__
from dicom_deid.database import AuditRow, BatchItem, Intent, ObjectIdentity
from dicom_deid.database.archive_words import ArchiveWords
from dicom_deid.database.audit import NO_IDENTITY
from dicom_deid.database.patient_terms import PatientTerms
from dicom_deid.database.quarantine import DeviceFacts, ItemDecision, decision_of_rule
from dicom_deid.database.source_index import IndexEntry
from dicom_deid.dicom.root_elements import RootElements
from dicom_deid.engine import Deidentifier, DeidentifyResult, SearchTerms
from dicom_deid.engine.pixels import PROJECT_RULES, TextLayout
from dicom_deid.exceptions import ConfigurationError, ObjectStoreError, Quarantine
from dicom_deid.objects import MEMBER_SEPARATOR, SourceRange
from dicom_deid.objectstore import ObjectStore, WriteMethod, WriteResult, write_parts
from dicom_deid.objectstore.containers import holder_of
from dicom_deid.pipeline.archive_words import ObjectWords
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import ObjectStores
from dicom_deid.pipeline.destination import KeyTemplate
from dicom_deid.pipeline.engine import amend, make_deidentifier
from dicom_deid.pipeline.executor import MemoryRequest, PendingObject, Reply, Steps
from dicom_deid.pipeline.fetch import (
    HEADER_SCAN_BYTES,
    FetchedObject,
    MoreMemoryNeeded,
    excluding_criterion,
    fetch_object,
    fetch_root_elements,
    read_patient_terms,
)
from dicom_deid.pipeline.header_facts import FACT_TAGS, device_facts, object_identity
from dicom_deid.pipeline.indexing import INDEX_TAGS, UNREAD, index_entry
from dicom_deid.pipeline.large import (
    COPIED_OBJECT_MEMORY,
    STREAMED_OBJECT_MEMORY,
    STREAMED_PARTS,
    SourceDigest,
    copy_unchanged,
    source_object,
)
from dicom_deid.pipeline.patient_terms import RunPatientTerms, is_lasting
from dicom_deid.reasons import Outcome, Reason

_LOG = logging.getLogger(__name__)
Read = TypeVar("Read")

_NOT_HELD: Final = {Reason.ARCHIVED: Outcome.ARCHIVED, Reason.SYSTEM_FILE: Outcome.EXCLUDED}
_GONE: Final = frozenset({Reason.OBJECT_VANISHED, Reason.OBJECT_CHANGED, Reason.WORKER_DIED})
_NOT_COPIED: Final = _GONE | {
    Reason.CONTAINER_DAMAGED,
    Reason.CONTAINER_ENCRYPTED,
    Reason.CONTAINER_UNSUPPORTED,
    Reason.CONTAINER_BOMB,
    Reason.CONTAINER_PATH,
    Reason.CONTAINER_NESTED,
    Reason.CONTAINER_INCOMPLETE,
    Reason.CONTAINER_TOO_LARGE,
}
"""Reasons of quarantined objects that cannot, or should not, be read again to be copied."""
_PLAIN_SEGMENT = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_MAX_KEY_BYTES = 1024
_UNREAD: Final = UNREAD | {Reason.HEADER_TOO_LARGE}
_MAX_FACT_BYTES = 2**20
"""Bound of what is read of a held object to describe it."""
_MAX_DEATHS = 2
"""An object that was in flight at this many deaths of workers is quarantined."""


@dataclass(frozen=True, slots=True)
class ObjectResult:
    """The result of one object in this attempt.

    Parameters
    ----------
    row
        For the audit.
    error
        Of a failed object, the exception of the object store.
    index_entry
        For the index of the source; None if the object could not be analysed.
    words
        For the words of the archive; None if the object was not cleaned by vocabulary.
    layout
        Where text was found, if the object was searched for it.
    reading, rewriting, writing
        Seconds spent in each stage.
    """

    row: AuditRow
    error: Exception | None = None
    index_entry: IndexEntry | None = None
    words: ObjectWords | None = None
    layout: TextLayout | None = None
    reading: float = 0.0
    rewriting: float = 0.0
    writing: float = 0.0


@dataclass(slots=True, repr=False)
class _Attempt:
    """State of one object in this attempt."""

    item: BatchItem
    counts_words: bool = False
    terms: int | None = None
    entry: IndexEntry | None = None
    fetched: FetchedObject | None = None
    destination_key: str = ""
    is_intended: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def end_stage(self, stage: str) -> None:
        """Count the time since the last stage ended; waiting for other objects does not count."""
        now = time.perf_counter()
        self.seconds[stage] = now - self.since
        self.since = now

    def result(
        self,
        outcome: Outcome,
        *,
        reason: Reason | None = None,
        detail: str = "",
        error: Exception | None = None,
        written: WriteResult | None = None,
        sha256_in: str | None = None,
        device: DeviceFacts | None = None,
        selection: str = "",
        rewritten: DeidentifyResult | None = None,
        identity: ObjectIdentity = NO_IDENTITY,
    ) -> ObjectResult:
        """Return the result, with what was found out about the object."""
        analysis = self.fetched.analysis if self.fetched else None
        row = AuditRow(
            item=self.item,
            outcome=outcome,
            reason=reason,
            detail=detail,
            destination_key=written.key if written else None,
            destination_etag=written.etag if written else None,
            destination_size=written.size if written else None,
            sha256_in=sha256_in,
            sha256_out=written.sha256 if written else None,
            sop_class_uid=analysis.sop_class_uid if analysis else None,
            transfer_syntax_uid=analysis.transfer_syntax_uid if analysis else None,
            modality=analysis.modality if analysis else None,
            actions=rewritten.actions if rewritten else {},
            notes={reason.value: count for reason, count in rewritten.notes.items()} if rewritten else {},
            milliseconds=round(sum(self.seconds.values()) * 1000),
            device=device,
            selection=selection,
            terms=self.terms,
            identity=identity,
            rule_decisions=_rule_decisions(rewritten) if rewritten else (),
        )
        entry, words, layout = self.entry, None, None
        if analysis is not None:
            entry = index_entry(analysis, source_object(self.item), is_listed=False)
            words = ObjectWords.of(analysis) if self.counts_words else None
            layout = analysis.walk.layout
        return ObjectResult(row, error, entry, words, layout, **self.seconds)


class ObjectProcessor:
    """Processes the objects of one batch; thread-safe.

    Parameters
    ----------
    deidentifier
        The engine.
    configuration
        The run.
    object_stores
        Source, destination and quarantine.
    metadata
        Written beside each object; no PHI.
    stored_terms
        The search terms of earlier runs.
    archive_words
        The words that the archive vouches for.
    """

    def __init__(
        self,
        deidentifier: Deidentifier,
        configuration: RunConfiguration,
        object_stores: ObjectStores,
        metadata: Mapping[str, str],
        stored_terms: PatientTerms | None = None,
        archive_words: ArchiveWords | None = None,
    ) -> None:
        self._deidentifier = deidentifier
        self._configuration = configuration
        self._stores = object_stores
        self._metadata = metadata
        self._template = KeyTemplate.parse(configuration.destination_key_template)
        copies = configuration.server_side_copy and object_stores.destination.can_copy_from(
            holder_of(object_stores.source)
        )
        self._memory_of_large = COPIED_OBJECT_MEMORY if copies else STREAMED_OBJECT_MEMORY
        # All objects share them: a store may refuse to copy after all.
        streamed = max(1, configuration.in_flight_bytes // STREAMED_OBJECT_MEMORY)
        self._parts_in_memory = Semaphore(STREAMED_PARTS * streamed)
        self._patient_key = configuration.patient_key or "id"
        self._selection = configuration.selection
        self._searches_residuals = configuration.settings.residuals != "off"
        self._patient_terms = RunPatientTerms(stored_terms)
        self._archive_words = archive_words
        self._amended: dict[ItemDecision, Deidentifier] = {}

    def process(self, item: BatchItem) -> Steps[ObjectResult]:
        """Process one object: read, analyse, look up pseudonyms, rewrite, check residuals, write, describe.

        The steps before the first `yield` run in a reading thread, the others in a writing thread. At each `yield` the
        caller's thread commits what is needed, of many objects at once: pseudonyms, then the intent to write. The
        caller records the result.

        An exception never leaves an object as it is: it ends the attempt with an outcome other than `deidentified`.
        """
        if item.recorded:
            # Done in an earlier attempt: only its patient's terms are needed, to search later objects for them.
            yield (yield from self._scan_recorded(item))
            return None
        attempt = _Attempt(item, self._configuration.settings.free_text == "vocabulary")
        try:
            # Leave out what reviewers, criteria or withdrawals exclude.
            left_out = self._leave_out(attempt)
            if left_out is not None:
                return left_out
            deidentifier = self._deidentifier_of(item)

            # Read the object (of a large one all but the pixel data), and analyse it: which identifiers need a
            # pseudonym, what do the rules remove, and is any of that left elsewhere in the object?
            large = self._configuration.large_object_bytes
            fetched = attempt.fetched = yield from self._with_memory(
                item, fetch_object, deidentifier, large_object_bytes=large, defer_search=True
            )
            attempt.end_stage("reading")

            # Look up the pseudonyms. They are committed when the reply comes.
            analysis = fetched.analysis
            terms = analysis.removed.patient_terms if analysis.removed is not None else frozenset()
            instance = analysis.original("SOPInstanceUID") or None
            is_slow = analysis.walk.search_deferred
            reply = yield PendingObject(
                analysis.identifiers, analysis.patient_id, analysis.patient, terms, instance, is_slow=is_slow
            )
            attempt.since = time.perf_counter()

            # Search its pixels for text; the steps of other objects run beside this one.
            if is_slow:
                analysis = fetched.analysis = deidentifier.analyse(bytes(fetched.data))

            # Search the object for what other objects of the patient gave.
            if self._searches_residuals:
                attempt.terms = sum(map(is_lasting, terms | reply.other_terms))
            if reply.other_terms:
                fetched.analysis = deidentifier.search_patient_terms(analysis, reply.other_terms)

            # Rewrite. The destination key is made of the new identifiers.
            rewritten = deidentifier.rewrite(fetched.analysis, reply.pseudonyms)
            attempt.destination_key = self._template.key(rewritten.identifiers)
            attempt.end_stage("rewriting")

            # Commit the intent to write: what a killed worker wrote is found by its intent.
            reply = yield Intent(
                item=item,
                destination_key=attempt.destination_key,
                identity=object_identity(fetched.analysis, self._patient_key),
            )
            attempt.since = time.perf_counter()
            if reply.is_refused:
                return attempt.result(Outcome.EXCLUDED, detail="withdrawn")
            attempt.is_intended = True

            # Write, unless the key is taken by an object that this project did not write for the same source object,
            # and describe what was written for the audit.
            digest = SourceDigest(fetched, rewritten.parts)
            written = self._write(attempt, fetched, rewritten, digest)
            attempt.end_stage("writing")
            return attempt.result(
                Outcome.DEIDENTIFIED,
                detail=_digest_detail(written),
                written=written,
                sha256_in=digest.hexdigest(),
                rewritten=rewritten,
            )
        except Exception as error:
            return (yield from self._not_written(attempt, error))

    def cost(self, item: BatchItem) -> int:
        """Return the bytes that an object takes in memory while it is in flight.

        An object that was in flight when a worker died is processed alone, so that a second death tells which of them
        was the cause.
        """
        if item.deaths:
            return self._configuration.in_flight_bytes
        if item.recorded:
            return min(item.size, HEADER_SCAN_BYTES)
        if item.size >= self._configuration.large_object_bytes:
            return self._memory_of_large
        # A member of a container is inflated in pieces that are joined.
        return 2 * item.size if MEMBER_SEPARATOR in item.key else item.size

    def add_terms(self, group: Sequence[PendingObject]) -> list[SearchTerms]:
        """Remember the terms of objects, and return for each those that earlier objects of the patient gave.

        Terms of earlier runs are read once per patient, and new ones are stored for later runs.
        """
        return self._patient_terms.add_and_get(group)

    def _with_memory(
        self, item: BatchItem, read: Callable[..., Read], deidentifier: Deidentifier, **options: int
    ) -> Generator[MemoryRequest, Reply, Read]:
        """Read an object; a deflated one is read again when its inflated size fits into memory."""
        read = partial(
            read,
            deidentifier,
            self._stores.source,
            item.key,
            size=item.size,
            etag=item.etag,
            version_id=item.version_id,
            **options,
        )
        try:
            return read(max_inflated_bytes=item.size)
        except MoreMemoryNeeded as need:
            inflated = need.size
        yield MemoryRequest(inflated)
        return read()

    def _leave_out(self, attempt: _Attempt) -> ObjectResult | None:
        """Return the result of an object that is not processed; None if it is."""
        item = attempt.item
        if item.withdrawn:
            return attempt.result(Outcome.EXCLUDED, detail="withdrawn")
        if item.decision is not None and item.decision.excluded:
            return attempt.result(Outcome.EXCLUDED, detail="decision")
        if item.deaths >= _MAX_DEATHS:
            return attempt.result(Outcome.QUARANTINED, reason=Reason.WORKER_DIED)
        if item.is_archived:
            raise Quarantine(Reason.ARCHIVED)
        if self._selection:
            header = self._read_header(item, self._selection.tags | INDEX_TAGS)
            criterion = excluding_criterion(self._selection, header)
            if criterion:
                attempt.entry = index_entry(header, source_object(item), is_listed=False)
                attempt.end_stage("reading")
                return attempt.result(Outcome.EXCLUDED, detail=criterion, selection=self._selection.digest)
        return None

    def _read_header(self, item: BatchItem, tags: frozenset[int], **how: Any) -> RootElements:
        return fetch_root_elements(
            self._stores.source, item.key, tags, size=item.size, etag=item.etag, version_id=item.version_id, **how
        )

    def _scan_recorded(self, item: BatchItem) -> Generator[MemoryRequest, Reply, PendingObject]:
        """Read the header of a recorded object; if it cannot be read any more, its terms are in the database.

        Raises
        ------
        ObjectStoreError, ConfigurationError
            The store is unavailable.
        """
        try:
            return (yield from self._scan_header(item))
        except (ObjectStoreError, ConfigurationError) as error:
            try:
                self._stores.check()
            except ConfigurationError:
                raise error from None
            return PendingObject(is_unreadable=True)

    def _scan_header(self, item: BatchItem) -> Generator[MemoryRequest, Reply, PendingObject]:
        """Read only the header to collect the patient's terms; there are none if it is no readable DICOM.

        Raises
        ------
        ObjectStoreError
            It could not be read now: without its terms later objects cannot be searched for them.
        """
        try:
            patient, terms = yield from self._with_memory(item, read_patient_terms, self._deidentifier)
        except Quarantine as problem:
            # The earlier attempt did not read an object either that was archived when it was planned.
            was_read = item.recorded and not item.is_archived
            return PendingObject(is_unreadable=was_read and problem.reason in UNREAD)
        return PendingObject(patient=patient, terms=terms)

    def _write(
        self, attempt: _Attempt, fetched: FetchedObject, rewritten: DeidentifyResult, digest: SourceDigest
    ) -> WriteResult:
        parts = rewritten.parts
        if len(fetched.data) == fetched.size:
            data = fetched.data
            parts = tuple(data[part.start : part.end] if isinstance(part, SourceRange) else part for part in parts)
        return write_parts(
            self._stores.source,
            source_object(attempt.item),
            self._stores.destination,
            attempt.destination_key,
            parts,
            metadata=self._metadata,
            replaces=_replaced_etag(attempt),
            server_side_copy=self._configuration.server_side_copy,
            verify=self._configuration.verify,
            observe=digest.update,
            parts_in_memory=self._parts_in_memory,
        )

    def _not_written(self, attempt: _Attempt, error: Exception) -> Steps[ObjectResult]:
        """Return the result of an object that was not written, and do what follows from its outcome."""
        outcome, reason, detail = _classify(error)
        if reason is Reason.DESTINATION_CONFLICT:
            detail = attempt.destination_key
        device, identity = None, NO_IDENTITY
        try:
            if outcome is Outcome.ARCHIVED and self._configuration.restore == "request":
                self._stores.source.restore(attempt.item.key, days=self._configuration.restore_days)
            elif outcome is Outcome.QUARANTINED:
                device, identity = self._header_facts(attempt)
                if (yield from self._is_withdrawn(attempt, reason, identity)):
                    return attempt.result(Outcome.EXCLUDED, detail="withdrawn", identity=identity)
                quarantine = self._stores.quarantine
                if quarantine is not None and reason not in _NOT_COPIED:
                    _copy_to_quarantine(self._stores.source, attempt.item, quarantine, reason)
        except Exception as second:
            _, reason, second_detail = _classify(second)
            step = "requesting to restore it" if outcome is Outcome.ARCHIVED else "holding it"
            outcome, error, detail = Outcome.FAILED, second, f"{step}: {second_detail}"
        attempt.end_stage("writing" if "reading" in attempt.seconds else "reading")
        return attempt.result(
            outcome,
            reason=reason,
            detail=detail,
            error=error if outcome is Outcome.FAILED else None,
            sha256_in=attempt.fetched.sha256 if attempt.fetched else None,
            device=device,
            identity=identity,
        )

    def _is_withdrawn(
        self, attempt: _Attempt, reason: Reason, identity: ObjectIdentity
    ) -> Generator[MemoryRequest | PendingObject | Intent, Reply, bool]:
        """Commit the intent to hold an object; return whether it was withdrawn, and must not even be copied."""
        if attempt.fetched is None:
            # It is not written, but later objects of the patient are searched for its terms.
            pending = PendingObject()
            if self._searches_residuals:
                pending = yield from self._scan_header(attempt.item)
            yield pending
        if attempt.is_intended:
            return False
        reply = yield Intent(item=attempt.item, reason=reason, identity=identity)
        attempt.since = time.perf_counter()
        return reply.is_refused

    def _deidentifier_of(self, item: BatchItem) -> Deidentifier:
        """Return the engine for an object: with the rules and settings of the decision about it, if there is one."""
        decision = item.decision
        if decision is None or not (decision.rules or decision.settings != "{}"):
            return self._deidentifier
        if decision not in self._amended:
            self._amended[decision] = make_deidentifier(amend(self._configuration, decision), self._archive_words)
        return self._amended[decision]

    def _header_facts(self, attempt: _Attempt) -> tuple[DeviceFacts | None, ObjectIdentity]:
        """Return what is known of a quarantined object: how it is grouped, and how it can be withdrawn.

        Of an object that cannot be read it is what comes before the element that cannot; the index has it without.
        """
        device, identity = None, NO_IDENTITY
        if attempt.fetched is not None:
            identity = object_identity(attempt.fetched.analysis, self._patient_key)
        for lenient in (False, True):
            try:
                header = self._read_header(attempt.item, FACT_TAGS, lenient=lenient, limit=_MAX_FACT_BYTES)
                device = device_facts(header)
                if attempt.fetched is None:
                    identity = object_identity(header, self._patient_key)
                if not lenient:
                    attempt.entry = index_entry(header, source_object(attempt.item), is_listed=False)
                break
            except Quarantine as problem:
                if problem.reason in _GONE:
                    break
                if not lenient and problem.reason not in _UNREAD:
                    attempt.entry = IndexEntry(source_object=source_object(attempt.item), is_listed=False)
        return device, identity


def _rule_decisions(rewritten: DeidentifyResult) -> tuple[int, ...]:
    """Return the decisions whose device rules match the pixels of an object."""
    of_project = (each.label for each in rewritten.filters if each.source == PROJECT_RULES)
    return tuple(number for number in map(decision_of_rule, of_project) if number is not None)


def _replaced_etag(attempt: _Attempt) -> str | None:
    """Return the ETag of the object that is superseded under the same key; None if the key is new."""
    previous = attempt.item.previous
    return previous.etag if previous is not None and previous.key == attempt.destination_key else None


def _digest_detail(written: WriteResult) -> str:
    if written.method is not WriteMethod.SERVER_SIDE_COPY:
        return ""
    return f"server-side copy; SHA-256 of the bytes that were sent: {written.sent_sha256}"


def _copy_to_quarantine(source: ObjectStore, item: BatchItem, quarantine: ObjectStore, reason: Reason) -> None:
    """Copy the original below a folder named after the reason; append the ETag to the key of a second version."""
    try:
        copy_unchanged(source, item, quarantine, quarantine_key(reason, item.key))
    except Quarantine as conflict:
        if conflict.reason is not Reason.DESTINATION_CONFLICT:
            raise
        copy_unchanged(source, item, quarantine, quarantine_key(reason, f"{item.key}@{item.etag}"))


def quarantine_key(reason: Reason, key: str) -> str:
    """Return the key of a quarantine copy: the source key below the reason.

    Segments that not every store accepts (empty or dotted ones, control characters, names that are not UTF-8) are
    percent-encoded, and the end of a key that would be too long is replaced by its SHA-256.
    """
    segments = [
        segment if _PLAIN_SEGMENT.fullmatch(segment) and segment.strip(".") else _encoded(segment)
        for segment in key.split("/")
    ]
    plain = "/".join([reason.value, *segments])
    if len(plain.encode()) <= _MAX_KEY_BYTES:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return f"{plain.encode()[: _MAX_KEY_BYTES - len(digest)].decode(errors='ignore')}{digest}"


def _encoded(segment: str) -> str:
    if not segment.strip("."):
        # No other segment is encoded like an empty segment.
        return "%2E" * len(segment) or "%"
    return quote(segment, safe="", errors="surrogateescape")


def _classify(error: Exception) -> tuple[Outcome, Reason, str]:
    """Map an exception to (outcome, reason, detail); for unexpected ones record type and location only."""
    if isinstance(error, Quarantine):
        offset = "" if error.offset is None else f" at byte {error.offset}"
        outcome = _NOT_HELD.get(error.reason, Outcome.QUARANTINED)
        return outcome, error.reason, f"{error.where}{offset}".strip()
    if isinstance(error, ObjectStoreError | ConfigurationError):
        # The other objects go on: whether the whole store is unavailable is tested by the batch.
        return Outcome.FAILED, Reason.STORAGE_ERROR, str(error)
    detail = f"{type(error).__name__} at {_location(error)}, version {__version__}"
    _LOG.error("An object is quarantined because of an error in the program: %s", detail)
    return Outcome.QUARANTINED, Reason.INTERNAL_ERROR, detail


def _location(error: Exception) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "an unknown place"
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"
