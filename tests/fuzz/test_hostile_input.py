"""Hostile input: always an object or a reason, in bounded time and memory, never an exception of another kind.

Catches: a length that is believed, a recursion without end, an index beyond the bytes, memory that a claim of four
gigabytes asks for, a deflate bomb that is inflated, and output that is worse than its input.
"""

from __future__ import annotations

import random
import resource
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.mutate import rearrange
from tests.fuzz.target import ENGINES, OPEN, pydicom_reads, run
from tests.support import datasets
from tests.support.datasets import Element, Encoding, element, part10

from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
HASTY = [HealthCheck.too_slow, HealthCheck.data_too_large]


def seed(encoding: Encoding, kind: str = "ct") -> bytes:
    sizes = {"ct": {"rows": 4, "columns": 4}, "sr": {"findings": 2}}
    return part10(datasets.KINDS[kind](2, **sizes[kind]), encoding)


SEEDS = [seed(encoding, kind) for kind in ("ct", "sr") for encoding in datasets.all_encodings()]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    run(path.read_bytes())


@pytest.mark.parametrize(
    "encoding", [Encoding(), Encoding(datasets.IMPLICIT_LE), Encoding(datasets.EXPLICIT_BE)], ids=str
)
@pytest.mark.parametrize("kind", ["ct", "sr"])
def test_truncated_at_every_offset(kind: str, encoding: Encoding) -> None:
    # Never half an object: what is cut in the middle of an element has a reason.
    data = seed(encoding, kind)
    whole = len(data)
    outcomes = {}
    for end in range(0, whole, 1 if kind == "sr" else 3):
        outcomes[end] = run(data[:end])[0]
    short = [end for end, outcome in outcomes.items() if isinstance(outcome, bytes) and not pydicom_reads(outcome)]
    assert short == []
    reasons = {outcome for outcome in outcomes.values() if isinstance(outcome, Reason)}
    assert reasons <= {
        Reason.EMPTY_OBJECT,
        Reason.NOT_DICOM,
        Reason.TRUNCATED,
        Reason.MALFORMED,
        Reason.MISSING_IDENTIFIER,
        Reason.UNSUPPORTED_TRANSFER_SYNTAX,
    }


@settings(max_examples=400, deadline=None, suppress_health_check=HASTY)
@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    run(data)


@settings(max_examples=300, deadline=None, suppress_health_check=HASTY)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_objects(data: bytes, draw: st.DataObject) -> None:
    """Overwrite, cut out and repeat stretches of a good object."""
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(132, max(132, len(damaged) - 1)))
        kind = draw.draw(st.sampled_from(["overwrite", "length", "cut", "repeat"]))
        count = draw.draw(st.integers(1, 24))
        if kind == "overwrite":
            damaged[at : at + count] = draw.draw(st.binary(min_size=count, max_size=count))
        elif kind == "length":
            damaged[at : at + 4] = struct.pack(
                "<I", draw.draw(st.sampled_from([0, 1, 2, 2**16, 2**31, 2**32 - 1, 2**32 - 2]))
            )
        elif kind == "cut":
            del damaged[at : at + count]
        else:
            damaged[at:at] = damaged[at : at + count * 8]
    run(bytes(damaged))


def test_rearranged_elements() -> None:
    """Catches what goes wrong behind the parser, which damaged bytes seldom pass."""
    rng = random.Random(1)
    outcomes = [outcome for _ in range(300) for outcome in run(rearrange(rng, SEEDS))]
    assert sum(isinstance(outcome, bytes) for outcome in outcomes) > len(outcomes) / 4


