"""What is done with one object: read and examine, then rewrite and write; whatever is wrong with it becomes its row."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Semaphore
from typing import Final

from dicom_deid.database import AuditRow, BatchItem
from dicom_deid.database.quarantine import DeviceFacts, ItemDecision
from dicom_deid.engine import Deidentifier, DeidentifyResult, PatientTermIndex, SearchTerms
from dicom_deid.exceptions import ConfigurationError, DicomDeidError, ObjectStoreError, Quarantine
from dicom_deid.identifiers import Identifier
from dicom_deid.objects import SourceObject, SourceRange
from dicom_deid.objectstore import ObjectStore
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.connections import ObjectStores
from dicom_deid.pipeline.destination import KeyTemplate
from dicom_deid.pipeline.engine import amend, make_deidentifier
from dicom_deid.pipeline.executor import PendingObject
from dicom_deid.pipeline.fetch import GLANCE_BYTES, FetchedObject, fetch_object, read_patient_terms
from dicom_deid.pipeline.large import COPIED_OBJECT_MEMORY, STREAMED_OBJECT_MEMORY, Written, copy_whole, write_large
from dicom_deid.pipeline.object_file import read_device_facts
from dicom_deid.reasons import Outcome, Reason

_LOG = logging.getLogger(__name__)

_NOT_THERE: Final = frozenset({Reason.OBJECT_VANISHED, Reason.OBJECT_CHANGED})


@dataclass(frozen=True, slots=True)
class ObjectResult:
    """One object that is done with in this attempt.

    Parameters
    ----------
    row
        For the audit.
    error
        Of a failed object, what the storage raised.
    reading, rewriting, writing
        Seconds spent in each stage.
    """

    row: AuditRow
    error: Exception | None = None
    reading: float = 0.0
    rewriting: float = 0.0
    writing: float = 0.0


@dataclass(slots=True, repr=False)
class _Read:
    item: BatchItem
    fetched: FetchedObject
    seconds: float
    # What other objects of the patient gave.
    others: SearchTerms = frozenset()


@dataclass(frozen=True, slots=True, repr=False)
class _HeaderScan:
    """An object that is not written in this attempt, and what it tells of its patient."""

    patient: str
    words: SearchTerms
    carried: tuple[ObjectResult, ...] = ()


class ObjectProcessor:
    """Carries objects of one run; thread-safe.

    Parameters
    ----------
    deidentifier
        The engine.
    configuration
        The run.
    storages
        From where, and to where.
    metadata
        Written beside each object; no PHI.
    """

    def __init__(
        self,
        deidentifier: Deidentifier,
        configuration: RunConfiguration,
        object_stores: ObjectStores,
        metadata: Mapping[str, str],
    ) -> None:
        self._deidentifier = deidentifier
        self._configuration = configuration
        self._storages = object_stores
        self._metadata = metadata
        self._template = KeyTemplate.parse(configuration.destination_key_template)
        copies = configuration.server_side_copy and object_stores.destination.can_copy_from(object_stores.source)
        self._memory_of_large = COPIED_OBJECT_MEMORY if copies else STREAMED_OBJECT_MEMORY
        # A store may refuse to copy after all.
        self._streaming = Semaphore(max(1, configuration.in_flight_bytes // STREAMED_OBJECT_MEMORY))
        self._searches_residuals = configuration.settings.residuals != "off"
        self._known = PatientTermIndex()
        self._amended: dict[ItemDecision, Deidentifier] = {}
        self._amending = Lock()

    def cost(self, item: BatchItem) -> int:
        """Return the bytes that an object takes in memory while it is in flight."""
        if item.recorded:
            return min(item.size, GLANCE_BYTES)
        return self._memory_of_large if self._is_large(item) else item.size

    def read(self, item: BatchItem) -> PendingObject[_Read | _HeaderScan] | ObjectResult:
        """Read and examine an object; of one that is recorded, only what it tells of its patient."""
        if item.recorded:
            return PendingObject((), self._glance(item))
        began = time.perf_counter()
        if item.decision is not None and item.decision.excluded:
            return ObjectResult(AuditRow(item=item, outcome=Outcome.EXCLUDED, detail="decision"))
        try:
            fetched = fetch_object(
                self._deidentifier_of(item),
                self._storages.source,
                item.key,
                size=item.size,
                etag=item.etag,
                version_id=item.version_id,
                large_object_bytes=self._configuration.large_object_bytes,
            )
        except Exception as error:
            failed = self._failed(item, error, began)
            if not self._searches_residuals or failed.row.outcome is not Outcome.QUARANTINED:
                return failed
            return PendingObject((), self._glance(item, failed))
        analysis = fetched.analysis
        read = _Read(item, fetched, time.perf_counter() - began)
        return PendingObject(analysis.identifiers, read, analysis.original("SOPInstanceUID") or None)

    def _glance(self, item: BatchItem, *carried: ObjectResult) -> _HeaderScan:
        """Look at an object's beginning for what it tells of its patient; one that cannot be read tells nothing."""
        try:
            patient, words = read_patient_terms(
                self._deidentifier,
                self._storages.source,
                item.key,
                size=item.size,
                etag=item.etag,
                version_id=item.version_id,
            )
        except Exception:
            return _HeaderScan("", frozenset(), carried)
        return _HeaderScan(patient, words, carried)

    def release(self, read: _Read | _HeaderScan) -> tuple[ObjectResult, ...] | None:
        """Learn what an object tells of its patient, and hold against it what those before it told."""
        if isinstance(read, _HeaderScan):
            self._known.add_and_get(read.patient, read.words)
            return read.carried
        analysis = read.fetched.analysis
        if analysis.removed is not None:
            read.others = self._known.add_and_get(analysis.patient, analysis.removed.matcher.terms)
        return None

    def write(self, read: _Read | _HeaderScan, pseudonyms: Mapping[Identifier, str]) -> ObjectResult:
        """Rewrite and write an object."""
        if isinstance(read, _HeaderScan):
            raise TypeError("an object that was only glanced at is not released to be written")
        began = time.perf_counter()
        key = ""
        try:
            if read.others:
                read.fetched.analysis = self._deidentifier_of(read.item).search_patient_terms(
                    read.fetched.analysis, read.others
                )
            result = self._deidentifier_of(read.item).rewrite(read.fetched.analysis, pseudonyms)
            key = self._template.key(result.identifiers)
            rewritten = time.perf_counter()
            written = self._put(read, result, key)
        except Exception as error:
            return self._failed(read.item, error, began, read, key)
        ended = time.perf_counter()
        analysis = read.fetched.analysis
        row = AuditRow(
            item=read.item,
            outcome=Outcome.DEIDENTIFIED,
            detail=written.detail,
            destination_key=key,
            destination_etag=written.object.etag,
            destination_size=written.object.size,
            sha256_in=written.sha256_in,
            sha256_out=written.sha256_out,
            sop_class_uid=analysis.sop_class_uid,
            transfer_syntax_uid=analysis.transfer_syntax_uid,
            modality=analysis.modality,
            actions=result.actions,
            notes={reason.value: count for reason, count in result.notes.items()},
            milliseconds=_milliseconds(read.seconds + ended - began),
        )
        return ObjectResult(row, None, read.seconds, rewritten - began, ended - rewritten)

    def _deidentifier_of(self, item: BatchItem) -> Deidentifier:
        """Return the engine for an object: with the rules and settings of the decision about it, if there is one."""
        decision = item.decision
        if decision is None or not (decision.rules or decision.settings != "{}"):
            return self._deidentifier
        with self._amending:
            if decision not in self._amended:
                self._amended[decision] = make_deidentifier(amend(self._configuration, decision))
            return self._amended[decision]

    def _put(self, read: _Read, result: DeidentifyResult, key: str) -> Written:
        fetched = read.fetched
        if len(fetched.data) < fetched.size:
            return write_large(
                self._storages, read.item, fetched, result, key, self._metadata, self._configuration, self._streaming
            )
        data = fetched.data
        parts = [data[part.start : part.end] if isinstance(part, SourceRange) else part for part in result.parts]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        written = self._storages.destination.write(key, parts, metadata=self._metadata)
        return Written(written, fetched.sha256, digest.hexdigest())

    def _is_large(self, item: BatchItem) -> bool:
        return item.size >= self._configuration.large_object_bytes

    def _failed(
        self, item: BatchItem, error: Exception, began: float, read: _Read | None = None, key: str = ""
    ) -> ObjectResult:
        """Return the row of an object that was not written; of a conflict it says at which key, to be traced."""
        outcome, reason, detail = _judge(error)
        if reason is Reason.DESTINATION_CONFLICT:
            detail = key
        quarantine = self._storages.quarantine
        if outcome is Outcome.QUARANTINED and quarantine is not None and reason not in _NOT_THERE:
            try:
                _copy_to_quarantine(self._storages.source, item, quarantine, reason)
            except Exception as second:
                outcome, error = Outcome.FAILED, second
                _, reason, detail = _judge(second)
                detail = f"copying to quarantine: {detail}"
        analysis = read.fetched.analysis if read else None
        spent = time.perf_counter() - began
        row = AuditRow(
            item=item,
            outcome=outcome,
            reason=reason,
            detail=detail,
            sha256_in=read.fetched.sha256 if read else None,
            sop_class_uid=analysis.sop_class_uid if analysis else None,
            transfer_syntax_uid=analysis.transfer_syntax_uid if analysis else None,
            modality=analysis.modality if analysis else None,
            milliseconds=_milliseconds(spent + (read.seconds if read else 0.0)),
            device=self._device(item) if outcome is Outcome.QUARANTINED else None,
        )
        raised = error if reason is Reason.STORAGE_ERROR else None
        return ObjectResult(row, raised, read.seconds if read else spent, 0.0, spent if read else 0.0)

    def _device(self, item: BatchItem) -> DeviceFacts | None:
        """Return the attributes by which a held object is grouped; None if its header cannot be read."""
        stored = SourceObject(item.key, item.size, item.etag, datetime.now(UTC), item.version_id)
        try:
            return read_device_facts(self._storages.source, stored)
        except DicomDeidError:
            return None


