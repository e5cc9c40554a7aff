"""The engine beside its peers, in one run on one core: ``python -m bench.bench_engine [--markdown FILE] [--quick]``.

Prints the time an object for CT, MR, enhanced multi-frame MR, SR and small objects; the cost of the residual search
under each shipped recipe and option; the cost an element from 1,000 to 100,000 elements; the cost of pixel bytes;
memory over 10,000 objects; and `dicom-deid preview --against` of a large dose report. All objects are made from a seed.

The engine remembers what it did to elements that objects repeat. So it is timed with the objects of a series in turns
(what a scanner writes anew differs in each), and with objects of different patients. The peers remember nothing.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from tests.support import datasets

from bench import peers
from bench.measure import Timing, machine, race, table, use_one_core
from dicom_deid.engine import Deidentifier
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.engine.settings import Settings
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.recipe import Recipe

OURS = "this engine"
SEARCH = "this engine, with the residual search"
PROFILE = "this engine, ps3.15-basic"
PROFILE_SEARCH = "this engine, ps3.15-basic, with the residual search"
PATIENTS = "this engine, each object of another patient"
PATIENTS_SEARCH = "this engine, each object of another patient, with the residual search"
_OBJECTS = 24
_PATIENTS = 200
_SMALL_SIDE = 112
_EVENTS = 1_040
_PREVIEW = "from dicom_deid.cli import main; main()"
# Code, meaning, unit and largest value of what a dose report says of each event (PS3.16 TID 10003).
_OF_EVENT = (
    ("122130", "Dose Area Product", "Gy.m2", 1),
    ("113738", "Dose (RP)", "Gy", 1),
    ("112011", "Positioner Primary Angle", "deg", 180),
    ("112012", "Positioner Secondary Angle", "deg", 90),
    ("113733", "KVP", "kV", 125),
    ("113734", "X-Ray Tube Current", "mA", 900),
    ("113736", "Exposure", "uA.s", 90_000),
    ("113750", "Distance Source to Detector", "mm", 1200),
    ("113751", "Table Longitudinal Position", "mm", 1500),
    ("113752", "Table Lateral Position", "mm", 500),
    ("113753", "Table Height Position", "mm", 500),
)


class FixedMapping:
    """Pseudonyms from memory, as a worker holds them once the database has answered."""

    def __init__(self) -> None:
        self._known: dict[Identifier, str] = {}

    def __call__(self, identifiers: Collection[Identifier]) -> dict[Identifier, str]:
        """Return a pseudonym for each original."""
        known = self._known
        return {original: known.get(original) or self._draw(original) for original in identifiers}

    def _draw(self, original: Identifier) -> str:
        number = len(self._known) + 1_000_000
        forms = {IdentifierKind.UID: f"2.25.{number}", IdentifierKind.DATE_OFFSET: "-31"}
        return self._known.setdefault(original, forms.get(original.kind, f"PAT{number}"))


def engine(objects: Sequence[bytes], recipe: Recipe, settings: Settings) -> Callable[[], bytes]:
    """Return the whole processing of the next object: analyse, resolve, rewrite, join."""
    deidentifier = Deidentifier(recipe, settings)
    mapping = FixedMapping()
    following = itertools.cycle(objects)

    def call() -> bytes:
        analysis = deidentifier.analyse(next(following))
        return deidentifier.rewrite(analysis, mapping(analysis.identifiers)).to_bytes()

    return call


def series(kind: str) -> list[bytes]:
    """Return the objects of one series."""
    return [datasets.part10(_small(one) if kind == "small" else one) for one in _elements(kind)]


def _elements(kind: str) -> Iterator[list[datasets.Element]]:
    return datasets.series("ct" if kind == "small" else kind, 1, _OBJECTS)


def patients(kind: str) -> list[bytes]:
    """Return objects of different patients."""
    make = datasets.KINDS["ct" if kind == "small" else kind]
    drawn = (make(seed) for seed in range(2, _PATIENTS + 2))
    return [datasets.part10(_small(one) if kind == "small" else one) for one in drawn]


def _small(elements: list[datasets.Element]) -> list[datasets.Element]:
    """Return a CT slice of about 30 KB."""
    size = {"Rows": _SMALL_SIDE, "Columns": _SMALL_SIDE, "PixelData": bytes(2 * _SMALL_SIDE**2)}
    changed = {datasets.element(keyword, value).tag: value for keyword, value in size.items()}
    return [one._replace(value=changed.get(one.tag, one.value)) for one in elements]


def own_contenders(kind: str, objects: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    """Return the engine with the desktop recipe and with the basic profile, without and with the residual search."""
    of_patients = patients(kind)
    plain = Settings(residuals="off", pixel_risk="allow", documents="allow")
    search = plain.replace(residuals="report")
    desktop, basic = Recipe.named("desktop"), Recipe.named("ps3.15-basic")
    return {
        OURS: engine(objects, desktop, plain),
        SEARCH: engine(objects, desktop, search),
        PROFILE: engine(objects, basic, profile_settings(settings=plain)),
        PROFILE_SEARCH: engine(objects, basic, profile_settings(settings=search)),
        PATIENTS: engine(of_patients, desktop, plain),
        PATIENTS_SEARCH: engine(of_patients, desktop, search),
    }


def residual_search(objects: Sequence[bytes], *, rounds: int) -> str:
    """Return the cost of the residual search under each shipped recipe and option, for the objects of a series."""
    rows = []
    plain = Settings(residuals="off", pixel_risk="allow", documents="allow")
    shipped: dict[str, tuple[Recipe, Settings]] = {"desktop": (Recipe.named("desktop"), plain)}
    for options in ((), *((option,) for option in Option)):
        name = " + ".join(recipe_names(options))
        shipped[name] = Recipe.resolve(*recipe_names(options)), profile_settings(options, plain)
    for name, (recipe, settings) in shipped.items():
        timings = race(
            {
                "without": engine(objects, recipe, settings.replace(residuals="off", pixel_risk="allow")),
                "with": engine(objects, recipe, settings.replace(residuals="report", pixel_risk="allow")),
            },
            rounds=rounds,
        )
        more = timings["with"].median - timings["without"].median
        rows.append((name, timings["without"].milliseconds, timings["with"].milliseconds, f"{more * 1e3:+.3f}"))
    head = ("recipe", "ms without", "ms with", "difference")
    return f"### Residual search, CT of one series\n\n{table(head, rows)}\n"


def speed(kind: str, *, rounds: int) -> str:
    """Return the table of one kind of object."""
    objects = series(kind)
    data = objects[0]
    own = own_contenders(kind, objects)
    timings = race(own | {name: make(data) for name, make in peers.PEERS.items()}, rounds=rounds)
    for name, measure in (("gdcmanon", peers.gdcmanon_seconds), ("dicom-dre", peers.dicom_dre_seconds)):
        seconds = measure(data)
        if seconds is not None:
            timings[name] = Timing(seconds, seconds)
    ours = timings[OURS].median
    rows = [
        (
            peers.LABELS.get(name, name),
            "" if name in own else peers.peer_version(name),
            timing.milliseconds,
            f"{timing.least * 1e3:.3f}",
            f"{timing.median / ours:.2f}" if timing.median < 3 * ours else f"{timing.median / ours:.0f}",
        )
        for name, timing in timings.items()
    ]
    head = ("", "version", "ms an object", "least", "times ours")
    return f"### {kind}, {len(data):,} bytes\n\n{table(head, rows)}\n"


def linearity(sizes: Sequence[int], *, rounds: int) -> str:
    """Return the cost per element for objects whose elements are in nested items."""
    rows = []
    for size in sizes:
        elements = datasets.nested_elements(1, size)
        count = datasets.count_elements(elements)
        data = datasets.part10(elements)
        timing = race({OURS: engine([data], Recipe.named("desktop"), Settings(residuals="off"))}, rounds=rounds)[OURS]
        rows.append((f"{count:,}", timing.milliseconds, f"{timing.median / count * 1e6:.3f}"))
    return "### Cost an element\n\n" + table(("elements", "ms an object", "µs an element"), rows) + "\n"


def pixel_cost(*, rounds: int) -> str:
    """Return the cost of the same header with more and more pixels, beside one copy of the bytes."""
    rows = []
    for side in (16, 512, 2048):
        data = datasets.ct(1, rows=side, columns=side)
        view = memoryview(data)
        deidentifier = Deidentifier(Recipe.named("desktop"), Settings(residuals="off"))
        mapping = FixedMapping()

        def parts(
            deidentifier: Deidentifier = deidentifier, mapping: FixedMapping = mapping, data: bytes = data
        ) -> object:
            analysis = deidentifier.analyse(data)
            return deidentifier.rewrite(analysis, mapping(analysis.identifiers)).parts

        timings = race(
            {
                "parts": parts,
                "joined": engine([data], Recipe.named("desktop"), Settings(residuals="off")),
                "copy": lambda view=view: bytearray(view),
            },
            rounds=rounds,
        )
        rows.append((f"{len(data):,}", *(timings[name].milliseconds for name in ("parts", "joined", "copy"))))
    head = ("bytes", "ms, parts not joined", "ms, joined", "ms, memcpy alone")
    return "### Cost of pixels\n\n" + table(head, rows) + "\n"


def resident_megabytes() -> float:
    """Return the resident memory of this process in MB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


