"""The residual search: recall on planted identifiers, false alarms on public objects, and cost.

``python -m bench.bench_residuals [--objects N] [--seed N] [--markdown FILE]``

Identifiers are drawn at random, one per object; peers see the same objects. Beside the residual search: a
case-insensitive search for the original values in the text that pydicom reads; presidio-analyzer with its pattern
recognisers (those of names need a model that has to be downloaded); dicom-dre's redactor of free text (see
`bench.peers.TextRedactor`); and what deid and dicognito leave of the object. A peer that refuses an object has stopped
it.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydicom import Dataset, dcmread
from tests.support import datasets

from bench import corpora
from bench.bench_engine import FixedMapping
from bench.measure import machine, race, table, use_one_core
from bench.peers import TextRedactor, collection, silence
from bench.planted import ENCODINGS, PLACES, RECIPE, SUBJECTS, WRITINGS, Planting, an_object, clean, planting, saved
from bench.scanners import SCANNERS, ordinary
from dicom_deid.engine import Deidentifier, PatientTermIndex, SearchTerms, Settings
from dicom_deid.engine.descriptors import without_identifiers
from dicom_deid.engine.profiles import profile_settings, recipe_names
from dicom_deid.engine.settings import FreeTextPolicy
from dicom_deid.engine.vocabulary import Vocabulary
from dicom_deid.engine.vocabulary.words import common_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe
from dicom_deid.score.identity import Patient, uid, word

OURS, NAIVE = "residual search", "substrings"
_TOKEN = re.compile(r"[^\W_]+")
_ORIGINALS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "AccessionNumber", "PatientAddress", "PatientTelephoneNumbers"),
    *("ReferringPhysicianName", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "SOPInstanceUID"),
)
_SETTINGS = Settings(private_elements="keep", pixel_risk="allow", documents="allow")


class Contender:
    """The engine under its default policy; an object that it quarantines does not pass."""

    def __init__(self) -> None:
        self._deidentifier = Deidentifier(Recipe.parse(RECIPE, "bench.dicom"), _SETTINGS)
        self._resolve = FixedMapping()

    def finds(self, planted: Planting) -> bool:
        """Tell whether the identifier does not pass."""
        try:
            new = self._deidentifier.deidentify(planted.data, self._resolve).to_bytes()
        except Quarantine as problem:
            if problem.reason is Reason.MISSING_IDENTIFIER:
                raise
            return True
        return not any(form in new for form in planted.forms)

    def finds_residual(self, data: bytes) -> bool:
        """Tell whether an object is held back for a residual."""
        try:
            self._deidentifier.deidentify(data, self._resolve)
        except Quarantine as problem:
            if problem.reason is not Reason.RESIDUAL_FOUND:
                raise
            return True
        return False


def naive_finds(data: bytes, rules_alone: Deidentifier, resolve: FixedMapping) -> bool:
    """Tell whether the text that the rules leave holds an original value; an object that is refused does not pass."""
    try:
        new = dcmread(io.BytesIO(rules_alone.deidentify(data, resolve).to_bytes()))
    except Quarantine:
        return True
    before = dcmread(io.BytesIO(data))
    identifiers: set[str] = set()
    for keyword in _ORIGINALS:
        value = str(before.get(keyword, ""))
        identifiers.update((value, *(value.split("^") if keyword.endswith("Name") else ())))
    text = "\n".join(_texts(new)).lower()
    return any(original.lower() in text for original in identifiers if original)


def _texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR in ("OB", "UN") and element.tag.is_private:
            yield bytes(element.value or b"").decode("iso8859")
        elif element.VR != "SQ":
            yield str(element.value)


class Peers(NamedTuple):
    """The programs that are given the same plantings and texts.

    Parameters
    ----------
    finds
        Tells whether an identifier does not pass, by the name of the peer.
    flags
        Tells whether anything is found in a text.
    redact
        dicom-dre's redactor; None where it is not installed.
    """

    finds: dict[str, Callable[[Planting], bool]]
    flags: dict[str, Callable[[str], bool]]
    redact: TextRedactor | None


def start_peers() -> Peers:
    """Return the peers that are installed."""
    finds: dict[str, Callable[[Planting], bool]] = {}
    flags: dict[str, Callable[[str], bool]] = {}
    analyze, redact = presidio(), TextRedactor.start()
    if analyze is not None:
        name = f"presidio-analyzer {version('presidio-analyzer')}, patterns"
        finds[name] = lambda planted: any(
            hit.start < planted.end and planted.start < hit.end for hit in analyze(planted.text)
        )
        flags[name] = lambda text: bool(analyze(text))
    if redact is not None:
        finds["dicom-dre, redactor"] = lambda planted: (
            planted.text[planted.start : planted.end].lower() not in redact(planted.text).lower()
        )
        flags["dicom-dre, redactor"] = lambda text: redact(text) != text
    for name in ("deid", "dicognito"):
        with suppress(ImportError, PackageNotFoundError):
            finds[f"{name} {version(name)}"] = partial(_leaves_nothing, collection(name))
    return Peers(finds, flags, redact)


def _leaves_nothing(process: Callable[[bytes], bytes], planted: Planting) -> bool:
    """Tell whether an identifier is not in what a peer writes; an object that it cannot process does not pass."""
    try:
        with silence():
            new = process(planted.data)
    except Exception:
        return True
    return not any(form in new for form in planted.forms)


def presidio() -> Callable[[str], list[Any]] | None:
    """Return presidio-analyzer's recognisers of patterns as one call; nothing where it is not installed."""
    try:
        from presidio_analyzer import predefined_recognizers as known
    except ImportError:
        return None
    names = (
        *("CreditCard", "Crypto", "Date", "Iban", "Ip", "MedicalLicense", "Phone", "Url", "UsBank", "UsItin"),
        *("UsLicense", "UsPassport", "UsSsn"),
    )
    recognizers = [getattr(known, f"{name}Recognizer")() for name in names]

    def analyze(text: str) -> list[Any]:
        return [
            found
            for recognizer in recognizers
            for found in recognizer.analyze(text, recognizer.supported_entities, None) or ()
        ]

    return analyze


def sensitivity(
    seed: int, objects: int, peers: Peers, *, is_beyond: bool = False
) -> dict[str, dict[str, Counter[str]]]:
    """Return how many planted identifiers each contender found, by what they were, where and how."""
    rng, engine, resolve = random.Random(seed), Contender(), FixedMapping()
    rules_alone = Deidentifier(Recipe.parse(RECIPE, "bench.dicom"), _SETTINGS.replace(residuals="off"))
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for _ in range(objects):
        planted = planting(rng, is_beyond=is_beyond)
        found = {OURS: engine.finds(planted), NAIVE: naive_finds(planted.data, rules_alone, resolve)}
        found |= {name: finds(planted) for name, finds in peers.finds.items()}
        for axis in ("kind", "place", "encoding", "writing"):
            count = counts[axis][getattr(planted, axis)]
            count["planted"] += 1
            count.update(name for name, is_found in found.items() if is_found)
        counts["all"]["all"].update(["planted", *(name for name, is_found in found.items() if is_found)])
    return counts


def false_positives(seed: int, objects: int, peers: Peers) -> dict[str, Counter[str]]:
    """Return in how many objects each contender found something where nothing was planted, by subject."""
    rng, engine, resolve = random.Random(seed + 1), Contender(), FixedMapping()
    rules_alone = Deidentifier(Recipe.parse(RECIPE, "bench.dicom"), _SETTINGS.replace(residuals="off"))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(objects):
        subject = SUBJECTS[number % len(SUBJECTS)]
        data, text = clean(rng, subject)
        found = {OURS: engine.finds_residual(data), NAIVE: naive_finds(data, rules_alone, resolve)}
        found |= {name: flags(text) for name, flags in peers.flags.items()}
        counts[subject].update(["planted", *(name for name, is_found in found.items() if is_found)])
    return counts


def percent_table(head: str, rows: Iterable[tuple[str, Counter[str]]], names: Iterable[str], count: str) -> str:
    """Return a table of percentages."""
    names = list(names)
    cells = [
        (label, f"{counted['planted']:,}", *(_percent(counted[name], counted["planted"]) for name in names))
        for label, counted in rows
    ]
    return table((head, count, *names), cells) + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}".removesuffix(".0") if whole else "-"


RECIPES = {
    "desktop": (Recipe.named("desktop"), Settings()),
    "ps3.15-basic": (Recipe.resolve(*recipe_names()), profile_settings()),
}


# What is held rightly: these recipes keep the element, and it has a name. Judged by hand, by package and place.
_NAMED = {
    ("heudiconv", "StudyDescription, original value of ReferringPhysicianName"): "the name of the physician",
    ("heudiconv", "StudyDescription, original value of PatientName"): "a part of the phantom's name, `102TD`",
    ("nibabel", "StudyComments, original value of PatientName"): "the first word of the made-up name",
    ("pydicom-data-1.0.0", "StudyDescription, original value of PatientName"): "the whole name, `Modality LUT Test`",
    ("pysuv-0.1.0", "StudyDescription, original value of PatientName"): "the name that its makers planted",
    ("pysuv-0.1.0", "Manufacturer, original value of PatientID"): "the identifier of the digital phantom",
    ("rsna-anonymizer-19.0.10", "StudyDescription, original value of PatientName"): "the name that its makers planted",
    ("rsna-anonymizer-19.0.10", "ProtocolName, original value of PatientName"): "a part of the name, `DRB`",
    ("dicognito-0.19.0", "ResponsiblePerson, original value of PatientBirthName"): "the made-up given name, `MR1`",
}


def public_objects() -> tuple[str, str]:
    """Return how many public objects each recipe holds as `residual-found`, and which of the ordinary ones."""
    rows, held = [], []
    engines = {
        name: Deidentifier(recipe, settings.replace(pixel_risk="allow", documents="allow"))
        for name, (recipe, settings) in RECIPES.items()
    }
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    ordinary = ", ".join(sorted(corpora.ORDINARY))
    for package, path, data in corpora.all_objects():
        kind = ordinary if corpora.modality(data) in corpora.ORDINARY else "others"
        for name, deidentifier in engines.items():
            where = _residual(deidentifier, data)
            named = _NAMED.get((package, where), "")
            counted[name, kind].update(
                ["objects", *(["held"] if where else []), *(["false"] if where and not named else [])]
            )
            held += [(name, f"{package}: {path}", where, named or "a false alarm")] if where else []
    for (name, kind), count in sorted(counted.items()):
        # None in n objects: below 3 / n with a confidence of 95 %.
        bound = f"{300 / count['objects']:.1f}" if not count["false"] else "-"
        cells = (count["objects"], count["held"], count["false"], _percent(count["false"], count["objects"]), bound)
        rows.append((name, kind, *cells))
    head = ("recipe", "modalities", "objects", "residual-found", "false alarms", "percent", "at most, 95 %")
    return (
        table(head, rows) + "\n",
        table(("recipe", "object", "element", "what it has"), held) + "\n",
    )


