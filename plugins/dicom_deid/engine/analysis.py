"""What is known of an object after the walk, and what it became."""

from __future__ import annotations

from collections.abc import Mapping

from dicom_deid.dicom.part10 import FileHeader
from dicom_deid.engine.handler_table import HandlerTable
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.references import MODALITIES, well_known_uids
from dicom_deid.engine.residuals.search import RemovedValues
from dicom_deid.identifiers import Identifier
from dicom_deid.objects import SourceRange
from dicom_deid.reasons import Reason
from dicom_deid.recipe import CompiledRecipe


class AnalysisResult:
    """One object after the walk: which pseudonyms it needs, and where its pixel data lies.

    Parameters
    ----------
    source
        The object, or its beginning.
    header
        Its preamble and file meta information.
    walk
        What the walk found.
    book
        What it was walked by.
    start, end
        Where the data set begins and ends in the walked bytes.
    given, size
        How many bytes of the object were given, and how many it has; `source` is shorter than what was given where the
        residual search took elements out.
    """

    __slots__ = (
        "end",
        "given",
        "handler_table",
        "header",
        "instance",
        "meta",
        "removed",
        "size",
        "source",
        "start",
        "tail",
        "tail_end",
        "transfer_syntax_uid",
        "walk",
    )

    def __init__(
        self,
        source: bytes,
        header: FileHeader,
        walk: ObjectWalk,
        handler_table: HandlerTable,
        start: int,
        end: int,
        given: int,
        size: int,
    ) -> None:
        self.source = source
        self.header = header
        self.walk = walk
        self.handler_table = handler_table
        self.start = start
        self.end = end
        self.given = given
        self.size = size
        # The transfer syntax of the new object.
        self.transfer_syntax_uid = header.transfer_syntax.uid
        self.instance: Identifier | None = None
        # The walk over the file meta information, where it is not rebuilt.
        self.meta: ObjectWalk | None = None
        # The values that the rules remove, unless the residual search is off.
        self.removed: RemovedValues | None = None
        self.tail: ObjectWalk | None = None
        self.tail_end = 0

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """The identifiers whose pseudonyms the object needs, each once."""
        return tuple(self.walk.identifiers)

    @property
    def pixel_data(self) -> tuple[int, int | None] | None:
        """Where the value of the pixel data lies when it reaches beyond the given beginning of the object.

        Bytes from the beginning of the object; no end for encapsulated pixel data, whose fragments are not walked.
        """
        found = self.walk.pixel_data
        if not self.walk.partial or found is None or (found[1] is not None and found[1] <= len(self.source)):
            return None
        shift = self.given - len(self.source)
        return found[0] + shift, None if found[1] is None else found[1] + shift

    @property
    def beyond(self) -> SourceRange | None:
        """What lies beyond the given beginning of the object and is copied as it is."""
        if not self.walk.partial:
            return None
        end = self.size - len(self.tail.data) if self.tail is not None else self.size
        if end < self.given:
            raise ValueError("the tail begins before the given beginning of the object ends")
        return SourceRange(self.given, end)

    def text(self, keyword: str) -> str:
        """Return an element of the outermost data set that the walk keeps: SOPClassUID, Modality; else nothing."""
        found = self.walk.captured.get(keyword) if keyword in ("SOPClassUID", "Modality") else None
        if found is None:
            return ""
        return self.walk.data[found[0] : found[1]].decode("ascii", "replace").strip("\0 ")

    @property
    def patient(self) -> str:
        """Whose object it is: its original PatientID, or StudyInstanceUID where it has none. PHI."""
        return self.original("PatientID") or self.original("StudyInstanceUID")

    def original(self, keyword: str) -> str:
        """Return the original value of an identifier that the walk keeps, or nothing. PHI."""
        return self.walk.captured_text(keyword)

    @property
    def sop_class_uid(self) -> str:
        """The SOP class of the object, or nothing where it is none of the standard's."""
        uid = self.text("SOPClassUID") or self.header.media_storage_sop_class_uid
        return uid if uid.encode("ascii", "replace") in well_known_uids() else ""

    @property
    def modality(self) -> str:
        """The modality of the object, or nothing where it is no term of the standard."""
        modality = self.text("Modality")
        return modality if modality in MODALITIES else ""


class DeidentifyResult:
    """The new object.

    Parameters
    ----------
    parts
        Its bytes in order; a :class:`SourceRange` stands for bytes of the source object that were not given.
    identifiers
        By keyword, the new values of the identifiers in its outermost data set, and its SOPClassUID and Modality.
    plan, walk
        The rules, and what the walk counted.
    """

    __slots__ = ("_plan", "_walk", "identifiers", "parts")

    def __init__(
        self,
        parts: tuple[bytes | memoryview | SourceRange, ...],
        identifiers: Mapping[str, str],
        plan: CompiledRecipe,
        walk: ObjectWalk,
    ) -> None:
        self.parts = parts
        self.identifiers = identifiers
        self._plan = plan
        self._walk = walk

    @property
    def size(self) -> int:
        """The size of the new object in bytes."""
        return sum(part.end - part.start if isinstance(part, SourceRange) else len(part) for part in self.parts)

    @property
    def rules(self) -> dict[int, int]:
        """How many elements each rule changed, by its index in the recipe."""
        return {index: count for index, count in enumerate(self._walk.rules) if count}

    @property
    def actions(self) -> dict[str, int]:
        """How many elements each action changed, and what was done without a rule."""
        actions = dict(self._walk.counts)
        if self._walk.followed:
            actions["uid-followed"] = self._walk.followed
        for index, count in self.rules.items():
            action = str(self._plan.action(index))
            actions[action] = actions.get(action, 0) + count
        return actions

    @property
    def notes(self) -> dict[Reason, int]:
        """What was noteworthy, and how often."""
        return dict(self._walk.noted)

    def to_bytes(self) -> bytes:
        """Return the whole object.

        Raises
        ------
        ValueError
            If a part of it was not given.
        """
        if any(isinstance(part, SourceRange) for part in self.parts):
            raise ValueError("the object lies partly in its source")
        return b"".join(self.parts)  # type: ignore[arg-type]
