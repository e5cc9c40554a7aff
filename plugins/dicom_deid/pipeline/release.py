"""Release the objects of a run after approval: copy them from the destination to where others read them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dicom_deid.objects import SourceObject, SourceRange
from dicom_deid.objectstore import ObjectStore, open_object_store, write_parts
from dicom_deid.pipeline.connections import Connections


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

    Only objects that the audit records as written, with the same ETag, are released. Objects that are at the target
    already stay as they are, so that a retry resumes.

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
        An object is not the one that was written, or the target holds a different object under its key.
    ObjectStoreError, DatabaseError
        The object store or the database failed; a retry resumes.
    """
    with connections.open_database() as database:
        destination = open_object_store(database.run(run_id).request.destination, connections.destination)
        target = open_object_store(release_to, connections.destination)
        target.check(writable=True)
        database.record_release(run_id, release_to, 0, person)
        objects = [record.written for record in database.queries.written(database.run(run_id), limit=None)]

    def copy(each: SourceObject) -> bool:
        return not should_stop() and _copy(destination, each, target, run_id)

    with ThreadPoolExecutor(transfers) as pool:
        copied = sum(pool.map(copy, objects))
    if copied:
        with connections.open_database() as database:
            database.record_release(run_id, release_to, copied, person)
    return ReleaseResult(copied, stopped=copied < len(objects))


def _copy(destination: ObjectStore, each: SourceObject, target: ObjectStore, run_id: str) -> bool:
    whole = [SourceRange(0, each.size)]
    write_parts(destination, each, target, each.key, whole, metadata={"run": run_id, "deidentified-by": "dicom-deid"})
    return True