def generated_objects(objects: int) -> tuple[str, str]:
    """Return how many ordinary objects of several scanners each recipe holds as `residual-found`, and where."""
    engines = {name: Deidentifier(recipe, settings) for name, (recipe, settings) in RECIPES.items()}
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    held: Counter[tuple[str, str]] = Counter()
    for seed in range(objects // 2):
        for modality in SCANNERS:
            scanner, data = ordinary(seed, modality)
            for name, deidentifier in engines.items():
                where = _residual(deidentifier, data)
                counted[name, scanner.manufacturer].update(["objects", *(["held"] if where else [])])
                held.update([(name, where)] if where else [])
    rows = [(*key, count["objects"], count["held"]) for key, count in sorted(counted.items())]
    places = [(*key, count) for key, count in held.most_common()]
    return (
        table(("recipe", "manufacturer", "objects", "residual-found"), rows) + "\n",
        table(("recipe", "element", "objects"), places) + "\n",
    )


def _residual(deidentifier: Deidentifier, data: bytes) -> str:
    """Return where a residual is found in an object; nothing where it is not held for one."""
    try:
        deidentifier.analyse(data)
    except Quarantine as problem:
        return problem.where if problem.reason is Reason.RESIDUAL_FOUND else ""
    return ""


_COMMON_NAMES = sorted(name for name in common_names() if len(name) > 3 and name.isascii())


def _common_name(patient: Patient) -> str:
    """Return a common given name and surname; some of them are also words."""
    rng = random.Random(patient.patient_id)
    return f"{rng.choice(_COMMON_NAMES).title()} {rng.choice(_COMMON_NAMES).title()}"


_UNNAMED: dict[str, Callable[[Patient], str]] = {
    "relative with a common name": lambda other: f"sister {_common_name(other)}",
    "physician with a common name": lambda other: f"Dr. {_common_name(other).split()[1]}",
    "relative": lambda other: f"sister {other.name.replace('^', ' ')}",
    "physician who is named nowhere else": lambda other: f"ref by {other.name.split('^')[0]}",
    "name and initial": lambda other: f"{other.name.split('^')[1][0]}. {other.name.split('^')[0]}",
    "address": lambda other: other.address,
    "telephone": lambda other: other.telephone,
    "record number": lambda other: other.patient_id,
}
"""Texts with identifiers of another patient, which no element of the object holds, by kind."""


def unnamed(seed: int, objects: int, peers: Peers) -> str:
    """Return how many identifiers that no element names are stopped in a description, by the setting `free_text`."""
    rng, resolve = random.Random(seed + 2), FixedMapping()
    settings = Settings(private_elements="keep", pixel_risk="allow", documents="allow")
    policies = get_args(FreeTextPolicy)
    engines = {one: Deidentifier(Recipe.named("desktop"), settings.replace(free_text=one)) for one in policies}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(objects):
        kind = list(_UNNAMED)[number % len(_UNNAMED)]
        written = _UNNAMED[kind](Patient.draw(rng))
        dataset = an_object(Patient.draw(rng), uid(rng), [])
        dataset.SeriesDescription = f"{rng.choice(('knee left', 'CT thorax', 'MR brain'))}, {written}"
        data = saved(dataset)
        secret = [word for word in re.findall(r"[A-Z][a-z]{2,}|\w*\d{4,}", written) if word not in ("Street", "Lane")]
        counts[kind]["planted"] += 1
        for policy, engine in engines.items():
            left = dcmread(io.BytesIO(engine.deidentify(data, resolve).to_bytes())).SeriesDescription
            counts[kind][policy] += not any(word in left for word in secret)
        planted = Planting(kind, "", "", "", data, written, 0, len(written), tuple(word.encode() for word in secret))
        for name, finds in peers.finds.items():
            counts[kind][name] += finds(planted)
    return percent_table("kind", counts.items(), [*policies, *peers.finds], "planted")


_PERSONS = frozenset(("chen", "matthews", "halchenko", "yarik", "winawer"))
"""Names of persons in the descriptions of the public objects, which are to be masked."""
_STUDIES, _SERIES, _LEAST = 2000, 4, 20


def benign_tokens(seed: int, peers: Peers) -> str:
    """Return how many tokens of the descriptions of public objects are masked, that are no person's name.

    *Cold* is the vocabulary as it ships, on each different description once. *Warm* is after a number of studies whose
    series are drawn from these objects, each of another patient, and each with a name of its own in a description; it
    is measured on studies that are drawn after them.
    """
    described = [
        texts
        for _, _, data in corpora.all_objects()
        if (texts := [without_identifiers(text) for text in _descriptions(data)])
    ]
    different = sorted({text for texts in described for text in texts})
    cold = Vocabulary()
    rng, seen = random.Random(seed + 3), defaultdict[str, set[int]](set)
    for patient in range(_STUDIES):
        texts = [text for _ in range(_SERIES) for text in rng.choice(described)]
        texts.append(f"{rng.choice(texts)} {word(rng)}")
        for unknown in frozenset[str]().union(*map(cold.unknown_words, texts)):
            seen[unknown].add(patient)
    warm = Vocabulary(archive={each for each, patients in seen.items() if len(patients) >= _LEAST})
    later = [text for _ in range(_STUDIES // 4 * _SERIES) for text in rng.choice(described)]
    rows = [
        ("cold, different descriptions", *_masked(different, cold.unknown_tokens)),
        ("cold, as often as they occur", *_masked(later, cold.unknown_tokens)),
        (f"after {_STUDIES:,} studies, as often as they occur", *_masked(later, warm.unknown_tokens)),
    ]
    redact = peers.redact
    if redact is not None:
        rows.append(("dicom-dre, redactor, different descriptions", *_masked(different, partial(_redacted, redact))))
    masked = {token for text in different for token in cold.unknown_tokens(text)} - _PERSONS
    listed = ", ".join(sorted(masked))
    return table(("benign tokens", "tokens", "masked", "percent"), rows) + f"\n\nMasked cold: {listed}.\n"


def _masked(texts: Iterable[str], masked: Callable[[str], list[str]]) -> tuple[int, int, str]:
    """Return the number of tokens that are no names of persons, how many of them are masked, and the percentage."""
    tokens = [token for text in texts for token in _TOKEN.findall(text.casefold()) if token not in _PERSONS]
    found = [token for text in texts for token in masked(text) if token not in _PERSONS]
    return len(tokens), len(found), _percent(len(found), len(tokens))


def _redacted(redact: TextRedactor, text: str) -> list[str]:
    """Return the tokens of a text that a redactor does not leave, casefolded."""
    left = Counter(_TOKEN.findall(redact(text).casefold()))
    return list((Counter(_TOKEN.findall(text.casefold())) - left).elements())


def _descriptions(data: bytes) -> Iterator[str]:
    try:
        dataset = dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)
        elements = list(dataset.iterall())
    except Exception:
        return
    for element in elements:
        if element.keyword in ("StudyDescription", "SeriesDescription", "ProtocolName", "CodeMeaning", "ImageComments"):
            yield str(element.value)


def cost(*, rounds: int) -> str:
    """Return the time of one object without the residual search, with it, and with the patient's other objects."""
    rows = []
    for name, (recipe, settings) in RECIPES.items():
        plain = settings.replace(residuals="off", pixel_risk="allow", documents="allow")
        for kind, make in datasets.KINDS.items():
            data = datasets.part10(make(1))
            others = [datasets.part10(make(number)) for number in range(2, 42)]
            timings = race(
                {
                    "without": _call(recipe, [data], plain),
                    "with": _call(recipe, [data], plain.replace(residuals="report")),
                    "patient": _call(recipe, [data], plain.replace(residuals="report"), same=others[0]),
                    "others": _call(recipe, others, plain),
                    "first": _call(recipe, others, plain.replace(residuals="report")),
                },
                rounds=rounds,
            )
            without = timings["without"].median
            more = (timings[one].median - without for one in ("with", "patient"))
            first = timings["first"].median - timings["others"].median
            cells = (f"{seconds * 1e3:+.3f}" for seconds in (*more, first))
            rows.append((name, kind, timings["without"].milliseconds, *cells))
    head = ("recipe", "", "ms without", "with, ms more", "and the patient's other study", "first object of a patient")
    return table(head, rows) + "\n"


def _call(
    recipe: Recipe, objects: Sequence[bytes], settings: Settings, *, same: bytes | None = None
) -> Callable[[], object]:
    """Return the processing of objects in turn; `same` is another object of the patient, which was seen before."""
    deidentifier, mapping, known = Deidentifier(recipe, settings), FixedMapping(), PatientTermIndex()
    if same is not None:
        known.add_and_get("patient", deidentifier.patient_terms(same)[1])
    turn = cycle(objects)

    def call() -> object:
        analysis = deidentifier.analyse(next(turn))
        others: SearchTerms = frozenset()
        if same is not None and analysis.removed is not None:
            others = known.add_and_get("patient", analysis.removed.patient_terms)
        if others:
            analysis = deidentifier.search_patient_terms(analysis, others)
        return deidentifier.rewrite(analysis, mapping(analysis.identifiers)).to_bytes()

    return call


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=4000, help="planted ones, and as many with nothing planted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    use_one_core()
    peers = start_peers()
    names = [OURS, NAIVE, *peers.finds]
    counts = sensitivity(options.seed, options.objects, peers)
    sections = ["Planted identifiers that do not pass, percent:\n"]
    order = {"place": list(PLACES), "encoding": list(ENCODINGS), "writing": list(WRITINGS)}
    for axis in ("all", "kind", "place", "encoding", "writing"):
        found = counts[axis]
        labels = order.get(axis) or sorted(found)
        rows = [(label, found[label]) for label in labels]
        sections.append(percent_table("" if axis == "all" else axis, rows, names, "planted"))
    beyond = sensitivity(options.seed, options.objects // 4, peers, is_beyond=True)["kind"]
    sections.append("What no original is written like, percent:\n")
    sections.append(percent_table("kind", sorted(beyond.items()), names, "planted"))
    counted = false_positives(options.seed, options.objects, peers)
    rows = [(subject, counted[subject]) for subject in SUBJECTS]
    sections.append("Objects with nothing planted in which something is found, percent:\n")
    sections.append(percent_table("text of", rows, [OURS, NAIVE, *peers.flags], "objects"))
    sections.append("Identifiers that no element of the object names, in a description, that do not pass, percent:\n")
    sections += [unnamed(options.seed, options.objects // 4, peers), benign_tokens(options.seed, peers)]
    packages = ", ".join(f"{name} {number}" for name, number in corpora.installed().items())
    figures, held = public_objects()
    sections.append(f"Public objects, from the packages {packages}:\n")
    sections += [figures, "Of these, ordinary objects that are held, and why:\n", held]
    figures, held = generated_objects(options.objects)
    sections += ["Generated ordinary objects, and where something is found:\n", figures, held]
    sections.append(f"Cost of an object. {machine()}. Processor time, medians of 7 samples taken in turns.\n")
    sections.append(cost(rounds=7))
    print("\n".join(sections))
    if options.markdown:
        options.markdown.write_text("\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
