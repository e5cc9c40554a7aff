"""Call the functions of recipes: those of users, and the five of the language."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import generate_uid

from dicom_deid.dicom.tags import tag_text
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import join_values, texts, to_python
from dicom_deid.engine.dates import shift
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import DeidFunction

GENERATE_VALUE = "generate_value"
"""``func:generate_value``: the pseudonym of the element's value; its keyword determines the kind."""
PATIENT_OFFSET = "patient_offset"
"""``var:patient_offset``: the shift of the patient's dates in days."""

_KINDS = {
    kind.value: kind for kind in (IdentifierKind.PATIENT_ID, IdentifierKind.ACCESSION_NUMBER, IdentifierKind.STUDY_ID)
}


def kind_of(keyword: str) -> IdentifierKind:
    """Return the kind of pseudonym of an element: a UID for everything but the three identifiers."""
    return _KINDS.get(keyword, IdentifierKind.UID)


class Field:
    """An element, as passed to a function of a recipe.

    Parameters
    ----------
    tag, vr
        Its tag and VR.
    name
        Its nested name: the keywords of the sequences around it and its own, joined by two underscores.
    value
        Its encoded value, changed by the rules so far.
    encoding, codecs
        Encoding and character set of the value.
    private_creator
        The creator of the block of a private element.
    """

    def __init__(
        self,
        tag: int,
        vr: str,
        name: str,
        value: bytes,
        encoding: Encoding,
        codecs: tuple[str, ...],
        private_creator: str | None = None,
    ) -> None:
        self.private_creator = private_creator
        self.tag = tag
        self.vr = vr
        self.name = name
        self._value = value
        self._encoding = encoding
        self._codecs = codecs

    @property
    def element(self) -> DataElement:
        """The element as pydicom reads it."""
        try:
            value = to_python(self.tag, self.vr, self._value, self._encoding, self._codecs)
        except Exception:
            # pydicom's message may contain the value.
            raise Quarantine(Reason.MALFORMED, tag_text(self.tag)) from None
        element = DataElement(Tag(self.tag), self.vr, value, already_converted=True)
        element.private_creator = self.private_creator
        return element


def read_elements(data: bytes, encoding: Encoding) -> Dataset:
    """Read an encoded data set without its pixel data, for functions that use other elements."""
    try:
        return read_dataset(io.BytesIO(data), encoding.implicit, not encoding.big_endian, stop_when=_is_pixel_data)
    except Exception:
        # pydicom's message may contain a value.
        raise Quarantine(Reason.MALFORMED, "as pydicom reads it") from None


def _is_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)


def read_data_set(data: bytes) -> Dataset:
    """Read an object without its pixel data, for functions that use other elements."""
    try:
        return dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    except Exception:
        raise Quarantine(Reason.MALFORMED, "as pydicom reads it") from None


def call(function: Callable[..., Any], name: str, item: Mapping[str, Any], field: Field, dicom: Dataset | None) -> Any:
    """Call a function given by the user.

    Raises
    ------
    Quarantine
        FUNCTION_FAILED if it raises an exception.
    """
    try:
        return function(item=item, value=f"func:{name}", field=field, dicom=dicom)
    except Quarantine:
        raise
    except Exception:
        # The function's message may contain a value.
        raise Quarantine(Reason.FUNCTION_FAILED, f"func:{name} at {tag_text(field.tag)}") from None


def call_deid_function(function: DeidFunction, field: Field) -> str:
    """Call one of the five functions of the recipe language."""
    return _DEID_FUNCTIONS[function.name](function.arguments, field)


def _text(field: Field) -> str:
    return join_values(texts(field.element.value))


def _jitter(arguments: Mapping[str, Any], field: Field) -> str:
    days = arguments["days"] + 365 * arguments["years"]
    shifted = [shift(value, field.vr, days) if value else "" for value in _text(field).split("\\")]
    return join_values([value or "" for value in shifted])


def _dicom_uuid(arguments: Mapping[str, Any], field: Field) -> str:
    return f"{arguments['org_root']}.{uuid.uuid4().int}"[:64]


def _suffix_uuid(arguments: Mapping[str, Any], field: Field) -> str:
    return f"{field.name.lower()}-{uuid.uuid4()}"


def _basic_uuid(arguments: Mapping[str, Any], field: Field) -> str:
    return str(uuid.uuid4())


def _pydicom_uuid(arguments: Mapping[str, Any], field: Field) -> str:
    entropy = [_text(field)] if arguments["stable_remapping"] else []
    return str(generate_uid(prefix=arguments["prefix"], entropy_srcs=entropy))


_DEID_FUNCTIONS: dict[str, Callable[[Mapping[str, Any], Field], str]] = {
    "jitter": _jitter,
    "dicom_uuid": _dicom_uuid,
    "suffix_uuid": _suffix_uuid,
    "basic_uuid": _basic_uuid,
    "pydicom_uuid": _pydicom_uuid,
}
