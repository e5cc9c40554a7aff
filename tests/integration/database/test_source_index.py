"""The index of a source, as the indexer and runs fill it."""

from __future__ import annotations

from datetime import UTC, datetime

from dicom_deid.database.source_index import IndexedIdentifiers, IndexEntry, SourceIndex
from dicom_deid.objects import SourceObject

BLOCK = 500


def test_objects_of_one_accession_number_do_not_cost_a_look_at_all_of_them(database):
    """Catches a plan that finds a series by the accession number alone, which is empty in whole archives."""
    index = SourceIndex(database.connection, database.project("p"), "s3://in")

    def add(block: int) -> int:
        """Add one series per object, and return how many rows of the index were read."""
        entries = [
            IndexEntry(
                source_object=SourceObject(f"{number}.dcm", 1, "e", datetime(2026, 1, 2, tzinfo=UTC)),
                identifiers=IndexedIdentifiers(patient_id=f"P{number}", series_instance_uid=f"1.2.{number}"),
            )
            for number in range(block * BLOCK, (block + 1) * BLOCK)
        ]
        # Rows that this session has read and not reported to the statistics yet.
        read = (
            "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables "
            "WHERE starts_with(relname, 'index_') AND schemaname = current_schema()"
        )
        with database.connection.transaction("test"):
            before = database.connection.query("test", read)[0][0]
            index.add(entries)
            return database.connection.query("test", read)[0][0] - before

    rows = [add(block) for block in range(6)]
    assert 0 < max(rows) < 20 * BLOCK
