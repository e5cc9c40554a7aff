"""Database and object store credentials. Never put into XCom or logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dicom_deid.database import Database, KeyRing
from dicom_deid.database.deletions import Place
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import ObjectStore, S3Connection, open_object_store, open_source
from dicom_deid.pipeline.configuration import RunConfiguration


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Credentials and endpoints. Serialised only to worker processes on the same machine.

    Parameters
    ----------
    database
        URL of the PostgreSQL database with mapping, plan and audit.
    keys
        The keys of the crosswalk.
    schema
        Schema of the tables.
    source, destination, quarantine
        Connection of each object store; None for a directory, or to use the AWS environment variables.
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

    def of(self, place: Place) -> S3Connection | None:
        """Return the credentials of a place; a place of release is reached by those of the destination."""
        return self.quarantine if place == "quarantine" else self.destination

    def open_object_stores(self, configuration: RunConfiguration) -> ObjectStores:
        """Open source, destination and quarantine.

        Raises
        ------
        ConfigurationError
            Two of them overlap, so that a run would read its own output, or originals would be stored with results.
        """
        source = open_source(configuration.source, self.source)
        destination = open_object_store(configuration.destination, self.destination)
        quarantine = open_object_store(configuration.quarantine, self.quarantine) if configuration.quarantine else None
        if source.same_place(destination):
            raise ConfigurationError("Source and destination are the same place, or one contains the other.")
        if quarantine is not None and (source.same_place(quarantine) or quarantine.same_place(destination)):
            raise ConfigurationError("The quarantine is in the same place as the source or the destination.")
        return ObjectStores(source, destination, quarantine)

    @contextmanager
    def open(self, configuration: RunConfiguration) -> Iterator[tuple[Database, ObjectStores]]:
        """Open and check the object stores and the database."""
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
        """Raise `ConfigurationError`, which says what to check, if one of them cannot be used."""
        self.source.check()
        self.destination.check(writable=True)
        if self.quarantine is not None:
            self.quarantine.check(writable=True)
