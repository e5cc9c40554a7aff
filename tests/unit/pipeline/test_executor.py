"""The conveyor carries every object once, within its bytes, with SQL in one thread and never on the engine's way."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.pipeline.executor import PendingObject, PipelineExecutor


class Carrier:
    """Carries numbers: an item is its cost; records what was in flight."""

    def __init__(self, slow_write=0.0, done_at_read=(), slow_read=None, turn=None, leaves=()):
        self.slow_read = slow_read or (lambda number: 0.0)
        self.turn = turn or (lambda number: None)
        self.leaves = set(leaves)
        self.released = []
        self.in_turn = {}
        self.lock = threading.Lock()
        self.in_flight = 0
        self.peak = 0
        self.written = []
        self.slow_write = slow_write
        self.done_at_read = set(done_at_read)

    def cost(self, item):
        return item[1]

    def read(self, item):
        with self.lock:
            self.in_flight += item[1]
            self.peak = max(self.peak, self.in_flight)
        time.sleep(self.slow_read(item[0]))
        if item[0] in self.done_at_read:
            with self.lock:
                self.in_flight -= item[1]
            return item[0]
        return PendingObject((Identifier(IdentifierKind.UID, str(item[0])),), item, self.turn(item[0]))

    def release(self, item):
        self.released.append((item[0], threading.get_ident()))
        if item[0] not in self.leaves:
            return None
        with self.lock:
            self.in_flight -= item[1]
        return [item[0]] if item[0] % 2 else []

    def write(self, item, pseudonyms):
        turn = self.turn(item[0])
        if turn is not None:
            with self.lock:
                assert turn not in self.in_turn, "two objects of one turn were written at once"
                self.in_turn[turn] = item[0]
        try:
            return self._write(item, pseudonyms)
        finally:
            with self.lock:
                self.in_turn.pop(turn, None)

    def _write(self, item, pseudonyms):
        assert pseudonyms[Identifier(IdentifierKind.UID, str(item[0]))] == f"new-{item[0]}"
        time.sleep(self.slow_write)
        with self.lock:
            self.in_flight -= item[1]
            self.written.append(item[0])
        return item[0]


def resolve(identifiers):
    return {original: f"new-{original.value}" for original in identifiers}


def carry(carrier, items, *, bound=10**9, transfers=4, resolve=resolve, should_stop=lambda: False):
    conveyor = PipelineExecutor(carrier, resolve, transfers=transfers, in_flight_bytes=bound)
    return [done for group in conveyor.run(items, should_stop) for done in group]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=60), st.integers(1, 400_000), st.integers(1, 8))
def test_every_object_is_done_once_and_the_bytes_stay_within_the_bound(costs, bound, transfers):
    carrier = Carrier(done_at_read=range(0, 60, 7))
    done = carry(carrier, list(enumerate(costs)), bound=bound, transfers=transfers)
    assert sorted(done) == list(range(len(costs)))
    assert carrier.peak <= max([bound, *costs])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_objects_are_released_in_order_whatever_the_threads_do(data):
    """Reads end in a drawn order, under bounds so tight that those who wait fill them.

    Catches a release by chance, a release from another thread, and a standstill: objects that wait for one that is not
    admitted because they take all the room.
    """
    count = data.draw(st.integers(1, 40))
    delays = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.004]), min_size=count, max_size=count))
    costs = data.draw(st.lists(st.integers(0, 100_000), min_size=count, max_size=count))
    done_at_read = data.draw(st.sets(st.integers(0, count)))
    leaves = data.draw(st.sets(st.integers(0, count))) - done_at_read
    carrier = Carrier(done_at_read=done_at_read, leaves=leaves, slow_read=delays.__getitem__)
    bound = data.draw(st.sampled_from([1, 70_000, 10**9]))
    transfers = data.draw(st.integers(1, 6))
    done = carry(carrier, list(enumerate(costs)), bound=bound, transfers=transfers)
    passed = [number for number in range(count) if number not in done_at_read]
    assert carrier.released == [(number, threading.get_ident()) for number in passed]
    assert sorted(done) == [number for number in range(count) if number not in leaves or number % 2]
    assert carrier.in_flight == 0


@pytest.mark.timeout(60)
def test_the_first_object_is_slow_and_the_bytes_are_full():
    """All others wait for one read: the room that they take must not be what it waits for."""
    carrier = Carrier(slow_read=lambda number: 0.3 if number == 0 else 0.0)
    done = carry(carrier, [(number, 1000) for number in range(300)], bound=5 * 34_000, transfers=2)
    assert sorted(done) == list(range(300))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=40), st.integers(1, 6))
def test_objects_of_one_turn_are_written_one_after_the_other_in_order(turns, transfers):
    """Catches two objects of one SOP Instance UID that race for their key."""
    carrier = Carrier(slow_write=0.001, turn=turns.__getitem__)
    done = carry(carrier, [(number, 1) for number in range(len(turns))], transfers=transfers)
    assert sorted(done) == list(range(len(turns)))
    for turn in (1, 2, 3):
        written = [number for number in carrier.written if turns[number] == turn]
        assert written == sorted(written)


def test_sql_runs_in_the_callers_thread_and_while_other_objects_are_written():
    carrier = Carrier(slow_write=0.01)
    seen = []

    def slow_resolve(identifiers):
        before = len(carrier.written)
        time.sleep(0.03)
        seen.append((threading.get_ident(), len(carrier.written) - before))
        return resolve(identifiers)

    carry(carrier, [(number, 1) for number in range(100)], bound=20 * 33_000, resolve=slow_resolve)
    assert {ident for ident, _ in seen} == {threading.get_ident()}
    assert sum(written for _, written in seen) > 0, "no object was written while SQL ran"


def test_groups_are_large_when_writes_are_slow():
    calls = []

    def counting(identifiers):
        calls.append(len(identifiers))
        return resolve(identifiers)

    carry(Carrier(slow_write=0.002), [(number, 1) for number in range(400)], resolve=counting)
    assert len(calls) < 100
    assert sum(calls) == 400


def test_stop_admits_no_more_and_finishes_what_has_begun():
    carrier = Carrier(slow_write=0.005)
    done = carry(
        carrier,
        ((number, 1) for number in range(10**6)),
        bound=10 * 33_000,
        should_stop=lambda: len(carrier.written) >= 20,
    )
    assert 20 <= len(done) < 60
    assert carrier.in_flight == 0


def test_database_error_ends_the_run_and_leaves_no_thread():
    def fails(identifiers):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        carry(Carrier(), [(1, 1)], resolve=fails)
    assert not [each for each in threading.enumerate() if each.name.startswith("dicom-deid")]


def test_a_fault_of_the_carrier_itself_is_not_swallowed():
    class Broken(Carrier):
        def read(self, item):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry(Broken(), [(1, 1)])
