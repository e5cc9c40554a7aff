"""Projects: the domains inside which pseudonyms are consistent, and between which nothing can be linked."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Literal
from uuid import UUID

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.hash_chain import chain_key
from dicom_deid.database.keys import KEY_BYTES, Cipher, KeyRing, derive
from dicom_deid.database.pseudonyms import checked_org_root, problem_of
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind

UidStrategy = Literal["stored", "derived"]

SECRET_PURPOSE = "project secret"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectOptions:
    """What is fixed when a project is made.

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
    """

    org_root: str = "2.25"
    single_patient_id: str | None = None
    uid_strategy: UidStrategy = "stored"
    max_date_offset_days: int = 365

    def __post_init__(self) -> None:
        checked_org_root(self.org_root)
        if self.uid_strategy not in ("stored", "derived"):
            raise ConfigurationError("uid_strategy is `stored` or `derived`.")
        if not 1 <= self.max_date_offset_days <= 36500:
            raise ConfigurationError("max_date_offset_days is from 1 to 36500.")
        if self.single_patient_id is not None:
            problem = problem_of(IdentifierKind.PATIENT_ID, self.single_patient_id, self.max_date_offset_days)
            if problem:
                raise ConfigurationError(f"single_patient_id {problem}.")


@dataclass(frozen=True)
class Project:
    """A project as it stands in the database, with the keys made from its secret."""

    project_id: int
    name: str
    options: ProjectOptions
    secret: bytes = field(repr=False)

    @cached_property
    def lookup_key(self) -> bytes:
        """The HMAC key under which originals are looked up."""
        return derive(self.secret, "lookup")

    @cached_property
    def uid_key(self) -> bytes:
        """The HMAC key of derived UIDs."""
        return derive(self.secret, "uid")

    @cached_property
    def object_key(self) -> bytes:
        """The HMAC key under which source keys are looked up."""
        return derive(self.secret, "source key")

    @cached_property
    def object_sealer(self) -> Cipher:
        """Seals source keys, which may name a patient."""
        return Cipher(derive(self.secret, "sealed source key"))


def original_sealer(ring: KeyRing, key_id: str, project_id: int) -> Cipher:
    """Return the sealer of the originals of one project."""
    return ring.cipher(key_id, f"original {project_id}")


def open_key(project: Project, key_hash: str, sealed: bytes) -> str:
    """Open a sealed source key, which is bound to its digest."""
    return project.object_sealer.open(bytes(sealed), UUID(key_hash).bytes).decode("utf-8", "surrogateescape")


def open_project(
    connection: DatabaseConnection,
    ring: KeyRing,
    name: str,
    options: ProjectOptions | None = None,
    *,
    create: bool = True,
) -> Project:
    """Return the project of that name, made with `options` when there is none.

    Raises
    ------
    ConfigurationError
        The project stands with other options; or there is none and `create` is False.
    """
    found = _find(connection, ring, name)
    if found is None and create:
        _create(connection, ring, name, options or ProjectOptions())
        found = _find(connection, ring, name)
    if found is None:
        names = [found for (found,) in connection.query("reading the projects", "SELECT name FROM project")]
        similar = get_close_matches(name, names, n=1)
        hint = f"did you mean {similar[0]!r}?" if similar else "create it, or name one that exists."
        raise ConfigurationError(f"There is no project {name!r}: {hint}")
    if options is not None and options != found.options:
        _refuse(found, options)
    return found


def _find(connection: DatabaseConnection, ring: KeyRing, name: str) -> Project | None:
    rows = connection.query(
        "reading the project",
        "SELECT project_id, secret, key_id, org_root, single_patient_id, uid_strategy, max_date_offset_days "
        "FROM project WHERE name = %s",
        (name,),
    )
    if not rows:
        return None
    project_id, secret, key_id, *options = rows[0]
    names = [option.name for option in fields(ProjectOptions)]
    opened = ring.cipher(key_id, SECRET_PURPOSE).open(bytes(secret), name.encode())
    return Project(project_id, name, ProjectOptions(**dict(zip(names, options, strict=True))), opened)


def _create(connection: DatabaseConnection, ring: KeyRing, name: str, options: ProjectOptions) -> None:
    if not name or name != name.strip() or len(name) > 100 or not name.isprintable():
        raise ConfigurationError("A project's name is 1 to 100 printable characters without surrounding blanks.")
    # The audit's secret is made along with the first project, by a login that may write.
    chain_key(connection, ring)
    sealed = ring.cipher(ring.active_id, SECRET_PURPOSE).seal(secrets.token_bytes(KEY_BYTES), name.encode())
    connection.query(
        "making the project",
        "INSERT INTO project (name, secret, key_id, org_root, single_patient_id, uid_strategy, max_date_offset_days) "
        "VALUES (%(name)s, %(secret)s, %(key_id)s, %(org_root)s, %(single_patient_id)s, %(uid_strategy)s, "
        "%(max_date_offset_days)s) ON CONFLICT DO NOTHING",
        {"name": name, "secret": sealed, "key_id": ring.active_id, **asdict(options)},
    )


def _refuse(project: Project, wanted: ProjectOptions) -> None:
    differing = [
        option.name
        for option in fields(ProjectOptions)
        if getattr(wanted, option.name) != getattr(project.options, option.name)
    ]
    raise ConfigurationError(
        f"Project {project.name!r} was made with another {', '.join(differing)}; these are fixed for its life. "
        "Use the project's own, or another project."
    )
