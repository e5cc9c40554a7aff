"""Build one object of the corpus together with its answer key."""

from __future__ import annotations

import io
import random
from datetime import date

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_deid.score.expectations import Box, Case, Category, Expectation, Path, PrivateTag
from dicom_deid.score.identity import UID_ROOT, Patient, uid, word


def tag(keyword: str) -> int:
    """Return the tag of a keyword of the dictionary."""
    found = tag_for_keyword(keyword)
    if found is None:
        raise KeyError(keyword)
    return found


class Builder:
    """Builder of one object: every method adds an element and the expected result.

    Parameters
    ----------
    rng
        Random number generator.
    patient
        The patient of the object.
    modality, sop_class
        Kind of object.
    """

    def __init__(self, rng: random.Random, patient: Patient, modality: str, sop_class: str) -> None:
        self.rng = rng
        self.patient = patient
        self.modality = modality
        self.dataset = Dataset()
        self.key: list[Expectation] = []
        self.references: list[tuple[Path, str]] = []
        self.boxes: list[Box] = []
        self.planted: set[str] = set()
        self.sop_class = sop_class
        self.instance_uid = uid(rng)
        self.may_be_quarantined = False

    # Paths

    def place(self, path: Path, value: object, vr: str | None = None) -> None:
        """Write an element at a path, creating sequences and items as needed."""
        target = self.dataset
        for index in range(0, len(path) - 1, 2):
            sequence, number = path[index], path[index + 1]
            if not isinstance(sequence, int) or not isinstance(number, int):
                raise TypeError("a sequence of the dictionary and an item number")
            if sequence not in target:
                target.add(DataElement(Tag(sequence), "SQ", Sequence()))
            items = target[sequence].value
            while len(items) <= number:
                items.append(Dataset())
            target = items[number]
        last = path[-1]
        if isinstance(last, PrivateTag):
            block = target.private_block(last.group, last.creator, create=True)
            block.add_new(last.element, vr or "LO", value)
        else:
            target.add(DataElement(Tag(last), vr or dictionary_VR(last).split(" ")[0], value))

    def path(self, *names: str | int) -> Path:
        """Return a path from keywords and item numbers."""
        return tuple(tag(name) if isinstance(name, str) else name for name in names)

    def expect(self, category: Category, path: Path, value: str = "") -> None:
        """Add an expectation to the answer key."""
        self.key.append(Expectation(category, path, value))

    # Elements

    def plain(self, keyword: str, value: object) -> None:
        """Add an element without patient information that must be kept."""
        self.place(self.path(keyword), value)
        self.expect(Category.TAG_RETAINED, self.path(keyword), str(value))

    def filling(self, keyword: str, value: object) -> None:
        """Add an element that is not scored."""
        self.place(self.path(keyword), value)

    def identifier(self, path: Path, value: str, vr: str | None = None) -> None:
        """Add an element whose whole value is an identifier."""
        self.place(path, value, vr)
        self.expect(Category.TEXT_REMOVED, path, value)
        self.planted.add(value)

    def sentence(self, path: Path, words: str, identifier: str, vr: str | None = None) -> None:
        """Add a text of harmless words, which should be kept, and one identifier, which must be removed."""
        form = self.rng.choice(("{words} for {identifier}", "{identifier}: {words}", "{words}, {identifier}, {words}"))
        self.place(path, form.format(words=words, identifier=identifier), vr)
        self.expect(Category.TEXT_REMOVED, path, identifier)
        self.expect(Category.TEXT_RETAINED, path, words)
        self.planted.add(identifier)

    def day(self, path: Path, day: date) -> None:
        """Add a date of the patient."""
        vr = dictionary_VR(path[-1]) if isinstance(path[-1], int) else "DA"
        written = day.strftime("%Y%m%d")
        self.place(path, written if vr == "DA" else f"{written}{self.rng.randrange(8, 18):02d}1530.5")
        self.expect(Category.DATE_SHIFTED, path, written)

    def own_uid(self, path: Path, value: str) -> None:
        """Add a UID of the patient's objects."""
        self.place(path, value)
        self.expect(Category.UID_CHANGED, path, value)

    def reference(self, path: Path, target: Case) -> None:
        """Add a reference to another object of the corpus."""
        items = path[:-1]
        self.place((*items, tag("ReferencedSOPClassUID")), _sop_class(target))
        self.own_uid(path, _instance_uid(target))
        self.references.append((path, target.name))

    def unsafe_private(self) -> None:
        """Add private elements that identify the patient, as text and as bytes."""
        name = self.patient.name
        creator = f"{word(self.rng).upper()} {self.rng.randrange(10)}"
        self.identifier((PrivateTag(0x0099, creator, 0x01),), name, "LO")
        self.identifier((PrivateTag(0x0099, creator, 0x02),), self.patient.patient_id, "SH")
        blob = b"\x00\x01" + name.encode("utf-16-le") + b"\x00\x00\x07"
        self.place((PrivateTag(0x0099, creator, 0x03),), blob + b"\0" * (len(blob) % 2), "OB")

    # The finished object

    def case(self, name: str, number: int) -> Case:
        """Return the finished object."""
        return Case(
            name=name,
            modality=self.modality,
            patient=number,
            data=self.encoded(),
            key=tuple(self.key),
            identifiers=tuple(sorted(self._fragments())),
            references=tuple(self.references),
            text_boxes=tuple(self.boxes),
            may_be_quarantined=self.may_be_quarantined,
        )

    def encoded(self) -> bytes:
        """Return the object as stored: part 10, explicit or implicit VR little endian."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(self.sop_class)
        meta.MediaStorageSOPInstanceUID = UID(self.instance_uid)
        meta.TransferSyntaxUID = self.rng.choice(
            (ExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        )
        meta.ImplementationClassUID = UID(f"{UID_ROOT}.1")
        meta.SourceApplicationEntityTitle = self.patient.station[:16]
        self.dataset.file_meta = meta
        self.dataset.preamble = bytes(128)
        target = io.BytesIO()
        dcmwrite(target, self.dataset, enforce_file_format=True)
        return target.getvalue()

    def _fragments(self) -> set[str]:
        """Return the planted values, and the parts of names that are long enough to identify."""
        found = set()
        for value in self.planted:
            found.add(value)
            if "^" in value:
                found.update(part for part in value.split("^") if len(part) > 4)
        return found


def _sop_class(case: Case) -> str:
    return next(e.value for e in case.key if e.path == (tag("SOPClassUID"),))


def _instance_uid(case: Case) -> str:
    return next(e.value for e in case.key if e.path == (tag("SOPInstanceUID"),))
