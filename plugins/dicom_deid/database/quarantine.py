"""Held objects and decisions: what is quarantined now, and what a reviewer has decided about it.

`held_object` has one row per object whose newest attempt was quarantined. `decision` has what a reviewer decided, as
rules of the recipe language and settings that differ for the decided objects; `decided_object` says for which objects.
A decision that is a *rule* also applies to every later run of the project.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import record_event
from dicom_deid.database.locks import LOCK_OBJECTS
from dicom_deid.database.projects import Project, decrypt_source_key, source_key_hash, split_source
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objects import SourceObject
from dicom_deid.reasons import Outcome

_ITEM_NUMBER = re.compile(r"\[\d+\]")
OFFSET = re.compile(r" at byte ([0-9]+)$")
"""Offset of the detail of a quarantined object."""
_RULE_LABEL = re.compile(r"decision ([0-9]+): ")


class DecisionAction(StrEnum):
    """Decision of a reviewer about held objects."""

    MASK = "mask"
    """Blank rectangles in every frame, and release."""
    ALLOW = "allow"
    """Release: the reviewer found nothing that identifies the patient."""
    REMOVE = "remove"
    """Remove the elements that hold an original value, and release."""
    REDACT = "redact"
    """Overwrite the original values with asterisks, and release."""
    RETRY = "retry"
    """Process again under the current recipe and settings."""
    EXCLUDE = "exclude"
    """Never release."""
    HOLD = "hold"
    """Leave held, with a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """Attributes of a held object that group the objects of one device.

    Parameters
    ----------
    patient_id, study_instance_uid
        As read: PHI. Only keyed digests of them are stored, to count patients and studies.
    """

    modality: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    manufacturer: str = ""
    model: str = ""
    software: str = ""
    rows: int | None = None
    columns: int | None = None
    patient_id: str = field(default="", repr=False)
    study_instance_uid: str = field(default="", repr=False)


class ItemDecision(NamedTuple):
    """Decisions about one object of a batch, as one.

    Parameters
    ----------
    excluded
        Whether the object must not be released.
    rules
        Recipe text that is added to the recipe of the run for this object.
    settings
        Engine settings that differ for this object, as JSON.
    """

    excluded: bool
    rules: str
    settings: str


class HeldGroup(NamedTuple):
    """Held objects of one project that have reason, device and size in common."""

    group_id: str
    project: str
    reason: str
    modality: str
    sop_class_uid: str
    manufacturer: str
    model: str
    software: str
    rows: int | None
    columns: int | None
    element: str
    objects: int
    studies: int
    patients: int
    decided: int
    oldest: datetime


class HeldObject(NamedTuple):
    """One held object. The source key stays encrypted."""

    link_id: int
    number: int
    run_id: str
    project: str
    source: str
    destination: str
    object_id: str
    key_hash: str
    encrypted_key: bytes
    version_id: str | None
    etag: str
    size: int
    recorded_at: datetime
    held_since: datetime
    reason: str
    detail: str
    modality: str
    sop_class_uid: str
    manufacturer: str
    model: str
    software: str
    rows: int | None
    columns: int | None
    group_id: str
    decision_id: int | None
    decision_action: str | None
    decision_outcome: str | None

    def source_object(self, project: Project) -> SourceObject:
        """Return the object of the source, with its decrypted key: PHI."""
        key = decrypt_source_key(project, self.key_hash, self.encrypted_key)
        relative = key.removeprefix(split_source(self.source)[1])
        return SourceObject(relative, self.size, self.etag, self.recorded_at, self.version_id)


class Decision(NamedTuple):
    """A recorded decision."""

    decision_id: int
    project: str
    action: str
    is_rule: bool
    rules: str
    settings: str
    note: str
    person: str
    created_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    revoked_by: str | None
    revoked_at: datetime | None
    objects: int
    released: int

    @property
    def state(self) -> str:
        """`revoked`, `active`, or `proposed` while a second person has not approved it."""
        return "revoked" if self.revoked_at else "active" if self.approved_at else "proposed"


