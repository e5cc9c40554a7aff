"""Settings of the engine that are not part of the recipe."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from dicom_deid.field_checks import check_fields

PrivatePolicy = Literal["remove", "safe", "keep"]
ResidualPolicy = Literal["off", "report", "redact-token", "remove-element", "quarantine"]
UnknownPolicy = Literal["keep", "remove"]
FreeTextPolicy = Literal["keep", "known-originals", "vocabulary"]
FacePolicy = Literal["allow", "report", "hold"]
PixelPolicy = Literal["allow", "ocr", "quarantine"]
CheckPolicy = Literal["decisions", "all", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the engine: integrity of the output, private elements, residual search, pixels and limits.

    Parameters
    ----------
    private_elements
        `remove` all, keep those that PS3.15 Table E.3.10-1 lists as safe (`safe`), or `keep` all. A rule that selects
        a private element always takes precedence.
    unknown_elements
        `keep` or `remove` public elements that the dictionary (PS3.6) does not contain. A rule that selects such an
        element takes precedence.
    rebuild_file_meta
        Rebuild the file meta information (PS3.10 section 7.1) with the required elements only and a preamble of zeros.
    follow_uid_references
        Replace every instance, series, study or frame of reference UID in an element of VR UI, at any depth, by its
        pseudonym if the recipe replaces UIDs by pseudonyms. Well-known UIDs never change.
    stamp_method
        Write PatientIdentityRemoved, DeidentificationMethod, DeidentificationMethodCodeSequence (for a PS3.15 profile)
        and LongitudinalTemporalInformationModified.
    key_empty_identifiers_by_study
        Derive the pseudonym of an empty PatientID or StudyID from the original StudyInstanceUID, so that two patients
        without an identifier are not merged. (An empty AccessionNumber always is.)
    remove_signatures
        Remove digital signatures, which become invalid, and data set trailing padding if anything else changes.
    overlays, icon_images, curves
        Keep or remove group 60xx, IconImageSequence and group 50xx.
    residuals
        Policy for an original value that the rules removed or replaced and that is found elsewhere in the object.
        Under `quarantine` it is redacted where it is the whole value of another identifier, and otherwise holds the
        object.
    free_text
        Free text, such as descriptions and comments, that the rules leave: `keep` it and apply the policy for
        residuals; redact what the residual search finds in it, whatever the policy (`known-originals`); or also mask
        each token that no list, standard or site vouches for (`vocabulary`).
    pixel_risk
        Policy for an object of a kind that often has burned-in identifiers if no `%filter` covers it.
    check_masks
        Search what filters leave visible for text (extra `ocr`), and quarantine the object if there is some, or blank
        it under the policy `ocr`: where a reviewer has decided about the device or the group (`decisions`), also where
        a filter of the recipe blanks pixels (`all`), or nowhere (`none`). An object that a reviewer has decided about
        alone is not searched.
    layout_objects
        Under the policy `ocr`: once so many objects in a row of a device, software version and image size have shown
        text in the same places only, later runs blank these places and search 2 % of the objects; 0 to search all.
    documents
        Policy for encapsulated documents and structured content that no rule cleans.
    faces
        Policy for CT and MR images that can show a face: `allow`, `report` in the audit, or `hold` (quarantine).
    recompress_pixels
        Compress cleaned pixels in their original transfer syntax if that is lossless; otherwise write them
        uncompressed.
    max_inflated_bytes
        Quarantine a deflated data set that inflates to more bytes.
    """

    private_elements: PrivatePolicy = "safe"
    unknown_elements: UnknownPolicy = "keep"
    rebuild_file_meta: bool = True
    follow_uid_references: bool = True
    stamp_method: bool = True
    key_empty_identifiers_by_study: bool = True
    remove_signatures: bool = True
    overlays: Literal["keep", "remove"] = "keep"
    icon_images: Literal["keep", "remove"] = "keep"
    curves: Literal["keep", "remove"] = "keep"
    residuals: ResidualPolicy = "quarantine"
    free_text: FreeTextPolicy = "keep"
    pixel_risk: PixelPolicy = "quarantine"
    check_masks: CheckPolicy = "decisions"
    layout_objects: int = 20
    documents: Literal["allow", "quarantine"] = "quarantine"
    faces: FacePolicy = "report"
    recompress_pixels: bool = True
    max_inflated_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def parity(cls) -> Settings:
        """Return the settings that make the engine behave like the `deid` package."""
        return cls(
            private_elements="keep",
            rebuild_file_meta=False,
            follow_uid_references=False,
            stamp_method=False,
            remove_signatures=False,
            key_empty_identifiers_by_study=False,
            residuals="off",
            pixel_risk="allow",
            documents="allow",
            faces="allow",
        )

    def replace(self, **changes: object) -> Settings:
        """Return a copy with the given fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def digest(self) -> str:
        """SHA-256 of the settings, as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
