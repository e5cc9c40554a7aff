"""Preview one or two recipes on a sample of source objects; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore, S3Connection, open_object_store
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.pipeline.fetch import excluding_criterion
from dicom_deid.pipeline.preview import ObjectPreview, SampleSummary, preview_object
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.recipe import Recipe
from dicom_deid.recipe.selection import NO_SELECTION, Selection

_READ_PER_WANTED = 50
_SHOWN_DIFFERENCES = 100


def preview_sample(
    configuration: RunConfiguration,
    connection: S3Connection | None,
    *,
    wanted: int,
    other: RunConfiguration | None = None,
    listing: Iterable[SourceObject] | None = None,
) -> dict[str, Any]:
    """Return what the rules would do to a sample: tags, rules and counts, never a value.

    Parameters
    ----------
    configuration
        Source, recipe and settings.
    connection
        Connection of the source.
    wanted
        Number of objects of each modality.
    other
        Recipe and settings to compare with.
    listing
        The objects to choose from; None for all objects of the source.

    Raises
    ------
    ConfigurationError
        A recipe has problems, or the source cannot be read.
    ObjectStoreError
        The source is unavailable.
    """
    source = open_object_store(configuration.source, connection)
    source.check()
    one = make_deidentifier(configuration)
    second = make_deidentifier(other) if other else None
    summary = sample_summary(
        source,
        one,
        second,
        wanted=wanted,
        limit=configuration.limit,
        selection=configuration.selection,
        listing=listing,
    )
    return _report(summary, one.recipe)


def sample_summary(
    source: ObjectStore,
    one: Deidentifier,
    other: Deidentifier | None,
    *,
    wanted: int,
    limit: int | None = None,
    selection: Selection = NO_SELECTION,
    listing: Iterable[SourceObject] | None = None,
) -> SampleSummary:
    """Preview some objects of each modality.

    Parameters
    ----------
    source
        The objects.
    one, other
        The engine, and one to compare it with.
    wanted
        Number of objects of each modality. At most 50 times as many are read.
    limit
        Number of objects that are read at most.
    selection
        Criteria of the objects.
    listing
        The objects to choose from; None for all objects of the source.
    """
    summary = SampleSummary()
    most = min(limit or wanted * _READ_PER_WANTED, wanted * _READ_PER_WANTED)
    objects = islice(source.list() if listing is None else listing, most)
    chosen = (listed for listed in objects if not _is_excluded(selection, source, listed))
    for first, second in _previews(source, one, other, chosen):
        if summary.objects[first.modality] < wanted:
            summary.add(first, second)
    return summary


def describe_sample(report: Mapping[str, Any], *, comparing: bool = False) -> Iterator[str]:
    """Yield the report of `preview_sample` as lines of text."""
    yield f"Sample: {', '.join(f'{count} {modality}' for modality, count in report['objects'].items()) or 'empty'}"
    for rule in report["rules"]:
        yield f"{rule['elements']:6d} elements  {rule['source']}:{rule['line']}  {rule['rule']}"
    for reason, count in report["quarantined"].items():
        yield f"{count:6d} objects would be quarantined: {reason}"
    if comparing and not report["differences"]:
        yield "Both recipes treat the sample alike."
    for each in report["differences"]:
        yield f"{each['objects']:6d} objects  {each['tag']} {each['name']}: {each['one']} or {each['other']}"


def _is_excluded(selection: Selection, source: ObjectStore, listed: SourceObject) -> bool:
    if not selection:
        return False
    try:
        criterion = excluding_criterion(
            selection, source, listed.key, size=listed.size, etag=listed.etag, version_id=listed.version_id
        )
    except Quarantine:
        # The preview says what is wrong with the object.
        return False
    return bool(criterion)


def _previews(
    source: ObjectStore, one: Deidentifier, other: Deidentifier | None, listing: Iterable[SourceObject]
) -> Iterator[tuple[ObjectPreview, ObjectPreview | None]]:
    for listed in listing:
        # Shared, so that only the rules make a difference.
        pseudonyms = PreviewPseudonyms()
        both = [
            preview_object(each, source, listed.key, size=listed.size, etag=listed.etag, pseudonyms=pseudonyms)
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
