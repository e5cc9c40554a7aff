"""Outcomes of objects and the reason codes that explain them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """Outcome of one attempt at one object."""

    DEIDENTIFIED = "deidentified"
    """The de-identified object is at the destination."""
    EXCLUDED = "excluded"
    """The object is left out on purpose: by a selection of the run or by a reviewer's decision."""
    QUARANTINED = "quarantined"
    """The object cannot be de-identified with certainty; nothing was written to the destination."""
    WITHDRAWN = "withdrawn"
    """The de-identified object, or a copy, was deleted because it was withdrawn."""
    ARCHIVED = "archived"
    """The object is in an archive tier and cannot be read now; a run after it was restored processes it."""
    FAILED = "failed"
    """The object store or the database failed after all retries; a later attempt may succeed."""


class Advice(NamedTuple):
    """Explanation of a reason code for users."""

    meaning: str
    what_to_do: str


class Reason(StrEnum):
    """Reason code of a quarantined or failed object, or a note on a de-identified one.

    The value is the code in audit rows, reports and pages. A code never holds a value of the object.
    """

    # The object cannot be read with certainty.
    EMPTY_OBJECT = "empty-object"
    NOT_DICOM = "not-dicom"
    SYSTEM_FILE = "system-file"
    DICOMDIR = "dicomdir"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    UNSUPPORTED_CHARACTER_SET = "unsupported-character-set"
    NESTING_TOO_DEEP = "nesting-too-deep"
    INFLATED_TOO_LARGE = "inflated-too-large"
    HEADER_TOO_LARGE = "header-too-large"
    # The object changed after it was listed.
    OBJECT_VANISHED = "object-vanished"
    OBJECT_CHANGED = "object-changed"
    OBJECT_DAMAGED = "object-damaged"
    WITHDRAWN = "withdrawn"
    """The de-identified object, or a copy, was deleted because it was withdrawn."""
    ARCHIVED = "archived"
    # The container of the object cannot be read.
    CONTAINER_DAMAGED = "container-damaged"
    CONTAINER_ENCRYPTED = "container-encrypted"
    CONTAINER_UNSUPPORTED = "container-unsupported"
    CONTAINER_BOMB = "container-bomb"
    CONTAINER_PATH = "container-path"
    CONTAINER_NESTED = "container-nested"
    CONTAINER_INCOMPLETE = "container-incomplete"
    CONTAINER_TOO_LARGE = "container-too-large"
    # A rule could not be applied.
    MISSING_IDENTIFIER = "missing-identifier"
    FUNCTION_FAILED = "function-failed"
    INVALID_REPLACEMENT = "invalid-replacement"
    NOT_ENCODABLE = "not-encodable"
    # Identifiers are left, or may be left, in the object.
    RESIDUAL_FOUND = "residual-found"
    BURNED_IN_ANNOTATION = "burned-in-annotation"
    TEXT_OUTSIDE_LAYOUT = "text-outside-layout"
    PIXEL_RISK = "pixel-risk"
    RECOGNIZABLE_VISUAL_FEATURES = "recognizable-visual-features"
    FACE_POSSIBLE = "face-possible"
    PIXEL_DATA_UNREADABLE = "pixel-data-unreadable"
    ENCAPSULATED_DOCUMENT = "encapsulated-document"
    STRUCTURED_CONTENT = "structured-content"
    GRAPHIC_CONTENT = "graphic-content"
    VIDEO = "video"
    # The destination.
    DESTINATION_CONFLICT = "destination-conflict"
    # The program.
    INTERNAL_ERROR = "internal-error"
    WORKER_DIED = "worker-died"
    # Outcome `failed`.
    STORAGE_ERROR = "storage-error"
    # Notes on a de-identified object.
    DATE_EMPTIED = "date-emptied"
    TRAILING_BYTES_REMOVED = "trailing-bytes-removed"
    SIGNATURE_REMOVED = "signature-removed"
    RESIDUAL_REMOVED = "residual-removed"
    RESIDUAL_REPORTED = "residual-reported"
    PIXELS_CLEANED = "pixels-cleaned"
    PIXELS_DECOMPRESSED = "pixels-decompressed"
    PIXEL_RISK_ALLOWED = "pixel-risk-allowed"

    @property
    def advice(self) -> Advice:
        """Meaning of the code, and what to do about it."""
        return _ADVICE[self]


