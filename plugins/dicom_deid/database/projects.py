"""Projects: the domains inside which pseudonyms are consistent, and between which nothing can be linked."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, get_args
from urllib.parse import urlsplit
from uuid import UUID

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import chain_key, record_event
from dicom_deid.database.keys import KEY_BYTES, Cipher, KeyRing, derive, register_active_key
from dicom_deid.database.pseudonyms import checked_org_root, problem_of
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind, PatientKey

UidStrategy = Literal["stored", "derived"]

INDEX_ATTRIBUTES = (
    "Modality",
    "SOPClassUID",
    "BodyPartExamined",
    "Manufacturer",
    "ManufacturerModelName",
    "Rows",
    "Columns",
    "StudyMonth",
)
"""Attributes that the index of a source can store as they are. `StudyMonth` is the year and month of StudyDate."""

SECRET_PURPOSE = "project secret"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectOptions:
    """Options that are fixed when a project is created.

    Parameters
    ----------
    org_root
        Root of new UIDs; `2.25` needs no registration (PS3.5 section B.2).
    single_patient_id
        When set, the pseudonym of every PatientID.
    uid_strategy
        `stored`: a random UID and a row for each original. `derived`: a keyed digest of the original and no row; UIDs
        cannot be looked up backwards in the crosswalk then.
    max_date_offset_days
        Dates of a patient move by 1 to this many days, either way.
    patient_key
        `id`: equal PatientIDs are one patient. `id-and-issuer`: only if their IssuerOfPatientID is equal too.
    index_attributes
        Attributes that the index of a source stores as they are: some of `INDEX_ATTRIBUTES`, separated by commas.
    """

    org_root: str = "2.25"
    single_patient_id: str | None = None
    uid_strategy: UidStrategy = "stored"
    max_date_offset_days: int = 365
    patient_key: PatientKey = "id"
    index_attributes: str = ",".join(INDEX_ATTRIBUTES)

    def __post_init__(self) -> None:
        checked_org_root(self.org_root)
        if self.uid_strategy not in ("stored", "derived"):
            raise ConfigurationError("uid_strategy is `stored` or `derived`.")
        if not 1 <= self.max_date_offset_days <= 36500:
            raise ConfigurationError("max_date_offset_days is from 1 to 36500.")
        if self.patient_key not in get_args(PatientKey):
            raise ConfigurationError("patient_key is `id` or `id-and-issuer`.")
        unknown = set(filter(None, self.index_attributes.split(","))) - set(INDEX_ATTRIBUTES)
        if unknown:
            raise ConfigurationError(
                f"index_attributes are some of {', '.join(INDEX_ATTRIBUTES)}, separated by commas."
            )
        if self.single_patient_id is not None:
            problem = problem_of(IdentifierKind.PATIENT_ID, self.single_patient_id, self.max_date_offset_days)
            if problem:
                raise ConfigurationError(f"single_patient_id {problem}.")


PROJECT_OPTIONS = tuple(option.name for option in fields(ProjectOptions))
"""Names of the options, which are columns of the table `project`."""
_OPTIONS = ", ".join(PROJECT_OPTIONS)


@dataclass(frozen=True)
class Project:
    """A project in the database, with the keys derived from its secret."""

    project_id: int
    name: str
    options: ProjectOptions
    secret: bytes = field(repr=False)

    @cached_property
    def hash_key(self) -> bytes:
        """The HMAC key of the keyed hashes of originals."""
        return derive(self.secret, "keyed hash")

    @cached_property
    def row_check_key(self) -> bytes:
        """The HMAC key that binds pseudonyms to their rows."""
        return derive(self.secret, "row check")

    @cached_property
    def uid_key(self) -> bytes:
        """The HMAC key of derived UIDs."""
        return derive(self.secret, "uid")

    @cached_property
    def term_cipher(self) -> Cipher:
        """Encrypts the search terms of patients."""
        return Cipher(derive(self.secret, "search term"))

    @cached_property
    def source_hash_key(self) -> bytes:
        """The HMAC key of the digests of source keys."""
        return derive(self.secret, "source key hash")

    @cached_property
    def source_key_cipher(self) -> Cipher:
        """Encrypts source keys, which may name a patient."""
        return Cipher(derive(self.secret, "source key"))


def original_cipher(ring: KeyRing, key_id: str, project_id: int) -> Cipher:
    """Return the cipher of the originals of one project."""
    return ring.cipher(key_id, f"original {project_id}")


def split_source(url: str) -> tuple[str, str]:
    """Split a source address into its bucket (or file system) and the prefix that precedes its keys.

    Examples
    --------
    >>> split_source("s3://archive/2025/12")
    ('s3://archive', '2025/12/')
    >>> split_source("s3://archive")
    ('s3://archive', '')
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    return f"{parts.scheme or 'file'}://{parts.netloc}", f"{prefix}/" if prefix else ""


