"""Archives of objects that share most elements, and what an engine says of each object with and without segments.

What an object shares with those before it, the engine computes once (`dicom_deid.engine.segments`). Here everything
that could give the shared elements another meaning is drawn anew for some objects: the character set, private
creators, the patient and the study, the nesting, the order, other elements, single bytes. Any difference is a result of
one object that was used for another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tests.fuzz.mutate import mutate
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element

from dicom_deid.engine import Deidentifier, NeedMoreDataError, PatientTermIndex, Settings
from dicom_deid.engine.analysis import SourceRange
from dicom_deid.engine.profiles import Option, profile_settings, recipe_names
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.recipe import Recipe

PLAIN = Settings(pixel_risk="allow", documents="allow", faces="allow", residuals="report")
_OFFSET = "FORMAT dicom\n%header\nJITTER endswith:Date var:patient_offset\nBLANK PatientName\n"
# What is kept, and which fields the list holds, depends on the elements that are there.
_LISTS = """FORMAT dicom
%fields days
FIELD endswith:Date
%header
KEEP StudyDate
JITTER fields:days var:patient_offset
REPLACE PatientID func:generate_value
REMOVE contains:Physician
REMOVE endswith:Time
BLANK contains:Description
"""
# Some elements of an item have several steps, and one waits for a pseudonym.
_STEPS = """FORMAT dicom
%header
REPLACE PatientID func:generate_value
REPLACE contains:RequestAttributesSequence__.*ID func:generate_value
REPLACE contains:RequestAttributesSequence__.*ID deid_func:jitter
"""
_CONTENT = [Option.CLEAN_STRUCTURED_CONTENT]
ENGINES: dict[str, Callable[[], Deidentifier]] = {
    "desktop": lambda: Deidentifier(Recipe.named("desktop"), PLAIN),
    "desktop-safe": lambda: Deidentifier(
        Recipe.named("desktop"), PLAIN.replace(private_elements="safe", residuals="redact-token")
    ),
    "basic": lambda: Deidentifier(Recipe.named("ps3.15-basic"), profile_settings(settings=PLAIN)),
    "offset": lambda: Deidentifier(
        Recipe.parse(_OFFSET, "offset"), PLAIN.replace(residuals="quarantine", private_elements="keep")
    ),
    "content": lambda: Deidentifier(Recipe.resolve(*recipe_names(_CONTENT)), profile_settings(_CONTENT, PLAIN)),
    "lists": lambda: Deidentifier(Recipe.parse(_LISTS, "lists"), PLAIN.replace(residuals="remove-element")),
    "steps": lambda: Deidentifier(Recipe.parse(_STEPS, "steps"), PLAIN),
    "vocabulary": lambda: Deidentifier(Recipe.named("desktop"), PLAIN.replace(free_text="vocabulary")),
    "issuer": lambda: Deidentifier(
        Recipe.named("desktop"),
        PLAIN.replace(free_text="known-originals", residuals="quarantine", private_elements="keep"),
        patient_key="id-and-issuer",
    ),
    "parity": lambda: Deidentifier(Recipe.named("desktop"), Settings.parity()),
    # Objects whose pixels have to be searched are analysed twice.
    "deferred": lambda: Deidentifier(Recipe.named("desktop"), PLAIN.replace(pixel_risk="ocr")),
}


def pseudonyms(identifiers: Collection[Identifier]) -> dict[Identifier, str]:
    """Return a pseudonym for each identifier, which another identifier seldom has."""
    forms = {IdentifierKind.UID: "2.25.{}", IdentifierKind.DATE_OFFSET: "-{}"}
    return {
        one: forms.get(one.kind, "P{}").format(sum(map(ord, one.value)) % 1000 + len(one.value) + 1)
        for one in identifiers
    }


class Observer:
    """Says all that an engine says of the objects of an archive, in their order.

    Parameters
    ----------
    deidentifier
        The engine.
    """

    def __init__(self, deidentifier: Deidentifier) -> None:
        self.deidentifier = deidentifier
        self._terms = PatientTermIndex()

    def outcome(self, data: bytes, given: int | None = None) -> tuple[Any, ...]:
        """Return all that the engine says of an object, or why it is held.

        Parameters
        ----------
        data
            The object.
        given
            How many bytes of it are analysed first; all by default.
        """
        try:
            return self._outcome(data, given)
        except Quarantine as held:
            return held.reason, held.where, held.offset
        except NeedMoreDataError as needed:
            return (needed.at_least,)

    def _outcome(self, data: bytes, given: int | None) -> tuple[Any, ...]:
        engine = self.deidentifier
        analysis = engine.analyse(data if given is None else data[:given], size=len(data), defer_search=True)
        deferred = analysis.walk.search_deferred
        removed = analysis.removed
        said = (
            *(analysis.patient, analysis.number("Rows"), deferred, set(analysis.identifiers)),
            None if removed is None else (removed.terms, removed.patient_terms, removed.uids),
            analysis.walk.unknown_words,
        )
        if deferred:
            return said
        if analysis.pixel_data is not None and analysis.pixel_data[1] not in (None, len(data)) and given is not None:
            engine.analyse_tail(analysis, data[analysis.pixel_data[1] :])
        if removed is not None:
            more = self._terms.add_and_get(analysis.patient, removed.patient_terms)
            if more:
                analysis = engine.search_patient_terms(analysis, more)
        result = engine.rewrite(analysis, pseudonyms(analysis.identifiers))
        written = b"".join(part for part in result.parts if not isinstance(part, SourceRange))
        unread = [part for part in result.parts if isinstance(part, SourceRange)]
        return (*said, written, unread, dict(result.identifiers), result.rules, result.actions, result.notes)


def differences(name: str, archive: Sequence[tuple[bytes, int | None]]) -> tuple[list[int], int]:
    """Return the indices of the objects of which an engine says another thing with segments, and the size of these."""
    learning, plain = ENGINES[name](), ENGINES[name]()
    learner, plain.segments = learning.segments, None
    with_segments, without = Observer(learning), Observer(plain)
    found = [index for index, one in enumerate(archive) if with_segments.outcome(*one) != without.outcome(*one)]
    return found, 0 if learner is None else learner.size


# Archives


def draw_archive(rng: random.Random) -> list[tuple[bytes, int | None]]:
    """Return objects of one or two series in turns, of which some deviate, and how much of each is given first."""
    encodings = [Encoding(*rng.choice(_FORMS), group_lengths=rng.random() < 0.1) for _ in range(2)]
    kinds = rng.choices(("ct", "mr", "sr"), k=rng.choice((1, 1, 2)))
    seeds = [rng.randrange(4) for _ in kinds]
    count = rng.randint(6, 10)
    shared = rng.choice(([], [element(keyword, "M\xfcller^\xc4\xe1") for keyword in _NAMES], _BESIDE_CHINESE))
    archive: list[tuple[bytes, int | None]] = []
    for of_kinds in zip(*(datasets.series(*one, count) for one in zip(kinds, seeds, strict=True)), strict=True):
        for kind, original in zip(kinds, of_kinds, strict=True):
            elements = [e for e in original if e.tag != _PIXEL_DATA or rng.random() < 0.05]
            elements = _with(elements, *shared)
            for change in rng.choices(_CHANGES, k=rng.choice((0, 0, 1, 1, 2, 3))):
                elements = change(rng, elements, kind)
            data = _encoded(rng, elements, encodings[rng.random() < 0.1])
            if rng.random() < 0.1:
                data = mutate(rng, [data])
            archive.append((data, rng.randrange(200, len(data)) if rng.random() < 0.05 else None))
    return archive


_PIXEL_DATA = 0x7FE00010
_NAMES = ("PatientName", "ReferringPhysicianName", "InstitutionName", "RequestingPhysician")
_BESIDE_CHINESE = [
    element("SpecificCharacterSet", "GB18030"),
    element("PatientName", "Doe^Annika"),
    element("ImageComments", "\xbb\xbc\xd5\xdfAnnika\xc0\xb4\xd4\xba"),
]
_FORMS = [(one.transfer_syntax, one.sequences, one.items) for one in datasets.all_encodings()]


def _encoded(rng: random.Random, elements: list[Element], encoding: Encoding) -> bytes:
    data = datasets.part10(elements, encoding, complete=False)
    if rng.random() > 0.1 or encoding.transfer_syntax == datasets.DEFLATED_LE or not elements:
        return data
    # Elements of the same tag, or that are not in the order of their tags.
    start = len(data) - len(datasets.encode(elements, encoding))
    moved = sorted(elements, key=lambda one: one.tag)
    for _ in range(rng.randint(1, 3)):
        one = rng.choice(moved)
        if rng.random() < 0.5:
            moved.remove(one)
        moved.insert(rng.randint(0, len(moved)), one)
    alone = Encoding(encoding.transfer_syntax, encoding.sequences, encoding.items)
    return data[:start] + b"".join(datasets.encode([one], alone) for one in moved)


def _with(elements: list[Element], *added: Element) -> list[Element]:
    tags = {one.tag for one in added}
    return [*(one for one in elements if one.tag not in tags), *added]


def _character_set(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    term = rng.choice(["ISO_IR 192", "ISO_IR 126", "ISO_IR 144", "ISO_IR 13", "GB18030", ["", "ISO 2022 IR 87"], ""])
    changed = element("SpecificCharacterSet", term)
    named = rng.choice(["PatientName", "InstitutionName", "ImageComments"])
    return (
        _with(elements, changed, element(named, "\xc4\xe1\xbb M\xfcller"))
        if rng.random() < 0.5
        else _with(elements, changed)
    )


def _character_set_of_item(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    return _in_items(
        rng,
        elements,
        lambda item: _with(item, element("SpecificCharacterSet", rng.choice(["ISO_IR 126", "ISO_IR 192"]))),
    )


def _in_items(
    rng: random.Random, elements: list[Element], change: Callable[[list[Element]], list[Element]]
) -> list[Element]:
    """Change the items of one sequence, at any depth."""
    sequences = [index for index, one in enumerate(elements) if one.vr == "SQ" and one.value]
    if not sequences:
        return elements
    chosen = rng.choice(sequences)
    items = [list(item) for item in elements[chosen].value]
    number = rng.randrange(len(items))
    deeper = rng.random() < 0.4 and any(one.vr == "SQ" and one.value for one in items[number])
    items[number] = _in_items(rng, items[number], change) if deeper else change(items[number])
    return [one._replace(value=items) if index == chosen else one for index, one in enumerate(elements)]


def _private(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Change, move, add or remove a private creator, but not the elements of its block."""
    creators = [one for one in elements if one.tag >> 16 & 1 and 0x10 <= one.tag & 0xFFFF < 0x100]
    name = rng.choice(["GEMS_ACQU_01", "GEMS_PARM_01", "SIEMENS CT VA0  COAD", "SIEMENS CSA HEADER", "X", ""])
    if not creators or rng.random() < 0.4:
        group, block = rng.choice((0x0009, 0x0019, 0x0021, 0x0029, 0x0043)), rng.choice((0x10, 0x11, 0x12))
        added = [Element(group << 16 | block << 8 | n, "DS", f"{n}.5") for n in rng.sample((0x02, 0x23, 0x24, 0x10), 2)]
        creator = Element(group << 16 | block, "LO", name)
        return _with(elements, *added) if rng.random() < 0.3 else _with(elements, creator, *added)
    one = rng.choice(creators)
    changed = [[], [one._replace(value=name)], [one._replace(tag=one.tag ^ 3)]]
    return [*(each for each in elements if each is not one), *rng.choice(changed)]