def memory(objects: int) -> str:
    """Return resident memory while many objects, all with identifiers of their own, pass through one engine."""
    deidentifier = Deidentifier(Recipe.named("desktop"), Settings(residuals="off"))
    rng = random.Random(7)
    rows, began = [], time.perf_counter()
    for n in range(1, objects + 1):
        data = datasets.ct(rng.randrange(2**40), rows=32, columns=32)
        analysis = deidentifier.analyse(data)
        deidentifier.rewrite(analysis, FixedMapping()(analysis.identifiers)).to_bytes()
        if n in (objects // 100, objects // 10, objects // 2, objects):
            rows.append((f"{n:,}", f"{resident_megabytes():.1f}"))
    seconds = time.perf_counter() - began
    return (
        f"### Memory ({seconds:.0f} s, most of it to make the objects)\n\n{table(('objects', 'resident MB'), rows)}\n"
    )


def dose_report() -> list[datasets.Element]:
    """Return an X-Ray radiation dose report of a long intervention."""
    rng = random.Random(3)

    def number(concept: str, meaning: str, unit: str, most: float) -> list[datasets.Element]:
        units = datasets.element("MeasurementUnitsCodeSequence", [datasets.code(unit, "UCUM", unit)])
        measured = [units, datasets.element("NumericValue", f"{rng.uniform(0, most):.8g}")]
        value = [datasets.element("MeasuredValueSequence", [measured])]
        return datasets.content_item("NUM", datasets.code(concept, "DCM", meaning), value)

    def event(second: int) -> list[datasets.Element]:
        began = datasets.element("DateTime", f"20240213{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}")
        items = [
            datasets.content_item("DATETIME", datasets.code("111526", "DCM", "DateTime Started"), [began]),
            datasets.content_item(
                "UIDREF",
                datasets.code("113769", "DCM", "Irradiation Event UID"),
                [datasets.element("UID", datasets.uid(rng))],
            ),
            *(number(*each) for each in _OF_EVENT),
        ]
        name = datasets.code("113706", "DCM", "Irradiation Event X-Ray Data")
        return datasets.content_item("CONTAINER", name, [datasets.element("ContinuityOfContent", "SEPARATE")], items)

    tree = datasets.element("ContentSequence", [event(28_000 + 10 * number) for number in range(_EVENTS)])
    return [tree if one.tag == tree.tag else one for one in datasets.sr_elements(1)]


def preview(*, rounds: int) -> str:
    """Return the time of `dicom-deid preview --against` for a dose report, beside a peer that does less."""
    elements = dose_report()
    rows = [("start alone: preview, option --help", "", _seconds_of_command(["--help"], rounds=rounds))]
    for lengths in ("defined", "undefined"):
        data = datasets.part10(elements, datasets.Encoding(sequences=lengths, items=lengths))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report"
            path.write_bytes(data)
            arguments = [str(path), "--recipe", "desktop", "--against", "ps3.15-basic"]
            seconds = _seconds_of_command(arguments, rounds=rounds)
        rows.append((f"preview, option --against, lengths {lengths}", f"{len(data):,}", seconds))
    began = time.process_time()
    peers.pydicom_round_trip(data)()
    rows.append(("pydicom, read and write, without its start", f"{len(data):,}", f"{time.process_time() - began:.2f}"))
    count = f"{datasets.count_elements(elements):,} elements"
    return f"### Preview of a dose report, {count}\n\n{table(('', 'bytes', 's'), rows)}\n"


def _seconds_of_command(arguments: Sequence[str], *, rounds: int) -> str:
    """Return the median of the processor time of `dicom-deid preview`, with the start of the process."""
    seconds = []
    for _ in range(rounds):
        before = os.times()
        subprocess.run([sys.executable, "-c", _PREVIEW, "preview", *arguments], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return f"{statistics.median(seconds):.2f}"


def main() -> None:
    """Run all and print; with ``--markdown`` also write the tables to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--quick", action="store_true", help="fewer samples, CT only, 1,000 objects")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    peers.quiet()
    use_one_core()
    rounds = 3 if options.quick else 7
    kinds = ["ct"] if options.quick else [*datasets.KINDS, "small"]
    sections = [f"{machine()}. Processor time, medians of {rounds} samples taken in turns.\n"]
    print(sections[0])

    def add(section: str) -> None:
        print(section, flush=True)
        sections.append(section)

    for kind in kinds:
        add(speed(kind, rounds=rounds))
    add(residual_search(series("ct"), rounds=rounds))
    add(linearity((1_000, 10_000, 100_000), rounds=min(rounds, 5)))
    add(pixel_cost(rounds=rounds))
    add(memory(1_000 if options.quick else 10_000))
    add(preview(rounds=rounds))
    if options.markdown:
        options.markdown.write_text("\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