@st.composite
def hostile_elements(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Draw encoded elements whose tags, VRs and lengths need not belong together."""
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        tag = draw(
            st.sampled_from(
                [
                    0x00080016,
                    0x00080018,
                    0x00081110,
                    0x00100010,
                    0x00280010,
                    0x00290010,
                    0x00291010,
                    0x7FE00010,
                    0xFFFEE000,
                    0xFFFEE00D,
                    0xFFFEE0DD,
                    0x00020010,
                    0xFFFFFFFF,
                ]
            )
        )
        vr = draw(st.sampled_from([b"SQ", b"UN", b"LO", b"PN", b"OB", b"UI", b"DA", b"US", b"ZZ", b"\0\0"]))
        inner = draw(hostile_elements(depth + 1)) if depth < 3 else b""
        value = draw(st.one_of(st.binary(max_size=8), st.just(inner)))
        length = draw(st.one_of(st.just(len(value)), st.sampled_from([0, 3, 2**32 - 1, 2**31, len(value) + 1])))
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if draw(st.booleans()):
            head += vr + (
                b"\0\0" + struct.pack("<I", length)
                if vr in (b"SQ", b"UN", b"OB")
                else struct.pack("<H", length & 0xFFFF)
            )
        else:
            head += struct.pack("<I", length)
        parts.append(head + value)
    return b"".join(parts)


@settings(max_examples=300, deadline=None, suppress_health_check=HASTY)
@given(hostile_elements(), st.sampled_from([datasets.EXPLICIT_LE, datasets.IMPLICIT_LE]))
def test_elements_that_lie(body: bytes, syntax: str) -> None:
    start = part10([element("SOPClassUID", datasets.CT_IMAGE), element("SOPInstanceUID", "1.2.3")], Encoding(syntax))
    run(start + body)


def expect(data: bytes, *reasons: Reason) -> None:
    for engine in ENGINES:
        with pytest.raises(Quarantine) as caught:
            engine.deidentify(data, lambda identifiers: dict.fromkeys(identifiers, "1"))
        assert caught.value.reason in reasons


@pytest.mark.parametrize("syntax", [datasets.EXPLICIT_LE, datasets.IMPLICIT_LE])
def test_four_gigabytes_in_a_hundred_bytes(syntax: str) -> None:
    """A claim costs nothing: no memory is asked for before the bytes are there."""
    body = part10([element("SOPInstanceUID", "1.2.3")], Encoding(syntax))
    claim = struct.pack("<HH", 0x0010, 0x4000)
    claim += (
        b"UN\0\0" + struct.pack("<I", 2**32 - 2) if syntax == datasets.EXPLICIT_LE else struct.pack("<I", 2**32 - 2)
    )
    tracemalloc.start()
    expect(body + claim + b"\0" * 10, Reason.TRUNCATED, Reason.MALFORMED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("sequences", ["defined", "undefined"])
@pytest.mark.parametrize("depth", [65, 400, 3000])
def test_sequences_without_end(depth: int, sequences: str) -> None:
    # 3000 is beyond the recursion limit of Python: a traceback of that kind would end the batch.
    base = part10([element("SOPInstanceUID", "1.2.3")])
    referenced_series = nested(b"\x08\x00\x15\x11", depth, sequences)
    expect(base + referenced_series, Reason.NESTING_TOO_DEEP, Reason.TRUNCATED)
    # A sequence that a recipe empties as a whole is stepped over.
    run(base + nested(b"\x08\x00\x10\x11", depth, sequences))


def nested(tag: bytes, depth: int, sequences: str) -> bytes:
    """Return a sequence in a sequence, and so on."""
    item: bytes = b""
    for _ in range(depth):
        if sequences == "undefined":
            item = tag + b"SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" + item
        else:
            value = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
            item = tag + b"SQ\0\0" + struct.pack("<I", len(value)) + value
    return item


def test_depth_within_the_limit_is_read() -> None:
    items = [element("PatientName", "Deep^Down")]
    for _ in range(60):
        items = [element("ReferencedStudySequence", [items])]
    data = part10([element("SOPClassUID", datasets.CT_IMAGE), element("SOPInstanceUID", "1.2.3"), *items])
    outcome = run(data)[0]
    assert isinstance(outcome, bytes)
    assert b"Deep^Down" not in outcome


def test_deflate_bomb() -> None:
    """A megabyte that would be a gigabyte stops at the limit."""
    squeeze = zlib.compressobj(9, wbits=-15)
    body = b"".join(squeeze.compress(bytes(2**20)) for _ in range(1024)) + squeeze.flush()
    head = part10([], Encoding(datasets.DEFLATED_LE))
    meta_end = head.index(b"SCANNER VB42") + 12 + 8 + 8
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expect(head[:meta_end] + body, Reason.INFLATED_TOO_LARGE)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "kilobytes"


def test_deflated_rubbish() -> None:
    head = part10([], Encoding(datasets.DEFLATED_LE))
    meta_end = head.index(b"SCANNER VB42") + 12 + 8 + 8
    expect(head[:meta_end] + b"\xff\x00\x01rubbish" * 9, Reason.MALFORMED, Reason.TRUNCATED)


def test_a_hundred_thousand_empty_items() -> None:
    """Many small things cost their number, not their square."""
    items = [[] for _ in range(100_000)]
    data = part10(
        [
            element("SOPClassUID", datasets.CT_IMAGE),
            element("SOPInstanceUID", "1.2.3"),
            element("ReferencedStudySequence", items),
        ]
    )
    engine = Deidentifier(Recipe.named("desktop"), OPEN)
    assert isinstance(engine.deidentify(data, lambda o: dict.fromkeys(o, "1.2")).to_bytes(), bytes)


def test_values_are_never_in_the_message() -> None:
    secret = "Torvelin^Anna"
    # Cut within the last element (12 bytes) and within the name before it; a few bytes of a header are left out.
    for cut in (*range(1, 7), *range(13, 29)):
        data = part10(
            [element("SOPInstanceUID", "1.2.3"), element("PatientName", secret), Element(0x00101010, "AS", "061Y")]
        )
        with pytest.raises(Quarantine) as caught:
            ENGINES[0].deidentify(data[:-cut], lambda identifiers: dict.fromkeys(identifiers, "1"))
        assert "Torvelin" not in f"{caught.value}{caught.value.where}"
