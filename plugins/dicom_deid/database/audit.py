"""The audit: one row an object and attempt, appended in bulk and chained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dicom_deid import __version__
from dicom_deid.database.copy_format import line
from dicom_deid.database.quarantine import DeviceFacts, ItemDecision
from dicom_deid.reasons import Outcome, Reason

AUDIT_COLUMNS = (
    "recorded_at", "run_id", "link_id", "number", "batch_id", "item", "attempt", "project", "source", "key_hash",
    "encrypted_key", "source_version_id", "source_etag", "source_size", "destination", "destination_key",
    "destination_etag", "destination_size", "sha256_in", "sha256_out", "outcome", "reason", "detail", "recipe_digest",
    "settings_digest", "package_version", "sop_class_uid", "transfer_syntax_uid", "modality", "actions", "notes",
    "milliseconds",
)  # fmt: skip
"""The columns of an audit row in the order in which they are hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One source object of a batch.

    Parameters
    ----------
    item_id
        Its number in the run's listing.
    key
        Its source key, which may name a patient: not to be logged.
    recorded
        Whether an earlier attempt recorded what became of it.
    """

    item_id: int
    key: str = field(repr=False)
    size: int
    etag: str
    version_id: str | None
    key_hash: str
    encrypted_key: bytes = field(repr=False)
    recorded: bool = False
    decision: ItemDecision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """What became of one object in one attempt. No value of the object may stand in it.

    Parameters
    ----------
    item
        The source object, as the lease gave it.
    outcome, reason
        What became of it and why; a reason goes with `quarantined` and `failed`.
    detail
        Where: a tag path, an offset, a rule (`desktop.dicom:12`). Never a value.
    destination_key, destination_etag, destination_size
        What was written.
    sha256_in, sha256_out
        Digests as 64 hexadecimal digits, where known.
    sop_class_uid, transfer_syntax_uid, modality
        What kind of object it was.
    actions
        Elements changed, by action.
    notes
        Reason codes noted on an object that was de-identified, with counts.
    milliseconds
        Time from reading to writing.
    device
        Attributes of a quarantined object by which it is grouped for review; not part of the audit.
    """

    item: BatchItem
    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    destination_key: str | None = None
    destination_etag: str | None = None
    destination_size: int | None = None
    sha256_in: str | None = None
    sha256_out: str | None = None
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None
    modality: str | None = None
    actions: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    milliseconds: int = 0
    device: DeviceFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlace:
    """What all rows that are recorded together have in common."""

    recorded_at: datetime
    run_id: str
    link_id: int
    batch_id: int
    attempt: int
    project: str
    source: str
    destination: str
    recipe_digest: str
    settings_digest: str


def audit_text(place: AuditPlace, rows: Sequence[AuditRow]) -> bytes:
    """Return the rows in COPY text format, in the order of :data:`AUDIT_COLUMNS`."""
    recipe, settings = bytes.fromhex(place.recipe_digest), bytes.fromhex(place.settings_digest)
    return "".join(
        line(
            place.recorded_at, place.run_id, place.link_id, number, place.batch_id, row.item.item_id, place.attempt,
            place.project, place.source, row.item.key_hash, row.item.encrypted_key, row.item.version_id, row.item.etag,
            row.item.size, place.destination, row.destination_key, row.destination_etag, row.destination_size,
            _digest(row.sha256_in), _digest(row.sha256_out), row.outcome.value, row.reason and row.reason.value,
            row.detail, recipe, settings, __version__, row.sop_class_uid, row.transfer_syntax_uid, row.modality,
            _counts(row.actions), _counts(row.notes), row.milliseconds,
        )
        for number, row in enumerate(rows)
    ).encode()  # fmt: skip


def rows_hash(text: bytes) -> bytes:
    """Return the digest of rows in COPY text format, which the link that covers them holds."""
    return hashlib.sha256(text).digest()


def now() -> datetime:
    """Return the time to record, in UTC."""
    return datetime.now(UTC)


def _digest(hexadecimal: str | None) -> bytes | None:
    return None if hexadecimal is None else bytes.fromhex(hexadecimal)


def _counts(counts: Mapping[str, int]) -> str:
    return json.dumps({str(name): count for name, count in counts.items()}, sort_keys=True, separators=(",", ":"))
