"""The words in which the product says what became of an object, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """What became of one object in one attempt."""

    DEIDENTIFIED = "deidentified"
    """A de-identified object stands at the destination."""
    UNCHANGED_SKIP = "unchanged-skip"
    """The same source object was already de-identified under the same rules; nothing was done."""
    QUARANTINED = "quarantined"
    """The object cannot be de-identified for certain; nothing was written to the destination."""
    FAILED = "failed"
    """Storage or database failed for good; a retry may succeed."""


class Advice(NamedTuple):
    """What a person reads beside a reason code."""

    meaning: str
    what_to_do: str


class Reason(StrEnum):
    """Why an object was quarantined or failed, or what was noteworthy about one that was de-identified.

    The value is the code that audit rows, reports and pages show. A code never carries a value of the object.
    """

    # The bytes are not what the engine can read for certain.
    EMPTY_OBJECT = "empty-object"
    NOT_DICOM = "not-dicom"
    DICOMDIR = "dicomdir"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    UNSUPPORTED_CHARACTER_SET = "unsupported-character-set"
    NESTING_TOO_DEEP = "nesting-too-deep"
    INFLATED_TOO_LARGE = "inflated-too-large"
    HEADER_TOO_LARGE = "header-too-large"
    # The object changed under us.
    OBJECT_VANISHED = "object-vanished"
    OBJECT_CHANGED = "object-changed"
    # A rule could not be carried out.
    MISSING_IDENTIFIER = "missing-identifier"
    FUNCTION_FAILED = "function-failed"
    INVALID_REPLACEMENT = "invalid-replacement"
    NOT_ENCODABLE = "not-encodable"
    # What is left, or may be left, in the object.
    RESIDUAL_FOUND = "residual-found"
    BURNED_IN_ANNOTATION = "burned-in-annotation"
    PIXEL_RISK = "pixel-risk"
    RECOGNIZABLE_VISUAL_FEATURES = "recognizable-visual-features"
    PIXEL_DATA_UNREADABLE = "pixel-data-unreadable"
    ENCAPSULATED_DOCUMENT = "encapsulated-document"
    STRUCTURED_CONTENT = "structured-content"
    GRAPHIC_CONTENT = "graphic-content"
    VIDEO = "video"
    # The destination.
    DESTINATION_CONFLICT = "destination-conflict"
    # Outcome `failed`.
    STORAGE_ERROR = "storage-error"
    INTERNAL_ERROR = "internal-error"
    # Noted on an object that was de-identified.
    DATE_EMPTIED = "date-emptied"
    TRAILING_BYTES_REMOVED = "trailing-bytes-removed"
    SIGNATURE_REMOVED = "signature-removed"
    RESIDUAL_REMOVED = "residual-removed"
    RESIDUAL_REPORTED = "residual-reported"
    PIXELS_CLEANED = "pixels-cleaned"
    PIXEL_RISK_ALLOWED = "pixel-risk-allowed"

    @property
    def advice(self) -> Advice:
        """What the code means and what a person can do about it."""
        return _ADVICE[self]


_ADVICE = {
    Reason.EMPTY_OBJECT: Advice("The object has no bytes.", "Send it again from its source."),
    Reason.NOT_DICOM: Advice(
        "The object is not DICOM.", "Move it out of the source prefix, or leave it: it is never copied."
    ),
    Reason.DICOMDIR: Advice(
        "A DICOMDIR is an index of other files by their offsets.",
        "Leave it out; make a new one from the de-identified objects if it is needed.",
    ),
    Reason.TRUNCATED: Advice("The object ends before its elements do.", "Send it again from its source."),
    Reason.MALFORMED: Advice(
        "An element cannot be read as its encoding says.",
        "Look at the tag path and offset in the audit; repair the object, or send it again from its source.",
    ),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: Advice(
        "The transfer syntax is unknown or private.", "Have the source send a standard transfer syntax."
    ),
    Reason.UNSUPPORTED_CHARACTER_SET: Advice(
        "A value that a rule reads cannot be decoded in the object's character set.",
        "Correct SpecificCharacterSet (0008,0005) at the source.",
    ),
    Reason.NESTING_TOO_DEEP: Advice("Sequences are nested deeper than the limit.", "Look at the object by hand."),
    Reason.INFLATED_TOO_LARGE: Advice("A deflated object inflates beyond the limit.", "Look at the object by hand."),
    Reason.HEADER_TOO_LARGE: Advice(
        "A large object has more elements beside its pixel data than are read into memory.",
        "Look at the object by hand.",
    ),
    Reason.OBJECT_VANISHED: Advice("The object was deleted after it was listed.", "Nothing, if that was meant."),
    Reason.OBJECT_CHANGED: Advice(
        "The object was overwritten after it was listed.", "The next run takes the new version."
    ),
    Reason.MISSING_IDENTIFIER: Advice(
        "An identifier that the destination key or a rule needs is absent or empty.",
        "Correct the object at its source, or use a destination template without it.",
    ),
    Reason.FUNCTION_FAILED: Advice(
        "A function that the recipe names failed or returned nothing.", "Mend the function."
    ),
    Reason.INVALID_REPLACEMENT: Advice(
        "A replacement is not valid for the element's VR.", "Correct the rule that the audit names."
    ),
    Reason.NOT_ENCODABLE: Advice(
        "A replacement cannot be written in the object's character set.", "Use a replacement of ASCII characters."
    ),
    Reason.RESIDUAL_FOUND: Advice(
        "A value that the rules removed or replaced stands elsewhere in the object.",
        "Extend the recipe to the element that the audit names, or choose the policy remove-element or redact-token.",
    ),
    Reason.BURNED_IN_ANNOTATION: Advice(
        "BurnedInAnnotation is YES and no pixel rule covers the object.",
        "Write a %filter rule for the device, or set pixel_risk to ocr (finds text).",
    ),
    Reason.PIXEL_RISK: Advice(
        "The object is of a kind that often shows identifiers in its pixels, and no pixel rule covers it.",
        "Write a %filter rule for the device, or set pixel_risk to ocr (finds text) or to allow.",
    ),
    Reason.RECOGNIZABLE_VISUAL_FEATURES: Advice(
        "The object says that the patient can be recognised in its pixels.", "De-face it before it is released."
    ),
    Reason.PIXEL_DATA_UNREADABLE: Advice(
        "Pixels that a rule must clean cannot be decoded or encoded.", "Install the codec, or convert the object first."
    ),
    Reason.ENCAPSULATED_DOCUMENT: Advice(
        "The object holds a document (PDF, CDA, STL) that is not cleaned.",
        "Review it by hand, or allow it for this project.",
    ),
    Reason.STRUCTURED_CONTENT: Advice(
        "Content items of a structured report cannot be cleaned for certain.",
        "Take ps3.15-basic with the option clean-structured-content, or allow documents where your recipe cleans them.",
    ),
    Reason.GRAPHIC_CONTENT: Advice(
        "Graphics or overlays may show identifiers.", "Choose the option clean-graphics, or allow it for this project."
    ),
    Reason.VIDEO: Advice(
        "The object is a video, whose frames are not cleaned.", "Review it by hand, or allow it for this project."
    ),
    Reason.DESTINATION_CONFLICT: Advice(
        "A different object stands at the destination key.",
        "Trace the key that the audit names: another object of the same SOP Instance UID wrote it, or other rules did. "
        "Correct the source, or choose another destination prefix.",
    ),
    Reason.STORAGE_ERROR: Advice("Reading or writing failed for good.", "Check the storage; run again."),
    Reason.INTERNAL_ERROR: Advice(
        "The program is at fault.", "Report it with the audit row; run again after an upgrade."
    ),
    Reason.DATE_EMPTIED: Advice("A date that cannot be parsed was emptied.", "Nothing."),
    Reason.TRAILING_BYTES_REMOVED: Advice("Bytes after the last element were left out.", "Nothing."),
    Reason.SIGNATURE_REMOVED: Advice("Digital signatures, invalid after a change, were removed.", "Nothing."),
    Reason.RESIDUAL_REMOVED: Advice(
        "A residual identifier was removed.", "Extend the recipe to the element that held it."
    ),
    Reason.RESIDUAL_REPORTED: Advice(
        "A residual identifier was found and left, as the policy says.", "Extend the recipe."
    ),
    Reason.PIXELS_CLEANED: Advice("Regions of the pixels were blanked.", "Nothing."),
    Reason.PIXEL_RISK_ALLOWED: Advice("A kind with pixel risk was passed, as the policy says.", "Nothing."),
}