class ReleasedObject(NamedTuple):
    """A destination object that was released by a decision."""

    destination: str
    destination_key: str
    recorded_at: datetime
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """A decision to record.

    Parameters
    ----------
    rules, settings
        See `ItemDecision`.
    is_rule
        Whether the rules apply to all later runs of the project.
    group_ids
        The held objects that it is about: all objects of these groups ...
    objects
        ... or only these, by `link_id` and `number`.
    """

    project: str
    action: DecisionAction
    person: str
    group_ids: Sequence[str]
    rules: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    note: str = ""
    is_rule: bool = False
    objects: Sequence[tuple[int, int]] | None = None


# Held objects are kept up to date by the transaction that records audit rows. OFFSET 0: each item is looked up, as in
# leases.py.

_RELEASE = """
DELETE FROM held_object h USING unnest(%(done)s::uuid[]) d (key_hash)
WHERE h.scope_id = %(scope)s AND h.key_hash = d.key_hash;
"""

_HOLD = """
INSERT INTO held_object (scope_id, project_id, source, destination, key_hash, object_id, encrypted_key, version_id,
    etag, size, run_id, link_id, number, recorded_at, held_since, reason, detail, element, modality,
    sop_class_uid, transfer_syntax_uid, manufacturer, model, software, rows, columns, patient, study, group_id)
SELECT s.scope_id, s.project_id, %(source)s, s.destination, i.key_hash, h.object_id, i.encrypted_key, i.version_id,
    i.etag, i.size, %(run)s, %(link)s, h.number, %(recorded_at)s, %(recorded_at)s, h.reason, h.detail, h.element,
    h.modality, h.sop_class_uid, h.transfer_syntax_uid, h.manufacturer, h.model, h.software, h.rows, h.columns,
    h.patient, h.study, h.group_id
FROM json_to_recordset(%(held)s) h (item integer, object_id uuid, number integer, reason text, detail text,
    element text, modality text, sop_class_uid text, transfer_syntax_uid text,
    manufacturer text, model text, software text,
    rows integer, columns integer, patient uuid, study uuid, group_id uuid)
CROSS JOIN LATERAL (SELECT * FROM batch_item b WHERE b.batch_id = %(batch)s AND b.item = h.item OFFSET 0) i
JOIN work_scope s ON s.scope_id = %(scope)s
ON CONFLICT (scope_id, key_hash) DO UPDATE SET source = excluded.source,
    version_id = excluded.version_id, etag = excluded.etag, size = excluded.size, run_id = excluded.run_id,
    link_id = excluded.link_id, number = excluded.number, recorded_at = excluded.recorded_at,
    reason = excluded.reason, detail = excluded.detail, element = excluded.element, modality = excluded.modality,
    sop_class_uid = excluded.sop_class_uid, transfer_syntax_uid = excluded.transfer_syntax_uid,
    manufacturer = excluded.manufacturer, model = excluded.model, software = excluded.software, rows = excluded.rows,
    columns = excluded.columns, patient = excluded.patient, study = excluded.study, group_id = excluded.group_id;
"""

_APPLIED = """
UPDATE decided_object d SET outcome = a.outcome, link_id = %(link)s, number = a.number, run_id = %(run)s
FROM unnest(%(items)s::integer[], %(numbers)s::integer[], %(outcomes)s::text[]) a (item, number, outcome)
CROSS JOIN LATERAL (SELECT * FROM batch_item b WHERE b.batch_id = %(batch)s AND b.item = a.item OFFSET 0) i
JOIN decision c ON c.approved_at IS NOT NULL AND c.revoked_at IS NULL
WHERE d.scope_id = %(scope)s AND d.key_hash = i.key_hash AND d.etag = i.etag AND a.outcome <> 'failed'
  AND c.decision_id = d.decision_id;
"""

# Objects that no decision named and that were released because a device rule matched them.
_BY_RULE = """
INSERT INTO decided_object AS d (scope_id, key_hash, etag, decision_id, outcome, run_id, link_id, number)
SELECT %(scope)s, i.key_hash, i.etag, c.decision_id, 'deidentified', %(run)s, %(link)s, a.number
FROM unnest(%(rule_items)s::integer[], %(rule_numbers)s::integer[], %(rule_decisions)s::bigint[])
    a (item, number, decision_id)
CROSS JOIN LATERAL (SELECT * FROM batch_item b WHERE b.batch_id = %(batch)s AND b.item = a.item OFFSET 0) i
JOIN decision c USING (decision_id)
ON CONFLICT (scope_id, key_hash, decision_id) DO UPDATE SET etag = excluded.etag, outcome = excluded.outcome,
    run_id = excluded.run_id, link_id = excluded.link_id, number = excluded.number;
"""


