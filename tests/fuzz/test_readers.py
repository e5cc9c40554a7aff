"""No reader finds an original in an element that the rules replace, also in outputs of damaged objects."""

from __future__ import annotations

import random

from tests.fuzz.readers import mutated_outputs, originals_found, seeds


def test_each_reader_finds_the_originals_in_the_inputs() -> None:
    """Otherwise it could find none in the outputs."""
    found = originals_found(seeds())
    assert len(found) > 0.8 * len(seeds())


def test_no_reader_finds_an_original_in_an_output() -> None:
    pairs = list(mutated_outputs(random.Random(13), 300))
    assert len(pairs) > 100
    assert originals_found([output for _, output in pairs]) == {}
