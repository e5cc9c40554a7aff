"""Score by the rules of the validation script of the MIDI-B challenge (github.com/CBIIT/MIDI_validation_script, 2025).

They differ from ours: an object that is not delivered fails whatever should be kept or consistent in it; a removed text
must not leave one of its words; consistency counts once per occurrence; text in pixels is read by OCR. Only the kinds
of object that the challenge has are scored.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from dicom_deid.engine.pixels.codec import decoding_plugin
from dicom_deid.score.expectations import Box, Case, Category, Expectation, find, text_of
from dicom_deid.score.tally import Tally

CATEGORIES = (
    Category.TAG_RETAINED,
    Category.TEXT_NOTNULL,
    Category.TEXT_RETAINED,
    Category.TEXT_REMOVED,
    Category.DATE_SHIFTED,
    Category.UID_CHANGED,
    Category.PIXELS_HIDDEN,
    Category.PIXELS_RETAINED,
    Category.UID_CONSISTENT,
    Category.PATID_CONSISTENT,
)
_FAIL_IF_MISSING = frozenset(
    {
        Category.TAG_RETAINED,
        Category.TEXT_NOTNULL,
        Category.TEXT_RETAINED,
        Category.PIXELS_RETAINED,
        Category.UID_CONSISTENT,
        Category.PATID_CONSISTENT,
    }
)
# Words that say nothing of a text; the script takes those of NLTK.
_STOP_WORDS = frozenset(
    ("a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to", "with")
)
# OCR confuses letters with digits; taking them alike finds more.
_LOOK_ALIKE = str.maketrans("OoIil", "00111")
_MAPPED = {Category.UID_CHANGED: Category.UID_CONSISTENT, Category.PATID_CONSISTENT: Category.PATID_CONSISTENT}

MODALITIES = frozenset({"CR", "CT", "DX", "MG", "MR", "PT", "SR", "US"})
"""The kinds of object in the challenge."""

ReadText = Callable[[NDArray[Any]], str]
"""Returns the text in a picture."""


def official_score(cases: Sequence[Case], delivered: Mapping[str, Dataset]) -> dict[Category, Tally]:
    """Compare de-identified objects with the answer key.

    Parameters
    ----------
    cases
        The corpus.
    delivered
        The de-identified object by name of the case; one that is missing was quarantined or cannot be read.

    Returns
    -------
    dict
        One tally per category.
    """
    cases = [case for case in cases if case.modality in MODALITIES]
    tallies = {category: Tally() for category in CATEGORIES}
    mapping = _mapping(cases, delivered)
    for case in cases:
        dataset = delivered.get(case.name)
        for category, passed in _checks(case, dataset, mapping):
            tallies[category].count(passed, case.modality)
    return tallies


def percent(tallies: Mapping[Category, Tally]) -> float:
    """Return the percentage of all checks that passed, 0 to 100."""
    passed = sum(tally.passed for tally in tallies.values())
    return 100 * passed / max(1, passed + sum(tally.failed for tally in tallies.values()))


def _checks(case: Case, dataset: Dataset | None, mapping: Mapping[str, str]) -> list[tuple[Category, bool]]:
    checks = []
    for one in case.key:
        if one.category in CATEGORIES and not one.category.startswith("pixels"):
            # The key says once that a UID is another one; the script asks for it and for its consistency.
            categories = {one.category, _MAPPED.get(one.category, one.category)}
            checks += [(category, _holds(category, one, dataset, mapping)) for category in sorted(categories)]
    pixels = [(Category.PIXELS_HIDDEN, box) for box in case.text_boxes]
    if not pixels and any(one.category is Category.PIXELS_RETAINED for one in case.key):
        is_same = dataset is not None and _pixel_digest(dataset) == _pixel_digest(case.dataset)
        checks.append((Category.PIXELS_RETAINED, is_same))
    checks += [(category, dataset is None or _is_hidden(dataset, box)) for category, box in pixels]
    return checks


def _holds(category: Category, one: Expectation, dataset: Dataset | None, mapping: Mapping[str, str]) -> bool:
    if dataset is None:
        return category not in _FAIL_IF_MISSING
    element = find(dataset, one.path)
    text = text_of(element)
    match category:
        case Category.TAG_RETAINED:
            return element is not None
        case Category.TEXT_NOTNULL:
            return bool(text)
        case Category.TEXT_RETAINED:
            return bool(text) and text_holds(text, one.value, retained=True)
        case Category.TEXT_REMOVED:
            return not text or text_holds(text, one.value, retained=False)
        case Category.UID_CONSISTENT | Category.PATID_CONSISTENT:
            return element is None or text == mapping.get(one.value, "")
        case _:
            return one.value not in text


def text_holds(text: str, answer: str, *, retained: bool) -> bool:
    """Return whether a text holds an answer or all its words (`retained`), or neither the answer nor one of its words.

    Two numbers are compared as numbers.
    """
    text, answer = text.lower(), answer.lower()
    if _is_number(text) and _is_number(answer):
        return (float(text) == float(answer)) is retained
    if answer in text:
        return retained
    found = [word in text for word in re.findall(r"[^\W_]+", answer) if word not in _STOP_WORDS]
    return all(found) if retained else not any(found)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _mapping(cases: Sequence[Case], delivered: Mapping[str, Dataset]) -> dict[str, str]:
    """Return the new value of each original UID and PatientID: the most frequent one."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        for one in case.key:
            if one.category in _MAPPED and case.name in delivered:
                text = text_of(find(delivered[case.name], one.path))
                if text:
                    found[one.value][text] += 1
    return {original: counts.most_common(1)[0][0] for original, counts in found.items()}


def _pixel_digest(dataset: Dataset) -> str:
    return hashlib.sha256(bytes(dataset.get("PixelData", b""))).hexdigest()


# Text in pixels


def pixels_of(dataset: Dataset) -> NDArray[Any]:
    """Return the pixels of an object by the decoder that the engine uses; GDCM would end the process on some data."""
    return pixel_array(dataset, decoding_plugin=decoding_plugin(str(dataset.file_meta.TransferSyntaxUID)))


def _is_hidden(dataset: Dataset, box: Box) -> bool:
    try:
        pixels = pixels_of(dataset)
    except Exception:
        return False
    region = pixels[box.top : box.bottom, box.left : box.right]
    found = _reader()(_as_picture(region))
    return text_holds(found.translate(_LOOK_ALIKE), box.text.translate(_LOOK_ALIKE), retained=False)


def _as_picture(region: NDArray[Any]) -> NDArray[np.uint8]:
    scaled = region if region.dtype == np.uint8 else 255 * (region / max(1, int(region.max())))
    picture = np.pad(scaled.astype(np.uint8), [(8, 8), (8, 8), *[(0, 0)] * (region.ndim - 2)], mode="edge")
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


def can_read_text() -> bool:
    """Return whether text in pixels can be read: the extra `ocr` is installed."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


_READERS: list[ReadText] = []


def _reader() -> ReadText:
    """Return the OCR of this process, whose models load once."""
    if not _READERS:
        from rapidocr import RapidOCR

        engine: Any = RapidOCR(params={"Global.log_level": "critical", "Global.use_cls": False})
        _READERS.append(lambda picture: " ".join(engine(picture).txts or ()))
    return _READERS[0]
