"""Alembic revisions: one file each, with the SQL of upgrade and downgrade."""
