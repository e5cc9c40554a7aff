"""Results of the engine: an analysed object, and a de-identified one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dicom_deid.dicom.part10 import FileHeader
from dicom_deid.dicom.walk import RuleEdit
from dicom_deid.engine.handler_table import HandlerTable
from dicom_deid.engine.handlers.basic import ObjectWalk, PendingEdit
from dicom_deid.engine.references import MODALITIES, well_known_uids
from dicom_deid.engine.residuals.search import RemovedValues
from dicom_deid.engine.residuals.terms import SearchTerms
from dicom_deid.engine.segments import SegmentEdit
from dicom_deid.identifiers import Identifier, IdentifierKind, with_issuer
from dicom_deid.objects import SourceRange
from dicom_deid.reasons import Reason
from dicom_deid.recipe import CompiledRecipe
from dicom_deid.recipe.filters import Filter

_US_BYTES = 2
_OF_PATIENT = (IdentifierKind.PATIENT_ID, IdentifierKind.DATE_OFFSET)


class AnalysisResult:
    """One object after the rules were applied: the pseudonyms it needs, and the position of its pixel data.

    Parameters
    ----------
    source
        The object, or its beginning.
    header
        Its preamble and file meta information.
    walk
        The result of the walk.
    handler_table
        The handlers that were used.
    start, end
        Start and end of the data set in the walked bytes.
    given, size
        Number of bytes of the object that were given, and that it has. `source` is shorter than what was given if the
        residual search removed elements.
    """

    __slots__ = (
        "end",
        "given",
        "handler_table",
        "header",
        "instance",
        "issuer",
        "meta",
        "others",
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
        # The IssuerOfPatientID, if the patient key includes it.
        self.issuer = ""
        # The walk over the file meta information, where it is not rebuilt.
        self.meta: ObjectWalk | None = None
        # The values that the rules remove, unless the residual search is off; and those that other objects gave.
        self.removed: RemovedValues | None = None
        self.others: SearchTerms = frozenset()
        self.tail: ObjectWalk | None = None
        self.tail_end = 0

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """The identifiers whose pseudonyms the object needs, each once."""
        if not self.issuer:
            return tuple(self.walk.identifiers)
        return tuple(dict.fromkeys(map(self.keyed, self.walk.identifiers)))

    def keyed(self, identifier: Identifier) -> Identifier:
        """Return an identifier of the object, with the issuer if the patient key includes it.

        The issuer of the root data set is that of each PatientID in the object.
        """
        kind, value = identifier
        if kind not in _OF_PATIENT or value == self.original("StudyInstanceUID"):
            return identifier
        return Identifier(kind, with_issuer(value, self.issuer))

    @property
    def pixel_data(self) -> tuple[int, int | None] | None:
        """Position of the value of the pixel data if it reaches beyond the given beginning of the object.

        In bytes from the beginning of the object; no end for encapsulated pixel data, whose fragments are not parsed.
        """
        found = self.walk.pixel_data
        if not self.walk.partial or found is None or (found[1] is not None and found[1] <= len(self.source)):
            return None
        shift = self.given - len(self.source)
        return found[0] + shift, None if found[1] is None else found[1] + shift

    @property
    def unread(self) -> SourceRange | None:
        """The bytes beyond the given beginning of the object, which are copied unchanged."""
        if not self.walk.partial:
            return None
        end = self.size - len(self.tail.data) if self.tail is not None else self.size
        if end < self.given:
            raise ValueError("the tail begins before the given beginning of the object ends")
        return SourceRange(self.given, end)

    def text(self, keyword: str) -> str:
        """Return SOPClassUID or Modality of the root data set; an empty string for any other keyword."""
        found = self.walk.captured.get(keyword) if keyword in ("SOPClassUID", "Modality") else None
        if found is None:
            return ""
        return found[0].decode("ascii", "replace").strip("\0 ")

    @property
    def patient_id(self) -> str:
        """The original PatientID, with its issuer if the patient key includes it. PHI."""
        return with_issuer(self.original("PatientID"), self.issuer)

    @property
    def patient(self) -> str:
        """The original PatientID, or StudyInstanceUID if the object has none. PHI."""
        return self.patient_id or self.original("StudyInstanceUID")

    def original(self, keyword: str) -> str:
        """Return the original value of a captured identifier, or an empty string. PHI."""
        return self.walk.captured_text(keyword)

    def number(self, keyword: str) -> int | None:
        """Return the value of a captured element of VR US, or None if it is missing or malformed."""
        found = self.walk.captured.get(keyword)
        if found is None or len(found[0]) != _US_BYTES:
            return None
        byte_order: Literal["big", "little"] = "big" if self.header.transfer_syntax.encoding.big_endian else "little"
        return int.from_bytes(found[0], byte_order)

    @property
    def sop_class_uid(self) -> str:
        """The SOP class of the object, or an empty string if the standard does not define it."""
        uid = self.text("SOPClassUID") or self.header.media_storage_sop_class_uid
        return uid if uid.encode("ascii", "replace") in well_known_uids() else ""

    @property
    def modality(self) -> str:
        """The modality of the object, or an empty string if it is not a term of the standard."""
        modality = self.text("Modality")
        return modality if modality in MODALITIES else ""


class DeidentifyResult:
    """The new object.

    Parameters
    ----------
    parts
        Its bytes in order; a :class:`SourceRange` for bytes of the source object that were not given.
    identifiers
        By keyword, the new values of the identifiers in its root data set, and its SOPClassUID and Modality.
    recipe, walk
        The compiled recipe, and the counters of the walk.
    """

    __slots__ = ("_recipe", "_walk", "identifiers", "parts")

    def __init__(
        self,
        parts: tuple[bytes | memoryview | SourceRange, ...],
        identifiers: Mapping[str, str],
        recipe: CompiledRecipe,
        walk: ObjectWalk,
    ) -> None:
        self.parts = parts
        self.identifiers = identifiers
        self._recipe = recipe
        self._walk = walk

    @property
    def size(self) -> int:
        """The size of the new object in bytes."""
        return sum(part.end - part.start if isinstance(part, SourceRange) else len(part) for part in self.parts)

    @property
    def rules(self) -> dict[int, int]:
        """Number of elements that each rule changed, by its index in the recipe."""
        return {index: count for index, count in enumerate(self._walk.rules) if count}

    def rules_by_path(self) -> dict[tuple[int, ...], set[int]]:
        """Return the indices of the rules that act on elements, by the tags of the sequences around them and their own.

        A rule that removes an element is not one of those of the elements inside it.
        """
        found: dict[tuple[int, ...], set[int]] = {}
        for walk in (self._walk, *(one.segment.walk for one in self._walk.edits if isinstance(one, SegmentEdit))):
            for edit in walk.edits:
                if isinstance(edit, RuleEdit) and edit.rule >= 0:
                    path = (*edit.item_context.context.path, _tag(edit, walk.data))
                    found.setdefault(path, set()).add(edit.rule)
        return found

    @property
    def actions(self) -> dict[str, int]:
        """Number of elements that each action changed, with and without a rule."""
        actions = dict(self._walk.counts)
        if self._walk.followed:
            actions["uid-followed"] = self._walk.followed
        for index, count in self.rules.items():
            action = str(self._recipe.action(index))
            actions[action] = actions.get(action, 0) + count
        return actions

    @property
    def notes(self) -> dict[Reason, int]:
        """Reasons noted on the object, and how often."""
        return dict(self._walk.noted)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The pixel filters of the recipe that match the object."""
        return self._walk.filters

    def to_bytes(self) -> bytes:
        """Return the whole object.

        Raises
        ------
        ValueError
            If it has a part that was not given.
        """
        if any(isinstance(part, SourceRange) for part in self.parts):
            raise ValueError("part of the object is in its source and was not given")
        return b"".join(self.parts)  # type: ignore[arg-type]


def _tag(edit: RuleEdit, data: bytes) -> int:
    """Return the tag of the element that a rule changes or adds."""
    if edit.start == edit.end and isinstance(edit, PendingEdit):
        return edit.handler.tag
    head = data[edit.start : edit.end] if edit.start < edit.end else edit.new
    group, element = edit.item_context.context.order.tag.unpack(head[:4])
    return int(group) << 16 | int(element)