def _private_of_item(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    return _in_items(rng, elements, lambda item: _private(rng, item, kind))


def _patient(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Take the patient of another seed, or leave the patient nameless; the other elements are the same."""
    other = {one.tag: one for one in datasets.KINDS[kind](rng.randrange(8))}
    chosen = rng.sample((*_PATIENT, *_STUDY), rng.randint(1, 4))
    return [
        one if one.tag not in chosen else rng.choice((other.get(one.tag, one), one._replace(value="")))
        for one in elements
    ]


_PATIENT = (0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00101000)
_STUDY = (0x00080020, 0x00080050, 0x0020000D, 0x0020000E, 0x00200010, 0x00080080, 0x00081010, 0x00080018)


def _device(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Name the device as the station, which is no residual then."""
    stations = [one.value for one in elements if one.tag == 0x00081010]
    return _with(elements, element("ManufacturerModelName", stations[0] if stations else "M"))


def _said(elements: list[Element]) -> list[str]:
    """Return the identifiers of an object."""
    return [str(one.value) for one in elements if one.tag in (*_PATIENT, *_STUDY) and one.value]


def _text(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Write an identifier of the object, or of another one, into a text."""
    source = elements if rng.random() < 0.6 else datasets.KINDS[kind](rng.randrange(4))
    said = rng.choice(_said(source) or ["x"])
    text = rng.choice((said, f"Seen {said}.", said[:8], said.replace("^", " ").upper(), f"x{said}x"))
    keyword = rng.choice(
        ("ImageComments", "StudyDescription", "ProtocolName", "SeriesDescription", "ConvolutionKernel")
    )
    if rng.random() < 0.3:
        return _in_items(rng, elements, lambda item: _with(item, element("CodeMeaning", text)))
    return _with(elements, element(keyword, text))


def _value(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Empty, remove or change an element, or give it another VR."""
    if not elements:
        return elements
    index = rng.randrange(len(elements))
    one = elements[index]
    choices: list[list[Element]] = [[], [one._replace(value=[] if one.vr == "SQ" else b"")]]
    if isinstance(one.value, str):
        choices += [
            [one._replace(value=rng.choice(("x", "20240102", "1.2.840.10008.1.2")))],
            [one._replace(vr="UN", value=one.value.encode("latin-1", "replace"))],
        ]
    return [*elements[:index], *rng.choice(choices), *elements[index + 1 :]]


def _value_of_item(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    return _in_items(rng, elements, lambda item: _value(rng, item, kind))


def _nesting(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Put what the object shares with others one level deeper, into another sequence, or twice into the same."""
    sequences = [one for one in elements if one.vr == "SQ" and one.value]
    if not sequences:
        return elements
    one, other = rng.choice(sequences), rng.choice(sequences)
    first = list(one.value[0])
    changed = rng.choice(
        (
            element("SourceImageSequence", [first]),
            other._replace(value=one.value),
            one._replace(value=[*one.value, *one.value]),
            element("RequestAttributesSequence", [[*_with(first, element("RequestAttributesSequence", [first]))]]),
            element("SourceImageSequence", [elements]),
        )
    )
    return _with(elements, changed)


def _signature(rng: random.Random, elements: list[Element], kind: str) -> list[Element]:
    """Add elements that make the rules look at the whole object."""
    return _with(
        elements,
        rng.choice(
            (
                element("ReferencedContentItemIdentifier", [1, 1]),
                Element(0xFFFAFFFA, "SQ", [[Element(0x04000100, "UI", "1.2.3.4")]]),
                Element(0xFFFCFFFC, "OB", bytes(8)),
                Element(0x60003000, "OW", bytes(8)),
                element("SOPClassUID", datasets.SECONDARY_CAPTURE),
                Element(0x00080000, "UL", rng.randrange(400)),
            )
        ),
    )


_CHANGES = (
    *(_character_set, _character_set_of_item, _private, _private_of_item, _patient, _patient, _device, _text, _text),
    *(_value, _value_of_item, _nesting, _signature),
)
