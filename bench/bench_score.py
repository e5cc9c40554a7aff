"""The score of recipes beside peers: ``python -m bench.bench_score [--patients N] [--ocr] [--markdown FILE]``.

Peers run as their users run them: deid with the desktop recipe, the others with their own profiles. What a peer cannot
read it leaves out, which counts as quarantined.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from bench import peers
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.recipe import Recipe
from dicom_deid.score.corpus import generate
from dicom_deid.score.expectations import Case
from dicom_deid.score.report import markdown
from dicom_deid.score.run import SITE_RECIPE, run
from dicom_deid.score.scorer import Score, score

OPTIONS = (
    Option.RETAIN_SAFE_PRIVATE,
    Option.RETAIN_PATIENT_CHARACTERISTICS,
    Option.RETAIN_LONGITUDINAL_MODIFIED_DATES,
    Option.CLEAN_DESCRIPTORS,
    Option.CLEAN_STRUCTURED_CONTENT,
    Option.CLEAN_GRAPHICS,
)


def engines(ocr: bool) -> dict[str, Deidentifier]:
    """Return the engines: the desktop recipe without and with residual search, the profile without and with options."""
    sweep = Settings(residuals="redact-token")
    alone = Settings(residuals="off", pixel_risk="allow", documents="allow")
    options = (*OPTIONS, Option.CLEAN_PIXEL_DATA) if ocr else OPTIONS
    return {
        "desktop, rules alone": Deidentifier(Recipe.named("desktop"), alone),
        "desktop": Deidentifier(Recipe.named("desktop"), sweep),
        "ps3.15-basic": Deidentifier(Recipe.resolve(*recipe_names()), profile_settings((), sweep)),
        "ps3.15-basic, options": Deidentifier(
            Recipe.resolve(*recipe_names(options), SITE_RECIPE), profile_settings(options, sweep)
        ),
    }


def by_peer(name: str, cases: Sequence[Case]) -> dict[str, bytes | None]:
    """Return what one peer makes of the corpus; one state for all objects, as its users have it."""
    make = peers.collection(name)
    outcomes: dict[str, bytes | None] = {}
    for case in cases:
        try:
            outcomes[case.name] = make(case.data)
        except Exception:
            outcomes[case.name] = None
    return outcomes


def main() -> None:
    """Score all and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ocr", action="store_true", help="clean pixels by OCR (needs the extra ocr)")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    peers.quiet()
    cases = generate(options.seed, patients=options.patients)
    scores: dict[str, Score] = {}
    for name, deidentifier in engines(options.ocr).items():
        scores[name] = score(cases, run(cases, deidentifier)[0])
    for name in ("deid", "dicom-anonymizer", "dicognito", "dcmanon"):
        scores[f"{name} {peers.peer_version(name)}"] = score(cases, by_peer(name, cases))
    table = markdown(scores)
    print(table)
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
