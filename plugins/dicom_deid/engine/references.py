"""UIDs that identify instances, and UIDs of the standard's own that never change."""

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

# Elements of VR UI that name a class, a syntax, a scheme or a resource: what something is, never which one
# (PS3.6; those that PS3.15 Table E.1-1 marks U are all others).
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
    """Whether the element's UID says what something is, and not which one."""
    return keyword.endswith(_CLASS_KEYWORD_ENDINGS) or "SOPClass" in keyword or "TransferSyntax" in keyword
