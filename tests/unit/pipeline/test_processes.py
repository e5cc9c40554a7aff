"""Processes that share a batch: everything is done once, a failure is raised, and nobody waits for ever."""

import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.exceptions import ObjectStoreError
from dicom_deid.pipeline.object_processor import ObjectResult
from dicom_deid.pipeline.processes import ChildFailed, Share, carry_in_processes, shares_of


class Connections:
    def portable(self):
        return self


def share(items):
    return Share(configuration=SimpleNamespace(), connections=Connections(), run_id="r", items=items)


def carry(share, should_stop):
    for item in share.items:
        if item == "storage":
            raise ObjectStoreError("reading an object: the store answered 500")
        if item == "fault":
            raise KeyError("DOE^JOHN")
        if item == "dies":
            os._exit(9)
        if should_stop():
            return
        yield [ObjectResult(row=item)]


def carry_much(share, should_stop):
    while not should_stop():
        yield [ObjectResult(row="x" * 10_000)]


def test_each_item_is_carried_once():
    done = carry_in_processes(carry, share([]), [[*range(20)], [*range(20, 50)], [50]], lambda: False)
    assert sorted(carried.row for group in done for carried in group) == list(range(51))


@pytest.mark.parametrize(
    ("item", "kind", "words"),
    [("storage", ObjectStoreError, "500"), ("fault", ChildFailed, "KeyError"), ("dies", ChildFailed, "without a word")],
)
def test_a_failing_child_is_raised_without_values(item, kind, words):
    with pytest.raises(kind, match=words) as caught:
        list(carry_in_processes(carry, share([]), [[1, 2], [item, 3]], lambda: False))
    assert "DOE" not in str(caught.value)


@pytest.mark.timeout(60)
def test_a_caller_that_goes_away_does_not_wait_for_children_that_still_talk():
    groups = carry_in_processes(carry_much, share([]), [[1], [2]], lambda: False)
    next(groups)
    groups.close()


@pytest.mark.timeout(60)
def test_stop_is_passed_on():
    asked = []
    groups = carry_in_processes(carry_much, share([]), [[1], [2]], lambda: asked.append(1) or len(asked) > 3)
    assert list(groups)


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 6))
def test_each_attempt_cuts_a_batch_in_the_same_places(recorded, processes):
    """A retry whose shares were cut otherwise would know other originals than the attempt before it."""
    items = [SimpleNamespace(number=number, recorded=False) for number in range(len(recorded))]
    first = shares_of(items, processes)
    place = {item.number: index for index, run in enumerate(first) for item in run}
    assert sorted(place) == list(range(len(items)))
    for item, was in zip(items, recorded, strict=True):
        item.recorded = was
    again = shares_of(items, processes)
    for run in again:
        assert len({place[item.number] for item in run}) == 1
        assert not run[-1].recorded
        # All that came before in the same share comes before again.
        begin = min(number for number, index in place.items() if index == place[run[0].number])
        assert [item.number for item in run] == list(range(begin, run[-1].number + 1))
    left = {item.number for run in again for item in run}
    assert left >= {item.number for item in items if not item.recorded}
