"""The executor processes every object once, within its bytes, with SQL in one thread that blocks no other work."""

import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_deid.database import Intent
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.pipeline.executor import MemoryRequest, PendingObject, PipelineExecutor


class NumberProcessor:
    """Processes numbers: an item is a number and its cost; records what was in flight."""

    def __init__(
        self,
        slow_write=0.0,
        done_at_read=(),
        slow_read=None,
        ordering_key=None,
        without_result=(),
        refused=(),
        grows=None,
        slow=(),
    ):
        self.slow_read = slow_read or (lambda number: 0.0)
        self.ordering_key = ordering_key or (lambda number: None)
        self.without_result = set(without_result)
        self.continued = []
        self.grows = grows or {}
        self.refused = set(refused)
        self.being_written = set()
        self.lock = threading.Lock()
        self.in_flight = 0
        self.peak = 0
        self.written = []
        self.slow_write = slow_write
        self.done_at_read = set(done_at_read)
        self.slow = set(slow)
        self.slow_threads = set()

    def cost(self, item):
        return item[1]

    def process(self, item):
        number, cost = item
        with self.lock:
            self.in_flight += cost
            self.peak = max(self.peak, self.in_flight)
        time.sleep(self.slow_read(number))
        if number in self.grows:
            yield MemoryRequest(self.grows[number])
            with self.lock:
                self.in_flight += self.grows[number]
                self.peak = max(self.peak, self.in_flight)
                cost += self.grows[number]
        if number not in self.done_at_read:
            identifier = Identifier(IdentifierKind.UID, str(number))
            is_slow = number in self.slow
            reply = yield PendingObject(
                (identifier,), patient=str(number), ordering_key=self.ordering_key(number), is_slow=is_slow
            )
            if is_slow:
                time.sleep(0.1)
                self.slow_threads.add(threading.get_ident())
            assert reply.pseudonyms[identifier] == f"new-{number}"
            reply = yield Intent(item=SimpleNamespace(item_id=number), destination_key=f"key-{number}")
            assert reply.is_refused == (number in self.refused)
            if not reply.is_refused:
                self.write(number)
        with self.lock:
            self.in_flight -= cost
        return None if number in self.without_result else number

    def write(self, number):
        key = self.ordering_key(number)
        with self.lock:
            assert key is None or key not in self.being_written, "two objects with one key were written at once"
            self.being_written.add(key)
        time.sleep(self.slow_write)
        with self.lock:
            self.being_written.discard(key)
            self.written.append(number)

    def add_terms(self, group):
        self.continued += ((int(pending.patient), threading.get_ident()) for pending in group)
        return [frozenset()] * len(group)


def look_up(identifiers):
    return {identifier: f"new-{identifier.value}" for identifier in identifiers}


class Ledger:
    """Looks up pseudonyms by a function, and records intents before anything is written."""

    def __init__(self, processor, look_up):
        self.processor = processor
        self.look_up_identifiers = look_up
        self.calls = []

    def look_up(self, pending):
        return self.look_up_identifiers({identifier for each in pending for identifier in each.identifiers})

    def intend(self, intents):
        self.calls.append(threading.get_ident())
        written = set(self.processor.written)
        numbers = {intent.item.item_id for intent in intents}
        assert not numbers & written, "an object was written before its intent"
        return numbers & self.processor.refused


def process(processor, items, *, bound=10**9, transfers=4, look_up=look_up, should_stop=lambda: False):
    ledger = Ledger(processor, look_up)
    executor = PipelineExecutor(processor, ledger, transfers=transfers, in_flight_bytes=bound)
    return [result for group in executor.run(items, should_stop) for result in group]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=60), st.integers(1, 400_000), st.integers(1, 8))
def test_every_object_is_done_once_and_the_bytes_stay_within_the_bound(costs, bound, transfers):
    processor = NumberProcessor(done_at_read=range(0, 60, 7))
    done = process(processor, list(enumerate(costs)), bound=bound, transfers=transfers)
    assert sorted(done) == list(range(len(costs)))
    assert processor.peak <= max([bound, *costs])


