"""Measure what the pipeline survives: kills, faults and restarts of servers, manipulations, hostile or repeated input.

    python -m bench.bench_faults                            # all parts, about half an hour on two cores
    python -m bench.bench_faults bounds fuzz --inputs 1000000

Each part prints what was tried and what was survived, and the program fails if anything was not.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import mutate, rearrange
from tests.fuzz.readers import mutated_outputs, originals_found
from tests.fuzz.repeats import ENGINES, differences, draw_archive
from tests.fuzz.target import run as run_input
from tests.fuzz.test_hostile_input import SEEDS
from tests.support import fault_proxy
from tests.support.fault_proxy import FaultProxy, Request
from tests.support.killable import POINTS, Workers
from tests.support.runs import RunEnvironment, patients, series

from bench.bench_release import OTHER_KEY
from bench.bounds import ROWS, measure
from dicom_deid.exceptions import DicomDeidError
from dicom_deid.objectstore import RetryPolicy, S3Connection
from dicom_deid.pipeline import BatchHeld, PlannedRun, RunConfiguration, plan_run, run_batch
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.ports import are_free
from dicom_deid.sandbox.state import SandboxState

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
PASSAGES = (1, 2, 5, 11, 23, 40)
_ATTEMPTS = 12
_REARRANGED = 0.02
"""Part of the mutated inputs that are changed by whole elements."""

Result = tuple[list[Any], list[str]]
"""A row of the table, and what was not survived."""


@dataclass
class Place:
    """A source of 48 objects, and what an undisturbed run writes of them."""

    sandbox: Sandbox
    environment: RunEnvironment
    expected: dict[str, bytes]

    @classmethod
    def make(cls, sandbox: Sandbox) -> Place:
        """Put the source, and run once."""
        bucket = f"faults-{uuid.uuid4().hex[:8]}"
        sandbox.s3.client().create_bucket(Bucket=bucket)
        environment = RunEnvironment(sandbox.s3, bucket, sandbox.postgres_url)
        environment.put(series(patients(4), 12))
        environment.run(environment.configuration(destination=f"s3://{bucket}/undisturbed"))
        return cls(sandbox, environment, environment.get("undisturbed"))

    def plan(self, *, supersedes: bool = False, **changes: Any) -> tuple[str, PlannedRun]:
        """Plan a run in batches of 16 objects, to a new destination or to one where it replaces all objects."""
        prefix = f"out-{uuid.uuid4().hex[:8]}"
        destination = f"s3://{self.environment.bucket}/{prefix}"
        if supersedes:
            self.environment.run(destination=destination, destination_key_template=OTHER_KEY)
        options = {"batch_objects": 16, "transfers": 4, "lease_seconds": 2, "destination": destination, **changes}
        return prefix, plan_run(self.environment.configuration(**options), self.environment.connections)

    def problems(self, prefix: str, planned: PlannedRun) -> str:
        """Return what differs from an undisturbed run; empty if nothing does."""
        if self.environment.get(prefix) != self.expected:
            return "destination"
        with self.environment.connections.open_database() as database:
            report = database.report(planned.run_id)
            rows = database.connection.query(
                "bench",
                "SELECT count(*), count(DISTINCT object_id) FROM audit WHERE run_id = %s AND outcome = 'deidentified'",
                (planned.run_id,),
            )
            intents = database.connection.query(
                "bench", "SELECT count(*) FROM write_intent WHERE run_id = %s", (planned.run_id,)
            )
            if report.open or rows != [(48, 48)] or intents != [(0,)]:
                return f"audit: {report.open} open, rows {rows}, intents {intents}"
            return "; ".join(f"{each.where}: {each.what}" for each in database.verify().problems)


def work(configuration: RunConfiguration, connections: Any, planned: PlannedRun) -> bool:
    """Work through the batches once; return whether all are done."""
    is_done = True
    for reference in planned.summary.batches:
        try:
            run_batch(configuration, connections, run_id=planned.run_id, batch_id=reference.batch_id, worker="bench")
        except (DicomDeidError, BatchHeld):
            is_done = False
    return is_done


def kills(place: Place, passages: int) -> Iterator[Result]:
    """Kill a worker at each point, at several of its passages, and run it again."""
    workers = Workers()
    try:
        for point in POINTS:
            killed, failures = 0, []
            for passage in PASSAGES[:passages]:
                prefix, planned = place.plan(supersedes=point.endswith(("-delete", "-settle")))
                given = planned.configuration, place.environment.connections, planned
                if workers.work(*given, (point, passage)) != -signal.SIGKILL:
                    continue
                killed += 1
                workers.work(*given, None)
                problem = place.problems(prefix, planned)
                failures += [f"killed {point}, passage {passage}: {problem}"] if problem else []
            failures += [] if killed else [f"{point}: no worker came by"]
            yield [point, killed, max(killed - len(failures), 0)], failures
    finally:
        workers.close()


FAULTS: dict[str, tuple[str, Callable[..., None]]] = {
    "500": ("", fault_proxy.status(500)),
    "503 SlowDown": ("", fault_proxy.status(503, fault_proxy.SLOW_DOWN)),
    "404 on read": ("GET", fault_proxy.status(404)),
    "416 on read": ("GET", fault_proxy.status(416)),
    "404 on write": ("PUT", fault_proxy.status(404)),
    "412 on write": ("PUT", fault_proxy.status(412)),
    "connection reset": ("", fault_proxy.reset),
    "answer lost": ("PUT", fault_proxy.lose_answer),
    "body cut": ("GET", fault_proxy.truncate),
    "body short": ("GET", fault_proxy.shorten),
    "body damaged": ("GET", fault_proxy.damage_anywhere),
    "no ETag": ("GET", fault_proxy.without_header("ETag")),
}


def faults(place: Place) -> Iterator[Result]:
    """Run through a proxy that answers one in ten requests on objects with a fault, until all is done."""
    for name, (method, fault) in FAULTS.items():
        prefix, planned = place.plan()
        rng, lock, injected = random.Random(name), threading.Lock(), [0]

        def inject(
            handler: Any, request: Request, forward: Any, method: str = method, fault: Any = fault, rng: Any = rng,
            injected: list[int] = injected, lock: Any = lock,
        ) -> bool:  # fmt: skip
            is_object = request.path.endswith(".dcm") or ".dcm?" in request.path
            with lock:
                if not is_object or request.method not in (method or ("GET", "PUT")) or rng.random() > 0.1:
                    return False
                injected[0] += 1
            fault(handler, request, forward)
            return True

        with FaultProxy(place.environment.s3.endpoint_url, fault=inject) as proxy:
            behind = replace(
                place.environment.connection,
                endpoint_url=proxy.url,
                retry=RetryPolicy(max_attempts=2, base_seconds=0.01, max_seconds=0.05),
            )
            attempts = attempt_until_done(place, planned, behind)
        problem = place.problems(prefix, planned)
        row = [name, injected[0], attempts, "no" if problem else "yes"]
        yield row, [f"{name}: {problem}"] if problem else []


def attempt_until_done(place: Place, planned: PlannedRun, connection: S3Connection | None = None) -> int:
    """Retry a run until it is done; return the number of attempts."""
    connections = place.environment.connections
    if connection is not None:
        connections = replace(connections, source=connection, destination=connection)
    for attempt in range(1, _ATTEMPTS + 1):
        if work(planned.configuration, connections, planned):
            return attempt
        time.sleep(0.5)
    return _ATTEMPTS


def restarts(place: Place, count: int) -> Iterator[Result]:
    """Kill the database or the store during a run, start it again, and retry."""
    for name in ("postgres", "s3"):
        failures: list[str] = []
        for number in range(count):
            prefix, planned = place.plan(in_flight_bytes=2**18)
            timer = threading.Timer(0.1 + 0.15 * number, _restart, (place.sandbox, name))
            timer.start()
            attempt_until_done(place, planned)
            timer.join()
            attempt_until_done(place, planned)
            problem = place.problems(prefix, planned)
            failures += [f"restart {number} of {name}: {problem}"] if problem else []
        yield [name, count, count - len(failures)], failures


def _restart(sandbox: Sandbox, name: str) -> None:
    server = getattr(SandboxState.load(sandbox.directory / "state.json"), name)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.stop()
    # The sandbox would choose other ports, which the run does not know.
    while not are_free(server.ports):
        time.sleep(0.1)
    sandbox.start()


def manipulations() -> Iterator[Result]:
    """Run the test of each manipulation of the audit and the mapping."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/integration/database/test_manipulations.py"]
    done = subprocess.run([*command, "-k", "without_the_head"], cwd=ROOT, capture_output=True, text=True, check=False)
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    passed, failed = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
    yield [passed + failed, passed], [] if done.returncode == 0 and passed else [done.stdout[-2000:]]


def fuzz(inputs: int, seed: int) -> Iterator[Result]:
    """Run mutated inputs through the engine; what fails is kept in the working directory."""
    rng = random.Random(seed)
    corpus = [*SEEDS, *(path.read_bytes() for path in sorted(CORPUS.iterdir()) if path.stat().st_size)]
    failures: list[str] = []
    # The garbage collector need not look again at all that is loaded by now.
    gc.freeze()
    began, outcomes = time.perf_counter(), 0
    for _ in range(inputs):
        data = rearrange(rng, SEEDS) if rng.random() < _REARRANGED else mutate(rng, corpus)
        try:
            outcomes += isinstance(run_input(data)[0], bytes)
        except Exception as error:
            name = f"fuzz-{hashlib.sha256(data).hexdigest()[:12]}"
            Path(name).write_bytes(data)
            failures.append(f"{name}: {type(error).__name__}")
    seconds = time.perf_counter() - began
    yield [inputs, outcomes, len(failures), f"{inputs / seconds:.0f}"], failures


def readers(inputs: int, seed: int) -> Iterator[Result]:
    """Look for originals in outputs of mutated inputs as pydicom, DCMTK and GDCM read them; what fails is kept."""
    rng, count = random.Random(seed), 0
    failures: list[str] = []
    for start in range(0, inputs, 1000):
        pairs = list(mutated_outputs(rng, min(1000, inputs - start)))
        count += len(pairs)
        for index, reader in originals_found([output for _, output in pairs]).items():
            name = f"readers-{hashlib.sha256(pairs[index][0]).hexdigest()[:12]}"
            Path(name).write_bytes(pairs[index][0])
            failures.append(f"{name}: an original is found by {reader}")
    yield [inputs, count, len(failures)], failures


