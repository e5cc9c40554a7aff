"""The audit: one row per object and attempt, appended in bulk and hash-chained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dicom_deid import __version__
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.copy_format import copy_field, copy_fields
from dicom_deid.database.hash_chain import ADVANCE, head_parameters, link_hash, links_of
from dicom_deid.database.locks import LOCK_CHAIN
from dicom_deid.database.quarantine import DeviceFacts, ItemDecision
from dicom_deid.objects import WrittenObject
from dicom_deid.reasons import Outcome, Reason

ROW_VERSION = 1
"""The newest list of hashed columns."""

AUDIT_COLUMNS: Mapping[int, tuple[str, ...]] = {
    1: (
        "recorded_at", "run_id", "link_id", "number", "batch_id", "item", "attempt", "project", "source", "object_id",
        "source_version_id", "source_etag", "source_size", "destination", "destination_key", "destination_etag",
        "destination_size", "replaced_key", "replaced_etag", "sha256_in", "sha256_out", "outcome", "reason", "detail",
        "recipe_digest", "settings_digest", "package_version", "sop_class_uid", "transfer_syntax_uid", "modality",
        "actions", "notes", "milliseconds",
    ),
}  # fmt: skip
"""The columns of an audit row in the order in which they are hashed, by version.

A column that is added later makes a new version; older rows are verified by the version that their link names. The
third column is always `link_id`.
"""


class ObjectIdentity(NamedTuple):
    """Identifiers of an object, for its withdrawal: originals, PHI, stored only as keyed hashes."""

    patient_id: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    issuer_of_patient_id: str = ""

    def __repr__(self) -> str:
        return "ObjectIdentity(...)"


NO_IDENTITY = ObjectIdentity()

_COUNTS = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


_NEW_LINK = """
SELECT moment, nextval(pg_get_serial_sequence('audit_link', 'link_id')), ensure_audit_partition(moment)
FROM clock_timestamp() moment
"""

_LAST_LINK = """
SELECT coalesce(l.position, 0), coalesce(l.hash, e.hash),
    coalesce((SELECT counter FROM chain_head WHERE chain = %(chain)s), 0)
FROM (SELECT 1) one
LEFT JOIN LATERAL (
    SELECT position, hash FROM audit_link WHERE run_id = %(run)s ORDER BY position DESC LIMIT 1) l ON true
LEFT JOIN LATERAL (
    SELECT hash FROM audit_event WHERE run_id = %(run)s ORDER BY event_id LIMIT 1) e ON true
"""

_ADD_LINK = """
INSERT INTO audit_link (link_id, run_id, position, batch_id, attempt, recorded_at, version, rows, rows_hash, previous,
                        hash)
OVERRIDING SYSTEM VALUE VALUES (%(link)s, %(run)s, %(position)s, %(batch)s, %(attempt)s, %(recorded_at)s, %(version)s,
                                %(rows)s, %(rows_hash)s, %(previous)s, %(hash)s);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One source object of a batch.

    Parameters
    ----------
    item_id
        Its number in the run's listing.
    key
        Its source key, relative to the run's source. It may name a patient: not to be logged.
    object_id
        The random id that the audit uses instead of the key.
    recorded
        Whether an earlier attempt of the run recorded its outcome.
    previous
        What this project has written for the same source object at this destination, under any rules.
    withdrawn
        Whether the object was withdrawn: it must not be written.
    lacks_terms
        Whether it was written before a name or an identifier of its patient was known: if it is quarantined now, the
        object at the destination is deleted.
    deaths
        How many workers died while they were processing it in this run.
    decision
        The decision of a reviewer about it.
    is_archived
        Whether it was in an archive tier when it was listed, and is to be restored.
    """

    item_id: int
    key: str = field(repr=False)
    size: int
    etag: str
    version_id: str | None
    key_hash: str
    object_id: str
    recorded: bool = False
    previous: WrittenObject | None = None
    withdrawn: bool = False
    lacks_terms: bool = False
    deaths: int = 0
    decision: ItemDecision | None = None
    is_archived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """The intent to write the result of an object, or its copy in quarantine.

    Parameters
    ----------
    item
        The source object.
    destination_key
        Where the result will be written; empty for a copy in quarantine.
    reason
        Why it is quarantined, for a copy in quarantine.
    identity
        Its original identifiers.
    """

    item: BatchItem
    destination_key: str = ""
    reason: Reason | None = None
    identity: ObjectIdentity = NO_IDENTITY


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """The outcome of one object in one attempt, to be recorded. It holds no value of the object.

    Parameters
    ----------
    item
        The source object, as the lease gave it.
    outcome, reason
        The outcome; a reason goes with `quarantined` and `failed`.
    detail
        Where: a tag path, an offset, a rule (`desktop.dicom:12`). Never a value.
    destination_key, destination_etag, destination_size
        The object that was written.
    sha256_in, sha256_out
        Digests as 64 hexadecimal digits, where known.
    sop_class_uid, transfer_syntax_uid, modality
        The kind of object.
    actions
        Number of elements changed, by action.
    notes
        Reason codes noted on an object that was de-identified, with counts.
    milliseconds
        Time from reading to writing.
    identity
        Original identifiers of an object that is not written, so that its copy in quarantine can be withdrawn.
    device
        Attributes of a quarantined object, to group it for review; not part of the audit.
    selection
        Digest of the criteria that excluded the object; empty where no criterion did. Not part of the audit.
    rule_decisions
        Decisions of reviewers whose rules matched the pixels of a written object, by number. Not part of the audit.
    terms
        Number of lasting terms of its patient that a written object was searched for; None if it was not searched. Not
        part of the audit.
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
    identity: ObjectIdentity = NO_IDENTITY
    device: DeviceFacts | None = None
    selection: str = ""
    rule_decisions: tuple[int, ...] = ()
    terms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditGroup:
    """The columns that all rows of one link share."""

    run_id: str
    batch_id: int
    attempt: int
    project: str
    source: str
    destination: str
    recipe_digest: str = ""
    settings_digest: str = ""


