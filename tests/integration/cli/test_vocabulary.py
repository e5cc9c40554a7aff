"""`dicom-deid vocabulary report` on a directory: frequent words are listed, names of few patients are not."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from tests.support.datasets import DEFLATED_LE, EXPLICIT_LE, Encoding, element, part10

from dicom_deid.cli import main
from dicom_deid.recipe import Recipe

SURNAMES = ("Quellmann", "Torvelin", "Xanderly", "Ystergaard")


def test_words_of_many_patients_are_reported_and_written(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for patient, surname in enumerate(SURNAMES):
        for number, syntax in enumerate((EXPLICIT_LE, DEFLATED_LE)):
            data = part10(
                [
                    element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
                    element("SOPInstanceUID", f"1.2.3.{patient}.{number}"),
                    element("PatientID", f"P-{patient}"),
                    element("SeriesDescription", f"Zentralklinik knee {surname} 04.07.1963"),
                    # The header is read, not the pixels.
                    element("PixelData", bytes(200_000), "OW"),
                ],
                Encoding(syntax),
            )
            (archive / f"{patient}-{number}.dcm").write_bytes(data)
    (archive / "other.dcm").write_bytes(b"no DICOM")
    written = tmp_path / "site.dicom"
    arguments = ["vocabulary", "report", str(archive), "--patients", "4"]
    printed = CliRunner().invoke(main, [*arguments, "--write", str(written)]).output
    assert "9 objects read, 1 of them unreadable." in printed
    assert "8 texts  zentralklinik" in printed
    assert "4 words of fewer patients" in printed
    assert not any(surname.lower() in printed.lower() for surname in SURNAMES)
    assert Recipe.resolve(written).vocabulary == ("zentralklinik",)
    assert "zentralklinik" not in CliRunner().invoke(main, [*arguments, "--recipe", str(written)]).output