def settle_held(
    connection: DatabaseConnection, project: Project, rows: Sequence[Any], parameters: Mapping[str, Any]
) -> None:
    """Update held objects and applied decisions after audit rows; in the transaction of the caller.

    Parameters
    ----------
    rows
        The audit rows (`AuditRow`), in the order in which they are numbered.
    parameters
        `scope`, `run`, `source`, `batch`, `link` and `recorded_at` of the rows.
    """
    held, done = [], []
    for number, row in enumerate(rows):
        if row.outcome is Outcome.QUARANTINED:
            held.append(_held(project, number, row))
        elif row.outcome is not Outcome.FAILED:
            done.append(row.item.key_hash)
    by_rule = [
        (row.item.item_id, number, decision) for number, row in enumerate(rows) for decision in row.rule_decisions
    ]
    values = {
        **parameters,
        "rule_items": [item for item, _, _ in by_rule],
        "rule_numbers": [number for _, number, _ in by_rule],
        "rule_decisions": [decision for _, _, decision in by_rule],
        "done": done,
        "held": json.dumps(held),
        "items": [row.item.item_id for row in rows],
        "numbers": list(range(len(rows))),
        "outcomes": [row.outcome.value for row in rows],
    }
    connection.query(
        "updating held objects", _RELEASE + (_HOLD if held else "") + _APPLIED + (_BY_RULE if by_rule else ""), values
    )


def _held(project: Project, number: int, row: Any) -> dict[str, object]:
    facts: DeviceFacts = row.device or DeviceFacts()
    element = _ITEM_NUMBER.sub("[*]", OFFSET.sub("", row.detail))
    named: dict[str, object] = {
        "reason": row.reason.value,
        "modality": row.modality or facts.modality,
        "sop_class_uid": row.sop_class_uid or facts.sop_class_uid,
        "manufacturer": facts.manufacturer,
        "model": facts.model,
        "software": facts.software,
        "rows": facts.rows,
        "columns": facts.columns,
        "element": element,
    }
    group = hashlib.sha256(json.dumps([project.project_id, *named.values()]).encode()).hexdigest()[:32]
    return {
        **named,
        "item": row.item.item_id,
        "object_id": row.item.object_id,
        "number": number,
        "detail": row.detail,
        "transfer_syntax_uid": row.transfer_syntax_uid or facts.transfer_syntax_uid,
        "patient": _keyed(project, "patient", facts.patient_id),
        "study": _keyed(project, "study", facts.study_instance_uid),
        "group_id": group,
    }


def _keyed(project: Project, kind: str, original: str) -> str | None:
    return source_key_hash(project, f"{kind}\0{original}") if original else None


# What pages and commands read.

_GROUP_COLUMNS = "reason, modality, sop_class_uid, manufacturer, model, software, rows, columns, element"

SORT_COLUMNS = {
    "objects": "objects DESC",
    "studies": "studies DESC",
    "patients": "patients DESC",
    "decided": "decided DESC",
    "oldest": "oldest",
    "reason": "reason",
    "modality": "modality",
    "device": "manufacturer, model, software",
    "project": "p.name",
}
"""Sort keys of held groups, with the SQL of each."""

FILTERS = ("project", "run_id", "reason", "modality", "sop_class_uid", "manufacturer", "model", "software")
"""Filters of held groups: equality, except `model`, `manufacturer` and `software` (substring)."""

_CONDITIONS = {
    "project": "p.name = %(project)s",
    "run_id": "h.run_id = %(run_id)s::uuid",
    "reason": "h.reason = %(reason)s",
    "modality": "h.modality = %(modality)s",
    "sop_class_uid": "h.sop_class_uid = %(sop_class_uid)s",
    "manufacturer": "strpos(lower(h.manufacturer), lower(%(manufacturer)s)) > 0",
    "model": "strpos(lower(h.model), lower(%(model)s)) > 0",
    "software": "strpos(lower(h.software), lower(%(software)s)) > 0",
    "group_id": "h.group_id = %(group_id)s::uuid",
}

