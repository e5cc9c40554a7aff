"""Alembic's side of the schema: run by :mod:`dicom_deid.store.schema`, never by `alembic` itself."""