def repeats(archives: int, seed: int) -> Iterator[Result]:
    """Compare what the engine does with elements that objects share, computed once, with what it does with each."""
    for name in ENGINES:
        failures: list[str] = []
        objects = 0
        for number in range(archives):
            drawn = f"{seed} {name} {number}"
            archive = draw_archive(random.Random(drawn))
            objects += len(archive)
            failures += [f"{drawn}: object {index} differs" for index in differences(name, archive)[0]]
        yield [name, archives, objects, len(failures)], failures


def bounds(place: Place) -> Iterator[Result]:
    """Measure each kind of input that once took minutes or gigabytes, in a process of its own."""
    for name, row in ROWS.items():
        found = measure(name, place.environment)
        is_over = found.seconds > row.seconds or found.megabytes > row.megabytes
        shown = [name, row.before, row.bound, f"{found.seconds:.1f} s, {found.megabytes:.0f} MB", found.outcome]
        yield shown, [f"{name}: over its bound"] if is_over else []


HEADS: dict[str, list[str]] = {
    "bounds": ["input", "before", "bound", "processor time, memory", "outcome"],
    "kills": ["worker killed", "kills", "survived"],
    "faults": ["1 in 10 requests", "faults", "attempts", "survived"],
    "restarts": ["server killed", "restarts", "survived"],
    "manipulations": ["manipulations", "found"],
    "fuzz": ["inputs", "de-identified", "faults found", "inputs/s"],
    "readers": ["inputs", "outputs", "originals found by another reader"],
    "repeats": ["engine", "archives", "objects", "differences"],
}


@contextmanager
def made_place() -> Iterator[Place]:
    """Start servers of our own, and prepare the source."""
    # Not below a directory that other users cannot enter: run by root, PostgreSQL is another user.
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as directory:
        Path(directory).chmod(0o755)
        # Kept data is flushed to the disk: a killed server must not lose what was committed.
        sandbox = Sandbox(Path(directory) / "sandbox")
        with sandbox:
            yield Place.make(sandbox)


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*HEADS, []], help="all without any")
    parser.add_argument("--kills", type=int, default=len(PASSAGES), help="at each point (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=5, help="of each server (default: %(default)s)")
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="mutated; a tenth of them for other readers (default: %(default)s)"
    )
    parser.add_argument("--archives", type=int, default=100, help="of repeats, for each engine (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutated inputs and of the archives")
    options = parser.parse_args()
    chosen, began = options.parts or list(HEADS), time.monotonic()
    failures: list[str] = []

    def show(part: str, results: Iterator[Result]) -> None:
        head = HEADS[part]
        print(f"\n{part}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
        for row, found in results:
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            failures.extend(found)
            for failure in found:
                print(failure, file=sys.stderr, flush=True)

    with_servers: dict[str, Callable[[Place], Iterator[Result]]] = {
        "bounds": bounds,
        "faults": faults,
        "kills": lambda place: kills(place, options.kills),
        "restarts": lambda place: restarts(place, options.restarts),
    }
    if any(part in with_servers for part in chosen):
        with made_place() as place:
            for part in chosen:
                if part in with_servers:
                    show(part, with_servers[part](place))
    if "manipulations" in chosen:
        show("manipulations", manipulations())
    if "fuzz" in chosen:
        show("fuzz", fuzz(options.inputs, options.seed))
    if "readers" in chosen:
        show("readers", readers(options.inputs // 10, options.seed))
    if "repeats" in chosen:
        show("repeats", repeats(options.archives, options.seed))
    print(f"\n{', '.join(chosen)}: {len(failures)} failures, {(time.monotonic() - began) / 60:.0f} min")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
