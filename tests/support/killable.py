"""A worker process that kills itself (SIGKILL) at the n-th passage of a named point of a run."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicom_deid.database import Database, Lease, Mapping
from dicom_deid.objectstore import S3Store, parts
from dicom_deid.objectstore.s3_upload import S3Upload
from dicom_deid.pipeline import BatchHeld, batch, plan_run, process_object, run_batch

ROOT = Path(__file__).parents[2]

POINTS: dict[str, tuple[Any, str, str]] = {
    "before-read": (process_object, "fetch_object", "before"),
    "after-read": (process_object, "fetch_object", "after"),
    "before-resolve": (Mapping, "resolve", "before"),
    "after-resolve": (Mapping, "resolve", "after"),
    "before-intend": (Lease, "intend", "before"),
    "after-intend": (Lease, "intend", "after"),
    "before-write": (S3Store, "write", "before"),
    "after-write": (S3Store, "write", "after"),
    "before-record": (Lease, "record", "before"),
    "after-record": (Lease, "record", "after"),
    "before-delete": (S3Store, "delete", "before"),
    "after-delete": (S3Store, "delete", "after"),
    "before-settle": (Database, "settle_deletions", "before"),
    "after-settle": (Database, "settle_deletions", "after"),
    "before-finish": (Lease, "finish", "before"),
    "after-finish": (Lease, "finish", "after"),
}
PARTS: dict[str, tuple[Any, str, str]] = {
    "after-begin": (S3Store, "open_multipart", "after"),
    "before-part": (S3Upload, "put_part", "before"),
    "after-part": (S3Upload, "put_part", "after"),
    "before-copy": (S3Upload, "copy_part", "before"),
    "after-copy": (S3Upload, "copy_part", "after"),
    "before-complete": (S3Upload, "complete", "before"),
    "after-complete": (S3Upload, "complete", "after"),
}
"""Points that only large objects pass."""


def kill_at(point: str, passage: int) -> None:
    """Arrange for the process to die at that passage of that point."""
    owner, name, when = (POINTS | PARTS)[point]
    original: Callable[..., Any] = getattr(owner, name)
    lock, seen = threading.Lock(), [0]

    def pass_by() -> None:
        with lock:
            seen[0] += 1
            if seen[0] == passage:
                os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            pass_by()
        result = original(*arguments, **options)
        if when == "after":
            pass_by()
        return result

    setattr(owner, name, wrapped)


def work(configuration: Any, connections: Any, planned: Any, kill: tuple[str, int] | None) -> None:
    """Work through a plan, or die on the way."""
    # So that the dead leave batches of which a part is recorded.
    batch._RECORD_OBJECTS = 7
    # So that what is written in parts can be small.
    parts.SINGLE_PUT_BYTES = 8 * 2**20
    # The kills are not caused by objects, and hit some of them more than once.
    process_object._MAX_DEATHS = 1000
    if kill:
        kill_at(*kill)
    if planned is None:
        planned = plan_run(configuration, connections)
    for reference in planned.summary.batches:
        # What another worker has in hand is left to it.
        with suppress(BatchHeld):
            run_batch(configuration, connections, run_id=planned.run_id, batch_id=reference.batch_id, worker="killable")


class Workers:
    """A process that forks a worker for each order.

    Parameters
    ----------
    module
        The module that serves.
    """

    def __init__(self, module: str = "tests.support.killable") -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", module]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment)

    def work(self, *order: Any) -> int:
        """Run a worker to its end, and return its exit code; the last argument is where it is killed."""
        pickle.dump(order, self._process.stdin)
        self._process.stdin.flush()
        code: int = pickle.load(self._process.stdout)
        assert code == 0 or (order[-1] and code == -signal.SIGKILL), "the worker failed; see its standard error"
        return code

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)


def serve(work: Callable[..., None]) -> None:
    """Fork a worker for each order that comes in, and answer with its exit code.

    Everything is imported once, and no thread runs in this process, so that forking is cheap and safe.
    """
    while True:
        try:
            order = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            try:
                work(*order)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.buffer.write(pickle.dumps(os.waitstatus_to_exitcode(status)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(work)
