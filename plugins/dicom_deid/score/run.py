"""Runs the corpus through the engine, or reads what another program made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.score.expectations import Case

SITE_RECIPE = Path(__file__).with_name("site.dicom")
"""Rules that a site adds to the profile for this corpus."""


class CorpusMapping:
    """Pseudonyms for one corpus, in memory: unique, and consistent over all objects."""

    def __init__(self) -> None:
        self._known: dict[Identifier, str] = {}

    def __call__(self, identifiers: Collection[Identifier]) -> dict[Identifier, str]:
        """Return a pseudonym for each original."""
        return {original: self._known.setdefault(original, self._new(original.kind)) for original in identifiers}

    def _new(self, kind: IdentifierKind) -> str:
        number = len(self._known) + 1
        if kind is IdentifierKind.UID:
            return f"2.25.{10**20 + number}"
        return str(-30 - number) if kind is IdentifierKind.DATE_OFFSET else f"{kind.name[:3]}{10**6 + number}"


def run(cases: Sequence[Case], deidentifier: Deidentifier) -> tuple[dict[str, bytes | None], Counter[str]]:
    """De-identify every object of the corpus.

    Returns
    -------
    tuple
        The outcome by the name of the case (None where it was quarantined), and how often each reason was given.
    """
    mapping = CorpusMapping()
    outcomes: dict[str, bytes | None] = {}
    reasons: Counter[str] = Counter()
    for case in cases:
        try:
            outcomes[case.name] = deidentifier.deidentify(case.data, mapping).to_bytes()
        except Quarantine as quarantine:
            outcomes[case.name] = None
            reasons[f"{quarantine.reason.value} ({case.modality})"] += 1
    return outcomes, reasons


def write(cases: Sequence[Case], folder: Path) -> None:
    """Write the corpus to a folder, for another program to de-identify."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (folder / case.name).write_bytes(case.data)


def read(cases: Sequence[Case], folder: Path) -> dict[str, bytes | None]:
    """Read another program's outcomes: files of the same names; one that is missing counts as quarantined."""
    paths = {case.name: folder / case.name for case in cases}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}
