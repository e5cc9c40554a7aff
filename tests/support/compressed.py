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


def jpeg_dataset(rows: int, columns: int, subsampling: int, frames: int = 1, *, restart: int = 0) -> Dataset:
    """An image in JPEG baseline; `subsampling` is Pillow's: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0, -1 for grey."""
    encoded = []
    for frame in range(frames):
        noise = np.random.default_rng(frame).normal(0, 10, (rows, columns, 3))
        y, x = np.mgrid[0:rows, 0:columns]
        picture = np.clip(noise + np.stack([x * 3, y * 3, 255 - x], axis=-1), 0, 255).astype(np.uint8)
        image = Image.fromarray(picture) if subsampling >= 0 else Image.fromarray(picture[..., 0])
        file = io.BytesIO()
        options = {"subsampling": subsampling} if subsampling >= 0 else {}
        image.save(file, "JPEG", quality=85, restart_marker_blocks=restart, **options)
        encoded.append(file.getvalue())
    grey = subsampling < 0
    dataset = image_dataset(
        bytes(rows * columns * (1 if grey else 3)),
        rows=rows,
        columns=columns,
        frames=frames,
        photometric="MONOCHROME2" if grey else "RGB",
    )
    if not grey:
        dataset.PhotometricInterpretation = "YBR_FULL_422" if subsampling else "YBR_FULL"
    dataset.add_new(0x7FE00010, "OB", encapsulate(encoded))
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(BASELINE)
    return dataset
