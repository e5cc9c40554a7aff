"""Compare de-identified objects with the answer key and count, by category, the expectations that hold."""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_deid.score import official
from dicom_deid.score.expectations import (
    HEADER_CATEGORIES,
    Box,
    Case,
    Category,
    Expectation,
    Path,
    PrivateTag,
    find,
    text_of,
)
from dicom_deid.score.tally import Tally

_ENCODINGS = ("latin-1", "utf-8", "utf-16-le", "utf-16-be")
_DATE = re.compile(r"(\d{8})(\d{6}(\.\d+)?)?([+-]\d{4})?")


@dataclass
class Score:
    """The score: one tally per category, by our rules and by those of MIDI-B, and the number of quarantined objects."""

    tallies: dict[Category, Tally] = field(default_factory=lambda: {category: Tally() for category in Category})
    quarantined: int = 0
    objects: int = 0
    official: dict[Category, Tally] = field(default_factory=dict)

    def percent(self, categories: Sequence[Category] = tuple(Category)) -> float:
        """Return the percentage passed in some categories, 0 to 100."""
        passed = sum(self.tallies[category].passed for category in categories)
        total = passed + sum(self.tallies[category].failed for category in categories)
        return 100 * passed / total if total else 100.0

    def worst(self, categories: Sequence[Category] = HEADER_CATEGORIES) -> float:
        """Return the lowest percentage of all categories."""
        return min(self.tallies[category].percent for category in categories)


def score(cases: Sequence[Case], outcomes: Mapping[str, bytes | None]) -> Score:
    """Compare outcomes with the answer key.

    Parameters
    ----------
    cases
        The corpus.
    outcomes
        The de-identified object by name of the case, or None if it was quarantined.
    """
    return _Scorer(cases, outcomes).run()


