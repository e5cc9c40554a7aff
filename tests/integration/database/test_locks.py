"""Workers, plans, withdrawals and repairs that change the same rows wait for each other, and never in a circle."""

from __future__ import annotations

import threading
import time

import pytest

from dicom_deid.database import AccessReason, Database, Intent, ObjectIdentity, WithdrawalRequest
from dicom_deid.database.locks import LOCK_OBJECTS

ACCESS = AccessReason(person="olga", reason="consent withdrawn")
OBJECTS = 300


def mark_deleted(database, steps):
    """Plan a listing that lacks all objects but one."""
    database.plan(steps.begin(), steps.listing(1))


def withdraw(database, steps):
    database.withdraw(database.project("p"), WithdrawalRequest(whole_project=True), ACCESS)


def finish_withdrawal(database, steps):
    """Record the deletions of a withdrawal that was begun before the objects were recorded."""
    (withdrawal,) = database.open_withdrawals(database.project("p"))
    database.record_withdrawn(database.project("p"), database.pending_deletions(withdrawal, limit=OBJECTS))


def undo(database, steps):
    (withdrawal,) = database.connection.query("test", "SELECT withdrawal_id::text FROM withdrawal")
    database.undo_withdrawal(database.project("p"), *withdrawal, ACCESS)


def repair(database, steps):
    database.reconcile("s3://out/", [], ACCESS, confirm=lambda found: found, repair=True)


def finish_run(database, steps):
    """End the run whose batch is still being worked on."""
    (run,) = database.connection.query("test", "SELECT run_id::text FROM run ORDER BY run_number DESC LIMIT 1")
    database.finish_run(*run, "cancelled")


@pytest.mark.parametrize("change", [mark_deleted, withdraw, finish_withdrawal, undo, repair, finish_run])
def test_a_worker_that_records_its_batch_and_a_change_of_many_objects_do_not_wait_in_a_circle(
    database, second, store_url, keys, steps, change
):
    """Catches rows that one statement locks in another order than another one.

    A third session holds the row that the worker needs first until both wait.
    """
    project = database.project("p")
    steps.work(database.plan(steps.begin(), steps.listing(OBJECTS)).batches)
    again = database.plan(steps.begin(recipe_digest="ef" * 32), steps.listing(OBJECTS))
    lease = database.lease(again.batches[0].batch_id, "worker")
    items = lease.items()
    identity = ObjectIdentity(patient_id="DOE")
    lease.intend([Intent(item=item, destination_key=f"e/{item.item_id}", identity=identity) for item in items])
    if change in (finish_withdrawal, undo):
        begun = second.withdraw(project, WithdrawalRequest(whole_project=True), ACCESS)
    if change is undo:
        query = "UPDATE withdrawal SET state = 'finished' WHERE withdrawal_id = %s"
        second.connection.query("test", query, (begun.withdrawal_id,))
    errors = []

    def call(action, *arguments):
        try:
            action(*arguments)
        except Exception as error:
            errors.append(error)

    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with Database.connect(store_url, keys=keys) as third:
        third.connection.query("test", "SELECT pg_stat_force_next_flush()")
        before = third.connection.query("test", deadlocks)
        rows = [steps.row(item) for item in items]
        threads = [
            threading.Thread(target=call, args=(lease.record, rows)),
            threading.Thread(target=call, args=(change, second, type(steps)(second))),
        ]
        with third.connection.transaction("test"):
            third.connection.query(
                "test", "SELECT FROM processed_object WHERE key_hash = %s FOR UPDATE", (items[0].key_hash,)
            )
            for number, thread in enumerate(threads, start=1):
                thread.start()
                wait_for_waiting(third, number, thread)
        for thread in threads:
            thread.join()
        assert errors == []
        time.sleep(0.1)
        assert third.connection.query("test", deadlocks) == before


def test_an_erasure_and_the_undoing_of_its_withdrawal_do_not_wait_in_a_circle(database, second, store_url, keys, steps):
    """Catches the row of a withdrawal that is locked before the objects, and a worker that is cancelled for it."""
    project = database.project("p")
    steps.work(database.plan(steps.begin(), steps.listing(3)).batches, identity=ObjectIdentity(patient_id="DOE"))
    withdrawal = database.withdraw(project, WithdrawalRequest(patients=["DOE"]), ACCESS).withdrawal_id
    database.record_withdrawn(project, database.pending_deletions(withdrawal))
    database.finish_withdrawal(project, withdrawal)
    errors = []

    def call(action, *arguments):
        try:
            action(project, *arguments, ACCESS)
        except Exception as error:
            errors.append(str(error))

    threads = [
        threading.Thread(target=call, args=(database.erase_patients, ["DOE"])),
        threading.Thread(target=call, args=(second.undo_withdrawal, withdrawal)),
    ]
    with Database.connect(store_url, keys=keys) as third:
        with third.connection.transaction("test"):
            third.connection.query("test", LOCK_OBJECTS, {"project": project.project_id})
            for number, thread in enumerate(threads, start=1):
                thread.start()
                wait_for_waiting(third, number, thread)
        for thread in threads:
            thread.join()
    assert errors == [f"Withdrawal {withdrawal} cannot be undone: it is erased."]


def wait_for_waiting(database, count, thread):
    """Wait until so many sessions wait for a lock, or the newest does not need any."""
    query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
    deadline = time.monotonic() + 20
    while database.connection.query("test", query)[0][0] < count and thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)
