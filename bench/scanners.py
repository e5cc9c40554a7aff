"""Ordinary CT and MR objects: headers as scanners of several manufacturers and information systems write them."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.support import datasets
from tests.support.datasets import code, element

from dicom_deid.engine.vocabulary.words import common_names


class Scanner(NamedTuple):
    """A model, and what its users call their studies, its series and itself; `#` is a digit."""

    manufacturer: str
    model: str
    studies: tuple[str, ...]
    series: tuple[str, ...]
    station: str


SCANNERS = {
    "CT": (
        Scanner(
            *("SIEMENS", "SOMATOM Definition Flash", ("CT Thorax^Routine (Adult)", "Abdomen^AbdPelvis_CE (Adult)")),
            *(("Topogram 0.6 T20f", "Thorax 1.5 B70f Lunge", "ThorAxial 3.0 I30f 3", "Patientenprotokoll"), "CT#####"),
        ),
        Scanner(
            *("GE MEDICAL SYSTEMS", "LightSpeed VCT", ("CT CHEST W/CONTRAST", "HEAD WO CONT", "C/A/P W IV CONTRAST")),
            *(("STD 2.5MM", "SCOUT", "Recon 2: LUNG", "SMARTPREP"), "ct##"),
        ),
        Scanner(
            *("Canon Medical Systems", "Aquilion ONE", ("CT ANGIO CORONARY", "TAP CE")),
            *(("Body 1.0 CE", "CTA 0.5 CE AIDR 3D"), "Aquilion ONE"),
        ),
        Scanner(
            *("Philips", "Brilliance 64", ("CT Lumbar Spine", "CT Sinuses")),
            *(("Surview", "3mm AXIAL, iDose (3)"), "HOST-#####"),
        ),
    ),
    "MR": (
        Scanner(
            *("SIEMENS", "Skyra", ("Knie^links", "Kopf^Routine", "SPINE^LUMBAR")),
            *(("t2_tse_sag_p4", "t1_mpr_sag_p2_iso", "ep2d_diff_3scan_trace_ADC"), "MRC#####"),
        ),
        Scanner(
            *("GE MEDICAL SYSTEMS", "Signa HDxt", ("MRI BRAIN W & W/O", "MRI L-SPINE")),
            *(("Ax T2 FLAIR", "SAG T1 FSE", "COR STIR", "3-Plane Loc"), "MR##OW0"),
        ),
        Scanner(
            *("Philips Medical Systems", "Ingenia", ("MR Hersenen", "MR Prostate")),
            *(("T2W_TSE_TRA", "DWI_b1000", "sT1W_3D_FFE", "VISTA"), "PHILIPS-####"),
        ),
    ),
}
_NAMES = sorted(name for name in common_names() if len(name) > 1)
_OPERATORS = ("Tech, A", "RT", "KL", "MTRA", "Operator")
_INSTITUTIONS = ("Univ. Klinik Radiologie", "St. Mary Hospital", "General Hospital", "City Imaging Center")


def ordinary(seed: int, modality: str) -> tuple[Scanner, bytes]:
    """Draw an object whose texts say nothing of the person, and return it with its scanner.

    The patient has a common name, and the information system writes the same description into the request, the step
    and the code of the procedure.

    Parameters
    ----------
    modality
        ``CT`` or ``MR``.
    """
    rng = random.Random(f"{seed} {modality}")
    scanner = rng.choice(SCANNERS[modality])
    study, series = rng.choice(scanner.studies), rng.choice(scanner.series)
    written = {
        **dict.fromkeys(
            ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription"), study
        ),
        "SpecificCharacterSet": "ISO_IR 192",
        "Manufacturer": scanner.manufacturer,
        "ManufacturerModelName": scanner.model,
        "SeriesDescription": series,
        "ProtocolName": rng.choice((study, series)),
        "StationName": _numbered(rng, scanner.station),
        "ProcedureCodeSequence": [code(f"X{len(study)}", "99RIS", study)],
        "PatientName": _name(rng),
        "ReferringPhysicianName": _name(rng),
        "OperatorsName": rng.choice(_OPERATORS),
        "PatientID": _numbered(rng, rng.choice(("#######", "MRN#######", "B####"))),
        "StudyID": str(rng.randrange(1, 20000)),
        "AccessionNumber": _numbered(rng, "#######"),
        "RequestedProcedureID": str(rng.randrange(1, 10**6)),
        "InstitutionName": rng.choice(_INSTITUTIONS),
    }
    make = datasets.ct_elements if modality == "CT" else datasets.mr_elements
    elements = {one.tag: one for one in make(seed, rows=8, columns=8)}
    elements |= {one.tag: one for one in (element(keyword, value) for keyword, value in written.items())}
    # Its texts are those of another department.
    del elements[element("RequestAttributesSequence", []).tag]
    return scanner, datasets.part10(
        sorted(elements.values(), key=lambda one: one.tag), datasets.Encoding(codec="utf-8")
    )


def _name(rng: random.Random) -> str:
    name = f"{rng.choice(_NAMES)}^{rng.choice(_NAMES)}"
    return name.upper() if rng.random() < 0.6 else name.title()


def _numbered(rng: random.Random, form: str) -> str:
    return "".join(rng.choice("0123456789") if character == "#" else character for character in form)
