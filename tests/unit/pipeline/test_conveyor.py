"""The conveyor carries every object once, within its bytes, with SQL in one thread and never on the engine's way."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_deid.originals import Kind, Original
from dicom_deid.pipeline.conveyor import Conveyor, Pending


class Carrier:
    """Carries numbers: an item is its cost; records what was in flight."""

    def __init__(self, slow_write=0.0, done_at_read=()):
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
        if item[0] in self.done_at_read:
            with self.lock:
                self.in_flight -= item[1]
            return item[0]
        return Pending((Original(Kind.UID, str(item[0])),), item)

    def write(self, item, pseudonyms):
        assert pseudonyms[Original(Kind.UID, str(item[0]))] == f"new-{item[0]}"
        time.sleep(self.slow_write)
        with self.lock:
            self.in_flight -= item[1]
            self.written.append(item[0])
        return item[0]


def resolve(originals):
    return {original: f"new-{original.value}" for original in originals}


def carry(carrier, items, *, bound=10**9, transfers=4, resolve=resolve, should_stop=lambda: False):
    conveyor = Conveyor(carrier, resolve, transfers=transfers, in_flight_bytes=bound)
    return [done for group in conveyor.run(items, should_stop) for done in group]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=60), st.integers(1, 400_000), st.integers(1, 8))
def test_every_object_is_done_once_and_the_bytes_stay_within_the_bound(costs, bound, transfers):
    carrier = Carrier(done_at_read=range(0, 60, 7))
    done = carry(carrier, list(enumerate(costs)), bound=bound, transfers=transfers)
    assert sorted(done) == list(range(len(costs)))
    assert carrier.peak <= max([bound, *costs])


def test_sql_runs_in_the_callers_thread_and_while_other_objects_are_written():
    carrier = Carrier(slow_write=0.01)
    seen = []

    def slow_resolve(originals):
        before = len(carrier.written)
        time.sleep(0.03)
        seen.append((threading.get_ident(), len(carrier.written) - before))
        return resolve(originals)

    carry(carrier, [(number, 1) for number in range(100)], bound=20 * 33_000, resolve=slow_resolve)
    assert {ident for ident, _ in seen} == {threading.get_ident()}
    assert sum(written for _, written in seen) > 0, "no object was written while SQL ran"


def test_groups_are_large_when_writes_are_slow():
    calls = []

    def counting(originals):
        calls.append(len(originals))
        return resolve(originals)

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
    def fails(originals):
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
