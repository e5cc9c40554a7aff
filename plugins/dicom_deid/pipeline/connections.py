"""How to reach the database and the object stores: what a run needs and must never hand over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from dicom_deid.database import Database, KeyRing
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import ObjectStore, S3Connection, open_object_store
from dicom_deid.pipeline.configuration import RunConfiguration


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Secrets, and where they open doors. Never serialised but to the worker processes of a batch.

    Parameters
    ----------
    database
        URL of the PostgreSQL database of mapping, plan and audit.
    keys
        The keys of the crosswalk.
    schema
        Schema of the tables.
    source, destination, quarantine
        How to reach each object store; None for a directory, or for what the AWS environment variables say.
    """

    database: str = field(repr=False)
    keys: KeyRing = field(repr=False)
    schema: str = "dicom_deid"
    source: S3Connection | None = field(default=None, repr=False)
    destination: S3Connection | None = field(default=None, repr=False)
    quarantine: S3Connection | None = field(default=None, repr=False)

    def open_database(self) -> Database:
        """Connect to the database."""
        return Database.connect(self.database, schema=self.schema, keys=self.keys)

    def open_object_stores(self, configuration: RunConfiguration) -> ObjectStores:
        """Open source, destination and quarantine.

        Raises
        ------
        ConfigurationError
            Two of them overlap, so that a run would read what it writes, or originals would lie with results.
        """
        source = open_object_store(configuration.source, self.source)
        destination = open_object_store(configuration.destination, self.destination)
        quarantine = open_object_store(configuration.quarantine, self.quarantine) if configuration.quarantine else None
        if source.same_place(destination):
            raise ConfigurationError("Source and destination are the same place, or one lies in the other.")
        if quarantine is not None and (quarantine.same_place(source) or quarantine.same_place(destination)):
            raise ConfigurationError("The quarantine is in the same place as the source or the destination.")
        return ObjectStores(source, destination, quarantine)

    def portable(self) -> Connections:
        """Return connections that can be sent to a child process: temporary credentials as they are now.

        They are good for as long as the batch may be expected to take, but are not renewed.
        """
        return replace(
            self,
            source=_portable(self.source),
            destination=_portable(self.destination),
            quarantine=_portable(self.quarantine),
        )

    @contextmanager
    def open(self, configuration: RunConfiguration) -> Iterator[tuple[Database, ObjectStores]]:
        """Open all, checked: each exists and lets us do what the run does."""
        object_stores = self.open_object_stores(configuration)
        object_stores.check()
        with self.open_database() as database:
            yield database, object_stores


@dataclass(frozen=True, slots=True)
class ObjectStores:
    """The object stores of a run."""

    source: ObjectStore
    destination: ObjectStore
    quarantine: ObjectStore | None = None

    def check(self) -> None:
        """Raise `ConfigurationError` saying what to check when one cannot be used."""
        self.source.check()
        self.destination.check(writable=True)
        if self.quarantine is not None:
            self.quarantine.check(writable=True)


def _portable(connection: S3Connection | None) -> S3Connection | None:
    if connection is None or connection.session is None:
        return connection
    found = connection.session.get_credentials()
    if found is None:
        return connection
    now = found.get_frozen_credentials()
    return replace(
        connection,
        session=None,
        profile=None,
        role_arn=None,
        region=connection.region or connection.session.region_name,
        access_key=now.access_key,
        secret_key=now.secret_key,
        session_token=now.token,
    )
