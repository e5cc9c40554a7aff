"""Rows in PostgreSQL's COPY text format (PostgreSQL documentation, COPY, "Text Format").

COPY reads, and ``COPY ... TO STDOUT`` returns, the same bytes for the column types of the schema: text, integers, uuid,
bytea, and timestamps in UTC. The audit's hash chain depends on this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

NULL = "\\N"

_ESCAPES = str.maketrans(
    {
        "\\": "\\\\",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\0": "\N{REPLACEMENT CHARACTER}",
    }
)


_ESCAPED = re.compile(r"[\\\0\b\f\n\r\t\v]")


def _timestamp(moment: datetime) -> str:
    """Write an aware time as PostgreSQL does with ``TimeZone`` UTC and ``DateStyle`` ISO."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".")
    return text + "+00"


def copy_field(value: str | int | bytes | UUID | datetime | None) -> str:
    """Write one value. PostgreSQL's text cannot hold NUL: it is replaced by U+FFFD."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return value.translate(_ESCAPES) if _ESCAPED.search(value) else value
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(value, datetime):
        return _timestamp(value)
    return str(value)


def copy_fields(*values: str | int | bytes | UUID | datetime | None) -> str:
    """Write values of one row that follow each other."""
    return "\t".join(map(copy_field, values))


def copy_line(*values: str | int | bytes | UUID | datetime | None) -> str:
    """Write one row, with its newline."""
    return copy_fields(*values) + "\n"


def array_literal(values: Sequence[Any]) -> str:
    """Write a one-dimensional array (PostgreSQL documentation, Arrays, "Array Input and Output Syntax")."""
    # The first two are as _array_element writes them, for values of one type, in a fifth of the time.
    types = set(map(type, values))
    if types == {bytes}:
        return '{"' + '","'.join(["\\\\x" + value.hex() for value in values]) + '"}'
    if types == {str} and "\\" not in (text := '","'.join(values)) and text.count('"') == 2 * len(values) - 2:
        return f'{{"{text}"}}'
    return "{" + ",".join(map(_array_element, values)) + "}"


def _array_element(value: str | int | bytes | UUID | datetime | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        if '"' in value or "\\" in value:
            value = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{value}"'
    if isinstance(value, bytes | memoryview):
        return f'"\\\\x{value.hex()}"'
    return f'"{value}"'
