"""Preview one or two recipes on a sample of source objects; nothing is written."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore, S3Connection, open_source
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.pipeline.fetch import excluding_criterion, fetch_root_elements
from dicom_deid.pipeline.preview import ObjectPreview, SampleSummary, names_text, preview_object
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
    source = open_source(configuration.source, connection)
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
    return _report(summary, one.recipe, second.recipe if second else None)


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
        Number of objects of each modality. At most 50 times as many are read, drawn from the whole listing.
    limit
        Number of objects that are read at most.
    selection
        Criteria of the objects.
    listing
        The objects to choose from; None for all objects of the source.
    """
    summary = SampleSummary()
    most = min(limit or wanted * _READ_PER_WANTED, wanted * _READ_PER_WANTED)
    objects = draw_objects(source.list() if listing is None else listing, most)
    chosen = (listed for listed in objects if not _is_excluded(selection, source, listed))
    for first, second in _previews(source, one, other, chosen):
        if summary.objects[first.modality] < wanted:
            summary.add(first, second)
    return summary


def draw_objects(listing: Iterable[SourceObject], count: int) -> list[SourceObject]:
    """Return objects from as many folders as possible, the same ones at each call; few objects of many folders.

    Parameters
    ----------
    listing
        Objects in the order of their keys; read to its end, with at most `count` objects of a folder in memory.
    count
        Number of objects, if there are so many.
    """
    # The same sample for a recipe and its next version.
    generator = random.Random(0)  # noqa: S311 - no secret
    kept: list[tuple[int, float, SourceObject]] = []
    for _, folder in groupby(listing, key=lambda found: found.key.rpartition("/")[0]):
        for rank, found in enumerate(_reservoir(folder, count, generator)):
            # The heap drops the objects that are not among the first of their folders.
            entry = (-rank, generator.random(), found)
            if len(kept) < count:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    return [found for _, _, found in sorted(kept, key=lambda entry: entry[:2], reverse=True)]


def _reservoir(objects: Iterable[SourceObject], count: int, generator: random.Random) -> list[SourceObject]:
    """Return that many objects, each with the same probability, in random order."""
    drawn: list[SourceObject] = []
    for number, found in enumerate(objects):
        place = generator.randrange(number + 1)
        if number < count:
            drawn.append(found)
            drawn[place], drawn[number] = drawn[number], drawn[place]
        elif place < count:
            drawn[place] = found
    return drawn


def describe_sample(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report of `preview_sample` as lines of text."""
    yield f"Sample: {', '.join(f'{count} {modality}' for modality, count in report['objects'].items()) or 'empty'}"
    for rule in report["rules"]:
        yield f"{rule['elements']:6d} elements  {rule['source']}:{rule['line']}  {rule['rule']}"
    yield f"{report['idle_rules']:6d} rules acted on no element"
    for reason, count in report["quarantined"].items():
        yield f"{count:6d} objects would be quarantined: {reason}"
    if report["compared_with"] and not report["differences"]:
        yield "Both recipes treat the sample alike."
    for each in report["differences"]:
        yield f"{each['objects']:6d} objects  {each['elements']}: {each['one']}, or {each['other']}"


def _is_excluded(selection: Selection, source: ObjectStore, listed: SourceObject) -> bool:
    if not selection:
        return False
    try:
        header = fetch_root_elements(
            source, listed.key, selection.tags, size=listed.size, etag=listed.etag, version_id=listed.version_id
        )
    except Quarantine:
        # The preview says what is wrong with the object.
        return False
    return bool(excluding_criterion(selection, header))


def _previews(
    source: ObjectStore, one: Deidentifier, other: Deidentifier | None, listing: Iterable[SourceObject]
) -> Iterator[tuple[ObjectPreview, ObjectPreview | None]]:
    deidentifiers = [one] if other is None else [one, other]
    for listed in listing:
        previews = preview_object(deidentifiers, source, listed.key, size=listed.size, etag=listed.etag)
        yield previews[0], None if other is None else previews[1]


def _report(summary: SampleSummary, recipe: Recipe, other: Recipe | None) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "compared_with": other.name if other else None,
        "objects": {modality or "unknown": count for modality, count in sorted(summary.objects.items())},
        "rules": [
            {"line": rule.line, "source": rule.source, "rule": str(rule), "elements": summary.rules[index]}
            for index, rule in enumerate(recipe.rules)
            if summary.rules[index]
        ],
        "idle_rules": sum(not summary.rules[index] for index in range(len(recipe.rules))),
        "actions": dict(sorted(summary.actions.items())),
        "notes": {str(reason): count for reason, count in summary.notes.most_common()},
        "quarantined": {str(reason): count for reason, count in summary.reasons.most_common()},
        "differences": [
            {
                "elements": names_text(list(summary.names[treatments])),
                "one": str(treatments[0]),
                "other": str(treatments[1]),
                "objects": count,
            }
            for treatments, count in summary.differences.most_common(_SHOWN_DIFFERENCES)
        ],
    }