_FROM = """
FROM held_object h JOIN project p USING (project_id)
LEFT JOIN LATERAL (
    SELECT c.decision_id, c.action, c.approved_at, d.outcome FROM decided_object d JOIN decision c USING (decision_id)
    WHERE (d.scope_id, d.key_hash, d.etag) = (h.scope_id, h.key_hash, h.etag) AND c.revoked_at IS NULL
    ORDER BY decision_id DESC LIMIT 1
) c ON true
"""


def _where(filters: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    chosen = {name: value for name, value in filters.items() if value}
    conditions = [_CONDITIONS[name] for name in chosen]
    return f"WHERE {' AND '.join(conditions)}" if conditions else "", chosen


def list_held_groups(
    connection: DatabaseConnection,
    filters: Mapping[str, str],
    *,
    sort: str = "objects",
    limit: int | None = 50,
    offset: int = 0,
) -> list[HeldGroup]:
    """Return groups of held objects.

    Parameters
    ----------
    filters
        Values by names of `FILTERS` (and `group_id`); empty values do not filter.
    sort
        A key of `SORT_COLUMNS`.
    limit
        Groups to return; None for all.
    """
    where, values = _where(filters)
    rows = connection.query(
        "reading held objects",
        f"SELECT group_id::text, p.name, {_GROUP_COLUMNS}, count(*) AS objects, count(DISTINCT study) "
        "AS studies, count(DISTINCT patient) AS patients, "
        "count(c.decision_id) FILTER (WHERE c.outcome IS NULL) AS decided, min(held_since) AS oldest "
        f"{_FROM} {where} GROUP BY group_id, p.name, {_GROUP_COLUMNS} "
        f"ORDER BY {SORT_COLUMNS[sort]}, group_id LIMIT %(limit)s OFFSET %(offset)s",
        {**values, "limit": limit, "offset": offset},
    )
    return [HeldGroup(*row) for row in rows]


class HeldCounts(NamedTuple):
    """Number of held groups and objects, and how many objects a decision waits for."""

    groups: int
    objects: int
    decided: int


def count_held(connection: DatabaseConnection, filters: Mapping[str, str]) -> HeldCounts:
    """Return how many groups and objects are held."""
    where, values = _where(filters)
    rows = connection.query(
        "counting held objects",
        "SELECT count(DISTINCT group_id), count(*), count(c.decision_id) FILTER (WHERE c.outcome IS NULL) "
        f"{_FROM} {where}",
        values,
    )
    return HeldCounts(*rows[0])


_HELD = (
    "SELECT h.link_id, h.number, h.run_id::text, p.name, source, destination, object_id::text, key_hash::text, "
    "h.encrypted_key, h.version_id, etag, h.size, h.recorded_at, h.held_since, h.reason, h.detail, h.modality, "
    "h.sop_class_uid, h.manufacturer, h.model, h.software, h.rows, h.columns, h.group_id::text, "
    "c.decision_id, c.action, c.outcome " + _FROM
)


def list_held_objects(
    connection: DatabaseConnection, filters: Mapping[str, str], *, limit: int | None = 100, offset: int = 0
) -> list[HeldObject]:
    """Return held objects, those that have been held longest first; see `list_held_groups` for `filters`."""
    where, values = _where(filters)
    rows = connection.query(
        "reading held objects",
        f"{_HELD} {where} ORDER BY h.held_since, h.link_id, h.number LIMIT %(limit)s OFFSET %(offset)s",
        {**values, "limit": limit, "offset": offset},
    )
    return [HeldObject(*row) for row in rows]


def find_held_object(connection: DatabaseConnection, link_id: int, number: int) -> HeldObject | None:
    """Return the held object of an audit row; None if it is not held any more."""
    rows = connection.query(
        "reading a held object", f"{_HELD} WHERE h.link_id = %s AND h.number = %s", (link_id, number)
    )
    return HeldObject(*rows[0]) if rows else None


def record_shown(
    connection: DatabaseConnection, chain_key: bytes, objects: Sequence[HeldObject], person: str, what: str
) -> None:
    """Record in the audit that a reviewer looks at held objects of one group; call it before they are read."""
    body = {
        "person": person,
        "what": what,
        "group": objects[0].group_id,
        "objects": [[each.link_id, each.number, each.object_id] for each in objects],
    }
    record_event(connection, chain_key, "held-object-shown", body, project=objects[0].project)


# Decisions


def record_decision(connection: DatabaseConnection, chain_key: bytes, new: NewDecision) -> int:
    """Record a decision about held objects and return its number.

    Where the project requires a second person, the decision has no effect until `approve_decision`.

    Raises
    ------
    ConfigurationError
        There is no such project, or none of the objects is held.
    """
    doing = "recording a decision"
    with connection.transaction(doing):
        rows = connection.query(doing, "SELECT project_id, four_eyes FROM project WHERE name = %s", (new.project,))
        if not rows:
            raise ConfigurationError("There is no such project.")
        project_id, four_eyes = rows[0]
        settings = json.dumps(dict(new.settings), sort_keys=True)
        decision_id = connection.query(
            doing,
            "INSERT INTO decision (project_id, action, is_rule, rules, settings, note, person, approved_by, "
            "approved_at) VALUES (%(project)s, %(action)s, %(is_rule)s, %(rules)s, %(settings)s, %(note)s, %(person)s, "
            "CASE WHEN NOT %(four_eyes)s THEN %(person)s END, CASE WHEN NOT %(four_eyes)s THEN clock_timestamp() END) "
            "RETURNING decision_id",
            {
                "project": project_id,
                "action": new.action.value,
                "is_rule": new.is_rule,
                "rules": new.rules,
                "settings": settings,
                "note": new.note,
                "person": new.person,
                "four_eyes": four_eyes,
            },
        )[0][0]
        objects = _attach(connection, doing, project_id, decision_id, new)
        if not objects:
            raise ConfigurationError("None of these objects is held and undecided: reload the page.")
        body = {
            "decision": decision_id,
            "person": new.person,
            "action": new.action.value,
            "is_rule": new.is_rule,
            "rules": new.rules,
            "settings": settings,
            "note": new.note,
            "groups": list(new.group_ids),
            "objects": objects,
            "object_list": new.objects,
            "needs_second_person": four_eyes,
        }
        record_event(connection, chain_key, "quarantine-decision", body, project=new.project)
    return int(decision_id)


_CHOSEN = (
    "h.group_id = ANY (%(groups)s::uuid[]) AND (%(all)s OR (h.link_id, h.number) IN "
    "(SELECT * FROM unnest(%(links)s::bigint[], %(numbers)s::integer[])))"
)


def _attach(connection: DatabaseConnection, doing: str, project_id: int, decision_id: int, new: NewDecision) -> int:
    """Attach the decision to its held objects and return their number.

    It replaces decisions about the same objects that have not been applied yet; those that were stay in effect.
    """
    chosen = new.objects
    connection.query(doing, LOCK_OBJECTS, {"project": project_id})
    rows = connection.query(
        doing,
        "DELETE FROM decided_object d USING held_object h WHERE d.outcome IS NULL AND h.project_id = %(project)s "  # noqa: S608
        "AND (d.scope_id, d.key_hash) = (h.scope_id, h.key_hash) "
        f"AND {_CHOSEN}; "
        "INSERT INTO decided_object (scope_id, key_hash, etag, decision_id) "
        "SELECT h.scope_id, h.key_hash, h.etag, %(decision)s FROM held_object h "
        f"WHERE h.project_id = %(project)s AND {_CHOSEN} RETURNING 1",
        {
            "decision": decision_id,
            "project": project_id,
            "groups": list(new.group_ids),
            "all": chosen is None,
            "links": [link for link, _ in chosen or ()],
            "numbers": [number for _, number in chosen or ()],
        },
    )
    return len(rows)


_DECISIONS = """
SELECT c.decision_id, p.name, c.action, c.is_rule, c.rules, c.settings, c.note, c.person, c.created_at, c.approved_by,
    c.approved_at, c.revoked_by, c.revoked_at, count(d.decision_id),
    count(*) FILTER (WHERE d.outcome = 'deidentified')
FROM decision c JOIN project p USING (project_id) LEFT JOIN decided_object d USING (decision_id)
"""


def list_decisions(
    connection: DatabaseConnection,
    project: str = "",
    *,
    rules_only: bool = False,
    limit: int | None = 100,
    offset: int = 0,
) -> list[Decision]:
    """Return decisions of one project, or of all, newest first."""
    rows = connection.query(
        "reading decisions",
        _DECISIONS + "WHERE (%(project)s = '' OR p.name = %(project)s) AND (c.is_rule OR NOT %(rules)s) "
        "GROUP BY c.decision_id, p.name ORDER BY c.decision_id DESC LIMIT %(limit)s OFFSET %(offset)s",
        {"project": project, "rules": rules_only, "limit": limit, "offset": offset},
    )
    return [Decision(*row) for row in rows]


def _find_decision(connection: DatabaseConnection, decision_id: int) -> Decision:
    rows = connection.query(
        "reading a decision",
        _DECISIONS + "WHERE c.decision_id = %s GROUP BY c.decision_id, p.name",
        (decision_id,),
    )
    if not rows:
        raise ConfigurationError(f"There is no decision {decision_id}.")
    return Decision(*rows[0])


def approve_decision(connection: DatabaseConnection, chain_key: bytes, decision_id: int, person: str) -> None:
    """Approve a proposed decision as the second person.

    Raises
    ------
    ConfigurationError
        It is not waiting for approval, or `person` proposed it.
    """
    doing = "approving a decision"
    with connection.transaction(doing):
        decision = _find_decision(connection, decision_id)
        if decision.state != "proposed":
            raise ConfigurationError(f"Decision {decision_id} is {decision.state}: there is nothing to approve.")
        if decision.person == person:
            raise ConfigurationError("A second person has to approve the decision; you made it.")
        connection.query(
            doing,
            "UPDATE decision SET approved_by = %s, approved_at = clock_timestamp() WHERE decision_id = %s",
            (person, decision_id),
        )
        body = {"decision": decision_id, "person": person}
        record_event(connection, chain_key, "quarantine-decision-approved", body, project=decision.project)


def revoke_decision(
    connection: DatabaseConnection, chain_key: bytes, decision_id: int, person: str
) -> list[ReleasedObject]:
    """Revoke a decision and return the destination objects that were released by it.

    Objects that are still held are undecided again; a rule no longer applies to later runs. The released objects stay:
    withdraw them, or run again to supersede them.

    Raises
    ------
    ConfigurationError
        It is revoked already.
    """
    doing = "revoking a decision"
    with connection.transaction(doing):
        decision = _find_decision(connection, decision_id)
        if decision.state == "revoked":
            raise ConfigurationError(f"Decision {decision_id} is revoked already.")
        connection.query(
            doing,
            "UPDATE decision SET revoked_by = %s, revoked_at = clock_timestamp() WHERE decision_id = %s",
            (person, decision_id),
        )
        body = {"decision": decision_id, "person": person, "released": decision.released}
        record_event(connection, chain_key, "quarantine-decision-revoked", body, project=decision.project)
    return list_released(connection, decision_id)


def list_released(connection: DatabaseConnection, decision_id: int) -> list[ReleasedObject]:
    """Return the objects at the destination that were released by a decision, or later by its rule.

    Objects that were withdrawn or superseded since are left out.
    """
    rows = connection.query(
        "reading released objects",
        "SELECT a.destination, a.destination_key, a.recorded_at, a.run_id::text FROM decided_object d "
        "JOIN audit a ON a.run_id = d.run_id AND a.link_id = d.link_id AND a.number = d.number "
        "JOIN processed_object p USING (scope_id, key_hash) "
        "WHERE d.decision_id = %s AND d.outcome = 'deidentified' "
        "AND (p.destination_key, p.destination_etag) = (a.destination_key, a.destination_etag) "
        "ORDER BY a.destination_key",
        (decision_id,),
    )
    return [ReleasedObject(*row) for row in rows]


def project_rules(connection: DatabaseConnection, project: str) -> str:
    """Return the active rules of a project as the text of one recipe; empty if there are none."""
    rows = connection.query(
        "reading the rules of the project",
        "SELECT c.decision_id, c.rules FROM decision c JOIN project p USING (project_id) WHERE p.name = %s "
        "AND c.is_rule AND c.approved_at IS NOT NULL AND c.revoked_at IS NULL ORDER BY c.decision_id",
        (project,),
    )
    return "".join(f"# decision {number}\n{_numbered(number, rules.strip())}\n\n" for number, rules in rows)


def _numbered(number: int, rules: str) -> str:
    return rules.replace("LABEL ", f"LABEL decision {number}: ", 1)


def decision_of_rule(label: str) -> int | None:
    """Return the number of the decision that a filter of `project_rules` belongs to, by its label."""
    found = _RULE_LABEL.match(label)
    return int(found[1]) if found else None


def four_eyes_of_projects(connection: DatabaseConnection) -> dict[str, bool]:
    """Return for each project whether decisions need a second person."""
    return dict(connection.query("reading projects", "SELECT name, four_eyes FROM project ORDER BY name"))


def set_four_eyes(connection: DatabaseConnection, chain_key: bytes, project: str, required: bool, person: str) -> None:
    """Set whether decisions of a project need a second person."""
    doing = "changing the project"
    with connection.transaction(doing):
        rows = connection.query(
            doing, "UPDATE project SET four_eyes = %s WHERE name = %s RETURNING 1", (required, project)
        )
        if not rows:
            raise ConfigurationError("There is no such project.")
        body = {"person": person, "four_eyes": required}
        record_event(connection, chain_key, "project-changed", body, project=project)


_PENDING = "c.approved_at IS NOT NULL AND c.action <> 'hold' AND c.outcome IS NULL"
_SAME_PLACE = (
    "(h.scope_id, h.source) = (SELECT run.scope_id, run.request::jsonb ->> 'source' FROM run WHERE run.run_id = %s)"
)


class ReviewRun(NamedTuple):
    """A run whose decided objects wait to be processed, and their number."""

    run_id: str
    objects: int


def pending_reviews(connection: DatabaseConnection, project: str = "") -> list[ReviewRun]:
    """Return, for each place that has decided objects, the newest run that held some of them."""
    rows = connection.query(
        "reading decided objects",
        "SELECT (array_agg(h.run_id::text ORDER BY h.recorded_at DESC))[1], count(*) "
        f"{_FROM} WHERE {_PENDING} AND (%(project)s = '' OR p.name = %(project)s) "
        "GROUP BY project_id, source, destination ORDER BY 1",
        {"project": project},
    )
    return [ReviewRun(*row) for row in rows]


def pending_decisions(connection: DatabaseConnection, run_id: str) -> list[ItemDecision]:
    """Return the different decisions about the objects of `list_decided_objects`."""
    rows = connection.query(
        "reading decisions",
        f"SELECT DISTINCT FALSE, d.rules, d.settings {_FROM} JOIN decision d USING (decision_id) "
        f"WHERE {_PENDING} AND {_SAME_PLACE}",
        (run_id,),
    )
    return [ItemDecision(*row) for row in rows]


def list_decided_objects(connection: DatabaseConnection, run_id: str) -> list[HeldObject]:
    """Return the decided objects from the same source to the same destination as a run."""
    rows = connection.query(
        "reading decided objects",
        f"{_HELD} WHERE {_PENDING} AND {_SAME_PLACE} ORDER BY h.link_id, h.number",
        (run_id,),
    )
    return [HeldObject(*row) for row in rows]


_DECIDED_ITEMS = """
SELECT i.item, c.action, c.rules, c.settings
FROM batch_item i JOIN decided_object d ON d.key_hash = i.key_hash AND d.etag = i.etag
JOIN decision c USING (decision_id)
WHERE i.batch_id = %(batch)s AND d.scope_id = %(scope)s AND c.approved_at IS NOT NULL AND c.revoked_at IS NULL
  AND c.action <> 'hold' ORDER BY i.item, decision_id
"""


def decisions_of_batch(connection: DatabaseConnection, batch_id: int, scope_id: int) -> dict[int, ItemDecision]:
    """Return the decisions about objects of a batch, by item number."""
    rows = connection.query("reading decisions", _DECIDED_ITEMS, {"batch": batch_id, "scope": scope_id})
    decisions: dict[int, ItemDecision] = {}
    for item, action, rules, settings in rows:
        before = decisions.get(item, ItemDecision(False, "", "{}"))
        decisions[item] = ItemDecision(
            before.excluded or action == DecisionAction.EXCLUDE,
            before.rules + rules,
            json.dumps({**json.loads(before.settings), **json.loads(settings)}, sort_keys=True),
        )
    return decisions
