"""The configuration of a run: one frozen object that may be sent through XCom. No credentials, no PHI."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from dicom_deid.database.plan import BATCH_BYTES, BATCH_OBJECTS
from dicom_deid.database.projects import PROJECT_OPTIONS, ProjectOptions
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.field_checks import check_fields, check_names
from dicom_deid.identifiers import PatientKey
from dicom_deid.pipeline.destination import DEFAULT_TEMPLATE, KeyTemplate
from dicom_deid.pipeline.fetch import LARGE_OBJECT_BYTES
from dicom_deid.recipe import load_function
from dicom_deid.recipe.selection import Selection

MEBIBYTE = 2**20
DEFAULT_RECIPES = ("desktop", "devices")
IN_FLIGHT_BYTES = 112 * MEBIBYTE
"""Default bound of the bytes of objects in flight in one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfiguration:
    """The source, destination, rules and limits of a run.

    Credentials are not part of it: see `Connections`. `to_json` and `from_json` pass it from the task that plans to
    the tasks that process batches.

    Parameters
    ----------
    source, destination
        ``s3://bucket/prefix`` or a directory.
    quarantine
        Where quarantined originals are copied to; None makes no copies. Never in the destination's bucket.
    project
        The mapping domain: pseudonyms are consistent within a project and unlinkable across projects.
    recipes
        Names of recipes that ship, or paths; several are combined in order.
    settings
        Settings of the engine, in addition to the recipe.
    variables, functions
        Values of ``var:NAME``; dotted paths (``package.module:function``) of ``func:NAME``.
    project_rules
        Recipe text that is added to the recipes: the active device rules of the project when the run was planned.
    word_patients
        With `free_text = vocabulary`: a word that no list has may stay if it occurs for at least this many patients of
        the project.
    archive_words
        Digest of the snapshot of these words that the run was planned with. Objects that were cleaned with fewer words
        are not processed again for it.
    destination_key_template
        Template of destination keys, see `KeyTemplate`.
    org_root, single_patient_id, uid_strategy, max_date_offset_days, patient_key
        Options of the project, fixed when it is created; None to use the project's own.
    cohort
        ``s3://bucket/key`` or path of a cohort list: only objects that its lines name are planned, from the index of
        the source. See `dicom_deid.pipeline.cohort`.
    select, exclude
        Lines of criteria, see `Selection`: an object for which a line of `select` does not hold, or one of `exclude`
        does, is left out with the outcome `excluded`.
    limit
        Number of objects that are planned at most.
    newer_than, older_than
        ISO 8601 instants: objects last modified at or after the first, and before the second, are planned.
    retry_quarantined
        Plan objects again that were quarantined with the same recipe and settings.
    max_batches, batch_objects, batch_bytes
        Maximum number of batches, and size of a full batch, whichever is reached first.
    transfers
        Number of reads, and of writes, at a time in one process.
    in_flight_bytes
        Bound of the bytes of objects that one process has read and not yet written.
    large_object_bytes
        An object of at least this size is streamed: its pixel data is never in memory as a whole.
    lease_seconds
        A batch whose worker has not renewed its lease for this time may be taken by another worker.
    on_change
        `supersede` replaces objects that this project wrote when source, recipe or settings have changed; `keep` leaves
        them as they are.
    on_source_deleted
        `withdraw` withdraws released objects whose source object is gone from a whole listing; `report` counts them.
    restore, restore_days
        `request` asks the store to restore archived objects for this number of days; a later run processes them.
    server_side_copy
        Let the store copy the unchanged pixel data of large objects, where source and destination are one endpoint.
    verify
        `full` reads an object back whose bytes were not all sent by the worker, to compute its SHA-256.
    triggered_by, reason
        Who asked for the run, and why, for the audit.
    airflow_context
        Identifiers of the Airflow run, for the audit.
    external_id
        The caller's own identifier of the run: planned again with the same one, it is the same run.
    """

    source: str
    destination: str
    project: str
    quarantine: str | None = None
    recipes: tuple[str, ...] = DEFAULT_RECIPES
    settings: Settings = field(default_factory=Settings)
    variables: Mapping[str, str | int | float] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    project_rules: str = ""
    word_patients: int = 20
    archive_words: str = ""
    destination_key_template: str = DEFAULT_TEMPLATE
    org_root: str | None = None
    single_patient_id: str | None = None
    uid_strategy: Literal["stored", "derived"] | None = None
    max_date_offset_days: int | None = None
    patient_key: PatientKey | None = None
    cohort: str | None = None
    select: str = ""
    exclude: str = ""
    limit: int | None = None
    newer_than: str | None = None
    older_than: str | None = None
    retry_quarantined: bool = False
    max_batches: int = 1000
    batch_objects: int = BATCH_OBJECTS
    batch_bytes: int = BATCH_BYTES
    transfers: int = 16
    in_flight_bytes: int = IN_FLIGHT_BYTES
    large_object_bytes: int = LARGE_OBJECT_BYTES
    lease_seconds: int = 300
    on_change: Literal["supersede", "keep"] = "supersede"
    on_source_deleted: Literal["report", "withdraw"] = "report"
    restore: Literal["no", "request"] = "no"
    restore_days: int = 7
    server_side_copy: bool = True
    verify: Literal["known", "full"] = "known"
    triggered_by: str = ""
    reason: str = ""
    airflow_context: Mapping[str, str] = field(default_factory=dict)
    external_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("source", "destination", "quarantine"):
            url = getattr(self, name)
            if url is not None:
                _check_url(name, url)
        if not self.project.strip():
            raise ConfigurationError("The project has no name: name the mapping domain, for example `research-1`.")
        if not self.recipes:
            raise ConfigurationError("No recipe is named: name one that ships, for example `desktop`, or a path.")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"{name} must be a whole number of at least 1.")
        check_fields(self)
        KeyTemplate.parse(self.destination_key_template)
        _ = ProjectOptions(**self.project_options), self.selection
        _check_quarantine(self.quarantine, self.destination, self.source)
        _check_window(self.after, self.before)

    @property
    def after(self) -> datetime | None:
        """`newer_than` as an instant."""
        return _instant("newer_than", self.newer_than)

    @property
    def before(self) -> datetime | None:
        """`older_than` as an instant."""
        return _instant("older_than", self.older_than)

    @property
    def project_options(self) -> dict[str, Any]:
        """The options that the project must have, or is created with."""
        # A run cannot give those that are not its fields.
        given = {name: getattr(self, name, None) for name in PROJECT_OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def selection(self) -> Selection:
        """The criteria of `select` and `exclude`."""
        return Selection.parse(self.select, self.exclude)

    @property
    def digest(self) -> str:
        """SHA-256, as hexadecimal digits, of everything except the recipe that decides bytes and keys of the output.

        An object that was processed with the same source, destination, project, recipe and digest is not processed
        again.
        """
        relevant: dict[str, object] = {
            "settings": self.settings.digest,
            "variables": dict(self.variables),
            "functions": dict(self.functions),
            "destination_key_template": self.destination_key_template,
        }
        if self.project_rules:
            relevant["project_rules"] = self.project_rules
        if self.patient_key == "id-and-issuer":
            relevant["patient_key"] = self.patient_key
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()

    def load_functions(self) -> dict[str, Callable[..., Any]]:
        """Import the functions that the recipe may call.

        Raises
        ------
        ConfigurationError
            If a path does not name a function.
        """
        return {name: load_function(path) for name, path in self.functions.items()}

    def replace(self, **changes: Any) -> RunConfiguration:
        """Return a copy with the given fields changed, checked again."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunConfiguration:
        """Return the configuration that `to_json` wrote.

        Raises
        ------
        ConfigurationError
            If the text is no such configuration.
        """
        try:
            return cls.from_mapping(json.loads(text))
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"The run configuration is not JSON (line {error.lineno}).") from None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RunConfiguration:
        """Return the configuration of plain values, such as a trigger form gives; `settings` may be partial.

        Raises
        ------
        ConfigurationError
            If a field is unknown, missing, or has a wrong value.
        """
        check_names("The options of a run", values, {each.name for each in fields(cls)})
        given = dict(values)
        if isinstance(given.get("recipes"), str):
            given["recipes"] = (given["recipes"],)
        if "recipes" in given:
            given["recipes"] = tuple(given["recipes"])
        if isinstance(given.get("settings"), Mapping):
            given["settings"] = _settings(given["settings"])
        missing = [name for name in ("source", "destination", "project") if not given.get(name)]
        if missing:
            raise ConfigurationError(f"The run configuration lacks {', '.join(missing)}.")
        return cls(**given)


_POSITIVE = (
    "limit",
    "word_patients",
    "max_batches",
    "batch_objects",
    "batch_bytes",
    "transfers",
    "in_flight_bytes",
    "large_object_bytes",
    "lease_seconds",
    "restore_days",
    "max_date_offset_days",
)


def _settings(values: Mapping[str, Any]) -> Settings:
    check_names("The settings", values, {each.name for each in fields(Settings)})
    return Settings(**values)


def _check_url(name: str, url: str) -> None:
    if not isinstance(url, str) or not url.strip():
        raise ConfigurationError(f"The {name} is empty: give s3://bucket/prefix or a directory.")
    parts = urlsplit(url)
    if parts.scheme not in ("", "file", "s3"):
        raise ConfigurationError(f"The {name} has the scheme {parts.scheme}: give s3://bucket/prefix or a directory.")
    if parts.scheme == "" and url.lower().startswith(("s3/", "s3.")):
        raise ConfigurationError(f"The {name} looks like a misspelt s3://bucket/prefix; write ./ before a directory.")
    if parts.scheme == "s3" and ("@" in parts.netloc or not parts.netloc):
        raise ConfigurationError(f"The {name} must be s3://bucket/prefix; keys belong in the connection, not here.")


def _check_quarantine(quarantine: str | None, destination: str, source: str) -> None:
    if quarantine is None:
        return
    same_bucket = _bucket(quarantine) is not None and _bucket(quarantine) == _bucket(destination)
    if same_bucket or _overlap(quarantine, destination):
        raise ConfigurationError(
            "The quarantine is in the destination's bucket: quarantined originals hold PHI and must be elsewhere."
        )
    if _overlap(quarantine, source):
        raise ConfigurationError("The quarantine overlaps the source: the next run would list its copies.")


def _bucket(url: str) -> str | None:
    parts = urlsplit(url)
    return parts.netloc if parts.scheme == "s3" else None


def _overlap(one: str, other: str) -> bool:
    first, second = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)


def _instant(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{name} must be an ISO 8601 instant, such as 2024-05-01T00:00:00+00:00.") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _check_window(after: datetime | None, before: datetime | None) -> None:
    if after and before and after >= before:
        raise ConfigurationError("newer_than must be before older_than.")
