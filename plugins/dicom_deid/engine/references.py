"""UIDs assigned by the standard, and elements whose UID names a class; these never change."""

from __future__ import annotations

from functools import cache

from pydicom._uid_dict import UID_dictionary

# Defined terms of Modality (PS3.3 section C.7.3.1.1.1), those retired included. Another value is free text.
MODALITIES = frozenset(
    (
        *("ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "DX"),
        *("ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO"),
        *("LEN", "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV", "OPTENF", "OPV"),
        *("OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE"),
        *("RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF"),
        *("STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA", "XAPROTOCOL", "XC"),
        *("AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS", "EC", "FA", "FS", "LP", "MA", "MS", "ST", "VF"),
    )
)

# SOP classes of objects that belong to no patient and no study (PS3.4 section GG.3 and annexes): hanging protocols,
# colour palettes, implant templates, defined procedure protocols and their approval, inventories.
NON_PATIENT_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.{last}"
    for last in ("38.1", "39.1", "43.1", "44.1", "45.1", "1.1.200.1", "1.1.200.3", "1.1.200.7", "1.1.201.1")
)

# Endings of the keywords of UI elements that name a class, a syntax, a scheme or a resource, not an instance (PS3.6).
# PS3.15 Table E.1-1 marks all other UI elements U.
_CLASS_KEYWORD_ENDINGS = (
    "ClassUID",
    "ClassesInStudy",
    "ClassesSupported",
    "ContextUID",
    "CodingSchemeUID",
    "MappingResourceUID",
    "CreatorVersionUID",
)


@cache
def well_known_uids() -> frozenset[bytes]:
    """Return every UID that the standard assigns (PS3.6 annex A), encoded."""
    return frozenset(uid.encode("ascii") for uid in UID_dictionary)


def names_a_class(keyword: str) -> bool:
    """Return whether the element's UID names a class, not an instance."""
    return keyword.endswith(_CLASS_KEYWORD_ENDINGS) or "SOPClass" in keyword or "TransferSyntax" in keyword