def test_other_objects_do_not_wait_for_slow_steps():
    """More slow objects than threads, before all others, as a study of ultrasound clips: they end last."""
    processor = NumberProcessor(slow=range(6))
    assert sorted(process(processor, [(number, 10) for number in range(40)], transfers=2)) == list(range(40))
    assert len(processor.slow_threads) == 1
    assert processor.written.index(5) == 39
    assert [number for number in processor.written if number < 6] == list(range(6))
    assert processor.written.index(39) < processor.written.index(3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_objects_continue_in_order_whatever_the_threads_do(data):
    """Reads end in a drawn order, with bounds so tight that waiting objects fill them.

    Catches another order, a call from another thread, and a deadlock: objects that wait for one that is not admitted
    because they take all the memory.
    """
    count = data.draw(st.integers(1, 40))
    delays = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.004]), min_size=count, max_size=count))
    costs = data.draw(st.lists(st.integers(0, 100_000), min_size=count, max_size=count))
    done_at_read = data.draw(st.sets(st.integers(0, count)))
    without_result = data.draw(st.sets(st.integers(0, count)))
    processor = NumberProcessor(done_at_read=done_at_read, without_result=without_result, slow_read=delays.__getitem__)
    bound = data.draw(st.sampled_from([1, 70_000, 10**9]))
    transfers = data.draw(st.integers(1, 6))
    done = process(processor, list(enumerate(costs)), bound=bound, transfers=transfers)
    passed = [number for number in range(count) if number not in done_at_read]
    assert processor.continued == [(number, threading.get_ident()) for number in passed]
    assert sorted(done) == [number for number in range(count) if number not in without_result]
    assert processor.in_flight == 0


@pytest.mark.timeout(60)
def test_the_first_object_is_slow_and_the_bytes_are_full():
    """All others wait for one read: it must not wait for the memory that they take."""
    processor = NumberProcessor(slow_read=lambda number: 0.3 if number == 0 else 0.0)
    done = process(processor, [(number, 1000) for number in range(300)], bound=5 * 34_000, transfers=2)
    assert sorted(done) == list(range(300))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=40), st.integers(1, 6))
def test_objects_with_one_ordering_key_are_written_one_after_the_other_in_order(keys, transfers):
    """Catches two objects of one SOP Instance UID that race for their key."""
    processor = NumberProcessor(slow_write=0.001, ordering_key=keys.__getitem__)
    done = process(processor, [(number, 1) for number in range(len(keys))], transfers=transfers)
    assert sorted(done) == list(range(len(keys)))
    for key in (1, 2, 3):
        written = [number for number in processor.written if keys[number] == key]
        assert written == sorted(written)


def test_sql_runs_in_the_callers_thread_and_while_other_objects_are_written():
    processor = NumberProcessor(slow_write=0.01)
    seen = []

    def slow_look_up(identifiers):
        before = len(processor.written)
        time.sleep(0.03)
        seen.append((threading.get_ident(), len(processor.written) - before))
        return look_up(identifiers)

    process(processor, [(number, 1) for number in range(100)], bound=20 * 33_000, look_up=slow_look_up)
    assert {ident for ident, _ in seen} == {threading.get_ident()}
    assert sum(written for _, written in seen) > 0, "no object was written while SQL ran"


def test_groups_are_large_when_writes_are_slow():
    calls = []

    def counting(identifiers):
        calls.append(len(identifiers))
        return look_up(identifiers)

    process(NumberProcessor(slow_write=0.002), [(number, 1) for number in range(400)], look_up=counting)
    assert len(calls) < 100
    assert sum(calls) == 400


def test_stop_admits_no_more_and_finishes_what_has_begun():
    processor = NumberProcessor(slow_write=0.005)
    done = process(
        processor,
        ((number, 1) for number in range(10**6)),
        bound=10 * 33_000,
        should_stop=lambda: len(processor.written) >= 20,
    )
    assert 20 <= len(done) < 60
    assert processor.in_flight == 0


def test_database_error_ends_the_run_and_leaves_no_thread():
    def fails(identifiers):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        process(NumberProcessor(), [(1, 1)], look_up=fails)
    assert not [each for each in threading.enumerate() if each.name.startswith("dicom-deid")]


def test_an_exception_of_the_processor_itself_is_not_swallowed():
    class Broken(NumberProcessor):
        def write(self, number):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process(Broken(), [(1, 1)])


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 30)), st.integers(1, 6))
def test_withdrawn_objects_are_not_written(refused, transfers):
    processor = NumberProcessor(refused=refused)
    done = process(processor, [(number, 1) for number in range(30)], transfers=transfers)
    assert sorted(done) == list(range(30))
    assert sorted(processor.written) == [number for number in range(30) if number not in refused]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_objects_that_grow_in_memory_stay_within_the_bound(data):
    """Catches many inflated objects at a time, and a deadlock of those that wait for memory."""
    count, bound = data.draw(st.integers(1, 30)), 200_000
    sizes = st.integers(1, 300_000)
    grows = data.draw(st.dictionaries(st.integers(0, count - 1), sizes))
    processor = NumberProcessor(grows=grows, done_at_read=data.draw(st.sets(st.integers(0, count))))
    done = process(processor, [(number, 100) for number in range(count)], bound=bound, transfers=3)
    assert sorted(done) == list(range(count))
    # The largest alone, beside objects that are read and wait for it.
    assert processor.peak <= max([bound, *grows.values()]) + 100 * count
    assert processor.in_flight == 0
