"""The trigger form: one place that says what can be asked of a run, in which words, and what is refused."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from airflow.sdk import Param

_PROFILE = "ps3.15-"
_BASIC = f"{_PROFILE}basic"
_URL = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
_PREFIX = r"^[^/].*$"
_FROM_WHERE, _RULES, _HOW_MUCH, _WHY = "From where to where", "Rules", "How much", "Who asks, and why"


def installed_recipes() -> list[str]:
    """Return the names of the recipes that ship, those of options left out, which go with another."""
    options = {f"{_PROFILE}{option}" for option in profile_options()}
    return [name for name in _shipped() if name not in options]


def profile_options() -> list[str]:
    """Return the names of the options of PS3.15 that ship."""
    return [name.removeprefix(_PROFILE) for name in _shipped() if name.startswith(_PROFILE) and name != _BASIC]


def _shipped() -> list[str]:
    # The names alone: to import the engine would cost the DAG processor a second each time it reads a DAG.
    names = (file.name for file in files("dicom_deid.recipes").iterdir())
    return sorted(name.removesuffix(".dicom") for name in names if name.endswith(".dicom"))


def source_params(source: str, *, prefix: bool = True) -> dict[str, Param]:
    """Return the fields that say which objects are read."""
    fields = {
        "source": Param(
            source,
            type="string",
            title="Source",
            description_md="Where the originals lie, as `s3://bucket` or `s3://bucket/prefix`. Nothing is written.",
            pattern=_URL,
            section=_FROM_WHERE,
        ),
        "prefix": Param(
            None,
            type=["null", "string"],
            title="Prefix",
            description_md="Only objects whose keys go on with this after the source, for example `2024/05/`.",
            pattern=_PREFIX,
            section=_FROM_WHERE,
        ),
    }
    return fields if prefix else {"source": fields["source"]}


def partition_params() -> dict[str, Param]:
    """Return the fields that say what belongs to the period of a scheduled or backfilled run."""
    return {
        "partition": Param(
            "last-modified",
            type="string",
            title="A partition is",
            description_md="Which objects belong to the period of a run. A run without a period takes all of them.",
            enum=["last-modified", "prefix"],
            values_display={
                "last-modified": "what was last modified in the period",
                "prefix": "what lies below the period's prefix",
            },
            section=_FROM_WHERE,
        ),
        "prefix_format": Param(
            "%Y/%m/",
            type="string",
            title="Prefix of a period",
            description_md="How the beginning of a period is written below the source: `%Y/%m/` makes `2024/05/`.",
            pattern="%",
            section=_FROM_WHERE,
        ),
    }


def destination_params(destination: str) -> dict[str, Param]:
    """Return the fields that say where results go, and under which project."""
    return {
        "destination": Param(
            destination,
            type="string",
            title="Destination",
            description_md="Where de-identified objects go. Never a place inside the source.",
            pattern=_URL,
            section=_FROM_WHERE,
        ),
        "quarantine": Param(
            None,
            type=["null", "string"],
            title="Copies of quarantined objects",
            description_md="Where originals that cannot be de-identified are copied: a bucket **other than the "
            "destination's**, for it holds PHI. Empty: they are only recorded.",
            pattern=_URL,
            section=_FROM_WHERE,
        ),
        "project": Param(
            None,
            type=["null", "string"],
            title="Project",
            description_md="Pseudonyms are the same inside a project and unlinkable across two. Empty: the project of "
            "the connection.",
            maxLength=100,
            section=_FROM_WHERE,
        ),
    }


def release_params(destination: str) -> dict[str, Param]:
    """Return the field that says where approved results go."""
    return {
        "release_to": Param(
            destination,
            type="string",
            title="Release to",
            description_md="Where the results are copied after approval. Until then they lie at the destination.",
            pattern=_URL,
            section=_FROM_WHERE,
        ),
    }


def rule_params() -> dict[str, Param]:
    """Return the fields that choose the recipe and the policies beside it."""
    return {
        "recipe": recipe_param("Recipe", "The rules, by the name of a recipe that ships."),
        "profile_options": Param(
            None,
            type=["null", "array"],
            title="Options of PS3.15",
            description_md="With the recipe `ps3.15-basic` only. They decide over the two policies below.",
            examples=profile_options(),
            items={"type": "string", "enum": profile_options()},
            uniqueItems=True,
            section=_RULES,
        ),
        "private_elements": Param(
            "safe",
            type="string",
            title="Private elements that no rule names",
            description_md="Elements of odd groups, in which vendors put whatever they like, names too.",
            enum=["remove", "safe", "keep"],
            values_display={
                "remove": "Remove all",
                "safe": "Keep those that PS3.15 calls safe",
                "keep": "Keep all (as the desktop application did)",
            },
            section=_RULES,
        ),
        "pixel_risk": Param(
            "quarantine",
            type="string",
            title="Pixels that may show identifiers",
            description_md="For kinds of object that often carry burned-in text, when no pixel rule covers them.",
            enum=["quarantine", "ocr", "allow"],
            values_display={
                "quarantine": "Quarantine the object",
                "ocr": "Find and blank text (needs the extra `ocr`)",
                "allow": "Let the pixels pass",
            },
            section=_RULES,
        ),
    }


def recipe_param(title: str, description: str, *, optional: bool = False) -> Param:
    """Return a drop-down of the recipes that are installed."""
    names: list[Any] = installed_recipes()
    return Param(
        None if optional else "desktop",
        type=["null", "string"] if optional else "string",
        title=title,
        description_md=description,
        enum=[None, *names] if optional else names,
        section=_RULES,
    )


def amount_params(*, limit: int | None = None) -> dict[str, Param]:
    """Return the fields that bound a run."""
    return {
        "limit": Param(
            limit,
            type=["null", "integer"],
            title="At most so many objects",
            description_md="Empty: all of them.",
            minimum=1,
            section=_HOW_MUCH,
        ),
    }


def sample_param() -> dict[str, Param]:
    """Return the field for the size of a sample."""
    return {
        "sample": Param(
            10,
            type="integer",
            title="Objects of each modality",
            description_md="How many are looked at.",
            minimum=1,
            maximum=1000,
            section=_HOW_MUCH,
        ),
    }


def dry_run_param() -> dict[str, Param]:
    """Return the switch that turns a run into a preview."""
    return {
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description_md="Read a sample and report what each rule would do. Writes nothing.",
            section=_HOW_MUCH,
        ),
    }


def purpose_param() -> dict[str, Param]:
    """Return the field for the reason, which the audit keeps."""
    return {
        "reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description_md="Kept in the audit beside your name. No identifiers of patients.",
            maxLength=500,
            format="multiline",
            section=_WHY,
        ),
    }