def source_key_hash(project: Project, key: str) -> str:
    """Return the digest that is the key of a whole source key, as a UUID: 128 bits of HMAC-SHA-256."""
    return hmac.digest(project.source_hash_key, key.encode("utf-8", "surrogateescape"), "sha256")[:16].hex()


def decrypt_source_key(project: Project, key_hash: str, encrypted: bytes) -> str:
    """Decrypt a source key, which is bound to its digest."""
    return project.source_key_cipher.decrypt(bytes(encrypted), UUID(key_hash).bytes).decode("utf-8", "surrogateescape")


def open_project(
    connection: DatabaseConnection,
    ring: KeyRing,
    name: str,
    options: Mapping[str, Any],
    *,
    create: bool = True,
) -> Project:
    """Return the project of that name, created with `options` (and defaults for the others) when there is none.

    Raises
    ------
    ConfigurationError
        The project was created with other options, or was deleted; or there is none and `create` is False.
    """
    found = _find(connection, ring, name)
    if found is None and create:
        _create(connection, ring, name, ProjectOptions(**options))
        found = _find(connection, ring, name)
    if found is None:
        names = [found for (found,) in connection.query("reading the projects", "SELECT name FROM project")]
        similar = get_close_matches(name, names, n=1)
        hint = f"did you mean {similar[0]!r}?" if similar else "create it, or name one that exists."
        raise ConfigurationError(f"There is no project {name!r}: {hint}")
    differing = [option for option, value in options.items() if getattr(found.options, option) != value]
    if differing:
        raise ConfigurationError(
            f"Project {name!r} was created with another {', '.join(differing)}; these cannot be changed. "
            "Use the project's own, or another project."
        )
    return found


def project_names(connection: DatabaseConnection) -> list[str]:
    """Return the names of all projects that were not deleted."""
    rows = connection.query("reading the projects", "SELECT name FROM project WHERE deleted_at IS NULL ORDER BY name")
    return [name for (name,) in rows]


def _find(connection: DatabaseConnection, ring: KeyRing, name: str) -> Project | None:
    rows = connection.query(
        "reading the project",
        f"SELECT deleted_at, project_id, secret, key_id, {_OPTIONS} FROM project WHERE name = %s",  # noqa: S608
        (name,),
    )
    if not rows:
        return None
    deleted_at, project_id, secret, key_id, *options = rows[0]
    if deleted_at is not None:
        raise ConfigurationError(f"Project {name!r} was deleted on {deleted_at:%Y-%m-%d}; choose another name.")
    decrypted = ring.cipher(key_id, SECRET_PURPOSE).decrypt(bytes(secret), name.encode())
    return Project(project_id, name, ProjectOptions(**dict(zip(PROJECT_OPTIONS, options, strict=True))), decrypted)


def _create(connection: DatabaseConnection, ring: KeyRing, name: str, options: ProjectOptions) -> None:
    if not name or name != name.strip() or len(name) > 100 or not name.isprintable():
        raise ConfigurationError("A project's name is 1 to 100 printable characters without surrounding blanks.")
    # Also creates the secret of the audit with the first project, under a login that may write.
    key = chain_key(connection, ring)
    register_active_key(connection, ring)
    cipher = ring.cipher(ring.active_id, SECRET_PURPOSE)
    doing = "creating the project"
    with connection.transaction(doing):
        made = connection.query(
            doing,
            f"INSERT INTO project (name, secret, key_id, {_OPTIONS}) VALUES (%(name)s, %(secret)s, %(key_id)s, "  # noqa: S608
            f"{', '.join(f'%({name})s' for name in PROJECT_OPTIONS)}) ON CONFLICT DO NOTHING RETURNING project_id",
            {
                "name": name,
                "secret": cipher.encrypt(secrets.token_bytes(KEY_BYTES), name.encode()),
                "key_id": ring.active_id,
                **asdict(options),
            },
        )
        if made:
            record_event(connection, key, "project-created", asdict(options), project=name)
