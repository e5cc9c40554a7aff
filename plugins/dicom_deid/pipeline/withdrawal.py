"""Delete objects that were withdrawn or superseded, and compare a destination with the audit."""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import Any
from uuid import UUID

from dicom_deid.database import AccessReason, Database, Deletion, Difference, Reconciliation, WithdrawalRequest
from dicom_deid.database.deletions import Place
from dicom_deid.database.projects import Project
from dicom_deid.database.reconcile import Found
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.objects import DeleteResult
from dicom_deid.objectstore import ObjectStore, open_object_store
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.planning import PlannedRun
from dicom_deid.pipeline.process_object import quarantine_key
from dicom_deid.reasons import Reason

_LOG = logging.getLogger(__name__)
_AT_ONCE = 500
_LOOKED_AT_ONCE = 16


def continue_withdrawal(
    connections: Connections,
    project_name: str,
    withdrawal_id: str,
    *,
    transfers: int = 16,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Delete the copies of a withdrawal that are not deleted yet, end it, and return how many were deleted.

    Killed anywhere, it is called again: a copy is deleted first and recorded after, and one that is gone already is
    recorded as deleted.

    Parameters
    ----------
    connections
        Database and object store credentials; places of release are reached by those of the destination.
    project_name, withdrawal_id
        The withdrawal.
    transfers
        Number of deletions at a time.
    should_stop
        Called between groups; once it returns true, the rest is left for another call.

    Raises
    ------
    ConfigurationError
        The project has no such withdrawal, or a bucket cannot be used.
    StillBeingWritten
        A worker has withdrawn objects in flight; another call, when their batches have ended, continues.
    ObjectStoreError, DatabaseError
        The object store or the database failed; another call continues.
    """
    open_store = _opener(connections)
    total = 0
    with connections.open_database() as database, ThreadPoolExecutor(transfers) as pool:
        project = database.project(project_name, create=False)
        if not database.is_withdrawal(project, withdrawal_id):
            raise ConfigurationError(f"There is no such withdrawal in project {project_name!r}.")
        while group := database.pending_deletions(withdrawal_id, limit=_AT_ONCE):
            if should_stop():
                return total
            total += _delete_group(database, project, group, open_store, pool)
        database.finish_withdrawal(project, withdrawal_id)
    return total


def finish_deletions(connections: Connections, database: Database, *, transfers: int = 16) -> int:
    """Delete superseded objects that a killed worker has left, and return how many."""
    open_store = _opener(connections)
    total = 0

    def delete(each: Deletion) -> DeleteResult:
        return delete_unless_changed(open_store(each.place, each.url), each.key or "", each.etag)

    with ThreadPoolExecutor(transfers) as pool:
        while group := database.pending_deletions(limit=_AT_ONCE):
            results = zip(group, pool.map(delete, group), strict=True)
            database.settle_deletions(group, [each for each, result in results if result == "version-kept"])
            total += len(group)
    return total


def reconcile_destination(
    connections: Connections,
    destination: str,
    access: AccessReason,
    *,
    repair: bool = False,
    run_id: str | None = None,
) -> Reconciliation:
    """Compare a destination with the intents and the audit.

    It costs a listing, and one request for each object that differs, unless they are more than `MAX_LISTED`.

    Parameters
    ----------
    connections
        Database and object store credentials.
    destination
        The address of the destination, as in the runs.
    access
        Who asks, and why, for the audit.
    repair
        Delete orphans and left-over objects, and have the next run write lost objects again.
    run_id
        The run whose report the comparison is part of.
    """
    store = open_object_store(destination, connections.destination)
    confirm = partial(_confirmed, store)
    with connections.open_database() as database:
        result = database.reconcile(store.url, store.list(), access, confirm=confirm, repair=repair, run_id=run_id)
        if repair:
            finish_deletions(connections, database)
    return result


def _confirmed(store: ObjectStore, found: Sequence[Found]) -> Sequence[Found]:
    """Return the differences that are still there."""

    def look(each: Found) -> Found | None:
        now = store.find(each.key)
        if (now and now.etag) != each.etag:
            return None
        if each.difference is Difference.UNKNOWN:
            return each._replace(run_id=_run_of(store.metadata(each.key)))
        return each

    with ThreadPoolExecutor(_LOOKED_AT_ONCE) as pool:
        return [each for each in pool.map(look, found) if each is not None]


def _run_of(metadata: Mapping[str, str]) -> str | None:
    """Return the run that wrote an object, by its metadata; None if they name none."""
    try:
        return str(UUID(metadata.get("run", "")))
    except ValueError:
        return None


def _opener(connections: Connections) -> Callable[[Place, str], ObjectStore]:
    """Return a function that opens each store once."""

    @cache
    def open_store(place: Place, url: str) -> ObjectStore:
        return open_object_store(url, connections.of(place))

    return open_store


def delete_unless_changed(store: ObjectStore, key: str, etag: str | None) -> DeleteResult:
    """Delete an object, unless another one has taken its key since."""
    with suppress(Quarantine):
        return store.delete(key, etag=etag)
    return ""


KINDS = {
    "patient": "patients",
    "accession": "accession_numbers",
    "study": "studies",
    "series": "series",
    "object": "objects",
}
"""Kinds of values in a list of what to withdraw, and the fields of `WithdrawalRequest` that take them."""


def read_withdrawal_list(data: bytes, name: str = "the list") -> dict[str, Any]:
    """Return the values of a CSV list of kind and value, by field of `WithdrawalRequest`. PHI.

    Raises
    ------
    ConfigurationError
        A line is not of that form. The message names the line, never a value.
    """
    found: dict[str, list[str]] = {field: [] for field in KINDS.values()}
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise ConfigurationError(f"{name} is not CSV in UTF-8.") from None
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and row == ["kind", "value"]):
            continue
        kind = row[0].strip()
        if len(row) != len(("kind", "value")) or kind not in KINDS or not row[1].strip():
            raise ConfigurationError(f"{name}, line {number}: not of the form kind,value ({', '.join(KINDS)}).")
        found[KINDS[kind]].append(row[1])
    return found


def withdraw_deleted_sources(connections: Connections, planned: PlannedRun) -> int:
    """Withdraw released objects whose source is gone, if the run is configured so, and return how many.

    Parameters
    ----------
    connections
        Database and object store credentials.
    planned
        A run whose plan has compared the whole source with what was released.
    """
    configuration = planned.configuration
    if configuration.on_source_deleted == "report" or not planned.summary.deleted:
        return 0
    access = AccessReason(
        person=configuration.triggered_by or "unknown", reason=f"source deleted, found by run {planned.run_id}"
    )
    with connections.open_database() as database:
        project = database.project(configuration.project, create=False)
        begun = database.withdraw(project, WithdrawalRequest(deleted_sources=True), access)
    if begun.withdrawal_id is not None:
        continue_withdrawal(connections, configuration.project, begun.withdrawal_id)
    return begun.objects


def _delete_group(
    database: Database,
    project: Project,
    group: Sequence[Deletion],
    open_store: Callable[[Place, str], ObjectStore],
    pool: ThreadPoolExecutor,
) -> int:
    sources = {each.run_id: "" for each in group if each.place == "quarantine"}
    for run_id in sources:
        sources[run_id] = database.run(str(run_id)).request.source

    def delete(each: Deletion) -> bool:
        store = open_store(each.place, each.url)
        keys = _keys(project, each, sources.get(each.run_id, ""))
        return "version-kept" in [delete_unless_changed(store, key, etag) for key, etag in keys]

    kept = [each for each, is_kept in zip(group, pool.map(delete, group), strict=True) if is_kept]
    database.record_withdrawn(project, group, kept)
    for url, count in Counter(each.url for each in kept).items():
        _LOG.warning(
            "%d objects were deleted, and %s keeps versions of them: set delete_versions in the connection, have a "
            "lifecycle rule expire them, or wait until object lock ends, and delete them.",
            count,
            url,
        )
    return len(group)


def _keys(project: Project, deletion: Deletion, source: str) -> list[tuple[str, str | None]]:
    """Return the keys to delete, with the ETag that each must have."""
    if deletion.place != "quarantine":
        return [(deletion.key or "", deletion.etag)]
    key, reason = deletion.source_key(project, source), Reason(deletion.reason or "")
    return [(quarantine_key(reason, key), None), (quarantine_key(reason, f"{key}@{deletion.etag}"), None)]
