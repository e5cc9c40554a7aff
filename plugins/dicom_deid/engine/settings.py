"""What the engine does beside the recipe, in one frozen object."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

PrivatePolicy = Literal["remove", "safe", "keep"]
ResidualPolicy = Literal["off", "report", "redact-token", "remove-element", "quarantine"]
PixelPolicy = Literal["allow", "ocr", "quarantine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the engine: the integrity layer, private elements, the residual search, pixels and limits.

    Parameters
    ----------
    private_elements
        `remove` all, keep those that PS3.15 Table E.3.10-1 calls safe (`safe`), or `keep` all. A private
        element that a
        rule selects follows the rule in any case.
    rebuild_file_meta
        Write the file meta information anew (PS3.10 section 7.1): nothing but what the format requires, and
        a preamble of
        zeros.
    follow_uid_references
        Any element of VR UI that holds an instance, series, study or frame of reference UID is replaced by that UID's
        pseudonym, at any depth, when the recipe replaces UIDs by pseudonyms. Well-known UIDs never change.
    stamp_method
        Write PatientIdentityRemoved, DeidentificationMethod, DeidentificationMethodCodeSequence (for a
        PS3.15 profile) and
        LongitudinalTemporalInformationModified.
    key_empty_identifiers_by_study
        An empty PatientID or StudyID is keyed by the original StudyInstanceUID, so that two patients
        without an identifier
        are not merged. (An empty AccessionNumber always is.)
    remove_signatures
        Remove digital signatures, which are no longer valid, and data set trailing padding, once anything else changes.
    overlays, icon_images, curves
        Keep or remove group 60xx, IconImageSequence and group 50xx.
    residuals
        What to do with an original value that the rules removed or replaced and that stands elsewhere in the object.
    pixel_risk
        What to do with an object that often shows identifiers in its pixels when no `%filter` covers it.
    documents
        What to do with encapsulated documents and structured content that no rule cleans.
    recompress_pixels
        Encode cleaned pixels again in the transfer syntax they came in, where that is lossless; else write
        them uncompressed.
    max_depth
        Sequences nested deeper are quarantined.
    max_inflated_bytes
        A deflated data set that inflates beyond this is quarantined.
    """

    private_elements: PrivatePolicy = "safe"
    rebuild_file_meta: bool = True
    follow_uid_references: bool = True
    stamp_method: bool = True
    key_empty_identifiers_by_study: bool = True
    remove_signatures: bool = True
    overlays: Literal["keep", "remove"] = "keep"
    icon_images: Literal["keep", "remove"] = "keep"
    curves: Literal["keep", "remove"] = "keep"
    residuals: ResidualPolicy = "quarantine"
    pixel_risk: PixelPolicy = "quarantine"
    documents: Literal["allow", "quarantine"] = "quarantine"
    recompress_pixels: bool = True
    max_depth: int = 64
    max_inflated_bytes: int = 4 * 2**30

    @classmethod
    def parity(cls) -> Settings:
        """Return the settings under which the engine does what the `deid` package does, and no more."""
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
        )

    def replace(self, **changes: object) -> Settings:
        """Return a copy with the given fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def digest(self) -> str:
        """SHA-256 of the settings, as 64 hexadecimal digits: the same settings, the same digest."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
