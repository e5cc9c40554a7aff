"""A sample of the source under one recipe or two: read, rewritten in memory, and thrown away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from dicom_deid.engine import Deidentifier
    from dicom_deid.objects import SourceObject
    from dicom_deid.objectstore import ObjectStore, S3Connection
    from dicom_deid.pipeline import ObjectPreview, RunConfiguration, SampleSummary
    from dicom_deid.recipe import Recipe

_READ_FOR_EACH_WANTED = 50
_SHOWN_DIFFERENCES = 100


def preview(
    log: Logger,
    configuration: RunConfiguration,
    connection: S3Connection | None,
    *,
    wanted: int,
    other: RunConfiguration | None = None,
) -> dict[str, Any]:
    """Go through a sample, log what the rules would do, and return it.

    Parameters
    ----------
    log
        Where to tell.
    configuration
        Source, recipe and settings.
    connection
        How to reach the source.
    wanted
        Objects of each modality.
    other
        Recipe and settings to compare with.

    Raises
    ------
    ConfigurationError
        A recipe has problems, or the source cannot be read.
    ObjectStoreError
        The source is away.
    """
    from dicom_deid.objectstore import open_object_store
    from dicom_deid.pipeline.engine import make_deidentifier

    source = open_object_store(configuration.source, connection)
    source.check()
    one = make_deidentifier(configuration)
    second = make_deidentifier(other) if other else None
    summary = sample_summary(source, one, second, wanted=wanted, limit=configuration.limit)
    report = _report(summary, one.recipe)
    _tell(log, report, comparing=other is not None)
    return report


def sample_summary(
    source: ObjectStore,
    one: Deidentifier,
    other: Deidentifier | None,
    *,
    wanted: int,
    limit: int | None = None,
) -> SampleSummary:
    """Preview some objects of each modality.

    Parameters
    ----------
    source
        Where the objects are.
    one, other
        The engine, and one to compare it with.
    wanted
        Objects of each modality that count. At most 50 times as many are read.
    limit
        At most so many objects are read.
    """
    from dicom_deid.pipeline import SampleSummary

    summary = SampleSummary()
    most = min(limit or wanted * _READ_FOR_EACH_WANTED, wanted * _READ_FOR_EACH_WANTED)
    for first, second in _previews(source, one, other, islice(source.list(), most)):
        if summary.objects[first.modality] < wanted:
            summary.add(first, second)
    return summary


def _previews(
    source: ObjectStore, one: Deidentifier, other: Deidentifier | None, listing: Iterable[SourceObject]
) -> Iterator[tuple[ObjectPreview, ObjectPreview | None]]:
    from dicom_deid.pipeline import preview_object
    from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms

    for listed in listing:
        # Shared, so that only rules make a difference.
        placeholders = PreviewPseudonyms()
        both = [
            preview_object(each, source, listed.key, size=listed.size, etag=listed.etag, placeholders=placeholders)
            for each in (one, other)
            if each is not None
        ]
        yield both[0], both[1] if other is not None else None


def _report(summary: SampleSummary, recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "objects": {modality or "unknown": count for modality, count in sorted(summary.objects.items())},
        "rules": [
            {"line": rule.line, "source": rule.source, "rule": str(rule), "elements": summary.rules[index]}
            for index, rule in enumerate(recipe.rules)
        ],
        "actions": dict(sorted(summary.actions.items())),
        "notes": {str(reason): count for reason, count in summary.notes.most_common()},
        "quarantined": {str(reason): count for reason, count in summary.reasons.most_common()},
        "differences": [
            {"tag": each.path, "name": each.name, "one": each.one, "other": each.other, "objects": count}
            for each, count in summary.differences.most_common(_SHOWN_DIFFERENCES)
        ],
    }


def _tell(log: Logger, report: dict[str, Any], *, comparing: bool) -> None:
    log.info("Sample: %s", ", ".join(f"{count} {modality}" for modality, count in report["objects"].items()) or "empty")
    for rule in report["rules"]:
        log.info("%6d elements  %s:%d  %s", rule["elements"], rule["source"], rule["line"], rule["rule"])
    for reason, count in report["quarantined"].items():
        log.warning("%6d objects would be quarantined: %s", count, reason)
    if comparing and not report["differences"]:
        log.info("Both recipes treat the sample alike.")
    for each in report["differences"]:
        log.info("%6d objects  %s %s: %s or %s", each["objects"], each["tag"], each["name"], each["one"], each["other"])