def _copy_to_quarantine(source: ObjectStore, item: BatchItem, quarantine: ObjectStore, reason: Reason) -> None:
    """Copy the original, under its source key in a folder of the reason; a second version beside it by its ETag."""
    try:
        copy_whole(source, item, quarantine, f"{reason.value}/{item.key}")
    except Quarantine as conflict:
        if conflict.reason is not Reason.DESTINATION_CONFLICT:
            raise
        copy_whole(source, item, quarantine, f"{reason.value}/{item.key}@{item.etag}")


def _judge(error: Exception) -> tuple[Outcome, Reason, str]:
    """Return what an exception says of the object; of an unforeseen one only its type and place, never its words."""
    if isinstance(error, Quarantine):
        offset = "" if error.offset is None else f" at byte {error.offset}"
        return Outcome.QUARANTINED, error.reason, f"{error.where}{offset}".strip()
    if isinstance(error, ObjectStoreError | ConfigurationError):
        # One object that may not be read is no reason to leave the others; many in a row end the batch.
        return Outcome.FAILED, Reason.STORAGE_ERROR, type(error).__name__
    place = _place(error)
    _LOG.error("An object failed by a fault of the program: %s at %s", type(error).__name__, place)
    return Outcome.FAILED, Reason.INTERNAL_ERROR, f"{type(error).__name__} at {place}"


def _place(error: Exception) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "an unknown place"
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
