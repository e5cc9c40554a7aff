"""Correcting a release: supersede many objects under readers, and kill -9 at every stage of supersede, withdraw, erase.

Run it with `make bench-release`. A check that does not hold ends it with an error.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support import killable, killable_withdrawal
from tests.support.killable import Workers
from tests.support.runs import RunEnvironment, patients, series

from dicom_deid.database import Database
from dicom_deid.pipeline import RunConfiguration, plan_run
from dicom_deid.sandbox import Sandbox
from dicom_deid.sandbox.airflow import create_database

ONE_MORE_RULE = "FORMAT dicom\n%header\nREMOVE StationName\nREMOVE Manufacturer\n"
OTHER_KEY = "{PatientID}/moved/{SOPInstanceUID}.dcm"
_PASSAGES = (1, 3, 7, 12, 20)
_WITH_OTHER_KEYS = (3, 12)


def new_environment(sandbox: Sandbox, name: str) -> RunEnvironment:
    """Return a bucket and a database of their own."""
    sandbox.s3.client().create_bucket(Bucket=name)
    create_database(sandbox.postgres_url, name)
    return RunEnvironment(sandbox.s3, name, sandbox.database_url(name))


def check_audit(environment: RunEnvironment) -> None:
    """Verify the audit."""
    with Database.connect(environment.database, keys=environment.keys) as database:
        problems = database.verify().problems
    assert problems == [], problems


class Readers:
    """Threads that look at every key of the destination again and again."""

    def __init__(self, environment: RunEnvironment, keys: Iterable[str]) -> None:
        self._environment = environment
        self._keys = list(keys)
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._poll, args=(start,)) for start in range(2)]
        self.reads = self.rounds = 0
        self.missed: list[str] = []

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _poll(self, start: int) -> None:
        client = self._environment.s3.client()
        while True:
            for key in self._keys[start::2]:
                try:
                    client.head_object(Bucket=self._environment.bucket, Key=f"out/{key}")
                except client.exceptions.ClientError:
                    self.missed.append(key)
                self.reads += 1
            self.rounds += 1
            if self._done.is_set():
                return


def bench_superseding(sandbox: Sandbox, recipe: Path, count: int) -> None:
    """Replace every object of a destination because one rule was added, while readers look at every key."""
    environment = new_environment(sandbox, "bench-superseding")
    environment.put(series(patients(max(1, count // 100)), min(count, 100)))
    recipes = ("desktop", str(recipe))
    run(environment, environment.configuration())
    keys = list(environment.get())
    with Readers(environment, keys) as readers:
        began = time.perf_counter()
        outcomes = run(environment, environment.configuration(recipes=recipes))
        seconds = time.perf_counter() - began
    run(environment, environment.configuration(recipes=recipes, destination=f"s3://{environment.bucket}/fresh"))
    is_equal = environment.get() == environment.get("fresh")
    check_audit(environment)
    print(f"Superseded {outcomes['deidentified']:,} of {len(keys):,} objects in {seconds:.0f} s, one rule added")
    print(f"  outcomes: {dict(outcomes)}")
    print(f"  reads of the {len(keys):,} keys meanwhile: {readers.reads:,}, missed: {len(readers.missed)}")
    print(f"  destination equal to that of a fresh run: {is_equal}")
    assert is_equal
    assert not readers.missed
    assert set(outcomes) == {"deidentified"}
    assert outcomes["deidentified"] == len(keys)


def run(environment: RunEnvironment, configuration: RunConfiguration) -> Counter[str]:
    """Run in two worker processes and return the number of objects by outcome."""
    ran = environment.run_in_workers(configuration, 2)
    return Counter(row.outcome.value for row in ran.rows)


@contextmanager
def opened_workers(module: str) -> Iterator[Workers]:
    """Give workers that are killed."""
    with closing(Workers(module)) as workers:
        yield workers


def bench_killed_superseding(sandbox: Sandbox, recipe: Path, passages: Iterable[int]) -> Counter[str]:
    """Kill a worker at each stage of superseding, under the same keys and under others; return how often, by stage."""
    environment = new_environment(sandbox, "bench-killed")
    environment.put(series(patients(3), 10))
    variants = [
        environment.configuration(recipes=recipes, destination_key_template=template, transfers=4)
        for recipes in (("desktop",), ("desktop", str(recipe)))
        for template in (environment.configuration().destination_key_template, OTHER_KEY)
    ]
    undisturbed = []
    for number, each in enumerate(variants):
        run(environment, each.replace(destination=f"s3://{environment.bucket}/undisturbed{number}"))
        undisturbed.append(environment.get(f"undisturbed{number}"))
    killed: Counter[str] = Counter()
    turn = 0
    with opened_workers("tests.support.killable") as workers:
        for kill in [(point, passage) for passage in passages for point in killable.POINTS]:
            # Other keys or other rules each time; objects are deleted where the keys change.
            turn ^= 1 if kill[0].endswith(("-delete", "-settle")) or kill[1] in _WITH_OTHER_KEYS else 2
            planned = plan_run(variants[turn], environment.connections)
            assert planned.summary.planned in (0, 30)
            killed[kill[0]] += workers.work(variants[turn], environment.connections, planned, kill) == -9
            assert workers.work(variants[turn], environment.connections, planned, None) == 0
            assert environment.get() == undisturbed[turn], kill
    check_audit(environment)
    assert environment.query("SELECT count(*) FROM deletion") == [(0,)]
    return killed


def bench_killed_withdrawal(sandbox: Sandbox, rounds: int) -> Counter[str]:
    """Kill a process at each stage of withdrawing and erasing patients; return how often, by stage."""
    environment = new_environment(sandbox, "bench-withdrawal")
    people = patients(rounds + 1)
    environment.put(series(people, 6))
    run(environment, environment.configuration())
    before = environment.get()
    killed: Counter[str] = Counter()
    with opened_workers("tests.support.killable_withdrawal") as workers:
        for number, person in enumerate(people[:-1]):
            for stage in killable_withdrawal.STAGES:
                # Only deletions happen several times.
                passage = 1 + number % 5 if "delete" in stage else 1
                code = workers.work(environment.connections, "test", person.patient_id, (stage, passage))
                killed[stage] += code == -9
            assert workers.work(environment.connections, "test", person.patient_id, None) == 0
    left = environment.get()
    assert len(left) == 6
    assert all(before[key] == data for key, data in left.items())
    check_audit(environment)
    with environment.connections.open_database() as database:
        known = [killable_withdrawal.patient_is_known(database, each.patient_id) for each in people]
        assert known == [False] * rounds + [True]
        assert database.open_withdrawals() == []
    assert environment.query("SELECT count(*) FROM deletion") == [(0,)]
    return killed


def main() -> None:
    """Run all of it against a sandbox of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=10_000, help="objects to supersede")
    parser.add_argument("--passages", type=int, default=5, help="passages of each stage of superseding to kill at")
    parser.add_argument("--patients", type=int, default=7, help="patients whose withdrawal is killed at each stage")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicom-deid-bench-") as directory:
        recipe = Path(directory) / "more.dicom"
        recipe.write_text(ONE_MORE_RULE)
        with Sandbox(Path(directory) / "sandbox", keep=False) as sandbox:
            if given.objects:
                bench_superseding(sandbox, recipe, given.objects)
            superseding = bench_killed_superseding(sandbox, recipe, _PASSAGES[: given.passages])
            withdrawing = bench_killed_withdrawal(sandbox, given.patients)
    for what, killed in {"superseding": superseding, "withdrawing and erasing": withdrawing}.items():
        stages = ", ".join(f"{stage} {count}" for stage, count in killed.items())
        print(f"kill -9 while {what}, {killed.total()} times: {stages}")
        assert all(killed.values()), "a stage was not reached"
    total = superseding.total() + withdrawing.total()
    print(f"  {total} in all: each end state is that of an undisturbed run, and the audit verifies")


if __name__ == "__main__":
    main()
