"""The audit as a table for others: Parquet or CSV, in flat memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.exceptions import ConfigurationError

_PAGE = 10_000

EXPORTED = {
    "recorded_at": "recorded_at",
    "run_id": "run_id::text",
    "batch_id": "batch_id",
    "item": "item",
    "attempt": "attempt",
    "project": "project",
    "source": "source",
    "source_key_hash": "key_hash::text",
    "source_version_id": "source_version_id",
    "source_etag": "source_etag",
    "source_size": "source_size",
    "destination": "destination",
    "destination_key": "destination_key",
    "destination_etag": "destination_etag",
    "destination_size": "destination_size",
    "sha256_in": "encode(sha256_in, 'hex')",
    "sha256_out": "encode(sha256_out, 'hex')",
    "outcome": "outcome",
    "reason": "reason",
    "detail": "detail",
    "recipe_digest": "encode(recipe_digest, 'hex')",
    "settings_digest": "encode(settings_digest, 'hex')",
    "package_version": "package_version",
    "sop_class_uid": "sop_class_uid",
    "transfer_syntax_uid": "transfer_syntax_uid",
    "modality": "modality",
    "actions": "actions",
    "notes": "notes",
    "milliseconds": "milliseconds",
}
"""Exported columns and the SQL that gives each. Source keys leave only as digests: they may name patients."""

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
    columns = ", ".join(EXPORTED.values())
    rows = connection.rows(
        "exporting the audit",
        f"SELECT {columns} FROM audit WHERE (%(run)s::uuid IS NULL OR run_id = %(run)s) "  # noqa: S608
        "AND (%(outcome)s IS NULL OR outcome = %(outcome)s) ORDER BY recorded_at, link_id, number",
        {"run": run_id, "outcome": outcome},
        page=_PAGE,
    )
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ConfigurationError("The audit is exported to a file that ends in .parquet or .csv.")
    return writers[path.suffix](rows, path)


def _write_csv(rows: Iterator[tuple[Any, ...]], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(EXPORTED)
        for row in rows:
            writer.writerow((row[0].isoformat(), *row[1:]))
            count += 1
    return count


def _write_parquet(rows: Iterator[tuple[Any, ...]], path: Path) -> int:
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
