"""No reader finds an original in an element that the rules replace, also in outputs of damaged objects."""

from __future__ import annotations

import random

from tests.fuzz.readers import mutated_outputs, originals_found, seeds


def test_each_reader_finds_the_originals_in_the_inputs() -> None:
    """Otherwise it could find none in the outputs."""
    inputs = seeds()[::6]
    assert len(originals_found(inputs)) > len(inputs) / 2


def test_no_reader_finds_an_original_in_an_output() -> None:
    pairs = list(mutated_outputs(random.Random(13), 100))
    assert len(pairs) > 40
    assert originals_found([output for _, output in pairs]) == {}
