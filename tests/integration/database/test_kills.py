"""SIGKILL while a plan is made or an audit recorded: what a retry finds is whole, and the end is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from dicom_deid.database import KeyRing

WORKER = """
import sys
from datetime import UTC, datetime
from dicom_deid.objects import SourceObject
from dicom_deid.reasons import Outcome
from dicom_deid.database import AuditRow, Database, KeyRing
url, keys, run, step = sys.argv[1:]
listing = (SourceObject(f"DOE^JOHN/{n}.dcm", 1000, "e", datetime(2026, 1, 2, tzinfo=UTC)) for n in range(3000))
with Database.connect(url, keys=KeyRing.parse(keys)) as database:
    print("ready", flush=True)
    if step == "plan":
        database.plan(run, listing, batch_objects=100)
    unfinished = "SELECT batch_id FROM batch WHERE state <> 'finished' ORDER BY 1"
    for (batch,) in database.connection.query("work", unfinished):
        lease = database.lease(batch, "worker")
        if lease is None:
            continue
        items = lease.items()
        for start in range(0, len(items), 10):
            lease.record([AuditRow(item=item, outcome=Outcome.DEIDENTIFIED, destination_key=f"d/{item.item_id}")
                          for item in items[start : start + 10]])
        lease.finish()
    print("done", flush=True)
"""


def start(url: str, keys: KeyRing, run: str, step: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WORKER, url, keys.to_text(), run, step]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout.readline() == "ready\n"
    return worker


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_and_started_again_everything_is_recorded_once(database, steps, keys, store_url, seed):
    # Would catch a plan of half a listing, a row recorded twice, an object forgotten, and a chain that forks.
    chance = random.Random(seed)
    run = steps.begin()
    step = "plan"
    for _ in range(6):
        worker = start(store_url, keys, run, step)
        time.sleep(chance.uniform(0.0, 0.6))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        steps.wait_for_sessions(1)
        planned = database.connection.query("test", "SELECT coalesce(sum(objects), 0)::int FROM batch")[0][0]
        assert planned in (0, 3000)
        step = "work" if planned else "plan"
        assert database.verify().problems == []
    worker = start(store_url, keys, run, step)
    # Not by `communicate`, which misses what was read together with the first line.
    assert worker.stdout.read() == "done\n"
    worker.stdout.close()
    worker.wait(timeout=120)
    recorded = database.connection.query("test", "SELECT count(*), count(DISTINCT object_id) FROM audit")
    assert recorded == [(3000, 3000)]
    assert database.report(run).open == 0
    assert database.plan(steps.begin(), steps.listing(3000)).planned == 0
    assert database.verify().problems == []
