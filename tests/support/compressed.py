"""Compressed images for tests."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from tests.support.images import image_dataset

EXPLICIT = "1.2.840.10008.1.2.1"
RLE, JPEG_LS, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
BASELINE, J2K_LOSSY = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
LOSSLESS = (RLE, JPEG_LS, J2K, *JPEG_LOSSLESS, *HTJ2K)


def compressed(dataset: Dataset, syntax: str) -> Dataset:
    if syntax in JPEG_LOSSLESS + HTJ2K:
        return compressed_by_imagecodecs(dataset, syntax)
    # GDCM, which pydicom would take first, aborts on an odd number of pixels in RLE.
    plugin = "pyjpegls" if syntax == JPEG_LS else "pylibjpeg"
    dataset.compress(UID(syntax), encoding_plugin=plugin, generate_instance_uid=False)
    return dataset


def compressed_by_imagecodecs(dataset: Dataset, syntax: str) -> Dataset:
    """Encode in syntaxes that pydicom has no encoder for; of signed samples all bits are encoded."""
    frames = dataset.pixel_array
    frames = frames if dataset.get("NumberOfFrames", 1) > 1 else frames[np.newaxis]
    if syntax in JPEG_LOSSLESS and dataset.PhotometricInterpretation == "YBR_FULL":
        raise ValueError("the encoder marks colours as RGB")
    space = "RGB" if dataset.PhotometricInterpretation == "RGB" else "GRAYSCALE"
    precision = dataset.BitsAllocated if dataset.PixelRepresentation else dataset.BitsStored
    if syntax in HTJ2K:
        encoded = [imagecodecs.htj2k_encode(frame, reversible=True, tlm=True, rgb=False) for frame in frames]
    else:
        encoded = [
            imagecodecs.jpeg8_encode(
                frame.view(f"u{frame.itemsize}"),
                lossless=True,
                bitspersample=precision,
                colorspace=space,
                outcolorspace=space,
            )
            for frame in frames
        ]
    dataset.add_new(0x7FE00010, "OB", encapsulate([bytes(frame) for frame in encoded]))
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def jpeg_dataset(
    rows: int,
    columns: int,
    subsampling: int,
    frames: int = 1,
    *,
    restart: int = 0,
    rgb: bool = False,
    optimize: bool = False,
    progressive: bool = False,
) -> Dataset:
    """An image in JPEG baseline; `subsampling` is Pillow's: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0, -1 for grey."""
    encoded = []
    for frame in range(frames):
        picture = gradient(rows, columns, frame)
        image = Image.fromarray(picture) if subsampling >= 0 else Image.fromarray(picture[..., 0])
        file = io.BytesIO()
        options = {"subsampling": subsampling, "keep_rgb": rgb} if subsampling >= 0 else {}
        options |= {"optimize": optimize, "progressive": progressive}
        image.save(file, "JPEG", quality=85, restart_marker_blocks=restart, **options)
        encoded.append(file.getvalue())
    photometric = "MONOCHROME2" if subsampling < 0 else "RGB" if rgb else "YBR_FULL_422" if subsampling else "YBR_FULL"
    return of_frames(encoded, rows, columns, photometric, BASELINE)


def twelve_bits(rows: int, columns: int, frames: int = 1, *, photometric: str = "MONOCHROME2") -> Dataset:
    """An image in JPEG extended of 12 bits."""
    pictures = [gradient(rows, columns, frame).astype(np.uint16) * 16 for frame in range(frames)]
    if photometric != "RGB":
        encoded = [imagecodecs.jpeg8_encode(picture[..., 0].copy(), level=90, bitspersample=12) for picture in pictures]
    else:
        space = {"colorspace": "RGB", "outcolorspace": "RGB", "subsampling": "444"}
        encoded = [imagecodecs.jpeg8_encode(picture, level=90, bitspersample=12, **space) for picture in pictures]
    return of_frames([bytes(one) for one in encoded], rows, columns, photometric, "1.2.840.10008.1.2.4.51", 12)


def gradient(rows: int, columns: int, seed: int) -> np.ndarray:
    """A coloured picture with noise."""
    noise = np.random.default_rng(seed).normal(0, 10, (rows, columns, 3))
    y, x = np.mgrid[0:rows, 0:columns]
    return np.clip(noise + np.stack([x * 3, y * 3, 255 - x], axis=-1), 0, 255).astype(np.uint8)


def of_frames(
    encoded: list[bytes], rows: int, columns: int, photometric: str, syntax: str, bits_stored: int = 8
) -> Dataset:
    """Return a data set with encoded frames."""
    samples, allocated = 1 if photometric.startswith("MONO") else 3, 8 if bits_stored == 8 else 16
    dataset = image_dataset(
        bytes(rows * columns * samples * len(encoded) * allocated // 8),
        rows=rows,
        columns=columns,
        frames=len(encoded),
        photometric="MONOCHROME2" if samples == 1 else "RGB",
        bits_allocated=allocated,
        bits_stored=bits_stored,
    )
    dataset.PhotometricInterpretation = photometric
    dataset.add_new(0x7FE00010, "OB", encapsulate(encoded))
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset
