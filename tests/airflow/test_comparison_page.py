"""Tests of the comparison page as it is sent to a browser."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given, settings
from tests.support.comparisons import headers, plain, read
from tests.support.datasets import Element, element

from dicom_deid.database import AuditRecord
from dicom_deid.pipeline.comparison import compare
from dicom_deid.web.rendering import page


def rendered(before: list[Element], after: list[Element]) -> str:
    """Return the page that compares two headers."""
    compared = compare(read(before), read(after))
    unset: dict[str, Any] = dict.fromkeys(AuditRecord.__dataclass_fields__)
    known = {
        "recorded_at": datetime(2026, 1, 2, tzinfo=UTC),
        "object_id": "0f" * 16,
        "destination": "s3://destination",
        "destination_key": "k",
    }
    written = AuditRecord(**unset | known)
    request = Request({"type": "http", "path": "/dicom-deid/runs/r/objects/1/2", "headers": []})
    answer = page(
        "comparison.html",
        request,
        written=written,
        changes=compared.changes,
        left_out=0,
        counts=Counter(change.kind.value for change in compared.changes),
        unchanged=compared.unchanged,
        problem="",
    )
    return bytes(answer.body).decode()


def saying(value: str, elements: list[Element]) -> list[Element]:
    """Return the elements with `value` as their value."""
    return [each._replace(value=value if isinstance(each.value, str) else value.encode()) for each in elements]


@settings(max_examples=100, deadline=None)
@given(headers())
def test_no_word_of_an_original_goes_to_a_browser(drawn: tuple[list[Element], list[Element], list[str]]) -> None:
    """The page holds no word of an original value."""
    before, after, words = drawn
    # Words of the page itself, and of the names of elements, may be drawn too.
    without = plain(rendered(saying("0", before), saying("1", after)))
    text = plain(rendered(before, after))
    assert [word for word in words if plain(word) in text and plain(word) not in without] == []


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_values_are_escaped(value: str) -> None:
    """Values are escaped."""
    text = rendered([element("StudyDescription", "Kidneys")], [element("StudyDescription", value)])
    assert "alert" in text
    assert value not in text
