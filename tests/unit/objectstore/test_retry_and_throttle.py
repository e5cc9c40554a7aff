"""Failures that pass are repeated, later and later; speed limits hold over threads."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.exceptions import ConfigurationError, ObjectStoreError, Quarantine
from dicom_deid.objectstore import RetryPolicy, Throttle, retry
from dicom_deid.objectstore.errors import TransientError, classify_http_error
from dicom_deid.reasons import Reason


@pytest.fixture
def waits(monkeypatch):
    """Bounds of the waits, which are not waited for."""
    bounds = []
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: bounds.append((low, high)) or 0.0)
    return bounds


def failing(times, error):
    calls = []

    def attempt():
        calls.append(None)
        if len(calls) <= times:
            raise error
        return len(calls)

    return attempt


def test_waits_double_up_to_a_bound_and_have_jitter(waits):
    # Would catch workers that all come back at the same moment, and a store that is hammered while it recovers.
    policy = RetryPolicy(max_attempts=6, base_seconds=1, max_seconds=5)
    assert policy.call(failing(5, TransientError("x"))) == 6
    assert waits == [(0, 1), (0, 2), (0, 4), (0, 5), (0, 5)]


def test_the_last_error_is_raised_after_the_last_attempt(waits):
    with pytest.raises(TransientError):
        RetryPolicy(max_attempts=3).call(failing(3, TransientError("x")))
    assert len(waits) == 2


@pytest.mark.parametrize(
    "error", [ObjectStoreError("x"), ConfigurationError("x"), Quarantine(Reason.OBJECT_VANISHED), KeyError("x")]
)
def test_permanent_errors_are_not_retried(waits, error):
    with pytest.raises(type(error)):
        RetryPolicy().call(failing(1, error))
    assert waits == []


@given(st.integers(100, 599), st.text(max_size=20))
def test_every_answer_becomes_one_of_our_exceptions(status, code):
    # Would catch a status that falls through, and a wrong answer for those that matter most.
    error = classify_http_error(status, code, "reading")
    assert isinstance(error, ObjectStoreError | ConfigurationError | Quarantine)
    if status in (500, 503):
        assert isinstance(error, TransientError)


@pytest.mark.parametrize("limit", [{"requests_per_second": 100}, {"bytes_per_second": 100_000}])
def test_speed_limit_holds_over_threads(limit):
    # Would catch a limit for each thread. 41 requests of 1,000 bytes: 40 intervals of 10 ms.
    throttle = Throttle(**limit)

    def work(count):
        for _ in range(count):
            throttle.request()
            throttle.count_bytes(1000)

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(count,)) for count in (10, 10, 21)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert time.monotonic() - began >= 0.35


def test_no_limit_takes_no_time():
    throttle = Throttle()
    began = time.monotonic()
    for _ in range(1000):
        throttle.request()
        throttle.count_bytes(10**9)
    assert time.monotonic() - began < 0.5
