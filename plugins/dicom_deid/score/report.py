"""The score as a table."""

from __future__ import annotations

from collections.abc import Mapping

from dicom_deid.score.expectations import HEADER_CATEGORIES, Category
from dicom_deid.score.official import percent
from dicom_deid.score.scorer import Score


def markdown(scores: Mapping[str, Score]) -> str:
    """Return a table with one row per category and one column per program or recipe, in percent of what passed."""
    names = list(scores)
    rows = [("category", "statements", *names)]
    for category in Category:
        tallies = [score.tallies[category] for score in scores.values()]
        statements = max(tally.passed + tally.failed for tally in tallies)
        if statements:
            rows.append(
                (category.value, f"{statements:,}", *(_percent(tally.percent, tally.failed) for tally in tallies))
            )
    rows.append(("all header categories", "", *(f"{s.percent(HEADER_CATEGORIES):.2f}" for s in scores.values())))
    if any(score.official for score in scores.values()):
        rows.append(("by the rules of MIDI-B", "", *(f"{percent(s.official):.2f}" for s in scores.values())))
    rows.append(("objects quarantined", "", *(f"{s.quarantined} of {s.objects}" for s in scores.values())))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def failures(score: Score, *, most: int = 5) -> str:
    """Return where statements failed most often, category by category; never a value."""
    lines = []
    for category, tally in score.tallies.items():
        if tally.failures:
            shown = ", ".join(f"{where} ({count})" for where, count in tally.failures.most_common(most))
            lines.append(f"{category.value}: {shown}")
    return "\n".join(lines) + ("\n" if lines else "")


def _percent(percent: float, failed: int) -> str:
    # 99.999 must not be shown as 100.
    return "100" if not failed else f"{min(percent, 99.99):.2f}"
