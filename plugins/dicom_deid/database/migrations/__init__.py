"""Alembic's side of the schema: run by :mod:`dicom_deid.database.schema`, never by `alembic` itself."""