def append_rows(
    connection: DatabaseConnection, key: bytes, group: AuditGroup, rows: Sequence[AuditRow]
) -> tuple[int, datetime]:
    """Append audit rows and the link that covers them, and return its id and time; call it in a transaction."""
    doing = "recording rows in the audit"
    moment, link, _ = connection.query(doing, _NEW_LINK)[0]
    text = _audit_text(group, moment, link, rows)
    connection.copy_in(doing, f"audit ({', '.join(AUDIT_COLUMNS[ROW_VERSION])})", text)
    chain = links_of(group.project)
    last = connection.query(doing, LOCK_CHAIN + _LAST_LINK, {"chain": chain, "run": group.run_id})[0]
    position, previous, counter = last[0] + 1, bytes(last[1] or b""), last[2]
    digest = hashlib.sha256(text).digest()
    chained = link_hash(
        key, previous, ROW_VERSION, link, group.run_id, position, group.batch_id, group.attempt, moment, len(rows),
        digest,
    )  # fmt: skip
    connection.query(
        doing,
        _ADD_LINK + ADVANCE,
        {
            **head_parameters(key, chain, counter + 1, chained),
            "link": link,
            "run": group.run_id,
            "position": position,
            "batch": group.batch_id,
            "attempt": group.attempt,
            "recorded_at": moment,
            "version": ROW_VERSION,
            "rows": len(rows),
            "rows_hash": digest,
            "previous": previous,
        },
    )
    return link, moment


def _audit_text(group: AuditGroup, recorded_at: datetime, link_id: int, rows: Sequence[AuditRow]) -> bytes:
    """Return the rows in COPY text format, in the order of the newest :data:`AUDIT_COLUMNS`."""
    link = copy_fields(recorded_at, group.run_id, link_id)
    place = copy_fields(group.attempt, group.project, group.source)
    destination = copy_field(group.destination)
    rules = copy_fields(bytes.fromhex(group.recipe_digest), bytes.fromhex(group.settings_digest), __version__)
    lines = []
    for number, row in enumerate(rows):
        item = row.item
        source = copy_fields(item.object_id, item.version_id, item.etag, item.size)
        result = copy_fields(
            row.destination_key, row.destination_etag, row.destination_size, *_replaced(row), _digest(row.sha256_in),
            _digest(row.sha256_out), row.outcome.value, row.reason and row.reason.value, row.detail,
        )  # fmt: skip
        facts = copy_fields(
            row.sop_class_uid, row.transfer_syntax_uid, row.modality, _counts(row.actions), _counts(row.notes),
            row.milliseconds,
        )  # fmt: skip
        lines.append(
            f"{link}\t{number}\t{group.batch_id}\t{item.item_id}\t{place}\t{source}\t{destination}\t{result}\t{rules}"
            f"\t{facts}\n"
        )
    return "".join(lines).encode()


def _replaced(row: AuditRow) -> tuple[str | None, str | None]:
    """Return key and ETag of the object at the destination that is superseded, or deleted because this one is held."""
    previous = row.item.previous
    is_deleted = row.outcome is Outcome.QUARANTINED and row.item.lacks_terms
    if previous is None or not (row.outcome is Outcome.DEIDENTIFIED or is_deleted):
        return None, None
    if (previous.key, previous.etag) == (row.destination_key, row.destination_etag):
        return None, None
    return previous.key, previous.etag


def _digest(hexadecimal: str | None) -> bytes | None:
    return None if hexadecimal is None else bytes.fromhex(hexadecimal)


def _counts(counts: Mapping[str, int]) -> str:
    return "{}" if not counts else _COUNTS.encode({str(name): count for name, count in counts.items()})