class _Scorer:
    def __init__(self, cases: Sequence[Case], outcomes: Mapping[str, bytes | None]) -> None:
        self.cases = cases
        self.outcomes = outcomes
        self.result = Score(objects=len(cases))
        self.delivered: dict[str, Dataset] = {}
        self.uids: dict[str, set[str]] = defaultdict(set)
        self.patient_ids: dict[str, set[str]] = defaultdict(set)
        self.shifts: dict[int, Counter[int]] = defaultdict(Counter)

    def run(self) -> Score:
        for case in self.cases:
            self._deliver(case)
        for case in self.cases:
            if case.name in self.delivered:
                self._score_object(case, self.delivered[case.name])
        self._score_mapping(Category.UID_CONSISTENT, self.uids)
        self._score_mapping(Category.PATID_CONSISTENT, self.patient_ids)
        for number, shifts in self.shifts.items():
            agreed = shifts.most_common(1)[0][1]
            tally = self.result.tallies[Category.DATE_INTERVALS]
            for index in range(shifts.total()):
                tally.count(index < agreed, f"patient {number}")
        if official.can_read_text():
            self.result.official = official.official_score(self.cases, self.delivered)
        return self.result

    def _count(self, category: Category, passed: bool, where: str) -> None:
        self.result.tallies[category].count(passed, where)

    def _deliver(self, case: Case) -> None:
        data = self.outcomes.get(case.name)
        if data is None:
            self.result.quarantined += 1
            if not case.may_be_quarantined:
                self._count(Category.DELIVERED, False, case.modality)
            return
        try:
            dataset = dcmread(io.BytesIO(data))
            for _ in dataset.iterall():
                pass
        except Exception:
            self._count(Category.DELIVERED, False, case.modality)
            return
        self._count(Category.DELIVERED, True, case.modality)
        self.delivered[case.name] = dataset

    # One object

    def _score_object(self, case: Case, dataset: Dataset) -> None:
        for expectation in case.key:
            if expectation.category in (Category.PIXELS_HIDDEN, Category.PIXELS_RETAINED):
                continue
            self._score_element(case, dataset, expectation)
        self._score_pixels(case, dataset)
        self._score_bytes(case, dataset)
        for path, target in case.references:
            if target in self.delivered:
                found = text_of(find(dataset, path))
                resolves = found == str(self.delivered[target].get("SOPInstanceUID", ""))
                self._count(Category.REFERENCES_RESOLVE, resolves, _shown(path))

    def _score_element(self, case: Case, dataset: Dataset, expectation: Expectation) -> None:
        element = find(dataset, expectation.path) if expectation.path else None
        text = text_of(element)
        where = _shown(expectation.path)
        match expectation.category:
            case Category.TAG_RETAINED:
                self._count(Category.TAG_RETAINED, element is not None, where)
            case Category.TEXT_NOTNULL:
                self._count(Category.TEXT_NOTNULL, bool(text), where)
            case Category.TEXT_RETAINED:
                self._count(Category.TEXT_RETAINED, expectation.value in text, where)
            case Category.TEXT_REMOVED:
                self._count(Category.TEXT_REMOVED, expectation.value.lower() not in text.lower(), where)
            case Category.DATE_SHIFTED:
                self._score_date(case, text, expectation)
            case Category.UID_CHANGED:
                self._count(Category.UID_CHANGED, text != expectation.value, where)
                if text:
                    self.uids[expectation.value].add(text)
            case Category.PATID_CONSISTENT:
                self.patient_ids[expectation.value].add(text)
            case Category.METHOD_STAMPED:
                self._score_stamp(dataset)

    def _score_date(self, case: Case, text: str, expectation: Expectation) -> None:
        shifted = _day(text)
        original = _day(expectation.value)
        if shifted is None or original is None:
            self._count(Category.DATE_SHIFTED, False, _shown(expectation.path))
            return
        days = (shifted - original).days
        self._count(Category.DATE_SHIFTED, days != 0, _shown(expectation.path))
        self.shifts[case.patient][days] += 1

    def _score_stamp(self, dataset: Dataset) -> None:
        stamped = dataset.get("PatientIdentityRemoved") == "YES"
        how = "DeidentificationMethod" in dataset or "DeidentificationMethodCodeSequence" in dataset
        self._count(Category.METHOD_STAMPED, stamped and how, "PatientIdentityRemoved, DeidentificationMethod")

    def _score_bytes(self, case: Case, dataset: Dataset) -> None:
        if "PixelData" in dataset:
            dataset = dcmread(io.BytesIO(self.outcomes[case.name] or b""))
            del dataset.PixelData
        target = io.BytesIO()
        dataset.save_as(target)
        haystack = target.getvalue().lower()
        for identifier in case.identifiers:
            needles = {identifier.lower().encode(encoding) for encoding in _ENCODINGS}
            found = any(needle in haystack for needle in needles)
            self._count(Category.IDENTIFIERS_ELSEWHERE, not found, case.modality)

    # Pixels

    def _score_pixels(self, case: Case, dataset: Dataset) -> None:
        wanted = {e.category for e in case.key} & {Category.PIXELS_HIDDEN, Category.PIXELS_RETAINED}
        if not wanted:
            return
        before = official.pixels_of(dcmread(io.BytesIO(case.data)))
        after = _pixels(dataset)
        if after is None or after.shape != before.shape:
            for category in wanted:
                self._count(category, False, case.modality)
            return
        text = np.zeros(before.shape[:2], dtype=bool)
        away = np.ones(before.shape[:2], dtype=bool)
        for box in case.text_boxes:
            text[box.top : box.bottom, box.left : box.right] = True
            margin = box.bottom - box.top
            top, left = max(0, box.top - margin), max(0, box.left - margin)
            away[top : box.bottom + margin, left : box.right + margin] = False
        same = before == after if before.ndim == 2 else (before == after).all(axis=2)
        if Category.PIXELS_HIDDEN in wanted:
            letters = text & _letters(before, dark=case.text_boxes[0].is_dark)
            is_hidden = float(same[letters].mean()) < 0.05 or all(_is_plain(after, box) for box in case.text_boxes)
            self._count(Category.PIXELS_HIDDEN, is_hidden, case.modality)
        if Category.PIXELS_RETAINED in wanted:
            self._count(Category.PIXELS_RETAINED, float(same[away].mean()) > 0.999, case.modality)

    # All objects together

    def _score_mapping(self, category: Category, mapping: Mapping[str, set[str]]) -> None:
        owners = Counter(value for values in mapping.values() for value in values)
        for values in mapping.values():
            consistent = len(values) == 1 and all(value and owners[value] == 1 for value in values)
            self._count(category, consistent, "all objects")


def _is_plain(pixels: NDArray[np.generic], box: Box) -> bool:
    """Return whether all pixels of a box have one value."""
    region = pixels[box.top : box.bottom, box.left : box.right]
    return bool((region == region[:1, :1]).all())


def _letters(pixels: NDArray[np.generic], *, dark: bool) -> NDArray[np.bool_]:
    """Return the pixels of letters: the brightest ones of the image, or the darkest."""
    plane = pixels if pixels.ndim == 2 else pixels[..., 0]
    letters: NDArray[np.bool_] = plane <= plane.min() if dark else plane >= plane.max()
    return letters


def _pixels(dataset: Dataset) -> NDArray[np.generic] | None:
    try:
        return official.pixels_of(dataset)
    except Exception:
        return None


def _day(text: str) -> date | None:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%d").date()
    except ValueError:
        return None


def _shown(path: Path) -> str:
    parts = []
    for index, part in enumerate(path):
        if isinstance(part, PrivateTag):
            parts.append(f"({part.group:04x},private,{part.element:02x})")
        else:
            parts.append(f"[{part}]" if index % 2 else f"({part >> 16:04x},{part & 0xFFFF:04x})")
    return "".join(parts)
