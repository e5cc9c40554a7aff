"""Release the objects of a run after approval: copy them from the destination to where others read them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from dicom_deid.database.released import Copy
from dicom_deid.objects import SourceRange
from dicom_deid.objectstore import ObjectStore, open_object_store, write_parts
from dicom_deid.pipeline.connections import Connections
from dicom_deid.pipeline.withdrawal import delete_unless_changed

_AT_ONCE = 200
"""Copies that are recorded together. A withdrawal waits until they are made."""


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The result of a release.

    Parameters
    ----------
    objects
        Number of objects that are at the release target.
    stopped
        True when `should_stop` ended it early; a retry copies the rest.
    """

    objects: int
    stopped: bool


def release_run(
    connections: Connections,
    *,
    run_id: str,
    release_to: str,
    person: str,
    transfers: int = 16,
    should_stop: Callable[[], bool] = lambda: False,
) -> ReleaseResult:
    """Copy what a run wrote to the release target, byte for byte, under the same keys.

    Only objects that the audit records as written, with the same ETag, are released; withdrawn ones are not. Copies
    that are at the target already stay as they are, so that a retry resumes. A copy of an earlier run is superseded.

    Parameters
    ----------
    connections
        Database and object store credentials; the target is reached by those of the destination.
    run_id
        The run.
    release_to
        ``s3://bucket/prefix`` or a directory.
    person
        Who releases, for the audit.
    transfers
        Number of copies at a time.
    should_stop
        Once it returns true, copies in progress are finished and no other is begun.

    Raises
    ------
    Quarantine
        An object is not the one that was written, or something else wrote a different object under its key at the
        target.
    ObjectStoreError, DatabaseError
        The object store or the database failed; a retry resumes.
    """
    with connections.open_database() as database, ThreadPoolExecutor(transfers) as pool:
        run = database.run(run_id)
        destination = open_object_store(run.request.destination, connections.destination)
        target = open_object_store(release_to, connections.destination)
        target.check(writable=True)
        database.record_release(run_id, release_to, 0, person)
        records = iter(database.queries.written(run, limit=None))
        copied, stopped = 0, False
        while not stopped and (group := list(islice(records, _AT_ONCE))):
            with database.releasing(run.request.project, target.url, group) as copies:
                made = pool.map(lambda each: not should_stop() and _copy(destination, each, target, run_id), copies)
                count = sum(made)
            copied += count
            stopped = count < len(copies)
        if copied:
            database.record_release(run_id, release_to, copied, person)
    return ReleaseResult(copied, stopped=stopped)


def _copy(destination: ObjectStore, copy: Copy, target: ObjectStore, run_id: str) -> bool:
    """Copy one object, then delete the copies under other keys that it supersedes."""
    written = copy.written
    copy.etag = write_parts(
        destination,
        written,
        target,
        written.key,
        [SourceRange(0, written.size)],
        metadata={"run": run_id, "deidentified-by": "dicom-deid"},
        replaces=copy.replaces,
    ).etag
    for key, etag in copy.superseded:
        delete_unless_changed(target, key, etag)
    return True