_ADVICE = {
    Reason.EMPTY_OBJECT: Advice("The object has no bytes.", "Send it again from its source."),
    Reason.NOT_DICOM: Advice(
        "The object is not DICOM.", "Move it out of the source prefix, or leave it there: it is never copied."
    ),
    Reason.SYSTEM_FILE: Advice(
        "The object is a file that macOS adds to folders and archives (._name, .DS_Store); it is excluded.", "Nothing."
    ),
    Reason.DICOMDIR: Advice(
        "A DICOMDIR is an index of files in a file set.",
        "Nothing. If one is needed, create it from the de-identified objects.",
    ),
    Reason.TRUNCATED: Advice("The object ends in the middle of an element.", "Send it again from its source."),
    Reason.MALFORMED: Advice(
        "An element does not follow the encoding rules of PS3.5.",
        "Inspect the object at the tag path and offset in the audit. Repair it, or send it again from its source.",
    ),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: Advice(
        "The transfer syntax is unknown or private.", "Configure the source to send a standard transfer syntax."
    ),
    Reason.UNSUPPORTED_CHARACTER_SET: Advice(
        "A value that a rule reads cannot be decoded in the object's character set.",
        "Correct SpecificCharacterSet (0008,0005) at the source.",
    ),
    Reason.NESTING_TOO_DEEP: Advice("Sequences are nested deeper than 64 levels.", "Inspect the object."),
    Reason.INFLATED_TOO_LARGE: Advice("A deflated object inflates beyond the limit.", "Inspect the object."),
    Reason.HEADER_TOO_LARGE: Advice(
        "The elements of a large object, without its pixel data, exceed the memory limit.",
        "Inspect the object.",
    ),
    Reason.OBJECT_VANISHED: Advice(
        "The object was deleted after it was listed.", "Nothing, if the deletion was intended."
    ),
    Reason.OBJECT_CHANGED: Advice(
        "The object was overwritten after it was listed.", "Nothing. The next run processes the new version."
    ),
    Reason.OBJECT_DAMAGED: Advice(
        "The bytes of the object differ from its ETag, each time that they are read.",
        "Send it again from its source, and check the store.",
    ),
    Reason.CONTAINER_DAMAGED: Advice(
        "The zip, tar or gzip file cannot be read, or ends too early.", "Send it again from its source."
    ),
    Reason.CONTAINER_ENCRYPTED: Advice(
        "The member of the zip file is encrypted.", "Unpack it, and put its objects into the source."
    ),
    Reason.CONTAINER_UNSUPPORTED: Advice(
        "The member is compressed in another way than deflate, or is a link or a sparse file, or the archive is one "
        "volume of several.",
        "Unpack it, and put its objects into the source.",
    ),
    Reason.CONTAINER_BOMB: Advice(
        "The member inflates to far more than any image, or shares its bytes with another one.",
        "Look at the file before you unpack it: it may have been made to do harm.",
    ),
    Reason.CONTAINER_PATH: Advice(
        "The name of the member leads out of the container.",
        "Look at the file before you unpack it; put its objects into the source under plain names.",
    ),
    Reason.CONTAINER_NESTED: Advice(
        "The container is in a container that is in another one.",
        "Unpack the outermost, and put its members into the source.",
    ),
    Reason.CONTAINER_INCOMPLETE: Advice(
        "The tar file has no end, or something that is no member after it: it may have been cut between two members. "
        "The members that it has are processed.",
        "Compare it with its source, and send it again if it was cut. If its writer always leaves the end out, exclude "
        "it on the quarantine page.",
    ),
    Reason.CONTAINER_TOO_LARGE: Advice(
        "The list of its members does not fit into the memory that the list of some 650,000 takes.",
        "Split it into several, or unpack it, and put its objects into the source.",
    ),
    Reason.ARCHIVED: Advice(
        "The object is in an archive tier of the store.",
        "Restore it, or let the run request that with restore=request. The next run processes it.",
    ),
    Reason.MISSING_IDENTIFIER: Advice(
        "An identifier that the destination key or a rule needs is absent or empty.",
        "Correct the object at its source, or use a destination template without it.",
    ),
    Reason.FUNCTION_FAILED: Advice(
        "A function that the recipe names failed or returned nothing.", "Correct the function."
    ),
    Reason.INVALID_REPLACEMENT: Advice(
        "A replacement is not valid for the element's VR.", "Correct the rule that the audit names."
    ),
    Reason.NOT_ENCODABLE: Advice(
        "A replacement cannot be written in the object's character set.", "Use a replacement of ASCII characters."
    ),
    Reason.RESIDUAL_FOUND: Advice(
        "A value that the rules removed or replaced occurs elsewhere in the object.",
        "Decide on the quarantine page, add a rule for the first element named in the audit, redact it where it is a "
        "description or a comment (free_text: known-originals), or choose another residuals policy.",
    ),
    Reason.BURNED_IN_ANNOTATION: Advice(
        "BurnedInAnnotation is YES and no filter clears it.",
        "Mask or allow the objects on the quarantine page, write a %filter label for the device with "
        "clears burned-in-annotation, or set pixel_risk to ocr.",
    ),
    Reason.TEXT_OUTSIDE_LAYOUT: Advice(
        "The object shows text outside the places where objects of its device have shown text before.",
        "The layout that was learned is no longer used in later runs. Look at the object, and mask or allow it on the "
        "quarantine page; look also at objects of the device that the layout has released.",
    ),
    Reason.PIXEL_RISK: Advice(
        "Objects of this kind often show identifiers in their pixels, and no filter clears this one, or a search has "
        "found text that a decision leaves visible.",
        "The detail names the element. Mask or allow the objects on the quarantine page, add the recipe devices, "
        "write a %filter label for the device with clears pixel-risk, or set pixel_risk to ocr or allow.",
    ),
    Reason.RECOGNIZABLE_VISUAL_FEATURES: Advice(
        "The object states that the patient can be recognised in its pixels.",
        "De-face it before it is released, or allow it on the quarantine page.",
    ),
    Reason.FACE_POSSIBLE: Advice(
        "A CT or MR image whose header says, or does not exclude, that it can show a face. Nothing was de-faced.",
        "De-face the series before it is released, allow it on the quarantine page, or set faces to report or allow.",
    ),
    Reason.PIXEL_DATA_UNREADABLE: Advice(
        "Pixels that a rule must clean cannot be decoded or encoded.",
        "Install the extra codecs, or convert the object.",
    ),
    Reason.ENCAPSULATED_DOCUMENT: Advice(
        "The object holds a document (PDF, CDA, STL) that is not cleaned.",
        "Review and allow it on the quarantine page.",
    ),
    Reason.STRUCTURED_CONTENT: Advice(
        "Content items of a structured report cannot be cleaned with certainty.",
        "Use ps3.15-basic with the option clean-structured-content, or review and allow it on the quarantine page.",
    ),
    Reason.GRAPHIC_CONTENT: Advice(
        "Graphics or overlays may show identifiers.",
        "Choose the option clean-graphics, or review and allow it on the quarantine page.",
    ),
    Reason.VIDEO: Advice(
        "The object is a video; its frames are not cleaned.", "Review it by hand, and allow it on the quarantine page."
    ),
    Reason.DESTINATION_CONFLICT: Advice(
        "A different object exists at the destination key.",
        "Trace the key named in the audit: another object with the same SOP Instance UID, or other rules, wrote it. "
        "Correct the source, or choose another destination prefix.",
    ),
    Reason.STORAGE_ERROR: Advice(
        "Reading or writing failed after all retries.", "Check the object store, then run again."
    ),
    Reason.INTERNAL_ERROR: Advice(
        "An unexpected exception occurred at the line of the program that the detail names.",
        "Report it with the detail. After an upgrade, the next run processes the object again.",
    ),
    Reason.WORKER_DIED: Advice(
        "The worker process died twice while it processed this object, for instance because memory ran out.",
        "Process it with more memory for each worker, or inspect the object.",
    ),
    Reason.DATE_EMPTIED: Advice("A date that cannot be parsed was emptied.", "Nothing."),
    Reason.TRAILING_BYTES_REMOVED: Advice("Bytes after the last element were removed.", "Nothing."),
    Reason.SIGNATURE_REMOVED: Advice("Digital signatures, invalid after a change, were removed.", "Nothing."),
    Reason.RESIDUAL_REMOVED: Advice("A residual identifier was removed.", "Add a rule for the element that held it."),
    Reason.RESIDUAL_REPORTED: Advice(
        "A residual identifier was found and kept, as the policy says.", "Add a rule for the element that holds it."
    ),
    Reason.PIXELS_DECOMPRESSED: Advice(
        "Cleaned pixels were written uncompressed: their transfer syntax cannot be written again without loss.",
        "Nothing. For JPEG baseline, install the extra codecs.",
    ),
    Reason.PIXELS_CLEANED: Advice("Regions of the pixels were blanked.", "Nothing."),
    Reason.PIXEL_RISK_ALLOWED: Advice("An object with pixel risk was released, as the policy says.", "Nothing."),
}
