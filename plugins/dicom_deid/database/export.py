"""Export of the audit to Parquet or CSV, in flat memory."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from dicom_deid.database.audit_queries import RECORD_COLUMNS, AuditRecord
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.exceptions import ConfigurationError

_PAGE = 10_000
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

EXPORTED = tuple(name for name in AuditRecord.__dataclass_fields__ if name not in ("link_id", "number"))
"""The columns of an export. Source keys are not among them: an object has a random id."""

_INTEGERS = {"batch_id", "item", "attempt", "source_size", "destination_size", "milliseconds"}


def export_audit(
    connection: DatabaseConnection, path: Path, *, run_id: str | None = None, outcome: str | None = None
) -> int:
    """Write the audit to `path` (`.parquet` or `.csv`), of one run or all, and return how many rows.

    Raises
    ------
    ConfigurationError
        The name ends otherwise, or Parquet needs a package that is missing.
    """
    rows = connection.rows(
        "exporting the audit",
        f"SELECT {RECORD_COLUMNS} FROM audit WHERE (%(run)s::uuid IS NULL OR run_id = %(run)s) "  # noqa: S608
        "AND (%(outcome)s IS NULL OR outcome = %(outcome)s) ORDER BY recorded_at, link_id, number",
        {"run": run_id, "outcome": outcome},
        page=_PAGE,
    )
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ConfigurationError("The audit is exported to a file that ends in .parquet or .csv.")
    records = (AuditRecord(*row) for row in rows)
    return writers[path.suffix]((exported_row(record) for record in records), path)


def exported_row(record: AuditRecord) -> list[Any]:
    """Return the exported values of an audit row."""
    return [getattr(record, name) for name in EXPORTED]


def spreadsheet_safe(cell: Any) -> Any:
    """Return a cell of a CSV file that no spreadsheet takes for a formula: text that begins like one gets a quote."""
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def reversible(cell: str) -> str:
    """Return a cell as :func:`spreadsheet_safe` does, such that :func:`original_of` returns the same text."""
    return f"'{cell}" if cell.startswith("'") else str(spreadsheet_safe(cell))


def original_of(cell: str) -> str:
    """Return the text that :func:`reversible` escaped."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(("'", *_FORMULA)) else cell


def _write_csv(rows: Iterator[list[Any]], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(EXPORTED)
        for row in rows:
            writer.writerow([row[0].isoformat(), *map(spreadsheet_safe, row[1:])])
            count += 1
    return count


def _write_parquet(rows: Iterator[list[Any]], path: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'airflow-provider-dicom-deid[parquet]'. Or export to .csv."
        ) from None
    schema = pyarrow.schema([(name, _type(pyarrow, name)) for name in EXPORTED])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while page := list(islice(rows, _PAGE)):
            columns = zip(*page, strict=True)
            writer.write_table(pyarrow.table(dict(zip(EXPORTED, map(list, columns), strict=True)), schema=schema))
            count += len(page)
    return count


def _type(pyarrow: Any, name: str) -> Any:
    if name == "recorded_at":
        return pyarrow.timestamp("us", tz="UTC")
    return pyarrow.int64() if name in _INTEGERS else pyarrow.string()
